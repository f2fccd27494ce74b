"""One volume: a fastMRI .h5 file, described so that its slices can be read by byte range."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

TARGETS = ("reconstruction_rss", "reconstruction_esc")
KSPACE_TYPES = ("<c8", ">c8", "<c16", ">c16")
TARGET_TYPES = ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2")


@dataclass(frozen=True)
class ArrayLayout:
    """Where an array lies in its file.

    Attributes:
        shape: (slices, coils, readout, phase encode) for multi-coil k-space, (slices, readout,
            phase encode) for single-coil k-space, (slices, height, width) for a target.
        dtype: NumPy's name with byte order, one of ``KSPACE_TYPES`` or ``TARGET_TYPES``.
        offset: first byte in the file where the data is contiguous and plain, else None.
    """

    shape: tuple[int, ...]
    dtype: str
    offset: int | None

    @property
    def read_as(self) -> np.dtype:
        """The type that its values are read as: complex64 or float32, in this machine's order."""
        return np.dtype(np.complex64 if np.dtype(self.dtype).kind == "c" else np.float32)


@dataclass(frozen=True)
class Volume:
    """What the dataset cache knows of one file.

    Attributes:
        path: relative to the dataset's folder, with ``/``.
        split: one of ``workbench.catalog.SPLITS``, from the folder's name.
        size: bytes.
        mtime_ns: time of last change, nanoseconds.
        kspace: layout of ``kspace``.
        target_name: "reconstruction_rss", "reconstruction_esc" or None where the file has neither.
        target: layout of the target, or None.
        mask: sampled phase-encode columns of the file's own ``mask``, or None; see ``own_mask``.
        encoded: encoded matrix size (x readout, y phase encode, z).
        recon: reconstructed matrix size (x, y, z).
        padding_left: first phase-encode column that was acquired (left of it is zero padding).
        padding_right: first column after the last acquired one.
        attributes: the file's attributes (``max``, ``norm``, ``patient_id``, ``acquisition``, ...).
    """

    path: str
    split: str
    size: int
    mtime_ns: int
    kspace: ArrayLayout
    target_name: str | None
    target: ArrayLayout | None
    mask: tuple[int, ...] | None
    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    padding_left: int
    padding_right: int
    attributes: dict[str, Any]

    @property
    def name(self) -> str:
        """File name, such as ``file1000000.h5``; another folder may hold a file of that name."""
        return self.path.rpartition("/")[2]

    @property
    def slices(self) -> int:
        """Number of slices."""
        return self.kspace.shape[0]

    @property
    def coils(self) -> int:
        """Number of receive coils; 1 for single-coil data."""
        return self.kspace.shape[1] if len(self.kspace.shape) == 4 else 1

    @property
    def matrix(self) -> tuple[int, int]:
        """K-space size (readout, phase encode)."""
        return self.kspace.shape[-2], self.kspace.shape[-1]

    @property
    def acquired(self) -> tuple[int, int]:
        """First acquired phase-encode column and the one after the last, inside k-space."""
        return max(self.padding_left, 0), min(self.padding_right, self.matrix[1])

    @property
    def own_mask(self) -> np.ndarray | None:
        """What the file's own mask samples, (phase encode,) bool; None where it has no mask.

        As in fastMRI, columns that the header calls zero padding do not count as sampled.
        """
        if self.mask is None:
            return None
        columns = np.zeros(self.matrix[1], bool)
        columns[list(self.mask)] = True
        left, right = self.acquired
        columns[:left] = columns[right:] = False
        return columns

    @property
    def largest(self) -> float:
        """The largest value of the target, which is the data range of SSIM and PSNR; 0 without."""
        return float(self.attributes.get("max", 0)) if self.target else 0.0

    @property
    def acquisition(self) -> str:
        """Sequence, such as "AXT2" or "CORPD_FBK"; "" where the file does not say."""
        return str(self.attributes.get("acquisition", ""))

    @property
    def synthetic(self) -> bool:
        """Whether this is a volume of the phantom, not of a patient."""
        return bool(self.attributes.get("synthetic", False))


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return what to call each path: its file name; the whole path where another has that name.

    Args:
        paths: of volumes, relative to their dataset's folder, with ``/``.
    """
    every = set(paths)
    named = {path: path.rpartition("/")[2] for path in every}
    counts = Counter(named.values())
    return {path: name if counts[name] == 1 else path for path, name in named.items()}


@dataclass(frozen=True)
class Problem:
    """A file of a dataset that is left out.

    Attributes:
        path: relative to the dataset's folder, with ``/``.
        reason: what is wrong with it, and what to do where that is known.
    """

    path: str
    reason: str
