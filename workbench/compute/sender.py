"""What a cloud's sender takes and gives: one description of a job, whichever SDK sends it.

A cloud is reached by a ``Sender`` and its storage by a ``Store``. Nothing here knows an SDK.
"""

import importlib.metadata
import math
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import yaml  # type: ignore[import-untyped, unused-ignore]

import workbench
import workbench_kernels
from workbench.azure_login import Workspace
from workbench.azure_resources import busy_seconds
from workbench.compute.gpus import TORCH_BUILDS
from workbench.compute.images import IMAGES
from workbench.compute.node import DEVICE, NODES, STORE
from workbench.progress import duration
from workbench.settings import Secret, notebooks

if TYPE_CHECKING:
    from workbench.stores.blob import BlobStore

NODES_EXTRA = "nodes"
"""The extra of pyproject.toml that only nodes have: MLflow's way into the workspace."""
CHANNELS = ("conda-forge", "nodefaults")
CONDA = ("python=3.11", "xz>=5.4", "pip")
"""What conda brings to a node, as in ``environment.yml``; pip brings the rest.

Without ``nodefaults`` conda asks Anaconda's own channels as well. Since 2025 they want their terms
accepted, which nobody does while an image is built: the build may stop there.
"""


TRIES = 10
"""How often a job is sent while the cloud is too busy to take it."""


class ClusterError(RuntimeError):
    """The cloud refuses a request; the message says why and what to do."""


