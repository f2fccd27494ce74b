"""Jobs on clusters: queued, run on their nodes, preempted, cancelled; as both SDKs see them."""

import importlib.util
import os
import re
import shutil
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cloud.data import Mirror, fetch
from tests.cloud.images import build_problem
from tests.cloud.node import CHECKOUT, Node
from tests.cloud.service import now
from tests.cloud.submission import Data, Submission

if TYPE_CHECKING:
    from tests.cloud.storage import Storage

ENDED = ("Completed", "Failed", "Canceled")
ARTIFACTS = "azureml"  # The container that holds what runs leave.
_LOOK = 0.1


class Job:
    """One job, on a thread of its own from its submission to its end.

    Attributes:
        seconds_to_stop: for which the other nodes run on once one has failed; the service tells
            nobody how long it takes.
        submission: what was sent.
        status: in AzureML's words.
        error: why it failed.
        attempts: how often its nodes were started.
        downloads: how many copies of the data were made, by the data's name.
        nodes: its machines of the latest attempt.
    """

    seconds_to_stop = 10.0

    def __init__(
        self,
        submission: Submission,
        folder: Path,
        storage: "Storage",
        environment: Callable[[Submission], Mapping[str, str]],
    ) -> None:
        self.submission, self.folder = submission, folder
        self.id = submission.id
        self.status, self.error, self.attempts = "Queued", "", 0
        self.created, self.started, self.ended = now(), None, None
        self.tags, self.properties = dict(submission.tags), {}
        self.display_name = submission.name or submission.id
        self.downloads: dict[str, int] = {}
        self.nodes: list[Node] = []
        self._storage, self._environment = storage, environment
        self._said: dict[str, bytes] = {}
        self._asked: str | None = None  # "cancel", "requeue" or "lose"
        self._taken: str | None = None  # one of the latter two, from the warning on
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"job {self.id}", daemon=True)
        self._thread.start()

    # ---- what others ask of it -------------------------------------------------------

    def cancel(self) -> None:
        """Ask it to stop."""
        if self.status not in ENDED:
            self.status = "CancelRequested"
            self._asked = "cancel"

    def preempt(self, node: int = 0, *, requeue: bool = True, warning: float = 2.0) -> None:
        """Take a machine away from it.

        Args:
            node: which.
            requeue: the service starts the job again by itself, as it does for low-priority
                machines; else the job fails.
            warning: seconds from SIGTERM to the machine's end; 0 for no warning.
        """
        machine = self.nodes[node]
        self._taken = "requeue" if requeue else "lose"
        if warning:
            machine.warn()
            time.sleep(warning)
        with self._lock:
            self._asked = self._asked or self._taken
            machine.kill()

    def log(self, node: int = 0) -> str:
        """Return what a node has printed in the latest attempt."""
        return self.nodes[node].log.read_text(errors="replace")

    def join(self, seconds: float = 120) -> "Job":
        """Wait for its end.

        Raises:
            TimeoutError: it goes on for longer.
        """
        self._thread.join(seconds)
        if self._thread.is_alive():
            raise TimeoutError(f"job {self.id} is {self.status} after {seconds} s")
        return self

    @property
    def artifacts(self) -> str:
        """Where in the container of artifacts its files lie."""
        return f"ExperimentRun/dcid.{self.id}"

    # ---- on its thread ---------------------------------------------------------------

    def _run(self) -> None:
        cluster = self.submission.cluster
        self.error = build_problem(self.submission.image, self.submission.conda)
        if self.error:
            self.status = "Failed"
        try:
            while self.status not in ENDED:
                if not cluster.take(self.submission.nodes, lambda: self._asked == "cancel"):
                    self.status = "Canceled"
                    break
                try:
                    self._attempt()
                finally:
                    cluster.release(self.submission.nodes)
        except Exception:
            self.error = f"The emulator failed:\n{traceback.format_exc()}"
            print(self.error, file=sys.stderr)  # SDK v2 tells nobody why
            self.status = "Failed"
        self.ended = now()

    def _attempt(self) -> None:
        """Run the command once on all nodes; leaves the status that follows from it."""
        self.attempts += 1
        folder = self.folder / f"attempt{self.attempts}"
        self.status = "Preparing"
        mirrors = self._start(folder)
        self.started = self.started or now()
        if self._asked is None:
            self.status = "Running"
        last_push = time.monotonic()
        failed, failed_at = None, 0.0
        while any(node.code is None for node in self.nodes) or (self._taken and not self._asked):
            if failed is None:
                failed = next((n for n, node in enumerate(self.nodes) if node.code), None)
                failed_at = time.monotonic()
            stopping = failed is not None and not self._taken
            if self._asked or (stopping and time.monotonic() - failed_at > self.seconds_to_stop):
                break
            if time.monotonic() - last_push > 5 * _LOOK:
                self._push(mirrors)
                last_push = time.monotonic()
            time.sleep(_LOOK)
        with self._lock:
            asked, self._asked, self._taken = self._asked, None, None
        if failed is None:
            failed = next((n for n, node in enumerate(self.nodes) if node.code), None)
        codes = [node.code for node in self.nodes]
        for node in self.nodes:
            node.kill()
        self._push(mirrors)
        if asked is None:
            self.status = "Finalizing"
        self._settle(asked, failed, codes)

    def _settle(self, asked: str | None, failed: int | None, codes: list[int | None]) -> None:
        if asked == "cancel":
            self.status = "Canceled"
        elif asked == "requeue":
            self.status = "Queued"
        elif asked == "lose":
            self.error = "A node of the job was preempted or became unusable."
            self.status = "Failed"
        elif failed is not None:
            self.error = (
                f"Execution failed. User process on node {failed} exited with status code "
                f"{codes[failed]}. Please check log file "
                f"'user_logs/{self._log_name(failed)}' for error details."
            )
            self.status = "Failed"
        else:
            self.status = "Completed"

    def _start(self, folder: Path) -> list[Mirror]:
        sent = self.submission
        mirrors, shared = [], {}
        for data in sent.data:
            if data.mode == "mount":  # nobody writes there: one stands for that of every node
                shared[data.name] = folder / "mounts" / data.name
                self._fetch(data, shared[data.name])
        common = dict(self._environment(sent))
        code = self.folder / "code"
        if not code.exists():
            code.mkdir(parents=True)
            sent.snapshot(code)
            _bring_compiled(code)
        self.nodes = []
        for number in range(sent.nodes):
            own = folder / f"node{number}"
            shutil.copytree(code, own / "wd")
            places = dict(shared)
            for data in sent.data:
                if data.mode == "mount":
                    continue
                places[data.name] = place = own / "data" / data.name
                self._fetch(data, place)
                if data.mode == "write":
                    container = self._storage.container(data.container)
                    mirrors.append(Mirror(place, container, data.path))
            artifacts = self._storage.container(ARTIFACTS)
            for made in ("outputs", "logs"):  # an earlier attempt's files are there
                prefix = f"{self.artifacts}/{made}"
                fetch(artifacts, prefix, own / "wd" / made)
                mirrors.append(Mirror(own / "wd" / made, artifacts, prefix))
            mounts = [own / "wd/outputs", *(places[d.name] for d in sent.data if d.mode == "write")]
            variables = {d.variable: str(places[d.name]) for d in sent.data if d.variable}
            rank = _rank(number, sent.nodes) if sent.distributed else {}
            command = re.sub(
                r"\$\{\{\s*(?:inputs|outputs)\.(\w+)\s*\}\}",
                lambda match, places=places: str(places[match[1]]),
                sent.command,
            )
            told = common | variables | rank | dict(sent.variables)
            self.nodes.append(Node(own, command, told, mounts, shared.values()))
        return mirrors

    def _fetch(self, data: Data, folder: Path) -> None:
        fetch(self._storage.container(data.container), data.path, folder)
        self.downloads[data.name] = self.downloads.get(data.name, 0) + 1

    # ---- what it leaves --------------------------------------------------------------

    def _log_name(self, node: int) -> str:
        many = self.submission.nodes > 1
        return f"std_log_process_{node:02d}.txt" if many else "std_log.txt"

    def _push(self, mirrors: list[Mirror]) -> None:
        for mirror in mirrors:
            mirror.push()
        container = self._storage.container(ARTIFACTS)
        for number, node in enumerate(self.nodes):
            name, said = (
                f"{self.artifacts}/user_logs/{self._log_name(number)}",
                node.log.read_bytes(),
            )
            if self._said.get(name) != said:
                container.upload_blob(name, said, overwrite=True)
                self._said[name] = said


def _bring_compiled(code: Path) -> None:
    """Put beside the modules what this checkout has compiled of them: seconds of each node."""
    for path in code.rglob("*.py"):
        here = CHECKOUT / path.relative_to(code)
        compiled = Path(importlib.util.cache_from_source(str(here)))
        if compiled.exists() and here.read_bytes() == path.read_bytes():
            made = here.stat()
            os.utime(path, ns=(made.st_atime_ns, made.st_mtime_ns))  # as the compiled one says
            to = Path(importlib.util.cache_from_source(str(path)))
            to.parent.mkdir(exist_ok=True)
            shutil.copy(compiled, to)


def _rank(node: int, nodes: int) -> dict[str, str]:
    """What a node is told of itself by a PyTorch distribution with one process a node."""
    return {
        "NODE_RANK": str(node),
        "RANK": str(node),
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(nodes),
        "LOCAL_WORLD_SIZE": "1",
    }
