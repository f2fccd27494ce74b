"""One description of a cluster's job, from which each SDK forms its own."""

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workbench.compute.gpus import TORCH_BUILDS
from workbench.compute.node import DEVICE, NODES, STORE

SOURCE = Path(__file__).resolve().parents[2]
"""The checkout: what ``.amlignore`` lets through of it goes to the cluster."""

NOTEBOOK = "notebooks/train.ipynb"
SHARED_MEMORY = "32g"
IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda12.1-cudnn8-ubuntu22.04"
ENVIRONMENT = "fastmri-workbench"


@dataclass(frozen=True)
class DataFolder:
    """A folder of a datastore, as each node gets it.

    Attributes:
        name: what the job calls it, "dataset" or "store".
        datastore: the datastore's name.
        path: the folder in the datastore.
        mode: "mount" (read-only), "download" (once a node), "write" (mounted for writing), or
            "stream": the node gets only the folder's address, and reads ranges by its identity.
        address: URL of the folder; needed to stream.
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
        name: of the run.
        experiment: that it is listed under.
        cluster: the cluster's name.
        nodes: number of machines.
        device: "GPU" where the cluster's machines have GPUs, else "CPU".
        dataset: the dataset's folder.
        store: folder that outlives the nodes; checkpoints go there.
        parameters: of the notebook; None stands for its default and is left out.
        tags: shown in the studio.
        torch_build: "" for the default build of torch, or one of ``TORCH_BUILDS``.
    """

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

    @property
    def folders(self) -> tuple[DataFolder, ...]:
        """The folders that AzureML brings to the nodes."""
        return tuple(each for each in (self.dataset, self.store) if each.mode != "stream")

    @property
    def variables(self) -> dict[str, str]:
        """Environment variables of every node."""
        return {NODES: str(self.nodes), DEVICE: self.device, "PYTHONUNBUFFERED": "1"}

    def command(self, places: Mapping[str, str]) -> str:
        """Return what every node runs in its shell.

        Only node 0 has its folder where AzureML collects a job's outputs: all nodes' files would
        meet there under the same names.

        Args:
            places: the names of ``folders`` -> how the shell writes where they are.
        """
        import yaml  # type: ignore[import-untyped, unused-ignore]

        given = {key: value for key, value in self.parameters.items() if value is not None}
        given |= {"nodes": self.nodes, "target": "local", "name": self.name}
        # As YAML writes it: 1e-05, as JSON does, is text to papermill.
        written = yaml.safe_dump(given, default_flow_style=True, width=math.inf).strip()
        return "; ".join(
            (
                'export PYTHONPATH="$PWD:${PYTHONPATH:-}" WORKBENCH_ROOT="$PWD"',
                f'export {STORE}="{places["store"]}"',
                '[ "${NODE_RANK:-0}" = 0 ] || export WORKBENCH_ROOT="$(mktemp -d)"',
                'mkdir -p "$WORKBENCH_ROOT/outputs"',
                f'python -m papermill {NOTEBOOK} "$WORKBENCH_ROOT/outputs/train.ipynb" '
                f"-y {shlex.quote(written)} "
                f'-r local_dataset "{places.get("dataset", self.dataset.address)}" '
                "--log-output --no-progress-bar",
                "code=$?",
                '[ "${NODE_RANK:-0}" != 0 ] || '
                f'cp "$WORKBENCH_ROOT/outputs/train.ipynb" "${STORE}/train.ipynb"',
                "exit $code",
            )
        )


def conda_specification(torch_build: str = "", file: Path | None = None) -> dict[str, Any]:
    """Return environment.yml as AzureML takes it, with another build of torch where asked.

    Args:
        torch_build: "" for the list as it is, or one of ``TORCH_BUILDS``, such as "cu126".
        file: the list, the project's own by default.

    Raises:
        ValueError: there is no such build, or the list does not pin torch.
    """
    import yaml

    specification = yaml.safe_load((file or SOURCE / "environment.yml").read_text())
    if not torch_build:
        return specification
    if torch_build not in TORCH_BUILDS:
        raise ValueError(
            f"torch_build={torch_build!r}: give one of {', '.join(TORCH_BUILDS)}, or None"
        )
    (pip,) = [each["pip"] for each in specification["dependencies"] if isinstance(each, dict)]
    pinned = [place for place, line in enumerate(pip) if re.fullmatch(r"torch==[\d.]+", line)]
    if len(pinned) != 1:
        raise ValueError("environment.yml does not pin torch as torch==X.Y.Z")
    pip[pinned[0]] += f"+{torch_build}"
    pip.insert(0, f"--extra-index-url https://download.pytorch.org/whl/{torch_build}")
    return specification


def parse_tags(text: str | None) -> dict[str, str]:
    """Read tags written as "study:4x, who:me".

    Raises:
        ValueError: it is written otherwise.
    """
    tags = {}
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, separator, value = part.partition(":")
        if not separator or not name.strip():
            raise ValueError(f"tags={text!r}: give NAME:VALUE, several separated by commas")
        tags[name.strip()] = value.strip()
    return tags
