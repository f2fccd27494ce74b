"""A whole study of synthetic volumes: folders, names and variety as in a fastMRI dataset."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.catalog import DATASETS, OWN_MASKS, SPLITS
from workbench_demo.phantom.acquisition import Body, Scan, scan
from workbench_demo.phantom.brain import Brain
from workbench_demo.phantom.knee import Knee
from workbench_demo.phantom.tissue import SEQUENCES
from workbench_demo.phantom.writing import write_volume

ACQUISITIONS = {
    "brain": ("AXT2", "AXFLAIR", "AXT1POST", "AXT1", "AXT1PRE"),
    "knee": ("CORPD_FBK", "CORPDFS_FBK"),
}
_KSPACE = ("brain_multicoil", "knee_multicoil", "knee_singlecoil")
_FIELD_OF_VIEW = {"brain": 232.0, "knee": 160.0}  # mm
_FLAIR_WIDTH = 213 / 256  # columns a recon pixel of fastMRI's odd FLAIR volumes
_FIRST_KNEE, _FIRST_BRAIN = 1_000_000, 6_002_000
_EDITION = 2  # raised when the same plan comes to mean other images
_CENTRE_FRACTION = {4: 0.08, 8: 0.04}


@dataclass(frozen=True)
class PlannedVolume:
    """One volume to be made, and where.

    Attributes:
        path: the file.
        anatomy: "brain" or "knee".
        split: "train", "val", "test" or "challenge".
        scan: how it is scanned.
        seed: makes it the individual that it is.
        acceleration: 0, or what the mask of a volume without target leaves out.
    """

    path: Path
    anatomy: str
    split: str
    scan: Scan
    seed: tuple[int, ...]
    acceleration: int = 0


def _even(value: float) -> int:
    return 2 * round(value / 2)


def plan_study(
    root: str | Path,
    dataset: str,
    *,
    volumes: Mapping[str, int],
    recon: int = 320,
    slices: int = 16,
    coils: Sequence[int] = (4, 8, 16),
    acquisitions: Sequence[str] | None = None,
    widths: Sequence[float] = (1.0, 1.08, 1.16),
    odd_flair: int = 0,
    snr: float = 100.0,
    seed: int = 0,
) -> list[PlannedVolume]:
    """Plan a study without making it.

    Args:
        root: the dataset's folder.
        dataset: "brain_multicoil", "knee_multicoil" or "knee_singlecoil".
        volumes: split -> number of volumes; those of "test" and "challenge" hold a mask, k-space
            that is zero where the mask is, and no target.
        recon: rows and columns of the reconstruction; k-space has twice as many rows.
        slices: slices a volume.
        coils: coil counts that volumes take in turn; ignored for single-coil data.
        acquisitions: sequences that volumes take in turn; all of the anatomy's by default.
        widths: phase-encode columns that volumes take in turn, as factors of ``recon``.
        odd_flair: how many FLAIR volumes of each split are of the odd kind whose k-space is
            narrower than the header's matrix, with a target of W x W.
        snr: of one coil, see ``Scan``; varied a little between volumes.
        seed: of the whole study.

    Raises:
        ValueError: an argument is out of range.
    """
    if dataset not in _KSPACE:
        raise ValueError(f"dataset={dataset!r}: give one of {', '.join(_KSPACE)}")
    kind, anatomy = DATASETS[dataset].kind, DATASETS[dataset].anatomy
    chosen = tuple(acquisitions or ACQUISITIONS[anatomy])
    for name in chosen:
        if name not in ACQUISITIONS[anatomy]:
            allowed = ", ".join(ACQUISITIONS[anatomy])
            raise ValueError(f"acquisitions={chosen}: for a {anatomy} give some of {allowed}")
    for split, number in volumes.items():
        if split not in SPLITS or number < 0:
            raise ValueError(f"volumes={dict(volumes)}: give a count for some of {SPLITS}")
    if recon < 32 or slices < 1 or not coils or min(coils) < 1 or snr <= 0:
        raise ValueError(
            f"recon={recon}, slices={slices}, coils={tuple(coils)}, snr={snr}: "
            "give recon 32 or more, and the others 1 or more"
        )
    if not widths or min(widths) < 1:
        raise ValueError(f"widths={tuple(widths)}: give factors of 1 or more")

    planned = []
    # The order of everything that goes round is shifted, so that coils and widths meet every
    # acquisition.
    for split_number, split in enumerate(SPLITS):
        for number in range(volumes.get(split, 0)):
            key = (seed, _KSPACE.index(dataset), split_number, number)
            random = np.random.default_rng((*key, 0))
            acquisition = chosen[number % len(chosen)]
            count = coils[(number + number // len(chosen)) % len(coils)]
            field_of_view = _FIELD_OF_VIEW[anatomy] * random.uniform(0.98, 1.06)
            odd = acquisition == "AXFLAIR" and number // len(chosen) < odd_flair
            if odd:
                width, count = round(recon * _FLAIR_WIDTH), min(4, max(coils))
                field_of_view *= 0.92 / _FLAIR_WIDTH
                acquired = (0, width)
            else:
                width = _even(recon * widths[number % len(widths)])
                left = int(random.integers(0, max(1, width // 14) + 1))
                acquired = (left, width - int(random.integers(0, max(1, width // 10) + 1)))
            how = Scan(
                acquisition,
                slices,
                (recon, recon),
                width,
                acquired,
                count if kind == "multicoil" else 0,
                field_of_view,
                snr * random.uniform(0.75, 1.3),
            )
            serial = 1000 * split_number + number
            if anatomy == "brain":
                name = f"file_brain_{acquisition}_{200 + number % 9}_{_FIRST_BRAIN + serial}.h5"
            else:
                name = f"file{_FIRST_KNEE + serial}.h5"
            blind = split in OWN_MASKS
            planned.append(
                PlannedVolume(
                    Path(root) / f"{kind}_{split}" / name,
                    anatomy,
                    split,
                    how,
                    key,
                    (4, 8)[number % 2] if blind else 0,
                )
            )
    return planned


def equispaced_columns(
    width: int, acceleration: int, centre_fraction: float, offset: int
) -> NDArray[np.bool_]:
    """Choose columns as fastMRI's test masks do: every R-th and a fully sampled centre."""
    mask = np.zeros(width, bool)
    mask[offset::acceleration] = True
    low = round(width * centre_fraction)
    start = (width - low + 1) // 2
    mask[start : start + low] = True
    return mask


