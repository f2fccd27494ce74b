"""Fetch objects from behind signed links, by ranges, whatever the connection does.

fastMRI's links are signed for GET alone: the server refuses HEAD, so size and first bytes come
from a GET of the first range. No message here holds a link: exceptions of requests and urllib3,
whose texts do, end where they are caught.
"""

import hashlib
import http.client
import io
import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import closing, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from workbench.ingest.archives import HEAD
from workbench.ingest.links import WHERE_TO_ASK, SignedLink
from workbench.settings import hide_queries_in_logs
from workbench.stores.streams import CHUNK

_READ, _PART = 256 << 10, 16 << 20
_REDIRECTS = 6
# Bytes that must come in every ``Patience.timeout`` seconds of waiting for them.
_SLOWEST = 64 << 10
# Statuses that pass by themselves.
_PASSING = (408, 425, 429, 500, 502, 503, 504)

hide_queries_in_logs()


class DownloadError(Exception):
    """A download that cannot go on; the message names the file and says what to do."""


class ChangedError(DownloadError):
    """The object behind a link is not the one that was begun."""

    def __init__(self, link: SignedLink) -> None:
        super().__init__(
            f"{link.name}: the object on the server is no longer the one that was begun: run again "
            "to fetch it anew"
        )


class StoppedError(DownloadError):
    """The run was stopped."""


class _BrokenError(Exception):
    """A response that ended early or made no sense; worth another try."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait  # seconds that the server asks to wait before another try


# What a broken connection raises, before or while the body is read.
_BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, _BrokenError)


@dataclass(frozen=True)
class Patience:
    """How long to bear with a server."""

    attempts: int = 10  # failures in a row, without a byte between them, after which to give up
    first_delay: float = 0.5  # seconds to wait after the first failure; it doubles with each
    longest_delay: float = 60.0  # seconds to wait at most, even where the server asks for more
    timeout: float = 60.0  # seconds without a byte after which a connection counts as broken


PATIENCE = Patience()


@dataclass(frozen=True)
class Remote:
    """An object on a server.

    Attributes:
        version: the server's name for its content (ETag), or None.
        head: its first bytes, up to ``archives.HEAD``.
        ranges: whether the server sends ranges.
    """

    link: SignedLink
    size: int
    version: str | None
    head: bytes
    ranges: bool

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``."""
        return b"".join(stream(self, offset, offset + count))


def inspect(link: SignedLink, *, attempts: int | None = None) -> Remote:
    """Ask for an object's size, version and first bytes; ``attempts`` are those of ``PATIENCE``.

    Raises:
        DownloadError: it cannot be downloaded; the message says why and what to do.
    """
    failures = 0
    while True:
        try:
            with _request(None, link, 0, HEAD, None) as response:
                _, size = _extent(response)
                if not size:
                    raise DownloadError(f"{link.name}: the server has an empty object")
                head = b"".join(_pieces(response, min(HEAD, size)))
                version = response.headers.get("ETag") or None
                return Remote(link, size, version, head, response.status_code == 206)
        except _BROKEN as error:
            problem = _without_link(error)
        # Outside of the except block: the exception's own text holds the link.
        failures += 1
        _wait(link, problem, failures, threading.Event(), attempts or PATIENCE.attempts)


def stream(
    remote: Remote,
    start: int = 0,
    stop: int | None = None,
    *,
    stopped: threading.Event | None = None,
    session: requests.Session | None = None,
) -> Generator[bytes, None, None]:
    """Yield an object's bytes ``start:stop`` in order; a broken connection is taken up again.

    Raises:
        ChangedError: the object became another one.
        DownloadError: refused, gone, or the server failed too often in a row.
    """
    link, stop = remote.link, remote.size if stop is None else stop
    stopped = stopped or threading.Event()
    failures = came = 0
    while start < stop:
        if stopped.is_set():
            raise StoppedError(f"{link.name}: stopped")
        problem = None
        try:
            with _request(session, link, start, stop, remote.version) as response:
                first, size = _extent(response)
                if size != remote.size:
                    raise ChangedError(link)
                if response.status_code == 206 and first != start:
                    raise _BrokenError("the server sent another range than asked for")
                for _ in _pieces(response, start - first):  # servers may ignore ranges
                    pass
                for data in _pieces(response, stop - start):
                    if stopped.is_set():
                        break
                    start += len(data)
                    came += len(data)
                    if came >= _SLOWEST:  # A few bytes at each try are no progress.
                        failures = came = 0
                    yield data
        except _BROKEN as error:
            problem = _without_link(error)
        if problem is not None:
            failures, came = failures + 1, 0
            _wait(link, problem, failures, stopped, PATIENCE.attempts)


