"""Ingest to this machine: download, verify and unpack archives, side by side, to be run again."""

import hashlib
import os
import re
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.ingest.archives import ArchiveError, Unpacked, clean_leftovers, unpack
from workbench.ingest.download import download, stream_side_by_side
from workbench.ingest.manifest import ArchiveRecord, Manifest, only_ingest
from workbench.ingest.plan import (
    IngestPlan,
    PlannedArchive,
    archive_folder,
    dataset_folder,
    mismatch_message,
    partial_file,
    plan_ingest,
    whole_file,
)
from workbench.ingest.report import IngestReport, Outcome, count_volumes
from workbench.ingest.server import PATIENT, DownloadError, Patience
from workbench.ingest.xz import cores
from workbench.progress import Progress
from workbench.settings import shown
from workbench.stores.disk import disk_is_full
from workbench.stores.streams import as_file, chunks_of

__all__ = ["IngestPlan", "IngestReport", "plan_ingest", "run_ingest"]


def run_ingest(
    plan: IngestPlan,
    *,
    side_by_side: int = 4,
    connections: int = 4,
    patience: Patience = PATIENT,
) -> IngestReport:
    """Do what a plan says. One archive's failure stops no other.

    Args:
        plan: from ``plan_ingest``.
        side_by_side: archives at work at the same time.
        connections: connections that fetch one archive.
        patience: how long to bear with the server.

    Raises:
        ValueError: the disk has too little space for the plan.
        RuntimeError: another ingest works on one of the datasets.
    """
    plan.check_space()
    began = time.monotonic()
    stopped = threading.Event()
    with ExitStack() as stack:
        for dataset in plan.datasets:
            folder = dataset_folder(plan.root, dataset.name)
            stack.enter_context(only_ingest(folder))
            clean_leftovers(folder)
        manifests = {
            dataset.name: Manifest(dataset_folder(plan.root, dataset.name))
            for dataset in plan.datasets
        }
        come = stack.enter_context(
            Progress("downloading", sum(archive.download for archive in plan.archives))
        )
        out = stack.enter_context(
            Progress("unpacking", sum(archive.unpacked for archive in plan.archives))
        )
        decoders = stack.enter_context(ThreadPoolExecutor(cores(), "xz"))
        workers = stack.enter_context(ThreadPoolExecutor(max(side_by_side, 1), "archive"))
        jobs = [
            _Job(
                archive,
                plan,
                manifests[str(archive.link.dataset)],
                connections,
                patience,
                stopped,
                decoders,
                come,
                out,
            )
            for archive in plan.archives
        ]
        futures = [workers.submit(job.run) for job in jobs]
        try:
            outcomes = [future.result() for future in futures]
        except BaseException:
            stopped.set()
            workers.shutdown(cancel_futures=True)
            raise
    volumes = {d.name: count_volumes(plan.root, d.name) for d in plan.datasets}
    notes = (*plan.notes, *(note for job in jobs for note in job.notes))
    return IngestReport(tuple(outcomes), volumes, notes, time.monotonic() - began)


