"""Stream an object from behind a signed link, by ranges, whatever the connection does."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any

from workbench.ingest import server
from workbench.ingest.links import SignedLink
from workbench.ingest.server import PATIENT, Patience, RemoteObject, StoppedError
from workbench.stores.streams import CHUNK

_PART = 16 << 20


def read_at(
    link: SignedLink, remote: RemoteObject, patience: Patience
) -> Callable[[int, int], bytes]:
    """Return a function that reads ``count`` bytes of an object from ``offset``."""

    def read(offset: int, count: int) -> bytes:
        return b"".join(stream(link, remote, offset, offset + count, patience=patience))

    return read


def stream(
    link: SignedLink,
    remote: RemoteObject,
    start: int = 0,
    stop: int | None = None,
    *,
    patience: Patience = PATIENT,
    stopped: threading.Event | None = None,
    session: server.Session | None = None,
) -> Generator[bytes, None, None]:
    """Yield an object's bytes ``start:stop`` in order; a broken connection is taken up again.

    Raises:
        ChangedError: the object became another one.
        DownloadError: refused, gone, or the server failed too often in a row.
    """
    stop = remote.size if stop is None else stop
    stopped = stopped or threading.Event()
    failures = came = 0
    while start < stop:
        if stopped.is_set():
            raise StoppedError(f"{link.name}: stopped")
        problem = None
        try:
            with server.get_range(session, link, start, stop, remote.version, patience) as response:
                server.skip_to(link, response, start, remote.size)
                for data in server.pieces(response, stop - start):
                    if stopped.is_set():
                        break
                    start += len(data)
                    came += len(data)
                    if came >= patience.slowest:  # A few bytes at each try are no progress.
                        failures = came = 0
                    yield data
        except server.BROKEN as error:
            problem = server.cause(error)
        # Outside of the except block: the exception's own text holds the link.
        if problem is not None:
            failures += 1
            came = 0
            server.wait_or_raise(link, problem, failures, patience, stopped)


def stream_side_by_side(
    link: SignedLink,
    remote: RemoteObject,
    start: int = 0,
    *,
    connections: int = 4,
    patience: Patience = PATIENT,
    stopped: threading.Event | None = None,
) -> Generator[bytes, None, None]:
    """Like ``stream`` to the object's end, over several connections that each fetch a part.

    One connection to S3 brings some 50-90 MB/s; a single archive can hold 931 GB.
    """
    if connections < 2 or not remote.ranges or remote.size - start <= _PART:
        yield from stream(link, remote, start, patience=patience, stopped=stopped)
        return
    stopped = stopped or threading.Event()
    over = _Either(stopped)

    def part(first: int) -> bytes:
        last = min(first + _PART, remote.size)
        return b"".join(
            stream(link, remote, first, last, patience=patience, stopped=over, session=session)
        )

    pending: deque[Future[bytes]] = deque()
    # One session: the next part goes over a connection that is open already.
    with (
        server.Session(patience) as session,
        ThreadPoolExecutor(connections, "range") as threads,
    ):
        try:
            firsts = iter(range(start, remote.size, _PART))
            while True:
                for first in islice(firsts, connections + 1 - len(pending)):
                    pending.append(threads.submit(part, first))
                if not pending:
                    return
                if stopped.is_set():
                    raise StoppedError(f"{link.name}: stopped")
                yield pending.popleft().result()
        finally:
            over.set()
            for future in pending:
                future.cancel()


def download(
    link: SignedLink,
    remote: RemoteObject,
    partial: Path,
    *,
    connections: int = 4,
    patience: Patience = PATIENT,
    stopped: threading.Event | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> str:
    """Bring an object into a file, going on behind what the file holds already.

    The caller sees to it that what ``partial`` holds is of this object.

    Returns:
        The SHA256 of the whole, in hex.

    Raises:
        DownloadError: as ``stream``; what came stays in the file.
        OSError: the disk refuses, as when it is full; what came stays in the file.
    """
    digest = hashlib.sha256()
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("ab") as file:
        if file.tell() > remote.size:
            file.truncate(0)
    with partial.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
            if stopped and stopped.is_set():
                raise StoppedError(f"{link.name}: stopped")
        start = file.tell()
    parts = stream_side_by_side(
        link, remote, start, connections=connections, patience=patience, stopped=stopped
    )
    with partial.open("ab", buffering=0) as file, closing(parts):
        for data in parts:
            _write_all(file, data)
            digest.update(data)
            if on_bytes:
                on_bytes(len(data))
    return digest.hexdigest()


class _Either(threading.Event):
    """An event of its own that is also set when another one is."""

    def __init__(self, other: threading.Event) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or self._other.is_set()


def _write_all(file: Any, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
