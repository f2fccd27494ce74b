"""Training of a network: what a step, a validation and a schedule are."""

import json
import math
from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from workbench.compute.jobs import LOSSES, OPTIMIZERS, TrainingJob
from workbench.compute.runs import check_same
from workbench.data.images import cropped
from workbench.data.loading import SliceData
from workbench.data.slices import Sample
from workbench.models import build, first_estimate
from workbench.models.own import find_loss
from workbench.recon.arrays import given_of
from workbench.recon.metrics import (
    LEADING,
    SliceScore,
    score_volumes,
    unscored,
)
from workbench.recon.scoring import score_slice
from workbench.recon.selfsupervised import held_out_error, training_loss

Value = TypeVar("Value")

_RISING = 0.1  # of all steps, in which the learning rate of "cosine" rises


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; the message names epoch, volume and slice."""


class Training(pl.LightningModule):
    """Trains by the job's loss and optimizer, and StepLR; scores each volume.

    Self-supervised it reads no target, and where volumes have none it validates on lines that it
    does not show to the network.
    """

    def __init__(self, job: TrainingJob) -> None:
        super().__init__()
        self.job = job
        self.network = build(job.network, job.config)
        self.network.bf16, self.network.crop_readout = job.precision == "bf16", job.crop_readout
        if job.first_estimate:
            self.network.start_at_zero_filled()
            self.network.begin_with(first_estimate(job.first_estimate))
        name = job.loss or "ssim"
        self.loss = find_loss(LOSSES.get(name, name))
        self.volume_scores: list[dict[str, Any]] = []
        self._slice_scores: list[SliceScore] = []
        self._ranges: list[tuple[str, Any, Any]] | None = []  # until the first validation's end

    def forward(self, batch: Sample) -> Tensor:
        """Reconstruct a batch: (batch, H, W) magnitude images."""
        return self.network.central_image(*given_of(batch))

    def training_step(self, batch: Sample, batch_index: int) -> Tensor:
        """Return the loss of a batch; NonFiniteLossError where it is NaN or infinite."""
        if not self.job.augment:
            self._note_ranges(batch)
        loss = self._loss(batch)
        if not torch.isfinite(loss):
            where = ", ".join(
                f"{name} slice {number}"
                for name, number in zip(batch.volume, batch.slice_num, strict=True)
            )
            raise NonFiniteLossError(
                f"the loss is {loss.item()} at epoch {self.current_epoch}, batch {batch_index}: "
                f"{where}. Look at that slice in explore.ipynb; if its data is sound, lower lr "
                f"({self.job.lr:g}) or set precision to 32 (now {self.job.precision})"
            )
        return loss

    def _loss(self, batch: Sample) -> Tensor:
        if self.job.learning == "self-supervised":
            seed = self.job.seed, self.current_epoch
            return training_loss(self.network, batch, _rows_of(batch), seed)
        if self.job.loss is None:
            loss = self.network.own_loss(*given_of(batch), batch.target)
            if loss is not None:
                return loss
        image, target = cropped(self(batch), batch.target)
        # A volume that is all zero has no range; any will do, since it has no error either.
        span = batch.max_value.masked_fill(batch.max_value == 0, 1)
        return self.loss(image, target, span)

    def validation_step(self, batch: Sample, batch_index: int) -> Tensor:
        """Score a batch's slices, return the images; NonFiniteLossError where a score is NaN."""
        images = self(batch)
        if batch.target.ndim < 3:
            errors = held_out_error(self.network, batch, _rows_of(batch))
            places = zip(batch.volume, batch.slice_num, strict=True)
            for (name, slice_number), error in zip(places, errors, strict=True):
                self._check(error, "error on held-out lines", name, slice_number)
                self._slice_scores.append(unscored(name, slice_number, error))
            return images
        self._note_ranges(batch)
        for number, image in enumerate(images):
            name, slice_number = batch.volume[number], batch.slice_num[number]
            score = score_slice(
                image, batch.target[number], name, slice_number, float(batch.max_value[number])
            )
            self._check(score.parts[LEADING.name], LEADING.label, name, slice_number)
            self._slice_scores.append(score)
        return images

    def _check(self, value: float, label: str, name: str, slice_number: int) -> None:
        """Refuse a validation's value that is not finite."""
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"the validation {label} is {value} at epoch {self.current_epoch}: "
                f"{name} slice {slice_number}. Look at that slice in explore.ipynb; if its "
                "data is sound, the training has diverged: lower lr"
            )

    def on_validation_epoch_end(self) -> None:
        """Bring the ranks' slices together and form the volumes' figures, on every rank alike."""
        self.volume_scores = score_volumes(gather(self._slice_scores))
        self._slice_scores = []
        if self._ranges is not None:
            slices = [(name, float(largest), float(said)) for name, largest, said in self._ranges]
            self._ranges, slices = None, gather(slices)
            note = wrong_ranges(slices, {row["volume"] for row in self.volume_scores})
            if note and self.global_rank == 0:
                print(note, flush=True)

    def _note_ranges(self, batch: Sample) -> None:
        """Note a batch's largest target values, and its files' (``max``), once for each slice."""
        if self._ranges is not None and batch.target.ndim == 3:
            largest = batch.target.amax((1, 2))  # stays on its device: nobody waits for it
            self._ranges += zip(batch.volume, largest, batch.max_value, strict=True)

    def configure_optimizers(self) -> Any:
        """Return the job's optimizer and schedule: StepLR by epoch, or a cosine by step."""
        job, kind = self.job, getattr(torch.optim, OPTIMIZERS[self.job.optimizer])
        # A fused one takes scaled gradients, which cannot be cut to a norm; RMSprop has none.
        fused = job.optimizer != "rmsprop" and not (job.precision == "16" and job.clip)
        faster = {"fused": True} if fused else {}
        optimizer = kind(self.parameters(), lr=job.lr, weight_decay=job.weight_decay, **faster)
        if job.schedule == "step":
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, job.lr_step, job.lr_gamma)
            return [optimizer], [schedule]
        # Lightning's own estimate would make the loader before it knows where a run goes on.
        data = cast(SliceData, self.trainer.datamodule)  # type: ignore[attr-defined]
        batches = data.batches_of_epoch(self.trainer.world_size)
        steps = -(-batches // job.accumulate)  # of an epoch

        def share(_: int) -> float:
            """Go by where the training is: on fewer ranks it has had other steps until there."""
            done = self.trainer.fit_loop.epoch_loop.batch_progress.current.ready
            return cosine(
                self.current_epoch * steps + -(-done // job.accumulate), job.epochs * steps
            )

        by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return [optimizer], [{"scheduler": by_step, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the job beside the weights, so that a checkpoint says what it is."""
        checkpoint["job"] = self.job.model_dump()
        checkpoint["ranks"] = self.trainer.world_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse what another job has learned; begin an epoch anew on another number of ranks."""
        before = TrainingJob.from_json(json.dumps(checkpoint["job"]))
        check_same(before, self.job, "its last checkpoint is")
        if checkpoint.get("ranks") != self.trainer.world_size:
            # Which slices of the epoch are done is known by batches of each rank.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
            if not progress["is_last_batch"] and progress["current"]["ready"]:
                progress["current"] = dict.fromkeys(progress["current"], 0)
                print(
                    f"the checkpoint was made on {checkpoint.get('ranks')} rank(s), this run has "
                    f"{self.trainer.world_size}: its epoch begins anew",
                    flush=True,
                )


def wrong_ranges(slices: Iterable[tuple[str, float, float]], whole: Collection[str]) -> str:
    """Say which volumes' files name another largest target value than they hold; "" for none.

    Args:
        slices: the volume, the slice's largest target value, and the volume's as its file says it
            (``max``).
        whole: the volumes of which every slice is there.
    """
    volumes: dict[str, tuple[float, float]] = {}
    for name, brightest, said in slices:
        volumes[name] = max(brightest, volumes.get(name, (brightest,))[0]), said
    wrong = [
        name
        for name, (brightest, said) in sorted(volumes.items())
        if not math.isclose(brightest, said, rel_tol=0.01) and (brightest > said or name in whole)
    ]
    if not wrong:
        return ""
    brightest, said = volumes[wrong[0]]
    return (
        f"note: {len(wrong)} of {len(volumes)} volumes do not hold the largest target value that "
        f"their attribute max names, such as {wrong[0]}: {brightest:.3g}, not {said:.3g}. Loss, "
        "SSIM and PSNR of a training take it for the range of values, as fastMRI's does; those of "
        "a reconstruction take the target's own"
    )


def _rows_of(batch: Sample) -> int:
    """Return how many rows of the images are wanted."""
    *_, (rows, _) = given_of(batch)
    return rows


class WeightAverage(WeightAveraging):
    """Averages weights exponentially, step by step; validation and checkpoints have the average.

    It often reconstructs better than the last step's (Polyak, Juditsky 1992, doi:10.1137/0330046).

    The n-th step's decay is the smaller of ``decay`` and n / (n + 9), so that a short training
    does not remember the random weights that it began with. Checkpoints have the average as their
    ``state_dict``; the weights that training goes on with are beside it.

    Args:
        decay: of the average so far, a step; such as 0.999.
        device: where the average is kept.
    """

    def __init__(self, decay: float, device: torch.device) -> None:
        def average(averages: Sequence[Tensor], weights: Sequence[Tensor], done: Tensor) -> None:
            share = 1 - min(decay, (1 + int(done)) / (10 + int(done)))
            torch._foreach_lerp_(list(averages), list(weights), share)

        super().__init__(device=device, use_buffers=False, multi_avg_fn=average)


def gather(values: list[Value], group: Any = None) -> list[Value]:
    """Return the values of all ranks, of a group or of all, on each of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    everyone: list[list[Value]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(everyone, values, group=group)
    return [value for rank in everyone for value in rank]


def cosine(step: int, steps: int) -> float:
    """Return the share of the learning rate that a step has, the first of ``steps`` being 0.

    It rises in proportion for a tenth of the steps, then falls to zero along half a cosine
    (Loshchilov and Hutter 2017, arXiv:1608.03983).
    """
    rising = max(1, round(_RISING * steps))
    if step < rising:
        return (step + 1) / (rising + 1)
    return (1 + math.cos(math.pi * min(1, (step - rising) / max(1, steps - rising)))) / 2
