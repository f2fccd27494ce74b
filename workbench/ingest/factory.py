"""A Data Factory that exists for as long as it copies archives into a container."""

import secrets
import signal
import string
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from workbench.azure_login import Workspace, new_login
from workbench.azure_resources import (
    ResourceError,
    busy_after,
    login_or_resource_error,
    resource_problem,
    without_secrets,
)
from workbench.ingest.factory_documents import FactoryDocuments, RunRequest

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

PREFIX = "fastmri-copy-data-"
# Written on the factory, so that a later run knows what a killed one left behind.
_TAG = "fastmri-container"
_TRIES = 10
# For Azure to make a factory.
_PATIENCE_SECONDS = 600.0
ENDED = ("Succeeded", "Failed", "Cancelled")


@dataclass(frozen=True)
class PipelineRun:
    """A run of a pipeline."""

    id: str
    archive: str  # its stem
    status: str  # Queued, InProgress, Canceling, or one of ENDED
    message: str  # why it failed, without secrets


@dataclass(frozen=True)
class Activity:
    """One attempt of one activity of a run, "land" or "unpack"."""

    archive: str  # its stem
    name: str
    status: str  # Queued, InProgress, Succeeded, Failed or Cancelled
    read: int  # bytes
    written: int  # bytes
    files: int  # written
    seconds: float
    error: str  # why it failed, without secrets


class Factory:
    """A factory in a workspace's resource group; nothing is asked of Azure yet.

    Its name is unique in all of Azure; by default a new one.
    """

    def __init__(self, workspace: Workspace, login: "TokenCredential", name: str = "") -> None:
        letters = string.ascii_lowercase + string.digits
        self.workspace = workspace
        self.name = name or PREFIX + "".join(secrets.choice(letters) for _ in range(8))
        self._address = (workspace.resource_group, self.name)
        self._client = _client(workspace, login)

    def log_in_again(self) -> None:
        """Drop a login that Azure no longer takes, with the tokens that the client keeps of it."""
        self._client = _client(self.workspace, new_login())

    @property
    def monitor_url(self) -> str:
        """Address of the page where its runs can be watched."""
        return (
            "https://adf.azure.com/en/monitoring/pipelineruns?factory=/subscriptions/"
            f"{self.workspace.subscription_id}/resourceGroups/{self.workspace.resource_group}"
            f"/providers/Microsoft.DataFactory/factories/{self.name}"
        )

    def make(self, location: str, container: str) -> None:
        """Make it, and wait until it is there.

        Raises:
            LoginError: Azure refuses the login.
            ResourceError: Azure refuses the factory, or does not finish it in time.
        """
        from azure.core.exceptions import AzureError

        until = time.monotonic() + _PATIENCE_SECONDS
        document = {"location": location, "tags": {_TAG: container}}
        try:
            made = _patiently(self._client.factories.create_or_update, *self._address, document)
            while made.provisioning_state not in (None, "Succeeded"):
                if made.provisioning_state == "Failed" or time.monotonic() > until:
                    raise ResourceError(
                        f"the Data Factory {self.name} is not ready after {_PATIENCE_SECONDS:.0f} "
                        f"s (it is {made.provisioning_state}): try again later, or another location"
                    )
                time.sleep(min(2.0, _PATIENCE_SECONDS / 10))
                made = self._client.factories.get(*self._address)
            return
        except AzureError as error:
            problem = login_or_resource_error(error, self.workspace)
        raise problem

    def put(self, documents: FactoryDocuments) -> None:
        """Put its linked services, datasets and pipelines there.

        Raises:
            ResourceError: the service refuses one.
        """
        from azure.core.exceptions import AzureError

        parts = (
            (self._client.linked_services, documents.linked_services),
            (self._client.datasets, documents.datasets),
            (self._client.pipelines, documents.pipelines),
        )
        for operations, named in parts:
            for name, document in named.items():
                problem = ""
                try:
                    _patiently(operations.create_or_update, *self._address, name, document)
                except AzureError as error:
                    problem = resource_problem(error, self.workspace)
                if problem:  # The SDK's error holds the request, and it the connection string.
                    raise ResourceError(f"Data Factory document {name}: {problem}")

    # ---- runs: all raise azure.core.exceptions.AzureError where the service does not answer ---

    def start(
        self, request: RunRequest, *, again: bool = False, besides: Collection[str] = ()
    ) -> PipelineRun:
        """Start a run; ``again`` where an earlier try got no answer, so that it may be there.

        ``besides`` are ids of earlier runs of the archive that are not the one.

        Raises:
            ResourceError: the service refuses it.
        """
        from azure.core.exceptions import ClientAuthenticationError, HttpResponseError

        archive = request.parameters["archive"]
        for there in self.runs() if again else ():
            alive = there.status not in ("Failed", "Cancelled") and there.id not in besides
            if there.archive == archive and alive:
                return there
        try:
            run = self._client.pipelines.create_run(
                *self._address, request.pipeline, request.parameters
            )
            return PipelineRun(str(run.run_id), archive, "Queued", "")
        except ClientAuthenticationError:
            raise
        except HttpResponseError as error:
            if error.status_code in (408, 429) or (error.status_code or 0) >= 500:
                raise
            problem = resource_problem(error, self.workspace)
        raise ResourceError(f"{archive}: {problem}")

    def runs(self) -> list[PipelineRun]:
        """Return all runs, the latest first."""
        found = _pages(self._client.pipeline_runs.query_by_factory, *self._address)
        found.sort(key=lambda run: str(run.run_start or ""), reverse=True)
        return [_pipeline_run(run) for run in found]

    def activities(self, run: PipelineRun) -> list[Activity]:
        """Return every attempt of every activity of a run."""
        query = self._client.activity_runs.query_by_pipeline_run
        return [_activity(run.archive, one) for one in _pages(query, *self._address, run.id)]

    def delete(self) -> None:
        """Cancel what still runs, then delete it; say so where Azure does not let us."""
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        for delay in (1.0, 5.0, 0.0):
            try:
                with suppress(ResourceNotFoundError):
                    for run in self.runs():
                        if run.status not in ENDED:
                            cancel = self._client.pipeline_runs.cancel
                            cancel(*self._address, run.id, is_recursive=True)
                self._client.factories.delete(*self._address)
                return
            except AzureError as error:
                problem = resource_problem(error, self.workspace)
            time.sleep(delay)
        print(
            f"the Data Factory {self.name} could not be deleted: {problem}. The next run offers "
            f"to; or delete it in the portal (resource group {self.workspace.resource_group})",
            flush=True,
        )


