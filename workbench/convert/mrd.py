"""ISMRMRD files: https://ismrmrd.readthedocs.io (HDF5, a table of lines and an XML header).

The table is read in blocks: all heads, then samples of those lines that are wanted.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.convert.cartesian import scans_of_lines
from workbench.convert.hdf5 import opened
from workbench.convert.lines import LINE, NO_IMAGE, Flag, Lines, Measurement, flagged
from workbench.convert.mrd_header import measurement_of
from workbench.convert.scan import Choices, RefusedError, Scan
from workbench.data.describe import own_array
from workbench.data.volume import UnusableVolumeError

_ROWS = 64  # lines that are read at once, at most
_BLOCK = 8 * 2**20  # bytes of samples that are read at once
_FIELDS = {
    "flags": "flags",
    "samples": "number_of_samples",
    "channels": "active_channels",
    "encoding_space": "encoding_space_ref",
    "dwell": "sample_time_us",
} | {
    each: each
    for each in (
        *("discard_pre", "discard_post", "center_sample"),
        *("position", "read_dir", "slice_dir"),
    )
}
_COUNTERS = {"step_1": "kspace_encode_step_1", "step_2": "kspace_encode_step_2"} | {
    each: each
    for each in ("average", "slice", "contrast", "phase", "repetition", "set", "segment", "user")
}
"""Names in the table of lines, and in a file's heads."""


def holds(path: Path) -> bool:
    """Say whether a file is HDF5 with a table of lines, or is HDF5 and damaged."""
    try:
        if not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r") as file:
            return bool(_names(file))
    except (TypeError, ValueError):  # kinds of values that NumPy does not know
        return False
    except (OSError, RuntimeError, KeyError):
        return True


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Find the scans of a file; of several measurements those that hold an image.

    Noise lines serve the measurements after theirs as well.

    Raises:
        RefusedError: no line of it can become a volume.
    """
    found: list[tuple[str, Scan]] = []
    refused: dict[str, str] = {}
    noise = None
    with opened(path) as file:
        names = _names(file)
    for number, group in enumerate(names, 1):
        name = f"measurement{number}"
        try:
            measurement = _measurement(path, group)
            of_noise = flagged(measurement.lines.table, Flag.NOISE)
            if of_noise.any():
                noise = measurement.lines
                if of_noise.all() and len(names) > 1:
                    continue
            measurement = replace(measurement, noise=noise)
            found += [(name, scan) for scan in scans_of_lines(measurement, choices)]
        except RefusedError as error:
            refused[name] = str(error)
    if not found:
        reason = "holds noise lines alone" if names else "has no table of lines, as ISMRMRD's do"
        raise RefusedError(next(iter(refused.values()), reason))
    remarks = tuple(f"{name} is left out: it {reason}" for name, reason in refused.items())
    several = len({name for name, _ in found}) + len(refused) > 1
    return [
        replace(
            scan,
            name="_".join(filter(None, (several * name, scan.name))),
            remarks=(*scan.remarks, *remarks),
        )
        for name, scan in found
    ]


def _names(file: h5py.File) -> list[str]:
    """Return the groups that are measurements, dataset_10 after dataset_9."""

    def is_one(name: str) -> bool:
        own = isinstance(file.get(name, getlink=True), h5py.HardLink)
        table = file[name].get("data") if own and isinstance(file[name], h5py.Group) else None
        fields = table.dtype.names if isinstance(table, h5py.Dataset) else None
        return fields is not None and {"head", "data"} <= set(fields)

    def order(name: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted(filter(is_one, file), key=order)


def _measurement(path: Path, name: str) -> Measurement:
    """Read the heads of one measurement, and its header."""
    with opened(path) as file:
        data = _table(file, name)
        table = np.zeros(len(data), LINE)
        dimensions = np.zeros(len(table), np.uint16)
        try:
            for part, held in _heads(data):
                for ours, theirs in _FIELDS.items():
                    table[ours][part] = held[theirs]
                for ours, theirs in _COUNTERS.items():
                    table[ours][part] = held["idx"][theirs]
                dimensions[part] = held["trajectory_dimensions"]
        except (ValueError, IndexError, TypeError):
            raise RefusedError("has lines that are not described as ISMRMRD's are") from None
        table["center_line"] = table["center_partition"] = -1
        lines = Lines(table, partial(_read, path, name))
        measurement = measurement_of(_header(file, name), lines)
        _refuse_other_grids(data, table, dimensions)
        return measurement


def _table(file: h5py.File, name: str) -> h5py.Dataset:
    """Return a measurement's table of lines."""
    table = _own(file, name, "data")
    if table is None or len(table.shape) != 1:
        raise RefusedError("has a table of lines that is no list, as ISMRMRD's are")
    return table


