"""Stream an object from behind a signed link, by ranges, whatever the connection does.

fastMRI's links are signed for GET alone: the server refuses HEAD, so size and first bytes come
from a GET of the first range. No message here holds a link: exceptions of requests and urllib3,
whose texts do, end where they are caught.
"""

import errno
import hashlib
import logging
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import requests
import urllib3

from workbench.ingest.archives import HEAD
from workbench.ingest.links import WHERE_TO_ASK, SignedLink
from workbench.ingest.streams import CHUNK

_READ = 256 << 10
_PART = 16 << 20
_PASSING = (408, 425, 429, 500, 502, 503, 504)


class DownloadError(Exception):
    """A download that cannot go on; the message names the file and says what to do."""


class ChangedError(DownloadError):
    """The object behind a link is not the one that was begun."""


class StoppedError(DownloadError):
    """The run was stopped."""


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server.

    Attributes:
        attempts: failures in a row, without a byte between them, after which to give up.
        first_delay: seconds to wait after the first failure; it doubles with each.
        longest_delay: seconds to wait at most.
        timeout: seconds without a byte after which a connection counts as broken.
    """

    attempts: int = 10
    first_delay: float = 0.5
    longest_delay: float = 60.0
    timeout: float = 60.0

    def delay(self, failures: int) -> float:
        """Return the seconds to wait after that many failures in a row, with some jitter."""
        longest = min(self.first_delay * 2 ** (failures - 1), self.longest_delay)
        return longest * random.uniform(0.5, 1.0)


PATIENT = Patience()


@dataclass(frozen=True)
class RemoteObject:
    """What a server says of an object.

    Attributes:
        size: bytes.
        version: its name for the content (ETag), or None.
        head: the first bytes, up to ``archives.HEAD``.
        ranges: whether the server sends ranges.
    """

    size: int
    version: str | None
    head: bytes
    ranges: bool


class _NoQuery(logging.Filter):
    """Cuts signatures out of urllib3's log, which holds each request's path and query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                re.sub(r"\?\S*", "?***", arg) if isinstance(arg, str) else arg
                for arg in record.args
            )
        return True


logging.getLogger("urllib3.connectionpool").addFilter(_NoQuery())


def inspect(link: SignedLink, patience: Patience = PATIENT) -> RemoteObject:
    """Ask for an object's size, version and first bytes.

    Raises:
        DownloadError: it is not to be had; the message says why and what to do.
    """

    def ask() -> RemoteObject:
        with _get(requests, link, 0, HEAD, None, patience) as response:
            _refuse(link, response)
            size = _size(response)
            if not size:
                raise DownloadError(f"{link.name}: the server has an empty object")
            head = response.raw.read(min(HEAD, size), decode_content=False)
            return RemoteObject(
                size, response.headers.get("ETag"), head, response.status_code == 206
            )

    return _patiently(link, ask, patience)


def read_at(link: SignedLink, patience: Patience) -> Callable[[int, int], bytes]:
    """Return a function that reads ``count`` bytes of an object from ``offset``."""

    def read(offset: int, count: int) -> bytes:
        whole = RemoteObject(offset + count, None, b"", True)
        return b"".join(stream(link, whole, offset, patience=patience))

    return read


def stream(
    link: SignedLink,
    remote: RemoteObject,
    start: int = 0,
    stop: int | None = None,
    *,
    patience: Patience = PATIENT,
    stopped: threading.Event | None = None,
    session: requests.Session | None = None,
) -> Generator[bytes, None, None]:
    """Yield an object's bytes ``start:stop`` in order; a broken connection is taken up again.

    Raises:
        ChangedError: the object became another one.
        DownloadError: refused, gone, or the server failed too often in a row.
    """
    stop = remote.size if stop is None else stop
    stopped = stopped or threading.Event()
    failures = 0
    while start < stop:
        if stopped.is_set():
            raise StoppedError(f"{link.name}: stopped")
        problem = None
        try:
            with _get(session or requests, link, start, stop, remote.version, patience) as response:
                _refuse(link, response)
                _skip(link, response, start)
                while start < stop and not stopped.is_set():
                    data = response.raw.read(min(_READ, stop - start), decode_content=False)
                    if not data:
                        raise _Broken("the connection ended early")
                    start += len(data)
                    failures = 0
                    yield data
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, _Broken) as error:
            problem = _cause(error)
        # Outside of the except block: the exception's own text holds the link.
        if problem is not None:
            failures += 1
            _wait_or_raise(link, problem, failures, patience, stopped)


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
    with requests.Session() as session, ThreadPoolExecutor(connections, "range") as threads:
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


