"""Do what a plan says: fetch, verify and unpack archives, side by side, to be run again."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from workbench.azure_resources import without_secrets
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.factory_copy import Copy, copy_archives
from workbench.ingest.fetch import (
    DownloadError,
    Remote,
    StoppedError,
    download,
    inspect,
    stream_side_by_side,
)
from workbench.ingest.manifest import LOCK, ArchiveRecord, Manifest, mark_of
from workbench.ingest.plan import (
    Action,
    IngestPlan,
    PlannedArchive,
    archive_folder,
    mismatch_message,
    partial_name,
)
from workbench.ingest.report import IngestReport, Outcome, count_volumes
from workbench.ingest.unpacking import unpack_kept, unpack_stream
from workbench.progress import Progress
from workbench.settings import shown
from workbench.stores import CannotWriteError, DiskStore, StorageError, Store
from workbench.stores.disk import disk_is_full
from workbench.stores.streams import as_file, chunks_of, hashed


def ingest(
    plan: IngestPlan,
    *,
    side_by_side: int = 4,
    connections: int = 4,
    report: IngestReport | None = None,
) -> IngestReport:
    """Do what a plan says. One archive's failure stops no other.

    Args:
        plan: from ``make_plan``.
        side_by_side: archives at work at the same time; a Data Factory copies all at once.
        connections: connections that fetch one archive by HTTP.
        report: an empty one to be filled, for whoever watches meanwhile; by default a new one.

    Raises:
        ValueError: the disk has too little space for the plan.
        RuntimeError: another ingest works on one of the datasets.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses the factory.
        OSError: the store refuses or cannot be reached.
    """
    plan.check_space()
    began, report = time.monotonic(), report or IngestReport()
    names = [dataset.name for dataset in plan.datasets]
    with ExitStack() as stack:
        for place in [""] if plan.factory else names:
            folder = plan.store.folder(place) if place else plan.store
            busy = f"another ingest works on {shown(folder.address)}: wait for it, or end it first"
            stack.enter_context(folder.lock(LOCK, busy))
            if isinstance(folder, DiskStore):
                folder.sweep()
        unpacked = sum(archive.size for archive in plan.archives if archive.unpacked)
        fetched = sum(archive.download for archive in plan.archives)
        run = _Run(
            plan,
            {name: Manifest(plan.store.folder(name)) for name in names},
            connections,
            stack.enter_context(ThreadPoolExecutor(max(side_by_side, 1), "archive")),
            stack.enter_context(Progress("fetching", fetched)),
            stack.enter_context(Progress("unpacking", unpacked)),
            report,
        )
        report.notes += plan.notes
        archives = [_Archive(planned, run) for planned in plan.archives]
        try:
            _work(archives, run)
        except BaseException:
            run.stopped.set()
            run.workers.shutdown(cancel_futures=True)
            raise
        report.volumes = {name: count_volumes(plan.store, name) for name in names}
    for archive in archives:
        archive.sum_up()
    report.seconds = time.monotonic() - began
    return report


@dataclass
class _Run:
    """What the archives of an ingest share."""

    plan: IngestPlan
    manifests: dict[str, Manifest]
    connections: int
    workers: ThreadPoolExecutor
    fetched: Progress
    unpacked: Progress
    report: IngestReport
    stopped: threading.Event = field(default_factory=threading.Event)


def _work(archives: "Sequence[_Archive]", run: _Run) -> None:
    """Bring all archives in."""
    futures: list[Future[None]] = []
    copies: dict[Copy, _Archive] = {}

    def submit(archive: _Archive, step: Callable[[], None]) -> None:
        futures.append(run.workers.submit(archive.attempt, step))

    for archive in archives:
        action = archive.planned.action
        if action is Action.NOTHING:
            archive.confirm()
        elif action is Action.UNPACK:
            submit(archive, archive.unpack_kept)
        elif action is not Action.FETCH:
            archive.fail(archive.planned.problem)
        elif run.plan.factory:
            copies[archive.copy] = archive
        else:
            submit(archive, archive.fetch)
    if run.plan.factory:
        with closing(copy_archives(run.plan.factory, list(copies), run.stopped)) as watched:
            for copy in watched:
                archive = copies[copy]
                archive.came(copy.read - archive.outcome.downloaded)
                archive.outcome.state = copy.state
                if copy.problem:
                    archive.fail(copy.problem)
                elif copy.over:
                    submit(archive, archive.unpack_landed)
                elif copy.run is None:
                    archive.begin()
    for future in futures:
        future.result()


class _Archive:
    """One archive's way from link to members."""

    def __init__(self, planned: PlannedArchive, run: _Run) -> None:
        self.planned, self.run, self.plan, self.link = planned, run, run.plan, planned.link
        self.name, self.stem, self.dataset = self.link.name, self.link.stem, str(self.link.dataset)
        store = self.plan.store
        # The members reach the disk all at once, before the manifest says that they are there.
        root = DiskStore(store.root, sync=False) if isinstance(store, DiskStore) else store
        self.members: Store = root.folder(self.dataset)
        self.archives: Store = store.folder(archive_folder(self.dataset))
        self.manifest = run.manifests[self.dataset]
        self.file = self.stem + planned.kind
        self.copy = Copy(self.link, planned.kind, self.archives, self.file, planned.size)
        self.out = Unpacked()
        here = planned.action in (Action.NOTHING, Action.UNPACK)
        there = planned.size if here else planned.there
        self.outcome = Outcome(self.name, self.dataset, planned.size, there)
        run.report.outcomes.append(self.outcome)

    @property
    def record(self) -> ArchiveRecord:
        """What the manifest says of it."""
        record = self.manifest.get(self.stem)
        assert record is not None
        return record

    @property
    def remote(self) -> Remote:
        """The object on the server, where it is to be fetched."""
        assert self.planned.remote is not None
        return self.planned.remote

    def update(self, record: ArchiveRecord | None = None, **changes: Any) -> None:
        """Change its record in the manifest.

        Members of an archive of another hash count as changed: each is compared with this one's.
        """
        base = record or self.manifest.get(self.stem)
        if base and changes.get("sha256", base.sha256) != base.sha256:
            changes.setdefault("marks", {})
        self.manifest.update(self.stem, record, **changes)

    def attempt(self, step: Callable[[], None]) -> None:
        """Do a step; whatever goes wrong is in the outcome."""
        try:
            step()
            self.outcome.state = "unpacked"
            # A cluster's job tells now and then how far it is, and not of its last bytes.
            self.outcome.through = self.planned.size
            self.update(problem="")
        except (ArchiveError, DownloadError) as error:
            self.fail(str(error))
        except OSError as error:
            own = isinstance(error, StorageError | CannotWriteError)
            text = str(error) if own else without_secrets(str(error))
            text += "; run again, it goes on from there"
            if disk_is_full(error):
                text = (
                    f"the disk of {shown(self.plan.store.address)} is full: free some space and "
                    "run again; what came so far is kept and it goes on from there"
                )
            self.fail(f"{self.name}: {text}")
        except Exception as error:
            self.fail(f"{self.name}: {type(error).__name__}: {without_secrets(str(error))}")

    def came(self, count: int) -> None:
        """Take note of bytes of the archive that came."""
        self.run.fetched.advance(count, self.name)
        self.outcome.downloaded += count

    def went_through(self, count: int) -> None:
        """Take note of bytes of the archive that were verified and unpacked."""
        self.run.unpacked.advance(count, self.name)
        self.outcome.through += count

    def fail(self, problem: str) -> None:
        """Take note that it could not be brought in, and why."""
        self.outcome.state, self.outcome.problem = "failed", problem
        if self.manifest.get(self.stem):
            # A full disk may take no manifest either; the report has the problem all the same.
            with suppress(OSError):
                self.update(problem=problem)

    def confirm(self) -> None:
        """Take note that its members were found as they were unpacked, when it was planned."""
        listed, members = self.planned.sha256, self.record.members
        if listed and listed == self.record.sha256:
            self.update(listed=listed, check="verified")
        marks = {path: mark for path, mark in self.planned.marks.items() if path in members}
        self.update(state="unpacked", problem="", marks=marks)
        self.outcome.state = "was there"

    def sum_up(self) -> None:
        """Say in the outcome what came of it."""
        outcome, record = self.outcome, self.manifest.get(self.stem)
        outcome.activities = tuple(self.copy.activities)
        unpacked = [
            each
            for each in outcome.activities
            if (each.name, each.status) == ("unpack", "Succeeded")
        ]
        outcome.check = record.check if record else ""
        outcome.members = len(
            record.members if record and outcome.state != "failed" else self.out.members
        )
        outcome.written = self.out.written + sum(each.files for each in unpacked)
        outcome.bytes_written = self.out.bytes_written + sum(each.written for each in unpacked)
        if replaced := self.out.replaced:
            more = f" and {len(replaced) - 1:,} more" if len(replaced) > 1 else ""
            self.run.report.notes.append(
                f"{self.name}: {replaced[0]}{more} took the place of a file of that name and other "
                "content: it had been changed here, or came from another archive"
            )

    # ---- fetching ------------------------------------------------------------------------

    def begin(self) -> None:
        """Record which object is being fetched, before its first byte."""
        record = self.manifest.get(self.stem)
        if record is None or not record.same_object(self.remote.size, self.remote.version):
            self.archives.delete(partial_name(self.link))
            if record:  # what it kept is of another object
                self.archives.delete(self.file)
        # What an earlier object left here is compared, and what is stale removed.
        left = record.model_dump(include={"members", "digests", "marks"}) if record else {}
        self.update(self._fresh_record(), **left)

    def _fresh_record(self) -> ArchiveRecord:
        return ArchiveRecord(
            source=self.name,
            object_path=self.link.object_path,
            size=self.remote.size,
            version=self.remote.version,
            listed=self.planned.sha256 or "",
        )

    def fetch(self) -> None:
        """Fetch it by HTTP, verify and unpack it."""
        self.outcome.state = "downloading"
        self.begin()
        if self.plan.keep_archives or self.planned.there:
            self.unpack_kept(self._fetch_whole())
        else:
            self._fetch_through()

    def _fetch_whole(self) -> str:
        """Bring the archive to ``NAME_compressed``; return its SHA256."""
        listed = self.planned.sha256
        if isinstance(self.archives, DiskStore):
            partial = self.archives.path(partial_name(self.link))
            digest = download(
                self.remote,
                partial,
                connections=self.run.connections,
                stopped=self.run.stopped,
                on_bytes=self.came,
            )
            if listed not in (None, digest):
                self.file = f"{self.stem}.mismatch{self.planned.kind}"
            with partial.open("rb") as file:
                os.fsync(file.fileno())
            partial.replace(self.archives.path(self.file))
        else:
            hashing = hashlib.sha256()
            with closing(self._stream()) as chunks:
                content = as_file(hashed(chunks, hashing))
                self.archives.write(self.file, content, self.remote.size)
            digest = hashing.hexdigest()
        self.update(state="downloaded", sha256=digest, archive=self.file)
        return digest

    def _stream(self) -> Generator[bytes, None, None]:
        parts = stream_side_by_side(
            self.remote, connections=self.run.connections, stopped=self.run.stopped
        )
        with closing(parts):
            for data in parts:
                self.came(len(data))
                yield data

    def _fetch_through(self) -> None:
        """Unpack while downloading, for disks that hold one copy; verify at the end."""

        def counted() -> Iterator[bytes]:
            for data in chunks:
                self.went_through(len(data))
                yield data

        with closing(self._stream()) as chunks, self._noting_members():
            size = self.planned.size
            digest = unpack_stream(counted(), self.members, self.name, self.out, size=size)
        self._verify(digest, None)
        self._finish()

    def unpack_landed(self) -> None:
        """Verify and unpack what a Data Factory landed, if it is what the plan saw."""
        landed, changed = self.copy.landed, False
        short = landed < self.planned.size
        if self.planned.sha256 is None or short:  # else a listed hash tells more surely
            with suppress(DownloadError):  # the link may have expired since
                now = inspect(self.link, attempts=2)
                changed = (now.size, now.version) != (self.remote.size, self.remote.version)
        if landed != self.planned.size or changed:
            self.archives.delete(self.file)
            why = (
                f"Data Factory ended {len(self.copy.short)} copies early and called them Succeeded"
                if short and not changed
                else "the object changed while it was copied"
            )
            raise ArchiveError(
                f"{self.name}: {landed:,} of {self.planned.size:,} bytes landed: {why}: run again "
                "to copy it anew"
            )
        self.unpack_kept()

    # ---- verifying and unpacking ---------------------------------------------------------

    def unpack_kept(self, digest: str = "") -> None:
        """Verify and unpack the kept archive; ``digest`` is its SHA256 if it was fetched just now.

        What a Data Factory landed is unpacked there already, and hashed while it is compared. Of
        another archive nothing is unpacked before its hash is known to be right.
        """
        cluster = self.plan.unpacker is not None
        self.outcome.state = "unpacking on the cluster" if cluster else "verifying and unpacking"
        if not digest:
            self._take_kept()
            if not self.plan.factory:
                digest = self._hash_of_kept()
        if digest:
            self._verify(digest, self.file)
        try:
            found = self._pass_over()
        except ArchiveError as error:
            file = f"{shown(self.archives.address)}/{self.file}"
            raise ArchiveError(f"{error}. To fetch it anew, remove {file} and run again") from None
        if not digest:
            self._verify(found, self.file)
        self._finish()
        if self.plan.factory and not self.plan.keep_archives:
            self.archives.delete(self.file)
            self.update(archive=None)

    def _take_kept(self) -> None:
        """Record an archive that is there; on a disk it gets the name that its kind asks for."""
        record = self.manifest.get(self.stem) or self._fresh_record()
        kept = self.planned.kept or self.file
        if isinstance(self.archives, DiskStore) and kept not in (record.archive, self.file):
            self.archives.path(kept).replace(self.archives.path(self.file))
            kept = self.file
        self.file, listed = kept, self.planned.sha256 or ""
        self.update(record, state="downloaded", archive=kept, listed=listed)

    def _hash_of_kept(self) -> str:
        """Return the SHA256 of a kept archive, which may have changed since its download."""
        hashing = hashlib.sha256()
        with self.archives.open(self.file) as file:
            for data in chunks_of(file):
                if self.run.stopped.is_set():
                    raise StoppedError(f"{self.name}: stopped")
                hashing.update(data)
        found, known = hashing.hexdigest(), self.record.sha256
        if known and found not in (known, self.planned.sha256):
            self.update(check="")
            raise ArchiveError(
                f"{self.name}: {shown(self.archives.address)}/{self.file} changed since it was "
                f"downloaded (SHA256 {found[:12]}..., was {known[:12]}...). Nothing was unpacked "
                "from it. To download it anew, remove that file and run again"
            )
        return found

    def _verify(self, digest: str, kept: str | None) -> None:
        listed = self.planned.sha256
        check = "not listed" if listed is None else "verified" if listed == digest else "mismatch"
        self.update(sha256=digest, listed=listed or "", check=check)
        if check == "mismatch" and self.stem not in self.plan.accept_mismatch:
            raise ArchiveError(
                mismatch_message(self.link, digest, str(listed), self.archives, kept)
            )

    def _pass_over(self) -> str:
        """Unpack the kept archive; return its SHA256."""
        record = self.record
        marks = self._marks(record.members) if record.sha256 else {}
        same = {path for path, mark in marks.items() if mark == record.marks.get(path)}
        how: dict[str, Any] = {
            "known": {path: record.digests[path] for path in same & record.digests.keys()},
            "stopped": self.run.stopped,
            "on_bytes": self.went_through,
        }
        with self._noting_members():
            if self.plan.unpacker:
                return self.plan.unpacker(self.dataset, self.file, self.name, self.out, **how)
            folders = (self.archives, self.members)
            return unpack_kept(*folders, self.file, self.name, self.out, **how)

    @contextmanager
    def _noting_members(self) -> Iterator[None]:
        """Record what came out, however it ends: the next run compares it with the archive."""

        def note() -> None:
            members = self.record.members | self.out.members
            self.update(members=members, digests=self.record.digests | self.out.digests)

        try:
            yield
        except BaseException:
            with suppress(OSError):
                note()
            raise
        note()

    def _marks(self, members: dict[str, int]) -> dict[str, int | str]:
        """Return the marks of members as they are there now."""
        entries = self.members.list()
        return {each.path: mark_of(each) for each in entries if members.get(each.path) == each.size}

    def _finish(self) -> None:
        """Remove what an earlier pass unpacked and the whole archive does not hold; take note."""
        record, others = self.record, self.manifest.members(without={self.stem})
        for path in sorted(record.digests.keys() - self.out.members.keys() - others):
            if record.is_as_unpacked(self.members, path, self.members.entry(path)):
                self.members.delete(path)
                self.run.report.notes.append(
                    f"{self.name}: {path} was removed: it came from an earlier, different archive "
                    "of that name, and this one does not hold it"
                )
        if isinstance(self.members, DiskStore):
            os.sync()
        members, digests = self.out.members, self.out.digests
        marks = self._marks(members)
        self.update(state="unpacked", members=members, digests=digests, marks=marks)
