"""Read what a volume is from a few kilobytes of its file: layout, header, attributes."""

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from workbench.dataset.confined import Confined, ConfinedError
from workbench.dataset.source import END_BYTES, FetchedFile, Source
from workbench.dataset.volume import KSPACE_TYPES, TARGET_TYPES, TARGETS, ArrayLayout, Volume

_ISMRMRD = "{http://www.ismrm.org/ISMRMRD}"
_MOST_STRUCTURE = 64 * 2**20  # bytes; a few kilobytes are usual
_TOO_LARGE = "its HDF5 structure claims more than 64 MiB, as in damaged files: bring it in again"
_SMALLEST = 7  # the window of SSIM
_MASK = "give each phase-encode column 1 where it was sampled and 0 elsewhere"


class UnusableVolumeError(ValueError):
    """A file is no volume that can be read; the message says why."""


@dataclass(frozen=True)
class Header:
    """The fields of the ISMRMRD header that reconstruction needs.

    Attributes:
        encoded: encoded matrix size (x readout, y phase encode, z).
        recon: reconstructed matrix size (x, y, z).
        padding_left: first phase-encode column that was acquired.
        padding_right: first column after the last acquired one.
    """

    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    padding_left: int
    padding_right: int


def parse_header(xml: bytes | str) -> Header:
    """Read an ISMRMRD header (XML, schema at https://ismrmrd.readthedocs.io).

    The acquired phase-encode columns lie around the encoded centre: they begin at
    ``encoded y // 2 - center`` and are ``maximum + 1`` many, as fastMRI counts them.

    Raises:
        UnusableVolumeError: it is no XML, or a field is missing or no whole number.
    """
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise UnusableVolumeError(f"its ismrmrd_header is no XML: {error}") from None
    encoded, recon = _matrix(root, "encodedSpace"), _matrix(root, "reconSpace")
    limits = ("encoding", "encodingLimits", "kspace_encoding_step_1")
    padding_left = encoded[1] // 2 - _number(root, *limits, "center")
    padding_right = padding_left + _number(root, *limits, "maximum") + 1
    return Header(encoded, recon, padding_left, padding_right)


def _matrix(root: ElementTree.Element, space: str) -> tuple[int, int, int]:
    x, y, z = (_number(root, "encoding", space, "matrixSize", axis) for axis in "xyz")
    return x, y, z


def _number(root: ElementTree.Element, *names: str) -> int:
    text = root.findtext("." + "".join(f"//{_ISMRMRD}{name}" for name in names))
    try:
        return int(text or "")
    except ValueError:
        raise UnusableVolumeError(
            f"its ismrmrd_header has {text!r} for {'/'.join(names)}, not a number"
        ) from None


def describe(
    source: Source, *, path: str, split: str, mtime_ns: int = 0, end_bytes: int = END_BYTES
) -> Volume:
    """Describe one volume from the head and tail of its file, two requests for most files.

    Args:
        source: the file's bytes.
        path: where it lies, relative to the dataset's folder.
        split: "train", "val", "test" or "challenge".
        mtime_ns: time of last change, nanoseconds.
        end_bytes: bytes to fetch from either end before parsing.

    Raises:
        UnusableVolumeError: the file is no fastMRI volume, or only a part of one.
        OSError: the source cannot be read.
    """
    if source.size == 0:
        raise UnusableVolumeError("it is empty (0 bytes): bring it in again")

    def parse(file: FetchedFile) -> Volume | str:
        if file.fetched > _MOST_STRUCTURE:
            raise UnusableVolumeError(_TOO_LARGE)
        answer, file.wanted = PARSERS(file, path, split, mtime_ns)
        return answer

    try:
        answer = FetchedFile(source, end_bytes).parse(parse)
    except ConfinedError as error:
        raise UnusableVolumeError(
            f"reading its HDF5 structure {error}, as in damaged files: bring it in again"
        ) from None
    if isinstance(answer, str):
        raise UnusableVolumeError(answer)
    return answer


