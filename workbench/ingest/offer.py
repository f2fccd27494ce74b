"""What an email offers: archives by dataset, which are missing, and their listed SHA256 sums."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from workbench import catalog
from workbench.ingest.fetch import DownloadError, Patience, expired_message, inspect, stream
from workbench.ingest.links import Links, SignedLink


def by_dataset(links: Sequence[SignedLink]) -> dict[str, list[SignedLink]]:
    """Sort archives by the dataset that they belong to."""
    offered: dict[str, list[SignedLink]] = {}
    for link in links:
        if link.dataset and not link.is_checksums:
            offered.setdefault(link.dataset, []).append(link)
    return offered


def chosen(
    datasets: Sequence[str],
    offered: dict[str, list[SignedLink]],
    left_out: Sequence[str] = (),
) -> list[str]:
    """Return the datasets to bring in, in the catalogue's order; all that are offered by default.

    Raises:
        ValueError: one is unknown or not offered, or there is none at all.
    """
    for name in datasets:
        if name not in catalog.DATASETS:
            raise ValueError(f"datasets={name!r}: give one of {', '.join(catalog.DATASETS)}")
        if name not in offered:
            has = ", ".join(offered) or "none"
            broken = "".join(f"; left out: {link}" for link in left_out)
            raise ValueError(
                f"datasets={name!r}: the text has no link for it; it has {has}{broken}"
            )
    if not offered:
        raise ValueError("the text has signed links, but none for an archive of fastMRI")
    return [name for name in catalog.DATASETS if name in (datasets or offered)]


@dataclass(frozen=True)
class Wanted:
    """The links of one dataset that are used.

    Attributes:
        dataset: the dataset's name.
        generation: of the links.
        links: in the email's order.
    """

    dataset: str
    generation: str
    links: tuple[SignedLink, ...]


def wanted(links: Sequence[SignedLink], datasets: Sequence[str]) -> tuple[list[Wanted], list[str]]:
    """Choose the links that are used, and say which are not.

    Args:
        links: what ``parse_links`` found.
        datasets: names of those to bring in; empty for all that the links offer.

    Raises:
        ValueError: a dataset is unknown or not offered.
    """
    offered = by_dataset(links)
    left_out = links.left_out if isinstance(links, Links) else ()
    found = []
    notes = [f"left out: {link}" for link in left_out]
    notes += [
        f"{link.name}: belongs to no known dataset, left out"
        for link in links
        if link.dataset is None and not link.is_checksums
    ]
    for name in chosen(datasets, offered, left_out):
        generation, kept, left = one_generation(name, offered[name])
        found.append(Wanted(name, generation, tuple(kept)))
        if left:
            notes.append(f"{name}: links of {generation} are used, {len(left)} older or newer not")
    return found, notes


def one_generation(
    name: str, links: list[SignedLink]
) -> tuple[str, list[SignedLink], list[SignedLink]]:
    """Choose one generation where the text has both: they hold the same volumes twice."""
    generations = sorted({link.generation for link in links}, reverse=True)
    best = min(
        generations, key=lambda g: len(missing(name, [x for x in links if x.generation == g]))
    )
    kept = [link for link in links if link.generation == best]
    return best, kept, [link for link in links if link.generation != best]


def missing(name: str, links: Sequence[SignedLink]) -> tuple[str, ...]:
    """List the archives of a release that the links lack."""
    stems = {stem for link in links for stem in (link.stem, _object_stem(link))}
    release = catalog.DATASETS[name].releases.get(links[0].generation, ())
    return tuple(stem for stem in release if stem not in stems)


def _object_stem(link: SignedLink) -> str:
    return re.sub(r"\.(tar|t[gx]z)\b.*$", "", link.object_name)


@dataclass(frozen=True)
class Sums:
    """SHA256 sums that fastMRI lists.

    Attributes:
        listed: (folder in the bucket, file name) -> SHA256 in hex.
        problems: lists that could not be read, and why.
    """

    listed: dict[tuple[str, str], str]
    problems: tuple[str, ...] = ()

    def of(self, link: SignedLink) -> str | None:
        """Return the sum of an archive: from the list in its own folder, else from any list."""
        own = link.object_path.rpartition("/")[0]
        ranked = sorted(self.listed, key=lambda key: key[0] != own)
        # The last for an object whose name lost its ".xz".
        for names in ({link.object_name, link.name}, {f"{link.object_name}.xz"}):
            for folder, name in ranked:
                if name in names:
                    return self.listed[folder, name]
        return None


def read_sums(links: Sequence[SignedLink], patience: Patience, now: datetime) -> Sums:
    """Read lists in the form of GNU's ``sha256sum``; there can be one for each anatomy."""
    sums: dict[tuple[str, str], str] = {}
    notes = []
    for link in links:
        try:
            if link.expired(now):
                raise DownloadError(f"{link.name}: {expired_message(link)}")
            remote = inspect(link, patience)
            if remote.size > 16 << 20:
                raise DownloadError(f"{link.name}: too large for a list of sums")
            text = b"".join(stream(remote)).decode("utf-8", "replace")
        except DownloadError as error:
            notes.append(f"{error}. Without this list its archives count as not listed")
            continue
        folder = link.object_path.rpartition("/")[0]
        for digest, path in re.findall(r"^\\?([0-9a-fA-F]{64})[ \t]+\*?(\S.*?)\s*$", text, re.M):
            sums[folder, path.rpartition("/")[2]] = digest.lower()
    return Sums(sums, tuple(notes))
