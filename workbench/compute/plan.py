"""What is about to be trained, wherever it runs: shown to people before anything starts."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from workbench.compute.cluster_job import ClusterJob
from workbench.compute.estimate import NODES, Estimate, Pace, Price, estimates
from workbench.compute.evaluation import (
    own_masks,
    sampled_less,
    split_sampling,
    split_volumes,
    training_volumes,
    unevaluated,
    zeros_as_measured,
)
from workbench.compute.gpus import cards_of
from workbench.compute.here import Ranks
from workbench.compute.jobs import OPTIMIZERS, TrainingJob, training_job
from workbench.compute.runs import Run
from workbench.compute.sender import Cluster, Sender
from workbench.data.cache import DatasetCache
from workbench.data.doubts import also_in
from workbench.models import find_network
from workbench.progress import count_of, duration
from workbench.settings import shown
from workbench.stores import Store

LEARNING_WORDS = "self-supervised: from sampled lines that the network is not shown, no target"
_ACCESS = {
    "mount": "mounts",
    "download": "downloads once a node",
    "stream": "streams by ranged reads",
}


@dataclass(frozen=True)
class Cloud:
    """Where a job is sent, and what that takes; ``store`` is where it leaves what it does."""

    cluster: Cluster
    job: ClusterJob
    sender: Sender
    store: Store
    pace: Pace | None = None
    price: Price | None = None

    @property
    def total(self) -> int:
        """Number of processes on all machines."""
        return self.job.nodes * cards_of(self.cluster.vm_size)

    def estimates(self, *, nodes: Iterable[int] = (), **work: Any) -> list[Estimate]:
        """Time and cost of ``work``, see ``estimates``; none where the pace is not known."""
        if not self.pace:
            return []
        counts = sorted({*nodes, self.job.nodes})
        cards = cards_of(self.cluster.vm_size)
        return estimates(self.pace, cards, **work, nodes=counts, price=self.price)

    def told(self, found: Iterable[Estimate] = ()) -> Iterator[str]:
        """Say time and cost on its nodes, as lines of a plan."""
        nodes, price = self.job.nodes, self.price
        for each in found:
            if each.nodes == nodes and self.pace:
                cost = "" if each.dollars is None else f", about {each.dollars:,.2f} US dollars"
                yield (
                    f"estimate   {duration(3600 * each.hours)}{cost} at {each.efficiency:.0%} "
                    f"parallel efficiency; {self.pace.source}"
                )
        if price:
            hourly = "cost"
            if not found:
                hourly = f"{price.dollars * nodes:,.2f} US dollars an hour; how long is not known"
            yield f"estimate   {hourly}: {price.source}"

    def __str__(self) -> str:
        dataset = self.job.dataset
        return (
            f"{self.job.nodes} node(s) of cluster {self.cluster}\n"
            f"data       {_ACCESS[dataset.mode]} {dataset.path} in datastore "
            f"{dataset.datastore}; what it leaves goes to {self.job.store.path} there"
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that was checked, and may start.

    Attributes:
        run: the run's folder; from a cluster it fills with what the nodes keep.
        where: the processes on this machine, or the cluster.
        splits: what to reconstruct and measure after the training.
        remarks: what a person should know before it starts.
        resume: whether to go on with a run that the folder holds.
    """

    job: TrainingJob
    cache: DatasetCache
    run: Run
    where: Ranks | Cloud
    splits: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    resume: bool = True

    @property
    def slices(self) -> tuple[int, int]:
        """Training and validation slices of an epoch."""
        train, val = training_volumes(self.job, self.cache)
        return max(1, round(self.job.sample_rate * train.slices)), val.slices

    @property
    def estimates(self) -> list[Estimate]:
        """Time and cost for several numbers of a cluster's nodes; none where they are unknown."""
        if not isinstance(self.where, Cloud):
            return []
        return self.where.estimates(
            slices=self.slices,
            epochs=self.job.epochs - len(self.run.metrics),
            once=sum(self.cache.split(split).slices for split in self.splits),
            nodes=NODES,
        )

    @property
    def finished(self) -> str:
        """Say that all epochs are done and all splits reconstructed; "" where something is left."""
        if not self.run.finished or unevaluated(self.run, self.splits, self.cache):
            return ""
        return f"{shown(self.run.folder)} is finished: {len(self.run.metrics)} epochs are done"

    def __str__(self) -> str:
        job, cache = self.job, self.cache
        train, val = training_volumes(job, cache)
        own = job.learning != "supervised" and own_masks(train)
        start = f", going on after epoch {len(self.run.metrics)}" if self.run.last.exists() else ""
        changing = "".join(f", {name}" for name in ("tf32", "crop_readout") if getattr(job, name))
        lines = [
            f"run        {shown(self.run.folder)}{start}",
            f"dataset    {cache.address}: {counted(train, 'training')}, "
            f"{counted(val, 'validation')}",
            f"network    {job.config}",
            *([f"loss       {job.loss}"] if job.loss else []),
            *([f"learning   {LEARNING_WORDS}"] if job.learning != "supervised" else []),
            *([f"augment    {job.augment}, from epoch to epoch more"] if job.augment else []),
            *([f"start      {job.start_from.remark(['val'])}"] if job.start_from else []),
            *([f"estimate   begins with {job.first_estimate}"] if job.first_estimate else []),
            f"sampling   {'each file with its own mask' if own else job.sampling}",
            f"schedule   {job.epochs} epochs, batch {job.batch_size} x {self.where.total} rank(s) "
            f"x {job.accumulate} accumulated, {OPTIMIZERS[job.optimizer]} {job.lr:g}, "
            f"{_falling(job)}{_besides(job)}",
            f"speed      precision {job.precision}{changing}, low_memory {job.low_memory}, compile "
            f"{job.compile}",
        ]
        for split in self.splits:
            part, sampling = cache.split(split), split_sampling(job, split)
            lines.append(
                f"then       reconstructs on all ranks {counted(part, split)}, "
                f"{sampling or 'under the mask of each file'}"
            )
        lines.append(f"where      {self.where}")
        if isinstance(self.where, Cloud):
            lines += self.where.told(self.estimates)
        return "\n".join([*lines, *(f"note       {remark}" for remark in self.remarks)])


