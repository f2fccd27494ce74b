"""The file that holds a dataset cache: JSON, one volume a line."""

import json
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, FailFast, Field, TypeAdapter, ValidationError

from workbench.catalog import SPLITS, split_of_folder
from workbench.data.folders import printable
from workbench.data.volume import TARGETS, Problem, Volume, check_volume

FORMAT = "fastmri-workbench dataset cache"
VERSION = 2
"""Version 1 held other readings of masks, and files that are refused today."""


class CacheFileError(ValueError):
    """A cache file cannot be used: damaged, foreign, of another version or dataset."""


def _checked(volume: Volume) -> Volume:
    path = PurePosixPath(volume.path)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"path {volume.path!r:.80} leads out of the dataset")
    if str(path) != volume.path or path.suffix != ".h5" or printable(volume.path) != volume.path:
        raise ValueError(f"path {volume.path!r:.80} is no volume's")
    expected = TARGETS[0] if len(volume.kspace.shape) == 4 else TARGETS[1]
    if volume.target_name != (None if volume.target is None else expected):
        raise ValueError(f"{volume.path!r:.80} has {volume.target_name!r:.80} for its target")
    if volume.split not in SPLITS:
        raise ValueError(f"{volume.path!r:.80} has no split")
    if max(abs(volume.size), abs(volume.mtime_ns)) >= 2**63:
        raise ValueError(f"{volume.path!r:.80} has no possible size or time")
    for name, value in volume.attributes.items():
        _check_attribute(name, value)
    try:
        check_volume(volume)
    except ValueError as error:
        raise ValueError(f"{volume.path!r:.80}: {error}") from None
    # Version 1 calls it "test".
    is_full = split_of_folder(path.parent.name) == "test_full"
    return replace(volume, split="test_full") if is_full else volume


def _check_attribute(name: str, value: Any) -> None:
    if isinstance(value, list):
        for item in value:
            _check_attribute(name, item)
    elif isinstance(value, int | float):
        if not abs(value) <= (2**64 if isinstance(value, int) else sys.float_info.max):
            raise ValueError(f"attribute {name!r:.80} is no number that a file can hold")
    elif value is not None and not isinstance(value, str):
        raise ValueError(f"attribute {name!r:.80} is no text, number or list")


class _CacheFile(BaseModel, strict=True, extra="forbid"):
    format: Literal["fastmri-workbench dataset cache"]
    version: Annotated[int, Field(ge=1, le=VERSION)]
    volumes: Annotated[list[Annotated[Volume, AfterValidator(_checked)]], FailFast()]
    problems: Annotated[list[Problem], FailFast()]
    dataset: str = ""
    """Whose it is, where it does not lie in the dataset's folder."""


_VOLUME, _PROBLEM = TypeAdapter(Volume), TypeAdapter(Problem)


def text_of_cache(
    volumes: Iterable[Volume], problems: Iterable[Problem] = (), dataset: str = ""
) -> bytes:
    """Return the content of a cache file, of a dataset if that is to be said in it."""
    lines = b",\n".join(map(_VOLUME.dump_json, volumes))
    left_out = b",\n".join(map(_PROBLEM.dump_json, problems))
    whose = f'"dataset": {json.dumps(dataset)},\n' if dataset else ""
    head = f'{{"format": "{FORMAT}",\n"version": {VERSION},\n{whose}"volumes": [\n'.encode()
    return b'%s%s\n],\n"problems": [\n%s\n]}\n' % (head, lines, left_out)


def parse_cache(
    content: bytes, where: str, *, earlier: bool = False, dataset: str = ""
) -> tuple[tuple[Volume, ...], tuple[Problem, ...]]:
    """Read a cache file's volumes and problems; every value is checked before it is used.

    Args:
        content: the file's bytes.
        where: the file, for messages.
        earlier: take version 1 as well, whose masks may be misread.
        dataset: whose cache it has to be, where it says so; "" for anyone's.

    Raises:
        CacheFileError: it is damaged, no cache file, of another dataset, or of a version that is
            not known here.
    """
    try:
        found = _CacheFile.model_validate_json(content)
    except ValidationError as error:
        problems = {problem["loc"]: problem for problem in error.errors(include_url=False)}
        if ("format",) in problems:
            raise CacheFileError(f"{where} is no dataset cache") from None
        if version := problems.get(("version",)):
            raise CacheFileError(_other_version(where, version["input"])) from None
        first = error.errors(include_url=False)[0]
        place = "".join(f"{part}: " for part in (".".join(map(str, first["loc"])),) if part)
        what = first["msg"].removeprefix("Value error, ")
        if first["type"].endswith("_type"):  # not for what is missing
            what = f"{what}, not {first['input']!r:.80}"
        raise CacheFileError(f"{where} is damaged ({place}{what})") from None
    if found.version != VERSION and not earlier:
        raise CacheFileError(_other_version(where, found.version))
    if len({volume.path for volume in found.volumes}) < len(found.volumes):
        raise CacheFileError(f"{where} is damaged (a volume stands there twice)")
    if dataset and found.dataset not in ("", dataset):
        raise CacheFileError(f"{where} is the cache of {found.dataset}, not of {dataset}")
    return tuple(found.volumes), tuple(found.problems)


def _other_version(where: str, version: object) -> str:
    return f"{where} has version {version!r:.80}, this workbench reads {VERSION}"
