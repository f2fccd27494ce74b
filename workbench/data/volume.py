"""One volume: a fastMRI .h5 file, described so that its slices can be read by byte range."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

TARGETS = ("reconstruction_rss", "reconstruction_esc")
KSPACE_TYPES = ("<c8", ">c8", "<c16", ">c16")
MOST_AXIS = 2**16
"""The longest axis of an array that is believed."""
_MOST_SLICE_BYTES = 2**32
_SMALLEST = 7  # the window of SSIM
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


def check_volume(volume: Volume) -> None:
    """Refuse what no slice can be read of, no network trained on and no figure formed of.

    Raises:
        ValueError: the message completes a file's name, such as "its k-space has shape ...".
    """
    shape, target = volume.kspace.shape, volume.target
    if len(shape) not in (3, 4) or 0 in shape:
        raise ValueError(
            f"its k-space has shape {shape}, not (slices, coils, readout, phase encode) "
            "or, single-coil, (slices, readout, phase encode)"
        )
    if min(shape[-2:]) < _SMALLEST:
        raise ValueError(f"its k-space of {shape[-2]}x{shape[-1]} is no image's")
    _check_layout("k-space", volume.kspace, KSPACE_TYPES, volume.size)
    if volume.mask is not None and not all(0 <= column < shape[-1] for column in volume.mask):
        raise ValueError(f"its mask samples columns outside its k-space's {shape[-1]}")
    if not all(1 <= length <= MOST_AXIS for length in (*volume.encoded, *volume.recon)):
        raise ValueError(f"its matrix is {volume.encoded}, reconstructed {volume.recon}")
    if volume.padding_left >= shape[-1] or volume.padding_right <= max(volume.padding_left, 0):
        raise ValueError(
            f"its ismrmrd_header has columns {volume.padding_left} to {volume.padding_right} "
            f"acquired, and its k-space {shape[-1]} columns"
        )
    if target is None:
        return
    if len(target.shape) != 3 or target.shape[0] != shape[0] or 0 in target.shape:
        raise ValueError(
            f"its {volume.target_name} has shape {target.shape} beside a k-space of {shape}"
        )
    if min(target.shape[1:]) < _SMALLEST:
        raise ValueError(f"its target of {target.shape[1]}x{target.shape[2]} is no image")
    _check_layout("target", target, TARGET_TYPES, volume.size)
    if "max" not in volume.attributes:
        raise ValueError(
            "it has a target and no attribute max: write the target's largest value there"
        )
    largest = volume.attributes["max"]
    if type(largest) not in (int, float) or not 0 <= largest < math.inf:
        raise ValueError(
            f"its attribute max is {largest!r}, not one number of 0 or more: write the target's "
            "largest value there"
        )


def _check_layout(name: str, layout: ArrayLayout, types: tuple[str, ...], size: int) -> None:
    if layout.dtype not in types:
        raise ValueError(f"its {name} is of type {layout.dtype!r}, not one of {', '.join(types)}")
    slice_bytes = math.prod(layout.shape[1:]) * np.dtype(layout.dtype).itemsize
    if max(layout.shape) > MOST_AXIS or slice_bytes > _MOST_SLICE_BYTES:
        raise ValueError(f"its {name} has shape {layout.shape}, too large to be one")
    end = layout.shape[0] * slice_bytes
    if layout.offset is not None and not 0 <= layout.offset <= size - end:
        raise ValueError(f"its {name} ends after the file does, at {size} bytes")


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
