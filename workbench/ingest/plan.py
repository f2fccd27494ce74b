"""Plan an ingest: what the email offers, what is there already, what it takes, before any work."""

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import Enum

from workbench.ingest import archives, xz
from workbench.ingest.archives import largest_content, too_large
from workbench.ingest.factory_copy import COPY_SPEED, FactoryPlace
from workbench.ingest.fetch import DownloadError, Remote, expired_message, inspect
from workbench.ingest.links import SignedLink
from workbench.ingest.manifest import ArchiveRecord, Manifest, mark_of
from workbench.ingest.offer import completeness, missing, read_sums, sum_of, wanted
from workbench.ingest.unpacking import Unpacker
from workbench.progress import amount, duration
from workbench.settings import shown
from workbench.stores import Source, Store

# How many bytes come out of one byte of gzip, which does not say; k-space hardly shrinks.
_GZIP_RATIO, _XZ_RATIO = 1.5, 2.1


class Action(Enum):
    """What is to be done with an archive, as people read it."""

    NOTHING = "nothing, it is there"
    UNPACK = "verify and unpack the kept archive"
    FETCH = "fetch"
    REFUSE = "cannot be done"
    EXPIRED = "link expired"


@dataclass(frozen=True)
class PlannedArchive:
    """One archive and what is to be done with it; sizes are in bytes."""

    link: SignedLink
    action: Action
    kind: str = ""
    """Extension by its first bytes, ".tar", ".tar.gz" or ".tar.xz"; "" where unknown."""
    size: int = 0
    there: int = 0  # of it, what a broken download left
    kept: str = ""
    """Name of the kept archive that is to be unpacked."""
    unpacked: int = 0  # what it unpacks to; 0 where there is nothing to do
    exact: bool = True  # whether ``unpacked`` is known, not estimated
    sha256: str | None = None  # the hash that fastMRI lists for it
    remote: Remote | None = None  # the object on the server; None where it was not asked
    problem: str = ""
    """Why it cannot be brought in, and what to do."""
    marks: dict[str, int | str] = field(default_factory=dict, compare=False)
    """Path -> ``mark_of`` the members of an archive that is there, as they were looked at."""

    @property
    def download(self) -> int:
        """Bytes still to come."""
        return self.size - self.there if self.action is Action.FETCH else 0


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset: its archives in the email, and those of their generation that it lacks."""

    name: str
    generation: str
    archives: tuple[PlannedArchive, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class IngestPlan:
    """Everything that an ingest would do; see ``make_plan``. It prints as where and how much.

    Of the disk it takes ``need`` bytes by estimate, ``least`` for certain; ``free`` are free, None
    where there is no limit.
    """

    store: Store
    factory: FactoryPlace | None
    datasets: tuple[DatasetPlan, ...]
    keep_archives: bool
    accept_mismatch: tuple[str, ...]
    need: int
    least: int
    free: int | None
    notes: tuple[str, ...]
    email: tuple[str, ...] = ()  # how much of fastMRI's letter is there
    unpacker: Unpacker | None = field(default=None, compare=False)
    """Verifies and unpacks what a Data Factory landed; None where this machine does."""

    def __repr__(self) -> str:
        return f"IngestPlan({self.space()})"

    @property
    def archives(self) -> list[PlannedArchive]:
        """All archives of all datasets."""
        return [archive for dataset in self.datasets for archive in dataset.archives]

    @property
    def to_unpack(self) -> list[PlannedArchive]:
        """Archives that are to be verified and unpacked, brought here before or now."""
        return [each for each in self.archives if each.action in (Action.FETCH, Action.UNPACK)]

    def space(self) -> str:
        """Say where it goes, how much there is to fetch, and how much disk it takes."""
        fetch = [archive for archive in self.archives if archive.action is Action.FETCH]
        size = sum(archive.download for archive in fetch)
        text = f"{shown(self.store.address)}: {len(fetch)} archives to fetch"
        text += f", {amount(size, 'B')}" if fetch else ""
        if fetch and self.factory:
            slowest = max(archive.size for archive in fetch) / COPY_SPEED
            text += (
                f", side by side, by a Data Factory in {self.factory.location}: some "
                f"{duration(slowest)} for the largest at {amount(COPY_SPEED, 'B')}/s"
            )
        if self.free is None:
            return text
        about = "" if self.need == self.least else "about "
        text += (
            f"; needs {about}{amount(self.need, 'B')} of disk, {amount(self.free, 'B')} are free"
        )
        return text if self.need <= self.free else f"{text}: {self._advice()}"

    def _advice(self) -> str:
        less = "keep_archives=False needs less, or choose" if self.keep_archives else "choose"
        return f"{less} fewer datasets, or give a root on a larger disk"

    def check_space(self) -> None:
        """Refuse a plan that does not fit on the disk.

        Raises:
            ValueError: it needs more than is free, and by no mere estimate.
        """
        if self.free is not None and self.least > self.free:
            raise ValueError(
                f"{shown(self.store.address)}: the ingest needs at least "
                f"{amount(self.least, 'B')} of disk and {amount(self.free, 'B')} are free: "
                f"{self._advice()}"
            )


def archive_folder(dataset: str) -> str:
    """Return the folder in which a dataset's archives are kept."""
    return f"{dataset}_compressed"


