"""Runs of Data Factory's pipelines: activities in order, with retries, timeouts and cancelling."""

import json
import re
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.factory_copy import CancelledCopyError, Copied, Copier, CopyError, End
from tests.cloud.factory_expressions import Scope, evaluate
from tests.cloud.faults import ServiceError
from tests.cloud.service import now

Documents = dict[str, dict[str, Any]]


@dataclass
class Pace:
    """How time goes in the factory.

    Attributes:
        retry_seconds: what each ``retryIntervalInSeconds``, 30 at least, really takes.
        go: cleared, new runs stay queued.
        secure_strings: whether a dataset's parameter of type String takes a SecureString.
    """

    retry_seconds: float = 0.05
    secure_strings: bool = True
    go: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.go.set()


class PipelineRun:
    """One run of a pipeline, on a thread of its own.

    Args:
        name: the pipeline's name.
        documents: the factory's documents by kind and name, as they are now.
        parameters: what was given for the pipeline's parameters.
        copier: performs the copies.
        pace: how time goes.
        slots: how many runs of this pipeline may go on at once.

    Raises:
        ServiceError: a parameter has no value, or is not declared.
    """

    def __init__(
        self,
        name: str,
        documents: Documents,
        parameters: dict[str, Any],
        *,
        copier: Copier,
        pace: Pace,
        slots: threading.Semaphore,
    ) -> None:
        self.id = str(uuid.uuid4())
        self._name, self._documents = name, documents
        self._pipeline = documents["pipelines"][name]["properties"]
        self._parameters = self._given(parameters)
        self._copier, self._pace, self._slots = copier, pace, slots
        self._cancelled = threading.Event()
        self.activities: list[dict[str, Any]] = []
        self.status, self._message = "Queued", ""
        self._started, self._ended, self.updated = now(), None, now()
        self._thread = threading.Thread(target=self._run, name=f"pipeline {name}", daemon=True)
        self._thread.start()

    def cancel(self) -> None:
        """Ask it to stop."""
        if self._ended is None:
            self.status = "Canceling"
        self._cancelled.set()

    def join(self) -> None:
        """Wait for it to end."""
        self._thread.join()

    def document(self) -> dict[str, Any]:
        """Return it as the service shows it; secure parameters are masked."""
        declared = self._pipeline.get("parameters", {})
        shown = {
            name: "***" if declared[name]["type"] == "SecureString" else value
            for name, value in self._parameters.items()
        }
        return {
            "runId": self.id,
            "runGroupId": self.id,
            "isLatest": True,
            "pipelineName": self._name,
            "parameters": shown,
            "invokedBy": {"name": "Manual", "invokedByType": "Manual"},
            "runStart": self._started,
            "runEnd": self._ended,
            "durationInMs": None,
            "lastUpdated": self.updated,
            "status": self.status,
            "message": self._message,
        }

    def _given(self, given: dict[str, Any]) -> dict[str, Any]:
        declared = self._pipeline.get("parameters", {})
        if unknown := given.keys() - declared.keys():
            raise ServiceError(400, "BadRequest", f"Unknown parameters: {sorted(unknown)}.")
        values = {}
        for name, parameter in declared.items():
            if name not in given and "defaultValue" not in parameter:
                message = f"The template validation failed: missing value of parameter '{name}'."
                raise ServiceError(400, "BadRequest", message)
            values[name] = given.get(name, parameter.get("defaultValue"))
        return values

    # ---- on its thread ---------------------------------------------------------------

    def _run(self) -> None:
        while not (self._pace.go.wait(0.05) and self._slots.acquire(timeout=0.05)):
            if self._cancelled.is_set():
                self._end("Cancelled")
                return
        try:
            if not self._cancelled.is_set():
                self.status = "InProgress"
            self._end(self._activities())
        finally:
            self._slots.release()

    def _end(self, status: str) -> None:
        failed = [run for run in self.activities if run["status"] == "Failed"]
        if status == "Failed":
            last = failed[-1]
            name, why = last["activityName"], last["error"]["message"]
            self._message = f"Operation on target {name} failed: {why}"
        self._ended = self.updated = now()
        self.status = status

    def _activities(self) -> str:
        outcome: dict[str, str] = {}
        for activity in self._pipeline["activities"]:
            waits_for = activity.get("dependsOn", [])
            met = all(
                outcome[other["activity"]] in other["dependencyConditions"]
                or ("Completed" in other["dependencyConditions"])
                for other in waits_for
            )
            if self._cancelled.is_set():
                return "Cancelled"
            outcome[activity["name"]] = self._attempts(activity) if met else "Skipped"
        if "Cancelled" in outcome.values():
            return "Cancelled"
        return "Failed" if "Failed" in outcome.values() else "Succeeded"

    def _attempts(self, activity: dict[str, Any]) -> str:
        policy = activity.get("policy", {})
        status = "Failed"
        for attempt in range(1 + int(policy.get("retry", 0))):
            if attempt and self._cancelled.wait(self._pace.retry_seconds):
                return "Cancelled"
            record = self._record(activity, attempt)
            self.activities.append(record)
            began = time.monotonic()
            status = self._perform(activity, record, _seconds(policy.get("timeout", "0.12:00:00")))
            record["durationInMs"] = round(1000 * (time.monotonic() - began))
            record["activityRunEnd"] = self.updated = now()
            record["status"] = status
            if status != "Failed":
                break
        return status

    def _record(self, activity: dict[str, Any], attempt: int) -> dict[str, Any]:
        secure = activity.get("policy", {}).get("secureInput")
        parts = ("inputs", "outputs", "typeProperties")
        shown = {} if secure else self._evaluated({k: activity.get(k) for k in parts})
        return {
            "activityName": activity["name"],
            "activityType": activity["type"],
            "activityRunId": str(uuid.uuid4()),
            "pipelineName": self._name,
            "pipelineRunId": self.id,
            "status": "InProgress",
            "activityRunStart": now(),
            "activityRunEnd": None,
            "durationInMs": None,
            "retryAttempt": attempt or None,
            "input": shown,
            "output": {},
            "error": {
                "errorCode": "",
                "message": "",
                "failureType": "",
                "target": activity["name"],
                "details": "",
            },
        }

    def _perform(self, activity: dict[str, Any], record: dict[str, Any], seconds: float) -> str:
        done = Copied()
        try:
            record["output"] = _Live(done)
            self._copy(activity, done, seconds)
            record["output"] = done.output()
        except CancelledCopyError:
            return "Cancelled"
        except (CopyError, ServiceError) as error:
            code = getattr(error, "code", "2200")
            record["error"] |= {"errorCode": code, "message": str(error)}
            record["error"]["failureType"] = "UserError"
            return "Failed"
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
            record["error"] |= {"errorCode": "1000", "message": message}
            record["error"]["failureType"] = "SystemError"
            return "Failed"
        return "Succeeded"

    def _copy(self, activity: dict[str, Any], done: Copied, seconds: float) -> None:
        settings = activity["typeProperties"]["source"].get("formatSettings", {})
        unpacking = settings.get("compressionProperties", {})
        self._copier.copy(
            self._dataset(activity["inputs"][0]),
            self._dataset(activity["outputs"][0]),
            done,
            keep_archive_name=unpacking.get("preserveCompressionFileNameAsFolder", True),
            cancelled=self._cancelled,
            seconds=seconds,
        )

    def _dataset(self, reference: dict[str, Any]) -> End:
        dataset = self._documents["datasets"][reference["referenceName"]]["properties"]
        defaults = {
            name: parameter["defaultValue"]
            for name, parameter in dataset.get("parameters", {}).items()
            if "defaultValue" in parameter
        }
        if not self._pace.secure_strings:
            self._refuse_secure_strings(reference.get("parameters", {}))
        given = defaults | self._evaluated(reference.get("parameters", {}))
        details = evaluate(dataset["typeProperties"], Scope(dataset=given))
        name = dataset["linkedServiceName"]["referenceName"]
        service = self._documents["linkedservices"][name]["properties"]
        access = self._evaluated(service["typeProperties"])
        codec = (details.get("compression") or {}).get("type", "").lower()
        return End(service["type"], access, details["location"], codec)

    def _refuse_secure_strings(self, given: dict[str, Any]) -> None:
        for name, declared in self._pipeline.get("parameters", {}).items():
            if declared["type"] == "SecureString" and f"parameters.{name}" in json.dumps(given):
                message = f"The parameter '{name}' is a SecureString where a String is expected."
                raise ServiceError(400, "InvalidTemplate", message)

    def _evaluated(self, value: Any) -> Any:
        return evaluate(value, Scope(self._parameters))


class _Live(dict):
    """The output of a copy that is under way: read anew each time it is shown."""

    def __init__(self, done: Copied) -> None:
        super().__init__()
        self.done = done


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """Return an activity run as the service shows it now."""
    output = record["output"]
    return record | ({"output": output.done.output()} if isinstance(output, _Live) else {})


def _seconds(timeout: str) -> float:
    match = re.fullmatch(r"(?:(\d+)\.)?(\d+):(\d+):(\d+)", timeout)
    assert match is not None
    days, hours, minutes, seconds = (int(group or 0) for group in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
