"""From a notebook's parameters to a training run: everything is checked before anything starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.catalog import model_by_name
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import TrainingJob, training_job
from workbench.compute.runs import Run, prepare_run
from workbench.dataset.cache import DatasetCache, find_dataset, open_cache
from workbench.settings import project_root, shown

TARGETS = ("auto", "local")

# What a notebook may choose, by the names that ``plan_training`` takes.
PARAMETERS = (
    *("model", "nodes", "target", "local_dataset", "name", "resume"),
    *("mask", "acceleration", "center_fraction"),
    *("epochs", "batch_size", "accumulate", "lr", "lr_step", "lr_gamma", "weight_decay"),
    *("cascades", "chans", "pools", "sens_chans", "sens_pools"),
    *("sample_rate", "volume_sample_rate", "val_volume_sample_rate"),
    *("precision", "seed", "workers", "checkpoint_minutes"),
)


@dataclass(frozen=True)
class TrainingPlan:
    """What is about to run, and where.

    Attributes:
        job: what to train.
        cache: the dataset.
        ranks: the processes on this machine.
        run: the run's folder.
        remarks: what a person should know before it starts.
    """

    job: TrainingJob
    cache: DatasetCache
    ranks: Ranks
    run: Run
    remarks: tuple[str, ...]

    def __str__(self) -> str:
        job = self.job
        train, val = training_volumes(job, self.cache)
        start = f", going on after epoch {len(self.run.metrics)}" if self.run.last.exists() else ""
        return "\n".join(
            (
                f"run        {shown(self.run.folder)}{start}",
                f"dataset    {shown(self.cache.root)}: {len(train)} training volumes "
                f"({train.slices:,} slices), {len(val)} validation volumes ({val.slices:,} slices)",
                f"network    VarNet of {job.cascades} cascades, {job.chans} channels, {job.pools} "
                f"pools; sensitivity net of {job.sens_chans} channels, {job.sens_pools} pools",
                f"sampling   {job.sampling}",
                f"schedule   {job.epochs} epochs, batch {job.batch_size} x {self.ranks.count} "
                f"rank(s) x {job.accumulate} accumulated, Adam {job.lr:g}, times {job.lr_gamma:g} "
                f"every {job.lr_step} epochs, precision {job.precision}",
                f"where      this machine: {self.ranks}",
                *(f"note       {remark}" for remark in self.remarks),
            )
        )


def plan_training(
    *,
    model: str,
    nodes: int = 1,
    target: str = "auto",
    local_dataset: str | None = None,
    resume: bool = True,
    **choices: Any,
) -> TrainingPlan:
    """Check a notebook's parameters and prepare the run's folder.

    Args:
        model: a model's name.
        nodes: number of nodes; without GPUs, that many processes on this machine.
        target: where to train, one of ``TARGETS``.
        local_dataset: folder of the dataset, if it is not the model's own under ``datasets/``.
        resume: whether to go on with a run that the folder holds.
        **choices: what ``training_job`` takes; None stands for the default.

    Raises:
        ValueError: a parameter is outside what is allowed, or the dataset cannot be trained on.
        FileNotFoundError: there is no such dataset.
    """
    ranks = ranks_here(nodes)
    if target not in TARGETS:
        raise ValueError(f"target={target!r}: give one of {', '.join(TARGETS)}")
    known_model = model_by_name(model)
    # The numbers are checked before the dataset is opened, which can take a while.
    training_job(Path(), synthetic=False, model=model, **choices)
    cache = open_cache(find_dataset(local_dataset or known_model.dataset))
    job = training_job(cache.root, synthetic=cache.synthetic, model=model, **choices)
    training_volumes(job, cache)
    run = prepare_run(job, resume=resume)
    return TrainingPlan(job, cache, ranks, run, tuple(_remarks(job, cache, ranks, nodes, choices)))


def training_volumes(job: TrainingJob, cache: DatasetCache) -> tuple[DatasetCache, DatasetCache]:
    """Return the volumes that a job trains on and those that it validates on.

    Raises:
        ValueError: a split is empty, or a volume of it has no target.
    """
    train, val = cache.split("train"), cache.split("val")
    for name, part in (("train", train), ("val", val)):
        if not part.volumes:
            held = ", ".join(f"{split} {count[0]}" for split, count in cache.counts.items())
            raise ValueError(
                f"{shown(cache.root)} has no {name} volumes (volumes by split: {held or 'none'}): "
                f"ingest the dataset's {name} archives"
            )
        untargeted = [volume.path for volume in part if volume.target is None]
        if untargeted:
            raise ValueError(
                f"{len(untargeted)} {name} volumes of {shown(cache.root)} have no target to learn "
                f"from, such as {untargeted[0]}: move them out of the {name} folder"
            )
    return (
        train.sample_volumes(job.volume_sample_rate, job.seed),
        val.sample_volumes(job.val_volume_sample_rate, job.seed),
    )


def train(plan: TrainingPlan) -> Iterator[str]:
    """Train; yield the lines that the run prints. A run that is finished already returns at once.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
        RuntimeError: another process trains into the same folder.
    """
    if plan.run.finished:
        yield f"{shown(plan.run.folder)} is finished: {plan.job.epochs} epochs are done"
        return
    yield from run_here(plan.run, "workbench.varnet.run", plan.ranks)


def _remarks(
    job: TrainingJob, cache: DatasetCache, ranks: Ranks, nodes: int, choices: dict[str, Any]
) -> Iterator[str]:
    if (project_root() / "config.json").exists():
        yield "an AzureML workspace is configured, but this version does not submit jobs to it"
    else:
        yield "no AzureML workspace is configured, so the job runs on this machine"
    if ranks.device == "GPU" and nodes != 1:
        yield f"nodes={nodes} has no effect here: one process a GPU, {ranks.count} in all"
    elif nodes > 1:
        yield f"nodes={nodes}: this machine has no GPU, so {nodes} CPU processes stand for them"
    if cache.synthetic:
        own = [name for name in ("cascades", "chans", "epochs") if choices.get(name) is None]
        yield "the dataset is the synthetic phantom, not patient data"
        if own:
            values = ", ".join(f"{name} {getattr(job, name)}" for name in own)
            yield f"small defaults for the phantom ({values}); give {', '.join(own)} to override"