def partial_name(link: SignedLink) -> str:
    """Return the name of the file that an archive is downloaded to before it is whole."""
    return f"{link.stem}.part"


def make_plan(
    links: Sequence[SignedLink],
    store: Store,
    datasets: Sequence[str] = (),
    *,
    factory: FactoryPlace | None = None,
    keep_archives: bool = True,
    accept_mismatch: Sequence[str] = (),
) -> IngestPlan:
    """Find out what there is to do, without changing anything.

    Args:
        links: what ``parse_links`` found.
        store: the store that holds the datasets.
        datasets: names of those to bring in; empty for all that the links offer.
        factory: where to make the Data Factory that fetches; None fetches by HTTP, from here.
        keep_archives: whether each archive stays, in ``NAME_compressed``.
        accept_mismatch: stems of archives to unpack although their hash differs from the list.

    Raises:
        ValueError: an unknown dataset, one without links, or every link needed has expired.
        OSError: the store refuses or cannot be reached.
    """
    accept = tuple(accept_mismatch)
    by_dataset, notes = wanted(links, datasets)
    notes += factory.notes if factory else ()
    sums, problems = read_sums([link for link in links if link.is_checksums])
    found = {name: _Found(store, name, factory is not None, accept) for name in by_dataset}
    notes += [each.manifest.problem for each in found.values() if each.manifest.problem]

    def planned(link: SignedLink) -> PlannedArchive:
        return found[str(link.dataset)].plan(link, sum_of(link, sums))

    with ThreadPoolExecutor(8, "plan") as threads:
        asked = {name: threads.map(planned, mine) for name, mine in by_dataset.items()}
        plans = tuple(
            DatasetPlan(name, mine[0].generation, tuple(asked[name]), missing(name, mine))
            for name, mine in by_dataset.items()
        )
    every = [archive for plan in plans for archive in plan.archives]
    expired = [archive.problem for archive in every if archive.action is Action.EXPIRED]
    if expired and {each.action for each in every} <= {Action.EXPIRED, Action.NOTHING}:
        raise ValueError(expired[0])
    fetch = [archive for archive in every if archive.action is Action.FETCH]
    notes += problems if fetch else ()
    notes += _short_lived(fetch) if factory else ()
    sizes = [found[plan.name].space(plan.archives, keep_archives) for plan in plans]
    need, least = (sum(size) for size in zip(*sizes, strict=True))
    return IngestPlan(
        *(store, factory, plans, keep_archives, accept, need, least, store.free()),
        tuple(notes),
        completeness(links),
    )


def _short_lived(fetch: Collection[PlannedArchive]) -> list[str]:
    """Name the links that will expire before a careful copy would be through."""
    now, notes = datetime.now(UTC), []
    for archive in fetch:
        link, takes = archive.link, timedelta(seconds=archive.size / COPY_SPEED)
        if link.expires and link.expires < now + takes:
            left = (link.expires - now).total_seconds()
            notes.append(
                f"{link.name}: its link ends in {duration(left)}, and copying "
                f"{amount(archive.size, 'B')} may take {duration(takes.total_seconds())}: a copy "
                "that breaks after that cannot be taken up; new links are safer"
            )
    return notes


