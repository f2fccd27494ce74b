"""Ingest to Azure: a factory copies all archives side by side, a pass over each makes it whole."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.azure_login import LoginError, login_problem
from workbench.ingest.archives import ArchiveError
from workbench.ingest.azure.arm import ResourceError
from workbench.ingest.azure.board import Board
from workbench.ingest.azure.documents import FactoryPlan
from workbench.ingest.azure.factory import (
    ENDED,
    Activity,
    Factory,
    FactoryClient,
    new_name,
    temporary_factory,
)
from workbench.ingest.azure.job import (
    ArchiveJob,
    count_blob_volumes,
    run_problem,
    unpack_problem,
)
from workbench.ingest.azure.manifest import BlobManifest
from workbench.ingest.azure.plan import CloudPlan
from workbench.ingest.azure.unpack import (
    MismatchError,
    StoppedError,
    Unpacker,
    archive_blob,
    unpack_here,
)
from workbench.ingest.blobs import (
    only_ingest_into,
    open_container,
)
from workbench.ingest.manifest import ArchiveRecord
from workbench.ingest.report import IngestReport, Outcome
from workbench.ingest.xz import cores

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import ContainerClient

# Between two looks at the factory: short at first, for small archives, then longer.
_FIRST_LOOK, _LONGEST_LOOK = 1.0, 15.0
# How long a lapsed login may stay so before the watch ends: time to run `az login`.
_LOGIN_PATIENCE = 1800.0


@dataclass(frozen=True)
class CloudReport(IngestReport):
    """What a run did, with every activity of the factory.

    Attributes:
        activities: every attempt of every activity.
    """

    activities: tuple[Activity, ...] = ()


def run_cloud_ingest(
    plan: CloudPlan,
    *,
    login: "TokenCredential",
    unpacker: Unpacker | None = None,
    side_by_side: int = 4,
    leftover: str = "adopt",
    secure_runs: bool = True,
    patience: float = 600.0,
) -> CloudReport:
    """Do what a plan says. One archive's failure stops no other.

    Args:
        plan: from ``plan_cloud_ingest``.
        login: the credential for Azure.
        unpacker: verifies and unpacks what has landed; by default this machine does.
        side_by_side: archives that are unpacked at the same time; all are copied so.
        leftover: what to do with a factory that a killed run left behind: "adopt" goes on with the
            copies that still run in it, "delete" cancels them.
        secure_runs: see ``FactoryPlan``.
        patience: seconds for Azure to make a factory.

    Raises:
        RuntimeError: another ingest works on the container.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses the factory.
        StorageError: the storage account is not there, or refuses the key.
    """
    began = time.monotonic()
    stopped = threading.Event()
    with ExitStack() as stack:
        container = open_container(plan.storage, plan.container)
        stack.enter_context(only_ingest_into(container))
        decoders = stack.enter_context(ThreadPoolExecutor(cores(), "xz"))
        workers = stack.enter_context(ThreadPoolExecutor(max(side_by_side, 1), "archive"))
        jobs = [ArchiveJob(archive, problem=archive.problem) for archive in plan.archives]
        ingest = _Ingest(
            plan,
            container,
            {d.name: BlobManifest(container, d.name) for d in plan.datasets},
            jobs,
            Board([(job.name, job.archive.size) for job in jobs]),
            workers,
            unpacker or unpack_here(container, decoders),
            stopped,
        )
        try:
            ingest.begin()
            ingest.copy(FactoryClient(plan.workspace, login), leftover, secure_runs, patience)
            ingest.wait()
        except BaseException:
            stopped.set()
            workers.shutdown(cancel_futures=True)
            raise
        outcomes = tuple(ingest.outcome(job) for job in jobs)
        volumes = {d.name: count_blob_volumes(container, d.name) for d in plan.datasets}
    activities = tuple(activity for job in jobs for activity in job.activities)
    return CloudReport(outcomes, volumes, plan.notes, time.monotonic() - began, activities)


@dataclass
class _Ingest:
    """A run as it goes."""

    plan: CloudPlan
    container: "ContainerClient"
    manifests: dict[str, BlobManifest]
    jobs: list[ArchiveJob]
    board: Board
    workers: ThreadPoolExecutor
    unpacker: Unpacker
    stopped: threading.Event
    unpacking: list[Future[None]] = field(default_factory=list)
    _locks: dict[str, threading.Lock] = field(default_factory=dict)

    def begin(self) -> None:
        """Settle what needs no copying."""
        for job in self.jobs:
            if job.archive.action == "none":
                job.result = "was there"
                self._note(job, state="unpacked", problem="")
                self.board.move(job.name, "was there")
            elif job.archive.action == "verify":
                self._landed(job)
            elif job.problem:
                self._failed(job, job.problem)

    # ---- copying -------------------------------------------------------------------------

    def copy(
        self, service: FactoryClient, leftover: str, secure_runs: bool, patience: float
    ) -> None:
        """Copy what has to be copied, in a factory that is gone when this returns."""
        plan = self.plan
        address = f"{plan.storage.account}/{plan.container}"
        # We hold the container's lock: whatever factory is there for it is nobody's.
        orphans = service.left_behind(address)
        wanted = [job for job in self.jobs if job.archive.action == "copy"]
        adopted = orphans.pop(0) if orphans and wanted and leftover == "adopt" else None
        for orphan in orphans:
            self.board.say(f"deleting the factory {orphan.name}, which an earlier run left behind")
            orphan.delete(self.board.say)
        if not wanted:
            return
        factory = adopted or service.factory(new_name())
        what = "going on with" if adopted else "making"
        self.board.say(f"{what} the factory {factory.name}; watch it at {factory.monitor_url}")
        with temporary_factory(
            factory, plan.location, address, patience=patience, say=self.board.say
        ):
            request = FactoryPlan(
                [(job.archive.link, job.archive.kind) for job in wanted], secure_runs=secure_runs
            )
            factory.put(request.documents(plan.storage.connection))
            for job in wanted:
                self._begin(job)
            if adopted:
                self._take_over(factory, wanted)
            self._watch(factory, request, list(wanted))

    def _begin(self, job: ArchiveJob) -> None:
        """Record which object is being copied, before its first byte."""
        remote = job.archive.remote
        assert remote is not None
        link = job.archive.link
        fresh = ArchiveRecord(
            link.name,
            link.object_path,
            remote.size,
            remote.version,
            listed=job.archive.sha256 or "",
        )
        with self._lock(job):
            self.manifests[job.dataset].update(job.stem, fresh)

    def _take_over(self, factory: Factory, wanted: list[ArchiveJob]) -> None:
        """Go on with the runs of a killed ingest: those that go on, and those that came through."""
        for run in reversed(factory.runs()):
            for job in wanted:
                whole = run.status == "Succeeded" and self._landed_size(job) == job.archive.size
                if job.stem == run.archive and (run.status not in ENDED or whole):
                    job.run = run

    def _watch(self, factory: Factory, request: FactoryPlan, live: list[ArchiveJob]) -> None:
        """Start runs and follow them to their ends, whatever the network does meanwhile."""
        from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

        look, lost, locked_out = 0.0, False, 0.0
        while live:
            self.stopped.wait(look)
            look = min(max(look * 1.3, _FIRST_LOOK), _LONGEST_LOOK)
            self.board.show()
            try:
                for job in list(live):
                    if job.run is None:
                        self._start(factory, request, job)
                    elif self._look(factory, job):
                        live.remove(job)
                live[:] = [job for job in live if not job.problem]
            except ClientAuthenticationError as error:
                problem = login_problem(str(error))
                if locked_out and time.monotonic() - locked_out > _LOGIN_PATIENCE:
                    raise LoginError(problem) from None
                if not locked_out:
                    self.board.say(f"{problem}; the copies go on, and so does this")
                locked_out = locked_out or time.monotonic()
                factory.service.log_in_again()
                continue
            except AzureError as error:
                if isinstance(error, HttpResponseError) and error.status_code == 404:
                    raise ResourceError(
                        f"the factory {factory.name} or a run in it is gone, deleted from outside: "
                        "run again; what has landed whole is not copied anew"
                    ) from None
                if not lost:
                    self.board.say(
                        "no answer from Data Factory; the copies go on, and so does this"
                    )
                lost = True
                continue
            if lost or locked_out:
                self.board.say("Data Factory answers again")
            lost, locked_out = False, 0.0

    def _start(self, factory: Factory, request: FactoryPlan, job: ArchiveJob) -> None:
        link = job.archive.link
        run = request.run(link, job.archive.kind, self.plan.container, job.file)
        again, job.tried = job.tried, True
        try:
            job.run = factory.start(run, again=again)
        except ResourceError as error:
            self._failed(job, str(error))

    def _look(self, factory: Factory, job: ArchiveJob) -> bool:
        """See how a run stands; return whether it has ended."""
        assert job.run is not None
        job.run = factory.run(job.run.id)
        job.activities = factory.activities(job.run)
        read = max((a.read for a in job.activities if a.name == "land"), default=0)
        if job.run.status not in ENDED:
            self.board.move(job.name, "copying" if job.activities else "queued", read)
            return False
        if job.run.status == "Succeeded":
            self._landed(job)
        else:
            self._failed(job, run_problem(job))
        return True

    # ---- verifying and unpacking ---------------------------------------------------------

    def _landed(self, job: ArchiveJob) -> None:
        """Take note that an archive lies in the container whole, and have it unpacked."""
        size = self._landed_size(job)
        if size != job.archive.size:
            self._failed(
                job,
                f"{job.name}: {size} bytes landed of {job.archive.size}: the object changed while "
                "it was copied, or the blob meanwhile: run again to copy it anew",
            )
            return
        self._note(
            job, state="downloaded", archive=job.file, listed=job.archive.sha256 or "", problem=""
        )
        self.board.move(job.name, "landed")
        self.unpacking.append(self.workers.submit(self._unpack, job))

    def _landed_size(self, job: ArchiveJob) -> int:
        blob = self.container.get_blob_client(archive_blob(job.dataset, job.file))
        return int(blob.get_blob_properties().size) if blob.exists() else 0

    def _unpack(self, job: ArchiveJob) -> None:
        if self.stopped.is_set():
            return
        self.board.move(job.name, "unpacking")
        try:
            self.unpacker(
                job.dataset,
                job.stem,
                job.out,
                accept_mismatch=job.stem in self.plan.accept_mismatch,
                keep_archive=self.plan.keep_archives,
                stopped=self.stopped,
                on_bytes=lambda count: self.board.advance(job.name, count),
            )
        except (MismatchError, StoppedError) as error:
            self._failed(job, str(error))
        except ArchiveError as error:
            blob = archive_blob(job.dataset, job.file)
            self._failed(job, f"{error}. To copy it anew, delete the blob {blob} and run again")
        except Exception as error:
            self._failed(job, f"{job.name}: {unpack_problem(error, self.plan.storage.account)}")
        else:
            job.result = "unpacked"
            with self._lock(job):
                self.manifests[job.dataset].reload()
                record = self.manifests[job.dataset].get(job.stem)
            self.board.move(job.name, "verified" if record and record.listed else "not listed")

    def wait(self) -> None:
        """Wait for all that is being unpacked, and show how it goes."""
        while any(not future.done() for future in self.unpacking):
            self.stopped.wait(0.2)
            self.board.show()
        for future in self.unpacking:
            future.result()
        self.board.show(now=True)

    # ---- notes ---------------------------------------------------------------------------

    def _failed(self, job: ArchiveJob, problem: str) -> None:
        job.result, job.problem = "failed", problem
        self.board.move(job.name, "failed")
        with suppress(Exception):  # The report has the problem all the same.
            self._note(job, problem=problem)

    def _note(self, job: ArchiveJob, **changes: Any) -> None:
        manifest = self.manifests[job.dataset]
        with self._lock(job):
            record = manifest.get(job.stem)
            if record is None:
                remote = job.archive.remote
                if remote is None:
                    return
                link = job.archive.link
                record = ArchiveRecord(link.name, link.object_path, remote.size, remote.version)
                manifest.update(job.stem, record, **changes)
            elif any(getattr(record, name) != value for name, value in changes.items()):
                manifest.update(job.stem, **changes)

    def _lock(self, job: ArchiveJob) -> threading.Lock:
        return self._locks.setdefault(job.dataset, threading.Lock())

    def outcome(self, job: ArchiveJob) -> Outcome:
        """Say what became of an archive."""
        manifest = self.manifests[job.dataset]
        manifest.reload()
        record = manifest.get(job.stem)
        unpacked = [a for a in job.activities if a.name == "unpack" and a.status == "Succeeded"]
        landed = [a for a in job.activities if a.name == "land" and a.status == "Succeeded"]
        known = record.members if record and job.result != "failed" else job.out.members
        return Outcome(
            archive=job.name,
            dataset=job.dataset,
            result=job.result,
            check=record.check if record else "",
            size=job.archive.size,
            members=len(known),
            written=job.out.written + sum(a.files for a in unpacked),
            bytes_written=job.out.bytes_written + sum(a.written for a in unpacked),
            replaced=len(job.out.replaced),
            downloaded=sum(a.written for a in landed),
            problem=job.problem,
        )
