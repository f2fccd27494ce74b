"""What a source of raw data holds: scans, each of which becomes one volume of a dataset."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.convert.header import Header


class RefusedError(ValueError):
    """A file, or a scan in it, cannot become a volume; the message completes the file's name.

    Such as "is an EPI (it holds phase-correction lines): reconstruct it to Cartesian lines first".
    """


@dataclass(frozen=True)
class Scan:
    """One volume to be, described; its k-space is read slice by slice.

    Attributes:
        shape: of k-space: (slices, coils, readout, phase encode), zero padding included.
        read: yields k-space of the slices that are asked for, in spatial order: (coils, readout,
            phase encode) complex64, zero where nothing was measured. It opens the source itself.
        header: what the volume's header is to say.
        name: what tells it from other scans of its file, such as "echo2"; "" where it is alone.
        sampled: columns that were measured, (phase encode,) bool, where some are missing inside
            the acquired ones; None where none is.
        target: whether an image can be formed of it that is worth learning: every line measured,
            none left out as in partial Fourier.
        acquisition: sequence, in the words of whoever converts, or of the source.
        person: whose scan it is, as the source says; "" where it does not. It is never written.
        split: that the source's own folder names or a published list gives; None: by person.
        calibration: reads separate calibration lines, (slices, coils, readout, lines); None
            without.
        attributes: more attributes of the volume; none of them may tell who the person is.
        remarks: what a person should know: lines that were dropped or averaged, what was assumed.
    """

    shape: tuple[int, int, int, int]
    read: Callable[[Iterable[int]], Iterator[NDArray[np.complex64]]]
    header: Header
    name: str = ""
    sampled: NDArray[np.bool_] | None = None
    target: bool = True
    acquisition: str = ""
    person: str = ""
    split: str | None = None
    calibration: Callable[[], NDArray[np.complex64]] | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of its k-space in the volume's file."""
        return int(np.prod(self.shape)) * np.dtype(np.complex64).itemsize


@dataclass(frozen=True)
class Choices:
    """What a person says of the data, where a reader cannot know it.

    Attributes:
        axes: of an array's k-space, in its order: names of ``AXES``.
        variable: of an array's file, the one that holds k-space.
        matrix: encoded matrix (readout, phase encode), oversampling and zero padding included.
        recon: matrix of the image (rows, columns).
        center: number of the line through the centre of k-space, of those that were measured.
        whiten: whether noise lines decorrelate the coils.
    """

    axes: tuple[str, ...] | None = None
    variable: str | None = None
    matrix: tuple[int, int] | None = None
    recon: tuple[int, int] | None = None
    center: int | None = None
    whiten: bool = False


AXES = ("slice", "coil", "readout", "phase", "average", "volume", "complex")
"""Axes that an array's k-space can have.

Each of "volume" (echoes, frames, repetitions) becomes a volume of its own, and "complex" holds
real and imaginary part.
"""
