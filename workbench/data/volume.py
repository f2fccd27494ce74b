"""One volume: a fastMRI .h5 file, described so that its slices can be read by byte range."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

TARGETS = ("reconstruction_rss", "reconstruction_esc")
KSPACE_TYPES = ("<c8", ">c8", "<c16", ">c16")
MOST_AXIS = 2**16
"""The longest axis of an array that is believed."""
_MOST_SLICE_BYTES = 2**32
_SMALLEST = 7  # the window of SSIM
TARGET_TYPES = ("<f4", ">f4", "<f8", ">f8", "<f2", ">f2")


class UnusableVolumeError(ValueError):
    """A file is no volume that can be read; the message completes the file's name."""


@dataclass(frozen=True)
class ArrayLayout:
    """Where an array lies in its file."""

    shape: tuple[int, ...]  # (slices, [coils,] readout, phase encode), or (slices, height, width)
    dtype: str  # of KSPACE_TYPES or TARGET_TYPES
    offset: int | None  # first byte in the file; None where the data is not contiguous and plain

    @property
    def read_as(self) -> np.dtype:
        """The type that its values are read as: complex64 or float32, in this machine's order."""
        return np.dtype(np.complex64 if np.dtype(self.dtype).kind == "c" else np.float32)


@dataclass(frozen=True)
class Volume:
    """One file of a dataset: a scan, as the dataset cache knows it.

    It describes the file; ``open_dataset(...).read(volume, number)`` reads a slice of it.

    Attributes:
        path: relative to the dataset's folder, with "/".
        split: train, val, test, ... (``workbench.catalog.SPLITS``).
        size: bytes of the file.
        mtime_ns: its time of change.
        kspace: shape, type and place of k-space, (slices, coils, readout, phase encode);
            single-coil k-space has no axis of coils.
        target_name: ``reconstruction_rss`` or ``reconstruction_esc``; None without a target.
        target: the same of the target, (slices, height, width); None without one.
        mask: columns that the file's own mask samples; see ``own_mask``.
        encoded: matrix size (x readout, y phase encode, z) of the header.
        recon: reconstructed matrix size (x, y, z) of the header; images are cropped to it.
        padding_left: first column that was acquired; what is left of it is zero padding.
        padding_right: first column after the last acquired one.
        attributes: the file's own: max, norm, patient_id, acquisition, ...
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
        UnusableVolumeError: the message completes a file's name, "its k-space has shape ...".
    """
    shape, target, mask = volume.kspace.shape, volume.target, volume.mask or ()
    if len(shape) not in (3, 4) or 0 in shape:
        raise UnusableVolumeError(
            f"its k-space has shape {shape}, not (slices, coils, readout, phase encode) "
            "or, single-coil, (slices, readout, phase encode)"
        )
    if min(shape[-2:]) < _SMALLEST:
        raise UnusableVolumeError(f"its k-space of {shape[-2]}x{shape[-1]} is no image's")
    _check_layout("k-space", volume.kspace, KSPACE_TYPES, volume.size)
    if not all(0 <= column < shape[-1] for column in mask):
        raise UnusableVolumeError(f"its mask samples columns outside its k-space's {shape[-1]}")
    if any(left >= right for left, right in pairwise(mask)):
        raise UnusableVolumeError("its mask does not rise from column to column")
    if not all(1 <= length <= MOST_AXIS for length in (*volume.encoded, *volume.recon)):
        raise UnusableVolumeError(f"its matrix is {volume.encoded}, reconstructed {volume.recon}")
    left, right = volume.padding_left, volume.padding_right
    if max(abs(left), abs(right)) > MOST_AXIS or left >= shape[-1] or right <= max(left, 0):
        raise UnusableVolumeError(
            f"its ismrmrd_header has columns {left} to {right} acquired, and its k-space "
            f"{shape[-1]} columns"
        )
    if target is None:
        return
    if len(target.shape) != 3 or target.shape[0] != shape[0] or 0 in target.shape:
        raise UnusableVolumeError(
            f"its {volume.target_name} has shape {target.shape} beside a k-space of {shape}"
        )
    if min(target.shape[1:]) < _SMALLEST:
        raise UnusableVolumeError(f"its target of {target.shape[1]}x{target.shape[2]} is no image")
    _check_layout("target", target, TARGET_TYPES, volume.size)
    largest: Any = volume.attributes.get("max")
    if type(largest) not in (int, float) or not 0 <= largest < math.inf:
        found = f"its attribute max is {largest!r}, not one number of 0 or more"
        if largest is None:
            found = "it has a target and no attribute max"
        raise UnusableVolumeError(f"{found}: write the target's largest value there")


def _check_layout(name: str, layout: ArrayLayout, types: tuple[str, ...], size: int) -> None:
    if layout.dtype not in types:
        raise UnusableVolumeError(
            f"its {name} is of type {layout.dtype!r}, not one of {', '.join(types)}"
        )
    slice_bytes = math.prod(layout.shape[1:]) * np.dtype(layout.dtype).itemsize
    if max(layout.shape) > MOST_AXIS or slice_bytes > _MOST_SLICE_BYTES:
        raise UnusableVolumeError(f"its {name} has shape {layout.shape}, too large to be one")
    end = layout.shape[0] * slice_bytes
    if layout.offset is not None and not 0 <= layout.offset <= size - end:
        raise UnusableVolumeError(f"its {name} ends after the file does, at {size} bytes")


def neighbours_of(number: int, slices: int, count: int) -> list[int]:
    """Return the numbers of a slice and its neighbours, of ``count`` in all, itself in the middle.

    Beyond the ends of a volume of so many ``slices`` the outermost one is repeated.
    """
    reach = check_neighbours(count) // 2
    return [min(max(n, 0), slices - 1) for n in range(number - reach, number + reach + 1)]


def check_neighbours(count: Any) -> int:
    """Check a number of slices that a network sees at once.

    Raises:
        ValueError: there is no middle one among so many.
    """
    if not isinstance(count, int) or isinstance(count, bool) or count < 1 or count % 2 == 0:
        raise ValueError(f"neighbours={count!r}: give an odd number of slices, 1 or more")
    return count


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """Return what to call each path: its file name; the whole path where another has that name."""
    every = set(paths)
    counts = Counter(path.rpartition("/")[2] for path in every)
    names = {path: path.rpartition("/")[2] for path in every}
    return {path: name if counts[name] == 1 else path for path, name in names.items()}


@dataclass(frozen=True)
class Problem:
    """A file of a dataset that is left out."""

    path: str  # relative to the dataset's folder, with "/"
    reason: str  # what is wrong with it, and what to do where that is known
