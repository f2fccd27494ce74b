"""The parts of a file that its parser needs, fetched by byte range from here or far away."""

import io
import os
from collections.abc import Callable
from typing import Any, TypeVar

from workbench.stores import Source

Result = TypeVar("Result")

END_BYTES = 32 * 1024
"""How much of a file's head and tail one request brings: HDF5's structure lies there."""


class FetchedFile(io.RawIOBase):
    """A read-only file object over the parts of a source that were fetched.

    It never waits for the source itself: a read outside the parts is noted and raises, so that
    the bytes can be fetched while no lock is held (h5py holds one for the whole process).
    Pickled, it takes along what was fetched and not its source.

    Attributes:
        size: bytes in the whole file.
        wanted: (offset, count) of a read outside the parts since parsing began, or None.
    """

    def __init__(self, source: Source, end_bytes: int = END_BYTES) -> None:
        self._source: Source | None = source
        self._parts: list[tuple[int, bytes]] = []
        self._position, self.size = 0, source.size
        self.wanted: tuple[int, int] | None = None
        self.fetch(0, end_bytes)
        if self.size > end_bytes:
            start = max(end_bytes, self.size - end_bytes)
            self.fetch(start, self.size - start)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_source": None}

    @property
    def fetched(self) -> int:
        """Bytes that were fetched."""
        return sum(len(part) for _, part in self._parts)

    def fetch(self, offset: int, count: int) -> None:
        """Bring more bytes of the source into memory.

        Raises:
            OSError: the source gave fewer bytes than its size promises.
        """
        assert self._source is not None  # nobody fetches in a process that it was sent to
        part = self._source.read(offset, count)
        if len(part) < min(count, self.size - offset):
            raise OSError(f"the file ended at byte {offset + len(part)} of {self.size}")
        self._parts.append((offset, part))

    def parse(self, parser: Callable[[Any], Result]) -> Result:
        """Return ``parser(self)``, run again after a fetch for as long as it lacks bytes.

        A parser that swallows the error of a read is not believed: its result counts only
        where it had every byte that it asked for.
        """
        while True:
            self._position, self.wanted = 0, None
            try:
                result = parser(self)
            except Exception:
                if self.wanted is None:
                    raise
            if self.wanted is None:
                return result
            offset, count = self.wanted
            self.fetch(offset, min(max(count, END_BYTES), self.size - offset))

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that it has positions."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move the position, counted from the start, from here or from the end."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}
        self._position = start[whence] + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` from the fetched parts, across the seams between them."""
        view = memoryview(buffer).cast("B")
        count = max(min(len(view), self.size - self._position), 0)
        filled = 0
        while filled < count:
            here = self._position + filled
            for start, part in self._parts:
                if start <= here < start + len(part):
                    piece = part[here - start : here - start + count - filled]
                    view[filled : filled + len(piece)] = piece
                    filled += len(piece)
                    break
            else:
                self.wanted = here, count - filled
                raise EOFError("these bytes are not fetched yet")
        self._position += count
        return count
