"""Archives brought into a container by a Data Factory: where it is made, and its copies watched."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from workbench.azure_login import LoginError, Workspace, check_login, login_problem
from workbench.azure_resources import (
    ResourceError,
    ResourceManager,
    location_name,
    login_or_resource_error,
)
from workbench.azure_storage import Storage
from workbench.ingest.factory import (
    ENDED,
    Activity,
    Factory,
    PipelineRun,
    left_behind,
    temporary_factory,
)
from workbench.ingest.factory_documents import RunRequest, factory_documents
from workbench.ingest.fetch import expired_message
from workbench.ingest.links import SignedLink
from workbench.stores import Store

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

LEFTOVER = ("adopt", "delete")
# Bytes a second of one copy, at the careful end of what Data Factory reports for a single file.
COPY_SPEED = 30e6
# Between two looks at the factory: short at first, for small archives, then longer.
_FIRST_LOOK, _LONGEST_LOOK = 1.0, 15.0
# How long a lapsed login may stay so before the watch ends: time to run `az login`.
_LOGIN_PATIENCE = 1800.0


@dataclass(frozen=True)
class FactoryPlace:
    """Where a factory is made, in the workspace's resource group, and for which container."""

    workspace: Workspace
    storage: Storage
    container: str
    login: "TokenCredential" = field(repr=False)
    location: str  # of the factory, such as "westeurope"
    leftover: str = "adopt"
    """Goes on with the copies that still run in a factory that an earlier run left; "delete"
    cancels them."""
    secure_runs: bool = True  # see ``factory_documents``
    patience: float = 600.0  # seconds for Azure to make a factory
    notes: tuple[str, ...] = ()  # what the reader should know

    @property
    def address(self) -> str:
        """The container, as it is written on its factories."""
        return f"{self.storage.account}/{self.container}"


def factory_place(
    workspace: Workspace,
    storage: Storage,
    container: str,
    login: "TokenCredential",
    location: str = "",
    **options: Any,
) -> FactoryPlace:
    """Find out where to make a factory, and what earlier runs left behind.

    By default it is made where the workspace is. Options are ``leftover``, ``secure_runs`` and
    ``patience`` of the ``FactoryPlace``.

    Raises:
        ValueError: there is no such location.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses to say what is there.
    """
    from azure.core.exceptions import AzureError

    check_login(login)
    try:
        manager = ResourceManager(login)
        known = manager.factory_locations(workspace.subscription_id)
        home = manager.workspace_location(workspace)
        account = manager.storage_location(workspace.subscription_id, storage.account)
    except AzureError as error:
        raise login_or_resource_error(error, workspace) from None
    where = location_name(location) or home or account or ""
    if not where:
        raise ValueError(
            "location='': this login cannot see the workspace's own (does it exist? may the login "
            f"read it?): give one of {', '.join(known) or 'the locations of Azure'}"
        )
    if known and where not in known:
        raise ValueError(f"location={location or where!r}: give one of {', '.join(known)}")
    others = {
        f"the storage account {storage.account}": account,
        f"the workspace {workspace.name}": home,
    }
    notes = [
        f"the factory is in {where}, {what} in {other}: traffic between locations is slower and is "
        "paid for"
        for what, other in others.items()
        if other and other != where
    ]
    place = FactoryPlace(workspace, storage, container, login, where, **options)
    names = [factory.name for factory in left_behind(workspace, login, place.address)]
    if names:
        what = (
            "this run goes on with the copies that still run in it and deletes it at the end; give "
            "leftover='delete' to cancel them instead"
            if place.leftover == "adopt"
            else "this run cancels what still runs in it and deletes it"
        )
        notes.append(
            "an earlier run was killed, or still runs, and left the factory "
            f"{', '.join(names)}: {what}"
        )
    return replace(place, notes=tuple(notes))


# ---- copying -----------------------------------------------------------------------------


@dataclass(eq=False)
class Copy:
    """One archive that the factory brings, and how far it is."""

    link: SignedLink
    kind: str
    folder: Store  # that it lands in, DATASET_compressed
    file: str  # its name there
    size: int
    run: PipelineRun | None = None
    tried: bool = False  # a run was asked for, perhaps without an answer
    activities: list[Activity] = field(default_factory=list)  # every attempt of every one
    read: int = 0  # bytes that came so far
    over: bool = False  # it landed or failed
    problem: str = ""  # what went wrong and what to do

    @property
    def landed(self) -> int:
        """Bytes of it that lie in the container."""
        entry = self.folder.entry(self.file)
        return entry.size if entry else 0


