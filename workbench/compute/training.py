"""From a notebook's parameters to a training run: everything is checked before anything starts."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.azure_login import find_workspace
from workbench.catalog import model_by_name
from workbench.compute.cluster_plan import ClusterPlan, plan_on_cluster
from workbench.compute.cluster_run import train_on_cluster
from workbench.compute.evaluation import FOLDER, check_splits, parse_splits, unevaluated
from workbench.compute.gpus import check_gpus
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import TrainingJob, run_folder, training_job
from workbench.compute.kept import LOG_FILE, fetch, kept
from workbench.compute.node import ERRORS, Node, error_note, this_node
from workbench.compute.plan import Plan, phantom_remarks
from workbench.compute.runs import Run, check_not_sent, only_writer, prepare_run, take_up
from workbench.compute.volumes import keep_cache, training_volumes
from workbench.data.cache import DatasetCache, open_dataset
from workbench.progress import relayed
from workbench.settings import shown
from workbench.stores import credentials_for
from workbench.stores.disk import naming

TARGETS = ("auto", "local", "azureml")

# What ``plan_on_cluster`` takes by name; the rest of a notebook's choices is the job's.
CLUSTER_PARAMETERS = (
    *("cluster", "low_priority", "dataset_access", "dataset_mount", "azure_dataset", "datastore"),
    *("experiment", "tags", "torch_build", "sdk", "price_per_hour"),
)


@dataclass(frozen=True, kw_only=True)
class TrainingPlan(Plan):
    """What is about to run on this machine.

    Attributes:
        ranks: the processes on this machine.
    """

    ranks: Ranks

    @property
    def processes(self) -> int:
        """Number of processes on all machines."""
        return self.ranks.total

    def where(self) -> Iterator[str]:
        """Write where it runs."""
        yield f"where      this machine: {self.ranks}"


def plan_training(
    *,
    model: str,
    nodes: int = 1,
    target: str = "auto",
    local_dataset: str | None = None,
    resume: bool = True,
    reconstruct: str | None = None,
    **choices: Any,
) -> TrainingPlan | ClusterPlan:
    """Check a notebook's parameters and prepare the run's folder.

    Args:
        model: a model's name.
        nodes: number of nodes; on this machine, without GPUs, that many processes.
        target: where to train, one of ``TARGETS``; "auto" is AzureML where a workspace is
            configured and no local dataset is given.
        local_dataset: folder of the dataset, if it is not the model's own under ``datasets/``, or
            its address in blob storage, from which slices are then read by ranges.
        resume: whether to go on with a run that the folder holds.
        reconstruct: splits to reconstruct and measure after the training, such as "val, test".
        **choices: what ``training_job`` takes, and the cluster's parameters, those of
            ``plan_on_cluster``; None stands for the default.

    Raises:
        ValueError: a parameter is outside what is allowed, or the dataset cannot be trained on.
        FileNotFoundError: there is no such dataset.
        UnusableGpuError: this machine's GPUs cannot run this build of torch.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    if target not in TARGETS:
        raise ValueError(f"target={target!r}: give one of {', '.join(TARGETS)}")
    splits = parse_splits(reconstruct)
    of_cluster = {key: choices.pop(key, None) for key in CLUSTER_PARAMETERS}
    workspace = None if target == "local" else find_workspace()
    on_cluster = workspace is not None and not (target == "auto" and local_dataset)
    if target == "azureml" or on_cluster:
        if local_dataset:
            raise ValueError(
                f"local_dataset={local_dataset!r} is a folder of this machine: for target=azureml "
                "give azure_dataset, a folder in the container"
            )
        given = {key: value for key, value in of_cluster.items() if value is not None}
        return plan_on_cluster(model, nodes, resume, splits, choices, **given)
    node = this_node()
    try:
        if node:
            check_gpus(node.device == "GPU")
        plan = _plan_here(model, nodes, local_dataset, resume, splits, choices)
    except Exception as error:
        if node and node.store:
            rank, note = error_note(error)
            node.store.write(f"{ERRORS}/{rank}.json", note.encode())
        raise
    if node:
        return plan
    where = _why_here(workspace is not None, target)
    unused = [key for key, value in of_cluster.items() if value not in (None, True)]
    if unused:
        where += f"; {', '.join(unused)} has no effect here"
    return replace(plan, remarks=(where, *plan.remarks))


