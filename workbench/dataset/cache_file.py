"""The file that holds a dataset cache: JSON, one volume a line, written whole or not at all."""

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from workbench.catalog import SPLITS, split_of_folder
from workbench.dataset.volume import ArrayLayout, Problem, Volume
from workbench.disk import replacing

FORMAT = "fastmri-workbench dataset cache"
VERSION = 1


class CacheFileError(ValueError):
    """A cache file cannot be used: damaged, foreign or of another version."""


def write_cache_file(
    path: Path, volumes: Iterable[Volume], problems: Iterable[Problem] = ()
) -> None:
    """Write a cache file under a temporary name, then rename it.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; an older file stays.
    """
    lines = ",\n".join(json.dumps(_to_json(volume), separators=(",", ":")) for volume in volumes)
    left_out = ",\n".join(json.dumps(vars(problem)) for problem in problems)
    text = (
        f'{{"format": "{FORMAT}",\n"version": {VERSION},\n'
        f'"volumes": [\n{lines}\n],\n"problems": [\n{left_out}\n]}}\n'
    )
    with replacing(path) as file:
        file.write(text.encode())


def read_cache_file(path: Path) -> tuple[tuple[Volume, ...], tuple[Problem, ...]]:
    """Read a cache file's volumes and problems.

    Raises:
        FileNotFoundError: there is none.
        CacheFileError: it is damaged, no cache file, or of a version that is not known here.
    """
    try:
        text = path.read_bytes()
    except IsADirectoryError:
        raise CacheFileError(f"{path} is a folder, where a file should be") from None
    try:
        document = json.loads(text)
        if document["format"] != FORMAT:
            raise CacheFileError(f"{path} is no dataset cache")
        if document["version"] != VERSION:
            raise CacheFileError(
                f"{path} has version {document['version']!r}, this workbench reads {VERSION}"
            )
        volumes = tuple(_from_json(entry) for entry in document["volumes"])
        problems = tuple(Problem(entry["path"], entry["reason"]) for entry in document["problems"])
        if len({volume.path for volume in volumes}) < len(volumes):
            raise ValueError("a volume stands there twice")
    except CacheFileError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise CacheFileError(f"{path} is damaged ({type(error).__name__}: {error})") from None
    return volumes, problems


def _to_json(volume: Volume) -> dict[str, Any]:
    entry = dict(vars(volume))
    for name in ("kspace", "target"):
        entry[name] = vars(entry[name]) if entry[name] is not None else None
    return entry


def _from_json(entry: dict[str, Any]) -> Volume:
    path = PurePosixPath(entry["path"])
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {entry['path']!r} leads out of the dataset")
    values = dict(entry)
    for name in ("kspace", "target"):
        if (layout := values[name]) is not None:
            values[name] = ArrayLayout(tuple(layout["shape"]), layout["dtype"], layout["offset"])
            _require_whole(f"shape of {name}", values[name].shape)
            _require_whole(f"offset of {name}", (values[name].offset or 0,))
    if values["kspace"] is None or len(values["kspace"].shape) not in (3, 4):
        raise ValueError(f"{entry['path']!r} has no k-space of slices")
    if values["split"] not in SPLITS or not isinstance(values["attributes"], dict):
        raise ValueError(f"{entry['path']!r} has no split or no attributes")
    if split_of_folder(path.parent.name) == "test_full":
        values["split"] = "test_full"  # older caches have it as "test"
    for name in ("mask", "encoded", "recon"):
        if values[name] is not None:
            values[name] = tuple(values[name])
            _require_whole(name, values[name])
    for name in ("size", "mtime_ns", "padding_left", "padding_right"):
        _require_whole(name, (values[name],))
    return Volume(**values)


def _require_whole(name: str, numbers: Iterable[Any]) -> None:
    if not all(type(number) is int for number in numbers):
        raise ValueError(f"{name} is {numbers!r}, not whole numbers")
