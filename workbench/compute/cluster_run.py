"""A job on a cluster as it runs: sent or found again, watched, fetched.

The run's folder here, ``outputs/NAME``, fills with what the nodes keep in blob storage, so that
all that reads a run reads this one as if it had been trained here. ``azureml.json`` in it names
AzureML's run: whoever trains under the same name again watches that one, as long as it runs.
"""

import hashlib
import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from workbench.azure_login import LoginError
from workbench.compute.here import TrainingFailedError
from workbench.compute.kept import LOG_FILE, WhileItRuns, fetch
from workbench.compute.node import ERRORS, noted_error
from workbench.compute.plan import Cloud
from workbench.compute.runs import SENT, Run, only_writer
from workbench.compute.sender import ClusterError, LostContactError, RunState, new_run
from workbench.compute.sent import Record, read_record
from workbench.progress import duration
from workbench.settings import shown
from workbench.stores import CannotWriteError, Store

SECONDS_BETWEEN_LOOKS = 10.0
ATTEMPTS = 5
"""How often a job is sent again by itself after its nodes, not its code, failed."""

TRIES = 40

REQUEUED = (
    "AzureML took a node away and queues the job again by itself: it will go on from its last "
    "checkpoint"
)
GOES_ON = (
    "goes on, and is billed: run this again to watch it; `workbench cancel RUN`, with its name or "
    "folder, cancels it, as the studio does"
)
_ENDED_BY_ITSELF = "exited with status code"  # AzureML's words; the node was there until then
_MEANS = {"Preparing": ": the first job of an environment has its image built, some ten minutes"}
_BEFORE_RUNNING = ("NotStarted", "Queued", "Preparing", "Provisioning", "Starting")

BEGINS = "training on "
"""What a run prints first, in each attempt."""
_TRACEBACK = re.compile(r"(\[rank\d+\]: ?)?Traceback \(most recent call last\)")

Result = TypeVar("Result")


class ClusterRun:
    """A notebook's run on a cluster: where it fills here, and what is its own of the way there.

    Attributes:
        folder: on this machine; it fills with what the nodes keep.
        cloud: where it is sent.
        data: what tells the dataset, as it is now, from what it was before.
        again: what a job does that is sent again after a node was lost.
    """

    again = "begin anew"

    def __init__(self, folder: Path, cloud: Cloud, data: str = "") -> None:
        self.folder, self.cloud, self.data = folder, cloud, data

    def __str__(self) -> str:
        lines = [str(self.cloud), *self.cloud.told(), f"into       {shown(self.folder)}"]
        return "\n".join(lines)

    @property
    def asked(self) -> str:
        """What the notebook there is given, as a digest, by which a run that was sent is known."""
        job = self.cloud.job
        given = [job.notebook, job.dataset.path, dict(job.parameters)]
        told = json.dumps([*given, *filter(None, [self.data])], default=str)
        return hashlib.sha256(told.encode()).hexdigest()

    @property
    def slices(self) -> tuple[int, int]:
        """Training and validation slices of an epoch, where it trains."""
        return 0, 0

    def take_up(self) -> None:
        """Check that a job may leave what it does in the folder, which is held."""

    def finished(self, completed: bool) -> str:
        """Say that nothing is left to do; "" where something is.

        ``completed`` says that the last run came to its end while nobody watched.
        """
        return f"{shown(self.folder)} holds what the run left" if completed else ""

    def bring_along(self) -> None:
        """Put into the store what the nodes need."""

    def wanted(self, path: str) -> bool:
        """Say whether a file that the nodes have kept is to be brought here."""
        return not path.startswith(f"{ERRORS}/")

    def bring_back(self) -> Iterator[str]:
        """Bring all that is wanted of what the nodes have kept, and say what came."""
        yield self.told(self.bring(self.wanted))

    def bring(self, wanted: Callable[[str], bool]) -> list[str]:
        """Bring what is wanted; return the paths of what came."""
        return sorted(patiently(lambda: fetch(self.cloud.store, self.folder, wanted)))

    def told(self, came: Iterable[str]) -> str:
        """Say what came."""
        return f"fetched into {shown(self.folder)}: {', '.join(came) or 'nothing new'}"


