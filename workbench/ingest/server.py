"""One request to the server behind a signed link, and what its answer means.

fastMRI's links are signed for GET alone: the server refuses HEAD, so size and first bytes come
from a GET of the first range. No message here holds a link: exceptions of requests and urllib3,
whose texts do, end where they are caught.
"""

import http.client
import io
import random
import re
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from workbench.ingest.archives import HEAD
from workbench.ingest.links import WHERE_TO_ASK, SignedLink
from workbench.settings import hide_queries_in_logs

READ = 256 << 10
_REDIRECTS = 6
# Statuses that pass by themselves.
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
        slowest: bytes that must come in every ``timeout`` seconds of waiting for them.
    """

    attempts: int = 10
    first_delay: float = 0.5
    longest_delay: float = 60.0
    timeout: float = 60.0
    slowest: int = 64 << 10

    def delay(self, failures: int, asked: float = 0.0) -> float:
        """Return the seconds to wait after that many failures in a row, with some jitter.

        Args:
            failures: how many there were.
            asked: seconds that the server asks to wait; more than ``longest_delay`` count as that.
        """
        longest = min(self.first_delay * 2 ** (failures - 1), self.longest_delay)
        return max(longest * random.uniform(0.5, 1.0), min(asked, self.longest_delay))


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


hide_queries_in_logs()


class BrokenError(Exception):
    """A response that ended early or made no sense; worth another try.

    Args:
        problem: what is wrong.
        wait: seconds that the server asks to wait before another try.
    """

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


# What a broken connection raises, before or while the body is read.
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, BrokenError)


def inspect(link: SignedLink, patience: Patience = PATIENT) -> RemoteObject:
    """Ask for an object's size, version and first bytes.

    Raises:
        DownloadError: it is not to be had; the message says why and what to do.
    """
    failures = 0
    while True:
        try:
            with get_range(None, link, 0, HEAD, None, patience) as response:
                size = total_size(response)
                if not size:
                    raise DownloadError(f"{link.name}: the server has an empty object")
                head = b"".join(pieces(response, min(HEAD, size)))
                version = response.headers.get("ETag") or None
                return RemoteObject(size, version, head, response.status_code == 206)
        except BROKEN as error:
            problem = cause(error)
        failures += 1
        wait_or_raise(link, problem, failures, patience, threading.Event())


class _Paced(io.RawIOBase):
    """What a connection brings, headers and all; an error where it brings too little."""

    def __init__(self, raw: io.RawIOBase, patience: Patience) -> None:
        self._raw, self._patience = raw, patience
        self._waited, self._came = 0.0, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        began = time.monotonic()
        count = self._raw.readinto(buffer)
        self._waited += time.monotonic() - began
        self._came += count or 0
        if self._waited > self._patience.timeout:
            if count and self._came < self._patience.slowest:
                raise BrokenError("the server sends too slowly")
            self._waited, self._came = 0.0, 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _PacedAdapter(requests.adapters.HTTPAdapter):
    """Makes connections that give up on a server that sends too slowly."""

    def __init__(self, patience: Patience) -> None:
        def response(*socket: Any, **more: Any) -> http.client.HTTPResponse:
            made = http.client.HTTPResponse(*socket, **more)
            made.fp = io.BufferedReader(_Paced(made.fp.detach(), patience))
            return made

        self._pools = {}
        for pool in (urllib3.HTTPConnectionPool, urllib3.HTTPSConnectionPool):
            kind = type(
                "_Connection", (pool.ConnectionCls,), {"response_class": staticmethod(response)}
            )
            self._pools[pool.scheme] = type("_Pool", (pool,), {"ConnectionCls": kind})
        super().__init__()

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *arguments: Any, **more: Any) -> Any:
        manager = super().proxy_manager_for(*arguments, **more)
        manager.pool_classes_by_scheme = self._pools
        return manager


class Session(requests.Session):
    """Connections that are given up where a server sends too slowly; redirects are ours."""

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _PacedAdapter(patience))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Return None: an address that cannot be read would raise ValueError here."""


