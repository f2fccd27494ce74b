"""What a notebook asks of an ingest to Azure: its parameters, checked."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.azure_login import Workspace, credential
from workbench.azure_storage import AwaitsStorage, Storage
from workbench.ingest.azure.plan import CloudPlan, plan_cloud_ingest
from workbench.ingest.azure.run import CloudReport, run_cloud_ingest
from workbench.ingest.links import parse_links
from workbench.settings import Secret

if TYPE_CHECKING:
    from workbench.ingest.azure.run import Unpacker

UNPACK_ON = ("here", "azureml")
LEFTOVER = ("adopt", "delete")
SDKS = ("v1", "v2")


@dataclass
class CloudRequest(AwaitsStorage):
    """A checked order for an ingest to Azure.

    Attributes:
        workspace: the AzureML workspace.
        storage: the storage account; None until a person has typed its connection string.
        datasets: names of datasets; empty for all that the email offers.
        container: the container's name.
        location: where the factory is made; "" for the workspace's.
        keep_archives: whether each archive stays beside what it holds.
        accept_mismatch: stems of archives to take although their hash differs from the list.
        side_by_side: archives that are unpacked at the same time.
        unpack_on: one of ``UNPACK_ON``.
        cluster: AzureML cluster that unpacks, or "".
        sdk: AzureML's SDK that sends the jobs, one of ``SDKS``.
        leftover: what to do with a killed run's factory, one of ``LEFTOVER``.
        secure_runs: whether signed links go to the factory as secure parameters of its runs.
    """

    workspace: Workspace
    storage: Storage | None
    datasets: tuple[str, ...]
    container: str
    location: str
    keep_archives: bool
    accept_mismatch: tuple[str, ...]
    side_by_side: int
    unpack_on: str
    cluster: str
    sdk: str
    leftover: str
    secure_runs: bool

    def plan(self, text: Secret) -> CloudPlan:
        """Find out what there is to do for an email's text."""
        return plan_cloud_ingest(
            parse_links(text.reveal()),
            self.workspace,
            self.connected(),
            self.datasets,
            login=credential(),
            container=self.container,
            location=self.location,
            keep_archives=self.keep_archives,
            accept_mismatch=self.accept_mismatch,
        )

    def run(self, plan: CloudPlan, unpacker: "Unpacker | None" = None) -> CloudReport:
        """Do it; by default this machine verifies and unpacks."""
        return run_cloud_ingest(
            plan,
            login=credential(),
            unpacker=unpacker,
            side_by_side=self.side_by_side,
            leftover=self.leftover,
            secure_runs=self.secure_runs,
        )
