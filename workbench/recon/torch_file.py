"""Reads what ``torch.save`` wrote: checked against the file's checksums, running none of its code.

A pickle names classes and functions, and Python's own reader imports and calls them. Here tensors
and plain values are read alone; each other object becomes a ``StandIn`` that knows its class.
"""

import errno
import io
import math
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from workbench.settings import shown

_MAGIC = 0x1950A86A20F9469CFC6C  # before torch 1.6: pickles, then the numbers, in one stream
_SMALL = 64 << 20  # bytes; what unpacks to more than these and 20 times its size is no weights
_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
_OTHER_KINDS = {
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with git lfs pull",
    b"<": "a web page or XML, as a download leaves that asked for a login: download it again",
}


class StandIn(dict[Any, Any]):
    """What stands in for an object of a class that is not read; keeps what it held by key."""

    name = ""
    __hash__ = object.__hash__  # type: ignore[assignment]  # it can be a key itself
    __eq__ = object.__eq__

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> "StandIn":
        """Stand in for what it would return."""
        return self

    def append(self, value: Any) -> None:
        """Pass over an item of a list or a set."""

    extend = add = append


def read_torch_file(path: Path) -> Any:
    """Read a file of ``torch.save``.

    Args:
        path: an archive as torch writes it since 1.6, or one stream as before.

    Returns:
        What was saved, tensors on the CPU; classes other than torch's and Python's plain ones are
        ``StandIn`` objects.

    Raises:
        ValueError: it is damaged, or of another kind; the message names it and what to do.
        OSError: it cannot be read.
    """
    if path.is_dir():
        raise ValueError(f"{shown(path)} is a folder: give the file of weights in it")
    with path.open("rb") as file:
        try:
            start = file.read(512)
            file.seek(0)
            _refuse_other_kinds(start)
            return _read_archive(file) if start.startswith(b"PK") else _read_stream(file, path)
        except _OtherKindError as error:
            what = str(error)
        except Exception as error:
            # A damaged archive may send the reader to a place before its start.
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            # A damaged pickle raises nearly anything; zipfile's own errors name the part.
            why = str(error) if isinstance(error, zipfile.BadZipFile) else type(error).__name__
            what = f"damaged or cut short ({why}): copy or download it again"
    if path.parent.name == "checkpoints":
        what += _WITHOUT.get(path.name, "")
    raise ValueError(f"{shown(path)} is {what}")


class _OtherKindError(Exception):
    """A file of another kind, which is not read here; the message completes "the file is"."""


_WITHOUT = {
    "last.ckpt": ". Without it: copy best.ckpt over it, and the run goes on from its best epoch; "
    "or remove it or give another name, to begin anew",
    "best.ckpt": ". Without it: give last.ckpt beside it as weights, or train under another name",
}


def _refuse_other_kinds(start: bytes) -> None:
    if not start:
        raise _OtherKindError("empty: copy or download it again")
    if not start.strip(b"\0"):
        raise _OtherKindError("damaged, with zeros at its start: copy or download it again")
    for known, kind in _OTHER_KINDS.items():
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(known):
            raise _OtherKindError(kind)
    if start[8:10] == b'{"':
        raise _OtherKindError("a safetensors file: save its tensors with torch.save")
    if start[257:262] == b"ustar":
        raise _OtherKindError("a tar archive: unpack it; one of torch before 0.2 is not read")
    if not start.startswith((b"PK", b"\x80")):
        raise _OtherKindError("not a file of weights that torch.save wrote")


