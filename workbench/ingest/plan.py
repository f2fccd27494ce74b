"""Plan an ingest: what the email offers, what is there already, what it takes, before any work."""

import shutil
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from workbench.ingest import archives, xz
from workbench.ingest.download import read_at
from workbench.ingest.links import SignedLink
from workbench.ingest.manifest import ArchiveRecord, Manifest
from workbench.ingest.offer import Sums, Wanted, missing, read_sums, wanted
from workbench.ingest.server import (
    PATIENT,
    DownloadError,
    Patience,
    RemoteObject,
    expired_message,
    inspect,
)
from workbench.progress import amount
from workbench.settings import shown

# How many bytes come out of one byte of gzip, which does not say; k-space hardly shrinks.
_GZIP_RATIO = 1.5
_XZ_RATIO = 2.1


@dataclass(frozen=True)
class PlannedArchive:
    """One archive and what is to be done with it.

    Attributes:
        link: where it comes from.
        action: "none" (its members are there), "unpack" (it is kept here, whole), "resume",
            "download", "refuse" or "expired" (see ``problem``).
        kind: extension by its first bytes, ".tar", ".tar.gz" or ".tar.xz"; "" where unknown.
        size: bytes of the archive; 0 where unknown.
        download: bytes still to come.
        unpacked: bytes that it unpacks to; 0 where there is nothing to do.
        exact: whether ``unpacked`` is known, not estimated.
        sha256: hash that fastMRI lists for it, or None.
        remote: what the server says of it; None where it was not asked.
        problem: why it cannot be brought in, and what to do; "" where it can.
    """

    link: SignedLink
    action: str
    kind: str = ""
    size: int = 0
    download: int = 0
    unpacked: int = 0
    exact: bool = True
    sha256: str | None = None
    remote: RemoteObject | None = None
    problem: str = ""


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
        root: folder that holds the datasets.
        datasets: in the order of the catalogue.
        keep_archives: whether the archives stay in ``NAME_compressed``.
        accept_mismatch: stems of archives to unpack although their hash differs from the list.
        need: bytes of disk that it takes, in part by estimate.
        least: bytes of disk that it takes for certain.
        free: bytes of disk that are free.
        notes: what the reader should know of the email.
    """

    root: Path
    datasets: tuple[DatasetPlan, ...]
    keep_archives: bool
    accept_mismatch: tuple[str, ...]
    need: int
    least: int
    free: int
    notes: tuple[str, ...]

    @property
    def archives(self) -> list[PlannedArchive]:
        """All archives of all datasets."""
        return [archive for dataset in self.datasets for archive in dataset.archives]

    def space(self) -> str:
        """Say how much disk it takes and how much there is."""
        about = "" if self.need == self.least else "about "
        text = (
            f"{shown(self.root)}: needs {about}{amount(self.need, 'B')} of disk, "
            f"{amount(self.free, 'B')} are free"
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
        if self.least > self.free:
            raise ValueError(
                f"{shown(self.root)}: the ingest needs at least {amount(self.least, 'B')} of disk "
                f"and {amount(self.free, 'B')} are free: {self._advice()}"
            )


def dataset_folder(root: Path, dataset: str) -> Path:
    """Return where a dataset's members land."""
    return root / dataset


def archive_folder(root: Path, dataset: str) -> Path:
    """Return where a dataset's archives are kept."""
    return root / f"{dataset}_compressed"


def partial_file(root: Path, link: SignedLink) -> Path:
    """Return the file that an archive is downloaded to before it is whole."""
    return archive_folder(root, str(link.dataset)) / f"{link.stem}.part"


def whole_file(root: Path, link: SignedLink, kind: str, size: int) -> Path | None:
    """Return an archive's file that lies there by its size, though no manifest tells of it.

    It was brought by hand, or by a run that was killed just before it could take note.
    """
    folder = archive_folder(root, str(link.dataset))
    for file in (folder / f"{link.stem}{kind}", folder / link.name):
        if file.is_file() and file.stat().st_size == size:
            return file
    return None


