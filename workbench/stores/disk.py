"""This machine's disk: files are written whole, a folder has one writer, errors name the file."""

import errno
import glob
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, MutableSequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from workbench.catalog import split_of_folder
from workbench.settings import shown
from workbench.stores.base import CannotWriteError, Entry, Store, changed_size
from workbench.stores.streams import CHUNK, Readable

_SECONDS_UNTIL_SWEPT = 3600
# What a killed writer leaves; the second are those of earlier versions.
_UNFINISHED = re.compile(r"\..+(\.[0-9a-f]{12}\.part|\.(ingest|transfer)-part)")
_LINK = "is a link to a folder, behind which nothing is looked for: put the folder in its place"
_NOWHERE = "is a link to a file that is not there: bring that in"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_NO_RENAMES = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSALS = (
    *(*_FULL, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG),
)


def disk_is_full(error: OSError) -> bool:
    """Say whether a write failed for lack of room, on the disk or in a quota."""
    return error.errno in _FULL


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have a refusal of the disk name what was being written, in one line: ``CannotWriteError``.

    Errors of anything else, such as a network or a file that is read meanwhile, stay as they are.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, CannotWriteError) or error.errno not in _REFUSALS:
            raise
        if error.filename:
            file = Path(error.filename)
            hidden = file.name.startswith(".") and file.parent in (path, path.parent)
            if not hidden and file not in (path, *path.parents):
                raise
        advice = (
            "free some space and run again"
            if disk_is_full(error)
            else "see to the folder and its permissions, or give another name"
        )
        message = f"{shown(path)} cannot be written: {os.strerror(error.errno)}: {advice}"
        raise CannotWriteError(error.errno, message) from None


@contextmanager
def replacing(path: Path, *, sync: bool = True) -> Iterator[BinaryIO]:
    """Open a file under a temporary name beside ``path``; rename it once it is whole on the disk.

    An error leaves ``path`` as it was. What a killed process left is swept up an hour later.
    Without ``sync`` nobody waits for the disk before that: the caller does once for many files.

    Where a mount of storage knows no renames, the whole file is then copied to ``path``.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _SECONDS_UNTIL_SWEPT:
                left.unlink()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with naming(path):
            with temporary.open("xb") as file:
                yield file
                file.flush()
                if sync:
                    os.fsync(file.fileno())
            try:
                temporary.replace(path)
            except OSError as error:
                if error.errno not in _NO_RENAMES:
                    raise
                shutil.copyfile(temporary, path)
    finally:
        with suppress(OSError):  # on a read-only file system even this is refused
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, and its folder, so that it is there whole or not at all."""
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(text.encode())