def disk_is_full(error: OSError) -> bool:
    """Say whether an error means that no more fits on the disk (or into the user's quota)."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


# ---- one request -------------------------------------------------------------------------


class _Broken(Exception):  # noqa: N818
    """A response that ended early or made no sense; worth another try."""


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


def _get(
    session: Any, link: SignedLink, start: int, stop: int, version: str | None, patience: Patience
) -> requests.Response:
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    if version:
        headers["If-Match"] = version
    response: requests.Response = session.get(
        link.url.reveal(), headers=headers, stream=True, timeout=(30, patience.timeout)
    )
    return response


def _refuse(link: SignedLink, response: requests.Response) -> None:
    """Raise where the server's answer is no data."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in _PASSING:
        raise _Broken(f"the server answered {status}")
    if status in (412, 416):
        raise ChangedError(
            f"{link.name}: the object on the server is no longer the one that was begun: run "
            "again to fetch it anew"
        )
    body = response.raw.read(4096, decode_content=False)
    code = re.search(rb"<Code>(\w+)</Code>", body or b"")
    why = f"{status} {code[1].decode()}" if code else str(status)
    if status == 403 and link.expired(datetime.now(UTC)):
        what = expired_message(link)
    elif status == 403:
        what = (
            "its signature is refused: the line may be damaged; paste the email's text again, or "
            f"ask for new links at {WHERE_TO_ASK}"
        )
    elif status == 404:
        what = f"it is not on the server: ask for new links at {WHERE_TO_ASK}"
    else:
        what = f"run again later, or ask for new links at {WHERE_TO_ASK}"
    raise DownloadError(f"{link.name}: the server answers {why}: {what}")


def expired_message(link: SignedLink) -> str:
    """Say when a link expired and where to ask for new ones."""
    return f"the link expired on {link.expires:%Y-%m-%d %H:%M} UTC: ask anew at {WHERE_TO_ASK}"


def _size(response: requests.Response) -> int:
    if response.status_code == 206:
        match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        if not match:
            raise _Broken("the server names no size")
        return int(match[1])
    return int(response.headers.get("Content-Length", 0))


def _skip(link: SignedLink, response: requests.Response, start: int) -> None:
    """Bring a response to the byte that was asked for: servers may ignore ranges."""
    if response.status_code == 206:
        match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start:
            raise _Broken("the server sent another range than asked for")
        return
    while start:
        data = response.raw.read(min(_READ, start), decode_content=False)
        if not data:
            raise _Broken("the connection ended early")
        start -= len(data)


def _cause(error: BaseException) -> str:
    """Describe a failure without its text, which can hold the link."""
    if isinstance(error, _Broken):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return "no secure connection could be made"
    return "the connection broke"


def _wait_or_raise(
    link: SignedLink, problem: str, failures: int, patience: Patience, stopped: threading.Event
) -> None:
    if failures >= patience.attempts:
        raise DownloadError(
            f"{link.name}: {problem}, {failures} times in a row: check the network and run again; "
            "it goes on where it stopped"
        )
    until = time.monotonic() + patience.delay(failures)
    while not stopped.is_set() and (left := until - time.monotonic()) > 0:
        stopped.wait(min(left, 0.2))


def _patiently(
    link: SignedLink, ask: Callable[[], RemoteObject], patience: Patience
) -> RemoteObject:
    failures = 0
    while True:
        try:
            return ask()
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, _Broken) as error:
            problem = _cause(error)
        failures += 1
        _wait_or_raise(link, problem, failures, patience, threading.Event())
