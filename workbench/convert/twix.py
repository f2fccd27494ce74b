"""Siemens raw data (twix, .dat): its lines, read by turbotwix, the package's extra ``twix``."""

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.convert.cartesian import scans_of_lines
from workbench.convert.lines import LINE, Flag, Lines, flagged
from workbench.convert.scan import Choices, RefusedError, Scan
from workbench.convert.twix_protocol import measurement_of, noise_dwell

_BLOCK = 8e6  # bytes of samples that are read at once
_HEADERS = 8192  # lines whose headers are read at once; each takes 1.5 KB on the way
_MOST_MEASUREMENTS, _MOST_BUFFERS = 64, 64
_FLAGS = {
    "RTFEEDBACK": Flag.RT_FEEDBACK,
    "HPFEEDBACK": Flag.HP_FEEDBACK,
    "REFPHASESTABSCAN": Flag.PHASE_STABILIZATION_REFERENCE,
    "PHASESTABSCAN": Flag.PHASE_STABILIZATION,
    "PHASCOR": Flag.PHASE_CORRECTION,
    "PATREFSCAN": Flag.CALIBRATION,
    "PATREFANDIMASCAN": Flag.CALIBRATION_AND_IMAGING,
    "REFLECT": Flag.REVERSE,
    "NOISEADJSCAN": Flag.NOISE,
    "RETRO_DUMMYSCAN": Flag.DUMMY,
}
_COUNTERS = {
    "Lin": "step_1",
    "Par": "step_2",
    "Ave": "average",
    "Sli": "slice",
    "Eco": "contrast",
    "Phs": "phase",
    "Rep": "repetition",
    "Set": "set",
    "Seg": "segment",
}
_FREE = ("Ida", "Idb", "Idc", "Idd", "Ide")


def holds(path: Path) -> bool:
    """Say from a file's directory, or from its header, whether it is Siemens raw data.

    Since software VD a file begins with a list of measurements; before, with the header of one.
    """
    try:
        with path.open("rb") as file:
            first, second, start = struct.unpack("<II8xQ", file.read(24))
            if first < 10_000 and 1 <= second <= _MOST_MEASUREMENTS:
                file.seek(start)
                first, second = struct.unpack("<II", file.read(8))
            else:
                file.seek(8)
            name = re.search(rb"[A-Za-z]\w{3,30}\0", file.read(48))
            return 8 <= first <= path.stat().st_size and second <= _MOST_BUFFERS and bool(name)
    except (OSError, struct.error, OverflowError, ValueError):
        return False


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Find the volumes of a file's last measurement; those before it are adjustments.

    Raises:
        RefusedError: turbotwix is missing, the file is damaged, or it cannot become a volume.
        OSError: it cannot be read.
    """
    try:
        with _opened(path) as file:
            lines = _lines(path, file, len(file) - 1)
            noise = _noise(path, file) if choices.whiten else None
            measurement = measurement_of(file.scan.hdr, lines, noise, tuple(_remarks(file)))
    except (OSError, RefusedError):
        raise
    except Exception as error:  # foreign bytes: turbotwix and numpy raise anything
        raise RefusedError(f"is damaged ({error}): copy it from the scanner again") from None
    return scans_of_lines(measurement, choices)


def _turbotwix() -> Any:
    try:
        import turbotwix
    except ModuleNotFoundError:
        raise RefusedError(
            'is Siemens raw data, which is read by turbotwix: pip install -e ".[twix]"'
        ) from None
    turbotwix.data.tqdm = None  # as where tqdm is missing: its bars break into ours
    return turbotwix


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a file all of whose measurements lie in it: turbotwix reads beyond its end otherwise."""
    with _turbotwix().open_twix(str(path)) as file:
        if max(each.offset + each.length for each in file.measurements) > path.stat().st_size:
            raise RefusedError("is cut short: copy it again, once the scanner has closed it")
        yield file


def _remarks(file: Any) -> Iterator[str]:
    if len(file) > 1:
        yield f"the last of {len(file)} measurements in the file"
    if file.scan._table[2]:  # turbotwix tells it to its log alone
        yield "the measurement has no end: the scan was perhaps stopped"


def _noise(path: Path, file: Any) -> Lines | None:
    """Return the lines of the last measurement before the scan that holds noise."""
    for number in range(len(file) - 2, -1, -1):
        if len(file[number].lines.noise):
            return _lines(path, file, number)
    return None


def _lines(path: Path, file: Any, number: int) -> Lines:
    """Fill the table of a measurement's lines."""
    found = file[number].lines
    if not len(found) or not (found.ncol.all() and found.ncha.all()):
        raise RefusedError("holds no lines, or empty ones: copy it from the scanner again")
    multiband = _bits("SLICE_ACCEL_REFSCAN", "SLICE_ACCEL_PHASCOR")
    if (found.flags & multiband).any():
        raise RefusedError("is a multiband measurement: part its slices first")
    table = np.zeros(len(found), LINE)
    for start in range(0, len(found), _HEADERS):
        _fill(table[start : start + _HEADERS], found[start : start + _HEADERS].headers())
    noise = flagged(table, Flag.NOISE)
    if noise.any():
        samples, old = table["samples"][noise], file.version == "vb"
        table["dwell"][noise] = noise_dwell(file[number].hdr, samples, old=old)
    return Lines(table, partial(_read, path, number))


def _bits(*names: str) -> np.uint64:
    flags = _turbotwix().Flag
    return np.uint64(sum(int(flags[name]) for name in names))


def _fill(table: NDArray[np.void], headers: NDArray[np.void]) -> None:
    """Fill rows of the table from lines' headers."""
    for name, flag in _FLAGS.items():
        there = (headers["EvalInfoMask"] & _bits(name)) != 0
        table["flags"] |= np.where(there, np.uint64(flag), np.uint64(0))
    for name, column in _COUNTERS.items():
        table[column] = headers["Counter"][name]
    for number, name in enumerate(_FREE):
        table["user"][:, number] = headers["Counter"][name]
    for name, column in (
        ("SamplesInScan", "samples"),
        ("UsedChannels", "channels"),
        ("CenterCol", "center_sample"),
        ("CenterLin", "center_line"),
        ("CenterPar", "center_partition"),
    ):
        table[column] = headers[name]
    table["discard_pre"], table["discard_post"] = (
        headers["CutOff"]["Pre"],
        headers["CutOff"]["Post"],
    )
    where = headers["SliceData"]
    table["position"] = np.stack([where["SlicePos"][axis] for axis in ("Sag", "Cor", "Tra")], 1)
    # The rotation's first and third column: the directions of the readout and across the slice.
    w, x, y, z = where["Quaternion"].T
    table["read_dir"] = np.stack(
        [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1
    )
    table["slice_dir"] = np.stack(
        [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1
    )


def _read(path: Path, number: int, rows: NDArray[np.int32]) -> Iterator[NDArray[np.complex64]]:
    """Yield the samples of lines, (channels, samples), in blocks of lines of one shape."""
    with _opened(path) as file:
        lines = file[number].lines
        wanted = lines[rows]
        shapes = np.stack([wanted.ncha, wanted.ncol], 1).astype(int)
        ends = [*(np.flatnonzero(np.diff(shapes, axis=0).any(1)) + 1).tolist(), len(rows)]
        first = 0
        for end in ends:
            count = max(1, int(_BLOCK // (8 * shapes[first].prod())))
            for start in range(first, end, count):
                block = lines[rows[start : min(start + count, end)]]
                yield from block.read(reflect=False).swapaxes(0, 1)
            first = end