@contextmanager
def only_one(file: Path, busy: str, *, wait: bool = False) -> Iterator[int]:
    """Hold a lock's file: one process at a time. The system lets go when the last holder ends.

    A file system without locks is told of, and nobody is held off there. ``busy`` is the message
    where somebody else holds it: raised as RuntimeError, or printed by who waits.

    Yields:
        The file's descriptor. A process that inherits it holds the lock too.
    """
    with naming(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with naming(file.parent):
            try:
                import fcntl

                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if not wait:
                        raise RuntimeError(busy) from None
                    print(busy, flush=True)
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
            except (ImportError, OSError) as error:  # Windows has no such module
                if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                    raise
                print(
                    f"the file system of {shown(file.parent)} knows no locks: see to it yourself "
                    "that no second process writes there",
                    flush=True,
                )
        yield descriptor
    finally:
        os.close(descriptor)


class LocalFile:
    """A file on this machine or on a mounted one, read by byte range.

    OSError where it has another ``size``, bytes, than whoever knows its content expects.
    """

    def __init__(self, path: str | Path, size: int | None = None) -> None:
        self.path = Path(path)
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self.descriptor).st_size
        if size is not None and size != self.size:
            self.close()
            raise OSError(changed_size(self, self.size, size))

    def __str__(self) -> str:
        return str(self.path)

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only where the file ends."""
        found = b""
        # One read may stop short: at 2 GiB, on a signal, or where a mount hands out blocks.
        while len(found) < count:
            piece = os.pread(self.descriptor, count - len(found), offset + len(found))
            if not piece:
                break
            found += piece
        return found

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.descriptor)

    def __enter__(self) -> "LocalFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class DiskStore(Store):
    """A folder on a disk, as a ``Store``; it need not exist before something is written.

    Without ``sync`` files are not waited for, see ``replacing``.
    """

    def __init__(self, root: str | Path, *, sync: bool = True) -> None:
        self.root, self.sync = Path(root), sync
        self.address = str(self.root)

    def path(self, path: str) -> Path:
        """Return where a file of the store lies; ValueError where that is out of the store."""
        return self.root / self.inside(path)

    def list(self, under: str = "") -> Iterator[Entry]:
        """Yield the files in a folder and in all folders below; files half written are left out.

        A link to a folder belongs to it where its name is a split's, as for an index. Others are
        passed over: they can lead to the whole machine.
        """
        return self.listed(under, [])

    def listed(self, under: str, passed: MutableSequence[tuple[str, str]]) -> Iterator[Entry]:
        """As ``list``; notes paths that it passes over, and why: more files may lie there."""

        def name_of(path: str | Path) -> str:
            return Path(path).relative_to(self.root).as_posix()

        def refused(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                why = f"cannot be listed ({error.strerror}): see to its permissions"
                passed.append((name_of(error.filename), why))

        tops, seen = [self.path(under)], set[str]()
        while tops:  # folders come before links to them
            for folder, folders, names in os.walk(tops.pop(0), onerror=refused):
                if (real := os.path.realpath(folder)) in seen:
                    folders.clear()
                    continue
                seen.add(real)
                folders.sort()
                for link in (Path(folder, name) for name in folders):
                    if not link.is_symlink():
                        continue
                    if split_of_folder(link.name):
                        tops.append(link)
                    else:
                        passed.append((name_of(link), _LINK))
                for path in (Path(folder, name) for name in sorted(names)):
                    if _UNFINISHED.fullmatch(path.name):
                        continue
                    if entry := self.entry(name_of(path)):
                        yield entry
                    elif path.is_symlink() and not path.exists():
                        passed.append((name_of(path), _NOWHERE))

    def entry(self, path: str) -> Entry | None:
        """Return one file's entry; None where it is missing."""
        file = self.path(path)
        if not file.is_file():
            return None
        found = file.stat()
        return Entry(path, found.st_size, found.st_mtime_ns)

    def sweep(self) -> None:
        """Remove what killed writers left, at once: the caller holds the folder's lock."""
        for folder, _, names in os.walk(self.root):
            for name in filter(_UNFINISHED.fullmatch, names):
                Path(folder, name).unlink(missing_ok=True)

    def source(self, path: str, size: int | None = None) -> LocalFile:
        """Open a file to be read by byte range; OSError where it has another size than is known."""
        return LocalFile(self.path(path), size)

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        return self.path(path).read_bytes()

    def open(self, path: str) -> BinaryIO:
        """Open a file as a stream."""
        return self.path(path).open("rb")

    def write(
        self, path: str, content: bytes | Readable, size: int | None = None, *, md5: str = ""
    ) -> None:
        """Write a file whole or not at all; see ``Store``."""
        target = self.path(path)
        with naming(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target, sync=self.sync) as file:
            if isinstance(content, bytes):
                file.write(content)
                return
            shutil.copyfileobj(content, file, CHUNK)
            if size not in (None, file.tell()):
                raise EOFError(f"{path} ends after {file.tell():,} of {size:,} bytes")

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        with naming(self.path(path)):
            self.path(path).unlink(missing_ok=True)

    def lock(self, path: str, busy: str) -> AbstractContextManager[int]:
        """Hold a lock while the context lasts; see ``only_one``."""
        return only_one(self.path(path), busy)

    def free(self) -> int:
        """Return how many bytes still fit on the disk."""
        folder = self.root.absolute()
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    def folder(self, path: str) -> "DiskStore":
        """Return the same store as seen from a folder in it."""
        return DiskStore(self.path(path), sync=self.sync)
