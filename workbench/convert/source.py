"""The files of a source: each once, and what a listing of it passes over."""

import hashlib
from pathlib import Path

from workbench.data.volume import Problem
from workbench.stores.disk import DiskStore

_BLOCKS, _BLOCK = 16, 2**16  # bytes that tell a file from others, spread over it


def files_of_source(source: Path) -> tuple[list[str], list[Problem]]:
    """List the files of a folder, or a file alone, without hidden ones; a link and its file once.

    Returns:
        Their paths in the folder, links last, and what is left out of which scans may be missing.
    """
    if not source.is_dir():
        return [source.name], []
    passed: list[tuple[str, str]] = []
    seen: dict[Path, str] = {}
    listed = DiskStore(source).listed("", passed)
    names = [entry.path for entry in listed if not _hidden(entry.path)]
    problems = [Problem(*each) for each in passed if not _hidden(each[0])]
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


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in name.split("/"))
