"""A training run's folder, ``outputs/NAME/``: what it holds, and who may write to it.

``job.json`` what was asked, ``dataset_cache.json`` the volumes, ``versions.json`` what ran,
``metrics.csv`` a row an epoch, ``volumes.csv`` the last validation's metrics,
``checkpoints/{best,last}.ckpt``, ``tensorboard/``.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from workbench.compute.jobs import TrainingJob, run_folder
from workbench.data.cache import load_cache
from workbench.settings import shown
from workbench.stores.disk import only_one, write_text

SENT = "azureml.json"
"""Names the run on a cluster that was sent from here, see ``cluster_run``."""

# A run goes on with another value of these: they do not change what has been learned so far.
# What changes no number, but how, where and how long.
_MAY_CHANGE = (
    *("dataset", "epochs", "workers", "checkpoint_minutes", "images"),
    *("low_memory", "compile"),
)


@dataclass(frozen=True)
class Run:
    """A run's folder, opened for reading: nothing is planned, and torch is not needed."""

    folder: Path

    @property
    def job(self) -> TrainingJob:
        """What was asked for.

        Raises:
            ValueError: the file is damaged, or of another version of the workbench.
        """
        file = self.folder / "job.json"
        try:
            return TrainingJob.from_json(file.read_text())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(damaged(file, error)) from None

    @property
    def name(self) -> str:
        """Its folder below ``outputs/``, such as "knee" or "team/knee"."""
        outputs = run_folder("x").parent
        inside = self.folder.is_relative_to(outputs)
        return str(self.folder.relative_to(outputs)) if inside else self.folder.name

    @cached_property
    def synthetic(self) -> bool:
        """Whether it is trained on phantoms.

        Raises:
            CacheFileError: the list of its volumes is damaged.
        """
        cache = load_cache(self.folder, earlier=True)
        return cache is not None and cache.synthetic

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A row for each epoch that is done.

        Raises:
            ValueError: the table is damaged.
        """
        file = self.folder / "metrics.csv"
        try:
            rows = [{name: float(value) for name, value in row.items()} for row in _rows(file)]
            begins = file.read_text().startswith("epoch,") if file.exists() else True
            if not begins or [row["epoch"] for row in rows] != list(range(1, 1 + len(rows))):
                raise ValueError("the epochs are not 1, 2, 3 and so on")
        except (ValueError, TypeError, KeyError, csv.Error) as error:
            if self.last.exists():
                raise ValueError(
                    f"{shown(file)} is damaged ({type(error).__name__}): remove it, and the run "
                    f"writes it anew from {self.last.name} when it goes on"
                ) from None
            raise ValueError(damaged(file, error)) from None
        return rows

    @property
    def volumes(self) -> list[dict[str, str]]:
        """The last validation's metrics of each volume.

        Raises:
            ValueError: the file is damaged.
        """
        file = self.folder / "volumes.csv"
        try:
            return _rows(file)
        except (ValueError, csv.Error) as error:
            raise ValueError(damaged(file, error)) from None

    @property
    def best(self) -> Path:
        """The checkpoint with the highest validation SSIM."""
        return self.folder / "checkpoints" / "best.ckpt"

    @property
    def last(self) -> Path:
        """The checkpoint that the run goes on from."""
        return self.folder / "checkpoints" / "last.ckpt"

    @property
    def finished(self) -> bool:
        """Whether every epoch is done."""
        metrics = self.metrics
        return bool(metrics) and metrics[-1]["epoch"] >= self.job.epochs and self.last.exists()


def open_run(name: str) -> Run:
    """Open the folder of a run that was started.

    Raises:
        FileNotFoundError: there is no such run; the message lists the runs that exist.
    """
    folder = run_folder(name)
    if not (folder / "job.json").exists():
        outputs = run_folder("x").parent
        found = sorted(str(path.parent.relative_to(outputs)) for path in outputs.rglob("job.json"))
        raise FileNotFoundError(
            f"no run in {shown(folder)}: train one with train.ipynb"
            + (f", or take one of {', '.join(found)}" if found else "")
        )
    return Run(folder)


def prepare_run(job: TrainingJob, *, resume: bool) -> Run:
    """Make a run's folder, or open the one that an interrupted run left.

    Args:
        job: what to train.
        resume: whether a run that is there may go on.

    Raises:
        ValueError: the folder holds a run of another job, or one that may not go on.
        RuntimeError: a process is at work in it.
    """
    run = Run(run_folder(job.name))
    with only_writer(run):
        take_up(run, job, resume=resume)
    return run


def take_up(run: Run, job: TrainingJob, *, resume: bool) -> None:
    """Check that a job may run in a folder, which the caller holds, and leave it there.

    Between a plan and its start other plans may have been made in the same folder, and run.

    Raises:
        ValueError: the folder holds a run of another job, or one that may not go on.
    """
    if not isinstance(resume, bool):
        raise ValueError(f"resume={resume!r}: give True or False, written so")
    before = run.job.parameters if (run.folder / "job.json").exists() else {}
    # A run that was planned and never begun holds nothing that another job could harm.
    if before and (run.last.exists() or run.metrics or (run.folder / SENT).exists()):
        if not resume:
            raise ValueError(
                f"{shown(run.folder)} holds a run already: give another name, or resume=True"
            )
        now = job.parameters
        changed = [
            f"{field} {before.get(field)} there, {now[field]} here"
            for field in now
            if before.get(field) != now[field] and field not in _MAY_CHANGE
        ]
        if changed:
            raise ValueError(
                f"{shown(run.folder)} holds a run of another job ({'; '.join(changed)}): "
                "give another name, or the same parameters to go on with it"
            )
        if job.epochs < len(run.metrics):
            raise ValueError(
                f"epochs={job.epochs}: {shown(run.folder)} has done {len(run.metrics)} already"
            )
    write_text(run.folder / "job.json", job.to_json())


def check_not_sent(run: Run) -> None:
    """Check that no job on a cluster may still leave what it learns in a run's folder.

    Raises:
        ValueError: a job was sent, and its end was not seen here.
    """
    record = run.folder / SENT
    if record.exists() and not read_record(record).get("fetched"):
        raise ValueError(
            f"{shown(run.folder)} was sent to AzureML, and its end was not seen here: go on with "
            f"target=azureml, give another name, or remove {shown(record)} once that job has ended"
        )


def read_record(file: Path) -> dict[str, Any]:
    """Read a file of a run's folder that holds one JSON object.

    Raises:
        ValueError: it is damaged, or holds something else; the message names it.
    """
    try:
        found = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(damaged(file, error)) from None
    if not isinstance(found, dict):
        raise ValueError(damaged(file, TypeError()))
    return found


def damaged(file: Path, error: Exception) -> str:
    """Say that a file of a run's folder cannot be used, and what to do."""
    return (
        f"{shown(file)} is damaged, or of another version of the workbench "
        f"({type(error).__name__}): give another name, or remove {shown(file.parent)}"
    )


@contextmanager
def only_writer(run: Run, *, wait: bool = False) -> Iterator[int]:
    """Hold a run's folder, so that no second process works in it; see ``only_one``.

    Raises:
        RuntimeError: another process holds it.
    """
    at_work = f"another process is at work in {shown(run.folder)}"
    way_out = "waiting for it" if wait else "wait for it, stop it, or give another name"
    with only_one(run.folder / ".lock", f"{at_work}: {way_out}", wait=wait) as lock:
        yield lock


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
