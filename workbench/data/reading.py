"""One slice of a volume: read by byte range, here or far away, and masked on its way."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from errno import EFAULT
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from workbench.data.source import FetchedFile
from workbench.data.volume import ArrayLayout, Volume
from workbench.stores import Source
from workbench_kernels import rows

Result = TypeVar("Result")

REQUEST_BYTES = 8 * 2**20
"""About what one request for a slice brings: one connection does not reach the storage's speed."""


def read_slice(
    path: Path,
    name: str,
    layout: ArrayLayout,
    index: int | tuple[int, int],
    *,
    keep: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Read one slice of an array: by its offset where that is known, by h5py otherwise.

    Args:
        path: the volume's file.
        name: the array's name in the file.
        layout: where it lies.
        index: slice number, 0 first; with the number of a coil, to read that one alone.
        keep: (last axis,) bool, the columns that are kept; the others are set to zero.
        out: takes the slice, contiguous, of ``layout.read_as``; None makes an array.

    Returns:
        The slice, of ``layout.shape[1:]``, or one coil's of ``layout.shape[2:]``; complex64 or
        float32, whatever its type in the file.

    Raises:
        OSError: the file ends before the slice does, or cannot be read; the error names it.
        ValueError: a value is too large for that type.
    """
    indices = index if isinstance(index, tuple) else (index,)
    out = _room(layout, len(indices), out)
    if layout.offset is None:
        with h5py.File(path, "r") as file:
            return _stored(file[name], layout, indices, keep, out, str(path))
    plain = out.dtype == np.dtype(layout.dtype)
    values = out if plain else np.empty(out.shape, layout.dtype)
    place = int(np.ravel_multi_index(indices, layout.shape[: len(indices)]))
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        rows.read_rows(descriptor, layout.offset + place * values.nbytes, values, keep)
    except EOFError:
        raise OSError(
            f"{path} ends before slice {index} of {name} does: the file was changed or cut after "
            "its dataset cache was built; fetch it again and refresh the cache"
        ) from None
    except OSError as error:
        hint = error.strerror or str(error)
        if error.errno == EFAULT:
            hint += " (no room in shared memory, perhaps: enlarge /dev/shm, or give fewer workers)"
        raise OSError(error.errno, hint, str(path)) from None
    finally:
        os.close(descriptor)
    return out if plain else _cast(values, out, f"slice {index} of {name} in {path}")


def read_kspace(path: Path, volume: Volume, number: int, coil: int | None = None) -> np.ndarray:
    """Read a slice's k-space as the file's own mask, where it has one, leaves it.

    Returns:
        (coils, readout, phase encode) complex64; of one coil (readout, phase encode).
    """
    alone = coil is not None and len(volume.kspace.shape) == 4
    index = (number, coil or 0) if alone else number
    values = read_slice(path, "kspace", volume.kspace, index, keep=volume.own_mask)
    return values.reshape((-1, *volume.matrix) if coil is None else volume.matrix)


def fetch_slice(
    source: Source,
    name: str,
    layout: ArrayLayout,
    index: int,
    *,
    keep: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Read one slice of an array from far away: requests side by side where its offset is known.

    Args:
        source: the volume's bytes.
        name: the array's name in the file.
        layout: where it lies.
        index: slice number, 0 first.
        keep: see ``read_slice``.
        out: see ``read_slice``.

    Returns:
        The slice, of ``layout.shape[1:]``; complex64 or float32.

    Raises:
        OSError: the source ends before the slice does.
        ValueError: a value is too large for that type.
    """
    out = _room(layout, 1, out)
    if layout.offset is None:

        def parse(file: FetchedFile) -> np.ndarray:
            with h5py.File(file, "r") as volume:
                return _stored(volume[name], layout, (index,), keep, out, "the file")

        return FetchedFile(source).parse(parse)
    lines = out.reshape(-1, out.shape[-1])
    line_bytes = out.shape[-1] * np.dtype(layout.dtype).itemsize
    start = layout.offset + index * len(lines) * line_bytes
    pieces = min(len(lines), -(-len(lines) * line_bytes // REQUEST_BYTES))
    bounds = [number * len(lines) // pieces for number in range(pieces + 1)]

    def fetch(first: int, last: int) -> None:
        content = source.read(start + first * line_bytes, (last - first) * line_bytes)
        if len(content) < (last - first) * line_bytes:
            raise OSError(
                f"slice {index} of {name} ends early: the file was changed or cut after its "
                "dataset cache was built; fetch it again and refresh the cache"
            )
        values = np.frombuffer(content, layout.dtype).reshape(-1, out.shape[-1])
        if keep is None or values.dtype != out.dtype:
            values = _cast(values, lines[first:last], f"slice {index} of {name}")
        if keep is not None:
            rows.keep_columns(values, keep, lines[first:last])

    in_parallel([partial(fetch, *ends) for ends in pairwise(bounds)])
    return out


def in_parallel(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make some calls at once; return their results in order, or raise what the first raises."""
    if len(calls) == 1:
        return [calls[0]()]
    with ThreadPoolExecutor(len(calls)) as executor:
        return [call.result() for call in [executor.submit(call) for call in calls]]


def _room(layout: ArrayLayout, axes: int, out: np.ndarray | None) -> np.ndarray:
    return np.empty(layout.shape[axes:], layout.read_as) if out is None else out


def _stored(
    array: h5py.Dataset,
    layout: ArrayLayout,
    indices: tuple[int, ...],
    keep: np.ndarray | None,
    out: np.ndarray,
    where: str,
) -> np.ndarray:
    """Fill ``out`` with a part of an array, by h5py; set what is not kept to zero."""
    if array.dtype == out.dtype:
        array.read_direct(out, indices)
    else:  # A pair of floats under other names than h5py's is complex here.
        values = np.ascontiguousarray(array[indices]).view(layout.dtype)
        _cast(values, out, f"slice {indices[0]} of {array.name[1:]} in {where}")
    if keep is not None:
        rows.keep_columns(out, keep, out)
    return out


def _cast(values: np.ndarray, out: np.ndarray, what: str) -> np.ndarray:
    """Fill ``out`` with values of another type, such as complex128.

    Raises:
        ValueError: one is too large for it; the message says in what.
    """
    try:
        with np.errstate(over="raise"):
            out[...] = values
    except FloatingPointError:
        raise ValueError(f"{what} holds a value that is too large for {out.dtype}") from None
    return out
