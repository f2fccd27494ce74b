"""HDF5 files of published datasets, opened without trusting them."""

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.convert.header import Header, read_header
from workbench.convert.scan import RefusedError
from workbench.data.describe import header_text, own_array
from workbench.data.volume import UnusableVolumeError


class Held(NamedTuple):
    """What an HDF5 file holds at its top.

    Attributes:
        names: of its arrays and groups.
        shape: of the array ``kspace``.
        kind: of its values, as NumPy names kinds: "c", "f", "V", ...
    """

    names: frozenset[str]
    shape: tuple[int, ...]
    kind: str


def held(path: Path) -> Held | None:
    """Look for an array ``kspace``; None where there is none, or the file is no HDF5."""
    try:
        if not h5py.is_hdf5(path):
            return None
        with h5py.File(path, "r") as file:
            found = file.get("kspace")
            if not isinstance(found, h5py.Dataset) or found.shape is None:
                return None
            return Held(frozenset(file), found.shape, found.dtype.kind)
    except (OSError, RuntimeError, KeyError, TypeError, ValueError):
        return None


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file; what is damaged or leads to other files is refused.

    Raises:
        RefusedError: what is read inside cannot be used.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UnusableVolumeError as error:
        raise RefusedError(f"cannot be used: {error}") from None
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError):  # their messages hold the path
        raise RefusedError("is a damaged HDF5 file: bring it in again") from None


def kspace_of(file: h5py.File) -> h5py.Dataset:
    """Return the array ``kspace``, all of whose values lie in this file."""
    found = own_array(file, "kspace")
    if found is None:
        raise UnusableVolumeError("it has no k-space")
    return found


def slices_by(
    path: Path, make: Callable[[h5py.Dataset, int], NDArray[np.complex64]]
) -> Callable[[Iterable[int]], Iterator[NDArray[np.complex64]]]:
    """Return what reads slices of a file, as a ``Scan`` has it, made of k-space as stored."""

    def read(numbers: Iterable[int]) -> Iterator[NDArray[np.complex64]]:
        with opened(path) as file:
            kspace = kspace_of(file)
            for number in numbers:
                yield make(kspace, number)

    return read


def header_of(file: h5py.File) -> tuple[Header, str]:
    """Read the ISMRMRD header: what a volume's header says, and the whole text."""
    text = header_text(file)
    return read_header(text), text if isinstance(text, str) else text.decode("utf-8", "replace")


def acquisition_of(file: h5py.File) -> str:
    """Return the sequence that the file names, such as "AXT2"; "" where it names none."""
    found = file.attrs.get("acquisition", "")
    text = found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)
    return text if re.fullmatch("[A-Za-z][A-Za-z0-9_+ -]{0,30}", text) else ""
