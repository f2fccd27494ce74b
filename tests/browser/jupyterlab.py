"""JupyterLab in a process of its own, on a project folder of its own."""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from workbench.compute.processes import die_with_parent

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
_SECONDS_TO_START = 180
# Whoever runs the tests may be logged in to Azure, or hold links: none of that reaches a notebook.
_PERSONAL = ("AZURE_", "FASTMRI_", "AZUREML_", "JUPYTER", "IPYTHON", "WORKBENCH_", "PIP_")
_SETTINGS = {
    # Every cell is in the page, on the screen or not, so that a test finds it.
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none"},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false"},
}


class JupyterLab:
    """A JupyterLab whose notebooks write nothing into the checkout.

    Its home, settings and workspaces lie under an empty ``folder``, but the cache of kernels and
    fonts, which take seconds to make, is the tests' own. The notebooks' project root is
    ``folder/project``, with a copy of ``notebooks/`` in it. ``environment`` is the kernels', and
    ``saves_widgets`` turns on "Save Widget State Automatically", as a person may have it.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        saves_widgets: bool = False,
    ) -> None:
        self.folder, self.project = folder, folder / "project"
        self.log = folder / "jupyterlab.log"
        self._environment = dict(environment or {})
        self._settings = {
            **_SETTINGS,
            "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": saves_widgets},
        }
        self.url = self._token = ""

    def __enter__(self) -> "JupyterLab":
        shutil.copytree(NOTEBOOKS, self.project / "notebooks")
        for name, values in self._settings.items():
            path = self.folder / "settings" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        home = {
            "HOME": self.folder / "home",
            "IPYTHONDIR": self.folder / "home/ipython",
            "JUPYTER_CONFIG_DIR": self.folder / "config",
            "JUPYTER_DATA_DIR": self.folder / "data",
            "JUPYTER_RUNTIME_DIR": self.folder / "runtime",
            "JUPYTERLAB_SETTINGS_DIR": self.folder / "settings",
            "JUPYTERLAB_WORKSPACES_DIR": self.folder / "workspaces",
            "WORKBENCH_ROOT": self.project,
        }
        (self.folder / "home").mkdir()
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_PERSONAL)}
        environment = {
            **kept,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(NOTEBOOKS.parent),
            "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache"),
            **{name: str(path) for name, path in home.items()},
            **self._environment,
        }
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1"),
            *("--ServerApp.port_retries=100", f"--ServerApp.root_dir={self.project}"),
            *("--LabApp.news_url=None", "--LabApp.expose_app_in_browser=True"),
            "--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate",
            *(["--allow-root"] if os.geteuid() == 0 else []),
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                env=environment,
                cwd=self.project,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=die_with_parent,
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def address(self, path: Path) -> str:
        """Return the address that opens a notebook, in a workspace that is empty otherwise."""
        place = quote(str(path.relative_to(self.project)))
        return f"{self.url}lab/tree/{place}?token={self._token}&reset"

    def get(self, address: str) -> Any:
        """Return the JSON of ``api/ADDRESS``."""
        return json.loads(self._ask("GET", address))

    def end_kernels(self) -> None:
        """End every kernel; after the server's end there is none."""
        if self._process.poll() is not None:
            return
        for session in self.get("sessions"):
            self._ask("DELETE", f"sessions/{session['id']}")

    def _ask(self, method: str, address: str) -> bytes:
        request = urllib.request.Request(
            f"{self.url}api/{address}",
            method=method,
            headers={"Authorization": f"token {self._token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.read()

    def _wait_until_it_answers(self) -> None:
        runtime = self.folder / "runtime" / f"jpserver-{self._process.pid}.json"
        end = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < end and self._process.poll() is None:
            try:
                found = json.loads(runtime.read_text())
                self.url, self._token = found["url"], found["token"]
                self.get("status")
            except (OSError, ValueError):
                time.sleep(0.1)
            else:
                return
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()[-3000:]}")

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
