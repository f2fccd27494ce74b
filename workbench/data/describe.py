"""Read what a volume is from a few kilobytes of its file: layout, header, attributes."""

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workbench.data.confined import Confined, ConfinedError
from workbench.data.fetched import END_BYTES, FetchedFile
from workbench.data.folders import FoundFile
from workbench.data.header import Header, parse_header
from workbench.data.volume import (
    KSPACE_TYPES,
    TARGET_TYPES,
    TARGETS,
    ArrayLayout,
    UnusableVolumeError,
    Volume,
    check_volume,
)
from workbench.stores import Source

_MOST_STRUCTURE = 64 * 2**20  # bytes; a few kilobytes are usual
_TOO_LARGE = "its HDF5 structure claims more than 64 MiB, as in damaged files: bring it in again"
_MOST_LINKS = 16
_MOST_VALUES = 10_000  # of an attribute
_WRITE_INTO = "write its values into this file, such as with h5repack -l CONTI"
_AGAIN = "bring it in again"
_MASK = "give each phase-encode column 1 where it was sampled and 0 elsewhere"
# A pair (real, imag) is a complex number; h5py itself takes only a pair (r, i) for one.
_PAIRS = {
    np.dtype(
        [(part, f"{name[0]}f{np.dtype(name).itemsize // 2}") for part in ("real", "imag")]
    ): name
    for name in KSPACE_TYPES
}


def describe(
    source: Source, *, path: str, split: str, mtime_ns: int = 0, end_bytes: int = END_BYTES
) -> Volume:
    """Describe one volume from the head and tail of its file, two requests for most files.

    Args:
        source: the file's bytes.
        path: where it lies, relative to the dataset's folder.
        split: one of ``workbench.catalog.SPLITS``.
        mtime_ns: time of last change, nanoseconds.
        end_bytes: bytes to fetch from either end before parsing.

    Raises:
        UnusableVolumeError: the file is no fastMRI volume, or only a part of one.
        OSError: the source cannot be read.
    """
    if source.size == 0:
        raise UnusableVolumeError(f"it is empty (0 bytes): {_AGAIN}")

    def parse(file: FetchedFile) -> Volume | str:
        if file.fetched > _MOST_STRUCTURE:
            return _TOO_LARGE
        answer, file.wanted = PARSERS(file, path, split, mtime_ns)
        return answer

    try:
        answer = FetchedFile(source, end_bytes).parse(parse)
    except ConfinedError as error:
        answer = f"reading its HDF5 structure {error}, as in damaged files: {_AGAIN}"
    if isinstance(answer, str):
        raise UnusableVolumeError(answer)
    return answer


def describe_together(files: Sequence[tuple[Path, FoundFile]]) -> list[Volume | None]:
    """Describe files of this machine in one call, which costs half of what as many calls do.

    Args:
        files: where each lies, and what is known of it.

    Returns:
        The volumes; None for a file that is to be described alone, by ``describe``.
    """
    try:
        return TOGETHER(files)
    except ConfinedError:
        return [None] * len(files)


def _parse_together(files: Sequence[tuple[Path, FoundFile]]) -> list[Volume | None]:
    volumes: list[Volume | None] = []
    for place, file in files:
        try:
            with h5py.File(os.fsencode(place), "r", locking=False) as opened:
                volumes.append(_volume(opened, file.size, file.path, file.split, file.mtime_ns))
        except Exception:  # ``describe`` says what is wrong with it
            volumes.append(None)
    return volumes


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
        message = str(error)
        if promised := re.search(r"truncated file.*stored_eof = (\d+)", message):
            answer = f"it is truncated ({file.size} of {promised[1]} bytes): {_AGAIN}"
        elif "signature not found" in message:
            answer = "it is no HDF5 file"
        elif "invalid dataset size" in message or "addr overflow" in message:
            answer = f"it is damaged (its arrays end after the file does, at {file.size}): {_AGAIN}"
        else:
            answer = f"its HDF5 structure cannot be read: {message or type(error).__name__}"
    if file.wanted and file.wanted[1] > _MOST_STRUCTURE:
        return _TOO_LARGE, None
    return answer, file.wanted


PARSERS = Confined(_parse)
"""Describes files in processes of their own, so that a damaged one costs itself alone."""
TOGETHER = Confined(_parse_together)


