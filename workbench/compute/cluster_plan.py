"""Where a notebook's job goes, and how its nodes get data: checked before anything is sent."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

from workbench.azure_login import credential, require_workspace
from workbench.azure_resources import ResourceManager
from workbench.compute.cluster import choose_cluster, choose_datastore, connect
from workbench.compute.cluster_job import ClusterJob, DataFolder, conda_specification
from workbench.compute.estimate import Pace, Price, retail_price
from workbench.compute.gpus import cluster_warnings, has_gpus
from workbench.compute.images import IMAGES, check_image
from workbench.compute.jobs import in_words
from workbench.compute.plan import Cloud
from workbench.compute.sender import Cluster, Datastore, Sender
from workbench.models.entry import check_whole

Access = Literal["mount", "download", "stream"]


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


class ClusterChoices(pydantic.BaseModel):
    """A notebook's parameters that count only on a cluster; ``train.ipynb`` explains each.

    ``dataset_mountpoint`` is taken since the tools of 2021 had it, and has no effect.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    cluster: str | None = None
    low_priority: bool | None = None
    dataset_access: Access | None = None
    dataset_mount: bool | None = None
    dataset_mountpoint: str | None = None
    azure_dataset: str | None = None
    datastore: str | None = None
    experiment: Annotated[str, AfterValidator(check_experiment)] = "fastmri"
    tags: str | None = None
    torch_build: str = ""
    sdk: str | None = None
    price_per_hour: float | None = Field(None, ge=0)

    @property
    def access(self) -> Access:
        """How the nodes read the dataset; ``dataset_mount`` is the name of 2021 for it."""
        named: Access | None = None
        if self.dataset_mount is not None:
            named = "mount" if self.dataset_mount else "download"
        if named and self.dataset_access not in (None, named):
            raise ValueError(
                f"dataset_access={self.dataset_access!r} and dataset_mount={self.dataset_mount}: "
                "give one of the two"
            )
        return self.dataset_access or named or get_args(Access)[0]


@dataclass(frozen=True)
class Site:
    """A cluster and a container of a workspace, which take jobs of so many nodes."""

    chosen: ClusterChoices
    nodes: int
    sender: Sender
    cluster: Cluster
    datastore: Datastore

    @property
    def remarks(self) -> list[str]:
        """What a person should know before anything is sent there."""
        chosen, cluster, sender = self.chosen, self.cluster, self.sender
        remarks = []
        if cluster.problem:
            remarks.append(f"the cluster reports: {cluster.problem}")
        if chosen.dataset_mountpoint is not None:
            remarks.append(
                f"dataset_mountpoint={chosen.dataset_mountpoint!r} has no effect: AzureML chooses "
                "where a node mounts the dataset, and the notebook there is told"
            )
        first = "" if chosen.sdk else ", the first that this Python and the workspace support"
        return [*remarks, f"sent through AzureML's SDK {sender.sdk} ({sender.package}){first}"]

    @property
    def warnings(self) -> list[str]:
        """What its GPUs, or the lack of them, mean for a network."""
        return cluster_warnings(self.cluster.vm_size, self.chosen.torch_build)

    def job(self, name: str, folder: str, **told: Any) -> ClusterJob:
        """Describe a job on a dataset's folder, which keeps what it leaves under ``runs/NAME``.

        ``told`` are the other fields of ``ClusterJob``.
        """
        container = self.datastore
        address = container.store(folder).address
        return ClusterJob(
            name=name,
            experiment=self.chosen.experiment,
            cluster=self.cluster.name,
            nodes=self.nodes,
            device=_device(self.cluster),
            dataset=DataFolder("dataset", container.name, folder, self.chosen.access, address),
            store=DataFolder("store", container.name, f"runs/{name}", "write"),
            tags=parse_tags(self.chosen.tags),
            torch_build=self.chosen.torch_build,
            shared_memory=f"{self.shared_memory}g",
            **told,
        )

    @property
    def shared_memory(self) -> int:
        """GiB of a node's memory that its processes may share: half of it, as Linux has it.

        A machine of a size that Azure does not list is taken for a small one.
        """
        from azure.core.exceptions import AzureError

        memory, workspace = None, self.sender.address
        with suppress(AzureError):
            memory = ResourceManager(credential()).vm_memory(
                workspace.subscription_id, self.cluster.region, self.cluster.vm_size
            )
        return max(int((memory or 16) // 2), 1)

    @property
    def price(self) -> Price | None:
        """What a node costs: the price that was given; else, with GPUs, that of Azure's list."""
        given, cluster = self.chosen.price_per_hour, self.cluster
        if given is not None:
            return Price(given, f"price_per_hour={given:g} US dollars a node")
        if not has_gpus(cluster.vm_size):
            return None
        return retail_price(cluster.vm_size, cluster.region, low_priority=cluster.low_priority)

    def cloud(self, job: ClusterJob, pace: Pace | None = None) -> Cloud:
        """Say where a job is sent, and what that takes."""
        store = self.datastore.store(job.store.path)
        return Cloud(self.cluster, job, self.sender, store, pace, self.price)


def read_choices(choices: Mapping[str, Any]) -> ClusterChoices:
    """Check parameters that count only on a cluster, None for a default; ValueError says which."""
    try:
        chosen = ClusterChoices(**{key: each for key, each in choices.items() if each is not None})
    except pydantic.ValidationError as error:
        raise ValueError(in_words(error)) from None
    assert chosen.access  # or refuses
    parse_tags(chosen.tags)
    conda_specification(chosen.torch_build)
    return chosen


def refuse_local(local_dataset: str | None) -> None:
    """Refuse a dataset of this machine, where a job goes to a cluster."""
    if local_dataset:
        raise ValueError(
            f"local_dataset={local_dataset!r} is for this machine: for target=azureml give "
            "azure_dataset, a folder in the container"
        )


def find_site(nodes: int, chosen: ClusterChoices, *, gpus: bool = True) -> Site:
    """Log in to the workspace, and choose what takes a job of so many nodes.

    ``gpus`` says whether the job computes with them; see ``choose_cluster``.

    Raises:
        ValueError: no workspace is configured, or it has no such cluster or datastore.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    check_whole("nodes", nodes, 1)
    sender = connect(require_workspace(), chosen.sdk)
    cluster = choose_cluster(
        sender.clusters(), chosen.cluster, nodes, chosen.low_priority, gpus=gpus
    )
    if chosen.access == "stream" and not cluster.identity:
        raise ValueError(
            f"dataset_access='stream': cluster {cluster.name} has no managed identity to read the "
            "storage with: assign it one in the studio, with the role Storage Blob Data Reader on "
            "the account, or give 'mount' or 'download'"
        )
    check_image(IMAGES[_device(cluster)])
    datastore = choose_datastore(sender.datastores(), chosen.datastore)
    return Site(chosen, nodes, sender, cluster, datastore)


def _device(cluster: Cluster) -> str:
    return "GPU" if has_gpus(cluster.vm_size) else "CPU"
