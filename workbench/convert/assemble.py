"""K-space of one volume, put together from its lines slice by slice."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from workbench.convert.scan import RefusedError
from workbench.stores.disk import naming


@dataclass(frozen=True)
class Readout:
    """Which samples of each line are kept, and where they go.

    Attributes:
        starts: samples cut before each line's first one that is kept, (lines,).
        length: samples that are kept of each.
        offset: of the readout where they go.
        remarks: what is unusual.
    """

    starts: NDArray[np.uint16]
    length: int
    offset: int
    remarks: tuple[str, ...]

    @property
    def span(self) -> slice:
        """Where they go."""
        return slice(self.offset, self.offset + self.length)


@dataclass(frozen=True)
class Volume:
    """Where each line of a volume goes.

    A plan of a thousand files holds it a thousand times: it takes some bytes a line.

    Attributes:
        read: as in ``Lines``.
        rows: numbers of the lines in the source, ascending: (lines,) int32.
        slices: slice of each in space, (lines,); all 0 in three dimensions.
        columns: phase-encode column of each, (lines,).
        partitions: of each, counted in the encoded matrix, (lines,); all 0 in two dimensions.
        readout: which samples of each are kept, and where they go.
        reversed: whether its samples run backwards, (lines,) bool.
        signs: 1 or -1, by which each is multiplied, (lines,) int8.
        shape: of k-space, (slices, coils, readout, phase encode).
        depth: encoded partitions; 1 in two dimensions.
        whitening: matrix for the coils; None: as measured.
    """

    read: Callable[[NDArray[np.int32]], Iterator[NDArray[np.complex64]]]
    rows: NDArray[np.int32]
    slices: NDArray[np.uint16]
    columns: NDArray[np.uint16]
    partitions: NDArray[np.uint16]
    readout: Readout
    reversed: NDArray[np.bool_]
    signs: NDArray[np.int8]
    shape: tuple[int, int, int, int]
    depth: int = 1
    whitening: NDArray[np.complex64] | None = None

    def lines(self, chosen: NDArray[np.intp]) -> Iterator[tuple[int, NDArray[np.complex64]]]:
        """Yield the number of each chosen line, and its samples as k-space has them."""
        rows, length = self.rows[chosen], self.readout.length
        for number, samples in zip(chosen, self.read(rows), strict=True):
            if samples.shape[0] != self.shape[1]:
                raise RefusedError(f"has {samples.shape[0]} coils in line {self.rows[number]}")
            start = int(self.readout.starts[number])
            kept = samples[:, start : start + length]
            if kept.shape[1] != length:
                raise RefusedError(f"has too few samples in line {self.rows[number]}")
            kept = kept[:, ::-1] if self.reversed[number] else kept
            if self.whitening is not None:
                kept = self.whitening @ kept
            yield int(number), -kept if self.signs[number] < 0 else kept

    def kspace(self, numbers: Iterable[int]) -> Iterator[NDArray[np.complex64]]:
        """Yield k-space of slices: the mean of the lines that came for each place, or zeros."""
        if self.depth > 1:
            yield from self._across_partitions(tuple(numbers))
            return
        for number in numbers:
            yield self.plane(np.flatnonzero(self.slices == number))

    def plane(self, chosen: NDArray[np.intp]) -> NDArray[np.complex64]:
        """Return k-space (coils, readout, phase encode) of the chosen lines, by their columns."""
        kspace = np.zeros(self.shape[1:], np.complex64)
        self._average(chosen, self.columns, kspace[:, self.readout.span].transpose(2, 0, 1))
        return kspace

    def _average(
        self, chosen: NDArray[np.intp], places: NDArray[np.uint16], into: NDArray[np.complex64]
    ) -> None:
        """Write the mean of the lines that came for each place, (places, coils, length).

        Lines of zeros, as in an average that was measured in part, are none.
        """
        counts = np.zeros(len(into), np.float32)
        for line, samples in self.lines(chosen):
            if samples.any():
                into[places[line]] += samples
                counts[places[line]] += 1
        into /= np.maximum(counts, 1)[:, None, None]

    def _across_partitions(self, numbers: tuple[int, ...]) -> Iterator[NDArray[np.complex64]]:
        """Transform along the partitions, column by column, by way of a temporary file.

        Memory holds one column of all partitions; the file holds k-space of the slices wanted.
        """
        columns = np.unique(self.columns)
        first = (self.depth - self.shape[0]) // 2
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=folder) as scratch:
            for column in columns:
                planes = self._column(column)
                with naming(folder):
                    for number in numbers:
                        scratch.write(planes[first + number].data)
            with naming(folder):
                scratch.flush()
            for place in range(len(numbers)):
                kspace = np.zeros(self.shape[1:], np.complex64)
                inner = kspace[:, self.readout.span]
                for order, column in enumerate(columns):
                    inner[..., column] = self._plane(scratch, order * len(numbers) + place)
                yield kspace

    def _column(self, column: int) -> NDArray[np.complex64]:
        """Return one column of all partitions, transformed along them: (depth, coils, length)."""
        from scipy import fft

        values = np.zeros((self.depth, self.shape[1], self.readout.length), np.complex64)
        self._average(np.flatnonzero(self.columns == column), self.partitions, values)
        for coil in range(self.shape[1]):  # one by one, for less memory
            moved = fft.ifftshift(values[:, coil], axes=0)
            values[:, coil] = fft.fftshift(fft.ifft(moved, axis=0, norm="ortho"), axes=0)
        return values

    def _plane(self, scratch: BinaryIO, number: int) -> NDArray[np.complex64]:
        """Read one column of one slice back: (coils, length)."""
        shape = self.shape[1], self.readout.length
        size = shape[0] * shape[1] * np.dtype(np.complex64).itemsize
        held = os.pread(scratch.fileno(), size, number * size)
        return np.frombuffer(held, np.complex64).reshape(shape)
