"""One archive on its way into a container: what is known of it, and what its failures mean."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench import catalog
from workbench.azure_login import LoginError
from workbench.ingest.archives import Unpacked
from workbench.ingest.azure.arm import ResourceError
from workbench.ingest.azure.factory import Activity, PipelineRun
from workbench.ingest.blobs import StorageError, blob_sizes, storage_problem
from workbench.ingest.plan import PlannedArchive
from workbench.ingest.server import expired_message

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


@dataclass
class ArchiveJob:
    """One archive on its way.

    Attributes:
        archive: what was planned for it.
        run: the pipeline run that copies it, once there is one.
        tried: whether a run was asked for, perhaps without an answer.
        out: what was unpacked.
        result: "unpacked", "was there" or "failed".
        problem: what went wrong and what to do, or "".
        activities: every attempt of every activity.
    """

    archive: PlannedArchive
    run: PipelineRun | None = None
    tried: bool = False
    out: Unpacked = field(default_factory=Unpacked)
    result: str = "failed"
    problem: str = ""
    activities: list[Activity] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name in the email."""
        return self.archive.link.name

    @property
    def stem(self) -> str:
        """Name without extension."""
        return self.archive.link.stem

    @property
    def dataset(self) -> str:
        """The dataset that it belongs to."""
        return str(self.archive.link.dataset)

    @property
    def file(self) -> str:
        """Name under which it is kept in the container."""
        return self.stem + self.archive.kind


def run_problem(job: ArchiveJob) -> str:
    """Say why a run ended without success, and what to do."""
    assert job.run is not None
    if job.run.status == "Cancelled":
        return f"{job.name}: its pipeline run was cancelled from outside: run again to copy it"
    failed = [a for a in job.activities if a.status == "Failed" and a.error]
    cause = failed[-1].error if failed else job.run.message
    where = f"{failed[-1].name} failed" if failed else "failed"
    link = job.archive.link
    what = "run again; if it stays so, see the activity in the factory's monitor"
    if "403" in cause and failed and failed[-1].name == "land":
        what = (
            expired_message(link)
            if link.expires and link.expires.timestamp() < time.time()
            else "fastMRI's server refuses the link: paste the email again, or ask for new links"
        )
    return f"{job.name}: {where} in Data Factory: {cause}: {what}"


def unpack_problem(error: Exception, account: str) -> str:
    """Say why an archive could not be unpacked, and what to do."""
    from azure.core.exceptions import AzureError

    if isinstance(error, AzureError):
        return f"{storage_problem(error, account)}; run again, it goes on from there"
    if isinstance(error, StorageError | ResourceError | LoginError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def count_blob_volumes(container: "ContainerClient", dataset: str) -> dict[str, tuple[int, int]]:
    """Count a dataset's ``.h5`` blobs per split, beside the number that fastMRI publishes."""
    found: dict[str, set[str]] = {}
    for path in blob_sizes(container, dataset):
        folder, _, name = path.rpartition("/")
        split = catalog.split_of_folder(folder)
        if split and name.endswith(".h5") and not name.startswith("._"):
            found.setdefault(split, set()).add(name)
    official = catalog.DATASETS[dataset].counts
    return {
        split: (len(found.get(split, ())), official.get(split, (0, 0))[0])
        for split in catalog.SPLITS
        if split in found or split in official
    }
