"""What the cloud is told to fail with."""

import math
import re
import threading
import time
from dataclasses import dataclass


class DroppedError(Exception):
    """The connection breaks without an answer."""


class ServiceError(Exception):
    """An error that a service answers with: Azure's code and message."""

    def __init__(self, status: int, code: str, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Fault:
    """What happens to requests whose method, host and path match a pattern.

    Attributes:
        pattern: regular expression, found anywhere in "METHOD host/path?query", in any case.
        status: the status to answer with; None answers as if nothing were wrong.
        code: Azure's code of the error.
        message: its message.
        retry_after: seconds for the header Retry-After; who asks before that is answered so again.
            A part of a second, which HTTP does not know and the SDKs take, makes a test short.
        seconds: how long the answer is held back.
        drop: break the connection instead of answering.
        times: how many fare badly.
        struck: how many did.
        early: how many came before Retry-After had passed.
    """

    pattern: str
    status: int | None = None
    code: str = "InternalServerError"
    message: str = "The server encountered an internal error. Please retry the request."
    retry_after: float | None = None
    seconds: float = 0.0
    drop: bool = False
    times: int = 1_000_000
    struck: int = 0
    early: int = 0
    until: float = 0.0

    def __post_init__(self) -> None:
        if self.status is None and not self.drop and not self.seconds:
            raise ValueError(f"fault for {self.pattern!r}: give a status, drop or seconds")

    @property
    def left(self) -> str:
        """Seconds until Retry-After has passed, as the header says them: never too few."""
        parts = 100 if self.retry_after and self.retry_after % 1 else 1
        return f"{max(1, math.ceil((self.until - time.monotonic()) * parts)) / parts:g}"


_MEANING = {
    401: ("InvalidAuthenticationToken", "The access token is invalid."),
    403: ("AuthorizationFailed", "The client does not have authorization to perform the action."),
    404: ("ResourceNotFound", "The resource was not found."),
    409: ("Conflict", "The request conflicts with the state of the resource."),
    429: ("TooManyRequests", "The request is being throttled: too many requests were received."),
    503: ("ServiceUnavailable", "The service is temporarily unavailable."),
}


class Faults:
    """The faults that are set; every service asks it before it answers."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, pattern: str, status: int | None = None, **more: object) -> Fault:
        """Set a fault; code and message follow from the status where they are not given."""
        if status in _MEANING:
            code, message = _MEANING[status]
            more = {"code": code, "message": message} | more
        fault = Fault(pattern, status, **more)  # type: ignore[arg-type]
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Take back all faults."""
        with self._lock:
            self._faults.clear()

    def strike(self, method: str, target: str, closing: threading.Event) -> None:
        """Do to a request what it is due.

        Raises:
            DroppedError: its connection is to break.
            ServiceError: it is answered with an error.
        """
        fault = self._due(f"{method} {target}")
        if fault is None:
            return
        closing.wait(fault.seconds)
        if fault.drop:
            raise DroppedError
        if fault.status is not None:
            wait = {} if fault.retry_after is None else {"Retry_After": fault.left}
            raise ServiceError(fault.status, fault.code, fault.message, **wait)

    def _due(self, line: str) -> Fault | None:
        with self._lock:
            for fault in self._faults:
                if not re.search(fault.pattern, line, re.IGNORECASE):
                    continue
                if time.monotonic() < fault.until:
                    fault.early += 1
                    return fault
                if fault.struck < fault.times:
                    fault.struck += 1
                    fault.until = time.monotonic() + (fault.retry_after or 0)
                    return fault
        return None
