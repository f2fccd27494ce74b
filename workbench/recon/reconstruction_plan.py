"""Reconstruction of a split: what is asked for, what is there already, and its results.

A result has its volume's file name and lies in the results' folder itself, as fastMRI's leaderboard
has it. Where several volumes of the split share a file name, their results lie below it under their
paths in the dataset: ``multicoil_val/NAME.h5``. Each file says which volume it is of.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workbench.azure_login import LoginError
from workbench.catalog import OWN_MASKS, SPLITS
from workbench.compute.evaluation import (
    ORDER,
    SCORES,
    results_folder,
    sha256_of,
    split_sampling,
    split_volumes,
    write_scores,
)
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run, only_writer, open_run
from workbench.data.cache import CACHE_NAME, DatasetCache
from workbench.data.cache_file import write_cache_file
from workbench.data.sampling import Sampling, numbers
from workbench.data.slices import SliceDataset
from workbench.data.stored import credentials_for, is_address, open_dataset, source_of
from workbench.data.volume import Volume
from workbench.progress import relayed
from workbench.recon.metrics import VolumeScore
from workbench.recon.weights import find_weights, load_network
from workbench.settings import shown
from workbench.stores.disk import write_text


@dataclass(frozen=True)
class ReconstructionJob:
    """Everything that decides what a reconstruction looks like, and the volumes still to make.

    Attributes:
        weights: file of weights.
        weights_sha256: its hash.
        dataset: the dataset's folder, or its address in blob storage.
        split: one of ``workbench.catalog.SPLITS``.
        sampling: how to undersample; None takes each file's own mask.
        volumes: paths of the volumes to make, relative to the dataset.
    """

    weights: str
    weights_sha256: str
    dataset: str
    split: str
    sampling: Sampling | None
    volumes: tuple[str, ...] = ()

    def digest(self, volume: Volume) -> str:
        """What tells one result from another: weights, sampling, and the volume as it is now.

        A volume's copy on another machine is the same volume, whatever its time of change.
        """
        known = asdict(volume) | {"mtime_ns": 0}
        sampling = asdict(self.sampling) if self.sampling else None
        text = json.dumps([self.weights_sha256, sampling, known], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def slices(self, volume: Volume) -> SliceDataset:
        """Return a volume's slices as this job undersamples them."""
        opened = source_of(self.dataset)
        return SliceDataset(Path(self.dataset), [volume], self.sampling, open_source=opened)

    def to_json(self) -> str:
        """Write the job as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "ReconstructionJob":
        """Read a job that ``to_json`` wrote."""
        values = json.loads(text)
        if sampling := values.pop("sampling"):
            values["sampling"] = Sampling(
                sampling["mask"],
                tuple(sampling["accelerations"]),
                tuple(sampling["center_fractions"]),
            )
        else:
            values["sampling"] = None
        return cls(**values | {"volumes": tuple(values["volumes"])})


@dataclass(frozen=True)
class Reconstruction:
    """The result for one volume.

    Attributes:
        path: the HDF5 file.
        volume: the volume's path in the dataset, which no two volumes share.
        acquisition: its sequence.
        acceleration: true acceleration, phase-encode columns over sampled ones.
        varnet: the reconstruction's figures; None without a target.
        zero_filled: the zero-filled image's.
        slice_ssim: SSIM of each slice; empty without a target.
        slices: number of slices.
        shared: whether other volumes beside it have its file name.
    """

    path: Path
    volume: str
    acquisition: str
    acceleration: float
    varnet: VolumeScore | None
    zero_filled: VolumeScore | None
    slice_ssim: tuple[float, ...]
    slices: int
    shared: bool = False

    @property
    def name(self) -> str:
        """What people call it: its file name, or its path where others have that file name."""
        return self.volume if self.shared else self.path.name


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is about to be reconstructed, and where it goes."""

    job: ReconstructionJob
    cache: DatasetCache
    folder: Path
    ranks: Ranks
    run: Run

    def __str__(self) -> str:
        done = len(self.cache) - len(self.job.volumes)
        sampling = str(self.job.sampling) if self.job.sampling else "each file's own mask"
        notes = [
            f"{len(paths)} volumes are called {name}: {', '.join(paths[:3])}; each is reconstructed"
            for name, paths in self.cache.namesakes.items()
        ]
        if len(notes) > 1:
            notes = [f"{notes[0]}; so it is with {len(notes)} file names"]
        if self.cache.synthetic:
            notes.append("the dataset is the synthetic phantom, not patient data")
        return (
            f"weights    {shown(self.job.weights)}\n"
            f"dataset    {shown(self.cache.root)}, {self.job.split}: {len(self.cache)} volumes "
            f"({self.cache.slices:,} slices), {done} of them reconstructed already\n"
            f"sampling   {sampling}\n"
            f"into       {shown(self.folder)}\n"
            f"where      this machine: {self.ranks}" + "".join(f"\nnote       {n}" for n in notes)
        )