def left_behind(workspace: Workspace, login: "TokenCredential", container: str) -> list[Factory]:
    """Find the factories that earlier runs made for ACCOUNT/CONTAINER and could not delete.

    The caller holds the container's lock, so no other run uses them.

    Raises:
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses to say.
    """
    from azure.core.exceptions import AzureError

    try:
        factories = _client(workspace, login).factories
        found = list(factories.list_by_resource_group(workspace.resource_group))
    except AzureError as error:
        raise login_or_resource_error(error, workspace) from None
    return [
        Factory(workspace, login, each.name)
        for each in found
        if each.name.startswith(PREFIX) and (each.tags or {}).get(_TAG) == container
    ]


@contextmanager
def temporary_factory(factory: Factory, location: str, container: str) -> Iterator[Factory]:
    """Have a factory for the length of a ``with`` block; it is deleted whatever happens in it.

    One that is there already is taken over. By ACCOUNT/CONTAINER, which is written on it, a later
    run finds it.
    """
    try:
        factory.make(location, container)
        yield factory
    finally:
        # Deleting takes seconds: an interrupt is held back until it is through.
        came: list[int] = []
        here = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, lambda *_: came.append(1)) if here else None
        try:
            factory.delete()
        finally:
            if here:
                signal.signal(signal.SIGINT, before)
        if came:
            raise KeyboardInterrupt


def _client(workspace: Workspace, login: "TokenCredential") -> Any:
    from azure.mgmt.datafactory import DataFactoryManagementClient

    # Short patience: whoever watches asks again, and has other things to show meanwhile.
    return DataFactoryManagementClient(login, workspace.subscription_id, retry_total=4)


def _patiently(ask: Callable[..., Any], *given: Any) -> Any:
    """Ask Azure; where it was asked too often, again when it may be, beyond the client's tries."""
    from azure.core.exceptions import HttpResponseError

    for _ in range(_TRIES):
        try:
            return ask(*given)
        except HttpResponseError as error:
            if not (wait := busy_after(error)):
                raise
        time.sleep(wait)
    return ask(*given)


def _pages(query: Callable[..., Any], *address: str) -> list[Any]:
    """Ask for all runs of the last month, page by page."""
    now = datetime.now(UTC)
    wanted = {
        "lastUpdatedAfter": (now - timedelta(days=30)).isoformat(),
        "lastUpdatedBefore": (now + timedelta(days=1)).isoformat(),
    }
    found: list[Any] = []
    while True:
        answer = query(*address, wanted)
        found += answer.value
        if not answer.continuation_token:
            return found
        wanted["continuationToken"] = answer.continuation_token


def _pipeline_run(run: Any) -> PipelineRun:
    archive = (run.parameters or {}).get("archive", "")
    return PipelineRun(run.run_id, archive, run.status, without_secrets(run.message or ""))


def _activity(archive: str, run: Any) -> Activity:
    output = run.output or {}
    return Activity(
        archive=archive,
        name=run.activity_name,
        status=run.status,
        read=int(output.get("dataRead") or 0),
        written=int(output.get("dataWritten") or 0),
        files=int(output.get("filesWritten") or 0),
        seconds=(run.duration_in_ms or 0) / 1000 or float(output.get("copyDuration") or 0),
        error=without_secrets(str((run.error or {}).get("message") or "")),
    )
