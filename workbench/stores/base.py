"""A store: a folder that every stage reads and writes, on this machine or in blob storage."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from workbench.settings import shown
from workbench.stores.streams import Readable


class StorageError(OSError):
    """Blob storage refuses or cannot be reached; the message says what to do."""


class CannotWriteError(OSError):
    """A store refuses a file; the message names it, and says what to do."""


@dataclass(frozen=True)
class Entry:
    """One file in a store.

    Attributes:
        path: relative to the store, with ``/``.
        size: bytes.
        mtime_ns: time of last change, nanoseconds.
        etag: the storage's name for this content; "" on a disk.
        md5: MD5 sum of the content in hex, where the storage holds one.
    """

    path: str
    size: int
    mtime_ns: int
    etag: str = ""
    md5: str = ""


class Source(Protocol):
    """A file that is read by byte range; close it after use."""

    @property
    def size(self) -> int:
        """Bytes in the whole file."""

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only where the file ends."""

    def close(self) -> None:
        """Let go of the file."""


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
        """Open a file to be read by byte range; its size, where it is known, saves a request."""

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""

    def open(self, path: str) -> BinaryIO:
        """Open a file as a stream; for large files."""

    def write(
        self, path: str, content: bytes | Readable, size: int | None = None, *, md5: str = ""
    ) -> None:
        """Write a file whole or not at all; what was there before stays until then.

        Args:
            path: the file; its folder is made.
            content: bytes, or a stream that is read to its end.
            size: the bytes that a stream has to give.
            md5: sum to be kept with the file, in hex, where the storage keeps one.

        Raises:
            EOFError: the stream ended before that.
        """

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""

    def lock(self, path: str, busy: str, *, wait: bool = False) -> AbstractContextManager[Any]:
        """Hold a lock while the context lasts: one process at a time.

        Args:
            path: the lock's file; it is made.
            busy: the message where another process holds it.
            wait: print the message and wait, instead of raising.

        Raises:
            RuntimeError: another process holds it.
        """

    def free(self) -> int | None:
        """Return how many bytes still fit; None where there is no limit."""

    def folder(self, path: str) -> "Store":
        """Return the same store as seen from a folder in it."""

    def read_json(self, path: str) -> Any:
        """Read a JSON file.

        Raises:
            ValueError: it is damaged.
        """
        try:
            return json.loads(self.read(path))
        except (ValueError, RecursionError) as error:
            where = shown(f"{self.address}/{path}")
            raise ValueError(f"{where} is damaged: it is no JSON ({error})") from None

    def write_json(self, path: str, value: Any) -> None:
        """Write a JSON file."""
        self.write(path, json.dumps(value, indent=1).encode())
