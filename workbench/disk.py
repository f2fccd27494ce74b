"""Files that are there whole or not at all, one writer to a folder, and a full disk's own words."""

import errno
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from workbench.settings import shown

_SECONDS_UNTIL_SWEPT = 3600
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSALS = (
    *(*_FULL, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)


def disk_is_full(error: OSError) -> bool:
    """Say whether a write failed for lack of room, on the disk or in a quota."""
    return error.errno in _FULL


class CannotWriteError(OSError):
    """The disk refuses a file; the message names it, and says what to do."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have a refusal of the disk name what was being written, in one line.

    Errors of anything else, such as a network or a file that is read meanwhile, stay as they are.

    Raises:
        CannotWriteError: the disk is full, read-only or broken, or ``path`` is not ours to write.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CannotWriteError) or error.errno not in _REFUSALS:
            raise
        if error.filename and not _concerns(Path(error.filename), path):
            raise
        advice = (
            "free some space and run again"
            if disk_is_full(error)
            else "see to the folder and its permissions, or give another name"
        )
        reason = os.strerror(error.errno)
        message = f"{shown(path)} cannot be written: {reason}: {advice}"
        raise CannotWriteError(error.errno, message) from None


def _concerns(file: Path, path: Path) -> bool:
    """Say whether a file is the path, a folder above it, or a hidden file beside or in it."""
    hidden = file.name.startswith(".") and file.parent in (path, path.parent)
    return hidden or file in (path, *path.parents)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file under a temporary name beside ``path``; rename it once it is whole on the disk.

    An error leaves ``path`` as it was. What a killed process left is swept up an hour later.

    Raises:
        CannotWriteError: the disk refuses it.
    """
    for left in path.parent.glob(f".{path.name}.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _SECONDS_UNTIL_SWEPT:
                left.unlink()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with naming(path):
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with suppress(OSError):  # on a read-only file system even this is refused
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder, so that it is there whole or not at all.

    Raises:
        CannotWriteError: the disk refuses it.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def only_one(file: Path, busy: str, *, wait: bool = False) -> Iterator[int]:
    """Hold a lock's file: one process at a time. The system lets go when the last holder ends.

    A file system without locks is told of, and nobody is held off there.

    Args:
        file: the lock; it is made where it is missing, with its folder.
        busy: the message where somebody else holds it.
        wait: print the message and wait for the lock, instead of raising.

    Yields:
        The file's descriptor. A process that inherits it holds the lock too.

    Raises:
        RuntimeError: somebody else holds it.
        CannotWriteError: the folder cannot be written to.
    """
    with naming(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with naming(file.parent):
            _lock(descriptor, file.parent, busy, wait)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, busy: str, wait: bool) -> None:
    try:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise RuntimeError(busy) from None
            print(busy, flush=True)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    except ImportError:  # Windows
        pass
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    print(
        f"the file system of {shown(folder)} knows no locks: see to it yourself that no second "
        "process writes there",
        flush=True,
    )
