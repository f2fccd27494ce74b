"""What a form's button starts: the page's headless work, in a process of its own; both its ends.

The kernel stays free meanwhile, an interrupt of the process is what an interrupt has always been
to that work, and whatever ends the kernel ends it too.

The process reads one request as JSON from stdin: ``page`` (module:class), ``action`` ("plan" or
"start"), ``values``, ``secrets`` (variables). It writes messages as lines of JSON to stdout: what
is planned, printed and displayed, how far it is, and at the end a result or an error. What
libraries print past Python's own output goes to stderr.
"""

import base64
import importlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from queue import SimpleQueue
from typing import Any

from workbench import progress
from workbench.compute.processes import die_with_parent
from workbench.settings import child_environment

SECONDS_BETWEEN_REPORTS = 0.2
Message = dict[str, Any]


class PageProcess:
    """A page's plan or work as it goes.

    Args:
        request: what the process reads: page, action, values, and secrets as variables.
        *needs: secrets that the process is handed where our variables hold them, see
            ``child_environment``.
    """

    def __init__(self, request: Mapping[str, Any], *needs: str) -> None:
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = 0
        self._lock = threading.Lock()
        # The process is terminated when the thread that started it ends: it is this one.
        arguments = json.dumps(request), child_environment(*needs)
        threading.Thread(target=self._run, args=arguments, daemon=True).start()

    def batches(self) -> Iterator[list[Message]]:
        """Yield the messages as they come, a few times a second; the last has the key "end"."""
        batch: list[Message] = [{}]
        while "end" not in batch[-1]:
            batch = [self._messages.get()]
            if "end" not in batch[-1]:
                time.sleep(SECONDS_BETWEEN_REPORTS)
            while not self._messages.empty():
                batch.append(self._messages.get())
            yield batch

    def cancel(self) -> None:
        """Interrupt the work as Ctrl-C does, so that it tidies up; asked again, end it at once."""
        with self._lock:
            self._cancelled += 1
            if self._process and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT if self._cancelled == 1 else signal.SIGKILL)

    def _run(self, request: str, environment: Mapping[str, str]) -> None:
        """Run the process to its end; whatever happens, the last message has the key "end"."""
        code = 1
        try:
            with self._lock:
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", "workbench.forms.process"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env=environment,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            strays = threading.Thread(target=self._read_strays, args=(process,), daemon=True)
            strays.start()
            assert process.stdin is not None
            assert process.stdout is not None
            # Secrets go by this pipe alone: nobody sees them among arguments or variables.
            with suppress(BrokenPipeError), process.stdin:
                process.stdin.write(request)
            with process.stdout:
                for line in process.stdout:
                    self._messages.put(json.loads(line))
            code = process.wait()
            strays.join(5)  # a process that outlives its parent may still hold the pipe
        except Exception as error:
            if self._process:
                self._process.kill()
                self._process.wait()
            self._messages.put({"error": str(error), "trace": traceback.format_exc()})
        self._messages.put({"end": code, "cancelled": self._cancelled > 0})

    def _read_strays(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        with process.stderr, suppress(ValueError):
            for line in process.stderr:
                self._messages.put({"line": line.rstrip("\n")})


# ---- in the process -----------------------------------------------------------------------


class Messages:
    """Sends messages to the form, from any thread; what else goes to stdout goes to stderr."""

    def __init__(self) -> None:
        self._descriptor = os.dup(1)
        os.dup2(2, 1)
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def send(self, **message: Any) -> None:
        """Send one message; where the kernel has ended nobody reads it, and its signal is near."""
        data = f"{json.dumps(message)}\n".encode()
        with self._lock, suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def tell(self, title: str, share: float | None, line: str) -> None:
        """Send how far something is, a few times a second at most."""
        now = time.monotonic()
        done = share is not None and share >= 1
        if done or now - self._told.get(title, 0.0) >= SECONDS_BETWEEN_REPORTS:
            self._told[title] = now
            self.send(progress=title, share=share, line=line)

    def display(self, data: Any, _: Any = None, **more: Any) -> None:
        """Send what is displayed, as IPython's publishers do."""
        kind = next(kind for kind in ("image/png", "text/html", "text/plain") if kind in data)
        value = data[kind]
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        name = (more.get("transient") or {}).get("display_id", "")
        self.send(display=kind, data=value, name=name)


class Lines(io.TextIOBase):
    """A standard output that sends each line, once it is whole."""

    def __init__(self, send: Callable[[str], None]) -> None:
        self._send, self._rest, self._lock = send, "", threading.Lock()

    def write(self, text: str) -> int:
        """Send the lines that are whole."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._send(line)
        return len(text)


def main() -> None:
    """Do what is asked, and tell of it."""
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, signal.default_int_handler)
    messages = Messages()
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        request = json.load(sys.stdin)
        os.environ.update(request["secrets"])
        quiet = Config({"HistoryManager": {"enabled": False}})
        InteractiveShell.instance(config=quiet).display_pub.publish = messages.display
        progress.listen(messages.tell)
        module, _, name = request["page"].partition(":")
        asked = getattr(importlib.import_module(module), name).of(request["values"])
        with redirect_stdout(Lines(lambda line: messages.send(planned=line))):
            planned = asked.plan()
        if request["action"] == "start":
            messages.send(started=True)
            ended = threading.Event()
            watcher = threading.Thread(target=asked.watch, args=(planned, ended))
            watcher.start()
            try:
                with redirect_stdout(Lines(lambda line: messages.send(line=line))):
                    left = asked.work(planned)
            finally:
                ended.set()
                watcher.join()
            messages.send(result=left)
    except KeyboardInterrupt:
        messages.send(interrupted=True)
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        messages.send(error=str(error) or type(error).__name__, trace=trace)


if __name__ == "__main__":
    main()