def counted(part: DatasetCache, kind: str = "") -> str:
    """Write how many volumes and slices there are, such as "1 training volume (16 slices)"."""
    return f"{count_of(len(part), kind)} ({part.slices:,} slices)"


def _falling(job: TrainingJob) -> str:
    """Say how the learning rate falls."""
    if job.schedule == "step":
        return f"times {job.lr_gamma:g} every {job.lr_step} epochs"
    return "rising, then falling to zero along a cosine"


def _besides(job: TrainingJob) -> str:
    """Say what a schedule has beside the usual."""
    return "".join(
        f", {what}"
        for value, what in (
            (job.clip, f"gradients cut to the norm {job.clip}"),
            (job.ema, f"weights averaged with decay {job.ema}"),
            (job.patience, f"ended after {job.patience} epochs without a better one"),
        )
        if value
    )


def checked_job(
    model: str, cache: DatasetCache, splits: Iterable[str], choices: dict[str, Any]
) -> TrainingJob:
    """Form a job, and check that the dataset has what it trains on and reconstructs afterwards.

    Raises:
        ValueError: a parameter is wrong, or volumes are missing or cannot be undersampled so.
    """
    job = training_job(cache.store.address, synthetic=cache.synthetic, model=model, **choices)
    train, val = training_volumes(job, cache)
    if job.augment and (cut := [each.path for each in train if each.own_mask is not None]):
        raise ValueError(
            f"augment={job.augment} needs fully sampled k-space, and {len(cut)} training volumes "
            f"of {cache.address} are undersampled already, such as {cut[0]}: leave augment out, or "
            "move them out of the train folder"
        )
    if job.augment:
        from workbench.data.augment import check_targets  # imports torch

        check_targets(train)
    if not job.sampling.always_possible:
        from workbench.data.masks import check_masks  # imports torch and fastmri

        check_masks(job.sampling, (volume.matrix[1] for volume in (*train, *val)))
    for split in splits:
        split_volumes(cache, split, split_sampling(job, split))
    return job


def data_remarks(job: TrainingJob, cache: DatasetCache, choices: dict[str, Any]) -> Iterator[str]:
    """Say what figures do not, of how the volumes are parted, sampled, and whether synthetic."""
    train, val = training_volumes(job, cache)
    for part in (train, val):
        yield from zeros_as_measured(part)
        if job.learning == "supervised" or not own_masks(part):
            yield from sampled_less(part, job.sampling)
    if both := also_in(val, train):
        yield (
            f"{len(both)} of {len(val)} validation volumes are training volumes as well, such as "
            f"{both[0].path}: of them the figures say how well they were learned, and no more; "
            "take them out of one of the folders"
        )
    if cache.synthetic:
        yield "the dataset is the synthetic phantom, not patient data"
        numbers = () if job.start_from else find_network(job.network).phantom
        names = (*numbers, "epochs")
        if own := [name for name in names if choices.get(name) is None]:
            values = ", ".join(f"{name} {job.parameters[name]}" for name in own)
            yield f"small defaults for the phantom ({values}); give {', '.join(own)} to override"