class _Found:
    """What the store holds of a dataset: its members, its archives, and its manifest."""

    def __init__(self, store: Store, name: str, by_factory: bool, accept: Sequence[str]) -> None:
        members, self.folder = store.folder(name), store.folder(archive_folder(name))
        self.manifest, self.by_factory, self.accept = Manifest(members), by_factory, accept
        self.members = {entry.path: entry for entry in members.list()}
        self.archives = {entry.path: entry.size for entry in self.folder.list()}

    def plan(self, link: SignedLink, listed: str | None) -> PlannedArchive:
        """Find out what there is to do for one archive, of which a list may name the SHA256."""
        record = self.manifest.get(link.stem)
        if record:
            # A later email may come without the list.
            listed = listed or record.listed or None
            if self._through(link, record, listed):
                marks = {path: mark_of(self.members[path]) for path in record.members}
                return PlannedArchive(
                    link, Action.NOTHING, size=record.size, sha256=listed, marks=marks
                )
            names = [record.archive or "", *(link.stem + kind for kind in archives.KINDS)]
            if kept := self._whole(names, record.size):
                archive = PlannedArchive(link, Action.UNPACK, size=record.size, sha256=listed)
                archive = self._to_unpack(archive, kept)
                wrong = record.sha256 and listed not in (None, record.sha256)
                if not wrong or link.stem in self.accept:
                    return archive
                problem = mismatch_message(link, record.sha256, str(listed), self.folder, kept)
                return replace(
                    archive, action=Action.REFUSE, kept="", unpacked=0, exact=True, problem=problem
                )
        if link.expired:
            problem = f"{link.name}: {expired_message(link)}"
            return PlannedArchive(link, Action.EXPIRED, problem=problem)
        try:
            return self._remote(inspect(link), record, listed)
        except DownloadError as error:
            return PlannedArchive(link, Action.REFUSE, problem=str(error))

    def _through(self, link: SignedLink, record: ArchiveRecord, listed: str | None) -> bool:
        """Say whether an archive came through whole and, where its hash differs, accepted."""
        # Fetched by HTTP, a kept archive of another hash is not unpacked.
        unpacked = bool(record.members) and (record.archive is None or self.by_factory)
        accepted = record.check == "mismatch" and unpacked and link.stem in self.accept
        return (record.is_unpacked_for(listed) or accepted) and all(
            record.is_as_unpacked(self.manifest.folder, path, self.members.get(path))
            for path in record.members
        )

    def _whole(self, names: Sequence[str], size: int) -> str:
        """Return the first of some archives that is there with all its bytes, or ""."""
        return next((name for name in names if self.archives.get(name) == size), "")

    def _to_unpack(self, archive: PlannedArchive, kept: str) -> PlannedArchive:
        with closing(self.folder.source(kept, archive.size)) as source:
            kind = archive.kind or archives.sniff(source.read(0, archives.HEAD)) or ""
            return _estimated(replace(archive, action=Action.UNPACK, kept=kept, kind=kind), source)

    def _remote(
        self, remote: Remote, record: ArchiveRecord | None, listed: str | None
    ) -> PlannedArchive:
        link, size, kind = remote.link, remote.size, archives.sniff(remote.head)
        if kind is None:
            problem = (
                f"{link.name}: neither tar nor gzip nor xz, it begins with {remote.head[:8]!r}: "
                "it is broken at its source, or the link leads to something else"
            )
            return PlannedArchive(link, Action.REFUSE, size=size, problem=problem)
        archive = PlannedArchive(link, Action.FETCH, kind, size, sha256=listed, remote=remote)
        # Brought there by other means, or by a run that was killed before it could take note.
        same = record is not None and record.same_object(size, remote.version)
        kept = self._whole([link.stem + kind, link.name], size) if same or not record else ""
        if kept:
            return self._to_unpack(archive, kept)
        archive = _estimated(archive, remote if remote.ranges else None)
        if archive.exact and archive.unpacked > largest_content(size):
            problem = too_large(link.name, archive.unpacked)
            return PlannedArchive(link, Action.REFUSE, kind, size, problem=problem)
        there = self.archives.get(partial_name(link), 0) if same else 0
        return replace(archive, there=min(there, size))

    def space(self, planned: Sequence[PlannedArchive], keep: bool) -> tuple[int, int]:
        """Return the bytes of disk that archives take, with estimates and without."""
        kept = sum(a.download for a in planned if keep or a.there)
        # What lies there already of the archives that are to be unpacked.
        stems = {a.link.stem for a in planned if a.unpacked}
        others = self.manifest.members(without=stems)
        there = sum(e.size for e in self.members.values() if e.path not in others) if stems else 0
        sizes = (sum(a.unpacked for a in planned if a.exact or about) for about in (True, False))
        need, least = (kept + max(0, size - there) for size in sizes)
        return need, least


def _estimated(archive: PlannedArchive, source: Source | Remote | None) -> PlannedArchive:
    """Say what an archive unpacks to, and whether that is certain."""
    if archive.kind == ".tar":
        return replace(archive, unpacked=archive.size)
    is_xz = archive.kind == ".tar.xz"
    known = xz.unpacked_size(archive.size, source.read) if source and is_xz else None
    about = int(archive.size * (_XZ_RATIO if is_xz else _GZIP_RATIO))
    return replace(archive, unpacked=about if known is None else known, exact=known is not None)


def mismatch_message(
    link: SignedLink, came: str, listed: str, folder: Store, kept: str | None
) -> str:
    """Say that an archive has the hash ``came`` and not the listed one, and what to do.

    ``kept`` is its name in the folder of archives, None where it is not kept.
    """
    file = f"{shown(folder.address)}/{kept}"
    where = f"kept as {file}" if kept else "its members are unpacked"
    remove = f"remove {file} and run again" if kept else "run again with keep_archives=True"
    return (
        f"{link.name}: its SHA256 is {came[:12]}... and fastMRI lists {listed[:12]}...; {where}: "
        f"{remove} to fetch it anew; where it stays so and you trust the archive all the same, "
        f"give accept_mismatch={link.stem!r}"
    )
