"""What is sent to a cluster, the same whichever SDK sent it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cloud.clusters import Cluster


@dataclass(frozen=True)
class Data:
    """A folder of a container as a job gets it.

    Attributes:
        name: what the job calls it.
        container: the container.
        path: the folder in it.
        mode: "mount" (shared by the nodes), "download" (a copy for each) or "write" (mounted, and
            what is written there goes back).
        variable: environment variable that says where it is; "" for none.
    """

    name: str
    container: str
    path: str
    mode: str
    variable: str = ""


@dataclass(frozen=True)
class Submission:
    """A job as it was sent.

    Attributes:
        id: the run's id.
        experiment: the experiment's name.
        command: what each node's shell runs; ``${{inputs.x}}`` stands for a folder.
        cluster: where to.
        nodes: how many machines.
        variables: environment variables.
        data: the folders.
        snapshot: places the source into a folder.
        distributed: whether the nodes are told of each other.
        tags: its tags.
        name: shown in the studio.
        image: the image that its environment is built on.
        conda: the environment's packages, as conda takes them.
        document: the document itself, as it was sent.
    """

    id: str
    experiment: str
    command: str
    cluster: Cluster
    nodes: int
    variables: Mapping[str, str]
    data: tuple[Data, ...]
    snapshot: Callable[[Path], None]
    distributed: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    name: str = ""
    image: str = ""
    conda: Mapping[str, Any] = field(default_factory=dict)
    document: Any = None
