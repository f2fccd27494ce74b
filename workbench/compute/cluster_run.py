"""A job on a cluster as it runs: sent or found again, watched, fetched, cancelled.

The run's folder here, ``outputs/NAME``, fills with what the nodes keep in blob storage, so that
all that reads a run reads this one as if it had been trained here. ``azureml.json`` in it names
AzureML's run: whoever trains under the same name again watches that one, as long as it runs.
"""

import re
import time
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

import pydantic

from workbench.compute.evaluation import FOLDER, unevaluated
from workbench.compute.here import TrainingFailedError
from workbench.compute.kept import LOG_FILE, WhileItRuns, fetch, files_of, put
from workbench.compute.node import ERRORS, noted_error
from workbench.compute.plan import Cloud, Plan
from workbench.compute.runs import SENT, damaged, only_writer, take_up
from workbench.compute.sender import LostContactError, RunState
from workbench.compute.start import START
from workbench.progress import duration
from workbench.settings import shown
from workbench.stores import CannotWriteError
from workbench.stores.disk import write_text

SECONDS_BETWEEN_LOOKS = 10.0
ATTEMPTS = 5
"""How often a job is sent again by itself after its nodes, not its code, failed."""

TRIES = 40

REQUEUED = (
    "AzureML took a node away and queues the job again by itself: it will go on from its last "
    "checkpoint"
)
BEGINS = "training on "
"""What a run prints first, in each attempt."""
_BEFORE_RUNNING = ("NotStarted", "Queued", "Preparing", "Provisioning", "Starting")
_TRACEBACK = re.compile(r"(\[rank\d+\]: ?)?Traceback \(most recent call last\)")

Result = TypeVar("Result")


class Record(pydantic.BaseModel):
    """What is kept here of a run on a cluster, AzureML's id of it first.

    Attributes:
        slices: training and validation slices of an epoch.
        fetched: whether all that it kept has been brought here since it ended.
    """

    run: str
    sdk: str
    cluster: str
    vm_size: str
    nodes: int
    slices: tuple[int, int]
    attempts: int = 1
    fetched: bool = False

    def keep(self, plan: Plan) -> None:
        """Write it into the run's folder."""
        write_text(plan.run.folder / SENT, self.model_dump_json(indent=2))


def train_on_cluster(plan: Plan, cloud: Cloud) -> Iterator[str]:
    """Send the job, or find it again, and watch it to its end; yield what happens.

    Interrupting it asks nothing of the job.

    Raises:
        TrainingFailedError: the run failed, with the failing rank's own error, or was cancelled.
        ClusterError: AzureML refuses what it was asked.
    """
    with only_writer(plan.run):
        take_up(plan.run, plan.job, resume=plan.resume)
        record = _record(plan)
        state = cloud.sender.known(record.run) if record else None
        ended = state is None or state.ended
        if record and ended and not record.fetched:
            yield from _fetch_all(plan, cloud, record)  # what it kept while nobody watched
        if ended and plan.run.finished and not unevaluated(plan.run, plan.splits):
            yield f"{shown(plan.run.folder)} is finished: {len(plan.run.metrics)} epochs are done"
            return
        if record is None or state is None or ended:
            record = _send(plan, cloud, 1)
            sent = f"sent as run {record.run} to {cloud.cluster.name}"
        else:
            sent = f"found run {record.run} again on {record.cluster}: {state.status}"
    yield sent
    while True:
        state = yield from _watch(plan, cloud, record)
        if state.status == "Completed":
            break
        if state.status == "Canceled":
            raise TrainingFailedError(
                f"run {record.run} was cancelled; run this again to go on from its last checkpoint"
            )
        cause, only_a_node = _patiently(lambda: noted_error(cloud.store))
        # What fails before the training has begun would fail again.
        began = (plan.run.folder / LOG_FILE).exists()
        if not only_a_node or record.attempts >= ATTEMPTS or not began:
            said = state.error if only_a_node else cause
            raise TrainingFailedError(
                f"{said or 'AzureML gives no reason'} (run {record.run}, its logs: {state.url})"
            )
        with only_writer(plan.run, wait=True):
            latest = _record(plan)  # another notebook may watch it too, and have sent it again
            if latest is None or latest.run == record.run:
                latest = _send(plan, cloud, record.attempts + 1)
            record = latest
        yield (
            "a node was lost, not the code at fault: sent again, to go on from the last "
            f"checkpoint, as run {record.run} (attempt {record.attempts} of {ATTEMPTS})"
        )
    yield from _fetch_all(plan, cloud, record)


