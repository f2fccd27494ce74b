"""One slice of a volume: read by byte range, here or far away, and masked on its way."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from errno import EFAULT
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import h5py
import numpy as np

from workbench.data.fetched import FetchedFile
from workbench.data.volume import ArrayLayout, Volume
from workbench.stores import Source, StorageError
from workbench.stores.disk import LocalFile
from workbench_kernels import rows

Result = TypeVar("Result")

REQUEST_BYTES = 8 * 2**20
"""About what one request for a slice brings: one connection does not reach the storage's speed."""
_LINES = 8  # of a slice that are looked at, from DC on
_CHANGED = (
    "the file was changed or cut after its dataset cache was built; fetch it again and refresh "
    "the cache"
)


def read_slice(
    file: str | Path | Source,
    name: str,
    layout: ArrayLayout,
    index: int | tuple[int, int],
    *,
    keep: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Read one slice of an array: by its offset where that is known, by h5py otherwise.

    Far away, by requests side by side where the offset is known.

    Args:
        file: the volume's file.
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
    if isinstance(file, str | Path):
        with LocalFile(file) as opened:
            return read_slice(opened, name, layout, index, keep=keep, out=out)
    indices = index if isinstance(index, tuple) else (index,)
    if out is None:
        out = np.empty(layout.shape[len(indices) :], layout.read_as)
    what = f"slice {index} of {name}"
    if layout.offset is not None:
        place = int(np.ravel_multi_index(indices, layout.shape[: len(indices)]))
        start = layout.offset + place * out.size * np.dtype(layout.dtype).itemsize
        if isinstance(file, LocalFile):
            return _read_rows(file, start, layout.dtype, keep, out, what)
        return _fetch_rows(file, start, layout.dtype, keep, out, what)

    def parse(content: Path | FetchedFile) -> np.ndarray:
        with h5py.File(content, "r") as volume:
            array = volume[name]
            if array.dtype == out.dtype:
                array.read_direct(out, indices)
            else:  # a pair of floats under other names than h5py's is complex here
                stored = np.ascontiguousarray(array[indices]).view(layout.dtype)
                _cast(stored, out, f"{what} in {file}")
        if keep is not None:
            rows.keep_columns(out, keep, out)
        return out

    try:
        return parse(file.path) if isinstance(file, LocalFile) else FetchedFile(file).parse(parse)
    except StorageError:
        raise
    except (OSError, KeyError, IndexError, RuntimeError, TypeError) as error:
        reason = f"{what} of {file} cannot be read ({error}): it is damaged, or {_CHANGED}"
        raise OSError(reason) from None


def read_stack(
    source: Source,
    volume: Volume,
    numbers: Sequence[int],
    *,
    keep: np.ndarray | None = None,
    room: Callable[[Sequence[int], np.dtype], np.ndarray] = np.empty,
    known: Mapping[int, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the k-space of some slices, and the middle one's target; far away all at the same time.

    Args:
        source: the volume's file.
        volume: the volume.
        numbers: of the slices, an odd number of them; one that comes twice is read once.
        keep: (phase encode,) bool, the columns of k-space that are kept.
        room: makes the array that takes k-space or target, of a shape and type.
        known: k-space of slices that was read before, with the same columns kept.

    Returns:
        (slices, [coils,] readout, phase encode) complex64, and (height, width) float32 or None.
    """
    layout, known = volume.kspace, known or {}
    stack = room((len(numbers), *layout.shape[1:]), layout.read_as)
    places = {number: numbers.index(number) for number in numbers}
    calls = [
        partial(read_slice, source, "kspace", layout, number, keep=keep, out=stack[place])
        for number, place in places.items()
        if number not in known
    ]
    target = None
    if volume.target is not None and volume.target_name is not None:
        target = room(volume.target.shape[1:], volume.target.read_as)
        middle = numbers[len(numbers) // 2]
        of_target = source, volume.target_name, volume.target, middle
        calls.append(partial(read_slice, *of_target, out=target))
    if isinstance(source, LocalFile):
        for call in calls:
            call()
    else:
        in_parallel(calls)
    for place, number in enumerate(numbers):
        if number in known:
            stack[place] = known[number]
        elif place != places[number]:
            stack[place] = stack[places[number]]
    return stack, target


def read_both(source: Source, volume: Volume, number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a slice's k-space and its target, far away at the same time.

    Returns:
        ([coils,] readout, phase encode) complex64, and (height, width) float32 or None.
    """
    stack, target = read_stack(source, volume, [number])
    return stack[0], target


def read_kspace(
    file: str | Path | Source, volume: Volume, number: int, coil: int | None = None
) -> np.ndarray:
    """Read a slice's k-space as the file's own mask, where it has one, leaves it.

    Returns:
        (coils, readout, phase encode) complex64; of one coil (readout, phase encode).

    Raises:
        OSError: a path's file has another size than the volume; see also ``read_slice``.
    """
    if isinstance(file, str | Path):
        with LocalFile(file, volume.size) as opened:
            return read_kspace(opened, volume, number, coil)
    alone = coil is not None and len(volume.kspace.shape) == 4
    index = (number, coil or 0) if alone else number
    values = read_slice(file, "kspace", volume.kspace, index, keep=volume.own_mask)
    return values.reshape((-1, *volume.matrix) if coil is None else volume.matrix)


def fingerprint(source: Source, volume: Volume) -> str:
    """Return a digest of some lines of k-space: of the first and the middle slice's first coil.

    It tells a volume from another of the same name, size and attributes, and is that of each copy.

    Raises:
        OSError: the file ends before these lines do, or cannot be read; the error names it.
    """
    digest = hashlib.sha256()
    for number in sorted({0, volume.slices // 2}):
        digest.update(middle_lines(source, volume, number).tobytes())
    return digest.hexdigest()


def middle_lines(source: Source, volume: Volume, number: int) -> np.ndarray:
    """Return some lines of a slice's first coil, (lines, phase encode), from DC on, as stored.

    Raises:
        OSError: the file ends before these lines do, or cannot be read; the error names it.
    """
    layout = volume.kspace
    height, width = volume.matrix
    first, count = height // 2, min(_LINES, height - height // 2)
    if layout.offset is None:
        index = (number, 0) if len(layout.shape) == 4 else number
        return read_slice(source, "kspace", layout, index)[first : first + count]
    line = width * np.dtype(layout.dtype).itemsize
    before = number * math.prod(layout.shape[1:-1]) + first
    content = source.read(layout.offset + before * line, count * line)
    if len(content) < count * line:
        raise OSError(f"{source} ends before slice {number} of kspace does: {_CHANGED}")
    return np.frombuffer(content, layout.dtype).reshape(count, width)


def keep_columns(kspace: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return k-space (..., phase encode) with the columns outside ``mask`` set to zero."""
    out = np.empty(kspace.shape, kspace.dtype)
    rows.keep_columns(np.ascontiguousarray(kspace), mask, out)
    return out


def _read_rows(
    file: LocalFile, start: int, dtype: str, keep: np.ndarray | None, out: np.ndarray, what: str
) -> np.ndarray:
    """Fill ``out`` from a local file."""
    plain = out.dtype == np.dtype(dtype)
    values = out if plain else np.empty(out.shape, dtype)
    try:
        rows.read_rows(file.descriptor, start, values, keep)
    except EOFError:
        raise OSError(f"{file} ends before {what} does: {_CHANGED}") from None
    except OSError as error:
        hint = error.strerror or str(error)
        if error.errno == EFAULT:
            hint += " (no room in shared memory, perhaps: enlarge /dev/shm, or give fewer workers)"
        raise OSError(error.errno, hint, str(file)) from None
    return out if plain else _cast(values, out, f"{what} in {file}")


def _fetch_rows(
    source: Source, start: int, dtype: str, keep: np.ndarray | None, out: np.ndarray, what: str
) -> np.ndarray:
    """Fill ``out`` from far away, several requests at a time."""
    lines = out.reshape(-1, out.shape[-1])
    line_bytes = out.shape[-1] * np.dtype(dtype).itemsize
    pieces = min(len(lines), -(-len(lines) * line_bytes // REQUEST_BYTES))
    bounds = [number * len(lines) // pieces for number in range(pieces + 1)]

    def fetch(first: int, last: int) -> None:
        content = source.read(start + first * line_bytes, (last - first) * line_bytes)
        if len(content) < (last - first) * line_bytes:
            raise OSError(f"{source} ends before {what} does: {_CHANGED}")
        values = np.frombuffer(content, dtype).reshape(-1, out.shape[-1])
        if keep is None or values.dtype != out.dtype:
            values = _cast(values, lines[first:last], f"{what} in {source}")
        if keep is not None:
            rows.keep_columns(values, keep, lines[first:last])

    in_parallel([partial(fetch, *ends) for ends in pairwise(bounds)])
    return out


def in_parallel(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make some calls at once; return their results in order, or raise what the first raises."""
    if len(calls) < 2:
        return [call() for call in calls]
    with ThreadPoolExecutor(len(calls)) as executor:
        return [call.result() for call in [executor.submit(call) for call in calls]]


def _cast(values: np.ndarray, out: np.ndarray, what: str) -> np.ndarray:
    """Fill ``out`` with values of another type; ValueError where one is too large for it."""
    try:
        with np.errstate(over="raise"):
            out[...] = values
    except FloatingPointError:
        raise ValueError(f"{what} holds a value that is too large for {out.dtype}") from None
    return out
