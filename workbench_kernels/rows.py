"""Rows of numbers read from a file, some columns of them kept."""

import os
import sys
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from workbench_kernels.compiled import Kernels

_WORD = 4  # bytes, which the kernel masks at a time
_PROCESS = os.getpid()


def keep_columns(values: np.ndarray, keep: np.ndarray, out: np.ndarray) -> None:
    """Write ``values`` (..., columns) to ``out``, bit by bit, with zeros in the other columns.

    A NaN in a column that is left out becomes zero too.

    Args:
        values: contiguous.
        keep: (columns,) bool.
        out: contiguous, of the same shape and type; ``values`` itself, perhaps.
    """
    word = np.dtype(f"u{min(values.itemsize, 8)}")
    np.bitwise_and(_words(values, word), _bits(keep, values.dtype, word), out=_words(out, word))


def read_rows(file: int, offset: int, out: np.ndarray, keep: np.ndarray | None) -> None:
    """Fill ``out`` with what lies in a file from ``offset``, by as many threads as torch has.

    In a process without torch by one: to import it takes longer than its threads would save.

    Args:
        file: descriptor of an open file.
        offset: bytes.
        out: (..., columns), contiguous.
        keep: (columns,) bool, the columns that are kept; the others are set to zero. None keeps
            all.

    Raises:
        ValueError: ``keep`` has another length.
        EOFError: the file ends before ``out`` is full.
        OSError: it cannot be read.
    """
    columns = out.shape[-1]
    if keep is not None and keep.shape != (columns,):
        raise ValueError(f"{keep.shape} columns to keep of {columns}")
    found, threads = _kernels()
    if found is None or out.itemsize % _WORD or not out.size:
        _read(file, offset, out)
        if keep is not None:
            keep_columns(out, keep, out)
        return
    bits = None if keep is None else _bits(keep, out.dtype, np.dtype(np.uint32))
    failed = found.read_rows(
        file,
        offset,
        out.size // columns,
        columns * out.itemsize // _WORD,
        None if bits is None else bits.ctypes.data,
        out.ctypes.data,
        threads,
    )
    if failed < 0:
        raise EOFError
    if failed:
        raise OSError(failed, os.strerror(failed))


def _kernels() -> "tuple[Kernels | None, int]":
    """Return the kernels, where there are any and torch is here, and a number of threads."""
    if sys.modules.get("torch") is None:
        return None, 1
    import torch

    from workbench_kernels.compiled import kernels

    # A forked process has none of its parent's threads, and would wait for them for ever.
    return kernels(torch.float32), torch.get_num_threads() if os.getpid() == _PROCESS else 1


def _read(file: int, offset: int, out: np.ndarray) -> None:
    view = out.reshape(-1).view(np.uint8).data
    while view:
        count = os.preadv(file, [view], offset)
        if not count:
            raise EOFError
        view, offset = view[count:], offset + count


def _words(values: np.ndarray, word: np.dtype) -> np.ndarray:
    return values.reshape(*values.shape[:-1], -1).view(word)


def _bits(keep: np.ndarray, dtype: np.dtype, word: np.dtype) -> np.ndarray:
    """Return a row of words with all bits set in the columns that are kept."""
    return np.where(keep, ~word.type(0), word.type(0)).repeat(dtype.itemsize // word.itemsize)
