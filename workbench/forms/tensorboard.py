"""TensorBoard on all runs, one click away: started beside the kernel, ended with it."""

import atexit
import re
import subprocess
import sys
import threading

import ipywidgets

from workbench.compute.processes import die_with_parent
from workbench.compute.runs import run_folder
from workbench.settings import child_environment


class TensorBoard(ipywidgets.HBox):
    """A button that starts TensorBoard at a free port of this machine alone, or stops it."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self.button, self.link = ipywidgets.Button(), ipywidgets.HTML()
        self.button.on_click(lambda _: self.stop() if self._process else self.start())
        self._show("TensorBoard", "")
        super().__init__([self.button, self.link])

    def start(self) -> None:
        """Start it; the link to it is shown as soon as it answers."""
        outputs = run_folder("x").parent
        outputs.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tensorboard.main", "--logdir", str(outputs)),
                *("--host", "127.0.0.1", "--port", "0", "--load_fast", "false"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env=child_environment(),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        atexit.register(self.stop)
        self._show("Stop TensorBoard", '<span class="wb-help">TensorBoard is starting ...</span>')
        threading.Thread(target=self._follow, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            atexit.unregister(self.stop)
            self._show("TensorBoard", "")

    def _follow(self, process: "subprocess.Popen[str]") -> None:
        """Read its address from what it prints."""
        assert process.stderr is not None
        with process.stderr:
            for line in process.stderr:
                if found := re.search(r"http://127\.0\.0\.1:\d+/", line):
                    link = (
                        f'<a href="{found[0]}" target="_blank" rel="noopener">open TensorBoard</a>'
                    )
                    self._show("Stop TensorBoard", link)
        if process is self._process:  # else it was stopped
            self.stop()
            self._show("TensorBoard", '<span class="wb-error">TensorBoard has ended</span>')

    def _show(self, name: str, link: str) -> None:
        self.button.description, self.link.value = name, link