def _parse(
    file: FetchedFile, path: str, split: str, mtime_ns: int
) -> tuple[Volume | str, tuple[int, int] | None]:
    """Return the volume, or what is wrong with it, and what was not fetched of the file."""
    try:
        with h5py.File(file, "r") as opened:
            answer: Volume | str = _volume(opened, file.size, path, split, mtime_ns)
    except UnusableVolumeError as error:
        answer = str(error)
    except Exception as error:  # h5py can raise anything at damaged structure
        answer = _reason(error, file.size)
    if file.wanted and file.wanted[1] > _MOST_STRUCTURE:
        return _TOO_LARGE, None
    return answer, file.wanted


PARSERS = Confined(_parse)
"""Describes files in processes of their own, so that a damaged one costs itself alone."""


def _reason(error: Exception, size: int) -> str:
    message = str(error)
    if promised := re.search(r"truncated file.*stored_eof = (\d+)", message):
        return f"it is truncated ({size} of {promised.group(1)} bytes): bring it in again"
    if "signature not found" in message:
        return "it is no HDF5 file"
    if "invalid dataset size" in message or "addr overflow" in message:
        return f"it is damaged (its arrays end after the file does, at {size}): bring it in again"
    return f"its HDF5 structure cannot be read: {message or type(error).__name__}"


def _volume(file: h5py.File, size: int, path: str, split: str, mtime_ns: int) -> Volume:
    kspace = _dataset(file, "kspace")
    if kspace is None:
        raise UnusableVolumeError("it has no k-space (no dataset named kspace)")
    if _type_of(kspace) not in KSPACE_TYPES:
        pairs = ": join the pairs of its last axis" if kspace.shape[-1:] == (2,) else ""
        raise UnusableVolumeError(
            f"its k-space is {kspace.dtype} of shape {kspace.shape}, not complex numbers of 64 or "
            f"128 bits{pairs or ': write it'} as complex64"
        )
    if len(kspace.shape) not in (3, 4) or 0 in kspace.shape:
        raise UnusableVolumeError(
            f"its k-space has shape {kspace.shape}, not (slices, coils, readout, phase encode) "
            "or, single-coil, (slices, readout, phase encode)"
        )
    # Single-coil files hold both targets; the reference takes the one of the data's kind.
    target_name: str | None = TARGETS[0] if len(kspace.shape) == 4 else TARGETS[1]
    target = _dataset(file, str(target_name))
    if target is None:
        target_name = None
    elif len(target.shape) != 3 or target.shape[0] != kspace.shape[0] or 0 in target.shape:
        raise UnusableVolumeError(
            f"its {target_name} has shape {target.shape} beside a k-space of {kspace.shape}"
        )
    header = parse_header(_header_text(file))
    attributes = {name: _plain(value) for name, value in file.attrs.items()}
    _check_scan(kspace.shape, target, header, attributes)
    return Volume(
        path=path,
        split=split,
        size=size,
        mtime_ns=mtime_ns,
        kspace=_layout(kspace),
        target_name=target_name,
        target=_layout(target) if target is not None else None,
        mask=_sampled_columns(file, kspace.shape, header),
        encoded=header.encoded,
        recon=header.recon,
        padding_left=header.padding_left,
        padding_right=header.padding_right,
        attributes=attributes,
    )


def _check_scan(
    shape: tuple[int, ...],
    target: h5py.Dataset | None,
    header: Header,
    attributes: dict[str, Any],
) -> None:
    """Refuse what no network can train on and no figure can be formed of."""
    if min(shape[-2:]) < _SMALLEST:
        raise UnusableVolumeError(f"its k-space of {shape[-2]}x{shape[-1]} is no image's")
    if header.padding_left >= shape[-1] or header.padding_right <= 0:
        raise UnusableVolumeError(
            f"its ismrmrd_header has columns {header.padding_left} to {header.padding_right} "
            f"acquired, and its k-space {shape[-1]} columns"
        )
    if target is None:
        return
    if min(target.shape[1:]) < _SMALLEST:
        raise UnusableVolumeError(f"its target of {target.shape[1]}x{target.shape[2]} is no image")
    if _type_of(target) not in TARGET_TYPES:
        raise UnusableVolumeError(
            f"its target is {target.dtype}, not real numbers: write it as float32"
        )
    if "max" not in attributes:
        raise UnusableVolumeError(
            "it has a target and no attribute max: write the target's largest value there"
        )
    largest = attributes["max"]
    if (
        isinstance(largest, bool)
        or not isinstance(largest, int | float)
        or not math.isfinite(largest)
        or largest < 0
    ):
        raise UnusableVolumeError(
            f"its attribute max is {largest!r}, not one number of 0 or more: write the target's "
            "largest value there"
        )


