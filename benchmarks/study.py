"""The files that are read: a phantom in fastMRI's format, under as many names as wanted."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fastmri.data import SliceDataset as Reference
from fastmri.data.subsample import create_mask_for_mask_type
from fastmri.data.transforms import VarNetDataTransform, VarNetSample

from benchmarks.pairs import DiffersError
from benchmarks.sizes import Size
from workbench.data.sampling import Sampling
from workbench.settings import resolve
from workbench_demo.phantom.study import write_study

FOLDER = "multicoil_train"
SAMPLING = Sampling("equispaced", (4,), (0.08,))
_MADE = 2


@dataclass(frozen=True)
class Study:
    """A knee dataset.

    Attributes:
        root: its folder.
        few: the same with a single volume.
    """

    root: Path
    few: Path

    @property
    def files(self) -> list[Path]:
        """The volumes, sorted."""
        return sorted((self.root / FOLDER).iterdir())


def make_study(size: Size, folder: str | Path = "outputs/bench") -> Study:
    """Make the files, or take those of an earlier run."""
    made = resolve(Path(folder, "study", f"{size.recon}x{size.coils}"))
    written = write_study(
        made / "few",
        "knee_multicoil",
        volumes={"train": _MADE},
        recon=size.recon,
        slices=2,
        coils=(size.coils,),
        widths=(1.15,),
        workers=1,
    )
    many = made / f"of{size.volumes}"
    (many / FOLDER).mkdir(parents=True, exist_ok=True)
    for number in range(size.volumes):
        path = many / FOLDER / f"file{2_000_000 + number}.h5"
        if not path.exists():
            os.link(written[number % _MADE], path)
    return Study(many, made / "few")


def reference_transform() -> VarNetDataTransform:
    """Return fastMRI's transform with the mask of ``SAMPLING``."""
    mask = create_mask_for_mask_type(
        SAMPLING.mask, list(SAMPLING.center_fractions), [int(r) for r in SAMPLING.accelerations]
    )
    return VarNetDataTransform(mask)


def reference_dataset(folder: Path) -> Reference:
    """Return fastMRI's dataset of a folder of volumes."""
    return Reference(folder, "multicoil", reference_transform())


def require_same(name: str, found: VarNetSample, expected: VarNetSample) -> None:
    """Raise unless two samples hold the same values.

    Raises:
        DiffersError: a field differs.
    """
    for field in expected._fields:
        one, other = (np.asarray(getattr(sample, field)) for sample in (found, expected))
        if one.shape != other.shape or not np.array_equal(one, other):
            raise DiffersError(f"{name}: {field} differs from fastMRI's")
