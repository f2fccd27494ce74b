"""What a workspace offers to train on, whichever SDK asks: clusters, datastores, runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from workbench.azure_login import Workspace, credential
from workbench.compute.cluster_job import ClusterJob
from workbench.ingest.blobs import CONTAINER
from workbench.settings import Secret
from workbench.stores.blob import wide_transport

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

SDKS = ("v1", "v2")
ENDED = ("Completed", "Failed", "Canceled")


class ClusterError(RuntimeError):
    """AzureML refuses what it was asked; the message says why and what to do."""


class LostContactError(ClusterError):
    """AzureML cannot be reached, or is busy; a later try may work."""


@dataclass(frozen=True)
class Cluster:
    """A cluster of a workspace.

    Attributes:
        name: its name.
        vm_size: size of its machines, such as "STANDARD_NC24ADS_A100_V4".
        low_priority: whether its machines may be taken away at any time.
        max_nodes: the most machines that it grows to.
        nodes: machines that it has now.
        state: of its provisioning; "Succeeded" where it can be used.
        problem: what keeps it from growing, such as a quota; "" where nothing does.
        identity: whether its nodes have a managed identity to log in with.
    """

    name: str
    vm_size: str
    low_priority: bool
    max_nodes: int
    nodes: int = 0
    state: str = "Succeeded"
    problem: str = ""
    identity: bool = False

    def __str__(self) -> str:
        priority = "low priority" if self.low_priority else "dedicated"
        return f"{self.name} ({self.vm_size}, {priority}, up to {self.max_nodes} nodes)"


@dataclass(frozen=True)
class Datastore:
    """A blob container that a workspace knows.

    Attributes:
        name: the datastore's name.
        account: the storage account.
        container: the container.
        endpoint: the cloud's suffix, "core.windows.net".
        key: the account's key, where the workspace holds one.
        signature: a shared access signature, where it holds one.
        default: whether it is the workspace's default.
    """

    name: str
    account: str
    container: str
    endpoint: str = "core.windows.net"
    key: Secret | None = None
    signature: Secret | None = None
    default: bool = False

    def address(self, path: str) -> str:
        """Return the URL of a folder in it."""
        return f"https://{self.account}.blob.{self.endpoint}/{self.container}/{path}"

    def client(self) -> "ContainerClient":
        """Return a client of the container, with the workspace's key or else our own login."""
        from azure.storage.blob import ContainerClient

        held = self.key or self.signature
        return ContainerClient(
            f"https://{self.account}.blob.{self.endpoint}",
            self.container,
            credential=held.reveal() if held else credential(),
            transport=wide_transport(),
        )


@dataclass(frozen=True)
class RunState:
    """How a run stands.

    Attributes:
        status: AzureML's own word: "Queued", "Running", "Completed", "Failed", "Canceled" ...
        url: the studio's page of the run.
        error: why it failed, where AzureML says so.
    """

    status: str
    url: str = ""
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ENDED


class Backend(Protocol):
    """A workspace through one of the SDKs.

    All methods raise ``LostContactError`` where a later try may work, and ``ClusterError`` where
    AzureML refuses.
    """

    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""

    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""

    def submit(self, job: ClusterJob) -> str:
        """Send a job; return its run's id."""

    def state(self, run: str) -> RunState:
        """Return how a run stands."""

    def cancel(self, run: str) -> None:
        """Cancel a run."""


def connect(workspace: Workspace, sdk: str) -> Backend:
    """Log in to a workspace through one of the SDKs.

    Raises:
        ValueError: there is no such SDK, or it is not installed.
        ClusterError: the workspace refuses, or there is none.
        LoginError: no login works.
    """
    if sdk == "v1":
        from workbench.compute.azureml import AzureML

        return AzureML(workspace)
    if sdk == "v2":
        from workbench.compute.azureml_v2 import AzureMLv2

        return AzureMLv2(workspace)
    raise ValueError(f"sdk={sdk!r}: give one of {', '.join(SDKS)}")


def choose_cluster(
    clusters: Sequence[Cluster], name: str | None, nodes: int, low_priority: bool | None
) -> Cluster:
    """Return the cluster to train on.

    Args:
        clusters: those of the workspace.
        name: the one that was asked for; None takes the only one that fits.
        nodes: machines that the job takes.
        low_priority: what its machines have to be; None takes either.

    Raises:
        ValueError: there is none of that name, it is too small, of the other priority or not
            ready, or a name has to be given.
    """
    offered = "; ".join(map(str, clusters)) or "none: make one in the studio, under Compute"
    if name is None:
        fitting = [
            each
            for each in clusters
            if each.max_nodes >= nodes and low_priority in (None, each.low_priority)
        ]
        if len(fitting) != 1:
            which = "several clusters fit" if fitting else f"no cluster takes {nodes} nodes"
            raise ValueError(f"cluster=None: {which}; give one of these: {offered}")
        (chosen,) = fitting
    else:
        named = [each for each in clusters if each.name.lower() == name.lower()]
        if not named:
            raise ValueError(f"cluster={name!r}: the workspace has {offered}")
        (chosen,) = named
    if chosen.max_nodes == 0:
        raise ValueError(f"cluster {chosen} has zero nodes: raise its maximum in the studio")
    if nodes > chosen.max_nodes:
        raise ValueError(
            f"nodes={nodes}: cluster {chosen}; give fewer, or raise its maximum in the studio"
        )
    if low_priority not in (None, chosen.low_priority):
        raise ValueError(
            f"low_priority={low_priority}: a cluster's priority is fixed when it is made, and this "
            f"one is {chosen}; the workspace has {offered}"
        )
    if chosen.state not in ("Succeeded", "Updating", "Creating"):
        raise ValueError(f"cluster {chosen.name} is {chosen.state}: mend it in the studio")
    return chosen


def choose_datastore(datastores: Sequence[Datastore], name: str | None) -> Datastore:
    """Return the datastore that holds the datasets.

    Args:
        datastores: those of the workspace.
        name: the one that was asked for; None takes that of the container ``datasets``, else the
            workspace's default.

    Raises:
        ValueError: there is none of that name, or none at all.
    """
    offered = ", ".join(f"{each.name} ({each.account}/{each.container})" for each in datastores)
    rules: tuple[Callable[[Datastore], bool], ...] = (
        (lambda each: each.container == CONTAINER, lambda each: each.default)
        if name is None
        else (lambda each: each.name == name,)
    )
    for rule in rules:
        found = [each for each in datastores if rule(each)]
        if len(found) > 1:
            names = ", ".join(each.name for each in found)
            raise ValueError(f"datastore=None: several hold {CONTAINER!r}; give one of {names}")
        if found:
            return found[0]
    raise ValueError(
        f"datastore={name!r}: the workspace has {offered or 'none'}; register the container "
        f"{CONTAINER!r} as a datastore in the studio (Data, Datastores)"
    )


def explain(status: int | None, message: str, headers: Mapping[str, str] | None = None) -> str:
    """Say what an answer of AzureML's means and what to do, by its HTTP status."""
    if status == 401:
        return "AzureML does not accept the login: run `az login` again, or renew the principal"
    if status == 403:
        return (
            "this login may not do that in the workspace: ask for the role AzureML Data Scientist "
            f"there ({message})"
        )
    if status == 404:
        return f"not found: check subscription, resource group and workspace ({message})"
    if "quota" in message.lower():
        return f"{message}. Ask for more cores in the studio (Quotas), or take fewer nodes"
    return message


def is_passing(status: int | None) -> bool:
    """Say whether a refusal may pass by itself: no answer, too many requests, server trouble."""
    return status is None or status in (408, 429) or status >= 500
