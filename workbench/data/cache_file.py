"""The file that holds a dataset cache: JSON, one volume a line."""

import json
import sys
from collections.abc import Iterable
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

from workbench.catalog import SPLITS, split_of_folder
from workbench.data.folders import printable
from workbench.data.volume import (
    MOST_AXIS,
    TARGETS,
    ArrayLayout,
    Problem,
    Volume,
    check_volume,
)

FORMAT = "fastmri-workbench dataset cache"
VERSION = 2
"""Version 1 held other readings of masks, and files that are refused today."""
_EARLIER = 1
_MOST_NUMBER = 2**63
_MOST_LEVELS = 32  # of an attribute: NumPy's most axes


class CacheFileError(ValueError):
    """A cache file cannot be used: damaged, foreign or of another version."""


def text_of_cache(volumes: Iterable[Volume], problems: Iterable[Problem] = ()) -> bytes:
    """Return the content of a cache file."""
    lines = ",\n".join(json.dumps(_to_json(volume), separators=(",", ":")) for volume in volumes)
    left_out = ",\n".join(json.dumps(vars(problem)) for problem in problems)
    text = (
        f'{{"format": "{FORMAT}",\n"version": {VERSION},\n'
        f'"volumes": [\n{lines}\n],\n"problems": [\n{left_out}\n]}}\n'
    )
    return text.encode()


def parse_cache(
    content: bytes, where: str, *, earlier: bool = False
) -> tuple[tuple[Volume, ...], tuple[Problem, ...]]:
    """Read a cache file's volumes and problems; every value is checked before it is used.

    Args:
        content: the file's bytes.
        where: the file, for messages.
        earlier: take version 1 as well, whose masks may be misread.

    Raises:
        CacheFileError: it is damaged, no cache file, or of a version that is not known here.
    """
    versions = (_EARLIER, VERSION) if earlier else (VERSION,)
    try:
        # NaN and Infinity become text: no field takes them for numbers.
        document = json.loads(content, parse_constant=str)
        if document["format"] != FORMAT:
            raise CacheFileError(f"{where} is no dataset cache")
        version = document["version"]
        if type(version) is not int or version not in versions:
            raise CacheFileError(
                f"{where} has version {_short(version)}, this workbench reads {VERSION}"
            )
        volumes = tuple(_from_json(entry) for entry in document["volumes"])
        problems = tuple(
            Problem(_text("path", entry["path"]), _text("reason", entry["reason"]))
            for entry in document["problems"]
        )
        if len({volume.path for volume in volumes}) < len(volumes):
            raise ValueError("a volume stands there twice")
    except CacheFileError:
        raise
    except RecursionError:
        raise CacheFileError(f"{where} is damaged (it has too many levels)") from None
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CacheFileError(f"{where} is damaged ({type(error).__name__}: {error})") from None
    return volumes, problems


def _to_json(volume: Volume) -> dict[str, Any]:
    entry = dict(vars(volume))
    for name in ("kspace", "target"):
        entry[name] = vars(entry[name]) if entry[name] is not None else None
    return entry


def _from_json(entry: dict[str, Any]) -> Volume:
    path = PurePosixPath(_text("path", entry["path"]))
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {_short(entry['path'])} leads out of the dataset")
    if str(path) != entry["path"] or path.suffix != ".h5" or printable(str(path)) != str(path):
        raise ValueError(f"path {_short(entry['path'])} is no volume's")
    values = dict(entry)
    for name in ("kspace", "target"):
        if (layout := values[name]) is not None:
            shape = _whole(f"shape of {name}", layout["shape"])
            (offset,) = _whole(f"offset of {name}", [layout["offset"] or 0])
            dtype = _text(f"dtype of {name}", layout["dtype"])
            values[name] = ArrayLayout(shape, dtype, None if layout["offset"] is None else offset)
    if values["kspace"] is None:
        raise ValueError(f"{str(path)!r} has no k-space")
    expected = TARGETS[0] if len(values["kspace"].shape) == 4 else TARGETS[1]
    if values["target_name"] != (None if values["target"] is None else expected):
        raise ValueError(f"{str(path)!r} has {_short(values['target_name'])} for its target's name")
    if values["split"] not in SPLITS or not isinstance(values["attributes"], dict):
        raise ValueError(f"{str(path)!r} has no split or no attributes")
    if split_of_folder(path.parent.name) == "test_full":
        values["split"] = "test_full"  # version 1 has it as "test"
    for name, value in values["attributes"].items():
        _check_attribute(_text("name of an attribute", name), value)
    for name, count in (("encoded", 3), ("recon", 3), ("mask", None)):
        if values[name] is not None or count:
            values[name] = _whole(name, values[name], count)
    mask = values["mask"] or ()
    if any(left >= right for left, right in pairwise(mask)):
        raise ValueError("mask does not rise from column to column")
    _whole("size", [values["size"]])
    _whole("mtime_ns", [values["mtime_ns"]])
    for name in ("padding_left", "padding_right"):
        if abs(_whole(name, [values[name]])[0]) > MOST_AXIS:
            raise ValueError(f"{name} is {values[name]}")
    volume = Volume(**values)
    try:
        check_volume(volume)
    except ValueError as error:
        raise ValueError(f"{volume.path!r}: {error}") from None
    return volume


def _whole(name: str, numbers: Any, count: int | None = None) -> tuple[int, ...]:
    if (
        not isinstance(numbers, list)
        or len(numbers) > MOST_AXIS
        or not all(type(number) is int and abs(number) < _MOST_NUMBER for number in numbers)
    ):
        raise ValueError(f"{name} is {_short(numbers)}, not whole numbers")
    if count is not None and len(numbers) != count:
        raise ValueError(f"{name} is {_short(numbers)}, not {count} numbers")
    return tuple(numbers)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {_short(value)}, not text")
    value.encode()  # lone surrogates, which nobody can print
    return value


def _check_attribute(name: str, value: Any, level: int = 0) -> None:
    if isinstance(value, list) and level < _MOST_LEVELS:
        for item in value:
            _check_attribute(name, item, level + 1)
    elif isinstance(value, str):
        _text(f"attribute {name}", value)
    elif isinstance(value, int | float):
        if not abs(value) <= (2**64 if isinstance(value, int) else sys.float_info.max):
            raise ValueError(f"attribute {_short(name)} is no number that a file can hold")
    elif value is not None:
        raise ValueError(f"attribute {_short(name)} is no text, number or list")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