def plan_reconstruction(
    *,
    run: str | None = None,
    weights: str | None = None,
    split: str = "val",
    local_dataset: str | None = None,
    mask: str | None = None,
    acceleration: Any = None,
    center_fraction: Any = None,
    volumes: int | None = None,
    nodes: int = 1,
) -> ReconstructionPlan:
    """Check a notebook's parameters and see what is there already.

    Args:
        run: name of a run; None takes "brain", or with ``weights`` a name of their own.
        weights: a file of weights, or released ones by name; None takes the run's best checkpoint.
            Their results are kept apart from those of the run's own.
        split: which volumes.
        local_dataset: the dataset's folder or name, or its address in blob storage; None takes
            the run's.
        mask: kind of mask; None takes the run's, and on test and challenge the files' own.
        acceleration: one number or several; None as with ``mask``.
        center_fraction: one for each acceleration; None as with ``mask``.
        volumes: how many volumes, the first ones; None takes all.
        nodes: without GPUs, number of processes on this machine.

    Raises:
        ValueError: a parameter is outside what is allowed, or a split is empty.
        FileNotFoundError: there is no such run, file or dataset.
    """
    ranks = ranks_here(nodes)
    if volumes is not None and (not isinstance(volumes, int) or volumes < 1):
        raise ValueError(f"volumes={volumes!r}: give a whole number, 1 or more, or None for all")
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: give one of {', '.join(SPLITS)}")
    name = str(run) if run is not None else _own_name(weights) if weights else "brain"
    source = Run(run_folder(name)) if weights else open_run(name)
    job = source.job if (source.folder / "job.json").exists() else None
    if weights is None and not source.best.exists():
        raise FileNotFoundError(f"{shown(source.folder)} has no checkpoint yet: train it first")
    if local_dataset is None and job is None:
        raise ValueError("local_dataset=None: with weights of your own, name the dataset")
    file = find_weights(weights or source.best)
    load_network(file)  # weights of another network are refused here
    own_mask = split in OWN_MASKS and mask is acceleration is center_fraction is None
    usual = job.sampling if job else Sampling()
    sampling = None if own_mask else _sampling(usual, mask, acceleration, center_fraction)
    try:
        where, cache = open_dataset(local_dataset or job.dataset)  # type: ignore[union-attr]
    except (LoginError, OSError) as error:
        if local_dataset is not None or job is None or not is_address(job.dataset):
            raise
        # The run was trained on a cluster: its dataset may well be here too.
        raise type(error)(f"{error}; or give local_dataset, a copy of it on this machine") from None
    part = split_volumes(cache, split, sampling, first=volumes)
    folder = results_folder(source, split, sampling)
    if weights and job:
        folder = folder.with_name(f"{folder.name}-{_own_name(weights)}")
    asked = ReconstructionJob(str(file), sha256_of(file), where, split, sampling)
    if weights and _is_of_another_file(folder, asked):  # whose name is the same
        folder = folder.with_name(f"{folder.name}-{asked.weights_sha256[:8]}")
    return ReconstructionPlan(_missing(asked, part, folder), part, folder, ranks, Run(folder))


def order_of_run(
    run: Run, split: str, cache: DatasetCache
) -> tuple[ReconstructionJob, DatasetCache, Path]:
    """See what of a split a run's best checkpoint has yet to reconstruct.

    Returns:
        The job, the split's volumes, and the folder of the results.

    Raises:
        ValueError: the split is empty, or cannot be undersampled as asked.
    """
    sampling = split_sampling(run.job, split)
    part, folder = split_volumes(cache, split, sampling), results_folder(run, split, sampling)
    asked = ReconstructionJob(str(run.best), sha256_of(run.best), run.job.dataset, split, sampling)
    return _missing(asked, part, folder), part, folder


def _missing(job: ReconstructionJob, part: DatasetCache, folder: Path) -> ReconstructionJob:
    """Return a job for the volumes that are not there already."""
    missing = []
    for volume in part:
        path = find_result(folder, volume)
        if path is None or _digest(path) != job.digest(volume):
            missing.append(volume.path)
    return replace(job, volumes=tuple(missing))


def begin(job: ReconstructionJob, part: DatasetCache, folder: Path) -> None:
    """Leave in a results' folder what its ranks need; a table of older results goes."""
    if job.volumes:
        (folder / SCORES).unlink(missing_ok=True)
    write_text(folder / ORDER, job.to_json())
    write_cache_file(folder / CACHE_NAME, part.volumes)


def reconstruct(plan: ReconstructionPlan) -> Iterator[str]:
    """Reconstruct what is missing; yield the lines that are printed.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
    """
    if not plan.job.volumes:
        yield f"{shown(plan.folder)} holds every volume already"
        return
    with only_writer(plan.run) as lock:
        begin(plan.job, plan.cache, plan.folder)
        needs = credentials_for(plan.job.dataset)
        module = "workbench.recon.reconstruction"
        yield from relayed(run_here(plan.run, module, plan.ranks, needs=needs, lock=lock))


