"""Plan an ingest: what the email offers, what is there already, what it takes, before any work."""

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum

from workbench.ingest import archives, xz
from workbench.ingest.archives import largest_content, too_large
from workbench.ingest.factory_copy import COPY_SPEED, FactoryPlace
from workbench.ingest.fetch import (
    PATIENT,
    DownloadError,
    Patience,
    Remote,
    expired_message,
    inspect,
)
from workbench.ingest.links import SignedLink
from workbench.ingest.manifest import ArchiveRecord, Manifest
from workbench.ingest.offer import Sums, missing, read_sums, wanted
from workbench.progress import amount, duration
from workbench.settings import shown
from workbench.stores import Entry, Store

# How many bytes come out of one byte of gzip, which does not say; k-space hardly shrinks.
_GZIP_RATIO = 1.5
_XZ_RATIO = 2.1


class Action(Enum):
    """What is to be done with an archive, as people read it."""

    NOTHING = "nothing, it is there"
    UNPACK = "verify and unpack the kept archive"
    FETCH = "fetch"
    REFUSE = "cannot be done"
    EXPIRED = "link expired"


@dataclass(frozen=True)
class PlannedArchive:
    """One archive and what is to be done with it.

    Attributes:
        link: where it comes from.
        action: what is to be done.
        kind: extension by its first bytes, ".tar", ".tar.gz" or ".tar.xz"; "" where unknown.
        size: bytes of the archive; 0 where unknown.
        there: bytes of it that a broken download left.
        kept: name of the kept archive that is to be unpacked.
        unpacked: bytes that it unpacks to; 0 where there is nothing to do.
        exact: whether ``unpacked`` is known, not estimated.
        sha256: hash that fastMRI lists for it, or None.
        remote: what the server says of it; None where it was not asked.
        problem: why it cannot be brought in, and what to do; "" where it can.
    """

    link: SignedLink
    action: Action
    kind: str = ""
    size: int = 0
    there: int = 0
    kept: str = ""
    unpacked: int = 0
    exact: bool = True
    sha256: str | None = None
    remote: Remote | None = None
    problem: str = ""

    @property
    def download(self) -> int:
        """Bytes still to come."""
        return self.size - self.there if self.action is Action.FETCH else 0


