"""A job on a cluster, whichever cloud takes it: its folders, packages, code, and its command."""

import importlib.metadata
import math
import re
import shlex
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import yaml  # type: ignore[import-untyped, unused-ignore]

import workbench
import workbench_kernels
from workbench.compute.gpus import TORCH_BUILDS
from workbench.compute.images import IMAGES
from workbench.compute.node import DEVICE, NODES, STORE
from workbench.settings import notebooks

NODES_EXTRA = "nodes"
"""The extra of pyproject.toml that only nodes have: MLflow's way into the workspace."""
CHANNELS = ("conda-forge", "nodefaults")
CONDA = ("python=3.11", "xz>=5.4", "pip")
"""What conda brings to a node, as in ``environment.yml``; pip brings the rest.

Without ``nodefaults`` conda asks Anaconda's own channels as well. Since 2025 they want their terms
accepted, which nobody does while an image is built: the build may stop there.
"""


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
        that knows neither renames nor locks. Node 0 copies what it leaves there at the end. The
        dataset stands in ``datasets/`` under its own name, whatever the cloud calls its mount.
        """
        given = {key: value for key, value in self.parameters.items() if value is not None}
        given["target"] = "local"
        address, link = self.dataset.address, ""
        if place := places.get("dataset"):
            name = Path(self.dataset.path).name
            address = f"datasets/{name}"
            link = f'ln -s "$(realpath "{place}")" "$WORKBENCH_ROOT/"{shlex.quote(address)}'
        address = re.sub(r'(["$`\\])', r"\\\1", address)  # inside of quotes
        folders = {"store": places["store"], "dataset": address}
        paths = (f'-r {name} "{path.format_map(folders)}"' for name, path in self.paths.items())
        executed = f"{self.notebook}.ipynb"
        # As YAML writes it: 1e-05, as JSON does, is text to papermill.
        written = yaml.safe_dump(given, default_flow_style=True, width=math.inf).strip()
        return "; ".join(
            (
                'export PYTHONPATH="$PWD:${PYTHONPATH:-}" WORKBENCH_ROOT="$(mktemp -d)"',
                f'export {STORE}="{places["store"]}"',
                'mkdir -p "$WORKBENCH_ROOT/outputs" "$WORKBENCH_ROOT/datasets"',
                *filter(None, [link]),
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
class ModuleJob(ClusterJob):
    """A job on one node that runs a module: ``python -m MODULE DATASET STORE PARAMETERS...``.

    Its environment holds what the ingest's pass over an archive imports, so that its image is built
    in minutes.
    """

    environment: ClassVar[str] = "fastmri-workbench-unpack"

    module: str = field(kw_only=True)

    @property
    def packages(self) -> dict[str, Any]:
        """What is installed into its image, as conda takes it."""
        return conda_specification(only=("requests", "urllib3"))

    def command(self, places: Mapping[str, str]) -> str:
        """Return what the node runs in its shell."""
        words = " ".join(shlex.quote(str(value)) for value in self.parameters.values())
        return (
            f'export PYTHONPATH="$PWD:${{PYTHONPATH:-}}"; python -m {self.module} '
            f'"{places["dataset"]}" "{places["store"]}" {words}'
        )


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
