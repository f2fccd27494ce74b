"""A training run's folder, ``outputs/NAME/``: what it holds, and who may write to it.

``job.json`` what was asked, ``dataset_cache.json`` the volumes, ``versions.json`` what ran,
``metrics.csv`` a row an epoch, ``volumes.csv`` the last validation's metrics,
``checkpoints/{best,last}.ckpt``, ``checkpoints/start.pt`` where it began with given weights,
``tensorboard/``, and ``tracking.json`` where other loggers have the run as well.
"""

import csv
import json
from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.compute.jobs import TrainingJob, run_folder
from workbench.compute.start import START
from workbench.data.cache import CACHE_NAME, CacheFileError, DatasetCache, load_cache, open_cache
from workbench.data.volume import Volume
from workbench.settings import resolve, shown
from workbench.stores.disk import only_one, write_text

SENT = "azureml.json"
"""Names the run on a cluster that was sent from here, see ``cluster_run``."""

# A run goes on with another value of these: they change how, where and how long it computes, but
# not what has been learned so far.
_MAY_CHANGE = {
    *("dataset", "epochs", "workers", "checkpoint_minutes", "images"),
    *("low_memory", "compile", "patience", "logger"),
    "code",  # which is compared apart: jobs of earlier versions do not say it
}
# What a file raises that is damaged, or of another version.
_DAMAGES = (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error)


@dataclass(frozen=True)
class Run:
    """A run's folder, opened for reading: nothing is planned, and torch is not needed.

    Its properties raise ValueError where a file is damaged, with the way out.

    Attributes:
        folder: such as ``outputs/demo/brain``; a relative one counts from the project's root.
    """

    folder: Path

    if TYPE_CHECKING:

        def __init__(self, folder: str | Path) -> None: ...

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", resolve(self.folder))

    @property
    def job(self) -> TrainingJob:
        """What was asked for."""
        file = self.folder / "job.json"
        try:
            return TrainingJob.from_json(file.read_text())
        except _DAMAGES as error:
            raise ValueError(damaged(file, error)) from None

    @property
    def name(self) -> str:
        """Its folder below ``outputs/``, such as "knee" or "team/knee"."""
        outputs = run_folder("x").parent
        inside = self.folder.is_relative_to(outputs)
        return str(self.folder.relative_to(outputs)) if inside else self.folder.name

    @cached_property
    def synthetic(self) -> bool:
        """Whether it is trained on phantoms."""
        cache = load_cache(self.folder, earlier=True)
        return cache is not None and cache.synthetic

    @property
    def metrics(self) -> list[dict[str, float]]:
        """A row for each epoch that is done."""
        file = self.folder / "metrics.csv"
        try:
            rows = [{name: float(value) for name, value in row.items()} for row in _rows(file)]
            epochs = [row["epoch"] for row in rows]
            if epochs != list(range(1, 1 + len(rows))) or (
                file.exists() and not file.read_text().startswith("epoch,")
            ):
                raise ValueError("the epochs are not 1, 2, 3 and so on")
        except _DAMAGES as error:
            if self.last.exists():
                raise ValueError(
                    f"{shown(file)} is damaged ({type(error).__name__}): remove it, and the run "
                    f"writes it anew from {self.last.name} when it goes on"
                ) from None
            raise ValueError(damaged(file, error)) from None
        return rows

    @property
    def volumes(self) -> list[dict[str, str]]:
        """The last validation's metrics of each volume."""
        file = self.folder / "volumes.csv"
        try:
            return _rows(file)
        except _DAMAGES as error:
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
    def start(self) -> Path:
        """The weights that the run began with, where it was given some."""
        return self.folder / START

    @property
    def awaited(self) -> bool:
        """Whether it was sent to a cluster, and its end was not seen here."""
        record = self.folder / SENT
        return record.exists() and not read_record(record).get("fetched")

    @property
    def finished(self) -> bool:
        """Whether every epoch is done, or no more are worth it."""
        metrics = self.metrics
        if not metrics or not self.last.exists():
            return False
        last, job = metrics[-1], self.job
        return last["epoch"] >= job.epochs or out_of_patience(last, job.patience)


def out_of_patience(row: Mapping[str, float], patience: int | None) -> bool:
    """Say whether a run's latest epochs are so many without a better one that it ends.

    Args:
        row: of ``metrics.csv``, the last one.
        patience: the job's.
    """
    return patience is not None and row.get("epochs_since_best", 0) >= patience


def open_run(name: str) -> Run:
    """Open the folder of a run that was started; FileNotFoundError lists the runs that exist."""
    folder = run_folder(name)
    if not (folder / "job.json").exists():
        outputs = run_folder("x").parent
        found = sorted(str(path.parent.relative_to(outputs)) for path in outputs.rglob("job.json"))
        raise FileNotFoundError(
            f"no run in {shown(folder)}: train one with train.ipynb"
            + (f", or take one of {', '.join(found)}" if found else "")
        )
    return Run(folder)


# ---- who may write -----------------------------------------------------------------------


def only_writer(run: Run, *, wait: bool = False) -> AbstractContextManager[int]:
    """Hold a run's folder, so that no second process works in it; see ``only_one``."""
    way_out = "waiting for it" if wait else "wait for it, stop it, or give another name"
    busy = f"another process is at work in {shown(run.folder)}: {way_out}"
    return only_one(run.folder / ".lock", busy, wait=wait)