def _plan_here(
    model: str,
    nodes: int,
    local_dataset: str | None,
    resume: bool,
    splits: tuple[str, ...],
    choices: dict[str, Any],
) -> TrainingPlan:
    from workbench.data.masks import check_masks

    ranks = ranks_here(nodes)
    node = ranks.node
    known_model = model_by_name(model)
    # The numbers are checked before the dataset is opened, which can take a while.
    training_job(Path(), synthetic=False, model=model, **choices)
    # To look at each file of a mount takes minutes.
    cache = open_dataset(local_dataset or known_model.dataset, check=node is None)
    job = training_job(cache.store.address, synthetic=cache.synthetic, model=model, **choices)
    check_splits(splits, job, cache)
    if job.precision == "16" and ranks.device == "CPU":
        raise ValueError("precision=16: only GPUs train in float16; give 32 or bf16")
    train, val = training_volumes(job, cache)
    check_masks(job.sampling, (volume.matrix[1] for volume in (*train, *val)))
    if ranks.total > min(train.slices, val.slices):
        raise ValueError(
            f"nodes={nodes}: {ranks.total} processes are more than the {train.slices} training or "
            f"{val.slices} validation slices"
        )
    if node and node.store:
        without = (f"{ERRORS}/", *([f"{FOLDER}/"] if node.rank else []))
        fetch(node.store, run_folder(job.name), lambda path: not path.startswith(without))
    if node is None:
        check_not_sent(Run(run_folder(job.name)))
    run = prepare_run(job, resume=resume)
    keep_cache(cache, run.folder, goes_on=run.last.exists())
    remarks = tuple(_remarks(job, cache, ranks, nodes, choices))
    return TrainingPlan(
        job=job,
        cache=cache,
        run=run,
        splits=splits,
        remarks=remarks,
        resume=resume,
        ranks=ranks,
    )


def train(plan: Plan) -> Iterator[str]:
    """Train, then reconstruct the plan's splits; yield the lines that the run prints.

    A run that is finished already returns at once.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
        RuntimeError: another process trains into the same folder.
        ClusterError: AzureML refuses what it was asked.
    """
    if isinstance(plan, ClusterPlan):
        yield from relayed(train_on_cluster(plan))
    elif isinstance(plan, TrainingPlan):
        yield from relayed(_train_here(plan))


def _train_here(plan: TrainingPlan) -> Iterator[str]:
    """Train what was planned, whatever was planned and run in the same folder since then."""
    node, run = plan.ranks.node, plan.run
    with only_writer(run) as lock:
        if node is None:
            check_not_sent(run)
        take_up(run, plan.job, resume=plan.resume)
        keep_cache(plan.cache, run.folder, goes_on=run.last.exists())
        # Of a job's nodes only the first knows what was reconstructed: its ranks ask it later.
        if run.finished and not (plan.splits if node else unevaluated(run, plan.splits)):
            yield f"{shown(run.folder)} is finished: {plan.job.epochs} epochs are done"
            return
        needs = credentials_for(plan.job.dataset)
        lines = run_here(
            run, "workbench.recon.run", plan.ranks, *plan.splits, needs=needs, lock=lock
        )
        yield from lines if node is None or node.store is None else _kept(run, node, lines)


def _kept(run: Run, node: Node, lines: Iterator[str]) -> Iterator[str]:
    """Keep what a node's ranks leave, and their lines, in the store that outlives the node."""
    assert node.store is not None
    log_file = run.folder / LOG_FILE
    # Every node keeps what it reconstructs; the run itself is the first one's to keep.
    with kept(run.folder, node.store, f"{FOLDER}/" if node.rank else ""):
        for line in lines:
            with naming(log_file), log_file.open("a") as log:
                log.write(f"{line}\n")
            yield line


def _why_here(workspace: bool, target: str) -> str:
    if target == "local":
        return "target=local, so the job runs on this machine"
    if workspace:
        return "an AzureML workspace is configured, but local_dataset is for this machine"
    return "no AzureML workspace is configured, so the job runs on this machine"


def _remarks(
    job: TrainingJob, cache: DatasetCache, ranks: Ranks, nodes: int, choices: dict[str, Any]
) -> Iterator[str]:
    if ranks.node is None and ranks.device == "GPU" and nodes != 1:
        yield f"nodes={nodes} has no effect here: one process a GPU, {ranks.count} in all"
    elif ranks.node is None and nodes > 1:
        yield f"nodes={nodes}: this machine has no GPU, so {nodes} CPU processes stand for them"
    if needs := credentials_for(job.dataset):
        yield f"the processes read blob storage: they are handed {needs[0]}, and no other secret"
    yield from phantom_remarks(job, cache, choices)