class ShownLog:
    """What is shown of a run's growing log.

    A traceback is held back until it is known what follows. Where another attempt does, a plain
    line takes its place: ranks end so when a peer's machine is taken away.

    Args:
        seen: lines at its start that are not shown, and no part of the run.
    """

    def __init__(self, seen: int = 0) -> None:
        self.held: list[str] = []
        self.seen = seen

    def new(self, text: str) -> Iterator[str]:
        """Yield what is to be shown of the lines that came since the last call."""
        *lines, _ = text.split("\n")  # the last may yet be incomplete
        new, self.seen = lines[self.seen :], max(self.seen, len(lines))
        for line in new:
            if self.held and line.startswith(BEGINS):
                yield f"that attempt ended there ({LOG_FILE} has its traceback); the next one:"
                self.held.clear()
            if self.held or _TRACEBACK.match(line):
                self.held.append(line)
            else:
                yield line


def on_cluster(work: ClusterRun) -> Iterator[str]:
    """Send a job, or find it again, and watch it to its end; yield what happens.

    Interrupting it asks nothing of the job.

    Raises:
        TrainingFailedError: the run failed, with the failing rank's own error, or was cancelled.
        ClusterError: AzureML refuses what it was asked.
        ValueError: another job is at work for the same folder.
    """
    cloud, folder = work.cloud, work.folder
    with only_writer(Run(folder)):
        work.take_up()
        record = read_record(folder)
        state = cloud.sender.known(record.run) if record else None
        ended = state is None or state.ended
        same = record is not None and record.asked == work.asked
        if record and not ended and not same:
            raise ValueError(
                f"run {record.run} is still at work for {shown(folder)}, with other parameters "
                f"or on other volumes: wait for it, or cancel it: "
                f"`workbench cancel {shown(folder)}`"
            )
        unseen = record is not None and not record.fetched and same
        if record and ended and unseen:
            yield from _bring_back(work, record)  # what it kept while nobody watched
        completed = unseen and state is not None and state.status == "Completed"
        if ended and (done := work.finished(completed)):
            yield done
            return
        # One that failed or was cancelled while nobody watched is told of before another is sent.
        untold = unseen and not completed
        if record is None or state is None or (ended and not untold):
            record = _send(work)
            sent = f"sent as run {record.run} to {cloud.cluster.name}"
        else:
            sent = f"found run {record.run} again on {record.cluster}: {state.status}"
    yield sent
    log = ShownLog(record.lines)
    while True:
        try:
            state = yield from _watch(work, record, log)
        except KeyboardInterrupt:
            print(f"interrupted: run {record.run} {GOES_ON}", flush=True)
            raise
        if state.status == "Completed":
            break
        if state.status == "Canceled":
            yield from _bring_what_came(work, record)
            raise TrainingFailedError(
                f"run {record.run} was cancelled; run this again to {work.again}"
            )
        cause, only_a_node = patiently(lambda: noted_error(cloud.store))
        silent = not cause and _ENDED_BY_ITSELF in state.error
        # What fails before its work has begun would fail again.
        began = log.seen > record.lines
        if silent or not only_a_node or record.attempts >= ATTEMPTS or not began:
            said = cause if not only_a_node else state.error or "AzureML gives no reason"
            if silent:
                said += (
                    " It left no error in the storage: its disk may have been full, or its memory "
                    "exhausted."
                )
            yield from _bring_what_came(work, record)
            raise TrainingFailedError(f"{said} (run {record.run}, its logs: {state.url})")
        with only_writer(Run(folder), wait=True):
            latest = read_record(
                folder
            )  # another notebook may watch it too, and have sent it again
            if latest is None or latest.run == record.run:
                latest = _send(work, record)
            record = latest
        yield (
            f"a node was lost, not the code at fault: sent again, to {work.again}, "
            f"as run {record.run} (attempt {record.attempts} of {ATTEMPTS})"
        )
    yield from _bring_back(work, record)