def plan_ingest(
    links: Sequence[SignedLink],
    root: Path,
    datasets: Sequence[str] = (),
    *,
    keep_archives: bool = True,
    accept_mismatch: Sequence[str] = (),
    patience: Patience = PATIENT,
    now: datetime | None = None,
) -> IngestPlan:
    """Find out what there is to do, without changing anything.

    Args:
        links: what ``parse_links`` found.
        root: folder that holds the datasets.
        datasets: names of those to bring in; empty for all that the links offer.
        keep_archives: whether to keep each archive beside what it holds.
        accept_mismatch: stems of archives to unpack although their hash differs from the list.
        patience: how long to bear with the server.
        now: the time against which links expire; by default the clock's.

    Raises:
        ValueError: an unknown dataset, one without links, or every link needed has expired.
    """
    now = now or datetime.now(UTC)
    parts, notes = wanted(links, datasets)
    sums = read_sums([link for link in links if link.is_checksums], patience, now)
    manifests = {part.dataset: Manifest(dataset_folder(root, part.dataset)) for part in parts}
    notes += [manifest.problem for manifest in manifests.values() if manifest.problem]
    context = _Context(root, manifests, tuple(accept_mismatch), sums, patience, now)
    plans = plan_archives(parts, context.plan)
    if any(a.action in ("download", "resume") for plan in plans for a in plan.archives):
        notes += sums.problems
    need, least = _space(root, plans, keep_archives)
    return IngestPlan(
        root, plans, keep_archives, tuple(accept_mismatch), need, least, _free(root), tuple(notes)
    )


def plan_archives(
    parts: Sequence[Wanted], plan: Callable[[SignedLink], PlannedArchive]
) -> tuple[DatasetPlan, ...]:
    """Plan every archive, several at a time.

    Args:
        parts: the datasets' links.
        plan: finds out what there is to do for one.

    Raises:
        ValueError: every link that is needed has expired.
    """
    links = [link for part in parts for link in part.links]
    with ThreadPoolExecutor(8, "plan") as threads:
        planned = dict(zip(links, threads.map(plan, links), strict=True))
    expired = [link for link, archive in planned.items() if archive.action == "expired"]
    if expired and all(a.action in ("expired", "none") for a in planned.values()):
        raise ValueError(f"{expired[0].name}: {expired_message(expired[0])}")
    return tuple(
        DatasetPlan(
            part.dataset,
            part.generation,
            tuple(planned[link] for link in part.links),
            missing(part.dataset, part.links),
        )
        for part in parts
    )


