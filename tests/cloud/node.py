"""A node of a cluster: one shell in a session of its own, with what AzureML tells it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from workbench.compute.processes import die_with_parent

_MARK = "CLOUD_NODE"
_SITE = Path(__file__).with_name("node_site.py")
CHECKOUT = Path(__file__).resolve().parents[2]


class Node:
    """One machine while it runs a job's command.

    Args:
        folder: the machine's disk; ``wd`` in it is the command's working folder.
        command: what its shell runs.
        environment: variables on top of a bare machine's.
        mounts: folders in which renames and locks are refused, as on a mount of storage.
        read_only: those in which writing is.

    Attributes:
        log: file with the command's output.
        working: the command's working folder.
    """

    def __init__(
        self,
        folder: Path,
        command: str,
        environment: Mapping[str, str],
        mounts: Iterable[Path] = (),
        read_only: Iterable[Path] = (),
    ) -> None:
        self.folder, self.working = folder, folder / "wd"
        self.log = folder / "std_log.txt"
        self._mark = uuid.uuid4().hex
        site = folder / "site"
        for made in (site, folder / "home", folder / "tmp"):
            made.mkdir(parents=True, exist_ok=True)
        shutil.copy(_SITE, site / "sitecustomize.py")
        places = {
            "checkout": str(CHECKOUT),
            "mounts": [str(each.resolve()) for each in mounts],
            "read_only": [str(each.resolve()) for each in read_only],
        }
        (site / "places.json").write_text(json.dumps(places))
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", command],
                cwd=self.working,
                env={
                    "PATH": path,
                    "LANG": "C.UTF-8",
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": str(site),
                    "TMPDIR": str(folder / "tmp"),
                    **environment,
                    "HOME": str(folder / "home"),
                    _MARK: self._mark,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    @property
    def code(self) -> int | None:
        """The command's exit code; None while it runs."""
        return self._process.poll()

    def warn(self) -> None:
        """Send the command and what it runs SIGTERM, as before a machine is taken away."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Take the machine away: every process on it ends at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self._mark:
                    process.kill()
                    process.wait(5)


def bare(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without what only a client's machine has: home and login."""
    own = ("AZURE_", "XDG_CONFIG_", "XDG_DATA_")
    return {
        name: value
        for name, value in environment.items()
        if not name.startswith(own) and name != "HOME"
    }