@dataclass(frozen=True)
class DatasetPlan:
    """One dataset.

    Attributes:
        name: its folder.
        generation: generation of the links, "2021" or "2025".
        archives: what the email offers of it.
        missing: archives of that generation that the email lacks.
    """

    name: str
    generation: str
    archives: tuple[PlannedArchive, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class IngestPlan:
    """Everything that an ingest would do.

    Attributes:
        store: the store that holds the datasets.
        factory: where to make the Data Factory that fetches; None fetches by HTTP, from here.
        datasets: in the order of the catalogue.
        keep_archives: whether the archives stay in ``NAME_compressed``.
        accept_mismatch: stems of archives to unpack although their hash differs from the list.
        need: bytes of disk that it takes, in part by estimate.
        least: bytes of disk that it takes for certain.
        free: bytes of disk that are free; None where there is no limit.
        notes: what the reader should know of the email.
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

    @property
    def archives(self) -> list[PlannedArchive]:
        """All archives of all datasets."""
        return [archive for dataset in self.datasets for archive in dataset.archives]

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
    patience: Patience = PATIENT,
    now: datetime | None = None,
) -> IngestPlan:
    """Find out what there is to do, without changing anything.

    Args:
        links: what ``parse_links`` found.
        store: the store that holds the datasets.
        datasets: names of those to bring in; empty for all that the links offer.
        factory: where to make the Data Factory that fetches; None fetches by HTTP, from here.
        keep_archives: whether to keep each archive beside what it holds.
        accept_mismatch: stems of archives to unpack although their hash differs from the list.
        patience: how long to bear with fastMRI's server.
        now: the time against which links expire; by default the clock's.

    Raises:
        ValueError: an unknown dataset, one without links, or every link needed has expired.
        OSError: the store refuses or cannot be reached.
    """
    now = now or datetime.now(UTC)
    parts, notes = wanted(links, datasets)
    notes += factory.notes if factory else ()
    sums = read_sums([link for link in links if link.is_checksums], patience, now)
    found = {part.dataset: _Found.of(store, part.dataset) for part in parts}
    notes += [each.manifest.problem for each in found.values() if each.manifest.problem]
    planner = _Planner(found, factory is not None, tuple(accept_mismatch), sums, patience, now)
    needed = [link for part in parts for link in part.links]
    with ThreadPoolExecutor(8, "plan") as threads:
        planned = dict(zip(needed, threads.map(planner.plan, needed), strict=True))
    expired = [link for link, each in planned.items() if each.action is Action.EXPIRED]
    if expired and all(
        each.action in (Action.EXPIRED, Action.NOTHING) for each in planned.values()
    ):
        raise ValueError(f"{expired[0].name}: {expired_message(expired[0])}")
    if any(each.action is Action.FETCH for each in planned.values()):
        notes += sums.problems
    if factory:
        notes += _short_lived(planned.values(), now)
    plans = tuple(
        DatasetPlan(
            part.dataset,
            part.generation,
            tuple(planned[link] for link in part.links),
            missing(part.dataset, part.links),
        )
        for part in parts
    )
    need, least = _space(plans, found, keep_archives)
    return IngestPlan(
        store, factory, plans, keep_archives, tuple(accept_mismatch), need, least, store.free(),
        tuple(notes),
    )  # fmt: skip


def _short_lived(planned: Collection[PlannedArchive], now: datetime) -> list[str]:
    """Name the links that will expire before a careful copy would be through."""
    notes = []
    for archive in planned:
        link = archive.link
        takes = timedelta(seconds=archive.size / COPY_SPEED)
        if archive.action is Action.FETCH and link.expires and link.expires < now + takes:
            left = (link.expires - now).total_seconds()
            notes.append(
                f"{link.name}: its link ends in {duration(left)}, and copying "
                f"{amount(archive.size, 'B')} may take {duration(takes.total_seconds())}: a copy "
                "that breaks after that cannot be taken up; new links are safer"
            )
    return notes


# ---- one archive -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Found:
    """What the store holds of a dataset.

    Attributes:
        manifest: its manifest.
        members: path -> entry of what lies in its folder.
        folder: the folder of its archives.
        archives: name -> entry of those.
    """

    manifest: Manifest
    members: dict[str, Entry]
    folder: Store
    archives: dict[str, Entry]

    @classmethod
    def of(cls, store: Store, dataset: str) -> "_Found":
        members, kept = store.folder(dataset), store.folder(archive_folder(dataset))
        return cls(
            Manifest(members),
            {entry.path: entry for entry in members.list()},
            kept,
            {entry.path: entry for entry in kept.list()},
        )

    def whole(self, names: Sequence[str], size: int) -> str:
        """Return the first of some archives that is there with all its bytes, or ""."""
        there = self.archives
        return next((name for name in names if name in there and there[name].size == size), "")


@dataclass(frozen=True)
class _Planner:
    found: Mapping[str, _Found]
    by_factory: bool
    accept_mismatch: tuple[str, ...]
    sums: Sums
    patience: Patience
    now: datetime

    def plan(self, link: SignedLink) -> PlannedArchive:
        """Find out what there is to do for one archive."""
        found = self.found[str(link.dataset)]
        record = found.manifest.get(link.stem)
        # A later email may come without the list.
        listed = self.sums.of(link) or (record.listed if record else "") or None
        if record and self._through(link, record, listed, found):
            return PlannedArchive(link, Action.NOTHING, size=record.size, sha256=listed)
        if record:
            kinds = (link.stem + kind for kind in archives.KINDS)
            if kept := found.whole([*filter(None, [record.archive]), *kinds], record.size):
                return self._kept(link, record, kept, listed, found)
        if link.expired(self.now):
            problem = f"{link.name}: {expired_message(link)}"
            return PlannedArchive(link, Action.EXPIRED, problem=problem)
        try:
            return self._remote(link, record, listed, found)
        except DownloadError as error:
            return PlannedArchive(link, Action.REFUSE, problem=str(error))

    def _through(
        self, link: SignedLink, record: ArchiveRecord, listed: str | None, found: _Found
    ) -> bool:
        """Say whether an archive came through whole and, where its hash differs, accepted."""
        # Fetched by HTTP, a kept archive of another hash is not unpacked.
        unpacked = bool(record.members) and (record.archive is None or self.by_factory)
        accepted = record.check == "mismatch" and unpacked and link.stem in self.accept_mismatch
        return (record.is_unpacked_for(listed) or accepted) and all(
            record.is_as_unpacked(found.manifest.folder, path, found.members.get(path))
            for path in record.members
        )

    def _kept(
        self, link: SignedLink, record: ArchiveRecord, kept: str, listed: str | None, found: _Found
    ) -> PlannedArchive:
        with closing(found.folder.source(kept, record.size)) as source:
            kind = archives.sniff(source.read(0, archives.HEAD)) or ""
        wrong = bool(record.sha256) and listed not in (None, record.sha256)
        if wrong and link.stem not in self.accept_mismatch:
            problem = mismatch_message(link, record.sha256, str(listed), found.folder, kept)
            return PlannedArchive(
                link, Action.REFUSE, kind, record.size, sha256=listed, problem=problem
            )
        return self._unpack(link, kind, record.size, kept, listed, found)

    def _unpack(
        self,
        link: SignedLink,
        kind: str,
        size: int,
        kept: str,
        listed: str | None,
        found: _Found,
        remote: Remote | None = None,
    ) -> PlannedArchive:
        with closing(found.folder.source(kept, size)) as source:
            unpacked, exact = _unpacked(kind, size, source.read)
        return PlannedArchive(
            link, Action.UNPACK, kind, size, 0, kept, unpacked, exact, listed, remote
        )

    def _remote(
        self, link: SignedLink, record: ArchiveRecord | None, listed: str | None, found: _Found
    ) -> PlannedArchive:
        remote = inspect(link, self.patience)
        size, kind = remote.size, archives.sniff(remote.head)
        if kind is None:
            problem = (
                f"{link.name}: neither tar nor gzip nor xz, it begins with {remote.head[:8]!r}: "
                "it is broken at its source, or the link leads to something else"
            )
            return PlannedArchive(link, Action.REFUSE, size=size, problem=problem)
        # Brought there by other means, or by a run that was killed before it could take note.
        same = record is not None and record.same_object(size, remote.version)
        kept = found.whole([link.stem + kind, link.name], size) if same or not record else ""
        if kept:
            return self._unpack(link, kind, size, kept, listed, found, remote)
        there = found.archives.get(partial_name(link)) if same else None
        read = remote.read if remote.ranges else None
        unpacked, exact = _unpacked(kind, size, read)
        largest = largest_content(size)
        if exact and largest is not None and unpacked > largest:
            problem = too_large(link.name, unpacked)
            return PlannedArchive(link, Action.REFUSE, kind, size, problem=problem)
        return PlannedArchive(
            link,
            Action.FETCH,
            kind,
            size,
            there=min(there.size, size) if there else 0,
            unpacked=unpacked,
            exact=exact,
            sha256=listed,
            remote=remote,
        )


def mismatch_message(
    link: SignedLink, came: str, listed: str, folder: Store, kept: str | None
) -> str:
    """Say that an archive's hash differs from the list, and what to do.

    Args:
        link: the archive.
        came: the hash that it has.
        listed: the hash that fastMRI lists.
        folder: the folder of the archives.
        kept: its name there; None where it is not kept.
    """
    file = f"{shown(folder.address)}/{kept}"
    where = f"kept as {file}" if kept else "its members are unpacked"
    remove = f"remove {file} and run again" if kept else "run again with keep_archives=True"
    return (
        f"{link.name}: its SHA256 is {came[:12]}... and fastMRI lists {listed[:12]}...; {where}: "
        f"{remove} to fetch it anew; where it stays so and you trust the archive all the same, "
        f"give accept_mismatch={link.stem!r}"
    )


def _unpacked(kind: str, size: int, read: Callable[[int, int], bytes] | None) -> tuple[int, bool]:
    """Return the bytes that an archive unpacks to, and whether that is certain."""
    if kind == ".tar":
        return size, True
    if kind == ".tar.gz":
        return int(size * _GZIP_RATIO), False
    known = xz.unpacked_size(size, read) if read else None
    return (known, True) if known is not None else (int(size * _XZ_RATIO), False)


def _space(
    plans: Sequence[DatasetPlan], found: Mapping[str, _Found], keep_archives: bool
) -> tuple[int, int]:
    """Return the bytes of disk that plans take, with estimates and without."""
    need = least = 0
    for plan in plans:
        kept = sum(a.download for a in plan.archives if keep_archives or a.there)
        unpacked = sum(a.unpacked for a in plan.archives)
        certain = sum(a.unpacked for a in plan.archives if a.exact)
        # What lies there already of the archives that are to be unpacked.
        stems = {a.link.stem for a in plan.archives if a.unpacked}
        recorded = found[plan.name].manifest.members(without=stems)
        members = found[plan.name].members.values()
        there = sum(entry.size for entry in members if entry.path not in recorded) if stems else 0
        need += kept + max(0, unpacked - there)
        least += kept + max(0, certain - there)
    return need, least
