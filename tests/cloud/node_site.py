"""What a node's interpreters run first, as ``sitecustomize``; ``places.json`` lies beside it.

A node has the packages of this interpreter, but not the checkout: only the snapshot. What stands
for a mount of storage refuses what a mount may refuse.
"""

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

_PLACES = json.loads(Path(__file__).with_name("places.json").read_text())


def editable(finder: object) -> bool:
    """Say whether a finder leads to the checkout."""
    return "__editable__" in str(getattr(finder, "__module__", finder))


def refuse(event: str, given: tuple[Any, ...]) -> None:
    """Refuse renames and locks on mounts, and writing where a mount is for reading."""
    if event == "os.rename" and inside(given[0], _PLACES["mounts"]):  # os.replace is one, too
        raise OSError(errno.ENOSYS, "a mount may know no renames", str(given[0]))
    if event == "fcntl.flock" and inside(f"/proc/self/fd/{given[0]}", _PLACES["mounts"]):
        raise OSError(errno.ENOSYS, "a mount may know no locks")
    writes = event == "open" and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if writes and inside(given[0], _PLACES["read_only"]):
        raise OSError(errno.EROFS, "the mount is for reading", str(given[0]))


def inside(path: Any, folders: list[str]) -> bool:
    """Say whether a path leads into one of some folders."""
    if not isinstance(path, str | bytes | os.PathLike):
        return False  # a descriptor
    real = os.path.realpath(os.fsdecode(path))
    return any(real.startswith(f"{folder}/") for folder in folders)


sys.meta_path = [each for each in sys.meta_path if not editable(each)]
sys.path = [each for each in sys.path if each.rstrip("/") != _PLACES["checkout"]]
sys.addaudithook(refuse)