def _read_archive(file: BinaryIO) -> Any:
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > max(_SMALL, 20 * file.seek(0, io.SEEK_END)):
            raise _OtherKindError("a zip archive of far more than a file of weights has: a bomb")
        roots = [p.filename[: -len("data.pkl")] for p in parts if p.filename.endswith("/data.pkl")]
        if len(roots) != 1:
            raise _OtherKindError("a zip archive, but none of torch's: unpack it")
        (root,) = roots
        names = {part.filename for part in parts}
        if f"{root}constants.pkl" in names:
            raise _OtherKindError(
                "a TorchScript program: save the network's state_dict() with torch.save"
            )
        if not any(part.CRC for part in parts):  # torch can be told to write no checksums
            for part in parts:
                del part.CRC
        if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != _ORDER:
            raise _OtherKindError("of a machine with another byte order: save it anew on this one")
        storages: dict[str, Tensor] = {}

        def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
            if key not in storages:
                storages[key] = _numbers(archive.read(f"{root}data/{key}"), dtype, count)
            return storages[key]

        content = _Unpickler(io.BytesIO(archive.read(f"{root}data.pkl")), storage).load()
        for part in parts:  # what nothing refers to, or what was not read yet
            if (
                part.filename != f"{root}data.pkl"
                and part.filename[len(root) + 5 :] not in storages
            ):
                archive.read(part)
        return content


_ORDER = sys.byteorder.encode()


def _read_stream(file: BinaryIO, path: Path) -> Any:
    def plain() -> Any:
        return _Unpickler(file, None).load()

    try:
        magic = plain()
    except Exception:  # of objects that only Python's own reader can make
        magic = None
    if magic != _MAGIC:
        raise _OtherKindError(
            "a pickle, but none of torch's: load it where it was made, and save the state_dict "
            "with torch.save(state_dict, file)"
        )
    plain()  # the version of this form
    if plain().get("little_endian") is not True:
        raise _OtherKindError("of a machine with another byte order: save it anew on this one")
    size = path.stat().st_size
    storages: dict[str, Tensor] = {}

    def storage(key: str, dtype: torch.dtype, count: int) -> Tensor:
        if key not in storages:
            if not 0 <= count * dtype.itemsize <= size:
                raise ValueError("more numbers than the file has bytes")
            storages[key] = torch.empty(count, dtype=dtype)
        return storages[key]

    content = _Unpickler(file, storage).load()
    for key in plain():
        numbers = storages[key]
        if int.from_bytes(file.read(8), "little") != len(numbers):
            raise ValueError("another number of values than was announced")
        into = memoryview(numbers.view(torch.uint8).numpy())  # type: ignore[arg-type]
        if file.readinto(into) != len(into):  # type: ignore[attr-defined]
            raise EOFError
        storages.pop(key)
    if storages:
        raise EOFError
    return content


def _tensor(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if math.prod(size) > len(storage):
        raise ValueError("a tensor of more values than were stored")
    return storage.as_strided(size, stride, storage.storage_offset() + offset)


def _numbers(content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(content) != count * dtype.itemsize:
        raise ValueError("another number of values than was announced")
    if not count:
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype)


class _Unpickler(pickle._Unpickler):
    """Reads a pickle; ``storage(key, dtype, count)`` gives the numbers that it refers to.

    The reader in C makes room for as many remembered objects as a damaged file claims, gigabytes
    of it; this one in Python does not, and a file of weights has few objects.
    """

    def __init__(
        self, file: BinaryIO, storage: Callable[[str, torch.dtype, int], Tensor] | None
    ) -> None:
        super().__init__(file, encoding="latin-1")  # as Python 2 wrote text
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a class or function; a new one each time, so none is changed."""
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _tensor
        if module == "torch._utils" and name.startswith("_rebuild_parameter"):
            return lambda tensor, *_: tensor
        if (module, name) == ("torch._tensor", "_rebuild_from_type_v2"):
            return lambda rebuild, kind, values, *_: rebuild(*values)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        return type(name, (StandIn,), {"name": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> Any:
        """Return a storage's numbers."""
        if pid[0] == "module":  # a class with its source
            return pid[1]
        _, of, key, _, count, *view = pid
        if self._storage is None:
            raise ValueError("a tensor where none is expected")
        dtype = _DTYPES[of.__name__]
        numbers = self._storage(str(key), dtype, count)
        if view and view[0] is not None:  # a part of another storage, as torch 0.x wrote it
            _, first, length = view[0]
            return numbers[first : first + length]
        return numbers
