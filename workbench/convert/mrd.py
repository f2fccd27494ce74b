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
from workbench.convert.lines import LINE, NO_IMAGE, Flag, Lines, Measurement, flagged
from workbench.convert.mrd_header import measurement_of
from workbench.convert.scan import Choices, RefusedError, Scan

_HEADS = 4096  # of 340 bytes, read at once
_BLOCK = 8 * 2**20  # bytes of samples, read at once
_FIELDS = {
    "flags": "flags",
    "samples": "number_of_samples",
    "channels": "active_channels",
    "encoding_space": "encoding_space_ref",
    "dwell": "sample_time_us",
} | {
    each: each for each in ("discard_pre", "discard_post", "center_sample", "position", "slice_dir")
}
_COUNTERS = {"step_1": "kspace_encode_step_1", "step_2": "kspace_encode_step_2"} | {
    each: each for each in ("average", "slice", "contrast", "phase", "repetition", "set", "segment")
}
"""Names in the table of lines, and in a file's heads."""


def holds(path: Path) -> bool:
    """Say whether a file is HDF5 with a table of lines, or is HDF5 and damaged."""
    try:
        if not h5py.is_hdf5(path):
            return False
        with h5py.File(path, "r") as file:
            return bool(_names(file))
    except (OSError, RuntimeError, KeyError):
        return True


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Find the scans of a file; of several measurements each is looked at.

    Raises:
        RefusedError: no line of it can become a volume.
    """
    try:
        with h5py.File(path, "r") as file:
            names = _names(file)
            measured = [_measurement(path, file[name]) for name in names]
    except (OSError, RuntimeError, KeyError) as error:
        raise RefusedError(_damage(error)) from None
    if not measured:
        raise RefusedError("is no ISMRMRD file: it has no table of lines")
    return _scans_of(measured, choices)


def _scans_of(measured: list[Measurement], choices: Choices) -> list[Scan]:
    """Make scans of all measurements that hold an image; noise may come from an earlier one."""
    found: list[Scan] = []
    refused: dict[str, str] = {}
    noise = None
    images = [not flagged(each.lines.table, *NO_IMAGE).all() for each in measured]
    for number, measurement in enumerate(measured, 1):
        if flagged(measurement.lines.table, Flag.NOISE).any():
            noise = measurement.lines
        if not images[number - 1] and sum(images):
            continue
        name = f"measurement{number}" if sum(images) > 1 else ""
        try:
            found += scans_of_lines(replace(measurement, noise=noise, name=name), choices)
        except RefusedError as error:
            refused[name] = str(error)
    if not found:
        raise RefusedError(next(iter(refused.values())))
    remarks = tuple(f"{name} is left out: it {reason}" for name, reason in refused.items())
    return [replace(scan, remarks=(*scan.remarks, *remarks)) for scan in found]


def _names(file: h5py.File) -> list[str]:
    """Return the groups that are measurements, dataset_10 after dataset_9."""

    def is_one(value: Any) -> bool:
        table = value.get("data") if isinstance(value, h5py.Group) else None
        fields = table.dtype.names if isinstance(table, h5py.Dataset) else None
        return fields is not None and {"head", "data"} <= set(fields)

    def order(name: str) -> list[Any]:
        return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]

    return sorted((name for name in file if is_one(file.get(name))), key=order)


def _measurement(path: Path, group: h5py.Group) -> Measurement:
    """Read the heads of one measurement, and its header."""
    table = np.zeros(len(group["data"]), LINE)
    user = np.zeros((len(table), 8), np.uint16)
    dimensions = np.zeros(len(table), np.uint16)
    heads = group["data"].fields("head")
    for start in range(0, len(table), _HEADS):
        part = slice(start, start + _HEADS)
        held = heads[part]
        try:
            for ours, theirs in _FIELDS.items():
                table[ours][part] = held[theirs]
            for ours, theirs in _COUNTERS.items():
                table[ours][part] = held["idx"][theirs]
            user[part], dimensions[part] = held["idx"]["user"], held["trajectory_dimensions"]
        except (ValueError, IndexError) as error:
            raise RefusedError(f"has lines without what ISMRMRD says of them: {error}") from None
    table["user"], table["center_line"], table["center_partition"] = user[:, :5], -1, -1
    lines = Lines(table, partial(_read, path, group.name))
    texts = list(np.ravel(group["xml"][()])) if "xml" in group else []
    if not texts:
        raise RefusedError("has lines without a header: their matrix is not known")
    measurement = measurement_of(texts[0], lines, user)
    _refuse_other_grids(group["data"], table, dimensions)
    return measurement


def _read(path: Path, name: str, rows: NDArray[np.int32]) -> Iterator[NDArray[np.complex64]]:
    """Yield the samples of some lines, (channels, samples), as ``Lines.read``."""
    try:
        with h5py.File(path, "r") as file:
            data = file[name]["data"]
            stored = data.fields(["head", "data"])
            start, step = 0, 1
            while start < len(rows):
                wanted = rows[start : start + step]
                # h5py takes ascending numbers, each once, and reads a run of them much faster.
                chosen, back = np.unique(wanted, return_inverse=True)
                run = chosen[-1] - chosen[0] + 1 == len(chosen)
                where = slice(int(chosen[0]), int(chosen[-1]) + 1) if run else chosen
                held = stored[where]
                heads, samples = held["head"], held["data"]
                shapes = np.stack([heads["active_channels"], heads["number_of_samples"]], 1)
                for number in back.ravel():
                    channels, count = map(int, shapes[number])
                    values = np.asarray(samples[number], np.float32)
                    if values.size != 2 * channels * count:
                        raise RefusedError(
                            f"holds {values.size} numbers in line {chosen[number]}, not "
                            f"{2 * channels * count}"
                        )
                    yield values.view(np.complex64).reshape(channels, count)
                start += len(wanted)
                step = max(1, min(256, _BLOCK // max(1, samples[0].nbytes)))
    except (OSError, RuntimeError, KeyError) as error:
        raise RefusedError(_damage(error)) from None


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
        traj = np.asarray(data.fields("traj")[int(row)], np.float64)
        count = int(table["samples"][row])
        if traj.size != count * dimensions[row]:
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


def _damage(error: Exception) -> str:
    """Say that a file cannot be read, without the paths in HDF5's message."""
    short = "truncated" in str(error)
    why = "it is cut short" if short else "it cannot be read to its end"
    return f"is a damaged HDF5 file ({why}): bring it in again"