def _header(file: h5py.File, name: str) -> bytes | str:
    """Return the XML of a measurement's header."""
    held = _own(file, name, "xml")
    texts = [] if held is None else list(np.ravel(held[()]))
    if not texts or not isinstance(texts[0], bytes | str):
        raise RefusedError("has lines without a header: their matrix is not known")
    return texts[0]


def _own(file: h5py.File, name: str, inner: str) -> h5py.Dataset | None:
    """Return what lies in this file and was written, or refuse it without its group's name."""
    try:
        return own_array(file, f"{name}/{inner}")
    except UnusableVolumeError as error:
        raise RefusedError(f"cannot be used: {error}".replace(f"{name}/{inner}", inner)) from None


def _heads(data: h5py.Dataset) -> Iterator[tuple[slice, NDArray[np.void]]]:
    """Yield the heads of all lines, part by part.

    To read one field of a table with others of variable length HDF5 reads them all, and h5py loses
    their memory (seen in 3.16). So heads are taken out of the chunks' own bytes.
    """
    kind, offset = data.dtype.fields["head"][:2]
    size, properties = data.id.get_type().get_size(), data.id.get_create_plist()
    if properties.get_layout() == h5py.h5d.CHUNKED and not properties.get_nfilters():
        step = data.chunks[0]
        for start in range(0, len(data), step):
            _, raw = data.id.read_direct_chunk((start,))
            count = min(step, len(data) - start)
            held = np.ndarray((count,), kind, raw, offset, (size,))
            yield slice(start, start + count), held
        return
    for start in range(0, len(data), _ROWS):
        yield slice(start, start + _ROWS), data[start : start + _ROWS]["head"]


def _read(path: Path, name: str, rows: NDArray[np.int32]) -> Iterator[NDArray[np.complex64]]:
    """Yield the samples of some lines, (channels, samples), as ``Lines.read``."""
    with opened(path) as file:
        data = file[name]["data"]
        start, step = 0, 1
        while start < len(rows):
            # h5py takes ascending numbers, each once, and reads a run of them much faster.
            chosen, back = np.unique(rows[start : start + step], return_inverse=True)
            run = chosen[-1] - chosen[0] + 1 == len(chosen)
            held = data[slice(int(chosen[0]), int(chosen[-1]) + 1) if run else chosen]
            start += step
            step = max(1, min(_ROWS, _BLOCK // max(1, held[0]["data"].nbytes)))
            for number in back.ravel():
                yield _samples(held[number], int(chosen[number]))


def _samples(line: np.void, number: int) -> NDArray[np.complex64]:
    shape = int(line["head"]["active_channels"]), int(line["head"]["number_of_samples"])
    values = np.asarray(line["data"], np.float32)
    if values.size != 2 * shape[0] * shape[1]:
        raise RefusedError(
            f"holds {values.size} numbers in line {number}, not {2 * shape[0] * shape[1]}"
        )
    return values.view(np.complex64).reshape(shape)


def _refuse_other_grids(
    data: h5py.Dataset, table: NDArray[np.void], dimensions: NDArray[np.uint16]
) -> None:
    """Refuse lines whose stored trajectory is not the grid that their counters give.

    Along a line of the grid the first direction grows evenly and the others stand still, and those
    grow evenly with the counters.
    """
    stored = np.flatnonzero((dimensions > 0) & ~flagged(table, *NO_IMAGE))
    if not len(stored):
        return
    chosen = np.unique(stored[np.linspace(0, len(stored) - 1, 256).astype(int)])
    places = []
    for row in chosen:
        traj = np.asarray(data[int(row)]["traj"], np.float64)
        count = int(table["samples"][row])
        if traj.size != count * int(dimensions[row]):
            raise RefusedError(f"holds a trajectory of {traj.size} numbers in line {row}")
        steps = np.diff(traj.reshape(count, -1), axis=0)
        along = np.abs(steps - steps.mean(0)).max(initial=0)
        if along > 0.1 * abs(steps[:, 0].mean()) or (
            np.abs(steps[:, 1:]).max(initial=0) > 0.1 * abs(steps[:, 0].mean())
        ):
            raise RefusedError(_OFF_GRID)
        places.append(np.resize(traj.reshape(count, -1)[0, 1:], 2))
    for axis, step in enumerate(("step_1", "step_2")[: int(dimensions[chosen].min()) - 1]):
        counters, values = table[step][chosen].astype(float), np.array(places)[:, axis]
        if np.ptp(counters):
            fit = np.polyval(np.polyfit(counters, values, 1), counters)
            if np.abs(fit - values).max() > 0.1 * np.ptp(values) / np.ptp(counters):
                raise RefusedError(_OFF_GRID)


_OFF_GRID = (
    "stores a trajectory that is not the grid of its lines' counters, whatever its header says: "
    "bring it to a Cartesian grid first, with a non-uniform FFT such as BART's nufft"
)
