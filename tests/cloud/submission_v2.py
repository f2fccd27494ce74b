"""How SDK v2 (azure-ai-ml) sends a job: code, environment and job as resources of the workspace."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.cloud.data import fetch
from tests.cloud.faults import ServiceError
from tests.cloud.jobs import Job
from tests.cloud.management import Management
from tests.cloud.service import Answer, Request
from tests.cloud.submission import Data, Submission
from tests.cloud.submission_v1 import SNAPSHOTS

if TYPE_CHECKING:
    from tests.cloud.azureml import AzureML

_MODES = {
    "ReadOnlyMount": "mount",
    "ReadWriteMount": "write",
    "Download": "download",
    "Upload": "write",
}
_ASSETS = "codes|environments|data|models|components"


def add_v2_routes(azureml: "AzureML", management: Management) -> None:
    """Add what SDK v2 asks of the workspace to Resource Manager."""
    sent = _V2(azureml)
    scope, on = azureml.scope, management.on
    on("GET", f"{scope}/datastores/?", sent.list_datastores)
    on("GET", f"{scope}/datastores/(?P<name>[^/]+)", sent.datastore)
    on("POST", f"{scope}/datastores/(?P<name>[^/]+)/listSecrets", sent.secrets)
    asset = rf"{scope}/(?P<kind>{_ASSETS})/(?P<name>[^/]+)"
    version = rf"{asset}/versions/(?P<version>[^/]+)"
    on("POST", f"{version}/startPendingUpload", sent.upload)
    on("PUT", version, sent.put_asset)
    on("GET", version, sent.get_asset)
    on("GET", f"{asset}/versions", sent.list_versions)
    on("GET", asset, sent.get_asset_container)
    on("PUT", f"{scope}/jobs/(?P<name>[^/]+)", sent.submit)
    on("GET", f"{scope}/jobs/(?P<name>[^/]+)", lambda _, name: sent.job(azureml.run(name)))
    on(
        "GET",
        f"{scope}/jobs",
        lambda _: {"value": [sent.job(j) for j in list(azureml.jobs.values())]},
    )
    on("POST", f"{scope}/jobs/(?P<name>[^/]+)/cancel", sent.cancel)


class _V2:
    """The answers."""

    def __init__(self, azureml: "AzureML") -> None:
        self._azureml = azureml
        self._assets: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._jobs: dict[str, dict[str, Any]] = {}

    # ---- datastores ------------------------------------------------------------------

    def list_datastores(self, request: Request) -> dict[str, Any]:
        names = self._azureml.datastores
        if request.query.get("isDefault", "").lower() == "true":
            names = [next(iter(names))]
        return {"value": [self.datastore(request, name) for name in names]}

    def datastore(self, request: Request, name: str) -> dict[str, Any]:
        return {
            "id": f"{self._azureml.scope}/datastores/{name}",
            "name": name,
            "type": "Microsoft.MachineLearningServices/workspaces/datastores",
            "properties": {
                "datastoreType": "AzureBlob",
                "accountName": self._azureml.storage.account,
                "containerName": self._azureml.container(name),
                "endpoint": "core.windows.net",
                "protocol": "https",
                "isDefault": name == next(iter(self._azureml.datastores)),
                "credentials": {"credentialsType": "AccountKey"},
                "tags": {},
            },
        }

    def secrets(self, request: Request, name: str) -> dict[str, Any]:
        self._azureml.container(name)
        return {"secretsType": "AccountKey", "key": self._azureml.storage.key}

    # ---- code and environment --------------------------------------------------------

    def upload(self, request: Request, kind: str, name: str, version: str) -> dict[str, Any]:
        storage = self._azureml.storage
        storage.container(SNAPSHOTS)
        signed = storage.signed(SNAPSHOTS, permissions="rcwl")
        return {
            "pendingUploadId": name,
            "pendingUploadType": "TemporaryBlobReference",
            "blobReferenceForConsumption": {
                "blobUri": f"{storage.url}/{SNAPSHOTS}",
                "storageAccountArmId": storage.account,
                "credential": {"credentialType": "SAS", "sasUri": signed},
            },
        }

    def put_asset(self, request: Request, kind: str, name: str, version: str) -> Answer:
        document = request.json() | {
            "id": f"{self._azureml.scope}/{kind}/{name}/versions/{version}",
            "name": version,
            "type": f"Microsoft.MachineLearningServices/workspaces/{kind}/versions",
        }
        self._assets[(kind.lower(), name, version)] = document
        return Answer(document, 201)

    def get_asset(self, request: Request, kind: str, name: str, version: str) -> dict[str, Any]:
        return self._asset(kind, name, version)

    def list_versions(self, request: Request, kind: str, name: str) -> dict[str, Any]:
        found = [v for (k, n, _), v in list(self._assets.items()) if (k, n) == (kind.lower(), name)]
        return {"value": found}

    def get_asset_container(self, request: Request, kind: str, name: str) -> dict[str, Any]:
        found = [v for (k, n, v) in list(self._assets) if (k, n) == (kind.lower(), name)]
        if not found:
            raise ServiceError(404, "UserError", f"{kind}/{name} was not found.")
        return {
            "id": f"{self._azureml.scope}/{kind}/{name}",
            "name": name,
            "properties": {"latestVersion": found[-1], "nextVersion": str(len(found) + 1)},
        }

    def _asset(self, kind: str, name: str, version: str) -> dict[str, Any]:
        found = self._assets.get((kind.lower(), name, version))
        if found is None:
            raise ServiceError(404, "UserError", f"{kind}/{name}:{version} was not found.")
        return found

    def _by_id(self, kind: str, address: str) -> dict[str, Any]:
        match = re.search(rf"/{kind}/([^/]+)/versions/([^/]+)$", address or "", re.IGNORECASE)
        if match is None:
            raise ServiceError(400, "UserError", f"{address!r} is no address of {kind}.")
        return self._asset(kind, match[1], match[2])

    # ---- jobs ------------------------------------------------------------------------

    def submit(self, request: Request, name: str) -> Answer:
        document = request.json()
        details = document["properties"]
        if name in self._azureml.jobs:
            job = self._azureml.run(name)
            job.tags = details.get("tags") or {}
            return Answer(self.job(job))
        if details.get("jobType") != "Command":
            message = f"Jobs of type {details.get('jobType')} are not emulated."
            raise ServiceError(400, "UserError", message)
        environment = self._by_id("environments", details["environmentId"])["properties"]
        resources = details.get("resources") or {}
        distribution = details.get("distribution") or {}
        if int(distribution.get("processCountPerInstance") or 1) != 1:
            raise ServiceError(400, "UserError", "More than one process a node is not emulated.")
        code = details.get("codeId")
        uri = self._by_id("codes", code)["properties"]["codeUri"] if code else None
        job = self._azureml.submit(
            Submission(
                id=name,
                experiment=details.get("experimentName") or "Default",
                command=details["command"],
                cluster=self._azureml.cluster(details["computeId"]),
                nodes=int(resources.get("instanceCount") or 1),
                variables=details.get("environmentVariables") or {},
                data=self._data(details),
                snapshot=lambda folder: self._place(uri, folder),
                distributed=distribution.get("distributionType") == "PyTorch",
                tags=details.get("tags") or {},
                name=details.get("displayName") or "",
                image=environment["image"],
                conda=yaml.safe_load(environment["condaFile"]),
                document=details,
            )
        )
        self._jobs[name] = document
        return Answer(self.job(job), 201)

    def job(self, job: Job) -> dict[str, Any]:
        """Return a job as the service shows it."""
        azureml = self._azureml
        studio = f"https://ml.azure.com/runs/{job.id}?wsid={azureml.scope}&tid={azureml.location}"
        tracking = f"azureml://{azureml.location}.api.azureml.ms/mlflow/v1.0{azureml.scope}?"
        details = dict(self._jobs.get(job.id, {}).get("properties") or {})
        left = {
            "jobOutputType": "uri_folder",
            "mode": "ReadWriteMount",
            "uri": f"azureml://datastores/workspaceartifactstore/{job.artifacts}",
        }
        return {
            "id": f"{azureml.scope}/jobs/{job.id}",
            "name": job.id,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "systemData": {"createdAt": job.created, "createdBy": "fastMRI"},
            "properties": {
                "jobType": "Command",
                "command": job.submission.command,
                "environmentId": "",
                **details,
                "outputs": {**(details.get("outputs") or {}), "default": left},
                "experimentName": job.submission.experiment,
                "displayName": job.display_name,
                "status": job.status,
                "tags": job.tags,
                "properties": job.properties,
                "services": {
                    "Tracking": {"jobServiceType": "Tracking", "endpoint": tracking},
                    "Studio": {"jobServiceType": "Studio", "endpoint": studio},
                },
            },
        }

    def cancel(self, request: Request, name: str) -> Answer:
        self._azureml.run(name).cancel()
        return Answer(status=200)

    def _place(self, uri: str | None, folder: Any) -> None:
        if uri:
            path = unquote(urlsplit(uri).path).removeprefix(f"/{SNAPSHOTS}/")
            fetch(self._azureml.storage.container(SNAPSHOTS), path, folder)

    def _data(self, details: dict[str, Any]) -> tuple[Data, ...]:
        folders = []
        for name, one in (details.get("inputs") or {}).items():
            if one["jobInputType"] != "uri_folder":
                message = f"Inputs of type {one['jobInputType']} are not emulated."
                raise ServiceError(400, "UserError", message)
            mode = one.get("mode") or "ReadOnlyMount"
            folders.append(self._folder(name, one["uri"], mode, "INPUT"))
        for name, one in (details.get("outputs") or {}).items():
            if one.get("uri"):
                mode = one.get("mode") or "ReadWriteMount"
                folders.append(self._folder(name, one["uri"], mode, "OUTPUT"))
        return tuple(folders)

    def _folder(self, name: str, uri: str, mode: str, kind: str) -> Data:
        match = re.search(r"datastores/([^/]+)/paths/(.*)$", uri)
        if match is None or mode not in _MODES:
            message = f"Data {name}: {uri!r} in mode {mode} is not emulated."
            raise ServiceError(400, "UserError", message)
        container = self._azureml.container(match[1])
        return Data(name, container, match[2].strip("/"), _MODES[mode], f"AZURE_ML_{kind}_{name}")
