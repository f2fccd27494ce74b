"""A store: a folder that every stage reads and writes, on this machine or in blob storage."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from workbench.settings import shown
from workbench.stores.streams import Readable


class StorageError(OSError):
    """Blob storage refuses or cannot be reached; the message says what to do."""


class ChangedError(StorageError):
    """A file became another one while it was read; read it again."""


class CannotWriteError(OSError):
    """A store refuses a file; the message names it, and says what to do."""


@dataclass(frozen=True)
class Entry:
    """One file in a store: its path with ``/``, its bytes, and when it changed.

    The etag is the storage's name for this content, the MD5 sum (hex) what it holds; "" on a disk.
    """

    path: str
    size: int
    mtime_ns: int
    etag: str = ""
    md5: str = ""


def changed_size(place: object, there: int, known: int) -> str:
    """Say that a file has other bytes than whoever knows its content expects."""
    return (
        f"{place} has {there:,} bytes and had {known:,} when it was indexed: it was changed since; "
        "refresh the dataset cache"
    )


class Source(Protocol):
    """A file that is read by byte range; close it after use."""

    @property
    def size(self) -> int:
        """Bytes in the whole file."""

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only where the file ends."""

    def close(self) -> None:
        """Let go of the file."""


class RemoteFile:
    """A file of a store that is far away, as a ``Source`` for any number of threads.

    Args:
        place: its address, for messages.
        fetch: returns the bytes of a range that lies in the file.
    """

    def __init__(self, place: str, size: int, fetch: Callable[[int, int], bytes]) -> None:
        self._place, self.size, self._fetch = place, size, fetch

    def __str__(self) -> str:
        return self._place

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only where the file ends."""
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        content = self._fetch(offset, count)
        if len(content) != count:
            raise StorageError(f"{self}: {len(content):,} of {count:,} bytes came")
        return content

    def close(self) -> None:
        """Do nothing: the connections belong to the store."""


class Store(Protocol):
    """A folder with files in it, on a disk or in blob storage.

    Paths are relative to the store, with ``/``. Files are written whole or not at all. All
    methods raise ``OSError`` with the address and advice in one line: ``FileNotFoundError``,
    ``CannotWriteError``, ``StorageError``.

    Attributes:
        address: a path or URL, for people and for records; never a secret.
    """

    address: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.address!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and other.address == self.address

    def __hash__(self) -> int:
        return hash(self.address)

    def list(self, under: str = "") -> Iterator[Entry]:
        """Yield the files in a folder and in all folders below; none where it is missing."""

    def entry(self, path: str) -> Entry | None:
        """Return one file's entry; None where it is missing."""

    def source(self, path: str, size: int | None = None) -> Source:
        """Open a file to be read by byte range.

        Its size, where it is known, saves a request far away. A disk and blob storage refuse a
        file of another; a bucket's answer does not tell.
        """

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""

    def open(self, path: str) -> BinaryIO:
        """Open a file as a stream; for large files."""

    def write(
        self, path: str, content: bytes | Readable, size: int | None = None, *, md5: str = ""
    ) -> None:
        """Write a file whole or not at all; what was there before stays until then.

        A stream is read to its end, and has to give ``size`` bytes, else EOFError. The MD5 sum
        (hex) is kept with the file where the storage keeps one.
        """

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""

    def lock(self, path: str, busy: str) -> AbstractContextManager[Any]:
        """Hold a lock's file while the context lasts: one process at a time.

        RuntimeError, which says ``busy``, where another process holds it.
        """

    def free(self) -> int | None:
        """Return how many bytes still fit; None where there is no limit."""

    def folder(self, path: str) -> "Store":
        """Return the same store as seen from a folder in it."""

    def inside(self, path: str) -> str:
        """Return a path as it is; ValueError where it leads out of the store."""
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} leads out of {self.address}")
        return path

    def read_json(self, path: str) -> Any:
        """Read a JSON file; ValueError where it is damaged."""
        try:
            return json.loads(self.read(path))
        except (ValueError, RecursionError) as error:
            where = shown(f"{self.address}/{path}")
            raise ValueError(f"{where} is damaged: it is no JSON ({error})") from None

    def write_json(self, path: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(path, json.dumps(value, indent=1).encode())
