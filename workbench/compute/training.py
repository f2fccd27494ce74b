"""From a notebook's parameters to a training run: everything is checked before anything starts."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.azure_login import find_workspace
from workbench.catalog import model_by_name
from workbench.compute.evaluation import (
    FOLDER,
    check_splits,
    parse_splits,
    split_sampling,
    unevaluated,
)
from workbench.compute.gpus import check_gpus
from workbench.compute.here import Ranks, TrainingFailedError, ranks_here, run_here
from workbench.compute.jobs import TrainingJob, run_folder, training_job
from workbench.compute.node import (
    LOG_FILE,
    Node,
    keep_error,
    kept,
    note_error,
    restore,
    this_node,
)
from workbench.compute.runs import Run, check_not_sent, only_writer, prepare_run, take_up
from workbench.compute.volumes import keep_cache, training_volumes
from workbench.data.cache import DatasetCache
from workbench.data.stored import credentials_for, open_dataset
from workbench.progress import relayed
from workbench.settings import shown
from workbench.stores.disk import naming

if TYPE_CHECKING:
    from workbench.compute.cluster_plan import ClusterPlan

__all__ = ["PARAMETERS", "TrainingPlan", "plan_training", "train", "training_volumes"]

TARGETS = ("auto", "local", "azureml")

# What a notebook may choose, by the names that ``plan_training`` takes.
CLUSTER_PARAMETERS = (
    *("cluster", "low_priority", "dataset_access", "dataset_mount", "azure_dataset", "datastore"),
    *("experiment", "tags", "torch_build", "sdk", "price_per_hour"),
)
PARAMETERS = (
    *("model", "nodes", "target", "local_dataset", "name", "resume", "reconstruct"),
    *("mask", "acceleration", "center_fraction"),
    *("epochs", "batch_size", "accumulate", "lr", "lr_step", "lr_gamma", "weight_decay"),
    *("cascades", "chans", "pools", "sens_chans", "sens_pools"),
    *("sample_rate", "volume_sample_rate", "val_volume_sample_rate"),
    *("precision", "tf32", "crop_readout", "low_memory", "compile"),
    *("seed", "workers", "checkpoint_minutes"),
    *CLUSTER_PARAMETERS,
)


@dataclass(frozen=True)
class TrainingPlan:
    """What is about to run on this machine.

    Attributes:
        job: what to train.
        cache: the dataset.
        ranks: the processes on this machine.
        run: the run's folder.
        splits: what to reconstruct and measure once it is trained.
        remarks: what a person should know before it starts.
        resume: whether to go on with a run that the folder holds.
    """

    job: TrainingJob
    cache: DatasetCache
    ranks: Ranks
    run: Run
    splits: tuple[str, ...]
    remarks: tuple[str, ...]
    resume: bool = True

    def __str__(self) -> str:
        return "\n".join(
            (
                *described(self.job, self.cache, self.run, self.ranks.total, self.splits),
                f"where      this machine: {self.ranks}",
                *(f"note       {remark}" for remark in self.remarks),
            )
        )


def described(
    job: TrainingJob, cache: DatasetCache, run: Run, ranks: int, splits: tuple[str, ...]
) -> Iterator[str]:
    """Write a job for people, a line for each subject.

    Args:
        job: what to train.
        cache: the dataset.
        run: the run's folder.
        ranks: number of processes; 0 where nobody knows yet.
        splits: what to reconstruct and measure once it is trained.
    """
    train, val = training_volumes(job, cache)
    start = f", going on after epoch {len(run.metrics)}" if run.last.exists() else ""
    yield f"run        {shown(run.folder)}{start}"
    yield (
        f"dataset    {shown(cache.root)}: {len(train)} training volumes ({train.slices:,} slices), "
        f"{len(val)} validation volumes ({val.slices:,} slices)"
    )
    yield (
        f"network    VarNet of {job.cascades} cascades, {job.chans} channels, {job.pools} pools; "
        f"sensitivity net of {job.sens_chans} channels, {job.sens_pools} pools"
    )
    yield f"sampling   {job.sampling}"
    yield (
        f"schedule   {job.epochs} epochs, batch {job.batch_size} x {ranks or 'all'} rank(s) x "
        f"{job.accumulate} accumulated, Adam {job.lr:g}, times {job.lr_gamma:g} every "
        f"{job.lr_step} epochs"
    )
    changing = [name for name in ("tf32", "crop_readout") if getattr(job, name)]
    yield (
        f"speed      {', '.join((f'precision {job.precision}', *changing))}, low_memory "
        f"{job.low_memory}, compile {job.compile}"
    )
    for split in splits:
        part, sampling = cache.split(split), split_sampling(job, split)
        yield (
            f"then       reconstructs {split} on all ranks: {len(part)} volumes "
            f"({part.slices:,} slices), {sampling or 'under the mask of each file'}"
        )


def plan_training(
    *,
    model: str,
    nodes: int = 1,
    target: str = "auto",
    local_dataset: str | None = None,
    resume: bool = True,
    reconstruct: str | None = None,
    **choices: Any,
) -> "TrainingPlan | ClusterPlan":
    """Check a notebook's parameters and prepare the run's folder.

    Args:
        model: a model's name.
        nodes: number of nodes; on this machine, without GPUs, that many processes.
        target: where to train, one of ``TARGETS``; "auto" is AzureML where a workspace is
            configured and no local dataset is given.
        local_dataset: folder of the dataset, if it is not the model's own under ``datasets/``, or
            its address in blob storage, whose slices are then read from there by ranges.
        resume: whether to go on with a run that the folder holds.
        reconstruct: splits to reconstruct and measure after the training, such as "val, test".
        **choices: what ``training_job`` takes, and the cluster's parameters, those of
            ``ClusterChoices``; None stands for the default.

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
        from workbench.compute.cluster_plan import ClusterChoices, plan_on_cluster

        if local_dataset:
            raise ValueError(
                f"local_dataset={local_dataset!r} is a folder of this machine: for target=azureml "
                "give azure_dataset, a folder in the container"
            )
        given = {key: value for key, value in of_cluster.items() if value is not None}
        return plan_on_cluster(model, nodes, resume, splits, ClusterChoices(**given), choices)
    node = this_node()
    try:
        if node:
            check_gpus(node.device == "GPU")
        plan = _plan_here(model, nodes, local_dataset, resume, splits, choices)
    except Exception as error:
        if node and node.store:
            note_error(node.store, error)
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
    where, cache = open_dataset(local_dataset or known_model.dataset, check=node is None)
    job = training_job(where, synthetic=cache.synthetic, model=model, **choices)
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
        restore(run_folder(job.name), node.store, without="" if node.rank == 0 else FOLDER)
    if node is None:
        check_not_sent(Run(run_folder(job.name)))
    run = prepare_run(job, resume=resume)
    keep_cache(cache, run.folder, goes_on=run.last.exists())
    remarks = tuple(_remarks(job, cache, ranks, nodes, choices))
    return TrainingPlan(job, cache, ranks, run, splits, remarks, resume)


