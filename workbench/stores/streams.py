"""Byte streams as files: what a decoder or a connection yields, read as from a file."""

import io
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

CHUNK = 1 << 20


class Readable(Protocol):
    """Anything with a file's ``read``."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to ``size`` bytes, b"" at the end."""


class ChunkReader(io.RawIOBase):
    """A readable file over chunks of any sizes; closing it closes the generator behind it."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Say that this file is read from."""
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as the current chunk goes; 0 at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close the file and, where a generator feeds it, that too."""
        close = getattr(self._chunks, "close", None)
        if close is not None and not self.closed:
            close()
        super().close()


def as_file(chunks: Iterable[bytes]) -> io.BufferedReader:
    """Return a buffered file over chunks; ``read(n)`` gives n bytes as long as there are any."""
    return io.BufferedReader(ChunkReader(chunks), CHUNK)


def chunks_of(source: Readable) -> Iterator[bytes]:
    """Yield a file's bytes in chunks up to its end."""
    while chunk := source.read(CHUNK):
        yield chunk


def hashed(chunks: Iterable[bytes], digest: Any) -> Iterator[bytes]:
    """Yield chunks on, each added to a digest of hashlib's."""
    for chunk in chunks:
        digest.update(chunk)
        yield chunk


def digested(source: Readable, digest: Any) -> str:
    """Return the digest of a file up to its end, in hex."""
    for chunk in chunks_of(source):
        digest.update(chunk)
    return str(digest.hexdigest())
