"""Training of a network: Lightning module, checkpoints, the record of a run."""

import io
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
import torch.distributed
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from workbench.compute.jobs import LOSSES, OPTIMIZERS, TrainingJob, flat
from workbench.compute.runs import out_of_patience
from workbench.data.images import crop_size, cropped
from workbench.data.loading import SliceData
from workbench.data.slices import Sample
from workbench.models import build, first_estimate
from workbench.models.own import find_loss
from workbench.progress import Progress, duration, say
from workbench.recon.metrics import (
    LEADING,
    SliceScore,
    described,
    mean_scores,
    score_volumes,
    standing,
    unscored,
)
from workbench.recon.results import write_table
from workbench.recon.scoring import score_slice
from workbench.recon.selfsupervised import held_out_error, training_loss
from workbench.stores.disk import replacing

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

    def forward(self, batch: Sample) -> Tensor:
        """Reconstruct a batch: (batch, H, W) magnitude images."""
        return self.network.central_image(*_given(batch))

    def training_step(self, batch: Sample, batch_index: int) -> Tensor:
        """Return the loss of a batch; NonFiniteLossError where it is NaN or infinite."""
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
            loss = self.network.own_loss(*_given(batch), batch.target)
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
        share = partial(cosine, steps=job.epochs * -(-batches // job.accumulate))
        by_step = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return [optimizer], [{"scheduler": by_step, "interval": "step"}]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the job beside the weights, so that a checkpoint says what it is."""
        checkpoint["job"] = self.job.model_dump()
        checkpoint["ranks"] = self.trainer.world_size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse the weights of another network; begin an epoch anew on another number of ranks."""
        before, now = flat(checkpoint.get("job", {})), self.job.parameters
        before.setdefault("crop_readout", self.job.crop_readout)  # older checkpoints do not name it
        names = ("network", *asdict(self.job.config), "crop_readout", "first_estimate")
        changes = ", ".join(
            f"{name} {before.get(name)} there, {now[name]} here"
            for name in names
            if before.get(name) != now[name]
        )
        if changes:
            raise ValueError(f"the checkpoint is of another architecture: {changes}")
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


def _given(batch: Sample) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
    """Return what ``Reconstructor.central_image`` is given of a batch."""
    matrix = int(batch.masked_kspace.shape[2]), int(batch.masked_kspace.shape[3])
    heights, widths = zip(*(crop_size(matrix, size) for size in batch.crop_size), strict=True)
    size = max(heights), max(widths)
    return batch.masked_kspace, batch.mask, batch.num_low_frequencies, size


def _rows_of(batch: Sample) -> int:
    """Return how many rows of the images are wanted."""
    *_, (rows, _) = _given(batch)
    return rows


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


class RunCheckpoints(Checkpoint):
    """Keeps ``last.ckpt`` and ``best.ckpt`` (see ``metrics.standing``), each whole at any time.

    ``last.ckpt`` is written at the end of each epoch and every ``minutes`` within one. The run's
    tables follow it, so that they never tell of an epoch that a restart would not know. The run
    ends after ``patience`` epochs without a better one; all ranks have the same scores, and so
    decide alike.
    """

    def __init__(
        self, folder: Path, minutes: float, record: "RunRecord", patience: int | None = None
    ) -> None:
        self.folder, self.seconds, self.record = folder, 60 * minutes, record
        self.patience = patience
        self.best, self.since_best = -math.inf, 0
        self._saved = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return the best standing so far, and how many epochs there were since."""
        return {"best": self.best, "since_best": self.since_best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the best standing so far."""
        self.best, self.since_best = state_dict["best"], state_dict.get("since_best", 0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """End a resumed run that was out of patience before it was interrupted."""
        self._stop_in_time(trainer)

    def _stop_in_time(self, trainer: pl.Trainer) -> None:
        rows = self.record.rows
        trainer.should_stop = bool(rows) and out_of_patience(rows[-1], self.patience)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save within the epoch when it is time; rank 0's clock decides for all."""
        # Between two steps alone: gradients that are being added up are in no checkpoint.
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        due = stepped and time.monotonic() - self._saved >= self.seconds
        if trainer.strategy.broadcast(due) and not trainer.is_last_batch:
            self._save(trainer, "last.ckpt")

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save at the end of the epoch, after its validation."""
        assert isinstance(pl_module, Training)
        now = standing(mean_scores(pl_module.volume_scores))
        better = now > self.best
        self.best, self.since_best = max(now, self.best), 0 if better else self.since_best + 1
        self.record.rows[-1]["epochs_since_best"] = self.since_best
        self._stop_in_time(trainer)
        if trainer.should_stop and trainer.is_global_zero:
            print(f"ended: {self.since_best} epochs without a better validation", flush=True)
        if better:
            self._save(trainer, "best.ckpt")
        self._save(trainer, "last.ckpt")
        # Each node of a cluster has a notebook, and a disk, of its own.
        if trainer.local_rank == 0:
            self.record.publish()

    def _save(self, trainer: pl.Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / name)
        self._saved = time.monotonic()


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it: no other folder has to have room."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; the one that is there stays until the new one is on the disk."""
        # Into memory first: torch hides an error of the file that it writes to.
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with replacing(Path(path)) as file:
            file.write(content.getbuffer())


class RunRecord(pl.Callback):
    """Writes what a run does: lines on stdout, ``metrics.csv``, ``volumes.csv``, TensorBoard.

    ``metrics.csv`` has a row an epoch: epoch, step, train_loss, every metric (val_ssim, ...), lr,
    seconds, epochs_since_best. A resumed run goes on behind the rows of the epochs that it has
    kept.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images = folder, images
        self.rows: list[dict[str, float]] = []
        self.volumes: list[dict[str, Any]] = []
        self._loss_sum, self._loss_count = 0.0, 0
        self._epoch_began = time.monotonic()
        self._progress: Progress | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the rows so far and the epoch's running loss over all ranks; each calls it."""
        return {"rows": self.rows, "volumes": self.volumes, "loss": self._loss_of_all()}

    def _loss_of_all(self) -> tuple[float, int]:
        """Return the epoch's sum and number of losses over all ranks, on all ranks alike."""
        losses, counts = zip(*gather([(self._loss_sum, self._loss_count)]), strict=True)
        return math.fsum(losses), sum(counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows and the running loss."""
        self.rows, self.volumes = list(state_dict["rows"]), list(state_dict["volumes"])
        # The sums are those of all ranks together: the first goes on with them.
        if int(os.environ.get("RANK", 0)) == 0:
            self._loss_sum, self._loss_count = state_dict["loss"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock."""
        self._epoch_began = time.monotonic()
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready == 0:
            self._loss_sum, self._loss_count = 0.0, 0  # of an epoch that begins anew

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add up the loss, and say how far the training is."""
        assert isinstance(outputs, Mapping)
        # Lightning has divided it by the number of batches whose gradients are added up.
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        self._loss_sum, self._loss_count = self._loss_sum + loss, self._loss_count + 1
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics({"train_loss": loss}, trainer.global_step)
        batches, epochs = int(trainer.num_training_batches), trainer.max_epochs or 1
        done = trainer.current_epoch * batches + batch_idx + 1
        if self._progress is None:  # a resumed run begins within an epoch
            self._progress = Progress("training", epochs * batches, "batches", start=done)
        else:
            note = f"epoch {trainer.current_epoch + 1}/{epochs}, loss {loss:.4f}"
            self._progress.advance(done - self._progress.done, note)

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Sample,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Send some reconstructions of rank 0, spread over its slices, to TensorBoard."""
        count = int(trainer.num_val_batches[0])
        spread = {int((place + 0.5) * count / self.images) for place in range(self.images)}
        if not trainer.is_global_zero or batch_idx not in spread:
            return
        if batch.target.ndim < 3:
            target = outputs[:1]
            panels = {"reconstruction": target}
        else:
            image, target = cropped(outputs[:1], batch.target[:1])
            panels = {"reconstruction": image, "target": target, "error": (image - target).abs()}
        name = f"{batch.volume[0]} slice {batch.slice_num[0]}"
        for logger in trainer.loggers:
            for kind, panel in panels.items():
                shown = (panel / target.max().clamp(min=1e-20)).clamp(0, 1)
                assert isinstance(logger, TensorBoardLogger)
                logger.experiment.add_image(f"{name}/{kind}", shown, trainer.current_epoch)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Form the epoch's row and print it."""
        assert isinstance(pl_module, Training)
        loss, count = self._loss_of_all()
        means = mean_scores(pl_module.volume_scores)
        scores = {f"val_{name}": value for name, value in means.items()}
        row = {
            "epoch": trainer.current_epoch + 1,
            "step": trainer.global_step,
            "train_loss": loss / count,
            **scores,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": round(time.monotonic() - self._epoch_began, 1),
        }
        self.rows.append(row)
        self.volumes = pl_module.volume_scores
        self._loss_sum, self._loss_count = 0.0, 0
        if not trainer.is_global_zero:
            return
        for logger in trainer.loggers:
            logger.log_metrics(scores, trainer.global_step)
        epochs = trainer.max_epochs or 1
        left = (epochs - row["epoch"]) * row["seconds"]
        say(
            "training",
            row["epoch"] / epochs,
            f"epoch {row['epoch']}/{epochs}: loss {row['train_loss']:.4f}, validation "
            f"{described(pl_module.volume_scores)}, {duration(row['seconds'])}"
            + (f", about {duration(left)} left" if left else ""),
        )

    def publish(self) -> None:
        """Write ``metrics.csv`` and ``volumes.csv``."""
        if self.rows:
            # Its columns are those of the last epoch: earlier ones may not know every metric.
            write_table(self.folder / "metrics.csv", self.rows[-1], self.rows, missing="nan")
            write_table(self.folder / "volumes.csv", self.volumes[0], self.volumes, missing="nan")
