"""The process that a form's button starts; see ``forms.process``.

It reads one request as JSON from stdin: ``page`` (module:attribute), ``action`` ("plan" or
"start"), ``values``, ``secrets`` (variables). It writes messages as lines of JSON to the file
descriptor that it is given: what is planned, printed and displayed, how far it is, and at the end a
result or an error.
"""

import base64
import importlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from contextlib import redirect_stdout, suppress
from typing import Any

from workbench import progress

SECONDS_BETWEEN_REPORTS = 0.25


class Messages:
    """Sends messages to the form, from any thread."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)
        self._descriptor = descriptor
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}

    def send(self, **message: Any) -> None:
        """Send one message; where the kernel has ended nobody reads it, and its signal is near."""
        data = f"{json.dumps(message)}\n".encode()
        with self._lock, suppress(BrokenPipeError):
            while data:
                data = data[os.write(self._descriptor, data) :]

    def told(self, title: str, share: float | None, line: str) -> None:
        """Send how far something is, a few times a second at most."""
        now = time.monotonic()
        done = share is not None and share >= 1
        if done or now - self._told.get(title, 0.0) >= SECONDS_BETWEEN_REPORTS:
            self._told[title] = now
            self.send(progress=title, share=share, line=line)


class Lines(io.TextIOBase):
    """A standard output that sends each line to the form."""

    def __init__(self, messages: Messages, kind: str) -> None:
        self._messages, self._kind = messages, kind
        self._rest = ""
        self._lock = threading.Lock()

    def write(self, text: str) -> int:
        """Send the lines that are whole."""
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._messages.send(**{self._kind: line})
        return len(text)


def watch_displays(messages: Messages) -> None:
    """Have whatever is displayed sent to the form."""
    from IPython.core.displaypub import DisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Publisher(DisplayPublisher):
        def publish(self, data: Any, *_: Any, **more: Any) -> None:
            kinds = ("image/png", "text/html", "text/plain")
            kind = next(kind for kind in kinds if kind in data)
            value = data[kind]
            if isinstance(value, bytes):
                value = base64.b64encode(value).decode()
            name = (more.get("transient") or {}).get("display_id", "")
            messages.send(display=kind, data=value, name=name)

    quiet = Config()
    quiet.HistoryManager.enabled = False
    InteractiveShell.instance(config=quiet, display_pub_class=Publisher)


def main() -> None:
    """Do what is asked, and tell of it."""
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, signal.default_int_handler)
    messages = Messages(int(sys.argv[1]))
    try:
        request = json.load(sys.stdin)
        os.environ.update(request["secrets"])
        watch_displays(messages)
        progress.listen(messages.told)
        module, _, name = request["page"].partition(":")
        page = getattr(importlib.import_module(module), name)
        with redirect_stdout(Lines(messages, "planned")):
            plan = page.plan(page.parameters.of(request["values"]))
        if request["action"] == "start":
            messages.send(started=True)
            messages.send(result=_work(page, plan, messages))
    except KeyboardInterrupt:
        messages.send(interrupted=True)
    except BaseException as error:
        text = "".join(traceback.format_exception(error))
        messages.send(
            error=str(error) or type(error).__name__, kind=type(error).__name__, trace=text
        )


def _work(page: Any, plan: Any, messages: Messages) -> Any:
    ended = threading.Event()
    watcher = threading.Thread(target=page.watch, args=(plan, ended)) if page.watch else None
    if watcher:
        watcher.start()
    try:
        with redirect_stdout(Lines(messages, "line")):
            return page.work(plan)
    finally:
        ended.set()
        if watcher:
            watcher.join()


if __name__ == "__main__":
    main()