@dataclass(frozen=True)
class _Job:
    """One archive's way from link to members."""

    archive: PlannedArchive
    plan: IngestPlan
    manifest: Manifest
    connections: int
    patience: Patience
    stopped: threading.Event
    decoders: ThreadPoolExecutor
    come: Progress
    out: Progress
    notes: list[str] = field(default_factory=list)

    def run(self) -> Outcome:
        """Do it; whatever goes wrong is in the outcome."""
        link, out = self.archive.link, Unpacked()
        problem, result = self.archive.problem, "failed"
        if self.archive.action == "none":
            result = "was there"
            self._confirm()
        elif not problem:
            try:
                self._work(out)
                result = "unpacked"
            except (ArchiveError, DownloadError, _MismatchError) as error:
                problem = str(error)
            except OSError as error:
                problem = self._disk_problem(error)
            except Exception as error:
                problem = f"{link.name}: {type(error).__name__}: {_without_links(str(error))}"
        record = self.manifest.get(link.stem)
        if record and record.problem != problem:
            # A full disk may take no manifest either; the report has the problem all the same.
            with suppress(OSError):
                self.manifest.update(link.stem, problem=problem)
        return Outcome(
            archive=link.name,
            dataset=str(link.dataset),
            result=result,
            check=record.check if record else "",
            size=self.archive.size,
            members=len(record.members) if record and result != "failed" else len(out.members),
            written=out.written,
            bytes_written=out.bytes_written,
            replaced=len(out.replaced),
            downloaded=self.archive.download if result == "unpacked" else 0,
            problem=problem,
        )

    @property
    def _folder(self) -> Path:
        return dataset_folder(self.plan.root, str(self.archive.link.dataset))

    def _work(self, out: Unpacked) -> None:
        stem = self.archive.link.stem
        if self.archive.action == "unpack":
            record = self.manifest.get(stem)
            assert record is not None
            kept = archive_folder(self.plan.root, str(self.archive.link.dataset)) / str(
                record.archive
            )
            self._verify(self._hash_of(kept, record.sha256), kept)
        elif self.plan.keep_archives or self.archive.action == "resume":
            kept = self._fetch()
        else:
            self._through(out)
            return
        try:
            with kept.open("rb") as file:
                self._unpack(chunks_of(file), out)
        except ArchiveError as error:
            anew = f"To download it anew, remove {shown(kept)} and run again"
            raise ArchiveError(f"{error}. {anew}") from None
        self._finish(out)

    def _begin(self) -> None:
        """Record which object is being fetched, before its first byte."""
        link, remote = self.archive.link, self.archive.remote
        assert remote is not None
        partial = partial_file(self.plan.root, link)
        record = self.manifest.get(link.stem)
        same = record is not None and record.same_object(remote.size, remote.version)
        if not same:
            partial.unlink(missing_ok=True)
        whole = whole_file(self.plan.root, link, self.archive.kind, remote.size)
        resume = self.archive.action == "resume" and (same or not record)
        if whole and resume and not partial.exists():
            whole.replace(partial)
        fresh = ArchiveRecord(link.name, link.object_path, remote.size, remote.version)
        if record:  # What an earlier object left here is compared, and what is stale removed.
            fresh = replace(
                fresh, members=record.members, digests=record.digests, times=record.times
            )
        self.manifest.update(link.stem, fresh)

    def _hash_of(self, kept: Path, known: str) -> str:
        """Return the SHA256 of a kept archive, which may have changed since its download."""
        with kept.open("rb") as file:
            digest = hashlib.sha256()
            for data in self._stoppable(chunks_of(file)):
                digest.update(data)
        found = digest.hexdigest()
        if found not in (known, self.archive.sha256):
            self.manifest.update(self.archive.link.stem, check="")
            raise ArchiveError(
                f"{self.archive.link.name}: {shown(kept)} changed since it was downloaded (SHA256 "
                f"{found[:12]}..., was {known[:12]}...). Nothing was unpacked from it. To download "
                "it anew, remove that file and run again"
            )
        return found

    def _fetch(self) -> Path:
        """Download the archive to ``NAME_compressed`` and verify it."""
        link, remote = self.archive.link, self.archive.remote
        assert remote is not None
        self._begin()
        partial = partial_file(self.plan.root, link)
        digest = download(
            link,
            remote,
            partial,
            connections=self.connections,
            patience=self.patience,
            stopped=self.stopped,
            on_bytes=lambda count: self.come.advance(count, link.name),
        )
        wrong = self.archive.sha256 not in (None, digest)
        kept = partial.with_name(f"{link.stem}{'.mismatch' if wrong else ''}{self.archive.kind}")
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        partial.replace(kept)
        self.manifest.update(link.stem, state="downloaded", sha256=digest, archive=kept.name)
        self._verify(digest, kept)
        return kept

    def _verify(self, digest: str, kept: Path | None) -> None:
        listed = self.archive.sha256
        check = "not listed" if listed is None else "verified" if listed == digest else "mismatch"
        link = self.archive.link
        self.manifest.update(link.stem, sha256=digest, listed=listed or "", check=check)
        if check == "mismatch" and link.stem not in self.plan.accept_mismatch:
            raise _MismatchError(mismatch_message(link, digest, str(listed), kept))

    def _through(self, out: Unpacked) -> None:
        """Unpack while downloading, for disks that hold one copy; verify at the end."""
        link, remote = self.archive.link, self.archive.remote
        assert remote is not None
        self._begin()
        digest = hashlib.sha256()

        def hashed() -> Generator[bytes, None, None]:
            parts = stream_side_by_side(
                link,
                remote,
                connections=self.connections,
                patience=self.patience,
                stopped=self.stopped,
            )
            with closing(parts):
                for data in parts:
                    digest.update(data)
                    self.come.advance(len(data), link.name)
                    yield data

        with closing(hashed()) as chunks:
            self._unpack(chunks, out)
            for _ in chunks:  # What follows the tar's end belongs to the hash.
                pass
        self._note_members(out)
        self._verify(digest.hexdigest(), None)
        self._finish(out)

    def _stoppable(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        for data in chunks:
            if self.stopped.is_set():
                raise DownloadError(f"{self.archive.link.name}: stopped")
            yield data

    def _unpack(self, chunks: Iterator[bytes], out: Unpacked) -> None:
        try:
            unpack(
                as_file(self._stoppable(chunks)),
                self._folder,
                self.archive.link.name,
                result=out,
                pool=self.decoders,
                on_member=lambda path, size: self.out.advance(size, path),
            )
        except BaseException:
            # The next run compares them with what the archive holds by then.
            with suppress(OSError):
                self._note_members(out)
            raise

    def _note_members(self, out: Unpacked) -> None:
        """Record what came out so far, beside what earlier passes left."""
        stem = self.archive.link.stem
        record = self.manifest.get(stem)
        assert record is not None
        self.manifest.update(
            stem, members=record.members | out.members, digests=record.digests | out.digests
        )

    def _finish(self, out: Unpacked) -> None:
        self._remove_stale(out)
        # The members reach the disk before the manifest says that they are there.
        os.sync()
        self.manifest.update(
            self.archive.link.stem,
            state="unpacked",
            members=out.members,
            digests=out.digests,
            times=self._times(out.members),
        )

    def _remove_stale(self, out: Unpacked) -> None:
        """Remove what an earlier pass unpacked and the archive, now whole, does not hold."""
        stem = self.archive.link.stem
        record = self.manifest.get(stem)
        assert record is not None
        stale = record.members.keys() - out.members.keys() - self.manifest.members(without={stem})
        for path in sorted(stale):
            if path in record.digests and record.is_as_unpacked(self._folder, path):
                (self._folder / path).unlink()
                self.notes.append(
                    f"{self.archive.link.name}: {path} was removed: it came from an earlier, "
                    "different archive of that name, and this one does not hold it"
                )

    def _confirm(self) -> None:
        """Take note that an archive's members were found as they were unpacked."""
        stem, listed = self.archive.link.stem, self.archive.sha256
        record = self.manifest.get(stem)
        assert record is not None
        found: dict[str, Any] = {"state": "unpacked", "times": self._times(record.members)}
        if listed and listed == record.sha256:
            found |= {"listed": listed, "check": "verified"}
        self.manifest.update(stem, **found)

    def _times(self, members: Iterable[str]) -> dict[str, int]:
        return {path: (self._folder / path).stat().st_mtime_ns for path in members}

    def _disk_problem(self, error: OSError) -> str:
        name = self.archive.link.name
        if disk_is_full(error):
            return (
                f"{name}: the disk of {shown(self.plan.root)} is full: free some space and run "
                "again; what came so far is kept and it goes on from there"
            )
        return f"{name}: {_without_links(str(error))}"


class _MismatchError(Exception):
    """An archive's hash differs from the listed one."""


def _without_links(text: str) -> str:
    return re.sub(r"\S*(?:://|\?)\S*", "***", text)
