"""What a cloud's sender takes and gives, whichever SDK it sends by.

A cloud is reached by a ``Sender`` and its storage by a ``Store``. Nothing here knows an SDK.
"""

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.azure_login import Workspace
from workbench.azure_resources import busy_seconds
from workbench.compute.cluster_job import ClusterJob
from workbench.progress import duration
from workbench.settings import Secret

if TYPE_CHECKING:
    from workbench.stores.blob import BlobStore
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
class RunState:
    """How a run stands: AzureML's own word, the studio's page, and why it failed, where known."""

    status: str
    url: str = ""
    error: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in ("Completed", "Failed", "Canceled")


class Sender(ABC):
    """A workspace through one of the SDKs.

    All methods raise ``LostContactError`` where a later try may work, ``ClusterError`` where the
    workspace refuses, and ``LoginError`` where no login works.
    """

    sdk: ClassVar[str]
    package: ClassVar[str]
    address: Workspace

    def __init__(self, workspace: Workspace) -> None:
        self.address = workspace

    @abstractmethod
    def open(self) -> None:
        """Log in, and look the workspace up."""

    @abstractmethod
    def clusters(self) -> list[Cluster]:
        """Return the clusters that jobs can be sent to."""

    @abstractmethod
    def datastores(self) -> list[Datastore]:
        """Return the blob containers that the workspace knows."""

    @abstractmethod
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

    @abstractmethod
    def state(self, run: str) -> RunState:
        """Return how a run stands."""

    @abstractmethod
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