def _fingerprint(plan: PlannedVolume) -> str:
    """Sum up what makes a volume what it is, wherever it lies."""
    said = repr((_EDITION, plan.anatomy, plan.split, plan.scan, plan.seed, plan.acceleration))
    return hashlib.sha256(said.encode()).hexdigest()


def _recorded(path: Path) -> str | None:
    """Read the fingerprint of an existing volume; None where there is none."""
    if not path.exists():
        return None
    import h5py

    try:
        with h5py.File(path) as file:
            found = file.attrs.get("phantom")
    except OSError:
        return None
    return None if found is None else str(found)


def make_volume(plan: PlannedVolume) -> Path:
    """Make and write one planned volume; a file that the same plan made before is kept."""
    made_from = _fingerprint(plan)
    if _recorded(plan.path) == made_from:
        return plan.path
    random = np.random.default_rng((*plan.seed, 1))
    body: Body = Brain(random) if plan.anatomy == "brain" else Knee(random)
    kspace, target = scan(body, plan.scan, random)
    sequence = SEQUENCES[plan.scan.acquisition]
    attributes: dict[str, Any] = {"phantom": made_from}
    mask = None
    if plan.acceleration:
        fraction = _CENTRE_FRACTION[plan.acceleration]
        offset = int(random.integers(plan.acceleration))
        width = plan.scan.width
        mask = equispaced_columns(width, plan.acceleration, fraction, offset)
        kspace *= mask
        attributes |= {
            "acceleration": plan.acceleration,
            "num_low_frequency": round(width * fraction),
        }
    pixel = plan.scan.field_of_view / plan.scan.recon[0]
    return write_volume(
        plan.path,
        kspace=kspace,
        target=None if plan.acceleration else target,
        acquisition=plan.scan.acquisition,
        patient_id=hashlib.sha256(repr(plan.seed).encode()).hexdigest(),
        recon=plan.scan.recon,
        acquired=plan.scan.acquired,
        field_of_view=(plan.scan.field_of_view, pixel * plan.scan.recon[1]),
        thickness=round(body.coverage / plan.scan.slices, 3),
        repetition_time=sequence.repetition_time,
        echo_time=sequence.echo_time,
        inversion_time=sequence.inversion_time,
        mask=mask,
        attributes=attributes,
    )


def write_study(
    root: str | Path, dataset: str, *, workers: int | None = None, **asked: Any
) -> list[Path]:
    """Make a study in the folders of a fastMRI dataset; volumes made before are kept.

    The same arguments give the same files, whatever the number of workers.

    Args:
        root: the dataset's folder; volumes land in ``multicoil_train`` and so on beneath it.
        dataset: "brain_multicoil", "knee_multicoil" or "knee_singlecoil".
        workers: processes; as many as there are processors by default. 1 makes them in this one.
        **asked: further arguments of ``plan_study``.

    Returns:
        The volumes' paths, by split and number.

    Raises:
        ValueError: an argument is out of range.
        ModuleNotFoundError: the brain's atlas is not installed.
    """
    planned = plan_study(root, dataset, **asked)
    workers = min(workers or cpu_count() or 1, max(len(planned), 1))
    if workers == 1:
        return [make_volume(plan) for plan in planned]
    # Fresh processes: a notebook's has threads, which a fork would break.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(make_volume, planned))