def _send(work: ClusterRun, lost: Record | None = None) -> Record:
    """Send a job, or again the one that was lost.

    It is noted before: what was taken is found again, also where this process ends meanwhile.
    """
    cloud, earlier = work.cloud, read_record(work.folder)
    work.bring_along()
    for entry in list(cloud.store.list(ERRORS)):
        cloud.store.delete(entry.path)
    record = Record(
        run=new_run(),
        sdk=cloud.sender.sdk,
        cluster=cloud.cluster.name,
        vm_size=cloud.cluster.vm_size,
        nodes=cloud.job.nodes,
        slices=work.slices,
        asked=work.asked,
        lines=lost.lines if lost else _lines(cloud.store),
        epochs=lost.epochs if lost else (len(Run(work.folder).metrics), None),
        attempts=lost.attempts + 1 if lost else 1,
    )
    record.keep(work.folder)
    try:
        cloud.sender.send(cloud.job, record.run)
    except LostContactError:  # whether it was taken is not known
        raise
    except ClusterError:
        if earlier:
            earlier.keep(work.folder)
        else:
            (work.folder / SENT).unlink()
        raise
    return record


def _lines(store: Store) -> int:
    """Count the lines of the log that earlier jobs left."""
    with suppress(FileNotFoundError):
        return store.read(LOG_FILE).count(b"\n")
    return 0


def _bring_back(work: ClusterRun, record: Record) -> Iterator[str]:
    """Bring all that the nodes have kept, and note that it is here."""
    yield from work.bring_back()
    own = record.epochs[0], len(Run(work.folder).metrics)
    record.model_copy(update={"fetched": True, "epochs": own}).keep(work.folder)


def _bring_what_came(work: ClusterRun, record: Record) -> Iterator[str]:
    """Bring what a run kept that did not come to its end; where that fails, a later start does."""
    try:
        yield from _bring_back(work, record)
    except OSError as error:
        yield f"what it kept is not here yet: {error}"


def _watch(work: ClusterRun, record: Record, log: ShownLog) -> Generator[str, None, RunState]:
    """Yield what is new in a run until it ends; return its last state."""
    cloud, began = work.cloud, time.monotonic()
    status = problem = lost = ""
    nodes: int | None = None
    fetcher = WhileItRuns(cloud.store, work.folder)
    while True:
        pause = SECONDS_BETWEEN_LOOKS
        try:
            state = cloud.sender.state(record.run)
            if lost:
                yield "in contact again"
            lost = ""
            if not status and not state.ended:
                yield f"follow it in the studio: {state.url}"
                yield f"when this is interrupted or closed, the job {GOES_ON}"
            if state.status != status:
                if status == "Running" and state.status in _BEFORE_RUNNING:
                    yield REQUEUED
                status = state.status
                yield f"{status} after {duration(time.monotonic() - began)}{_MEANS.get(status, '')}"
            if not state.ended and status != "Running":
                for each in cloud.sender.clusters():
                    news = (each.nodes, each.problem) != (nodes, problem)
                    if each.name == record.cluster and news:
                        nodes, problem = each.nodes, each.problem
                        if nodes is not None:
                            yield f"{each.name} has {nodes} node(s), {record.nodes} wanted"
                        if problem:
                            yield f"{each.name} reports: {problem}"
            if LOG_FILE in fetcher.look():
                text = (work.folder / LOG_FILE).read_text(errors="replace")
                yield from log.new(text)
            if not state.ended and fetcher.best():
                name = Run(work.folder).name
                yield (
                    "the best checkpoint so far is here: "
                    f"workbench reconstruct run={name} takes it while the job goes on"
                )
            if state.ended:
                yield from log.held
                return state
        except (LostContactError, OSError) as error:
            if not lost:
                lost = str(error)
                yield f"{lost}; the job runs on, and this page goes on watching"
            pause = max(pause, getattr(error, "wait", 0.0))
        except (ClusterError, LoginError) as error:  # a login that has ended, say
            goes_on = f"run {record.run} goes on, and is found when this is run again"
            raise type(error)(f"{error}; {goes_on}") from None
        time.sleep(pause)


def patiently(ask: Callable[[], Result]) -> Result:
    """Ask the storage again for as long as a break of the network may last."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except CannotWriteError:
            raise
        except OSError:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return ask()
