"""One request to the server behind a signed link, and what its answer means.

fastMRI's links are signed for GET alone: the server refuses HEAD, so size and first bytes come
from a GET of the first range. No message here holds a link: exceptions of requests and urllib3,
whose texts do, end where they are caught.
"""

import random
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import requests
import urllib3

from workbench.ingest.archives import HEAD
from workbench.ingest.links import WHERE_TO_ASK, SignedLink
from workbench.settings import hide_queries_in_logs

READ = 256 << 10
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


hide_queries_in_logs()


class BrokenError(Exception):
    """A response that ended early or made no sense; worth another try."""


# What a broken connection raises, before or while the body is read.
BROKEN = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, BrokenError)


def inspect(link: SignedLink, patience: Patience = PATIENT) -> RemoteObject:
    """Ask for an object's size, version and first bytes.

    Raises:
        DownloadError: it is not to be had; the message says why and what to do.
    """

    def ask() -> RemoteObject:
        with get_range(requests, link, 0, HEAD, None, patience) as response:
            refuse(link, response)
            size = _size(response)
            if not size:
                raise DownloadError(f"{link.name}: the server has an empty object")
            head = response.raw.read(min(HEAD, size), decode_content=False)
            return RemoteObject(
                size, response.headers.get("ETag"), head, response.status_code == 206
            )

    return _patiently(link, ask, patience)


def get_range(
    session: Any, link: SignedLink, start: int, stop: int, version: str | None, patience: Patience
) -> requests.Response:
    """Ask for bytes ``start:stop`` of an object, of that very version where one is given."""
    headers = {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    if version:
        headers["If-Match"] = version
    response: requests.Response = session.get(
        link.url.reveal(), headers=headers, stream=True, timeout=(30, patience.timeout)
    )
    return response


def refuse(link: SignedLink, response: requests.Response) -> None:
    """Raise where the server's answer is no data."""
    status = response.status_code
    if status in (200, 206):
        return
    if status in _PASSING:
        raise BrokenError(f"the server answered {status}")
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


def _size(response: requests.Response) -> int:
    if response.status_code == 206:
        match = re.search(r"/(\d+)$", response.headers.get("Content-Range", ""))
        if not match:
            raise BrokenError("the server names no size")
        return int(match[1])
    return int(response.headers.get("Content-Length", 0))


def skip_to(link: SignedLink, response: requests.Response, start: int, size: int) -> None:
    """Bring a response to the byte that was asked for: servers may ignore ranges.

    Raises:
        ChangedError: the object is not of the size that it was.
    """
    if _size(response) != size:
        raise _changed(link)
    if response.status_code == 206:
        match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if not match or int(match[1]) != start:
            raise BrokenError("the server sent another range than asked for")
        return
    while start:
        data = response.raw.read(min(READ, start), decode_content=False)
        if not data:
            raise BrokenError("the connection ended early")
        start -= len(data)


def _changed(link: SignedLink) -> ChangedError:
    return ChangedError(
        f"{link.name}: the object on the server is no longer the one that was begun: run again to "
        "fetch it anew"
    )


def cause(error: BaseException) -> str:
    """Describe a failure without its text, which can hold the link."""
    if isinstance(error, BrokenError):
        return str(error)
    if isinstance(error, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError):
        return "the server did not answer in time"
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return "no secure connection could be made"
    return "the connection broke"


def wait_or_raise(
    link: SignedLink, problem: str, failures: int, patience: Patience, stopped: threading.Event
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
        except BROKEN as error:
            problem = cause(error)
        failures += 1
        wait_or_raise(link, problem, failures, patience, threading.Event())
