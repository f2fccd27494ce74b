"""A training's curves, parameters, validation images and best model in MLflow or Weights & Biases.

They never end a training: where a server cannot be reached, that is said once, and what it lacks
goes there after a later epoch.
"""

import json
import logging
import math
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any, TypeAlias

import pytorch_lightning as pl
from PIL import Image

from workbench.azure_resources import without_secrets
from workbench.compute.jobs import TrainingJob
from workbench.compute.loggers import LOGGERS, TRACKING_URI, names_of
from workbench.recon.record import RunRecord
from workbench.stores.disk import write_text

NOTED = "tracking.json"
"""Names the run that each logger made for this training, and the epochs that it has."""

EXPERIMENT = "fastmri"
# A training does not wait long for a server; the default is some minutes.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

Tracker: TypeAlias = "Mlflow | Wandb"
"""A run in one logger, which one of Lightning's writes to; ``run`` is its id there."""


class Tracking(pl.Callback):
    """Sends what a run's record has to its trackers, from rank 0 alone.

    Args:
        job: the job, whose parameters go there.
        folder: the run's.
        record: the run's record, which comes before this among the callbacks.
    """

    def __init__(self, job: TrainingJob, folder: Path, record: RunRecord) -> None:
        self.job, self.folder, self.record = job, folder, record
        kinds = {name: LOGGERS[name].tracker for name in names_of(job.logger)}
        self._kinds = {name: globals()[kind] for name, kind in kinds.items() if kind}
        self._trackers: dict[str, Tracker] = {}
        self._sent: dict[str, int] = {}
        self._silent: set[str] = set()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin the runs, or go on with them; epochs that a new one lacks go there first."""
        if trainer.is_global_zero:
            self._with_each(self._catch_up)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Send the loss now and then: each value is a request to a server."""
        every, step = trainer.log_every_n_steps, trainer.global_step  # type: ignore[attr-defined]
        if not trainer.is_global_zero or not step or step % every:
            return
        loss = float(outputs["loss"]) * trainer.accumulate_grad_batches
        able = self._trackers.keys() - self._silent
        self._with_each(lambda tracker: tracker.metrics({"step_loss": loss}, step), able)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the epoch's row and images."""
        if trainer.is_global_zero:
            self._with_each(self._catch_up)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the best model, and end the runs."""
        best = self.folder / "checkpoints" / "best.ckpt"

        def finish(tracker: Tracker) -> None:
            self._catch_up(tracker)
            if best.exists():
                tracker.model(best)
            tracker.end("success")

        if trainer.is_global_zero:
            self._with_each(finish)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """End the runs as failed; whoever goes on with the training goes on with them."""
        if trainer.is_global_zero:
            able = self._trackers.keys() - self._silent
            self._with_each(lambda tracker: tracker.end("failed"), able)

    def _with_each(self, do: Callable[[Tracker], None], names: Any = None) -> None:
        """Do something with all trackers, or some; say once where that does not work."""
        for name in self._kinds if names is None else names:
            try:
                if name not in self._trackers:
                    self._begin(name)
                do(self._trackers[name])
                self._silent.discard(name)
            except Exception as error:
                if name not in self._silent:
                    print(f"{name}: {_said(error)}; the training goes on without", flush=True)
                self._silent.add(name)

    def _begin(self, name: str) -> None:
        noted = self._noted().get(name, {})
        if noted.get("epochs") and not self.record.rows:
            noted = {}  # of another training, which was under this name before
        tracker = self._kinds[name](self.job, self.folder, noted)
        self._sent[name] = tracker.begin(flat(self.job.parameters))
        self._trackers[name] = tracker

    def _catch_up(self, tracker: Tracker) -> None:
        """Send the epochs that a tracker lacks, and the latest one's images."""
        (name,) = (name for name, each in self._trackers.items() if each is tracker)
        new = self.record.rows[self._sent[name] :]
        for row in new:
            finite = {key: value for key, value in row.items() if math.isfinite(value)}
            tracker.metrics(finite, int(row["step"]))
            self._sent[name] = int(row["epoch"])
        for title, image in self.record.pictures if new else ():
            tracker.picture(title, self._sent[name], image)
        noted = {name: {"run": tracker.run, "epochs": self._sent[name]}}
        write_text(self.folder / NOTED, json.dumps(self._noted() | noted, indent=2))

    def _noted(self) -> dict[str, Any]:
        with suppress(OSError, ValueError):
            return dict(json.loads((self.folder / NOTED).read_text()))
        return {}