def stream_side_by_side(
    remote: Remote,
    start: int = 0,
    *,
    connections: int = 4,
    stopped: threading.Event | None = None,
) -> Generator[bytes, None, None]:
    """Like ``stream`` to the object's end, over several connections that each fetch a part.

    One connection to S3 brings some 50-90 MB/s; a single archive can hold 1,229 GB.
    """
    stopped, over = stopped or threading.Event(), threading.Event()
    if connections < 2 or not remote.ranges or remote.size - start <= _PART:
        yield from stream(remote, start, stopped=stopped)
        return

    def part(first: int) -> bytes:
        last = min(first + _PART, remote.size)
        return b"".join(stream(remote, first, last, stopped=over, session=session))

    pending: deque[Future[bytes]] = deque()
    # One session: the next part goes over a connection that is open already.
    with _Session() as session, ThreadPoolExecutor(connections, "range") as threads:
        try:
            firsts = iter(range(start, remote.size, _PART))
            while True:
                for first in islice(firsts, connections + 1 - len(pending)):
                    pending.append(threads.submit(part, first))
                if not pending:
                    return
                while not stopped.is_set() and not wait([pending[0]], timeout=0.2).done:
                    pass
                if stopped.is_set():
                    raise StoppedError(f"{remote.link.name}: stopped")
                yield pending.popleft().result()
        finally:
            over.set()
            for future in pending:
                future.cancel()


