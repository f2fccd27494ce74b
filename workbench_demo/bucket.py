"""A bucket as fastMRI's: a folder served on loopback behind signed links, for demo and tests.

It implements what ingest needs of S3: links signed with Amazon's version 2 or 4, for GET alone and
for a while, ranges, ETags, and errors as XML. It can also fail in the ways that servers do.
"""

import base64
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

LIFETIME = timedelta(days=90)
_PREFIX = {"2021": "/", "2025": "/v2.0/"}


@dataclass
class Faults:
    """What goes wrong, for names that contain ``name``.

    Attributes:
        name: part of the object's name; "" means every object.
        drop_after: bytes of a response after which the connection breaks.
        drops: how many responses break so; each one counts it down.
        ignore_range: answer 200 with the whole object.
        status: an error status to answer with ...
        times: ... for so many requests.
        seconds_per_mb: how slowly to send.
    """

    name: str = ""
    drop_after: int | None = None
    drops: int = 1_000_000
    ignore_range: bool = False
    status: int | None = None
    times: int = 1_000_000
    seconds_per_mb: float = 0.0


class Bucket:
    """Serves a folder on 127.0.0.1 while it is entered as a context.

    An object lies at its path in the folder, or, for a flat folder, at its name alone:
    ``/v2.0/NAME`` and ``/NAME`` both find NAME.

    Args:
        folder: the folder to serve.
        faults: what goes wrong.

    Attributes:
        requests: method, path and Range header of every request.
        sent: bytes of objects sent.
    """

    def __init__(self, folder: Path, *faults: Faults) -> None:
        self.folder, self.faults = folder, list(faults)
        self.requests: list[tuple[str, str, str | None]] = []
        self.sent = 0
        self._key_id = "AKIA" + secrets.token_hex(8).upper()
        self._key = secrets.token_urlsafe(30)
        self._lock = threading.Lock()

    def __enter__(self) -> "Bucket":
        bucket = self

        class Handler(_Handler):
            owner = bucket

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True, name="bucket"
        )
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def host(self) -> str:
        """Host and port that the links lead to."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    # ---- links -------------------------------------------------------------------------

    def link(self, path: str, *, version: int = 2, lifetime: timedelta = LIFETIME) -> str:
        """Sign a link to an object.

        Args:
            path: its path, such as ``/v2.0/knee_multicoil_val.tar.xz``.
            version: Amazon's signature version, 2 or 4.
            lifetime: how long it holds; one that is not positive is over already. Version 4
                counts from when it was signed, which then lies in the past.
        """
        now = datetime.now(UTC)
        if version == 2:
            expires = str(int((now + lifetime).timestamp()))
            query = {
                "AWSAccessKeyId": self._key_id,
                "Signature": self._signature_2(path, expires),
                "Expires": expires,
            }
        else:
            seconds = max(int(lifetime.total_seconds()), 1)
            signed = now if lifetime > timedelta(0) else now + lifetime - timedelta(seconds=2)
            stamp = f"{signed:%Y%m%dT%H%M%SZ}"
            query = {
                "X-Amz-Algorithm": "AWS4-HMAC-SHA256",
                "X-Amz-Credential": f"{self._key_id}/{stamp[:8]}/us-east-1/s3/aws4_request",
                "X-Amz-Date": stamp,
                "X-Amz-Expires": str(seconds),
                "X-Amz-SignedHeaders": "host",
            }
            query["X-Amz-Signature"] = self._signature_4(path, query)
        return f"http://{self.host}{quote(path)}?{urlencode(query, quote_via=quote, safe='')}"

    def email(
        self,
        generation: str = "2025",
        *,
        names: list[str] | None = None,
        version: int | None = None,
        lifetime: timedelta = LIFETIME,
    ) -> str:
        """Write the email that fastMRI would send for the folder's files.

        Args:
            generation: "2021" (root of the bucket, stray quotes) or "2025" (under ``/v2.0/``).
            names: the files to list; by default all.
            version: signature version; by default 2.
            lifetime: how long the links hold.
        """
        if generation not in _PREFIX:
            raise ValueError(f"generation={generation!r}: give one of {', '.join(_PREFIX)}")
        names = names or sorted(p.name for p in self.folder.iterdir() if p.is_file())
        sections: dict[str, list[str]] = {}
        for name in names:
            anatomy = "Brain" if re.search("brain|SHA256", name) else "Knee"
            url = self.link(_PREFIX[generation] + name, version=version or 2, lifetime=lifetime)
            start = "curl -C - " if generation == "2025" else "curl -C "
            end = "" if generation == "2025" else '"'
            sections.setdefault(anatomy, []).append(f'{start}"{url}" --output {name}{end}')
        body = "\n\n".join(
            f"{anatomy} MRI:\n" + "\n".join(lines) for anatomy, lines in sections.items()
        )
        return (
            "Thank you for your interest in the fastMRI dataset.\n"
            "Run the lines below in a terminal to download it; the links are yours alone and "
            f"end after {lifetime.days} days.\n\n{body}\n"
        )

    # ---- what the server does ------------------------------------------------------------

    def refusal(self, path: str, query: dict[str, str]) -> str | None:
        """Return S3's error code for a request's signature, or None where it holds."""
        if "X-Amz-Signature" in query:
            unsigned = {k: v for k, v in query.items() if k != "X-Amz-Signature"}
            given, right = query["X-Amz-Signature"], self._signature_4(path, unsigned)
            signed = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            expires = signed.timestamp() + int(query["X-Amz-Expires"])
        elif "Signature" in query and query.get("Expires", "").isdigit():
            given, right = query["Signature"], self._signature_2(path, query["Expires"])
            expires = int(query["Expires"])
        else:
            return "AccessDenied"
        if not hmac.compare_digest(given.encode(), right.encode()):
            return "SignatureDoesNotMatch"
        return "AccessDenied" if expires <= time.time() else None

    def find(self, path: str) -> Path | None:
        """Return the file behind an object's path, or None."""
        for relative in (path.lstrip("/"), path.rpartition("/")[2]):
            file = self.folder / relative
            inside = self.folder.resolve() in file.resolve().parents
            if inside and file.is_file():
                return file
        return None

    def take_fault(self, name: str, kind: str) -> Faults | None:
        """Return a fault of a kind ("status", "drop_after", ...) for an object, counted down."""
        with self._lock:
            for fault in self.faults:
                if fault.name not in name or not getattr(fault, kind):
                    continue
                if kind == "status":
                    fault.times -= 1
                    if fault.times < 0:
                        continue
                if kind == "drop_after":
                    fault.drops -= 1
                    if fault.drops < 0:
                        continue
                return fault
        return None

    def count(self, sent: int) -> None:
        """Count bytes that were sent."""
        with self._lock:
            self.sent += sent

    def note(self, method: str, path: str, range_header: str | None) -> None:
        """Note a request."""
        with self._lock:
            self.requests.append((method, path, range_header))

    def _signature_2(self, path: str, expires: str) -> str:
        message = f"GET\n\n\n{expires}\n/fastmri-dataset{path}"
        digest = hmac.new(self._key.encode(), message.encode(), hashlib.sha1).digest()
        return base64.b64encode(digest).decode()

    def _signature_4(self, path: str, query: dict[str, str]) -> str:
        canonical = "&".join(
            f"{quote(k, safe='')}={quote(v, safe='')}" for k, v in sorted(query.items())
        )
        request = f"GET\n{quote(path)}\n{canonical}\nhost:{self.host}\n\nhost\nUNSIGNED-PAYLOAD"
        stamp = query.get("X-Amz-Date", "")
        scope = f"{stamp[:8]}/us-east-1/s3/aws4_request"
        hashed = hashlib.sha256(request.encode()).hexdigest()
        message = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
        key = ("AWS4" + self._key).encode()
        for part in scope.split("/"):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()


