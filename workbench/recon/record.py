"""What a training leaves: checkpoints that are whole at any time, tables, lines, TensorBoard."""

import io
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from workbench.compute.runs import out_of_patience
from workbench.data.images import cropped
from workbench.data.slices import Sample
from workbench.progress import Progress, duration, say
from workbench.recon.metrics import described, mean_scores, standing
from workbench.recon.tables import write_table
from workbench.recon.training import Training, gather
from workbench.stores.disk import replacing


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

    ``metrics.csv`` has a row an epoch: epoch, step, train_loss, every metric (val_ssim, ...), lr
    of its last step, seconds, epochs_since_best. A resumed run goes on behind the rows of the
    epochs that it has kept.
    """

    def __init__(self, folder: Path, images: int) -> None:
        self.folder, self.images = folder, images
        self.rows: list[dict[str, float]] = []
        self.volumes: list[dict[str, Any]] = []
        self.pictures: list[tuple[str, Image.Image]] = []
        self._loss_sum, self._loss_count, self._lr = 0.0, 0, math.nan
        self._epoch_began, self._spent = time.monotonic(), 0.0
        self._progress: Progress | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return rows, and the epoch's seconds and loss so far over all ranks; each calls it."""
        spent = time.monotonic() - self._epoch_began
        loss = self._loss_of_all()
        return {"rows": self.rows, "volumes": self.volumes, "loss": loss, "spent": spent}

    def _loss_of_all(self) -> tuple[float, int]:
        """Return the epoch's sum and number of losses over all ranks, on all ranks alike."""
        losses, counts = zip(*gather([(self._loss_sum, self._loss_count)]), strict=True)
        return math.fsum(losses), sum(counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take up the rows, the epoch's seconds and the running loss."""
        self.rows, self.volumes = list(state_dict["rows"]), list(state_dict["volumes"])
        self._spent = state_dict.get("spent", 0.0)
        # The sums are those of all ranks together: the first goes on with them.
        if int(os.environ.get("RANK", 0)) == 0:
            self._loss_sum, self._loss_count = state_dict["loss"]

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the epoch's clock; a resumed epoch's goes on."""
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready == 0:
            self._loss_sum, self._loss_count = 0.0, 0  # of an epoch that begins anew
            self._spent = 0.0
        self._epoch_began, self._spent = time.monotonic() - self._spent, 0.0

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the learning rate: after an epoch's last step it is that of the next."""
        self._lr = float(trainer.optimizers[0].param_groups[0]["lr"])

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

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the images of the validation before."""
        self.pictures = []

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Sample,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Send some reconstructions of rank 0, spread over its slices, to the loggers."""
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
        scale = target.max().clamp(min=1e-20)
        shown = {kind: (panel / scale).clamp(0, 1) for kind, panel in panels.items()}
        self.pictures.append((name, side_by_side([each[0] for each in shown.values()])))
        for logger in trainer.loggers:
            for kind, panel in shown.items():
                assert isinstance(logger, TensorBoardLogger)
                logger.experiment.add_image(f"{name}/{kind}", panel, trainer.current_epoch)

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
            "lr": self._lr,
            "seconds": round(time.monotonic() - self._epoch_began, 1),
        }
        self.rows.append(row)
        self.volumes = pl_module.volume_scores
        self._loss_sum, self._loss_count = 0.0, 0
        self._epoch_began = time.monotonic()  # of the next, which a resumed run goes on with
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


def side_by_side(panels: list[Tensor]) -> Image.Image:
    """Return images of 0 to 1, (H, W) each, as one of grey values."""
    grey = (255 * torch.cat(panels, dim=1)).round().to(torch.uint8)
    return Image.fromarray(grey.cpu().numpy())
