"""What an email offers: archives by dataset, which are missing, and their listed SHA256 sums."""

import re
from collections.abc import Collection, Sequence

from workbench import catalog
from workbench.ingest.fetch import DownloadError, expired_message, inspect, stream
from workbench.ingest.links import WHERE_TO_ASK, Links, SignedLink, archive_stem

# The line that the letter of 2021 has in the brain's section, beside its archives.
_SUMS_2021 = {("brain", "2021"): ("SHA256",)}


def wanted(
    links: Sequence[SignedLink], datasets: Sequence[str] = ()
) -> tuple[dict[str, list[SignedLink]], list[str]]:
    """Choose the links that are used, and say which are not; by default of all datasets.

    Returns:
        Dataset, in the catalogue's order, -> its links, all of one generation; notes.

    Raises:
        ValueError: a dataset is unknown or not offered, or none is.
    """
    left_out = links.left_out if isinstance(links, Links) else ()
    notes = [f"left out: {link}" for link in left_out]
    offered: dict[str, list[SignedLink]] = {}
    for link in links:
        if link.dataset and not link.is_checksums:
            offered.setdefault(link.dataset, []).append(link)
        elif not link.is_checksums:
            notes.append(f"{link.name}: belongs to no known dataset, left out")
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
    found = {}
    for name in (each for each in catalog.DATASETS if each in (datasets or offered)):
        # Two generations hold the same volumes twice: the more complete one is taken.
        by_generation: dict[str, list[SignedLink]] = {}
        for link in sorted(offered[name], key=lambda each: each.generation, reverse=True):
            by_generation.setdefault(link.generation, []).append(link)
        best = min(by_generation, key=lambda each: len(missing(name, by_generation[each])))
        found[name] = by_generation[best]
        if others := len(offered[name]) - len(found[name]):
            notes.append(f"{name}: links of {best} are used, {others} older or newer not")
    return found, notes


def missing(name: str, links: Sequence[SignedLink]) -> tuple[str, ...]:
    """List the archives of a release that links of one generation lack."""
    return _lacking(catalog.DATASETS[name].releases.get(links[0].generation, ()), links)


def completeness(links: Sequence[SignedLink]) -> tuple[str, ...]:
    """Say how much of fastMRI's letter is there: the lines of each section, and the SHA256 line.

    A section is an anatomy's. Of two generations of its links the more complete one counts. The
    letter of 2021 has SHA256 as the last of the brain's seven lines; later ones count it apart.
    """
    has_sums = any(link.is_checksums for link in links)
    said = []
    for anatomy in dict.fromkeys(each.anatomy for each in catalog.DATASETS.values()):
        named = {name for name, each in catalog.DATASETS.items() if each.anatomy == anatomy}
        section = [
            link
            for link in links
            if ((anatomy, link.generation) in _SUMS_2021 and link.is_checksums)
            or (link.dataset in named and not link.is_checksums)
        ]
        counts = [
            _counted(anatomy, named, [each for each in section if each.generation == generation])
            for generation in sorted({link.generation for link in section}, reverse=True)
        ]
        if counts:
            said.append(min(counts)[1])
        elif any(catalog.DATASETS[name].releases for name in named):
            said.append(f"{anatomy}: the whole section is missing; ask for it at {WHERE_TO_ASK}")
    there = "is there" if has_sums else "is missing: archives are unpacked without a check by hash"
    return (*said, f"SHA256: the line {there}")


def _counted(
    anatomy: str, named: Collection[str], section: Sequence[SignedLink]
) -> tuple[int, str]:
    """Return how many lines a section's links of one generation lack, and say so."""
    generation = section[0].generation
    releases = (catalog.DATASETS[name].releases for name in named)
    listed = [stem for release in releases for stem in release.get(generation, ())]
    listed += _SUMS_2021.get((anatomy, generation), ())
    if not listed:
        lines = "line" if len(section) == 1 else "lines"
        return 0, f"{anatomy}: {len(section)} {lines} ({generation}); nobody has published how many"
    lacks = len(_lacking(listed, section))
    text = f"{anatomy}: {len(listed) - lacks} of {len(listed)} lines of {generation}"
    return lacks, text if lacks else f"{text}, complete"


def _lacking(stems: Sequence[str], links: Sequence[SignedLink]) -> tuple[str, ...]:
    """Return the archives among some that no link is for, by its name or its object's."""
    there = {archive_stem(name) for link in links for name in (link.object_name, link.name)}
    return tuple(stem for stem in stems if stem not in there)


Sums = dict[tuple[str, str], str]
"""SHA256 sums in hex that fastMRI lists, by folder in the bucket and file name."""


def read_sums(links: Sequence[SignedLink]) -> tuple[Sums, list[str]]:
    """Read lists in the form of GNU's ``sha256sum``; return notes of those that cannot be read."""
    sums: Sums = {}
    notes = []
    for link in links:
        try:
            if link.expired:
                raise DownloadError(f"{link.name}: {expired_message(link)}")
            remote = inspect(link)
            if remote.size > 16 << 20:
                raise DownloadError(f"{link.name}: too large for a list of sums")
            text = b"".join(stream(remote)).decode("utf-8-sig", "replace")
            lines = re.findall(r"^\\?([0-9a-fA-F]{64})[ \t]+\*?(\S.*?)\s*$", text, re.M)
            if not lines:
                raise DownloadError(f"{link.name}: no line of it is a SHA256 sum and a file's name")
        except DownloadError as error:
            notes.append(f"{error}. Without this list its archives count as not listed")
            continue
        folder = link.object_path.rpartition("/")[0]
        for digest, path in lines:
            sums[folder, path.rpartition("/")[2]] = digest.lower()
    return sums, notes


def sum_of(link: SignedLink, sums: Sums) -> str | None:
    """Return the sum of an archive: from the list in its own folder, else from any list."""
    own = link.object_path.rpartition("/")[0]
    ranked = sorted(sums, key=lambda key: key[0] != own)
    # The last for an object whose name lost its ".xz".
    for names in ({link.object_name, link.name}, {f"{link.object_name}.xz"}):
        for folder, name in ranked:
            if name in names:
                return sums[folder, name]
    return None