def download(
    remote: Remote,
    partial: Path,
    *,
    connections: int = 4,
    stopped: threading.Event | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Bring an object into a file, going on behind what the file holds already of it.

    Returns:
        The SHA256 of the whole, in hex.

    Raises:
        DownloadError: as ``stream``; what came stays in the file.
        OSError: the disk refuses, as when it is full; what came stays in the file.
    """
    digest, stopped = hashlib.sha256(), stopped or threading.Event()
    partial.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("a+b", buffering=0) as file:
        if file.tell() > remote.size:
            file.truncate(0)
        file.seek(0)
        while data := file.read(CHUNK):
            digest.update(data)
            if stopped.is_set():
                raise StoppedError(f"{remote.link.name}: stopped")
        parts = stream_side_by_side(remote, file.tell(), connections=connections, stopped=stopped)
        with closing(parts):
            for data in parts:
                rest = memoryview(data)
                while rest:
                    rest = rest[file.write(rest) :]
                digest.update(data)
                on_bytes(len(data))
    return digest.hexdigest()


# ---- one request -------------------------------------------------------------------------


class _Paced(io.RawIOBase):
    """What a connection brings, headers and all; an error where it brings too little."""

    def __init__(self, raw: io.RawIOBase, timeout: float) -> None:
        self._raw, self._timeout = raw, timeout
        self._waited, self._came = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began
        self._came += count or 0
        if self._waited > self._timeout:
            if count and self._came < _SLOWEST:
                raise _BrokenError("the server sends too slowly")
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: Any, *arguments: Any, **more: Any) -> None:
        super().__init__(sock, *arguments, **more)
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), sock.gettimeout()))


class _Plain(urllib3.HTTPConnectionPool):
    ConnectionCls = type("_", (urllib3.connection.HTTPConnection,), {"response_class": _Response})


class _Secure(urllib3.HTTPSConnectionPool):
    ConnectionCls = type("_", (urllib3.connection.HTTPSConnection,), {"response_class": _Response})


class _Adapter(requests.adapters.HTTPAdapter):
    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = {"http": _Plain, "https": _Secure}

    def proxy_manager_for(self, *arguments: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **more)
        manager.pool_classes_by_scheme = self.poolmanager.pool_classes_by_scheme
        return manager


class _Session(requests.Session):
    """Connections that are given up where a server sends too slowly; redirects are ours."""

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: an address that cannot be read would raise ValueError here."""


def _request(
    session: requests.Session | None,
    link: SignedLink,
    start: int,
    stop: int,
    version: str | None,
) -> requests.Response:
    """Ask for bytes ``start:stop`` of an object, of that very version where one is given.

    Raises:
        DownloadError: the server refuses; the message says why and what to do.
        ChangedError: the object is another one.
        _BrokenError: the answer is no data, but may be at another try.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    if version and not version.startswith("W/"):  # A weak one never matches.
        headers["If-Match"] = version
    url, timeout = link.url.reveal(), (30, PATIENCE.timeout)
    for _ in range(_REDIRECTS):
        with nullcontext(session) if session else _Session() as used:
            response = used.get(
                url, headers=headers, stream=True, timeout=timeout, allow_redirects=False
            )
        if not response.is_redirect:
            break
        response.close()
        url = _sent_on(link, url, response.headers["Location"])
    else:
        raise DownloadError(
            f"{link.name}: the server sends on from address to address without an end: check the "
            "proxy, and run again later"
        )
    try:
        _check(link, response)
        found = response.headers.get("ETag")
        if version and not found:
            raise _BrokenError("the server no longer says which version of the object it sends")
        if version and found != version:
            raise ChangedError(link)
    except BaseException:
        response.close()
        raise
    return response


def _sent_on(link: SignedLink, url: str, to: str) -> str:
    """Return the address of a redirect; refuse one that is not valid, or less safe than before."""
    schemes = ("https",) if urlsplit(url).scheme == "https" else ("https", "http")
    try:
        url = urljoin(url, to)
        url.encode()
        if urlsplit(url).scheme in schemes:
            return url
    except ValueError:
        pass
    raise DownloadError(f"{link.name}: the server sends on to an address that is not https")


def _check(link: SignedLink, response: requests.Response) -> None:
    """Refuse an answer that is not the object's bytes."""
    status = response.status_code
    if status in (200, 206):
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise _BrokenError("a web page came instead of the file, from a proxy or a login page")
        return
    if status in _PASSING:
        asked = _seconds(response.headers.get("Retry-After", ""))
        raise _BrokenError(f"the server answered {status}", asked)
    if status in (412, 416):
        raise ChangedError(link)
    body = response.raw.read(4096, decode_content=False)
    code = re.search(rb"<Code>(\w+)</Code>", body or b"")
    why = f"{status} {code[1].decode()}" if code else str(status)
    if status == 403 and link.expired:
        what = expired_message(link)
    elif status == 403:
        what = (
            "its signature is refused: the line may be damaged; paste the email's text again, or "
            f"ask for new links at {WHERE_TO_ASK}"
        )
    else:
        what = "it is not on the server:" if status == 404 else "run again later, or"
        what += f" ask for new links at {WHERE_TO_ASK}"
    raise DownloadError(f"{link.name}: the server answers {why}: {what}")


def expired_message(link: SignedLink) -> str:
    """Say when a link expired and where to ask for new ones."""
    return f"the link expired on {link.expires:%Y-%m-%d %H:%M} UTC: ask anew at {WHERE_TO_ASK}"


def _seconds(retry_after: str) -> float:
    """Read a ``Retry-After`` header: seconds or a date; 0.0 where it is neither, or over."""
    try:
        return urllib3.Retry().parse_retry_after(retry_after)
    except (urllib3.exceptions.HTTPError, ValueError, OverflowError):
        return 0.0


def _extent(response: requests.Response) -> tuple[int, int]:
    """Return the first byte that a response brings, and the size of the whole object."""
    if response.status_code == 206:
        header = response.headers.get("Content-Range", "").strip()
        match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", header)
        if not match or not int(match[1]) <= int(match[2]) < int(match[3]):
            raise _BrokenError("the server does not say which range it sends, of how many bytes")
        return int(match[1]), int(match[3])
    length = response.headers.get("Content-Length", "").strip()
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise _BrokenError("the server does not say how large the object is")
    return 0, int(length)


def _pieces(response: requests.Response, count: int) -> Iterator[bytes]:
    """Yield the next ``count`` bytes of a response as they come."""
    while count:
        data = response.raw.read1(min(_READ, count), decode_content=False)
        if not data:
            raise _BrokenError("the connection ended early")
        count -= len(data)
        yield data


def _without_link(error: BaseException) -> _BrokenError:
    """Describe a failure without its text, which can hold the link."""
    if isinstance(error, _BrokenError):
        return _BrokenError(str(error), error.wait)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return _BrokenError("the server did not answer in time")
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return _BrokenError("no secure connection could be made")
    return _BrokenError("the connection broke")


def _wait(
    link: SignedLink,
    problem: _BrokenError,
    failures: int,
    stopped: threading.Event,
    attempts: int,
) -> None:
    """Wait before another try, the longer the more failures there were in a row.

    Raises:
        DownloadError: there were enough.
    """
    if failures >= attempts:
        raise DownloadError(
            f"{link.name}: {problem}, {failures} times in a row: check the network and run again; "
            "it goes on where it stopped"
        )
    longest = min(PATIENCE.first_delay * 2 ** (failures - 1), PATIENCE.longest_delay)
    asked = min(problem.wait, PATIENCE.longest_delay)
    stopped.wait(max(longest * random.uniform(0.5, 1.0), asked))