def copy_archives(
    place: FactoryPlace, copies: Sequence[Copy], stopped: threading.Event
) -> Generator[Copy, None, None]:
    """Copy archives into the container, in a factory that is gone when this ends.

    The caller holds the container's lock: no other run uses a factory that is there for it. All are
    copied at the same time; of none, only what was left behind is deleted.

    Yields:
        Each copy before its first byte is asked for, while it has no ``run``, and whenever it may
        have come further.

    Raises:
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses the factory.
    """
    orphans = left_behind(place.workspace, place.login, place.address)
    adopted = orphans.pop(0) if orphans and copies and place.leftover == "adopt" else None
    for orphan in orphans:
        _say(f"deleting the factory {orphan.name}, which an earlier run left behind")
        orphan.delete()
    if not copies:
        return
    factory = adopted or Factory(place.workspace, place.login)
    what = "going on with" if adopted else "making"
    _say(f"{what} the factory {factory.name}; watch it at {factory.monitor_url}")
    with temporary_factory(factory, place.location, place.address, patience=place.patience):
        documents = factory_documents(
            [(copy.link, copy.kind, copy.file) for copy in copies],
            place.container,
            place.storage.connection,
            secure_runs=place.secure_runs,
        )
        factory.put(documents)
        yield from copies
        # Of the runs of a killed ingest: those that go on, and those that came through.
        for run in reversed(factory.runs()) if adopted else ():
            for copy in copies:
                whole = run.status == "Succeeded" and copy.landed == copy.size
                if copy.link.stem == run.archive and (run.status not in ENDED or whole):
                    copy.run = run
        yield from _watch(factory, documents.runs, copies, stopped)


def _say(text: str) -> None:
    print(text, flush=True)


def _watch(
    factory: Factory,
    requests: dict[str, RunRequest],
    copies: Sequence[Copy],
    stopped: threading.Event,
) -> Iterator[Copy]:
    """Start runs and follow them to their ends, whatever the network does meanwhile."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    look, lost, locked_out = 0.0, False, 0.0
    while live := [copy for copy in copies if not copy.over]:
        stopped.wait(look)
        look = min(max(look * 1.3, _FIRST_LOOK), _LONGEST_LOOK)
        try:
            for copy in live:
                if copy.run is None:
                    _start(factory, requests[copy.link.stem], copy)
                else:
                    _look(factory, copy, copy.run)
                if copy.run is not None or copy.over:
                    yield copy
        except ClientAuthenticationError as error:
            problem = login_problem(str(error))
            if locked_out and time.monotonic() - locked_out > _LOGIN_PATIENCE:
                raise LoginError(problem) from None
            if not locked_out:
                _say(f"{problem}; the copies go on, and so does this")
            locked_out = locked_out or time.monotonic()
            factory.log_in_again()
            continue
        except AzureError as error:
            if isinstance(error, HttpResponseError) and error.status_code == 404:
                raise ResourceError(
                    f"the factory {factory.name} or a run in it is gone, deleted from outside: "
                    "run again; what has landed whole is not copied anew"
                ) from None
            if not lost:
                _say("no answer from Data Factory; the copies go on, and so does this")
            lost = True
            continue
        if lost or locked_out:
            _say("Data Factory answers again")
        lost, locked_out = False, 0.0


def _start(factory: Factory, request: RunRequest, copy: Copy) -> None:
    again, copy.tried = copy.tried, True
    try:
        copy.run = factory.start(request, again=again)
    except ResourceError as error:
        copy.over, copy.problem = True, str(error)


def _look(factory: Factory, copy: Copy, run: PipelineRun) -> None:
    """See how a run stands."""
    copy.run = run = factory.run(run.id)
    copy.activities = factory.activities(run)
    reads = [each.read for each in copy.activities if each.name == "land"]
    copy.read = max(copy.read, *reads, 0)
    copy.over = run.status in ENDED
    name = copy.link.name
    if run.status == "Cancelled":
        copy.problem = f"{name}: its pipeline run was cancelled from outside: run again to copy it"
    elif run.status == "Failed":
        failed = [each for each in copy.activities if each.status == "Failed" and each.error]
        cause = failed[-1].error if failed else run.message
        where = f"{failed[-1].name} failed" if failed else "failed"
        what = "run again; if it stays so, see the activity in the factory's monitor"
        if "403" in cause and failed and failed[-1].name == "land":
            what = (
                expired_message(copy.link)
                if copy.link.expired(datetime.now(UTC))
                else "fastMRI's server refuses the link: paste the email again, or ask for new "
                "links"
            )
        copy.problem = f"{name}: {where} in Data Factory: {cause}: {what}"
