"""The files of a source: each once, and what a listing of it passes over."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from workbench.catalog import split_of_folder
from workbench.data.volume import Problem
from workbench.stores.disk import DiskStore

_LINK = "is a link to a folder, behind which nothing is looked for: put the folder in its place"
_NOWHERE = "is a link to a file that is not there: bring that in"
_BLOCKS, _BLOCK = 16, 2**16  # bytes that tell a file from others, spread over it


def files_of_source(source: Path) -> tuple[list[str], list[Problem]]:
    """List the files of a folder, or a file alone, without hidden ones; a link and its file once.

    Returns:
        Their paths in the folder, links last, and what is left out of which scans may be missing.
    """
    if not source.is_dir():
        return [source.name], []
    problems = [problem for problem in passed_over(source) if not _hidden(problem.path)]
    seen: dict[Path, str] = {}
    names = [entry.path for entry in DiskStore(source).list() if not _hidden(entry.path)]
    problems += [
        Problem(name, f"is a link to {first}, which is converted once")
        for name in sorted(names, key=lambda name: (source / name).is_symlink())
        if (first := seen.setdefault((source / name).resolve(), name)) != name
    ]
    return list(seen.values()), problems


def content_of(path: Path) -> str:
    """Return what tells a file's content from others': a hash of its size and some of its bytes.

    Raises:
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    found, last = hashlib.sha256(str(size).encode()), max(0, size - _BLOCK)
    with path.open("rb") as file:
        for number in range(_BLOCKS):
            file.seek(number * last // (_BLOCKS - 1))
            found.update(file.read(_BLOCK))
    return found.hexdigest()


def passed_over(source: Path) -> Iterator[Problem]:
    """Name what a listing of a source passes over, and why: somebody's scans may lie there."""
    errors: list[OSError] = []
    for folder, folders, names in os.walk(source, onerror=errors.append):
        links = [(name, _LINK) for name in folders if not split_of_folder(name)]
        links += [(name, _NOWHERE) for name in names if not Path(folder, name).exists()]
        for name, why in sorted(links):
            if (path := Path(folder, name)).is_symlink():
                yield Problem(path.relative_to(source).as_posix(), why)
    for error in errors:
        why = f"cannot be listed ({error.strerror}): see to its permissions"
        yield Problem(Path(error.filename).relative_to(source).as_posix(), why)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
