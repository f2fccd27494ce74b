"""M4Raw: low-field brains, nearly in fastMRI's form (Lyu et al. 2023, doi:10.5281/zenodo.8056074).

The centre of k-space lies some samples beside the middle of the readout, and the header's limits
are not those of the lines that are not zero. Gradient echoes are stored with readout and phase
encode exchanged, and about 45 samples off. Each repetition is a file of its own.
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.catalog import split_of_folder
from workbench.convert.hdf5 import acquisition_of, header_of, held, kspace_of, opened, slices_by
from workbench.convert.scan import Choices, RefusedError, Scan

_FAR = (
    16  # samples off the middle, from which the last axis is the readout; 45 is usual, 3 to 8 not
)
_COILS = 4


@dataclass(frozen=True)
class _Layout:
    """How slices are stored.

    Attributes:
        exchanged: whether the last axis is the readout.
        off: samples by which the centre lies beyond the middle of the readout.
        columns: the same of the phase encode; they stay where they are.
    """

    exchanged: bool
    off: int
    columns: int

    def straight(self, values: NDArray) -> NDArray[np.complex64]:
        """Return stored k-space as (coils, readout, phase encode), its centre in the middle."""
        if self.exchanged:
            # As in the other scans, the image stands upright: mirrored along the phase encode,
            # about its middle; of an even number of lines the first is its own mirror.
            values = np.flip(np.swapaxes(values, -1, -2), -1)
            values = np.roll(values, 1, -1) if values.shape[-1] % 2 == 0 else values
        return np.roll(values, -self.off, -2).astype(np.complex64, copy=False)


def holds(path: Path) -> bool:
    """Say whether a file has four coils' k-space, and a header with M4Raw's prefix."""
    found = held(path)
    if not found or found.kind != "c" or len(found.shape) != 4 or found.shape[1] != _COILS:
        return False
    try:
        with opened(path) as file:
            _, text = header_of(file)
    except RefusedError:
        return False
    return "<ns0:ismrmrdHeader" in text[:500] and "0.3</ns0:systemFieldStrength_T>" in text


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Describe the volume: one repetition of one contrast.

    Raises:
        RefusedError: the file is damaged, or k-space has no centre near the middle.
    """
    with opened(path) as file:
        kspace = kspace_of(file)
        header, _ = header_of(file)
        layout, there = _look(kspace)
        acquisition = acquisition_of(file)
        slices, coils = kspace.shape[:2]
    matrix = (len(there[0]), len(there[1]))
    if matrix != header.encoded[:2]:
        raise RefusedError(
            f"has k-space of {matrix[0]}x{matrix[1]}, not of its header's {header.encoded[0]}x"
            f"{header.encoded[1]}: bring it in again"
        )
    first, end = np.flatnonzero(there[1])[[0, -1]] + (0, 1)
    measured = there[1]
    whole = bool(measured[first:end].all())
    said = header.acquired
    header = replace(header, lines=int(end - first), center=int(matrix[1] // 2 - first))
    remarks = [f"k-space was moved by {layout.off} samples: its centre was beside the middle"]
    if layout.exchanged:
        remarks.append("readout and phase encode were exchanged, and the image turned upright")
    if said != (first, end):
        remarks.append(
            f"columns {first} to {end - 1} hold lines; the header said {said[0]} to {said[1] - 1}"
        )
    if layout.columns:
        remarks.append(f"the strongest column lies {abs(layout.columns)} beside the middle")

    def straight(kspace: h5py.Dataset, number: int) -> NDArray[np.complex64]:
        values = layout.straight(kspace[number])
        if values.any() and ((values != 0).any((0, 1)) != measured).any():
            raise RefusedError(
                f"holds other columns in slice {number} than in its middle one: bring it in again"
            )
        return values

    person = re.match(r"\d{6,}(?=_)", path.name)
    repeated = re.search(r"_[A-Z]+\d?(\d\d)\.h5$", path.name)
    return [
        Scan(
            shape=(slices, coils, *matrix),
            read=slices_by(path, straight),
            header=header,
            sampled=None if whole else measured,
            target=whole,
            acquisition=acquisition,
            person=f"m4raw {person[0]}" if person else "",
            attributes={"repetition": int(repeated[1])} if repeated else {},
            split=split_of_folder(path.parent.name),
            remarks=tuple(remarks[0 if layout.off else 1 :]),
        )
    ]


def _look(kspace: h5py.Dataset) -> tuple[_Layout, tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Find how slices are stored, and which (rows, columns) hold samples once they are straight."""
    power = np.zeros(kspace.shape[2:])
    for number in sorted({0, kspace.shape[0] // 2, kspace.shape[0] - 1}):
        values = kspace[number]
        power += (values.real**2 + values.imag**2).sum(0)
    if not power.any():
        raise RefusedError("holds nothing but zeros: bring it in again")
    off = [int(power.sum(1 - axis).argmax()) - power.shape[axis] // 2 for axis in (0, 1)]
    far = [abs(away) >= size // _FAR for away, size in zip(off, power.shape, strict=True)]
    exchanged = far[1] and not far[0]
    if far[0]:
        raise RefusedError(
            f"has its strongest lines {off[0]} and {off[1]} samples beside the middle, and M4Raw's "
            "are off by a few, or along the last axis alone: bring it in again"
        )
    layout = _Layout(exchanged, *(off[::-1] if exchanged else off))
    found = layout.straight((power > 0)[None])[0] != 0
    return layout, (found.any(1), found.any(0))
