"""What a form's button starts: the page's headless work, in a process of its own.

The kernel stays free meanwhile, an interrupt of the process is what an interrupt has always been
to that work, and whatever ends the kernel ends it too.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from workbench.compute.processes import die_with_parent
from workbench.settings import child_environment

Message = dict[str, Any]


class PageProcess:
    """A page's plan or work as it goes.

    Args:
        request: what ``forms.child`` reads: page, action, values, and secrets as variables.
        receive: is given each message, from threads of this object; the last has the key "end".
        needs: secrets that the process is handed where our variables hold them, see
            ``child_environment``.
    """

    def __init__(
        self,
        request: Mapping[str, Any],
        receive: Callable[[Message], None],
        needs: Sequence[str] = (),
    ) -> None:
        self._environment = child_environment(*needs)
        self._request = json.dumps(request)
        self._receive = receive
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = 0
        self._lock = threading.Lock()
        # The process is terminated when the thread that started it ends: it is this one.
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Interrupt the work as Ctrl-C does, so that it tidies up; asked again, end it at once."""
        with self._lock:
            self._cancelled += 1
            if self._process and self._process.poll() is None:
                self._process.send_signal(signal.SIGINT if self._cancelled == 1 else signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> None:
        """Wait until it has ended and the last message is delivered."""
        self._thread.join(seconds)

    def _run(self) -> None:
        """Run the process to its end; whatever happens, the last message has the key "end"."""
        code: int | None = None
        try:
            code = self._converse()
        except Exception as error:
            if self._process:
                self._process.kill()
                self._process.wait()
            self._receive({"error": str(error), "trace": traceback.format_exc()})
            code = code or 1
        self._receive({"end": code, "cancelled": self._cancelled > 0})

    def _converse(self) -> int:
        reading, writing = os.pipe()
        try:
            with self._lock:
                process = self._process = subprocess.Popen(
                    [sys.executable, "-m", "workbench.forms.child", str(writing)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=[writing],
                    text=True,
                    errors="replace",
                    env=self._environment,
                    start_new_session=True,
                    preexec_fn=die_with_parent,
                )
        finally:
            os.close(writing)
        assert process.stdin is not None
        assert process.stdout is not None
        strays = threading.Thread(target=self._read_strays, args=(process.stdout,), daemon=True)
        strays.start()
        # Secrets go by this pipe alone: nobody sees them among a process's arguments or variables.
        with suppress(BrokenPipeError):
            process.stdin.write(self._request)
            process.stdin.close()
        self._request = ""
        with open(reading, encoding="utf-8") as messages:  # noqa: PTH123 - a file descriptor
            for line in messages:
                self._receive(json.loads(line))
        code = process.wait()
        strays.join(5)  # a process that outlives its parent may still hold the pipe
        return code

    def _read_strays(self, stdout: Any) -> None:
        """Pass on what libraries print past Python's own output."""
        with stdout, suppress(ValueError):
            for line in stdout:
                self._receive({"line": line.rstrip("\n")})
