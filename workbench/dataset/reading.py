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

from workbench.dataset.source import FetchedFile, Source
from workbench.dataset.volume import ArrayLayout
from workbench_kernels import rows

Result = TypeVar("Result")

REQUEST_BYTES = 8 * 2**20
"""About what one request for a slice brings: one connection does not reach the storage's speed."""


def read_slice(
    path: Path,
    name: str,
    layout: ArrayLayout,
    index: int,
    *,
    keep: np.ndarray | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Read one slice of an array: by its offset where that is known, by h5py otherwise.

    Args:
        path: the volume's file.
        name: the array's name in the file.
        layout: where it lies.
        index: slice number, 0 first.
        keep: (last axis,) bool, the columns that are kept; the others are set to zero.
        out: takes the slice, contiguous, of ``layout.shape[1:]``; None makes an array.

    Returns:
        The slice, of ``layout.shape[1:]``.

    Raises:
        OSError: the file ends before the slice does, or cannot be read; the error names it.
    """
    out = _room(layout, out)
    if layout.offset is None:
        with h5py.File(path, "r") as file:
            file[name].read_direct(out, np.s_[index])
        return _masked(out, keep)
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        rows.read_rows(descriptor, layout.offset + index * out.nbytes, out, keep)
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
    return out


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
        The slice, of ``layout.shape[1:]``.

    Raises:
        OSError: the source ends before the slice does.
    """
    out = _room(layout, out)
    if layout.offset is None:

        def parse(file: FetchedFile) -> None:
            with h5py.File(file, "r") as volume:
                volume[name].read_direct(out, np.s_[index])

        FetchedFile(source).parse(parse)
        return _masked(out, keep)
    lines = out.reshape(-1, out.shape[-1])
    start, line_bytes = layout.offset + index * out.nbytes, lines[:1].nbytes
    pieces = min(len(lines), -(-out.nbytes // REQUEST_BYTES))
    bounds = [number * len(lines) // pieces for number in range(pieces + 1)]

    def fetch(first: int, last: int) -> None:
        content = source.read(start + first * line_bytes, (last - first) * line_bytes)
        if len(content) < (last - first) * line_bytes:
            raise OSError(
                f"slice {index} of {name} ends early: the file was changed or cut after its "
                "dataset cache was built; fetch it again and refresh the cache"
            )
        values = np.frombuffer(content, out.dtype).reshape(-1, out.shape[-1])
        if keep is None:
            lines[first:last] = values
        else:
            rows.keep_columns(values, keep, lines[first:last])

    in_parallel([partial(fetch, *ends) for ends in pairwise(bounds)])
    return out


def in_parallel(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Make some calls at once; return their results in order, or raise what the first raises."""
    if len(calls) == 1:
        return [calls[0]()]
    with ThreadPoolExecutor(len(calls)) as executor:
        return [call.result() for call in [executor.submit(call) for call in calls]]


def _room(layout: ArrayLayout, out: np.ndarray | None) -> np.ndarray:
    return np.empty(layout.shape[1:], layout.dtype) if out is None else out


def _masked(values: np.ndarray, keep: np.ndarray | None) -> np.ndarray:
    if keep is not None:
        rows.keep_columns(values, keep, values)
    return values
