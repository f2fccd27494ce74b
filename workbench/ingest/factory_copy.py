"""Archives brought into a container by a Data Factory: where it is made, and its copies watched."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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
from workbench.ingest.factory_documents import FactoryDocuments
from workbench.ingest.fetch import expired_message
from workbench.ingest.links import SignedLink

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
    """Where a factory is made, and for which container.

    Attributes:
        workspace: the AzureML workspace; the factory lies in its resource group.
        storage: the storage account.
        container: the container in it.
        login: the credential for Azure.
        location: of the factory, such as "westeurope".
        leftovers: names of the factories that earlier runs left behind for this container.
        leftover: "adopt" goes on with the copies that still run in such a factory, "delete"
            cancels them.
        secure_runs: see ``FactoryDocuments``.
        patience: seconds for Azure to make a factory.
        notes: what the reader should know.
    """

    workspace: Workspace
    storage: Storage
    container: str
    login: "TokenCredential" = field(repr=False)
    location: str
    leftovers: tuple[str, ...] = ()
    leftover: str = "adopt"
    secure_runs: bool = True
    patience: float = 600.0
    notes: tuple[str, ...] = ()

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
    *,
    leftover: str = "adopt",
    secure_runs: bool = True,
    patience: float = 600.0,
) -> FactoryPlace:
    """Find out where to make a factory, and what earlier runs left behind.

    Args:
        workspace: the AzureML workspace.
        storage: the storage account.
        container: the container's name.
        login: the credential for Azure.
        location: where to make the factory; by default where the workspace is.
        leftover: see ``FactoryPlace``.
        secure_runs: see ``FactoryDocuments``.
        patience: seconds for Azure to make a factory.

    Raises:
        ValueError: there is no such location.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses to say what is there.
    """
    check_login(login)
    where, notes = _location(location, workspace, storage, login)
    left = left_behind(workspace, login, f"{storage.account}/{container}")
    names = tuple(factory.name for factory in left)
    if names:
        what = (
            "this run goes on with the copies that still run in it and deletes it at the end; give "
            "leftover='delete' to cancel them instead"
            if leftover == "adopt"
            else "this run cancels what still runs in it and deletes it"
        )
        notes.append(
            "an earlier run was killed, or still runs, and left the factory "
            f"{', '.join(names)}: {what}"
        )
    return FactoryPlace(
        workspace, storage, container, login, where, names, leftover, secure_runs, patience,
        tuple(notes),
    )  # fmt: skip


def _location(
    asked: str, workspace: Workspace, storage: Storage, login: "TokenCredential"
) -> tuple[str, list[str]]:
    """Return the factory's location and what is to be said of it."""
    from azure.core.exceptions import AzureError

    problem: Exception | None = None
    try:
        manager = ResourceManager(login)
        known = manager.factory_locations(workspace.subscription_id)
        home = manager.workspace_location(workspace)
        account = manager.storage_location(workspace.subscription_id, storage.account)
    except AzureError as error:
        problem = login_or_resource_error(error, workspace)
    if problem:
        raise problem
    location = location_name(asked) or home or account or ""
    if not location:
        raise ValueError(
            "location='': the workspace's own is not to be seen (does it exist, and may the login "
            f"read it?): give one of {', '.join(known) or 'the locations of Azure'}"
        )
    if known and location not in known:
        raise ValueError(f"location={asked or location!r}: give one of {', '.join(known)}")
    notes = [
        f"the factory is in {location}, {what} in {other}: traffic between locations is slower and "
        "is paid for"
        for what, other in (
            (f"the storage account {storage.account}", account),
            (f"the workspace {workspace.name}", home),
        )
        if other and other != location
    ]
    return location, notes


# ---- copying -----------------------------------------------------------------------------


