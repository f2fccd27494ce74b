"""Plan an ingest to Azure: what the email offers, what the container has, what has to be copied."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from workbench.azure_login import Workspace, check_login
from workbench.azure_storage import Storage
from workbench.ingest import archives
from workbench.ingest.azure.arm import ResourceManager, location_name, login_or_resource_error
from workbench.ingest.azure.documents import CODECS
from workbench.ingest.azure.factory import FactoryClient
from workbench.ingest.azure.manifest import BlobManifest
from workbench.ingest.azure.unpack import archive_blob, mismatch_message
from workbench.ingest.blobs import CONTAINER, blob_sizes, open_container
from workbench.ingest.links import SignedLink
from workbench.ingest.manifest import ArchiveRecord
from workbench.ingest.offer import Sums, read_sums, wanted
from workbench.ingest.plan import DatasetPlan, PlannedArchive, plan_archives
from workbench.ingest.server import PATIENT, DownloadError, Patience, expired_message, inspect
from workbench.progress import amount, duration

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.storage.blob import ContainerClient

# Bytes a second of one copy, at the careful end of what Data Factory reports for a single file.
_COPY_SPEED = 30e6


@dataclass(frozen=True)
class CloudPlan:
    """Everything that an ingest to Azure would do.

    Attributes:
        workspace: the AzureML workspace; the factory lies in its resource group.
        storage: the storage account.
        container: the container in it.
        location: where the factory is made.
        datasets: in the order of the catalogue; an archive's action is "none" (its members are
            there), "verify" (it has landed; to be hashed and unpacked), "copy", "refuse" or
            "expired".
        keep_archives: whether the archives stay in ``NAME_compressed``.
        accept_mismatch: stems of archives to take although their hash differs from the list.
        leftovers: factories that are there for this container already.
        notes: what the reader should know.
    """

    workspace: Workspace
    storage: Storage
    container: str
    location: str
    datasets: tuple[DatasetPlan, ...]
    keep_archives: bool
    accept_mismatch: tuple[str, ...]
    leftovers: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def archives(self) -> list[PlannedArchive]:
        """All archives of all datasets."""
        return [archive for dataset in self.datasets for archive in dataset.archives]

    def space(self) -> str:
        """Say how much is copied, and where to."""
        copy = [archive for archive in self.archives if archive.action == "copy"]
        size = sum(archive.size for archive in copy)
        text = f"{self.storage.account}/{self.container}: {len(copy)} archives to copy"
        if copy:
            slowest = max(archive.size for archive in copy) / _COPY_SPEED
            text += (
                f", {amount(size, 'B')}, side by side, by a Data Factory in {self.location}: some "
                f"{duration(slowest)} for the largest at {amount(_COPY_SPEED, 'B')}/s"
            )
        return text


def plan_cloud_ingest(
    links: Sequence[SignedLink],
    workspace: Workspace,
    storage: Storage,
    datasets: Sequence[str] = (),
    *,
    login: "TokenCredential",
    container: str = CONTAINER,
    location: str = "",
    keep_archives: bool = True,
    accept_mismatch: Sequence[str] = (),
    patience: Patience = PATIENT,
    now: datetime | None = None,
) -> CloudPlan:
    """Find out what there is to do; nothing is changed but that the container is made.

    Args:
        links: what ``parse_links`` found.
        workspace: the AzureML workspace.
        storage: the storage account.
        datasets: names of those to bring in; empty for all that the links offer.
        login: the credential for Azure.
        container: the container's name.
        location: where to make the factory; by default where the workspace is.
        keep_archives: whether to keep each archive beside what it holds.
        accept_mismatch: stems of archives to take although their hash differs from the list.
        patience: how long to bear with fastMRI's server.
        now: the time against which links expire; by default the clock's.

    Raises:
        ValueError: an unknown dataset or location, one without links, or every link has expired.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses to say what is there.
        StorageError: the storage account is not there, or refuses the key.
    """
    now = now or datetime.now(UTC)
    parts, notes = wanted(links, datasets)
    check_login(login)
    where, remarks = _location(location, workspace, storage, login)
    notes += remarks
    opened = open_container(storage, container)
    leftovers = FactoryClient(workspace, login).left_behind(f"{storage.account}/{container}")
    sums = read_sums([link for link in links if link.is_checksums], patience, now)
    names = [part.dataset for part in parts]
    context = _Context.of(opened, names, tuple(accept_mismatch), sums, patience, now)
    plans = plan_archives(parts, context.plan)
    planned = [archive for plan in plans for archive in plan.archives]
    if any(archive.action == "copy" for archive in planned):
        notes += sums.problems
    notes += _short_lived(planned, now)
    return CloudPlan(
        workspace,
        storage,
        container,
        where,
        plans,
        keep_archives,
        tuple(accept_mismatch),
        tuple(factory.name for factory in leftovers),
        tuple(notes),
    )


# ---- where, how long ---------------------------------------------------------------------


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


def _short_lived(planned: Sequence[PlannedArchive], now: datetime) -> list[str]:
    """Name the links that will expire before a careful copy would be through."""
    notes = []
    for archive in planned:
        link = archive.link
        takes = timedelta(seconds=archive.size / _COPY_SPEED)
        if archive.action == "copy" and link.expires and link.expires < now + takes:
            left = (link.expires - now).total_seconds()
            notes.append(
                f"{link.name}: its link ends in {duration(left)}, and copying "
                f"{amount(archive.size, 'B')} may take {duration(takes.total_seconds())}: a copy "
                "that breaks after that cannot be taken up; new links are safer"
            )
    return notes


# ---- one archive -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Context:
    manifests: dict[str, BlobManifest]
    members: dict[str, dict[str, int]]
    landed: dict[str, dict[str, int]]
    accept_mismatch: tuple[str, ...]
    sums: Sums
    patience: Patience
    now: datetime

    @classmethod
    def of(
        cls,
        container: "ContainerClient",
        names: Sequence[str],
        accept_mismatch: tuple[str, ...],
        sums: Sums,
        patience: Patience,
        now: datetime,
    ) -> "_Context":
        """Look at what the container holds."""
        return cls(
            {name: BlobManifest(container, name) for name in names},
            {name: blob_sizes(container, name) for name in names},
            {name: blob_sizes(container, f"{name}_compressed") for name in names},
            accept_mismatch,
            sums,
            patience,
            now,
        )

    def plan(self, link: SignedLink) -> PlannedArchive:
        dataset = str(link.dataset)
        record = self.manifests[dataset].get(link.stem)
        # A later email may come without the list.
        listed = self.sums.of(link) or (record.listed if record else "") or None
        if record and self._through(link, record, listed):
            return PlannedArchive(link, "none", size=record.size, sha256=listed)
        kind = self._kind_landed(link, record.size) if record else None
        if record and kind:
            return self._landed(link, record, kind, listed)
        if link.expired(self.now):
            return PlannedArchive(link, "expired", problem=f"{link.name}: {expired_message(link)}")
        try:
            return self._remote(link, listed)
        except DownloadError as error:
            return PlannedArchive(link, "refuse", problem=str(error))

    def _through(self, link: SignedLink, record: ArchiveRecord, listed: str | None) -> bool:
        accepted = record.check == "mismatch" and link.stem in self.accept_mismatch
        if not record.is_unpacked_for(listed) and not accepted:
            return False
        there = self.members[str(link.dataset)]
        return all(there.get(path) == size for path, size in record.members.items())

    def _kind_landed(self, link: SignedLink, size: int) -> str | None:
        """Return the kind under which an archive lies in the container whole, or None."""
        landed = self.landed[str(link.dataset)]
        return next((kind for kind in CODECS if landed.get(link.stem + kind) == size), None)

    def _landed(
        self, link: SignedLink, record: ArchiveRecord, kind: str, listed: str | None
    ) -> PlannedArchive:
        wrong = bool(record.sha256) and listed is not None and listed != record.sha256
        if wrong and link.stem not in self.accept_mismatch:
            blob = archive_blob(str(link.dataset), link.stem + kind)
            problem = mismatch_message(link.name, record.sha256, str(listed), blob, link.stem)
            return PlannedArchive(link, "refuse", kind, record.size, problem=problem)
        return PlannedArchive(link, "verify", kind, record.size, sha256=listed)

    def _remote(self, link: SignedLink, listed: str | None) -> PlannedArchive:
        remote = inspect(link, self.patience)
        kind = archives.sniff(remote.head)
        if kind is None:
            problem = (
                f"{link.name}: neither tar nor gzip nor xz, it begins with {remote.head[:8]!r}: "
                "it is broken at its source, or the link leads to something else"
            )
            return PlannedArchive(link, "refuse", size=remote.size, problem=problem)
        # Brought there by other means, or by a run that was killed before it could take note.
        there = self.landed[str(link.dataset)].get(link.stem + kind) == remote.size
        return PlannedArchive(
            link,
            "verify" if there else "copy",
            kind,
            remote.size,
            0 if there else remote.size,
            sha256=listed,
            remote=remote,
        )