class _Server(ThreadingHTTPServer):
    """A server that lets many connections wait, as archives come side by side."""

    request_queue_size = 128
    daemon_threads = True


class _Handler(BaseHTTPRequestHandler):
    """One connection; each request is answered as S3 answers it."""

    owner: Bucket
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: the lines would hold the links."""

    def do_HEAD(self) -> None:
        self.owner.note("HEAD", urlsplit(self.path).path, None)
        self._error(403, "SignatureDoesNotMatch", body=False)

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        name = path.rpartition("/")[2]
        self.owner.note("GET", path, self.headers.get("Range"))
        if code := self.owner.refusal(path, dict(parse_qsl(parts.query))):
            self._error(403, code)
        elif fault := self.owner.take_fault(name, "status"):
            self._error(fault.status or 500, "InternalError")
        elif (file := self.owner.find(path)) is None:
            self._error(404, "NoSuchKey")
        else:
            self._send(name, file)

    def _send(self, name: str, file: Path) -> None:
        stat = file.stat()
        etag = f'"{hashlib.md5(f"{stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()}"'
        if self.headers.get("If-Match", etag) != etag:
            self._error(412, "PreconditionFailed")
            return
        start, stop, status = 0, stat.st_size, 200
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked and not self.owner.take_fault(name, "ignore_range"):
            start = int(asked[1])
            stop = min(stop, int(asked[2]) + 1 if asked[2] else stop)
            status = 206
            if start >= stat.st_size:
                self._error(416, "InvalidRange")
                return
        self.send_response(status)
        self.send_header("ETag", etag)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Type", "binary/octet-stream")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{stat.st_size}")
        self.end_headers()
        try:
            self._body(name, file, start, stop)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _body(self, name: str, file: Path, start: int, stop: int) -> None:
        slow = self.owner.take_fault(name, "seconds_per_mb")
        # A response that ends before it would break does not use the fault up.
        drop = None
        if any(f.drop_after is not None and f.drop_after < stop - start for f in self.owner.faults):
            drop = self.owner.take_fault(name, "drop_after")
        budget = drop.drop_after if drop and drop.drop_after else stop - start
        for data in _pieces(file, start, min(stop, start + budget)):
            self.wfile.write(data)
            self.owner.count(len(data))
            if slow:
                time.sleep(slow.seconds_per_mb * len(data) / 1e6)
        if start + budget < stop:
            self.close_connection = True

    def _error(self, status: int, code: str, *, body: bool = True) -> None:
        content = (
            f"<Error><Code>{code}</Code><Resource>{urlsplit(self.path).path}</Resource></Error>"
        )
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(content) if body else 0))
        self.end_headers()
        if body:
            self.wfile.write(content.encode())


def _pieces(file: Path, start: int, stop: int) -> Iterator[bytes]:
    with file.open("rb") as source:
        source.seek(start)
        while start < stop and (data := source.read(min(64 << 10, stop - start))):
            start += len(data)
            yield data
