"""Files that hold arrays and say nothing of them: .npy, MATLAB's .mat, HDF5, BART's .cfl."""

import math
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.convert.scan import RefusedError

Cut = Callable[[tuple[slice, ...]], NDArray]
"""Cuts values out of an array: one slice an axis."""
_NPY, _BART = b"\x93NUMPY", b"# Dimensions"
_MAT_HEAD, _MAT_73 = 128, b"MATLAB 7.3"
_COMPRESSED, _MATRIX = 15, 14  # elements of a MATLAB 5 file
_MAT_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "text", 5: "sparse", 16: "function"}
_MAT_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_MAT_TYPES |= {12: "i8", 13: "u8"}
_COMPLEX_FLAG = 0x0800
_PAIRS = (("real", "imag"), ("r", "i"))
_CUT_SHORT = "is cut short: bring it in again"


@dataclass(frozen=True)
class StoredArray:
    """An array in a file, not read yet.

    Attributes:
        name: of the variable; "" where a file holds one array without a name.
        shape: with the axes in the order that its own program shows.
        kind: "complex", "real", or what else it is, such as "text".
        open: gives what cuts values out of it, while its context lasts.
    """

    name: str
    shape: tuple[int, ...]
    kind: str
    open: Callable[[], AbstractContextManager[Cut]]

    @property
    def shape_text(self) -> str:
        """Its shape, such as 256x256x8."""
        return "x".join(map(str, self.shape)) or "one value"


def holds(path: Path) -> bool:
    """Say from a file's first bytes whether it is one of these forms."""
    try:
        head = _head(path)
        return (
            head.startswith(_NPY)
            or _mat5_order(head) is not None
            or bool(h5py.is_hdf5(path))
            or path.suffix == ".cfl"
            or (path.suffix == ".hdr" and head.startswith(_BART))
        )
    except OSError:
        return False


def arrays_in(path: Path) -> list[StoredArray]:
    """List the arrays of a file; none for BART's .hdr, which belongs to the .cfl beside it.

    Raises:
        RefusedError: the file is damaged, or lacks what belongs to it.
        OSError: it cannot be read.
    """
    head = _head(path)
    try:
        if head.startswith(_NPY):
            return [_npy(path)]
        if order := _mat5_order(head):
            return list(_mat5(path, order))
        if h5py.is_hdf5(path):
            return _hdf5(path, matlab=head.startswith(_MAT_73))
        return _cfl(path)
    except (OSError, RefusedError):
        raise
    except Exception as error:  # numpy, zlib and h5py raise anything at foreign bytes
        raise RefusedError(f"is damaged ({error}): bring it in again") from None


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MAT_HEAD)


def _kind(dtype: np.dtype) -> str:
    if dtype.kind == "c" or (dtype.names in _PAIRS and dtype[0].kind in "fiu"):
        return "complex"
    return "real" if dtype.kind in "fiub" else "table" if dtype.names else "text"


def _complex(values: NDArray) -> NDArray:
    """Return complex numbers where a file holds pairs (real, imag)."""
    return _joined([values[name] for name in values.dtype.names or ()] or [values])


def _joined(parts: list[NDArray]) -> NDArray:
    """Return the complex numbers of a real and an imaginary part; one part as it is."""
    return parts[0] if len(parts) == 1 else parts[0] + np.complex64(1j) * parts[1]


def _npy(path: Path) -> StoredArray:
    opened = np.load(path, mmap_mode="r", allow_pickle=False)

    @contextmanager
    def cutting() -> Iterator[Cut]:
        values = np.load(path, mmap_mode="r", allow_pickle=False)
        yield lambda index: _complex(np.asarray(values[index]))

    return StoredArray("", opened.shape, _kind(opened.dtype), cutting)


