"""A file server with range requests whose every answer takes its time, as storage far away does.

Run as ``python -m benchmarks.server FOLDER SECONDS``; it prints its port and ends with its stdin.
"""

import os
import re
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and content go out in two writes; together with the client's delayed acknowledgement
    # Nagle's algorithm would add 40 ms of its own.
    disable_nagle_algorithm = True

    def __init__(self, *arguments: object, folder: Path, seconds: float) -> None:
        self.folder, self.seconds = folder, seconds
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_HEAD(self) -> None:
        """Answer how large a file is."""
        self._answer(with_content=False)

    def do_GET(self) -> None:
        """Answer with a file or the part that is asked for."""
        self._answer(with_content=True)

    def _answer(self, *, with_content: bool) -> None:
        time.sleep(self.seconds)
        try:
            file = (self.folder / self.path.lstrip("/")).open("rb")
        except OSError:
            self.send_error(404)
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            first, last = 0, size - 1
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if asked:
                first, last = int(asked[1]), min(int(asked[2] or last), last)
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(last - first + 1))
            if asked:
                self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
            self.end_headers()
            if with_content:
                self.connection.sendfile(file, first, last - first + 1)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _end_with_stdin() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    handler = partial(_Handler, folder=Path(sys.argv[1]), seconds=float(sys.argv[2]))
    server = _Server(("127.0.0.1", 0), handler)
    print(server.server_address[1], flush=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    server.serve_forever()
