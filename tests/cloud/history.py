"""Run history: experiments and runs, as SDK v1 reads them."""

import uuid
from typing import TYPE_CHECKING, Any

from tests.cloud.jobs import ARTIFACTS, ENDED, Job
from tests.cloud.service import Answer, Request, now

if TYPE_CHECKING:
    from tests.cloud.azureml import AzureML

_EXPERIMENT_ID = "22222222-2222-4222-8222-222222222222"


def add_history_routes(azureml: "AzureML") -> None:
    """Add the services ``history`` and ``artifact`` to the workspace's API."""
    history = _History(azureml)
    on = azureml.on
    experiment = r"/history/v1\.0/.*/(experiments|experimentids)/(?P<experiment>[^/]+)"
    run = rf"(({experiment}/)|(/history/v1\.0/.*/))runs/(?P<run>[^/]+)"
    on("GET|POST|PUT", experiment, history.experiment)
    on("GET", run, history.get)
    on("PATCH", run, history.patch)
    on("GET", f"{run}/details", history.details)
    on("POST", f"{run}/events", history.event)
    on("POST", r"/execution/v1\.0/.*/runId/(?P<run>[^/]+)/cancel", history.cancel)
    on("GET|POST", f"{run}/metricsingest/wait", lambda _, **found: {})
    on("GET|POST", r"/metric/v2\.0/.*", lambda _: {"value": []})
    on("POST", r"/history/v1\.0/.*/rundata", history.data)
    artifact = r"/artifact/v2\.0/.*/artifacts"
    where = r"/ExperimentRun/dcid\.(?P<run>[^/]+)"
    on("GET", rf"{artifact}/prefix/contentinfo{where}/(?P<path>.*)", history.artifacts)
    on("GET", rf"{artifact}{where}(/(?P<path>.*))?", history.artifacts)


class _History:
    """The answers."""

    def __init__(self, azureml: "AzureML") -> None:
        self._azureml = azureml

    def experiment(self, request: Request, experiment: str) -> dict[str, Any]:
        return {
            "experimentId": _EXPERIMENT_ID,
            "name": experiment,
            "createdUtc": now(),
            "tags": {},
            "archivedTime": None,
            "latestCreatedRunCreatedUtc": None,
            "artifactLocation": None,
            "latestModifiedRunUtc": now(),
        }

    def get(self, request: Request, run: str, experiment: str | None = None) -> dict[str, Any]:
        return self._run(self._azureml.run(run))

    def data(self, request: Request) -> dict[str, Any]:
        return {"runMetadata": self._run(self._azureml.run(request.json()["runId"]))}

    def patch(self, request: Request, run: str, experiment: str | None = None) -> dict[str, Any]:
        job = self._azureml.run(run)
        change = request.json()
        job.tags |= change.get("tags") or {}
        job.properties |= change.get("properties") or {}
        job.display_name = change.get("displayName") or job.display_name
        return self._run(job)

    def details(self, request: Request, run: str, experiment: str | None = None) -> dict[str, Any]:
        job = self._azureml.run(run)
        error = {"code": "UserError", "message": job.error, "details": []}
        return {
            "runId": job.id,
            "target": job.submission.cluster.name,
            "status": job.status,
            "startTimeUtc": job.started,
            "endTimeUtc": job.ended,
            "services": {},
            "error": {"error": error} if job.error else None,
            "warnings": None,
            "properties": job.properties,
            "inputDatasets": [],
            "outputDatasets": [],
            "runDefinition": job.submission.document,
            "logFiles": {name: self._signed(job, name) for name in self._names(job, "user_logs/")},
            "submittedBy": "fastMRI",
        }

    def event(self, request: Request, run: str, experiment: str | None = None) -> Answer:
        if "cancel" in str(request.json().get("name", "")).lower():
            self._azureml.run(run).cancel()
        return Answer(status=200)

    def cancel(self, request: Request, run: str) -> Answer:
        self._azureml.run(run).cancel()
        return Answer(status=200)

    def artifacts(self, request: Request, run: str, path: str | None = None) -> dict[str, Any]:
        job = self._azureml.run(run)
        common = {"origin": "ExperimentRun", "container": f"dcid.{job.id}"}
        return {
            "value": [
                common | {"path": name, "contentUri": self._signed(job, name)}
                for name in self._names(job, f"{path.strip('/')}/" if path else "")
            ]
        }

    def _names(self, job: Job, prefix: str) -> list[str]:
        start = f"{job.artifacts}/"
        found = self._azureml.storage.names(ARTIFACTS, start + prefix)
        return [name.removeprefix(start) for name in found]

    def _signed(self, job: Job, name: str) -> str:
        return self._azureml.storage.signed(ARTIFACTS, f"{job.artifacts}/{name}")

    def _run(self, job: Job) -> dict[str, Any]:
        error = {"code": "UserError", "message": job.error}
        cancel = f"{self._azureml.url}/execution/v1.0{self._azureml.scope}/runId/{job.id}/cancel"
        return {
            "runNumber": list(self._azureml.jobs).index(job.id) + 1,
            "rootRunId": job.id,
            "runUuid": str(uuid.uuid5(uuid.NAMESPACE_URL, job.id)),
            "runId": job.id,
            "experimentId": _EXPERIMENT_ID,
            "createdUtc": job.created,
            "createdBy": {"userName": "fastMRI"},
            "userId": "fastMRI",
            "status": job.status,
            "name": None,
            "displayName": job.display_name,
            "dataContainerId": f"dcid.{job.id}",
            "hidden": False,
            "runType": "azureml.scriptrun",
            "properties": {"ContentSnapshotId": _EXPERIMENT_ID} | job.properties,
            "parameters": {},
            "scriptName": None,
            "target": job.submission.cluster.name,
            "tags": job.tags,
            "inputDatasets": [],
            "outputDatasets": [],
            "runDefinition": job.submission.document,
            "error": {"error": error} if job.error and job.status in ENDED else None,
            "startTimeUtc": job.started,
            "endTimeUtc": job.ended,
            "warnings": None,
            "services": {},
            "cancelUri": cancel,
        }
