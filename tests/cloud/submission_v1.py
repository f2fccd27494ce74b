"""How SDK v1 (azureml-core) sends a job: environment, datastores, snapshot, run configuration."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from tests.cloud.faults import ServiceError
from tests.cloud.service import Request
from tests.cloud.submission import Data, Submission

if TYPE_CHECKING:
    from tests.cloud.azureml import AzureML

SNAPSHOTS = "snapshots"
_MODES = {"mount": "write", "download": "download"}


def add_v1_routes(azureml: "AzureML") -> None:
    """Add the services ``datastore``, ``environment``, ``content`` and ``execution``."""
    sent = _V1(azureml)
    on = azureml.on
    on("GET", r"/datastore/v1\.0/.*/datastores", sent.list_datastores)
    on("GET", r"/datastore/v1\.0/.*/default", lambda request: sent.datastore(request, sent.default))
    on("GET", r"/datastore/v1\.0/.*/datastores/(?P<name>[^/]+)", sent.datastore)
    environment = r"/environment/v1\.0/.*/environments"
    on("GET", environment, lambda _: {"value": list(sent.environments.values())})
    on("PUT|POST", rf"{environment}/(?P<name>[^/]+)(/.*)?", sent.put_environment)
    on("GET", rf"{environment}/(?P<name>[^/]+)(/.*)?", sent.get_environment)
    on("GET", r"/content/v1\.0/.*/snapshots/latest/metadata", sent.no_snapshot)
    on("POST", r"/content/v2\.0/.*/snapshots/getblob", sent.blobs)
    on("POST|PUT", r"/content/v\d\.0/.*/snapshots/(?P<snapshot>[^/]+)", sent.put_snapshot)
    on("POST", r"/execution/v1\.0/.*/experiments/(?P<experiment>[^/]+)/snapshotrun", sent.submit)


class _V1:
    """The answers."""

    def __init__(self, azureml: "AzureML") -> None:
        self._azureml = azureml
        self.environments: dict[str, dict[str, Any]] = {}
        self._snapshots: dict[str, list[dict[str, Any]]] = {}

    @property
    def default(self) -> str:
        """The default datastore's name."""
        return next(iter(self._azureml.datastores))

    # ---- what a job needs ------------------------------------------------------------

    def list_datastores(self, request: Request) -> dict[str, Any]:
        return {"value": [self.datastore(request, name) for name in self._azureml.datastores]}

    def datastore(self, request: Request, name: str) -> dict[str, Any]:
        storage = self._azureml.storage
        return {
            "name": name,
            "dataStoreType": "AzureBlob",
            "hasBeenValidated": True,
            "tags": {},
            "isDefault": name == self.default,
            "azureStorageSection": {
                "accountName": storage.account,
                "containerName": self._azureml.container(name),
                "endpoint": "core.windows.net",
                "protocol": "https",
                "credential": storage.key,
                "credentialType": "AccountKey",
                "accountKey": storage.key,
                "blobCacheTimeout": None,
                "isSas": False,
                "sasToken": None,
                "clientCredentials": None,
                "areWorkspaceManagedIdentitiesAllowed": False,
                "serviceDataAccessAuthIdentity": None,
            },
        }

    def put_environment(self, request: Request, name: str) -> dict[str, Any]:
        self.environments[name] = request.json() | {"name": name, "version": "1"}
        return self.environments[name]

    def get_environment(self, request: Request, name: str) -> dict[str, Any]:
        if name not in self.environments:
            message = "Error retrieving the environment definition. Environment not found"
            raise ServiceError(404, "UserError", message)
        return self.environments[name]

    # ---- the snapshot ----------------------------------------------------------------

    def no_snapshot(self, request: Request) -> dict[str, Any]:
        return {"root": {}, "id": str(uuid.UUID(int=0))}

    def blobs(self, request: Request) -> dict[str, Any]:
        """Say where each of the snapshot's files is to be uploaded."""
        self._azureml.storage.container(SNAPSHOTS)
        folder = uuid.uuid4().hex

        def place(name: str) -> dict[str, str]:
            uri = self._azureml.storage.signed(SNAPSHOTS, f"{folder}/{name}", "rcw")
            return {"fullName": name, "blobUri": uri}

        return {"fileNodes": [place(name) for name in request.json()["FileNames"]]}

    def put_snapshot(self, request: Request, snapshot: str) -> dict[str, Any]:
        """Take a snapshot: what has changed since its parent, and the tree of all that is there."""
        body = request.json()
        before = self._snapshots.get(body["ParentSnapshotId"], [])
        nodes = {node["FullName"]: node for node in before + body["FileRevisionList"]["FileNodes"]}
        there = set(_files_of(body["DirTreeNode"]))
        self._snapshots[snapshot] = [node for name, node in nodes.items() if name in there]
        return {}

    def _place_snapshot(self, snapshot: str, folder: Path) -> None:
        container = self._azureml.storage.container(SNAPSHOTS)
        for node in self._snapshots[snapshot]:
            path = folder / node["FullName"]
            path.parent.mkdir(parents=True, exist_ok=True)
            blob = unquote(urlsplit(node["BlobUri"]).path).removeprefix(f"/{SNAPSHOTS}/")
            path.write_bytes(container.download_blob(blob).readall())

    # ---- the run ---------------------------------------------------------------------

    def submit(self, request: Request, experiment: str) -> dict[str, Any]:
        body = {key.lower(): value for key, value in request.json().items()}
        configuration = body["configuration"]
        snapshot = body["snapshotid"]
        if snapshot not in self._snapshots:
            raise ServiceError(400, "UserError", f"Snapshot {snapshot} was not found.")
        nodes = int(configuration.get("nodeCount") or 1)
        if configuration.get("data"):
            raise ServiceError(400, "UserError", "Datasets are not emulated: use data references.")
        pytorch = configuration.get("pytorch") or {}
        distributed = str(configuration.get("framework")).lower() == "pytorch" or (
            str(configuration.get("communicator")).lower() in ("nccl", "gloo")
        )
        if distributed and int(pytorch.get("processCount") or nodes) != nodes:
            raise ServiceError(400, "UserError", "More than one process a node is not emulated.")
        references = configuration.get("dataReferences") or {}
        environment = configuration["environment"]
        job = self._azureml.submit(
            Submission(
                id=request.query.get("runId") or f"{experiment}_{uuid.uuid4().hex[:8]}",
                experiment=experiment,
                command=_command(configuration["command"]),
                cluster=self._azureml.cluster(configuration["target"]),
                nodes=nodes,
                variables=_variables(configuration),
                data=tuple(self._data(name, one) for name, one in references.items()),
                snapshot=lambda folder: self._place_snapshot(snapshot, folder),
                distributed=distributed,
                image=environment["docker"]["baseImage"],
                conda=environment["python"]["condaDependencies"],
                document=configuration,
            )
        )
        return {"runId": job.id}

    def _data(self, name: str, reference: dict[str, Any]) -> Data:
        mode = str(reference.get("mode")).lower()
        if mode not in _MODES:
            message = f"Data reference {name}: mode {mode} is not emulated."
            raise ServiceError(400, "UserError", message)
        return Data(
            name,
            self._azureml.container(reference["dataStoreName"]),
            reference.get("pathOnDataStore") or "",
            _MODES[mode],
            f"AZUREML_DATAREFERENCE_{name}",
        )


def _command(command: str | list[str]) -> str:
    return command if isinstance(command, str) else " ".join(command)


def _variables(configuration: dict[str, Any]) -> dict[str, str]:
    own = configuration.get("environmentVariables") or {}
    environment = (configuration.get("environment") or {}).get("environmentVariables") or {}
    return {name: str(value) for name, value in (environment | own).items()}


def _files_of(tree: dict[str, Any], folder: str = "") -> Iterator[str]:
    """Yield the paths of the files in a snapshot's tree."""
    for name, node in tree["children"].items():
        if node["type"].lower() == "file":
            yield folder + name
        else:
            yield from _files_of(node, f"{folder}{name}/")