def _dataset(file: h5py.File, name: str) -> h5py.Dataset | None:
    if name not in file:
        return None
    found = file[name]
    return found if isinstance(found, h5py.Dataset) else None


def _type_of(dataset: h5py.Dataset) -> str:
    """Return NumPy's name of an array's type; a pair (real, imag) is a complex number.

    h5py itself takes only a pair (r, i) for one.
    """
    for number in KSPACE_TYPES:
        half = f"{number[0]}f{np.dtype(number).itemsize // 2}"
        if dataset.dtype == np.dtype([("real", half), ("imag", half)]):
            return number
    return dataset.dtype.str


def _layout(dataset: h5py.Dataset) -> ArrayLayout:
    """Say where an array lies; its offset only where ``np.fromfile`` there gives its values."""
    name = dataset.name.lstrip("/")
    properties = dataset.id.get_create_plist()
    kind = properties.get_layout()
    stored = dataset.id.get_storage_size()
    inside = properties.get_external_count() == 0
    if stored == 0 and inside and kind in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise UnusableVolumeError(f"its {name} was never written: bring it in again")
    offset = dataset.id.get_offset() if kind == h5py.h5d.CONTIGUOUS and inside else None
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype)):
        offset = None  # h5py converts it: padding, floats of another form
    if stored != dataset.size * dataset.dtype.itemsize:
        offset = None
    return ArrayLayout(tuple(dataset.shape), _type_of(dataset), offset)


def _header_text(file: h5py.File) -> bytes | str:
    header = _dataset(file, "ismrmrd_header")
    if header is None:
        raise UnusableVolumeError("it has no ismrmrd_header")
    value = header[()]
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    if not isinstance(value, bytes | str):
        raise UnusableVolumeError(f"its ismrmrd_header is {header.dtype}, not text")
    return value


def _sampled_columns(
    file: h5py.File, kspace: tuple[int, ...], header: Header
) -> tuple[int, ...] | None:
    """Read which columns the file's own mask samples.

    A mask is one row of 0 and 1, false and true, perhaps with axes of length 1. A mask of k-space's
    (readout, phase encode) must be the same in all lines of the readout.
    """
    if "mask" not in file:
        return None
    found = _dataset(file, "mask")
    if found is None:
        raise UnusableVolumeError(f"its mask is a group of other things: {_MASK}")
    *_, height, width = kspace
    row = [length for length in found.shape or () if length != 1]
    if row not in ([width], [height, width]):
        raise UnusableVolumeError(
            f"its mask has shape {found.shape}, its k-space {width} phase-encode columns: {_MASK}"
        )
    if found.dtype.kind not in "biuf":
        raise UnusableVolumeError(f"its mask is {found.dtype}, not numbers: {_MASK}")
    values = found[()].reshape(-1, width)
    strange = values[(values != 0) & (values != 1)]
    if strange.size:
        raise UnusableVolumeError(f"its mask holds the value {strange[0]!s}: {_MASK}")
    if (values != values[0]).any():
        raise UnusableVolumeError(
            f"its mask of shape {found.shape} differs along the readout: only masks of whole "
            f"phase-encode columns can be used; {_MASK}"
        )
    mask = values[0] == 1
    if not mask[max(header.padding_left, 0) : header.padding_right].any():
        raise UnusableVolumeError(
            f"its mask samples no column of those that its ismrmrd_header calls acquired, "
            f"{header.padding_left} to {header.padding_right - 1}: {_MASK}"
        )
    return tuple(np.flatnonzero(mask).tolist())


def _plain(value: Any) -> Any:
    """Return an attribute as JSON can hold it, numbers with their exact value."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