def _mat5_order(head: bytes) -> str | None:
    """Return the byte order of a MATLAB 5 file, in struct's letters; None for another file."""
    return {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(head[124:128])


def _mat5(path: Path, order: str) -> Iterator[StoredArray]:
    """List a MATLAB 5 file's variables; SciPy reads them whole, and crashes on damaged ones."""
    end = path.stat().st_size
    with path.open("rb") as file:
        file.seek(_MAT_HEAD)
        while tag := file.read(8):
            kind, size = struct.unpack(f"{order}II", tag)
            start = file.tell()
            if start + size > end:
                raise RefusedError(_CUT_SHORT)
            content = file.read(min(size, 4096))
            if kind == _COMPRESSED:
                content = zlib.decompressobj().decompress(content, 4096)[8:]
            if kind in (_COMPRESSED, _MATRIX):
                read = partial(_mat5_content, path, start, size, kind == _COMPRESSED)
                found = _mat5_variable(content, order, read)
                if found.name:  # what belongs to functions has none
                    yield found
            file.seek(start + size)


def _mat5_content(path: Path, start: int, size: int, compressed: bool, most: int) -> NDArray:
    """Return a variable's bytes: mapped, or unpacked into memory, so many at most."""
    if not compressed:
        return np.memmap(path, np.uint8, "r", start, (size,))
    with path.open("rb") as file:
        file.seek(start)
        unpacked = zlib.decompressobj().decompress(file.read(size), 8 + most)
    return np.frombuffer(unpacked, np.uint8)[8:]


def _mat5_variable(content: bytes, order: str, read: Callable[[int], NDArray]) -> StoredArray:
    """Read the beginning of a variable: 16 bytes of flags, then its shape, name and values."""
    (flags,) = struct.unpack_from(f"{order}I", content, 8)
    (bytes_of_shape,) = struct.unpack_from(f"{order}I", content, 20)
    shape = struct.unpack_from(f"{order}{bytes_of_shape // 4}i", content, 24)
    place = 24 + _padded(bytes_of_shape)
    (first,) = struct.unpack_from(f"{order}I", content, place)
    if length := first >> 16:  # up to four letters lie in the tag itself
        start, end = place + 4, place + 8
    else:
        (length,) = struct.unpack_from(f"{order}I", content, place + 4)
        start, end = place + 8, place + 8 + _padded(length)
    numbers = "complex" if flags & _COMPLEX_FLAG else "real"
    kind = _MAT_CLASSES.get(flags & 0xFF, numbers)

    @contextmanager
    def cutting() -> Iterator[Cut]:
        count = 1 + (kind == "complex")
        parts, at = [], end
        try:
            values = read(end + count * (8 + _padded(8 * math.prod(shape))))
            for _ in range(count):
                parts.append(_mat5_values(values[at:], order, shape))
                at += 8 + _padded(parts[-1].nbytes)
        except (ValueError, zlib.error) as error:
            raise RefusedError(f"is damaged ({error}): bring it in again") from None
        yield lambda index: _joined([part[index] for part in parts])

    return StoredArray(content[start : start + length].decode("ascii"), shape, kind, cutting)


def _padded(size: int) -> int:
    return -(-size // 8) * 8


def _mat5_values(content: NDArray, order: str, shape: tuple[int, ...]) -> NDArray:
    """Return the numbers after a tag, which are stored as any type that holds them."""
    kind, size = struct.unpack_from(f"{order}II", content[:8].tobytes().ljust(8, b"\0"))
    dtype = np.dtype(order + _MAT_TYPES.get(kind, "u1"))
    if kind not in _MAT_TYPES or not size == dtype.itemsize * math.prod(shape) <= len(content) - 8:
        raise ValueError("values of another size than its shape")
    return content[8 : 8 + size].view(dtype).reshape(shape, order="F")


def _hdf5(path: Path, *, matlab: bool) -> list[StoredArray]:
    """List the arrays of an HDF5 file; MATLAB's axes are stored in reverse."""
    found: list[StoredArray] = []

    def add(name: str, item: h5py.Group | h5py.Dataset) -> None:
        own = isinstance(item, h5py.Dataset) and not (item.is_virtual or item.external)
        if own and item.shape is not None and not name.startswith("#"):
            shape = item.shape[::-1] if matlab else item.shape
            found.append(StoredArray(name, shape, _kind(item.dtype), cutting(name)))

    def cutting(name: str) -> Callable[[], AbstractContextManager[Cut]]:
        @contextmanager
        def opening() -> Iterator[Cut]:
            with h5py.File(path, "r") as file:
                values = file[name]
                yield lambda index: _complex(values[index[::-1]].T if matlab else values[index])

        return opening

    with h5py.File(path, "r") as file:
        if {"kspace", "ismrmrd_header"} <= file.keys():
            raise RefusedError("is in fastMRI's form already: use its folder as it is")
        file.visititems(add)
    return found


def _cfl(path: Path) -> list[StoredArray]:
    """Read the shape of BART's array from the .hdr beside it."""
    header, data = path.with_suffix(".hdr"), path.with_suffix(".cfl")
    for file in (header, data):
        if not file.is_file():
            raise RefusedError(f"lacks the {file.suffix} that belongs to it: bring that in too")
    if path == header:
        return []
    lines = header.read_text(errors="replace").splitlines()
    try:
        shape = tuple(int(word) for word in lines[lines.index(_BART.decode()) + 1].split())
    except (ValueError, IndexError):
        shape = ()
    if not shape or min(shape) < 1:
        raise RefusedError("has a .hdr beside it that tells no dimensions: write both anew")
    if data.stat().st_size != 8 * math.prod(shape):
        raise RefusedError(
            f"has {data.stat().st_size:,} bytes, not the {8 * math.prod(shape):,} of its .hdr "
            f"({'x'.join(map(str, shape))}): bring both in again"
        )

    @contextmanager
    def cutting() -> Iterator[Cut]:
        values = np.memmap(data, "<c8", "r", shape=shape, order="F")
        yield lambda index: np.asarray(values[index])

    return [StoredArray("", shape, "complex", cutting)]
