"""What the emulated services stand on: a server of routes that records and fails when told to.

A service speaks plain HTTP on loopback; the network ends TLS before it.
"""

import json
import re
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.cloud.faults import DroppedError, Faults, ServiceError


@dataclass(frozen=True)
class Request:
    """One request as it came in.

    Attributes:
        method: GET, PUT, ...
        host: the host that the client meant.
        path: the path, percent-decoded.
        query: the query's values by name.
        headers: header values by lower-case name.
        body: the body's bytes.
        target: path and query as they were sent.
    """

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str

    def json(self) -> Any:
        """Read the body as JSON; a body that is none is refused with 400."""
        try:
            return json.loads(self.body) if self.body else {}
        except ValueError:
            raise ServiceError(
                400, "InvalidRequestContent", "The request content is not JSON."
            ) from None


@dataclass(frozen=True)
class Answer:
    """What goes back: a JSON value, or bytes as they are."""

    value: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    type: str = "application/json; charset=utf-8"

    @property
    def body(self) -> bytes:
        """The bytes of the answer."""
        if self.value is None:
            return b""
        return self.value if isinstance(self.value, bytes) else json.dumps(self.value).encode()


Handler = Callable[..., Any]


class Service:
    """Routes and a server for them, which runs while it is entered.

    Args:
        name: what the service is called in faults and messages.
        faults: what it is told to fail with.

    Attributes:
        requests: every request, in order, with the status that it was answered with.
        log_in: called with each request before its route; raises where it is not let in.
    """

    def __init__(self, name: str, faults: Faults) -> None:
        self.name, self.faults = name, faults
        self.requests: list[tuple[Request, int]] = []
        self.log_in: Callable[[Request], None] = lambda request: None
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []

    def on(self, method: str, path: str, handler: Handler) -> None:
        """Answer requests by a function; routes are tried in the order that they were given.

        Args:
            method: the method, or several with ``|`` between.
            path: a regular expression for the whole path, in any case; its named groups become
                the function's keyword arguments.
            handler: gets the request; returns an Answer, or a JSON value for one of status 200.
        """
        self._routes.append((method, re.compile(path, re.IGNORECASE), handler))

    def __enter__(self) -> "Service":
        service = self

        class Connection(_Connection):
            owner = service

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = False
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name=self.name, daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        for connection in list(self.connections):
            _end(connection)
        self._server.server_close()

    def answer(self, request: Request) -> Answer:
        """Answer one request: faults first, then the login, then the route."""
        try:
            self.faults.strike(request.method, request.host + request.target, self.closing)
            self.log_in(request)
            return self.dispatch(request)
        except ServiceError as problem:
            return _error(problem, request)

    def dispatch(self, request: Request) -> Answer:
        """Find the route and call it."""
        for methods, path, handler in self._routes:
            match = path.fullmatch(request.path)
            if match and request.method in methods.split("|"):
                result = handler(request, **match.groupdict())
                return result if isinstance(result, Answer) else Answer(result)
        raise ServiceError(404, "NotFound", f"{request.method} {request.path} is not emulated.")


class _Connection(BaseHTTPRequestHandler):
    owner: Service
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: a second one waits 40 ms for the first to be acknowledged.
    wbufsize = 64 << 10
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing; requests are recorded."""

    def setup(self) -> None:
        super().setup()
        self.owner.connections.add(self.connection)
        if self.owner.closing.is_set():
            _end(self.connection)

    def finish(self) -> None:
        with suppress(OSError):
            super().finish()
        self.owner.connections.discard(self.connection)

    def _serve(self) -> None:
        path, _, query = self.path.partition("?")
        request = Request(
            method=self.command,
            host=(self.headers.get("Host") or "").partition(":")[0],
            path=unquote(path),
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers={name.lower(): value for name, value in self.headers.items()},
            body=self._body(),
            target=self.path,
        )
        try:
            answer = self.owner.answer(request)
        except DroppedError:
            self.owner.requests.append((request, 0))
            self.close_connection = True
            return
        except Exception as error:
            message = f"The emulator failed: {type(error).__name__}: {error}"
            answer = _error(ServiceError(500, "EmulatorError", message), request)
        self.owner.requests.append((request, answer.status))
        try:
            self._send(answer)
        except OSError:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = _serve  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0].strip() or b"0", 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    def _send(self, answer: Answer) -> None:
        body = answer.body
        self.send_response(answer.status)
        headers = {"Content-Type": answer.type} if body or self.command == "HEAD" else {}
        for name, value in (headers | answer.headers).items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _error(problem: ServiceError, request: Request) -> Answer:
    error = {"code": problem.code, "message": problem.message, "target": request.path}
    return Answer({"error": error | {"details": []}}, problem.status, problem.headers)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def now() -> str:
    """Return the time as Azure writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
