"""K-space in arrays without a header: NumPy's, MATLAB's and BART's files."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench.convert.array_axes import found_axes, named_axes
from workbench.convert.array_files import StoredArray, arrays_in, holds
from workbench.convert.checks import (
    check_image,
    check_kspace,
    check_middle,
    check_recon,
    off_middle,
    told_of_columns,
)
from workbench.convert.header import Header
from workbench.convert.place import extent, partial, refuse_zeros
from workbench.convert.scan import Choices, RefusedError, Scan

__all__ = ["holds", "scans"]

_BLOCK = 20e6  # bytes of samples that are read at once, or one slice where that is more
_ORDER = ("slice", "average", "coil", "readout", "phase", "complex")
_SMALLEST = 7  # samples along readout and phase encode, as for volumes of a dataset
_MANY_SLICES, _LIKE_PARTITIONS = 8, 40.0  # strongest centre / median, powers; images 1 to 30
_TRAJECTORIES = {"traj", "trajectory", "ktraj", "k_traj", "kloc", "spokes"}


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Find what an array's file holds; nothing in BART's .hdr, which goes with its .cfl.

    Some slices are read; the others are held against them when they are converted.

    Raises:
        RefusedError: no array in it can become a volume, or it must be told more.
        OSError: the file cannot be read.
    """
    arrays = arrays_in(path)
    if not arrays and path.suffix == ".hdr":
        return []
    array = _chosen(arrays, choices.variable)
    axes = (
        named_axes(array, choices.axes)
        if choices.axes
        else found_axes(array, choices.matrix, bart=path.suffix == ".cfl")
    )
    kspace = _Kspace(array, axes)
    if min(kspace.size) < _SMALLEST:
        raise RefusedError(f"has k-space of {kspace.size[0]}x{kspace.size[1]}, too small for one")
    count = kspace.length("volume")
    return [
        _scan(kspace, volume, choices, f"volume{volume + 1}" if count > 1 else "")
        for volume in range(count)
    ]


def _chosen(arrays: list[StoredArray], variable: str | None) -> StoredArray:
    """Pick the variable that a person names, or the only one that can be k-space."""
    listed = ", ".join(f"{a.name} ({a.shape_text}, {a.kind})".lstrip() for a in arrays) or "nothing"
    if variable is not None:
        for array in arrays:
            if array.name == variable:
                return array
        raise RefusedError(f"has no variable={variable!r}; it holds {listed}")
    fitting = [
        array
        for array in arrays
        if array.kind == "complex" and sum(length > 1 for length in array.shape) > 1
    ]
    if len(fitting) > 1:
        raise RefusedError(f"holds several complex arrays, {listed}: give variable=, one of them")
    for array in arrays:
        if array.name.rpartition("/")[2].lower() in _TRAJECTORIES:
            raise RefusedError(
                f"holds a trajectory ({array.name}), as radial and spiral scans have: reconstruct "
                "it to Cartesian lines first; where it is Cartesian, give variable="
            )
    if fitting:
        return fitting[0]
    if len(arrays) == 1 and arrays[0].kind == "real" and 2 in arrays[0].shape:
        return arrays[0]  # pairs (real, imaginary), where the axes say so
    raise RefusedError(
        f"holds no complex array of two axes or more, as k-space is; it holds {listed}"
    )


@dataclass(frozen=True)
class _Kspace:
    """An array of k-space, and the name of each of its axes; "" of those of length 1."""

    array: StoredArray
    axes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Samples along readout and phase encode."""
        return self.length("readout"), self.length("phase")

    def length(self, axis: str) -> int:
        """Return how long an axis is; 1 where there is none of that name."""
        return self.array.shape[self.axes.index(axis)] if axis in self.axes else 1

    def read(self, volume: int, numbers: Iterable[int]) -> Iterator[NDArray[np.complex64]]:
        """Yield slices (coils, readout, phase encode); averages are averaged, column by column."""
        lengths = [self.length(axis) for axis in _ORDER]
        most = max(1, int(_BLOCK // (8 * np.prod(lengths[1:5]))))
        with self.array.open() as cut:
            for first, last in _runs(numbers, most):
                places = {"slice": slice(first, last), "volume": slice(volume, volume + 1)}
                values = cut(tuple(places.get(axis, slice(None)) for axis in self.axes))
                own = [self.axes.index(axis) for axis in _ORDER if axis in self.axes]
                rest = [axis for axis in range(len(self.axes)) if axis not in own]
                values = values.transpose(rest + own).reshape(-1, *lengths[1:])
                if lengths[-1] == 2:
                    values = values[..., 0] + np.complex64(1j) * values[..., 1]
                else:
                    values = values[..., 0]
                yield from map(_averaged, values)


def _runs(numbers: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield ranges [first, last) of numbers that follow each other, of so many at most."""
    for _, group in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        run = [number for _, number in group]
        for start in range(0, len(run), most):
            yield run[start], run[min(start + most, len(run)) - 1] + 1


