"""Archives brought into a container by a Data Factory: where it is made, and its copies watched."""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from workbench.azure_login import LoginError, Workspace, check_login, login_problem
from workbench.azure_resources import (
    ResourceError,
    ResourceManager,
    busy_after,
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
# How often an archive is copied that does not land whole, although the service is content.
COPIES = 3
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

    By default it is made where the workspace is. Options are ``leftover`` and ``secure_runs`` of
    the ``FactoryPlace``.

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
    before: list[Activity] = field(default_factory=list)  # those of earlier runs
    read: int = 0  # bytes that came so far
    short: list[str] = field(default_factory=list)  # runs that brought less than all of it
    over: bool = False  # it landed or failed
    problem: str = ""  # what went wrong and what to do

    @property
    def state(self) -> str:
        """How it stands, in words."""
        if self.over:
            return "landed"
        if self.run is None:
            return "to be copied again" if self.short else "waits"
        if self.run.status == "Queued":
            return "queued in the factory"
        unpacks = any(each.name == "unpack" for each in self.activities[len(self.before) :])
        return "the factory unpacks" if unpacks else "the factory copies"

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
    with temporary_factory(factory, place.location, place.address):
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

    look, looks, lost, locked_out = 0.0, 0, False, 0.0
    while live := [copy for copy in copies if not copy.over]:
        stopped.wait(look)
        look = min(max(look * 1.3, _FIRST_LOOK), _LONGEST_LOOK)
        try:
            looks += 1
            for copy in live:
                if copy.run is None:
                    _start(factory, requests[copy.link.stem], copy)
                if copy.over:
                    yield copy
            yield from _look(factory, [copy for copy in live if not copy.over], looks)
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
            stopped.wait(busy_after(error))
            continue
        if lost or locked_out:
            _say("Data Factory answers again")
        lost, locked_out = False, 0.0


def _start(factory: Factory, request: RunRequest, copy: Copy) -> None:
    again, copy.tried = copy.tried, True
    try:
        copy.run = factory.start(request, again=again, besides=copy.short)
    except ResourceError as error:
        copy.over, copy.problem = True, str(error)


def _look(factory: Factory, copies: Sequence[Copy], looks: int) -> Iterator[Copy]:
    """See how the runs of copies stand; yield each at once, for the look at the next may fail.

    One query tells the state of all. How far a copy is, its activities tell: that is asked when its
    run ends, and until then of one copy a look, in turn. Azure counts these queries as writes, of
    which it allows some 1,200 an hour.
    """
    runs = {run.id: run for run in factory.runs()}
    for number, copy in enumerate(copies):
        if copy.run is None:
            continue
        copy.run = run = runs.get(copy.run.id, copy.run)
        ended = run.status in ENDED
        if ended or number == looks % len(copies):
            copy.activities = copy.before + factory.activities(run)
            reads = [each.read for each in copy.activities if each.name == "land"]
            copy.read = max(copy.read, *reads, 0)
        if ended:
            _end(copy, run)
        if copy.run is not None:  # else it is to be copied again
            yield copy


def _end(copy: Copy, run: PipelineRun) -> None:
    """Take note of how a run ended; one that brought too little has the archive copied again.

    The service may call a copy from HTTP Succeeded that ended early; then "unpack" may fail.
    """
    ran = [each for each in copy.activities[len(copy.before) :] if each.name == "land"]
    came = run.status == "Succeeded" or any(each.status == "Succeeded" for each in ran)
    landed = copy.size
    if came and run.status != "Cancelled":
        with suppress(OSError):  # whoever verifies it asks again, and says what is wrong
            landed = copy.landed
    if landed < copy.size:
        copy.short.append(run.id)
        if len(copy.short) < COPIES:
            _say(
                f"{copy.link.name}: {landed:,} of {copy.size:,} bytes landed, and Data Factory "
                "calls that Succeeded: copying again"
            )
            copy.run, copy.tried, copy.before = None, False, copy.activities
        else:
            copy.over = True
        return
    copy.over = True
    if run.status == "Cancelled":
        copy.problem = (
            f"{copy.link.name}: its pipeline run was cancelled from outside: run again to copy it"
        )
    elif run.status == "Failed":
        copy.problem = f"{copy.link.name}: {_failure(copy, run)}"


def _failure(copy: Copy, run: PipelineRun) -> str:
    """Say why a run failed and what to do; the service's own words come last."""
    failed = [each for each in copy.activities if each.status == "Failed" and each.error]
    cause, step = (failed[-1].error, failed[-1].name) if failed else (run.message, "the run")
    what = "run again; if it stays so, the report's table has every attempt"
    if "403" in cause and step == "land":
        what = (
            expired_message(copy.link)
            if copy.link.expired
            else "fastMRI's server refuses the link: paste the email again, or ask for new links"
        )
    return f"{what} ({step} failed in Data Factory: {cause})"