@dataclass
class Copy:
    """One archive that the factory brings.

    Attributes:
        link: where it comes from.
        kind: extension by its first bytes.
        file: name that it gets in ``DATASET_compressed``.
        size: its bytes.
        begin: called before its first byte is asked for.
        landed_size: says how many bytes of it lie in the container.
        landed: called when its run is through.
        failed: called with what went wrong and what to do.
        on_bytes: called with the bytes that came since the last call.
        run: the pipeline run that copies it, once there is one.
        tried: whether a run was asked for, perhaps without an answer.
        activities: every attempt of every activity.
        read: bytes that came so far.
        over: whether it landed or failed.
    """

    link: SignedLink
    kind: str
    file: str
    size: int
    begin: Callable[[], None]
    landed_size: Callable[[], int]
    landed: Callable[[], None]
    failed: Callable[[str], None]
    on_bytes: Callable[[int], None]
    run: PipelineRun | None = None
    tried: bool = False
    activities: list[Activity] = field(default_factory=list)
    read: int = 0
    over: bool = False


def copy_archives(place: FactoryPlace, copies: Sequence[Copy], stopped: threading.Event) -> None:
    """Copy archives into the container, in a factory that is gone when this returns.

    The caller holds the container's lock: whatever factory is there for it is nobody's.

    Args:
        place: where to make the factory.
        copies: what to copy; all at the same time. Empty, only what was left behind is deleted.
        stopped: ends the watch.

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
        documents = FactoryDocuments(
            [(copy.link, copy.kind) for copy in copies],
            place.storage.connection,
            secure_runs=place.secure_runs,
        )
        factory.put(documents)
        for copy in copies:
            copy.begin()
        if adopted:
            _take_over(factory, copies)
        _watch(factory, documents, place.container, copies, stopped)


def _say(text: str) -> None:
    print(text, flush=True)


def _take_over(factory: Factory, copies: Sequence[Copy]) -> None:
    """Go on with the runs of a killed ingest: those that go on, and those that came through."""
    for run in reversed(factory.runs()):
        for copy in copies:
            whole = run.status == "Succeeded" and copy.landed_size() == copy.size
            if copy.link.stem == run.archive and (run.status not in ENDED or whole):
                copy.run = run


def _watch(
    factory: Factory,
    documents: FactoryDocuments,
    container: str,
    copies: Sequence[Copy],
    stopped: threading.Event,
) -> None:
    """Start runs and follow them to their ends, whatever the network does meanwhile."""
    from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError

    look, lost, locked_out = 0.0, False, 0.0
    while live := [copy for copy in copies if not copy.over]:
        stopped.wait(look)
        look = min(max(look * 1.3, _FIRST_LOOK), _LONGEST_LOOK)
        try:
            for copy in live:
                if copy.run is None:
                    _start(factory, documents, container, copy)
                else:
                    _look(factory, copy, copy.run)
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


def _start(factory: Factory, documents: FactoryDocuments, container: str, copy: Copy) -> None:
    again, copy.tried = copy.tried, True
    try:
        request = documents.run(copy.link, copy.kind, container, copy.file)
        copy.run = factory.start(request, again=again)
    except ResourceError as error:
        copy.over = True
        copy.failed(str(error))


def _look(factory: Factory, copy: Copy, run: PipelineRun) -> None:
    """See how a run stands."""
    copy.run = run = factory.run(run.id)
    copy.activities = factory.activities(run)
    read = max((each.read for each in copy.activities if each.name == "land"), default=0)
    copy.on_bytes(max(read - copy.read, 0))
    copy.read = max(read, copy.read)
    copy.over = run.status in ENDED
    if run.status == "Succeeded":
        copy.landed()
    elif copy.over:
        copy.failed(_run_problem(copy, run))


def _run_problem(copy: Copy, run: PipelineRun) -> str:
    """Say why a run ended without success, and what to do."""
    name = copy.link.name
    if run.status == "Cancelled":
        return f"{name}: its pipeline run was cancelled from outside: run again to copy it"
    failed = [each for each in copy.activities if each.status == "Failed" and each.error]
    cause = failed[-1].error if failed else run.message
    where = f"{failed[-1].name} failed" if failed else "failed"
    what = "run again; if it stays so, see the activity in the factory's monitor"
    if "403" in cause and failed and failed[-1].name == "land":
        expired = copy.link.expires and copy.link.expires.timestamp() < time.time()
        what = (
            expired_message(copy.link)
            if expired
            else "fastMRI's server refuses the link: paste the email again, or ask for new links"
        )
    return f"{name}: {where} in Data Factory: {cause}: {what}"
