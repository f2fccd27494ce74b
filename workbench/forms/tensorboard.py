"""TensorBoard on all runs, one click away: started beside the kernel, ended with it."""

import atexit
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

from workbench.compute.processes import die_with_parent
from workbench.compute.runs import run_folder
from workbench.settings import child_environment

State = dict[str, Any]
_SECONDS_TO_START = 60.0


class TensorBoard:
    """A TensorBoard on ``outputs/``, at a free port of this machine alone."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it is there."""
        return self._process is not None and self._process.poll() is None

    def toggle(self, tell: Callable[[State], None]) -> None:
        """Start it, or stop it.

        Args:
            tell: is given what the form shows, from a thread as soon as there is something new.
        """
        if self.running:
            self.stop()
            tell({"offered": True})
            return
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        outputs = run_folder("x").parent
        outputs.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tensorboard.main", "--logdir", str(outputs)),
                *("--host", "127.0.0.1", "--port", str(port), "--load_fast", "false"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        atexit.register(self.stop)
        tell({"offered": True, "note": "TensorBoard is starting ..."})
        url = f"http://127.0.0.1:{port}/"
        threading.Thread(target=self._await, args=(url, tell), daemon=True).start()

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            atexit.unregister(self.stop)

    def _await(self, url: str, tell: Callable[[State], None]) -> None:
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        until = time.monotonic() + _SECONDS_TO_START
        while self.running and time.monotonic() < until:
            try:
                direct.open(url, timeout=2).close()
            except (urllib.error.URLError, OSError):
                time.sleep(0.3)
            else:
                tell({"offered": True, "url": url})
                return
        if self._process is not None:  # else it was stopped meanwhile
            self.stop()
            tell({"offered": True, "note": "TensorBoard did not start"})