def _volume(file: h5py.File, size: int, path: str, split: str, mtime_ns: int) -> Volume:
    kspace = own_array(file, "kspace")
    if kspace is None:
        raise UnusableVolumeError("it has no k-space (no dataset named kspace)")
    layout = _layout(kspace)
    if layout.dtype not in KSPACE_TYPES:
        pairs = ": join the pairs of its last axis" if layout.shape[-1:] == (2,) else ""
        raise UnusableVolumeError(
            f"its k-space is {kspace.dtype} of shape {layout.shape}, not complex numbers of 64 or "
            f"128 bits{pairs or ': write it'} as complex64"
        )
    # Single-coil files hold both targets; the reference takes the one of the data's kind.
    target_name = TARGETS[0] if len(layout.shape) == 4 else TARGETS[1]
    target = own_array(file, target_name)
    target_layout = None
    if target is not None and (target_layout := _layout(target)).dtype not in TARGET_TYPES:
        raise UnusableVolumeError(
            f"its target is {target.dtype}, not real numbers: write it as float32"
        )
    header = parse_header(header_text(file))
    volume = Volume(
        path=path,
        split=split,
        size=size,
        mtime_ns=mtime_ns,
        kspace=layout,
        target_name=None if target is None else target_name,
        target=target_layout,
        mask=_sampled_columns(file, layout.shape, header),
        attributes={_text(name): _plain(_text(name), value) for name, value in file.attrs.items()},
        **header._asdict(),
    )
    check_volume(volume)
    return volume


def _layout(dataset: h5py.Dataset) -> ArrayLayout:
    """Say where an array lies; its offset only where ``np.fromfile`` there gives its values."""
    kind = dataset.dtype
    plain = dataset.id.get_type().equal(h5py.h5t.py_create(kind))
    offset = dataset.id.get_offset() if plain else None  # else h5py converts: padding, other floats
    return ArrayLayout(dataset.shape, _PAIRS.get(kind, kind.str), offset)


def own_array(file: h5py.File, name: str) -> h5py.Dataset | None:
    """Return a dataset all of whose values lie in this file; None where there is none.

    Links, virtual datasets and external storage can lead to any file of the machine, and HDF5
    reads as zeros what was never written.
    """
    root: Any = file.id
    found, names = root, [name]
    for _ in range(_MOST_LINKS):
        links = found.links if isinstance(found, h5py.h5g.GroupID) else None
        first = names[0].encode("utf-8", "surrogateescape")
        if links is None or not links.exists(first):
            if names == [name] and found is root:
                return None
            raise UnusableVolumeError(f"its {name} is a link that leads nowhere")
        kind = links.get_info(first).type
        if kind == h5py.h5l.TYPE_HARD:
            found = h5py.h5o.open(found, first)
            del names[0]
        elif kind == h5py.h5l.TYPE_SOFT:
            where = os.fsdecode(links.get_val(first))
            found = root if where.startswith("/") else found
            names[:1] = [part for part in where.split("/") if part not in ("", ".")]
        else:
            where = h5py.Group(found).get(names[0], getlink=True).filename
            raise UnusableVolumeError(
                f"its {name} is a link to another file, {where!r:.80}: "
                "write the values into this file"
            )
        if not names:
            break
    else:
        raise UnusableVolumeError(f"its {name} is a link that leads to itself")
    if not isinstance(found, h5py.h5d.DatasetID):
        return None
    dataset = h5py.Dataset(found, readonly=True)
    _check_stored(dataset, name, root.get_filesize())
    return dataset


