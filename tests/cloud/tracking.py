"""A workspace's MLflow: parameters, metrics, tags and artifacts of runs, by MLflow's own REST API.

A run is let in by its own token. Experiments, models, searches and traces are not emulated.
"""

from dataclasses import dataclass, field
from typing import Any

from tests.cloud.faults import Faults, ServiceError
from tests.cloud.service import Answer, Request, Service

API = r"/api/2\.0/mlflow"


@dataclass
class TrackedRun:
    """What a run has been told.

    Attributes:
        token: lets its nodes in.
        experiment: the experiment's name.
        metrics: (name, step, value), in the order that they came.
        artifacts: path -> content.
        status: as MLflow names it.
    """

    id: str
    token: str
    experiment: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: list[tuple[str, int, float]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, bytes] = field(default_factory=dict)
    status: str = "RUNNING"

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Return a metric's (step, value)."""
        return [(step, value) for key, step, value in self.metrics if key == name]


class Tracking(Service):
    """MLflow's server.

    Attributes:
        runs: id -> run, in the order that they were made.
    """

    def __init__(self, faults: Faults) -> None:
        super().__init__("mlflow", faults)
        self.runs: dict[str, TrackedRun] = {}
        self.on("GET", rf"{API}/runs/get", lambda request: self._told(request.query["run_id"]))
        self.on("POST", rf"{API}/runs/log-batch", self._log)
        self.on("POST", rf"{API}/runs/set-tag", self._tag)
        self.on("POST", rf"{API}/runs/update", self._update)
        self.on(
            "PUT",
            r"/api/2\.0/mlflow-artifacts/artifacts/(?P<run>[^/]+)/(?P<path>.+)",
            self._keep,
        )

    def begin(self, run: str, experiment: str, token: str, *, plugin: bool) -> dict[str, str]:
        """Make a run, or let its next attempt in; return the variables that lead nodes to it.

        The service's scheme is ``azureml://``, which MLflow knows where ``azureml-mlflow`` is among
        the job's packages. Here that stands for the plugin, which is not installed.
        """
        self.runs.setdefault(run, TrackedRun(run, token, experiment)).token = token
        return {
            "MLFLOW_TRACKING_URI": f"{'http' if plugin else 'azureml'}://127.0.0.1:{self.port}",
            "MLFLOW_TRACKING_TOKEN": token,
            "MLFLOW_RUN_ID": run,
            "MLFLOW_EXPERIMENT_ID": "1",
            "MLFLOW_EXPERIMENT_NAME": experiment,
        }

    def _let_in(self, request: Request, name: str) -> TrackedRun:
        run = self.runs.get(name)
        if run is None:
            raise ServiceError(404, "RESOURCE_DOES_NOT_EXIST", f"no run {name}")
        if request.headers.get("authorization") != f"Bearer {run.token}":
            raise ServiceError(401, "Unauthorized", "not the token of this run")
        return run

    def _told(self, name: str) -> dict[str, Any]:
        if name not in self.runs:
            raise ServiceError(404, "RESOURCE_DOES_NOT_EXIST", f"no run {name}")
        run = self.runs[name]
        latest = {key: (step, value) for key, step, value in run.metrics}
        info = {
            "run_id": name,
            "run_uuid": name,
            "experiment_id": "1",
            "status": run.status,
            "lifecycle_stage": "active",
            "start_time": 0,
            "artifact_uri": f"mlflow-artifacts:/{name}",
        }
        metrics = [
            {"key": key, "step": step, "value": value, "timestamp": 0}
            for key, (step, value) in latest.items()
        ]
        pairs = (
            [{"key": k, "value": v} for k, v in each.items()] for each in (run.params, run.tags)
        )
        params, tags = pairs
        return {"run": {"info": info, "data": {"metrics": metrics, "params": params, "tags": tags}}}

    def _log(self, request: Request) -> dict[str, Any]:
        sent = request.json()
        run = self._let_in(request, sent["run_id"])
        for each in sent.get("params", ()):
            if run.params.setdefault(each["key"], each["value"]) != each["value"]:
                message = f"param {each['key']} was already logged with another value"
                raise ServiceError(400, "INVALID_PARAMETER_VALUE", message)
        for each in sent.get("metrics", ()):
            run.metrics.append((each["key"], int(each.get("step", 0)), float(each["value"])))
        return {}

    def _tag(self, request: Request) -> dict[str, Any]:
        sent = request.json()
        self._let_in(request, sent["run_id"]).tags[sent["key"]] = sent["value"]
        return {}

    def _update(self, request: Request) -> dict[str, Any]:
        sent = request.json()
        run = self._let_in(request, sent["run_id"])
        run.status = sent.get("status", run.status)
        return {"run_info": self._told(run.id)["run"]["info"]}

    def _keep(self, request: Request, run: str, path: str) -> Answer:
        self._let_in(request, run).artifacts[path] = request.body
        return Answer({})