def train(plan: "TrainingPlan | ClusterPlan") -> Iterator[str]:
    """Train, then reconstruct what is to be; yield the lines that the run prints.

    A run that is finished already returns at once.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
        RuntimeError: another process trains into the same folder.
        ClusterError: AzureML refuses what it was asked.
    """
    if not isinstance(plan, TrainingPlan):
        from workbench.compute.cluster_run import train_on_cluster

        yield from relayed(train_on_cluster(plan))
    else:
        yield from relayed(_train_here(plan))


def _unevaluated(plan: TrainingPlan) -> tuple[str, ...]:
    """Return the splits that are still to be reconstructed.

    Of a job's nodes only the first knows: all of them ask it, once their ranks have met.
    """
    if plan.ranks.node:
        return plan.splits
    return unevaluated(plan.run, plan.splits)


def _train_here(plan: TrainingPlan) -> Iterator[str]:
    """Train what was planned, whatever was planned and run in the same folder since then."""
    node, run = plan.ranks.node, plan.run
    with only_writer(run) as lock:
        if node is None:
            check_not_sent(run)
        take_up(run, plan.job, resume=plan.resume)
        keep_cache(plan.cache, run.folder, goes_on=run.last.exists())
        if run.finished and not _unevaluated(plan):
            yield f"{shown(run.folder)} is finished: {plan.job.epochs} epochs are done"
            return
        needs = credentials_for(plan.job.dataset)
        lines = run_here(
            run, "workbench.recon.run", plan.ranks, *plan.splits, needs=needs, lock=lock
        )
        yield from lines if node is None or node.store is None else _stored(plan, node, lines)


def _stored(plan: TrainingPlan, node: Node, lines: Iterator[str]) -> Iterator[str]:
    """Keep what a node's ranks leave in the store that outlives it."""
    folder, store = plan.run.folder, node.store
    assert store is not None
    try:
        # Every node keeps what it reconstructs; the run itself is the first one's to keep.
        own = FOLDER if node.rank else ""
        with kept(folder / own, store / own) if plan.splits or not own else nullcontext():
            for line in lines:
                with naming(folder / LOG_FILE), (folder / LOG_FILE).open("a") as log:
                    log.write(f"{line}\n")
                yield line
    except TrainingFailedError:
        keep_error(folder, store)
        raise


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


def phantom_remarks(
    job: TrainingJob, cache: DatasetCache, choices: dict[str, Any]
) -> Iterator[str]:
    """Say that a dataset is synthetic, and which defaults are its own."""
    if cache.synthetic:
        own = [name for name in ("cascades", "chans", "epochs") if choices.get(name) is None]
        yield "the dataset is the synthetic phantom, not patient data"
        if own:
            values = ", ".join(f"{name} {getattr(job, name)}" for name in own)
            yield f"small defaults for the phantom ({values}); give {', '.join(own)} to override"
