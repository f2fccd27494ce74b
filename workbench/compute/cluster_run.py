"""A job on a cluster as it runs: sent or found again, watched, fetched, cancelled.

The run's folder here, ``outputs/NAME``, fills with what the nodes keep in blob storage, so that
all that reads a run reads this one as if it had been trained here. ``azureml.json`` in it names
AzureML's run: whoever trains under the same name again watches that one, as long as it runs.
"""

import json
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeVar

from workbench.compute.cluster_plan import ClusterPlan
from workbench.compute.evaluation import FOLDER, SCORES, unevaluated
from workbench.compute.here import TrainingFailedError
from workbench.compute.kept import LOG_FILE, fetch, files_of, put
from workbench.compute.node import ERRORS, noted_error
from workbench.compute.runs import SENT, damaged, only_writer, read_record, take_up
from workbench.compute.sender import ClusterError, LostContactError, RunState
from workbench.progress import duration
from workbench.settings import shown
from workbench.stores import CannotWriteError
from workbench.stores.disk import write_text

SECONDS_BETWEEN_LOOKS = 10.0
ATTEMPTS = 5
"""How often a job is sent again by itself after its nodes, not its code, failed."""

TRIES = 40

_SMALL = (LOG_FILE, "metrics.csv", "volumes.csv", "versions.json")
# It says where the dataset is mounted on the nodes; ours says where it lies.
_OWN = "job.json"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Record:
    """What is kept here of a run on a cluster.

    Attributes:
        run: AzureML's id of the run.
        sdk: the SDK that sent it.
        cluster: where it runs.
        vm_size: size of the machines.
        nodes: how many.
        slices: training and validation slices of an epoch.
        attempts: how often it was sent.
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


def train_on_cluster(plan: ClusterPlan) -> Iterator[str]:
    """Send the job, or find it again, and watch it to its end; yield what happens.

    Interrupting it asks nothing of the job.

    Raises:
        TrainingFailedError: the run failed, with the failing rank's own error, or was cancelled.
        ClusterError: AzureML refuses what it was asked.
    """
    with only_writer(plan.run):
        take_up(plan.run, plan.job, resume=plan.resume)
        record = _record(plan)
        state = _state(plan, record)
        ended = state is None or state.ended
        if record and ended and not record.fetched:
            yield from _fetch_all(plan, record)  # what it kept while nobody watched to the end
        if ended and plan.run.finished and not unevaluated(plan.run, plan.splits):
            yield f"{shown(plan.run.folder)} is finished: {plan.job.epochs} epochs are done"
            return
        if record is None or state is None or ended:
            record = _send(plan, 1)
            sent = f"sent as run {record.run} to {plan.cluster.name}"
        else:
            sent = f"found run {record.run} again on {record.cluster}: {state.status}"
    yield sent
    while True:
        state = yield from _watch(plan, record)
        if state.status == "Completed":
            break
        if state.status == "Canceled":
            raise TrainingFailedError(
                f"run {record.run} was cancelled; run this again to go on from its last checkpoint"
            )
        cause, only_a_node = _patiently(lambda: noted_error(plan.store))
        # What fails before the training has begun would fail again.
        began = (plan.run.folder / LOG_FILE).exists()
        if not only_a_node or record.attempts >= ATTEMPTS or not began:
            said = state.error if only_a_node else cause
            raise TrainingFailedError(
                f"{said or 'AzureML gives no reason'} (run {record.run}, its logs: {state.url})"
            )
        with only_writer(plan.run, wait=True):
            latest = _record(plan)
            if latest is None or latest.run == record.run:
                latest = _send(plan, record.attempts + 1)
            record = latest  # which another notebook may have sent, that watches it too
        yield (
            "a node was lost, not the code at fault: sent again, to go on from the last "
            f"checkpoint, as run {record.run} (attempt {record.attempts} of {ATTEMPTS})"
        )
    yield from _fetch_all(plan, record)


def cancel(plan: ClusterPlan) -> str:
    """Cancel the job that a plan sent; what it has kept stays.

    Raises:
        ValueError: it was never sent.
        ClusterError: AzureML refuses.
    """
    record = _record(plan)
    if record is None:
        raise ValueError(f"{shown(plan.run.folder)} was not sent to a cluster")
    plan.sender.cancel(record.run)
    return f"run {record.run} is being cancelled"


def _record(plan: ClusterPlan) -> Record | None:
    path = plan.run.folder / SENT
    if not path.exists():
        return None
    found = read_record(path)
    try:
        return Record(**found | {"slices": tuple(found["slices"])})
    except (KeyError, TypeError) as error:
        raise ValueError(damaged(path, error)) from None


def _state(plan: ClusterPlan, record: Record | None) -> RunState | None:
    """Return how a run that was sent before stands; None where AzureML knows no such run."""
    if record is None:
        return None
    try:
        return plan.sender.state(record.run)
    except LostContactError:
        raise
    except ClusterError:
        return None


def _send(plan: ClusterPlan, attempt: int) -> Record:
    folder, store = plan.run.folder, plan.store
    if plan.run.last.exists() and store.entry("checkpoints/last.ckpt") is None:
        # A run that was begun on this machine goes on there.
        put(folder, store, [path for path in files_of(folder) if path != SENT])
    put(folder, store, ["job.json"])
    for entry in list(store.list(ERRORS)):
        store.delete(entry.path)
    record = Record(
        plan.sender.submit(plan.cluster_job),
        plan.sender.sdk,
        plan.cluster.name,
        plan.cluster.vm_size,
        plan.cluster_job.nodes,
        plan.slices,
        attempt,
    )
    _keep(plan, record)
    return record


def _fetch_all(plan: ClusterPlan, record: Record) -> Iterator[str]:
    """Bring all that the nodes have kept, the reconstructions last, and note that it is here."""
    folder, results = shown(plan.run.folder), f"{FOLDER}/"

    def bring(wanted: Callable[[str], bool]) -> list[str]:
        return _patiently(lambda: fetch(plan.store, plan.run.folder, wanted))

    came = bring(lambda path: path != _OWN and not path.endswith(".h5"))
    named = [path for path in sorted(came) if not path.startswith(("tensorboard/", results))]
    yield f"fetched into {folder}: {', '.join(named) or 'nothing new'}"
    if plan.splits:
        volumes = bring(lambda path: path.startswith(results))
        yield f"fetched into {folder}/{FOLDER}: {len(volumes)} reconstructed volumes"
    _keep(plan, replace(record, fetched=True))


def _keep(plan: ClusterPlan, record: Record) -> None:
    write_text(plan.run.folder / SENT, json.dumps(asdict(record), indent=2))


def _watch(plan: ClusterPlan, record: Record) -> Generator[str, None, RunState]:
    """Yield what is new in a run until it ends; return its last state."""
    began = time.monotonic()
    status = problem = lost = ""
    nodes = -1
    shown_log = 0
    while True:
        try:
            state = plan.sender.state(record.run)
            if lost:
                yield "in contact again"
            lost = ""
            if not status:
                yield f"follow it in the studio: {state.url}"
            if state.status != status:
                status = state.status
                yield f"{status} after {duration(time.monotonic() - began)}"
            if not state.ended and status != "Running":
                found = [each for each in plan.sender.clusters() if each.name == record.cluster]
                for cluster in found:
                    if (cluster.nodes, cluster.problem) != (nodes, problem):
                        nodes, problem = cluster.nodes, cluster.problem
                        yield f"{cluster.name} has {nodes} node(s), {record.nodes} wanted"
                        if problem:
                            yield f"{cluster.name} reports: {problem}"
            came = fetch(plan.store, plan.run.folder, _is_small)
            if LOG_FILE in came:
                text = (plan.run.folder / LOG_FILE).read_text(errors="replace")
                *lines, _ = text.split("\n")  # the last may yet be incomplete
                yield from lines[shown_log:]
                shown_log = len(lines)
            if state.ended:
                return state
        except (LostContactError, OSError) as error:
            if not lost:
                lost = str(error)
                yield f"{lost}; the job runs on, and this page goes on watching"
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _is_small(path: str) -> bool:
    return path in _SMALL or path.endswith(f"/{SCORES}")


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
