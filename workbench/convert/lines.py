"""The lines of one measurement, in ISMRMRD's words, whatever the form of the file.

A line is one readout of all coils. A reader of a form fills the table and says how samples are
read; ``cartesian`` makes scans of it. Flags and counters are ISMRMRD's:
https://ismrmrd.readthedocs.io/en/latest/mrd_raw_data.html
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntFlag

import numpy as np
from numpy.typing import NDArray


class Flag(IntFlag):
    """What a line is; ISMRMRD's flag n is bit n - 1."""

    NOISE = 1 << 18
    CALIBRATION = 1 << 19
    CALIBRATION_AND_IMAGING = 1 << 20
    REVERSE = 1 << 21
    NAVIGATION = 1 << 22
    PHASE_CORRECTION = 1 << 23
    HP_FEEDBACK = 1 << 25
    DUMMY = 1 << 26
    RT_FEEDBACK = 1 << 27
    SURFACE_COIL_CORRECTION = 1 << 28
    PHASE_STABILIZATION_REFERENCE = 1 << 29
    PHASE_STABILIZATION = 1 << 30


NO_IMAGE = (
    *(Flag.NOISE, Flag.NAVIGATION, Flag.PHASE_CORRECTION, Flag.HP_FEEDBACK, Flag.DUMMY),
    *(Flag.RT_FEEDBACK, Flag.SURFACE_COIL_CORRECTION),
    *(Flag.PHASE_STABILIZATION_REFERENCE, Flag.PHASE_STABILIZATION),
)
"""What a line of an image, or of its calibration, is not."""

LINE = np.dtype(
    [
        ("flags", "u8"),
        ("samples", "u2"),  # of each coil, before anything is discarded
        ("channels", "u2"),
        ("discard_pre", "u2"),  # samples, in the order of the readout
        ("discard_post", "u2"),
        ("center_sample", "u2"),  # counted before anything is discarded, of a line not reversed
        ("encoding_space", "u2"),
        ("dwell", "f4"),  # microseconds a sample; 0 where unknown
        ("position", "f4", (3,)),  # mm; zeros where unknown
        ("read_dir", "f4", (3,)),  # unit vector; zeros where unknown
        ("slice_dir", "f4", (3,)),  # the same
        ("step_1", "u2"),  # phase-encode line
        ("step_2", "u2"),  # partition
        ("average", "u2"),
        ("slice", "u2"),
        ("contrast", "u2"),  # echo
        ("phase", "u2"),  # of the heart
        ("repetition", "u2"),
        ("set", "u2"),
        ("segment", "u2"),
        ("user", "u2", (8,)),  # counters of no fixed meaning; lines that differ by them don't mix
        ("center_line", "i4"),  # step_1 of the centre, as the line itself says; -1: it does not
        ("center_partition", "i4"),  # the same of step_2
    ]
)
"""What the table says of a line."""


@dataclass(frozen=True)
class Lines:
    """Lines in the order in which they were stored.

    Attributes:
        table: (lines,) of ``LINE``.
        read: yields the samples of the lines with the numbers (rows of the table) that are asked
            for, in that order: (channels, samples) complex64 as stored, nothing discarded or
            reversed. It opens the source itself, reads in blocks of some MB, and must not hold the
            table: scans keep it while a whole folder is planned.
    """

    table: NDArray[np.void]
    read: Callable[[NDArray[np.int32]], Iterator[NDArray[np.complex64]]]


@dataclass(frozen=True)
class Measurement:
    """The lines of one measurement, and what its header says of them.

    Attributes:
        lines: all of them, those that are no image included.
        encoded: matrix (x readout, y phase encode, z partitions), oversampling and zero padding
            included.
        recon: matrix of the image (x, y, z).
        center: step_1 and step_2 of k-space's centre; None where the header does not say.
        last: highest step_1 that was to be measured; None where the header does not say.
        encoded_mm: field of view of the encoded matrix, (x, y, z) mm; zeros where unknown.
        recon_mm: field of view of the image, mm.
        trajectory: of ISMRMRD's words; only "cartesian" is read.
        calibration: how coil sensitivities are calibrated: "embedded", "interleaved", "separate",
            "external", "other"; "" where the header does not say.
        channels: receiver channels; None where the header does not say.
        noise_bandwidth: noise bandwidth relative to the nominal one; 1 where unknown.
        alternating: whether every other step_1, and every other step_2, has its sign turned.
        noise: lines of another measurement of the same examination that hold noise; only those
            with the flag are taken.
        known: fields for the volume's header, by the paths of ``header.ALLOWED``.
        acquisition: as in ``Scan``.
        person: as in ``Scan``.
        remarks: as in ``Scan``.
    """

    lines: Lines
    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    center: tuple[int | None, int | None] = (None, None)
    last: int | None = None
    encoded_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    recon_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    trajectory: str = "cartesian"
    calibration: str = ""
    channels: int | None = None
    noise_bandwidth: float = 1.0
    alternating: tuple[bool, bool] = (False, False)
    noise: Lines | None = None
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    acquisition: str = ""
    person: str = ""
    remarks: tuple[str, ...] = ()


def flagged(table: NDArray[np.void], *flags: Flag) -> NDArray[np.bool_]:
    """Say which lines have one of some flags."""
    return (table["flags"] & np.uint64(sum(flags))) != 0


def of_image(table: NDArray[np.void]) -> NDArray[np.bool_]:
    """Say which lines are of the image, and not of its calibration alone."""
    alone = flagged(table, Flag.CALIBRATION) & ~flagged(table, Flag.CALIBRATION_AND_IMAGING)
    return ~flagged(table, *NO_IMAGE) & ~alone