def prepare_run(job: TrainingJob, cache: DatasetCache | None = None, *, resume: bool) -> Run:
    """Make a run's folder, or open the one that an interrupted run left; see ``take_up``."""
    run = Run(run_folder(job.name))
    with only_writer(run):
        take_up(run, job, cache, resume=resume)
    return run


def take_up(run: Run, job: TrainingJob, cache: DatasetCache | None = None, *, resume: bool) -> None:
    """Check that a job may run in a folder, which the caller holds, and leave it there.

    Between a plan and its start other plans may have been made in the same folder, and run. The
    volumes are left there too, for all ranks.

    Raises:
        ValueError: the folder holds a run of another job, or one that may not go on.
    """
    if not isinstance(resume, bool):
        raise ValueError(f"resume={resume!r}: give True or False, written so")
    before = run.job if (run.folder / "job.json").exists() else None
    # A run that was planned and never begun holds nothing that another job could harm.
    if before and (run.last.exists() or run.metrics or (run.folder / SENT).exists()):
        if not resume:
            raise ValueError(
                f"{shown(run.folder)} holds a run already: give another name, or resume=True"
            )
        check_same(before, job, f"{shown(run.folder)} holds a run")
        if job.epochs < len(run.metrics):
            raise ValueError(
                f"epochs={job.epochs}: {shown(run.folder)} has done {len(run.metrics)} already"
            )
    write_text(run.folder / "job.json", job.to_json())
    if job.start_from and not run.last.exists():
        job.start_from.leave(run.folder)
    if cache is not None:
        keep_cache(cache, run.folder, goes_on=run.last.exists())


def check_same(before: TrainingJob, job: TrainingJob, holds: str) -> None:
    """Refuse to go on with what another job has learned.

    Args:
        before: the job that has learned.
        job: the one that is to go on.
        holds: says where it lies, such as "outputs/brain holds a run".
    """
    # The schedule of augmentation counts the epochs.
    may_change = _MAY_CHANGE - ({"epochs"} if job.augment else set())
    there = before.parameters
    changed = [
        f"{name} {there.get(name)} there, {value} here"
        for name, value in job.parameters.items()
        if there.get(name) != value and name not in may_change
    ]
    changed += [
        f"the code of {there[part]} has changed"
        for part, digest in before.code.items()
        if job.code.get(part, digest) != digest
    ]
    if changed:
        raise ValueError(
            f"{holds} of another job ({'; '.join(changed)}): give another name, or the same "
            "parameters to go on with it"
        )


def keep_cache(cache: DatasetCache, folder: Path, *, goes_on: bool) -> None:
    """Leave the dataset cache that a plan was made with in a run's folder, for all of its ranks.

    Raises:
        ValueError: the run goes on, but has learned from other volumes, or this cannot be told.
    """
    try:
        before = load_cache(folder, earlier=True) if goes_on else None
    except CacheFileError as error:
        raise ValueError(
            f"{error}, so nobody can tell whether the run has trained on the volumes that "
            f"{cache.address} holds now: remove that file if it has"
        ) from None
    parts = ("train", "val")
    if before is not None and volumes_of(before, parts) != volumes_of(cache, parts):
        raise ValueError(
            f"{shown(folder)} has trained on other volumes than {cache.address} holds now: "
            "give another name, or bring the dataset back as it was"
        )
    cache.save(folder)


def volumes_of(found: Iterable[Volume], splits: Collection[str]) -> set[tuple[object, ...]]:
    """Return what tells volumes of some splits from others, wherever the dataset is mounted.

    Beside path and shape it is the numbers that a file says of itself: max and norm of its target,
    scale and flip of its conversion. Converted or measured anew, it has the same path and shape.
    """

    def numbers(volume: Volume) -> list[str]:
        """Return them as text: NaN is itself."""
        said = volume.attributes.items()
        return sorted(f"{name}={each!r}" for name, each in said if isinstance(each, int | float))

    return {
        (each.path, each.kspace.shape, *numbers(each)) for each in found if each.split in splits
    }


def kept_cache(root: str | Path, folder: Path) -> DatasetCache:
    """Return the dataset cache that was left for a run's ranks, or else the dataset's own."""
    return load_cache(root, folder / CACHE_NAME, earlier=True) or open_cache(root)


def check_not_sent(run: Run) -> None:
    """Refuse a run's folder in which a job on a cluster may still leave what it learns."""
    if run.awaited:
        raise ValueError(
            f"{shown(run.folder)} was sent to AzureML, and its end was not seen here: go on with "
            f"target=azureml, give another name, or remove {shown(run.folder / SENT)} once that "
            "job has ended"
        )


# ---- files -------------------------------------------------------------------------------


def read_record(file: Path) -> dict[str, Any]:
    """Read a file of a run's folder that holds one JSON object; ValueError names a damaged one."""
    try:
        return dict(json.loads(file.read_bytes()).items())
    except _DAMAGES as error:
        raise ValueError(damaged(file, error)) from None


def damaged(file: Path, error: Exception) -> str:
    """Say that a file of a run's folder cannot be used, and what to do."""
    return (
        f"{shown(file)} is damaged, or of another version of the workbench "
        f"({type(error).__name__}): give another name, or remove {shown(file.parent)}"
    )


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