def get_range(
    session: Session | None,
    link: SignedLink,
    start: int,
    stop: int,
    version: str | None,
    patience: Patience,
) -> requests.Response:
    """Ask for bytes ``start:stop`` of an object, of that very version where one is given.

    Raises:
        DownloadError: the server refuses; the message says why and what to do.
        ChangedError: the object is another one.
        BrokenError: the answer is no data, but may be at another try.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    if version and not version.startswith("W/"):  # A weak one never matches.
        headers["If-Match"] = version
    url = link.url.reveal()
    for _ in range(_REDIRECTS):
        with nullcontext(session) if session else Session(patience) as used:
            response = used.get(
                url,
                headers=headers,
                stream=True,
                timeout=(30, patience.timeout),
                allow_redirects=False,
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
        _refuse(link, response)
        found = response.headers.get("ETag")
        if version and found != version:
            if found:
                raise _changed(link)
            raise BrokenError("the server no longer says which version of the object it sends")
    except BaseException:
        response.close()
        raise
    return response


def _sent_on(link: SignedLink, url: str, to: str) -> str:
    """Return the address of a redirect.

    Raises:
        DownloadError: it is none, or less safe than the one before.
    """
    secure = urlsplit(url).scheme == "https"
    try:
        url = urljoin(url, to)
        url.encode()
        if urlsplit(url).scheme in (("https",) if secure else ("https", "http")):
            return url
    except ValueError:
        pass
    raise DownloadError(f"{link.name}: the server sends on to an address that is not https")


def pieces(response: requests.Response, count: int) -> Iterator[bytes]:
    """Yield the next ``count`` bytes of a response as they come.

    Raises:
        BrokenError: it ended early, or is too slow.
    """
    while count:
        data = response.raw.read1(min(READ, count), decode_content=False)
        if not data:
            raise BrokenError("the connection ended early")
        count -= len(data)
        yield data


def _refuse(link: SignedLink, response: requests.Response) -> None:
    status = response.status_code
    if status in (200, 206):
        if response.headers.get("Content-Type", "").lower().startswith("text/html"):
            raise BrokenError("a web page came instead of the file, from a proxy or a login page")
        return
    if status in _PASSING:
        asked = seconds_asked(response.headers.get("Retry-After", ""), datetime.now(UTC))
        raise BrokenError(f"the server answered {status}", asked)
    if status in (412, 416):
        raise _changed(link)
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


def seconds_asked(retry_after: str, now: datetime) -> float:
    """Read a ``Retry-After`` header: seconds or a date; 0.0 where it is neither, or over."""
    if re.fullmatch(r"[0-9]{1,9}", retry_after.strip()):
        return float(retry_after)
    try:
        until = parsedate_to_datetime(retry_after)
        return max((until - now).total_seconds(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return 0.0


def total_size(response: requests.Response) -> int:
    """Return the bytes of the whole object that a response is of.

    Raises:
        BrokenError: it does not say.
    """
    if response.status_code == 206:
        return _range(response)[1]
    length = response.headers.get("Content-Length", "").strip()
    if not re.fullmatch(r"[0-9]{1,18}", length):
        raise BrokenError("the server does not say how large the object is")
    return int(length)


def _range(response: requests.Response) -> tuple[int, int]:
    """Return the first byte that a partial response brings, and the object's size."""
    header = response.headers.get("Content-Range", "").strip()
    match = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})", header)
    if not match or not int(match[1]) <= int(match[2]) < int(match[3]):
        raise BrokenError("the server does not say which range it sends, and of how many bytes")
    return int(match[1]), int(match[3])


def skip_to(link: SignedLink, response: requests.Response, start: int, size: int) -> None:
    """Bring a response to the byte that was asked for: servers may ignore ranges.

    Raises:
        ChangedError: the object is not of the size that it was.
    """
    if total_size(response) != size:
        raise _changed(link)
    if response.status_code == 206:
        if _range(response)[0] != start:
            raise BrokenError("the server sent another range than asked for")
        return
    for _ in pieces(response, start):
        pass


def _changed(link: SignedLink) -> ChangedError:
    return ChangedError(
        f"{link.name}: the object on the server is no longer the one that was begun: run again to "
        "fetch it anew"
    )


def cause(error: BaseException) -> BrokenError:
    """Describe a failure without its text, which can hold the link."""
    if isinstance(error, BrokenError):
        return BrokenError(str(error), error.wait)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return BrokenError("the server did not answer in time")
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return BrokenError("no secure connection could be made")
    return BrokenError("the connection broke")


def wait_or_raise(
    link: SignedLink,
    problem: BrokenError,
    failures: int,
    patience: Patience,
    stopped: threading.Event,
) -> None:
    """Wait before another try.

    Raises:
        DownloadError: there were enough.
    """
    if failures >= patience.attempts:
        raise DownloadError(
            f"{link.name}: {problem}, {failures} times in a row: check the network and run again; "
            "it goes on where it stopped"
        )
    until = time.monotonic() + patience.delay(failures, problem.wait)
    while not stopped.is_set() and (left := until - time.monotonic()) > 0:
        stopped.wait(min(left, 0.2))
