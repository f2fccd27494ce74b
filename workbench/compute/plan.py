"""What is about to be trained, wherever it runs: shown to people before anything starts."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workbench.compute.estimate import Estimate
from workbench.compute.evaluation import split_sampling
from workbench.compute.jobs import TrainingJob
from workbench.compute.runs import Run
from workbench.compute.volumes import training_volumes
from workbench.data.cache import DatasetCache
from workbench.models import find_network
from workbench.settings import shown


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A training that was checked, and may start.

    Attributes:
        job: what to train.
        cache: the dataset.
        run: the run's folder.
        splits: what to reconstruct and measure after the training.
        remarks: what a person should know before it starts.
        resume: whether to go on with a run that the folder holds.
    """

    job: TrainingJob
    cache: DatasetCache
    run: Run
    splits: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    resume: bool = True

    @property
    def processes(self) -> int:
        """Number of processes on all machines."""
        raise NotImplementedError

    @property
    def estimates(self) -> list[Estimate]:
        """Time and cost for several numbers of nodes; none where they are unknown."""
        return []

    def where(self) -> Iterator[str]:
        """Write where it runs, a line for each subject."""
        raise NotImplementedError

    def __str__(self) -> str:
        notes = (f"note       {remark}" for remark in self.remarks)
        return "\n".join((*self._what(), *self.where(), *notes))

    def _what(self) -> Iterator[str]:
        job, cache = self.job, self.cache
        train, val = training_volumes(job, cache)
        start = f", going on after epoch {len(self.run.metrics)}" if self.run.last.exists() else ""
        yield f"run        {shown(self.run.folder)}{start}"
        yield (
            f"dataset    {cache.address}: {len(train)} training volumes ({train.slices:,} "
            f"slices), {len(val)} validation volumes ({val.slices:,} slices)"
        )
        yield f"network    {job.config}"
        yield f"sampling   {job.sampling}"
        yield (
            f"schedule   {job.epochs} epochs, batch {job.batch_size} x {self.processes} rank(s) x "
            f"{job.accumulate} accumulated, Adam {job.lr:g}, times {job.lr_gamma:g} every "
            f"{job.lr_step} epochs"
        )
        changing = [name for name in ("tf32", "crop_readout") if getattr(job, name)]
        yield (
            f"speed      {', '.join((f'precision {job.precision}', *changing))}, low_memory "
            f"{job.low_memory}, compile {job.compile}"
        )
        for split in self.splits:
            part, sampling = cache.split(split), split_sampling(job, split)
            yield (
                f"then       reconstructs {split} on all ranks: {len(part)} volumes "
                f"({part.slices:,} slices), {sampling or 'under the mask of each file'}"
            )


def phantom_remarks(
    job: TrainingJob, cache: DatasetCache, choices: dict[str, Any]
) -> Iterator[str]:
    """Say that a dataset is synthetic, and which defaults are its own."""
    if cache.synthetic:
        names = (*find_network(job.network).phantom, "epochs")
        own = [name for name in names if choices.get(name) is None]
        yield "the dataset is the synthetic phantom, not patient data"
        if own:
            values = ", ".join(f"{name} {job.parameters[name]}" for name in own)
            yield f"small defaults for the phantom ({values}); give {', '.join(own)} to override"