def cancel(plan: Plan) -> str:
    """Cancel the job that a plan sent; what it has kept stays. ValueError: it was never sent."""
    record = _record(plan)
    if record is None or not isinstance(plan.where, Cloud):
        raise ValueError(f"{shown(plan.run.folder)} was not sent to a cluster")
    plan.where.sender.cancel(record.run)
    return f"run {record.run} is being cancelled"


def _record(plan: Plan) -> Record | None:
    path = plan.run.folder / SENT
    try:
        return Record.model_validate_json(path.read_bytes()) if path.exists() else None
    except ValueError as error:
        raise ValueError(damaged(path, error)) from None


def _send(plan: Plan, cloud: Cloud, attempt: int) -> Record:
    folder, store = plan.run.folder, cloud.store
    if plan.run.last.exists() and store.entry("checkpoints/last.ckpt") is None:
        # A run that was begun on this machine goes on there.
        put(folder, store, [path for path in files_of(folder) if path != SENT])
    put(folder, store, ["job.json"])
    if plan.job.start_from and store.entry("checkpoints/last.ckpt") is None:
        put(folder, store, [START])
    for entry in list(store.list(ERRORS)):
        store.delete(entry.path)
    record = Record(
        run=cloud.sender.submit(cloud.job),
        sdk=cloud.sender.sdk,
        cluster=cloud.cluster.name,
        vm_size=cloud.cluster.vm_size,
        nodes=cloud.job.nodes,
        slices=plan.slices,
        attempts=attempt,
    )
    record.keep(plan)
    return record


def _fetch_all(plan: Plan, cloud: Cloud, record: Record) -> Iterator[str]:
    """Bring all that the nodes have kept, the reconstructions last, and note that it is here.

    Their job.json says where the dataset is mounted on the nodes; ours says where it lies.
    """
    folder, results = plan.run.folder, f"{FOLDER}/"

    def bring(wanted: Callable[[str], bool]) -> list[str]:
        return _patiently(lambda: fetch(cloud.store, folder, wanted))

    came = bring(lambda path: path not in ("job.json", START) and not path.endswith(".h5"))
    named = [path for path in sorted(came) if not path.startswith(("tensorboard/", results))]
    yield f"fetched into {shown(folder)}: {', '.join(named) or 'nothing new'}"
    if plan.splits:
        volumes = bring(lambda path: path.startswith(results))
        yield f"fetched into {shown(folder)}/{FOLDER}: {len(volumes)} reconstructed volumes"
    record.model_copy(update={"fetched": True}).keep(plan)


def _watch(plan: Plan, cloud: Cloud, record: Record) -> Generator[str, None, RunState]:
    """Yield what is new in a run until it ends; return its last state."""
    began = time.monotonic()
    status = problem = lost = ""
    nodes: int | None = None
    log, fetcher = ShownLog(), WhileItRuns(cloud.store, plan.run.folder)
    while True:
        try:
            state = cloud.sender.state(record.run)
            if lost:
                yield "in contact again"
            lost = ""
            if not status:
                yield f"follow it in the studio: {state.url}"
            if state.status != status:
                if status == "Running" and state.status in _BEFORE_RUNNING:
                    yield REQUEUED
                status = state.status
                yield f"{status} after {duration(time.monotonic() - began)}"
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
                text = (plan.run.folder / LOG_FILE).read_text(errors="replace")
                yield from log.new(text)
            if not state.ended and fetcher.best():
                yield (
                    "the best checkpoint so far is here: "
                    f"workbench reconstruct run={plan.run.name} takes it while the job goes on"
                )
            if state.ended:
                yield from log.held
                return state
        except (LostContactError, OSError) as error:
            if not lost:
                lost = str(error)
                yield f"{lost}; the job runs on, and this page goes on watching"
        time.sleep(SECONDS_BETWEEN_LOOKS)


class ShownLog:
    """What is shown of a run's growing log.

    A traceback is held back until it is known what follows. Where another attempt does, a plain
    line takes its place: ranks end so when a peer's machine is taken away.
    """

    def __init__(self) -> None:
        self.held: list[str] = []
        self._seen = 0

    def new(self, text: str) -> Iterator[str]:
        """Yield what is to be shown of the lines that came since the last call."""
        *lines, _ = text.split("\n")  # the last may yet be incomplete
        new, self._seen = lines[self._seen :], len(lines)
        for line in new:
            if self.held and line.startswith(BEGINS):
                yield f"that attempt ended there ({LOG_FILE} has its traceback); the next one:"
                self.held.clear()
            if self.held or _TRACEBACK.match(line):
                self.held.append(line)
            else:
                yield line


def _patiently(ask: Callable[[], Result]) -> Result:
    """Ask the storage again for as long as a break of the network may last."""
    for _ in range(TRIES - 1):
        try:
            return ask()
        except CannotWriteError:
            raise
        except OSError:
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return ask()