def results(plan: ReconstructionPlan) -> list[Reconstruction]:
    """Read the results of a plan's volumes, in the dataset's order.

    Raises:
        FileNotFoundError: a volume has none.
    """
    return read_results(plan.folder, plan.cache)


def read_results(folder: Path, part: DatasetCache) -> list[Reconstruction]:
    """Read the results of some volumes in a folder, in the dataset's order.

    Raises:
        FileNotFoundError: a volume has none.
    """
    found = []
    for volume in part:
        path = find_result(folder, volume)
        if path is None:
            raise FileNotFoundError(
                f"{shown(folder)} has no result of {volume.path}: reconstruct it again"
            )
        found.append(read_result(path, shared=volume.name in part.namesakes))
    return found


def find_result(folder: Path, volume: Volume) -> Path | None:
    """Return the file of a volume's result, which says that it is of that volume, or None."""
    places = (folder / volume.path, folder / volume.name)
    return next((path for path in places if _volume_of(path) == volume.path), None)


def result_place(folder: Path, volume: Volume, name: str) -> Path:
    """Return where a volume's result goes, so that it replaces no other volume's.

    Args:
        folder: of the results.
        volume: the volume.
        name: what ``DatasetCache.names`` calls it among those that are reconstructed.
    """
    taken = _volume_of(folder / name) not in (None, volume.path)
    return find_result(folder, volume) or folder / (volume.path if taken else name)


def _volume_of(path: Path) -> str | None:
    """Return the volume that a file of results says it is of; None where there is no such file."""
    with suppress(OSError, ValueError), open_result(path) as file:
        return str(attributes_of(file).get("volume"))
    return None


def keep_scores(part: DatasetCache, folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the table of a split's figures; rows that are not given are read from its results.

    Args:
        part: the split's volumes.
        folder: the results' folder.
        rows: of some of the volumes, such as those that another machine has made.
    """
    known = {row["volume"]: row for row in rows}
    earlier = replace(part, volumes=tuple(v for v in part if v.path not in known))
    write_scores(folder, [*known.values(), *map(score_row, read_results(folder, earlier))])


def score_row(result: Reconstruction) -> dict[str, Any]:
    """Return a result's row of the table."""
    row: dict[str, Any] = {
        "volume": result.volume,
        "acquisition": result.acquisition,
        "slices": result.slices,
        "acceleration": result.acceleration,
    }
    for kind, score in (("zero_filled", result.zero_filled), ("varnet", result.varnet)):
        if score:
            row |= {f"{kind}_{name}": getattr(score, name) for name in ("ssim", "psnr", "nmse")}
    return row


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Return a result's attributes, text as str."""
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in file.attrs.items()
    }


@contextmanager
def open_result(path: Path) -> Iterator[h5py.File]:
    """Open a file of results; HDF5 checks what is read of it.

    Raises:
        ValueError: it is damaged, which may come out as its images are read.
        FileNotFoundError: there is none.
    """
    try:
        with h5py.File(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{shown(path)} is damaged, or no result of a reconstruction ({error}): remove it and "
            "reconstruct again"
        ) from None


def read_result(path: Path, *, shared: bool = False) -> Reconstruction:
    """Read what a file of results says of its volume, and take whether others share its name.

    Raises:
        ValueError: it is damaged.
    """
    with open_result(path) as file:
        attributes = attributes_of(file)
        slices = len(file["reconstruction"])

    volume = str(attributes["volume"])

    def scores(kind: str) -> VolumeScore | None:
        if f"{kind}_ssim" not in attributes:
            return None
        figures = (float(attributes[f"{kind}_{name}"]) for name in ("ssim", "psnr", "nmse"))
        return VolumeScore(volume, slices, *figures)

    return Reconstruction(
        path,
        volume,
        str(attributes["acquisition"]),
        float(attributes["acceleration"]),
        scores("varnet"),
        scores("zero_filled"),
        tuple(attributes.get("slice_ssim", np.empty(0)).tolist()),
        slices,
        shared,
    )


def _sampling(default: Sampling, mask: Any, acceleration: Any, center_fraction: Any) -> Sampling:
    return Sampling(
        mask or default.mask,
        default.accelerations if acceleration is None else numbers("acceleration", acceleration),
        default.center_fractions
        if center_fraction is None
        else numbers("center_fraction", center_fraction),
    )


def _is_of_another_file(folder: Path, job: ReconstructionJob) -> bool:
    """Say whether a folder's results were made with other weights, from another file."""
    try:
        made = json.loads((folder / ORDER).read_text())
        return made["weights"] != job.weights and made["weights_sha256"] != job.weights_sha256
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _own_name(weights: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(weights).stem)[:80]
    return name.strip("._-") or "weights"


def _digest(path: Path) -> str | None:
    """Return a result's digest; None where the file is not whole."""
    try:
        with open_result(path) as file:
            found = attributes_of(file)
            known = {"volume", "acquisition", "acceleration", "synthetic"} <= found.keys()
            return str(found.get("digest")) if known and "reconstruction" in file else None
    except (OSError, ValueError):
        return None
