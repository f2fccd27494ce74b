"""AzureML: a workspace with clusters and datastores, whose jobs really run; for both SDKs."""

import secrets
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cloud.clusters import Cluster, vm_sizes
from tests.cloud.faults import Faults, ServiceError
from tests.cloud.history import add_history_routes
from tests.cloud.jobs import ARTIFACTS, Job
from tests.cloud.login import Login
from tests.cloud.management import Management
from tests.cloud.node import bare
from tests.cloud.service import Request, Service, now
from tests.cloud.storage import Storage
from tests.cloud.submission import Submission
from tests.cloud.submission_v1 import add_v1_routes
from tests.cloud.submission_v2 import add_v2_routes
from tests.cloud.tracking import Tracking

PATTERN = "*.api.azureml.ms"
WORKSPACE_ID = "11111111-1111-4111-8111-111111111111"


class AzureML(Service):
    """The resource provider Microsoft.MachineLearningServices with one workspace.

    As a service it is the workspace's own API, which SDK v1 speaks; what SDK v2 asks goes to
    Resource Manager, where it adds its routes.

    Args:
        faults: what the services fail with.
        login: whom to let in.
        management: Resource Manager.
        storage: the workspace's storage account.
        workspace: the workspace's name.
        folder: where jobs run.
        environment: variables that lead a process into the cloud.
        tracking: MLflow, which knows each job as a run.

    Attributes:
        clusters: name -> cluster; at first ``gpu-cluster`` (4 nodes) and ``cpu-cluster`` (2).
        datastores: name -> container; the default is ``workspaceblobstore``.
        jobs: id -> job, in the order of submission.
    """

    def __init__(
        self,
        faults: Faults,
        login: Login,
        management: Management,
        storage: Storage,
        workspace: str,
        folder: Path,
        environment: Mapping[str, str],
        tracking: Tracking,
    ) -> None:
        super().__init__("azureml", faults)
        self.log_in = lambda request: None if "/discovery" in request.path else login.check(request)
        self.storage, self.workspace = storage, workspace
        self.location = management.location
        self.scope = (
            f"{management.scope}/providers/Microsoft.MachineLearningServices/workspaces/{workspace}"
        )
        self.clusters: dict[str, Cluster] = {}
        self.add_cluster("gpu-cluster")
        self.add_cluster("cpu-cluster", vm_size="STANDARD_D4S_V3", nodes=2)
        self.datastores = {
            "workspaceblobstore": f"azureml-blobstore-{WORKSPACE_ID}",
            "workspaceartifactstore": ARTIFACTS,
            "fastmri": "datasets",
        }
        self.jobs: dict[str, Job] = {}
        self._management, self._login, self._folder = management, login, folder
        self._environment, self._tracking = environment, tracking
        for service in (management, self):
            service.on("GET", rf"(/rp/workspaces)?{self.scope}/computes", self._list_clusters)
            service.on(
                "GET", rf"(/rp/workspaces)?{self.scope}/computes/(?P<name>[^/]+)", self._get_cluster
            )
        management.on("GET", self.scope, lambda _: self.document())
        listing = self.scope.rpartition("/")[0]
        management.on("GET", listing, lambda _: {"value": [self.document()]})
        subscription = management.scope.partition("/resourceGroups")[0]
        provider = f"{subscription}/providers/Microsoft.MachineLearningServices"
        sizes = f"{provider}/locations/{self.location}/vmSizes"
        management.on("GET", sizes, lambda _: {"value": vm_sizes()})
        self.on("GET", r"(/[\w.]+)*/discovery.*", self._discovery)
        add_history_routes(self)
        add_v1_routes(self)
        add_v2_routes(self, management)

    def __exit__(self, *error: object) -> None:
        for job in self.jobs.values():
            job.cancel()
        for job in self.jobs.values():
            job.join()
        super().__exit__(*error)

    # ---- for tests -------------------------------------------------------------------

    def add_cluster(self, name: str, **more: Any) -> Cluster:
        """Add a cluster, or replace one; see ``Cluster`` for what can be said of it."""
        self.clusters[name] = Cluster(name, **more)
        return self.clusters[name]

    @property
    def job(self) -> Job:
        """The latest job."""
        return list(self.jobs.values())[-1]

    @property
    def url(self) -> str:
        """The workspace's own API."""
        return f"https://{self.location}.api.azureml.ms"

    # ---- for its parts ---------------------------------------------------------------

    def cluster(self, name: str) -> Cluster:
        """Look a cluster up by its name or its resource's id."""
        found = self.clusters.get(name.rpartition("/")[2])
        if found is None:
            message = f"Compute target '{name}' was not found in workspace '{self.workspace}'."
            raise ServiceError(404, "ComputeNotFound", message)
        return found

    def container(self, datastore: str) -> str:
        """Return a datastore's container."""
        found = self.datastores.get(datastore)
        if found is None:
            message = f"Could not find datastore: {datastore}."
            raise ServiceError(404, "DatastoreNotFound", message)
        return found

    def run(self, job: str) -> Job:
        """Look a job up by its run's id."""
        found = self.jobs.get(job)
        if found is None:
            message = f"Run {job} was not found."
            raise ServiceError(404, "RunNotFound", message)
        return found

    def submit(self, submission: Submission) -> Job:
        """Start a job.

        Raises:
            ServiceError: it asks for more than there is.
        """
        if not 1 <= submission.nodes <= submission.cluster.nodes:
            raise ServiceError(
                400,
                "UserError",
                f"The requested node count {submission.nodes} exceeds the maximum node count "
                f"{submission.cluster.nodes} of compute '{submission.cluster.name}'.",
            )
        if submission.id in self.jobs:
            message = f"A job with the name '{submission.id}' already exists."
            raise ServiceError(409, "UserError", message)
        folder = self._folder / submission.id
        job = Job(submission, folder, self.storage, self._variables)
        self.jobs[submission.id] = job
        return job

    def _variables(self, submission: Submission) -> dict[str, str]:
        """What every node of a job is told, besides its rank."""
        token = secrets.token_urlsafe(12)
        variables = {
            **bare(self._environment),
            **self._tracking.begin(
                submission.id,
                submission.experiment,
                token,
                plugin="azureml-mlflow" in str(submission.conda),
            ),
            "AZUREML_RUN_ID": submission.id,
            "AZUREML_RUN_TOKEN": token,
            "AZUREML_ARM_SUBSCRIPTION": self._management.subscription,
            "AZUREML_ARM_RESOURCEGROUP": self._management.group,
            "AZUREML_ARM_WORKSPACE_NAME": self.workspace,
            "AZUREML_ARM_PROJECT_NAME": submission.experiment,
            "AZUREML_WORKSPACE_ID": WORKSPACE_ID,
            "AZUREML_SERVICE_ENDPOINT": self.url,
            "AZUREML_DISCOVERY_SERVICE_ENDPOINT": f"{self.url}/discovery",
            "AZUREML_NODE_COUNT": str(submission.nodes),
        }
        if submission.distributed:
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        if submission.cluster.identity:
            variables |= self._login.identity_variables()
        return variables

    # ---- answers ---------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return the workspace as Resource Manager shows it."""
        group = self._management.scope
        return {
            "id": self.scope,
            "name": self.workspace,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "location": self.location,
            "tags": {},
            "sku": {"name": "Basic", "tier": "Basic"},
            "identity": {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"},
            "properties": {
                "workspaceId": WORKSPACE_ID,
                "friendlyName": self.workspace,
                "description": "",
                "storageAccount": f"{group}/providers/Microsoft.Storage/storageAccounts/"
                f"{self.storage.account}",
                "keyVault": f"{group}/providers/Microsoft.KeyVault/vaults/fastmri",
                "applicationInsights": f"{group}/providers/microsoft.insights/components/fastmri",
                "hbiWorkspace": False,
                "discoveryUrl": f"{self.url}/discovery",
                "mlFlowTrackingUri": f"azureml://{self.location}.api.azureml.ms/mlflow/v1.0"
                f"{self.scope}",
                "provisioningState": "Succeeded",
                "creationTime": now(),
            },
        }

    def _discovery(self, request: Request) -> dict[str, str]:
        parts = (
            *("api", "catalog", "experimentation", "gallery", "history", "hyperdrive"),
            *("labeling", "modelmanagement", "pipelines", "studio", "execution"),
        )
        return dict.fromkeys(parts, self.url)

    def _list_clusters(self, request: Request) -> dict[str, Any]:
        shown = [c.document(self.scope, self.location) for c in self.clusters.values()]
        return {"value": shown}

    def _get_cluster(self, request: Request, name: str) -> dict[str, Any]:
        return self.cluster(name).document(self.scope, self.location)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
