"""What a form's buttons start: the page's headless work, in a process of its own; both its ends.

The kernel stays free meanwhile, an interrupt of the process is what an interrupt has always been
to that work, and whatever ends the kernel ends it too. To import all that the work takes lasts
longer than most plans: the process does so before anything is asked of it, and answers plan after
plan. With work, an interrupt, or code of a person's own in it, which may change, it ends; another
secret goes to another process, because logins and open stores are kept by one.

The process reads requests from stdin, a line of JSON each: ``action`` ("plan" or "start"),
``values``, ``folder`` and ``environment``, with secrets among its variables. It writes messages as
lines of JSON to stdout: what is planned, printed and displayed, how far it is, a result or an
error, and last ``finished``. What libraries print past Python's own output goes to stderr.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import redirect_stdout, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from workbench import progress
from workbench.compute.processes import die_with_parent
from workbench.forms.page import Page
from workbench.settings import child_environment

SECONDS_BETWEEN_REPORTS = 0.2
Message = dict[str, Any]


class PageProcess:
    """A process that does a page's plans, then its work.

    It starts at once, without a secret, and imports what it will need.

    Args:
        page: the page.
    """

    def __init__(self, page: type[Page]) -> None:
        self._page = f"{page.__module__}:{page.__qualname__}"
        self._messages: SimpleQueue[Message] = SimpleQueue()
        self._requests: SimpleQueue[str] = SimpleQueue()
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = 0
        self._ended = False
        self._given: int | None = None
        self._lock = threading.Lock()
        # The process is terminated when the thread that started it ends: it is this one.
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def usable(self) -> bool:
        """Whether it can be asked for more."""
        return not self._ended

    def fits(self, environment: Mapping[str, str]) -> bool:
        """Say whether it can be asked with these variables: it was given no other secret."""
        return self.usable and self._given in (None, _given(environment))

    def ask(self, action: str, values: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        """Have it "plan" or "start" a page's work.

        Args:
            action: one of the two.
            values: the page's parameters.
            environment: its variables, secrets among them: they go by its standard input alone,
                so that nobody sees them among arguments or variables.
        """
        self._given = _given(environment)
        request = {"action": action, "values": values, "folder": str(Path.cwd())}
        self._requests.put(json.dumps({**request, "environment": dict(environment)}))

    def batches(self) -> Iterator[list[Message]]:
        """Yield the messages as they come, a few times a second; the last has the key "end"."""
        batch: list[Message] = [{}]
        while "end" not in batch[-1]:
            batch = [self._messages.get()]
            if "end" not in batch[-1]:
                time.sleep(SECONDS_BETWEEN_REPORTS)
            while "end" not in batch[-1] and not self._messages.empty():
                batch.append(self._messages.get())
            yield batch

    def cancel(self) -> None:
        """Interrupt the work as Ctrl-C does, so that it tidies up; asked again, end it at once."""
        with self._lock:
            self._cancelled += 1
            if self._process and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT if self._cancelled == 1 else signal.SIGKILL)

    def close(self) -> None:
        """Have it end as soon as it has nothing to do."""
        self._ended = True
        self._requests.put("")

    def _run(self) -> None:
        """Run the process to its end; whatever happens, the last message has the key "end"."""
        code = 1
        try:
            with self._lock:
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", "workbench.forms.process", self._page],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    errors="replace",
                    env=child_environment(),
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
            strays = threading.Thread(target=self._read_strays, args=(process,), daemon=True)
            strays.start()
            threading.Thread(target=self._write_requests, args=(process,), daemon=True).start()
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    self._receive(json.loads(line))
            code = process.wait()
            strays.join(5)  # a process that outlives its parent may still hold the pipe
        except Exception as error:
            if self._process:
                self._process.kill()
                self._process.wait()
            self._messages.put({"error": str(error), "trace": traceback.format_exc()})
        self.close()
        self._messages.put({"end": code, "cancelled": self._cancelled > 0})

    def _receive(self, message: Message) -> None:
        if "finished" not in message:
            self._messages.put(message)
            return
        if message["finished"] == "for good" or self._cancelled:
            self.close()
        self._messages.put({"end": 0, "cancelled": self._cancelled > 0})

    def _write_requests(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            while request := self._requests.get():
                process.stdin.write(f"{request}\n")
                process.stdin.flush()

    def _read_strays(self, process: "subprocess.Popen[str]") -> None:
        assert process.stderr is not None
        with process.stderr, suppress(ValueError):
            for line in process.stderr:
                self._messages.put({"line": line.rstrip("\n")})


def _given(environment: Mapping[str, str]) -> int:
    """Return a number that stands for what a process is given beside the usual variables."""
    return hash(frozenset(environment.items() - child_environment().items()))


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

    def display(self, data: Any, metadata: Any = None, **more: Any) -> None:
        """Send what is displayed, as IPython's publishers do."""
        kind = next(kind for kind in ("image/png", "text/html", "text/plain") if kind in data)
        value = data[kind]
        if isinstance(value, bytes):
            value = base64.b64encode(value).decode()
        name = (more.get("transient") or {}).get("display_id", "")
        told = (metadata or {}).get(kind, {})
        self.send(display=kind, data=value, name=name, told=told)


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
    """Import a page and what it needs, then answer one request after the other."""
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, signal.default_int_handler)
    messages = Messages()
    try:
        from IPython.core.interactiveshell import InteractiveShell
        from traitlets.config import Config

        quiet = Config({"HistoryManager": {"enabled": False}})
        InteractiveShell.instance(config=quiet).display_pub.publish = messages.display
        progress.listen(messages.tell)
        module, _, name = sys.argv[1].partition(":")
        page: type[Page] = getattr(importlib.import_module(module), name)
        for needed in page.imports:
            importlib.import_module(needed)
        known = set(sys.modules)
        while line := sys.stdin.readline():
            request = json.loads(line)
            ended = not _answer(page, request, messages) or request["action"] == "start"
            ended = ended or _are_own(sys.modules.keys() - known)
            messages.send(finished="for good" if ended else "for now")
            if ended:
                return
    except KeyboardInterrupt:
        messages.send(interrupted=True)
    except BaseException as error:
        messages.send(**_told(error))


def _answer(page: type[Page], request: Mapping[str, Any], messages: Messages) -> bool:
    """Do what is asked, and tell of it; return whether it came to its end."""
    try:
        os.environ.clear()
        os.environ.update(request["environment"])
        os.chdir(request["folder"])
        asked = page.of(request["values"]).looked_at()
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
        return False
    except BaseException as error:
        messages.send(**_told(error))
        return isinstance(error, Exception)
    return True


def _told(error: BaseException) -> Message:
    trace = "".join(traceback.format_exception(error))
    return {"error": str(error) or type(error).__name__, "trace": trace}


def _are_own(names: Iterable[str]) -> bool:
    """Say whether some modules are a person's own: neither installed nor the workbench's."""
    others = (name for name in names if not name.startswith("workbench"))
    files = (getattr(sys.modules.get(name), "__file__", None) for name in others)
    return any(file and not file.startswith((sys.prefix, sys.base_prefix)) for file in files)


if __name__ == "__main__":
    main()