def flat(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with those of a group as "group/name"."""
    found: dict[str, Any] = {}
    for name, value in parameters.items():
        inside = flat(value) if isinstance(value, Mapping) else {}
        found |= {f"{name}/{key}": each for key, each in inside.items()} or {name: value}
    return found


def _said(error: Exception) -> str:
    """Return an error in a line, without what lets somebody in."""
    text = re.sub(r"//[^/@\s]+@", "//***@", without_secrets(str(error)))
    for name, value in os.environ.items():
        if value and name.endswith(("_TOKEN", "_KEY", "_PASSWORD")):
            text = text.replace(value, "***")
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}"


class Mlflow:
    """A run of MLflow's: AzureML's own in a job, else one of the server that is given, else here.

    Without a server it is kept in the run's folder, in ``mlruns/mlflow.db``: the newest MLflow
    refuses the folders of files that earlier ones kept.
    """

    def __init__(self, job: TrainingJob, folder: Path, noted: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient
        from pytorch_lightning.loggers import MLFlowLogger

        for name in ("mlflow", "alembic", "pytorch_lightning.loggers.mlflow"):
            logging.getLogger(name).setLevel(logging.ERROR)
        for name, value in _PATIENCE.items():
            os.environ.setdefault(name, value)
        address, place = os.environ.get(TRACKING_URI), folder / "mlruns"
        if not address:
            place.mkdir(exist_ok=True)
            address = f"sqlite:///{place / 'mlflow.db'}"
        given = os.environ.get("MLFLOW_RUN_ID")
        self._client, self._own = MlflowClient(address), not given
        self._logger = MLFlowLogger(
            experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT),
            run_name=job.name,
            tracking_uri=address,
            artifact_location=None if os.environ.get(TRACKING_URI) else place.as_uri(),
            run_id=given or self._known(noted.get("run")),
        )
        self.run = str(self._logger.run_id)

    def _known(self, run: str | None) -> str | None:
        """Return the id of a run that was noted, where this server knows it."""
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            return run if run and self._client.get_run(run) else None
        except MlflowException as error:
            if error.error_code != ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
                raise
            return None

    def begin(self, parameters: Mapping[str, Any]) -> int:
        """Leave the parameters; those that have changed since, such as epochs, as tags."""
        run = self._client.get_run(self.run)
        there = run.data.params
        self._logger.log_hyperparams({k: v for k, v in parameters.items() if k not in there})
        for name, value in parameters.items():
            if there.get(name, str(value)[:250]) != str(value)[:250]:
                self._client.set_tag(self.run, f"now {name}", value)
        if self._own:
            self._client.update_run(self.run, status="RUNNING")
        return int(run.data.metrics.get("epoch", 0))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Leave values of a step."""
        self._logger.log_metrics(values, step)

    def picture(self, name: str, epoch: int, image: Image.Image) -> None:
        """Leave an image, in a folder for each epoch."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, f"{name.replace('/', '_')}.png")
            image.save(file)
            self._client.log_artifact(self.run, str(file), f"validation/epoch_{epoch:03d}")

    def model(self, checkpoint: Path) -> None:
        """Leave a checkpoint."""
        self._client.log_artifact(self.run, str(checkpoint), "model")

    def end(self, status: str) -> None:
        """End the run; one of AzureML's ends with its job."""
        if self._own:
            self._logger.finalize(status)


class Wandb:
    """A run of Weights & Biases': offline in the run's folder where nobody has logged in."""

    def __init__(self, job: TrainingJob, folder: Path, noted: Mapping[str, Any]) -> None:
        import wandb
        from pytorch_lightning.loggers import WandbLogger

        self._epochs = noted.get("epochs", 0)
        self.run = noted.get("run") or uuid.uuid4().hex[:8]
        run = wandb.init(
            name=job.name,
            project=os.environ.get("WANDB_PROJECT", EXPERIMENT),
            dir=folder,
            id=self.run,
            resume="allow",
            mode=None if _logged_in() else "offline",
            # Nothing but what is sent from here: no code, no output, no machine.
            settings=wandb.Settings(
                console="off",
                silent=True,
                disable_git=True,
                disable_code=True,
                disable_job_creation=True,
                x_disable_meta=True,
                x_disable_stats=True,
            ),
        )
        run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
        self._logger = WandbLogger(experiment=run)

    def begin(self, parameters: Mapping[str, Any]) -> int:
        """Leave the parameters."""
        self._logger.log_hyperparams(dict(parameters))
        return int(self._epochs)

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Leave values of a step."""
        self._logger.log_metrics(values, step)

    def picture(self, name: str, epoch: int, image: Image.Image) -> None:
        """Leave an image under its name."""
        self._logger.log_image(f"validation/{name}", [image], caption=[f"epoch {epoch}"])

    def model(self, checkpoint: Path) -> None:
        """Leave a checkpoint."""
        self._logger.experiment.log_model(str(checkpoint), name=f"model-{self.run}")

    def end(self, status: str) -> None:
        """End the run."""
        self._logger.experiment.finish(exit_code=int(status != "success"))


def _logged_in() -> bool:
    """Say whether a key of Weights & Biases' is known, or how it is to work."""
    if "WANDB_API_KEY" in os.environ or "WANDB_MODE" in os.environ:
        return os.environ.get("WANDB_MODE", "online") not in ("offline", "dryrun")
    with suppress(OSError, NetrcParseError):
        return netrc().authenticators("api.wandb.ai") is not None
    return False