class LostContactError(ClusterError):
    """The cloud cannot be reached, or is busy; a later try may work.

    Attributes:
        wait: seconds for which nobody should ask, where the cloud was asked too often; else 0.
    """

    def __init__(self, message: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.wait = wait


class MissingError(ClusterError):
    """The workspace has nothing of that name."""


def refusal(status: int | None, message: str, retry_after: str | None = None) -> ClusterError:
    """Return the error for an answer of AzureML's, with what to do, by its HTTP status."""
    message = " ".join(message.split())[:500]
    if status in (408, 429) or (status or 0) >= 500:
        return LostContactError(f"AzureML answers {status}", busy_seconds(status, retry_after))
    if status == 401:
        message = "AzureML does not accept the login: run `az login` again, or renew the principal"
    elif status == 403:
        message = (
            "this login may not do that in the workspace: ask for the role AzureML Data Scientist "
            f"there ({message})"
        )
    elif status == 404:
        return MissingError(
            f"not found: check subscription, resource group and workspace ({message})"
        )
    elif "quota" in message.lower():
        message = f"{message}. Ask for more cores in the studio (Quotas), or take fewer nodes"
    return ClusterError(message)


@dataclass(frozen=True)
class Cluster:
    """A cluster of a workspace.

    Attributes:
        nodes: machines that it has now; None where the SDK does not say.
        state: of its provisioning; "Succeeded" where it can be used.
        problem: what keeps it from growing, such as a quota; "" where nothing does.
        identity: whether its nodes have a managed identity to log in with.
    """

    name: str
    vm_size: str
    low_priority: bool
    max_nodes: int
    nodes: int | None = None
    state: str = "Succeeded"
    problem: str = ""
    identity: bool = False
    region: str = ""

    def __str__(self) -> str:
        priority = "low priority" if self.low_priority else "dedicated"
        return f"{self.name} ({self.vm_size}, {priority}, up to {self.max_nodes} nodes)"


@dataclass(frozen=True)
class Datastore:
    """A blob container that a workspace knows, with the key or signature that it holds."""

    name: str
    account: str
    container: str
    endpoint: str = "core.windows.net"
    key: Secret | None = None
    default: bool = False

    def store(self, path: str) -> "BlobStore":
        """Open a folder in it, with the workspace's key or else our own login."""
        from workbench.stores.blob import BlobStore

        endpoint = f"https://{self.account}.blob.{self.endpoint}"
        return BlobStore(endpoint, self.container, path, key=self.key)


@dataclass(frozen=True)
class DataFolder:
    """A folder of a datastore, as each node gets it.

    Attributes:
        name: what the job calls it, "dataset" or "store".
        mode: "mount" (read-only), "download" (once a node), "write" (mounted for writing), or
            "stream": the node gets only the folder's address, and reads ranges by its identity.
    """

    name: str
    datastore: str
    path: str
    mode: str
    address: str = ""


@dataclass(frozen=True)
class ClusterJob:
    """A job on a cluster: the same notebook on every node.

    Attributes:
        device: "GPU" where the cluster's machines have GPUs, else "CPU".
        store: folder that outlives the nodes; what they leave goes there.
        parameters: of the notebook; None stands for its default and is left out.
        notebook: its name.
        paths: parameters that are places on a node, ``{dataset}`` and ``{store}`` for its folders.
        torch_build: "" for the default build of torch, or one of ``TORCH_BUILDS``.
        code: files and packages of somebody's own that it takes along, by their places.
        shared_memory: room of a node where loader processes leave batches for their ranks, as
            Docker takes it.
    """

    environment: ClassVar[str] = "fastmri-workbench"

    name: str
    experiment: str
    cluster: str
    nodes: int
    device: str
    dataset: DataFolder
    store: DataFolder
    parameters: Mapping[str, Any]
    tags: Mapping[str, str] = field(default_factory=dict)
    torch_build: str = ""
    code: Mapping[str, Path] = field(default_factory=dict)
    notebook: str = "train"
    paths: Mapping[str, str] = field(default_factory=lambda: {"local_dataset": "{dataset}"})
    shared_memory: str = "4g"

    @property
    def image(self) -> str:
        """The image that the nodes' environment is built on."""
        return IMAGES[self.device]

    @property
    def packages(self) -> dict[str, Any]:
        """What is installed into it, as conda takes it."""
        return conda_specification(self.torch_build, extra=NODES_EXTRA)

    @property
    def folders(self) -> tuple[DataFolder, ...]:
        """The folders that the cloud brings to the nodes."""
        return tuple(each for each in (self.dataset, self.store) if each.mode != "stream")

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of every node."""
        return {NODES: str(self.nodes), DEVICE: self.device, "PYTHONUNBUFFERED": "1"}

    def command(self, places: Mapping[str, str]) -> str:
        """Return what every node runs in its shell; ``places`` says where each folder is.

        All work in a folder of their own disk: ``outputs``, which AzureML collects, may be a mount
        that knows neither renames nor locks. Node 0 copies what it leaves there at the end.
        """
        given = {key: value for key, value in self.parameters.items() if value is not None}
        given["target"] = "local"
        address = re.sub(r'(["$`\\])', r"\\\1", self.dataset.address)  # inside of quotes
        folders = {"store": places["store"], "dataset": address, **places}
        paths = (f'-r {name} "{path.format_map(folders)}"' for name, path in self.paths.items())
        executed = f"{self.notebook}.ipynb"
        # As YAML writes it: 1e-05, as JSON does, is text to papermill.
        written = yaml.safe_dump(given, default_flow_style=True, width=math.inf).strip()
        return "; ".join(
            (
                'export PYTHONPATH="$PWD:${PYTHONPATH:-}" WORKBENCH_ROOT="$(mktemp -d)"',
                f'export {STORE}="{places["store"]}"',
                'mkdir -p "$WORKBENCH_ROOT/outputs"',
                f'python -m papermill notebooks/{executed} "$WORKBENCH_ROOT/outputs/{executed}" '
                f"-y {shlex.quote(written)} {' '.join(paths)} --log-output --no-progress-bar",
                "code=$?",
                'if [ "${NODE_RANK:-0}" = 0 ]',
                f'then cp "$WORKBENCH_ROOT/outputs/{executed}" "${STORE}/{executed}"',
                'python -m workbench.compute.kept "$WORKBENCH_ROOT/outputs" outputs',
                "fi",
                "exit $code",
            )
        )


@dataclass(frozen=True)
class RunState:
    """How a run stands: AzureML's own word, the studio's page, and why it failed, where known."""

    status: str
    url: str = ""
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("Completed", "Failed", "Canceled")


class Sender(Protocol):
    """A workspace through one of the SDKs.

    All methods raise ``LostContactError`` where a later try may work, ``ClusterError`` where the
    workspace refuses, and ``LoginError`` where no login works.
    """

    sdk: ClassVar[str]
    package: ClassVar[str]
    address: Workspace

    def __init__(self, workspace: Workspace) -> None:
        self.address = workspace

    def open(self) -> None:
        """Log in, and look the workspace up."""

    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""

    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""

    def submit(self, job: ClusterJob, run: str) -> None:
        """Send a job, to be the run of that id; see ``new_run``."""

    def send(self, job: ClusterJob, run: str) -> None:
        """Send a job as ``submit`` does; where the cloud was asked too often, again when it may."""
        for _ in range(TRIES):
            try:
                return self.submit(job, run)
            except LostContactError as error:
                if not error.wait:  # whether it was taken is not known
                    raise
                print(f"{error}: asked again in {duration(error.wait)}", flush=True)
                time.sleep(error.wait)
        return self.submit(job, run)

    def state(self, run: str) -> RunState:
        """Return how a run stands."""

    def cancel(self, run: str) -> None:
        """Cancel a run."""

    def looks(
        self, run: str, pause: float, wait: Callable[[float], Any] = time.sleep
    ) -> Iterator[RunState]:
        """Yield how a run stands, every ``pause`` seconds, until it has ended.

        Where contact is lost the next look may come through. A true answer of ``wait`` ends it.
        """
        while True:
            seconds = pause
            try:
                state = self.state(run)
                yield state
                if state.ended:
                    return
            except LostContactError as error:
                seconds = max(pause, error.wait)
            if wait(seconds):
                return

    def known(self, run: str) -> RunState | None:
        """Return how a run stands that was sent before; None where AzureML knows no such run."""
        try:
            return self.state(run)
        except MissingError:
            return None


def new_run() -> str:
    """Return an id for a job that is about to be sent.

    Who sends it notes the id first: a job that the cloud took while its sender was killed, or lost
    contact, is found by it, and not sent and paid for twice.
    """
    return f"workbench-{secrets.token_hex(8)}"


@contextmanager
def snapshot(own: Mapping[str, Path] | None = None) -> Iterator[Path]:
    """Copy the code that goes to the cluster into a folder of its own: packages and notebooks.

    ``own`` are files and packages of somebody's own, by their places in it.
    """
    litter = shutil.ignore_patterns("__pycache__", "*.h5", "*.secret", "curl.txt", ".*")
    with tempfile.TemporaryDirectory() as folder:
        for package in (workbench, workbench_kernels):
            (place,) = package.__path__
            shutil.copytree(place, Path(folder, package.__name__), ignore=litter)
        Path(folder, "notebooks").mkdir()
        for notebook in notebooks().glob("*.ipynb"):
            shutil.copy(notebook, Path(folder, "notebooks"))
        for place, path in (own or {}).items():
            to = Path(folder, place)
            to.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, to, ignore=litter, dirs_exist_ok=True)
            else:
                shutil.copy(path, to)
        yield Path(folder)


def conda_specification(
    torch_build: str = "", only: Collection[str] = (), extra: str = ""
) -> dict[str, Any]:
    """Return the packages of a node as conda takes them.

    Args:
        torch_build: another build of torch than the usual one.
        only: names of the run-time packages to take; all where none is given.
        extra: of pyproject.toml, whose packages are added.

    Raises:
        ValueError: there is no such build.
    """
    found = importlib.metadata.requires("fastmri-workbench") or []
    pip = [line for line in found if "extra ==" not in line]
    if extra:
        marker = re.compile(rf"\s*;\s*extra == ['\"]{extra}['\"]$")
        pip += [marker.sub("", line) for line in found if marker.search(line)]
    if only:
        pip = [line for line in pip if re.split(r"[^\w.-]", line)[0] in only]
    if torch_build:
        if torch_build not in TORCH_BUILDS:
            raise ValueError(
                f"torch_build={torch_build!r}: give one of {', '.join(TORCH_BUILDS)}, or None"
            )
        pip = [re.sub(r"^(torch==[\d.]+)$", rf"\1+{torch_build}", line) for line in pip]
        pip.insert(0, f"--extra-index-url https://download.pytorch.org/whl/{torch_build}")
    return {
        "name": "fastmri-workbench",
        "channels": [*CHANNELS],
        "dependencies": [*CONDA, {"pip": pip}],
    }


def check_experiment(name: str) -> str:
    """Check an experiment's name, as AzureML takes it; ValueError where it would refuse it."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,254}", name):
        raise ValueError(
            f"experiment={name!r}: give letters, digits, '-' and '_', up to 255, such as fastmri"
        )
    return name


def parse_tags(text: str | None) -> dict[str, str]:
    """Read tags written as "study:4x, who:me"; ValueError where they are written otherwise."""
    tags = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, separator, value = part.partition(":")
        if not separator or not name.strip():
            raise ValueError(f"tags={text!r}: give NAME:VALUE, several separated by commas")
        tags[name.strip()] = value.strip()
    return tags
