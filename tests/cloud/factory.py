"""Data Factory: factories, their documents, and runs of their pipelines."""

import copy
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.cloud.factory_copy import Copier
from tests.cloud.factory_runs import Pace, PipelineRun, shown
from tests.cloud.factory_validation import check_document, check_factory_name, check_name
from tests.cloud.faults import ServiceError
from tests.cloud.management import LOCATIONS, Management
from tests.cloud.service import Answer, Request, now

_KINDS = ("linkedservices", "datasets", "pipelines")
_TYPES = {"linkedservices": "linkedServices", "datasets": "datasets", "pipelines": "pipelines"}


@dataclass
class _Factory:
    """A factory that exists."""

    name: str
    location: str
    tags: dict[str, str]
    ready_at: float
    created: str = field(default_factory=now)
    documents: dict[str, dict[str, Any]] = field(
        default_factory=lambda: {kind: {} for kind in _KINDS}
    )
    runs: dict[str, PipelineRun] = field(default_factory=dict)
    slots: dict[str, threading.Semaphore] = field(default_factory=dict)


class DataFactory:
    """The resource provider Microsoft.DataFactory.

    Attributes:
        provisioning_seconds: how long a new factory is not ready; ``math.inf`` is for ever.
        page: how many runs, or activity runs, one answer holds.
        short: copies that end early and succeed.
        deleted: names of factories that were deleted, in order.
        pace: how time goes; ``pace.go.clear()`` keeps new runs queued.
    """

    def __init__(self, management: Management, copier: Copier) -> None:
        self._management, self._copier, self.short = management, copier, copier.short
        self._factories: dict[str, _Factory] = {}
        self._lock = threading.Lock()
        self._all_runs: list[PipelineRun] = []
        self.provisioning_seconds = 0.0
        self.page = 100
        self.pace = Pace()
        self.deleted: list[str] = []
        self._address = group = f"{management.scope}/providers/Microsoft.DataFactory/factories"
        every = group.replace(f"/resourceGroups/{management.group}", "")
        one = f"{group}/(?P<factory>[^/]+)"
        entity = f"{one}/(?P<kind>{'|'.join(_KINDS)})/(?P<name>[^/]+)"
        on = management.on
        on("GET", group, self._list)
        on("GET", every, self._list)
        on("PUT", one, self._create)
        on("GET", one, lambda _, factory: self._document(self._find(factory)))
        on("DELETE", one, self._delete)
        on("GET", f"{one}/(?P<kind>{'|'.join(_KINDS)})", self._list_documents)
        on("PUT", entity, self._put_document)
        on("GET", entity, self._get_document)
        on("DELETE", entity, self._delete_document)
        on("POST", f"{one}/pipelines/(?P<name>[^/]+)/createRun", self._create_run)
        on("POST", f"{one}/queryPipelineRuns", self._query_runs)
        on("GET", f"{one}/pipelineruns/(?P<run>[^/]+)", self._get_run)
        on("POST", f"{one}/pipelineruns/(?P<run>[^/]+)/queryActivityruns", self._query_activities)
        on("POST", f"{one}/pipelineruns/(?P<run>[^/]+)/cancel", self._cancel)

    def __enter__(self) -> "DataFactory":
        return self

    def __exit__(self, *_: object) -> None:
        for run in self._all_runs:
            run.cancel()
        for run in self._all_runs:
            run.join()

    # ---- to look at ------------------------------------------------------------------

    @property
    def names(self) -> list[str]:
        """Names of the factories that exist now."""
        return sorted(factory.name for factory in self._factories.values())

    @property
    def runs(self) -> list[PipelineRun]:
        """All runs that were ever started, of deleted factories too."""
        return list(self._all_runs)

    @property
    def requests(self) -> list[Request]:
        """All requests to Data Factory."""
        sent = [request for request, _ in list(self._management.requests)]
        return [request for request in sent if "/microsoft.datafactory" in request.path.lower()]

    def documents(self, factory: str, kind: str) -> dict[str, Any]:
        """Return a factory's documents of a kind ("linkedservices", "datasets", "pipelines")."""
        return copy.deepcopy(self._find(factory).documents[kind])

    # ---- factories -------------------------------------------------------------------

    def _find(self, name: str) -> _Factory:
        found = self._factories.get(name.lower())
        if found is None:
            raise ServiceError(
                404,
                "ResourceNotFound",
                f"The Resource 'Microsoft.DataFactory/factories/{name}' under resource group "
                f"'{self._management.group}' was not found.",
            )
        return found

    def _ready(self, name: str) -> _Factory:
        found = self._find(name)
        if time.monotonic() < found.ready_at:
            message = f"The factory '{name}' is being provisioned."
            raise ServiceError(409, "FactoryNotReady", message)
        return found

    def _document(self, factory: _Factory) -> dict[str, Any]:
        ready = time.monotonic() >= factory.ready_at
        return {
            "id": f"{self._address}/{factory.name}",
            "name": factory.name,
            "type": "Microsoft.DataFactory/factories",
            "location": factory.location,
            "tags": factory.tags,
            "eTag": '"1"',
            "properties": {
                "provisioningState": "Succeeded" if ready else "Creating",
                "createTime": factory.created,
                "version": "2018-06-01",
            },
        }

    def _create(self, request: Request, factory: str) -> dict[str, Any]:
        check_factory_name(factory)
        body = request.json()
        location = str(body.get("location", "")).lower().replace(" ", "")
        if location not in LOCATIONS:
            raise ServiceError(
                400,
                "LocationNotAvailableForResourceType",
                f"The provided location '{body.get('location')}' is not available for resource "
                "type 'Microsoft.DataFactory/factories'. List of available regions for the "
                f"resource type is '{','.join(LOCATIONS)}'.",
            )
        with self._lock:
            found = self._factories.get(factory.lower())
            if found is None:
                ready_at = time.monotonic() + self.provisioning_seconds
                found = _Factory(factory, location, body.get("tags") or {}, ready_at)
                self._factories[factory.lower()] = found
        return self._document(found)

    def _list(self, request: Request) -> dict[str, Any]:
        return {"value": [self._document(factory) for factory in self._factories.values()]}

    def _delete(self, request: Request, factory: str) -> Answer:
        with self._lock:
            found = self._factories.pop(factory.lower(), None)
        if found is None:
            return Answer(status=204)
        self.deleted.append(found.name)
        for run in found.runs.values():
            run.cancel()
        return Answer(status=200)

    # ---- documents -------------------------------------------------------------------

    def _put_document(self, request: Request, factory: str, kind: str, name: str) -> Any:
        kind, found = kind.lower(), self._ready(factory)
        check_name(kind, name)
        document = request.json()
        check_document(kind, document, found.documents)
        document |= {
            "id": f"{self._address}/{found.name}/{kind}/{name}",
            "name": name,
            "type": f"Microsoft.DataFactory/factories/{_TYPES[kind]}",
            "etag": "1",
        }
        found.documents[kind][name] = document
        return _masked(document)

    def _get_document(self, request: Request, factory: str, kind: str, name: str) -> Any:
        found = self._find(factory).documents[kind.lower()]
        if name not in found:
            raise ServiceError(404, "NotFound", f"The entity '{name}' was not found in {kind}.")
        return _masked(found[name])

    def _list_documents(self, request: Request, factory: str, kind: str) -> Any:
        found = self._find(factory).documents[kind.lower()]
        return {"value": [_masked(document) for document in found.values()]}

    def _delete_document(self, request: Request, factory: str, kind: str, name: str) -> Answer:
        gone = self._find(factory).documents[kind.lower()].pop(name, None)
        return Answer(status=204 if gone is None else 200)

    # ---- runs ------------------------------------------------------------------------

    def _create_run(self, request: Request, factory: str, name: str) -> dict[str, Any]:
        found = self._ready(factory)
        if name not in found.documents["pipelines"]:
            message = f"The document could not be found: pipeline '{name}'."
            raise ServiceError(404, "PipelineNotFound", message)
        limit = found.documents["pipelines"][name]["properties"].get("concurrency", 1000)
        slots = found.slots.setdefault(name, threading.Semaphore(limit))
        run = PipelineRun(
            name,
            copy.deepcopy(found.documents),
            request.json() or {},
            copier=self._copier,
            pace=self.pace,
            slots=slots,
        )
        found.runs[run.id] = run
        self._all_runs.append(run)
        return {"runId": run.id}

    def _run(self, factory: str, run: str) -> PipelineRun:
        found = self._find(factory).runs.get(run)
        if found is None:
            message = f"The pipeline run '{run}' was not found."
            raise ServiceError(404, "PipelineRunNotFound", message)
        return found

    def _get_run(self, request: Request, factory: str, run: str) -> dict[str, Any]:
        return self._run(factory, run).document()

    def _query_runs(self, request: Request, factory: str) -> dict[str, Any]:
        body = _window(request)
        runs = [run.document() for run in list(self._find(factory).runs.values())]
        return self._page(body, [run for run in runs if _is_wanted(run, body)])

    def _query_activities(self, request: Request, factory: str, run: str) -> dict[str, Any]:
        body = _window(request)
        return self._page(body, [shown(record) for record in self._run(factory, run).activities])

    def _page(self, body: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
        start = int(body.get("continuationToken") or 0)
        answer: dict[str, Any] = {"value": found[start : start + self.page]}
        if start + self.page < len(found):
            answer["continuationToken"] = str(start + self.page)
        return answer

    def _cancel(self, request: Request, factory: str, run: str) -> Answer:
        found = self._run(factory, run)
        if found.status in ("Succeeded", "Failed", "Cancelled"):
            message = f"Cannot cancel the pipeline run '{run}': it is {found.status}."
            raise ServiceError(400, "PipelineRunNotCancellable", message)
        found.cancel()
        return Answer(status=200)


def _window(request: Request) -> dict[str, Any]:
    """Return the body of a query, which must say the time that it asks about."""
    body = request.json()
    for name in ("lastUpdatedAfter", "lastUpdatedBefore"):
        try:
            datetime.fromisoformat(body[name].replace("Z", "+00:00"))
        except (KeyError, AttributeError, ValueError):
            raise ServiceError(400, "BadRequest", f"'{name}' is required, in ISO 8601.") from None
    return body


def _is_wanted(run: dict[str, Any], body: dict[str, Any]) -> bool:
    """Say whether a run was updated in a query's time."""
    after, before, updated = (
        datetime.fromisoformat(text.replace("Z", "+00:00"))
        for text in (body["lastUpdatedAfter"], body["lastUpdatedBefore"], run["lastUpdated"])
    )
    return after <= updated <= before


def _masked(document: Any) -> Any:
    """Return a document as the service shows it: nobody gets a secret back."""
    if isinstance(document, list):
        return [_masked(each) for each in document]
    if not isinstance(document, dict):
        return document
    if document.get("type") == "SecureString" and "value" in document:
        return document | {"value": "**********"}
    shown = {name: _masked(each) for name, each in document.items()}
    if shown != document and "connectionString" in document:
        shown["encryptedCredential"] = "credential-of-the-factory"
    return shown
