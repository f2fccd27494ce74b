"""Calgary-Campinas: 3-D brains, as slices that were transformed along the readout already.

https://www.ccdataset.com/mr-reconstruction-challenge. An array ``kspace`` (x, y, z, 2 coils) of
real numbers holds real and imaginary part of each coil in turn. Its image is an inverse FFT
without a shift, and the last 15 % of z were never measured.
"""

import math
import re
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.catalog import split_of_folder
from workbench.convert.hdf5 import held, kspace_of, opened, slices_by
from workbench.convert.header import Header
from workbench.convert.scan import Choices, RefusedError, Scan

_PAIRS = (24, 64)  # last axis: 12 or 32 coils
_MEASURED = 0.85  # of z
_NOTHING = 1e-3  # share of the power of the columns opposite, below which there is nothing
_CORNERS = 0.3  # share of zeros that an elliptic shutter leaves; the test set has 80 % and more
_PUBLISHED = re.compile(r"e\d+s\d+_P\d+"), (256, 218)  # beginning of a name; x and y


def holds(path: Path) -> bool:
    """Say whether a file holds pairs of real numbers from 12 or 32 coils, and no header.

    Other real numbers of such a shape need not be pairs: its name or its size must be a published
    one's.
    """
    found = held(path)
    if not found or found.kind != "f" or len(found.shape) != 4 or found.shape[3] not in _PAIRS:
        return False
    name, size = _PUBLISHED
    published = bool(name.match(path.name)) or found.shape[:2] == size
    return published and "ismrmrd_header" not in found.names


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Describe the volume.

    Raises:
        RefusedError: it is damaged, or undersampled along both axes, as its test set is.
    """
    with opened(path) as file:
        kspace = kspace_of(file)
        slices, height, width, pairs = kspace.shape
        values = _joined(kspace[slices // 2])
    power = (values.real**2 + values.imag**2).sum(0)
    end = _end(power.sum(0))
    columns = power[:, :end].any(0)
    zeros = float((power[power.any(1)][:, :end][:, columns] == 0).mean()) if columns.any() else 1.0
    if zeros > _CORNERS:
        raise RefusedError(
            "is undersampled along both phase encodes, as the test set of Calgary-Campinas is, and "
            "only masks of whole columns can be used: take the train and val sets"
        )
    whole = bool(columns.all())
    remarks = ["slices are those of a 3-D scan: both axes are phase encodes, the last one is z"]
    if zeros:
        remarks.append(f"{zeros:.0%} of the samples, such as corners, are zero")
    shift = _halfway(height)[:, None] * _halfway(width)

    def centered(kspace: h5py.Dataset, number: int) -> NDArray[np.complex64]:
        """Return a slice whose image is moved by half of the field of view, to the middle."""
        values = _joined(kspace[number]) * shift
        values[..., end:] = 0
        return values

    exam = re.match(r"e\d+(?=s\d+_)", path.name)
    if end < width:
        remarks.append(
            f"columns {end} to {width - 1} of z were never measured: the target is made of zeros "
            "there, as the challenge's own"
        )
    return [
        Scan(
            shape=(slices, pairs // 2, height, width),
            read=slices_by(path, centered),
            header=Header((height, width, 1), (height, width, 1), end, width // 2),
            sampled=None if whole else np.pad(columns, (0, width - end)),
            target=whole,
            acquisition="T1 3-D",
            person=f"calgary {exam[0]}" if exam else "",
            split=split_of_folder(path.parent.name),
            remarks=tuple(remarks),
        )
    ]


def _joined(values: NDArray) -> NDArray[np.complex64]:
    """Join a slice's pairs, (y, z, 2 coils) real, to complex (coils, y, z)."""
    pairs = np.ascontiguousarray(values.transpose(2, 0, 1), dtype=np.float32)
    joined = np.empty((len(pairs) // 2, *pairs.shape[1:]), np.complex64)
    joined.real, joined.imag = pairs[0::2], pairs[1::2]
    return joined


def _end(power: NDArray) -> int:
    """Return the column of z behind the last measured one, by their power (columns,).

    It is at 85 % of them, where what lies behind is next to nothing beside the columns opposite.
    """
    end = math.ceil(_MEASURED * len(power))
    opposite = power[1 : len(power) - end + 1].sum()
    if power[end:].sum() > _NOTHING * opposite:
        end = len(power)
    return int(np.flatnonzero(power[:end]).max(initial=0)) + 1


def _halfway(size: int) -> NDArray[np.complex64]:
    """Return the factors of centred k-space that move an image from sample 0 to the middle."""
    away = np.arange(size) - size // 2
    return np.exp(2j * np.pi * away * (size // 2) / size).astype(np.complex64)
