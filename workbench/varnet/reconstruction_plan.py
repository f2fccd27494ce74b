"""Reconstruction of a split: what is asked for, what is there already, and its results."""

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workbench.catalog import SPLITS
from workbench.compute.here import Ranks, ranks_here, run_here
from workbench.compute.jobs import run_folder, write_text
from workbench.compute.runs import Run, only_writer, open_run
from workbench.dataset.cache import CACHE_NAME, DatasetCache, find_dataset, open_cache
from workbench.dataset.cache_file import write_cache_file
from workbench.dataset.masks import check_masks
from workbench.dataset.sampling import Sampling, numbers
from workbench.dataset.volume import Volume
from workbench.settings import shown
from workbench.varnet.metrics import VolumeScore
from workbench.varnet.weights import find_weights, load_network


@dataclass(frozen=True)
class ReconstructionJob:
    """Everything that decides what a reconstruction looks like, and the volumes still to make.

    Attributes:
        weights: file of weights.
        weights_sha256: its hash.
        dataset: the dataset's folder.
        split: "train", "val", "test" or "challenge".
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
        """What tells one result from another: weights, sampling, and the volume as it is now."""
        sampling = asdict(self.sampling) if self.sampling else None
        source = [volume.path, volume.size, volume.mtime_ns, volume.kspace.shape]
        text = json.dumps([self.weights_sha256, sampling, source])
        return hashlib.sha256(text.encode()).hexdigest()

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
        volume: the volume's path in the dataset.
        acquisition: its sequence.
        acceleration: true acceleration, phase-encode columns over sampled ones.
        varnet: the reconstruction's figures; None without a target.
        zero_filled: the zero-filled image's.
        slice_ssim: SSIM of each slice; empty without a target.
    """

    path: Path
    volume: str
    acquisition: str
    acceleration: float
    varnet: VolumeScore | None
    zero_filled: VolumeScore | None
    slice_ssim: tuple[float, ...]


@dataclass(frozen=True)
class ReconstructionPlan:
    """What is about to be reconstructed, and where it goes."""

    job: ReconstructionJob
    cache: DatasetCache
    folder: Path
    ranks: Ranks
    run: Run

    def compared_with(self, run: str) -> list[Reconstruction]:
        """Read another run's results of the same split and sampling.

        Raises:
            FileNotFoundError: it has none.
        """
        folder = run_folder(run) / "reconstructions" / self.folder.name
        paths = [folder / volume.name for volume in self.cache]
        there = [read_result(path) for path in paths if path.exists()]
        if not there:
            raise FileNotFoundError(
                f"compare={run!r}: nothing in {shown(folder)}; run this notebook for {run} first, "
                f"with the same split, mask and acceleration"
            )
        return there

    def __str__(self) -> str:
        done = len(self.cache) - len(self.job.volumes)
        sampling = str(self.job.sampling) if self.job.sampling else "each file's own mask"
        note = "\nnote       the dataset is the synthetic phantom, not patient data"
        return (
            f"weights    {shown(self.job.weights)}\n"
            f"dataset    {shown(self.cache.root)}, {self.job.split}: {len(self.cache)} volumes "
            f"({self.cache.slices:,} slices), {done} of them reconstructed already\n"
            f"sampling   {sampling}\n"
            f"into       {shown(self.folder)}\n"
            f"where      this machine: {self.ranks}" + (note if self.cache.synthetic else "")
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
        local_dataset: the dataset's folder or name; None takes the run's.
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
    own_mask = split in ("test", "challenge") and mask is acceleration is center_fraction is None
    usual = job.sampling if job else Sampling()
    sampling = None if own_mask else _sampling(usual, mask, acceleration, center_fraction)
    cache = open_cache(find_dataset(local_dataset or job.dataset))  # type: ignore[union-attr]
    part = cache.split(split)
    part = replace(part, volumes=part.volumes[:volumes])
    if not part.volumes:
        raise ValueError(f"{shown(cache.root)} has no {split} volumes; it has {cache.counts}")
    unmasked = [volume.path for volume in part if sampling is None and volume.mask is None]
    if unmasked:
        raise ValueError(f"{unmasked[0]} has no mask of its own: give mask and acceleration")
    asked = ReconstructionJob(str(file), _sha256(file), str(cache.root), split, sampling)
    check_masks(sampling or Sampling(), (volume.matrix[1] for volume in part if sampling))
    kept = _folder_name(split, sampling)
    if weights and job:
        kept += f"-{_own_name(weights)}"
    folder = source.folder / "reconstructions" / kept
    missing = tuple(v.path for v in part if _digest(folder / v.name) != asked.digest(v))
    return ReconstructionPlan(replace(asked, volumes=missing), part, folder, ranks, Run(folder))


def reconstruct(plan: ReconstructionPlan) -> Iterator[str]:
    """Reconstruct what is missing; yield the lines that are printed.

    Raises:
        TrainingFailedError: a rank failed; with that rank's own error.
    """
    if not plan.job.volumes:
        yield f"{shown(plan.folder)} holds every volume already"
        return
    with only_writer(plan.run):
        write_text(plan.folder / "reconstruction.json", plan.job.to_json())
        write_cache_file(plan.folder / CACHE_NAME, plan.cache.volumes)
    yield from run_here(plan.run, "workbench.varnet.reconstruction", plan.ranks)


def results(plan: ReconstructionPlan) -> list[Reconstruction]:
    """Read the results of a plan's volumes, in the dataset's order."""
    return [read_result(plan.folder / volume.name) for volume in plan.cache]


def read_result(path: Path) -> Reconstruction:
    """Read what a file of results says of its volume."""
    with h5py.File(path) as file:
        attributes = dict(file.attrs)

        slices = len(file["reconstruction"])

    def scores(kind: str) -> VolumeScore | None:
        if f"{kind}_ssim" not in attributes:
            return None
        figures = (float(attributes[f"{kind}_{name}"]) for name in ("ssim", "psnr", "nmse"))
        return VolumeScore(path.name, slices, *figures)

    return Reconstruction(
        path,
        str(attributes["volume"]),
        str(attributes["acquisition"]),
        float(attributes["acceleration"]),
        scores("varnet"),
        scores("zero_filled"),
        tuple(attributes.get("slice_ssim", np.empty(0)).tolist()),
    )


def _sampling(default: Sampling, mask: Any, acceleration: Any, center_fraction: Any) -> Sampling:
    return Sampling(
        mask or default.mask,
        default.accelerations if acceleration is None else numbers("acceleration", acceleration),
        default.center_fractions
        if center_fraction is None
        else numbers("center_fraction", center_fraction),
    )


def _own_name(weights: str) -> str:
    return re.sub(r"[^\w.-]+", "_", Path(weights).stem).strip("._-") or "weights"


def _folder_name(split: str, sampling: Sampling | None) -> str:
    if sampling is None:
        return split
    rates = "-".join(f"{rate:g}x" for rate in sampling.accelerations)
    centres = "-".join(f"{fraction:g}" for fraction in sampling.center_fractions)
    return f"{split}-{sampling.mask}-{rates}-{centres}"


def _digest(path: Path) -> str | None:
    """Return a result's digest; None where the file is not whole."""
    try:
        with h5py.File(path) as file:
            known = {"volume", "acquisition", "acceleration", "synthetic"} <= set(file.attrs)
            return str(file.attrs.get("digest")) if known and "reconstruction" in file else None
    except OSError:
        return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
