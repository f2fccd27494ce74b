"""Reads what ``torch.save`` wrote: checked against the file's checksums, running none of its code.

A pickle names classes and functions, and Python's own reader imports and calls them. Here tensors
and plain values are read alone; each other object becomes a ``StandIn`` that knows its class.
"""

import errno
import io
import math
import pickle
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch

from workbench.settings import shown

_MAGIC = 0x1950A86A20F9469CFC6C  # before torch 1.6: pickles, then the numbers, in one stream
_SMALL = 64 << 20  # bytes; what unpacks to more than these and 20 times its size is no weights
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
            if start.startswith(b"PK"):
                content = _copied(file)
            else:
                _check_stream(file)
                file.seek(0)
                content = file
            with warnings.catch_warnings(action="ignore"):  # that a class's source is not at hand
                return torch.load(content, "cpu", _Plain, weights_only=False)
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


def _copied(file: BinaryIO) -> BinaryIO:
    """Return a copy of torch's archive whose parts are what their checksums say.

    Torch checks none, and where it finds a part is not always where others do.

    Raises:
        _OtherKindError: it is none of torch's.
        BadZipFile: a part is not what its checksum says.
    """
    copy = io.BytesIO()
    with zipfile.ZipFile(file) as archive, zipfile.ZipFile(copy, "w") as whole:
        parts = archive.infolist()
        if sum(part.file_size for part in parts) > max(_SMALL, 20 * file.seek(0, io.SEEK_END)):
            raise _OtherKindError("a zip archive of far more than a file of weights has: a bomb")
        names = [part.filename for part in parts]
        if sum(name.endswith("/data.pkl") for name in names) != 1:
            raise _OtherKindError("a zip archive, but none of torch's: unpack it")
        if any(name.endswith("/constants.pkl") for name in names):
            raise _OtherKindError(
                "a TorchScript program: save the network's state_dict() with torch.save"
            )
        unchecked = not any(part.CRC for part in parts)  # torch can be told to write none
        for part in parts:
            if unchecked:
                del part.CRC
            whole.writestr(part.filename, archive.read(part))
    copy.seek(0)
    return copy


def _check_stream(file: BinaryIO) -> None:
    """Refuse a pickle that torch did not write."""
    try:
        magic = _Unpickler(file).load()
    except Exception:  # of objects that only Python's own reader can make
        magic = None
    if magic != _MAGIC:
        raise _OtherKindError(
            "a pickle, but none of torch's: load it where it was made, and save the state_dict "
            "with torch.save(state_dict, file)"
        )


def _tensor(storage: torch.TypedStorage, offset: int, size: Any, stride: Any, *_: Any) -> Any:
    if math.prod(size) > len(storage):
        raise ValueError("a tensor of more values than were stored")
    return torch._utils._rebuild_tensor(storage, offset, size, stride)


class _Unpickler(pickle._Unpickler):
    """Reads a pickle, and makes nothing but tensors and plain values.

    The reader in C makes room for as many remembered objects as a damaged file claims, gigabytes
    of it; this one in Python does not, and a file of weights has few objects.
    """

    def __init__(self, file: BinaryIO, **_: Any) -> None:
        super().__init__(file, encoding="latin-1")  # as Python 2 wrote text

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


class _Plain:
    """The module that torch is to read pickles by."""

    Unpickler = _Unpickler
    __name__ = "pickle"

    @staticmethod
    def load(file: BinaryIO, **options: Any) -> Any:
        return _Unpickler(file, **options).load()