# ---- one archive -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Context:
    root: Path
    manifests: dict[str, Manifest]
    accept_mismatch: tuple[str, ...]
    sums: Sums
    patience: Patience
    now: datetime

    def plan(self, link: SignedLink) -> PlannedArchive:
        dataset = str(link.dataset)
        folder = dataset_folder(self.root, dataset)
        record = self.manifests[dataset].get(link.stem)
        # A later email may come without the list.
        listed = self.sums.of(link) or (record.listed if record else "") or None
        if (
            record
            and self._through(link, record, listed)
            and all(record.is_as_unpacked(folder, path) for path in record.members)
        ):
            return PlannedArchive(link, "none", size=record.size, sha256=listed)
        if record and record.archive:
            kept = archive_folder(self.root, dataset) / record.archive
            if kept.is_file() and kept.stat().st_size == record.size:
                return self._kept(link, record, kept, listed)
        if link.expired(self.now):
            return PlannedArchive(link, "expired", problem=f"{link.name}: {expired_message(link)}")
        try:
            return self._remote(link, record, listed)
        except DownloadError as error:
            return PlannedArchive(link, "refuse", problem=str(error))

    def _through(self, link: SignedLink, record: ArchiveRecord, listed: str | None) -> bool:
        """Say whether an archive came through whole and, where its hash differs, accepted."""
        streamed = record.check == "mismatch" and bool(record.members) and record.archive is None
        return record.is_unpacked_for(listed) or (streamed and link.stem in self.accept_mismatch)

    def _kept(
        self, link: SignedLink, record: ArchiveRecord, kept: Path, listed: str | None
    ) -> PlannedArchive:
        kind = archives.sniff(_first_bytes(kept)) or ""

        def read(offset: int, count: int) -> bytes:
            with kept.open("rb") as file:
                file.seek(offset)
                return file.read(count)

        unpacked, exact = _unpacked(kind, record.size, read)
        mismatch = listed is not None and listed != record.sha256
        problem = ""
        if mismatch and link.stem not in self.accept_mismatch:
            problem = mismatch_message(link, record.sha256, str(listed), kept)
        return PlannedArchive(
            link,
            "refuse" if problem else "unpack",
            kind,
            record.size,
            0,
            0 if problem else unpacked,
            exact,
            listed,
            problem=problem,
        )

    def _remote(
        self, link: SignedLink, record: ArchiveRecord | None, listed: str | None
    ) -> PlannedArchive:
        remote = inspect(link, self.patience)
        kind = archives.sniff(remote.head)
        if kind is None:
            problem = (
                f"{link.name}: neither tar nor gzip nor xz, it begins with {remote.head[:8]!r}: "
                "it is broken at its source, or the link leads to something else"
            )
            return PlannedArchive(link, "refuse", size=remote.size, problem=problem)
        there = 0
        partial = partial_file(self.root, link)
        same = record is not None and record.same_object(remote.size, remote.version)
        if same and partial.is_file():
            there = min(partial.stat().st_size, remote.size)
        elif (same or not record) and whole_file(self.root, link, kind, remote.size):
            there = remote.size
        if remote.ranges:
            unpacked, exact = _unpacked(kind, remote.size, read_at(link, remote, self.patience))
        else:
            unpacked, exact = _unpacked(kind, remote.size, None)
        return PlannedArchive(
            link,
            "resume" if there else "download",
            kind,
            remote.size,
            remote.size - there,
            unpacked,
            exact,
            listed,
            remote,
        )


def mismatch_message(link: SignedLink, came: str, listed: str, kept: Path | None) -> str:
    """Say that an archive's hash differs from the list, and what to do."""
    where = f"kept as {shown(kept)}, not unpacked" if kept else "its members are unpacked"
    remove = f"remove {shown(kept)} and run again" if kept else "run again with keep_archives=True"
    return (
        f"{link.name}: its SHA256 is {came[:12]}... and fastMRI lists {listed[:12]}...; {where}: "
        f"{remove} to download it anew; where it stays so and you trust the archive all the same, "
        f"give accept_mismatch={link.stem!r}"
    )


def _unpacked(kind: str, size: int, read: Callable[[int, int], bytes] | None) -> tuple[int, bool]:
    if kind == ".tar":
        return size, True
    if kind == ".tar.gz":
        return int(size * _GZIP_RATIO), False
    known = xz.unpacked_size(size, read) if read else None
    return (known, True) if known is not None else (int(size * _XZ_RATIO), False)


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(archives.HEAD)


# ---- the disk ----------------------------------------------------------------------------


def _space(root: Path, plans: tuple[DatasetPlan, ...], keep_archives: bool) -> tuple[int, int]:
    """Return the bytes of disk that plans take, with estimates and without."""
    need = least = 0
    for plan in plans:
        kept = sum(a.download for a in plan.archives if keep_archives or a.action == "resume")
        unpacked = sum(a.unpacked for a in plan.archives)
        certain = sum(a.unpacked for a in plan.archives if a.exact)
        stems = {a.link.stem for a in plan.archives if a.unpacked}
        there = _unrecorded(dataset_folder(root, plan.name), stems) if unpacked else 0
        need += kept + max(0, unpacked - there)
        least += kept + max(0, certain - there)
    return need, least


def _unrecorded(folder: Path, stems: Collection[str]) -> int:
    """Return the bytes of members that lie there from archives that are to be unpacked."""
    recorded = Manifest(folder).members(without=stems)
    return sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in recorded
    )


def _free(root: Path) -> int:
    return shutil.disk_usage(archives.existing(root)).free