def _averaged(values: NDArray) -> NDArray[np.complex64]:
    """Return the mean of averages (average, coil, readout, phase) over those that were measured."""
    if len(values) > 1:
        counts = (values != 0).any((1, 2)).sum(0)
        values = values.sum(0, keepdims=True) / np.maximum(counts, 1)
    with np.errstate(over="ignore"):  # what is too large is told as not finite
        return values[0].astype(np.complex64)


def _scan(kspace: _Kspace, volume: int, choices: Choices, name: str) -> Scan:
    """Describe one volume of an array, with a header from its size and a person's numbers."""
    found, middle = _measured(kspace, volume)
    if not choices.axes and _gaps(found.rows) and not _gaps(found.columns):
        exchanged = {"readout": "phase", "phase": "readout"}
        axes = tuple(exchanged.get(name, name) for name in kspace.axes)
        kspace = _Kspace(kspace.array, axes)
        found, middle = _measured(kspace, volume)
    if _gaps(found.rows):
        raise RefusedError(
            "lacks lines inside the readout: are readout and phase exchanged in axes=?"
        )
    rows = np.flatnonzero(found.rows)
    refuse_zeros(middle, found.columns, slice(rows[0], rows[-1] + 1))
    strongest = check_kspace((np.abs(middle).astype(float) ** 2).sum(0))
    matrix, center, columns_of = _placement(kspace.size, choices)
    columns = _put(found.columns, columns_of, matrix[1])
    remark = check_middle((strongest[0], int(columns_of[strongest[1]])), matrix)
    of_image = check_image(middle)
    first, last = _reach(columns)
    recon = choices.recon or matrix
    check_recon(recon, matrix)
    both = (("phase encode", columns), ("readout", found.rows))
    lopsided = [axis for axis, there in both if partial(*_reach(there), len(there) // 2)]
    gaps = _gaps(columns)
    coils = int(found.coils.sum())

    def read(numbers: Iterable[int]) -> Iterator[NDArray[np.complex64]]:
        wanted = list(numbers)
        for number, values in zip(wanted, kspace.read(volume, wanted), strict=True):
            found.check(values, number)
            yield _put(values[found.coils], columns_of, matrix[1])

    remarks = [
        f"axes taken as {', '.join(axis or '1' for axis in kspace.axes)}"
        if not choices.axes
        else "",
        f"no header: matrix {matrix[0]}x{matrix[1]}, image {recon[0]}x{recon[1]}"
        f"{'' if choices.recon else ' (the matrix; give recon where it is oversampled)'}, centre "
        f"line {center} of {kspace.size[1]}{'' if choices.center is not None else ' (half)'}",
        remark,
        *of_image,
        f"{len(found.coils) - coils} of {len(found.coils)} coils hold zeros only, left out"
        if not found.coils.all()
        else "",
        f"undersampled: {columns.sum()} of {last + 1 - first} lines; no target" if gaps else "",
        *told_of_columns(columns, first, last),
        f"partial Fourier along {' and '.join(lopsided)}; no target" if lopsided else "",
        f"mean of {kspace.length('average')} averages" if kspace.length("average") > 1 else "",
    ]
    return Scan(
        shape=(kspace.length("slice"), coils, *matrix),
        read=read,
        header=Header(
            encoded=(*matrix, 1),
            recon=(*recon, 1),
            lines=last + 1 - first,
            center=matrix[1] // 2 - first,
        ),
        name=name,
        sampled=columns if gaps else None,
        target=not gaps and not lopsided,
        remarks=tuple(filter(None, remarks)),
    )


@dataclass(frozen=True)
class _Measured:
    """Where a volume has values: rows, columns and coils, bool."""

    rows: NDArray[np.bool_]
    columns: NDArray[np.bool_]
    coils: NDArray[np.bool_]

    def check(self, values: NDArray[np.complex64], number: int) -> None:
        """Check that a slice (coils, readout, phase encode) has values where the others do."""
        columns = values.any((0, 1))
        if not columns.any():
            raise RefusedError(f"has slice {number} full of zeros: leave it out")
        if (columns != self.columns).any() or values[~self.coils].any():
            raise RefusedError(
                f"has other lines or coils in slice {number} than in the first one, and a volume "
                "has one mask: convert such slices apart"
            )


def _measured(kspace: _Kspace, volume: int) -> tuple[_Measured, NDArray[np.complex64]]:
    """Look at the first, the middle and the last slice of a volume, and at two between them.

    Returns:
        Where it has values, and the middle slice, (coils, readout, phase encode).
    """
    count = kspace.length("slice")
    middle, last = count // 2, count - 1
    numbers = sorted({0, count // 4, middle, 3 * count // 4, last})
    rows = columns = coils = np.zeros(1, bool)
    powers = []
    for number, values in zip(numbers, kspace.read(volume, numbers), strict=True):
        if not np.isfinite(values).all():
            raise RefusedError(f"has values that are not finite in slice {number}")
        rows = rows | values.any((0, 2))
        columns = columns | values.any((0, 1))
        coils = coils | values.any((1, 2))
        powers.append((np.abs(values).astype(float) ** 2).sum(0))
        if number == middle:
            of_middle = values
    if not of_middle.any():
        raise RefusedError("holds zeros only")
    row, column = np.unravel_index(np.sum(powers, 0).argmax(), powers[0].shape)
    around = slice(max(0, row - 1), row + 2), slice(max(0, column - 1), column + 2)
    centers = [float(power[around].sum()) for power in powers]
    if count >= _MANY_SLICES and max(centers) > _LIKE_PARTITIONS * np.median(centers):
        raise RefusedError(
            "has slices of which one has a centre of k-space "
            f"{max(centers) / max(np.median(centers), 1e-300):.2g} times as strong as others, as "
            "partitions of a scan in three dimensions: transform that axis to slices first, by an "
            "inverse FFT with shifts, or leave out empty slices"
        )
    return _Measured(rows, columns, coils), of_middle


def _gaps(there: NDArray[np.bool_]) -> bool:
    """Say whether something is missing between the first and the last that is there."""
    places = np.flatnonzero(there)
    return len(places) < places[-1] + 1 - places[0]


def _reach(there: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first and the last that was to be measured: all of the axis, or a part of it."""
    return extent(there, 0, len(there) - 1)


def _put(values: NDArray, columns: NDArray[np.intp], width: int) -> NDArray:
    """Put lines, the last axis, into their columns; the others are 0."""
    placed = np.zeros((*values.shape[:-1], width), values.dtype)
    placed[..., columns] = values
    return placed


def _placement(
    size: tuple[int, int], choices: Choices
) -> tuple[tuple[int, int], int, NDArray[np.intp]]:
    """Place lines by the matrix and the centre that a person gives; else the array is all.

    Returns:
        The encoded matrix, the number of the central line, and the column of each line; of as many
        lines as columns, those go round.

    Raises:
        RefusedError: they do not fit.
    """
    matrix, lines = choices.matrix or size, size[1]
    center = lines // 2 if choices.center is None else choices.center
    said = f"matrix={matrix[0]}x{matrix[1]}"
    if matrix[0] != size[0] or matrix[1] < lines:
        raise RefusedError(
            f"has {size[0]} samples along the readout and {lines} lines, and {said}: give the "
            "array's readout, and no fewer lines"
        )
    first = matrix[1] // 2 - center
    whole = lines == matrix[1] and abs(first) <= off_middle(lines)
    if not (0 <= center < lines and (whole or 0 <= first <= matrix[1] - lines)):
        raise RefusedError(
            f"has {lines} lines, which center={center} puts at columns {first} to "
            f"{first + lines - 1} of {matrix[1]}: give a matrix that holds them"
        )
    return matrix, center, (first + np.arange(lines)) % matrix[1]