def _check_stored(dataset: h5py.Dataset, name: str, file_size: int) -> None:
    """Refuse values that lie in another file, were never written, or cannot be unpacked here."""
    shape, held = dataset.shape, dataset.id.get_type()
    if shape is None:
        raise UnusableVolumeError(f"its {name} holds no values")
    properties = dataset.id.get_create_plist()
    kind = properties.get_layout()
    if properties.get_external_count():
        where = os.fsdecode(properties.get_external(0)[0])
        raise UnusableVolumeError(f"its {name} lies in another file, {where!r:.80}: {_WRITE_INTO}")
    if kind == h5py.h5d.VIRTUAL:
        count = properties.get_virtual_count()
        where = f" such as {properties.get_virtual_filename(0)!r:.80}" if count else ""
        raise UnusableVolumeError(
            f"its {name} is a virtual dataset, with values in other files{where}: {_WRITE_INTO}"
        )
    filters = [properties.get_filter(number) for number in range(properties.get_nfilters())]
    for code, _, _, title in filters:
        if not h5py.h5z.filter_avail(code):
            raise UnusableVolumeError(
                f"its {name} is compressed with filter {code} ({title!r:.80}), which is not "
                "installed here: write it without compression, or with gzip"
            )
    # Of values of any length, the array holds only where they lie.
    fixed = held.get_class() != h5py.h5t.VLEN and not (
        isinstance(held, h5py.h5t.TypeStringID) and held.is_variable_str()
    )
    if kind == h5py.h5d.CHUNKED:
        sides = properties.get_chunk()
        plain_bytes = math.prod(sides) * held.get_size() if fixed and not filters else 0
        _check_chunks(dataset, name, sides, file_size, plain_bytes)
    elif kind == h5py.h5d.CONTIGUOUS and 0 not in shape:
        stored, offset = dataset.id.get_storage_size(), dataset.id.get_offset()
        if stored == 0:
            raise UnusableVolumeError(f"its {name} was never written: {_AGAIN}")
        short = fixed and stored != math.prod(shape) * held.get_size()
        if short or offset is None or offset + stored > file_size:
            raise UnusableVolumeError(
                f"its {name} is damaged ({stored:,} bytes for {math.prod(shape):,} values): "
                f"{_AGAIN}"
            )
    if properties.get_alloc_time() == h5py.h5d.ALLOC_TIME_EARLY and len(shape) > 2:
        # Room that was taken before anything was written holds zeros.
        for number in range(shape[0]):
            if not dataset[number, ..., shape[-2] // 2, :].tobytes().strip(b"\0"):
                raise UnusableVolumeError(
                    f"slice {number} of its {name} holds zeros and was never written: {_AGAIN}"
                )


def _check_chunks(
    dataset: h5py.Dataset, name: str, sides: tuple[int, ...], file_size: int, plain_bytes: int
) -> None:
    """Refuse chunks that were never written, or are not of ``plain_bytes`` (0: of any number)."""
    shape = dataset.shape
    expected = math.prod(-(-length // side) for length, side in zip(shape, sides, strict=True))
    places = set()

    def check(chunk: Any) -> None:
        if not 0 < chunk.size <= file_size - chunk.byte_offset:
            raise UnusableVolumeError(f"its {name} is damaged: a chunk ends after the file does")
        if plain_bytes and chunk.size != plain_bytes:
            raise UnusableVolumeError(f"its {name} is damaged: a chunk has another size")
        places.add(chunk.chunk_offset)

    # Counting them brings the bytes that say where they are, before each is looked at.
    if dataset.id.get_num_chunks() >= expected:
        dataset.id.chunk_iter(check)
        inside = sum(all(map(int.__lt__, place, shape)) for place in places)
        aligned = all(not any(map(int.__mod__, place, sides)) for place in places)
        if inside == expected and aligned:
            return
    missing = expected - min(dataset.id.get_num_chunks(), expected)
    raise UnusableVolumeError(
        f"{f'{missing:,}' if missing else 'some'} of the {expected:,} chunks of its {name} "
        f"were never written: {_AGAIN}"
    )


def header_text(file: h5py.File) -> bytes | str:
    """Return the text of a file's ISMRMRD header, whatever it says."""
    header = own_array(file, "ismrmrd_header")
    if header is None:
        raise UnusableVolumeError("it has no ismrmrd_header")
    if header.size != 1:
        raise UnusableVolumeError(f"its ismrmrd_header is {header.size:,} values, not one text")
    value = header[()]
    if isinstance(value, np.ndarray):
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
    found = own_array(file, "mask")
    if found is None:
        if not file.id.links.exists(b"mask"):
            return None
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


def _text(value: bytes | str) -> str:
    """Return text as JSON can hold it: h5py keeps what is no UTF-8 as bytes or lone surrogates."""
    content = value if isinstance(value, bytes) else value.encode("utf-8", "replace")
    return content.decode("utf-8", "replace")


def _plain(name: str, value: Any) -> Any:
    """Return an attribute as JSON can hold it, numbers with their exact value.

    An array of one value is that value: some programs write no others.
    """
    if isinstance(value, np.generic | np.ndarray):
        if value.size > _MOST_VALUES:
            raise UnusableVolumeError(f"its attribute {name!r:.80} holds {value.size:,} values")
        value = value.item() if value.size == 1 else value.tolist()
    if isinstance(value, bytes | str):
        return _text(value)
    if isinstance(value, list):
        return [_plain(name, item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no such number
    return value if isinstance(value, int | float | bool | None) else str(value)
