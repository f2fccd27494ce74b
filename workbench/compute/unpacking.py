"""Unpack archives of an ingest on a cluster: one job for each, on one node, on mounted folders.

A job goes on when the notebook that sent it is killed. It is noted beside the dataset, so that the
next one waits for it instead of sending another.
"""

import json
import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.azure_login import Workspace
from workbench.compute.cluster import choose_cluster, connect
from workbench.compute.sender import (
    ClusterError,
    ClusterJob,
    DataFolder,
    Datastore,
    LostContactError,
    RunState,
    Sender,
)
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.azure.manifest import BlobManifest
from workbench.ingest.azure.mounted import progress_name, result_name
from workbench.ingest.azure.unpack import StoppedError, Unpacker, archive_blob, settle

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

SECONDS_BETWEEN_LOOKS = 15.0


@dataclass(frozen=True)
class UnpackJob(ClusterJob):
    """A job that makes one pass over one archive; ``dataset`` is the folder of the archives."""

    def command(self, places: Mapping[str, str]) -> str:
        """Return what the node runs in its shell."""
        words = " ".join(shlex.quote(str(self.parameters[name])) for name in ("file", "source"))
        return (
            'export PYTHONPATH="$PWD"; python -m workbench.ingest.azure.mounted '
            f'"{places["dataset"]}" "{places["store"]}" {words}'
        )


def cluster_unpacker(
    workspace: Workspace, container: "ContainerClient", cluster: str = "", sdk: str = "v1"
) -> Unpacker:
    """Return an unpacker whose passes are jobs of a cluster.

    Args:
        workspace: the AzureML workspace.
        container: the container that the archives landed in.
        cluster: the cluster's name; "" takes the only one there is.
        sdk: "v1" or "v2".

    Raises:
        ValueError: there is no such cluster, or the workspace knows no datastore of the container.
        ClusterError: the workspace refuses.
    """
    backend = connect(workspace, sdk)
    chosen = choose_cluster(backend.clusters(), cluster or None, 1, None)
    store = _datastore(backend.datastores(), str(container.account_name), container.container_name)

    def unpacker(
        dataset: str,
        stem: str,
        out: Unpacked,
        *,
        accept_mismatch: bool,
        keep_archive: bool,
        stopped: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> None:
        record = BlobManifest(container, dataset).get(stem)
        if record is None or record.archive is None:
            raise ArchiveError(f"{stem}: the manifest knows of no archive that landed")
        traces = _Traces(container, dataset, record.archive)
        job = UnpackJob(
            name=f"unpack-{stem}",
            experiment="fastmri-ingest",
            cluster=chosen.name,
            nodes=1,
            device="CPU",
            dataset=DataFolder("dataset", store.name, f"{dataset}_compressed", "mount"),
            store=DataFolder("store", store.name, dataset, "write"),
            parameters={"file": record.archive, "source": record.source},
        )
        run = traces.job(backend)
        if run is None:
            traces.clear()
            run = backend.submit(job)
            traces.note(run)
        shown = 0

        def look() -> None:
            nonlocal shown
            fresh = max(traces.bytes - shown, 0)
            shown += fresh
            on_bytes(fresh)

        try:
            state = _wait(backend, run, stopped, look)
        except StoppedError:
            traces.clear()
            raise
        found = traces.result
        traces.clear()
        if found is None:
            raise ClusterError(
                f"the job that unpacks {record.source} ended as {state.status}"
                f"{f': {state.error}' if state.error else ''}; see {state.url}"
            )
        vars(out).update(found["out"])
        on_bytes(found["size"] - shown)
        if found["error"]:
            raise ArchiveError(found["error"])
        settle(
            container,
            dataset,
            stem,
            found["sha256"],
            out,
            accept_mismatch=accept_mismatch,
            keep_archive=keep_archive,
        )

    return unpacker


class _Traces:
    """What the jobs that unpack an archive leave in the dataset's folder.

    Args:
        container: the container.
        dataset: the dataset.
        archive: name of the archive in the container.
    """

    def __init__(self, container: "ContainerClient", dataset: str, archive: str) -> None:
        self._archive = container.get_blob_client(archive_blob(dataset, archive))
        self._result, self._progress, self._job = (
            container.get_blob_client(f"{dataset}/{name}")
            for name in (
                *(result_name(archive), progress_name(archive)),
                f".unpack-job-{archive}.json",
            )
        )

    def job(self, backend: Sender) -> str | None:
        """Return the run that unpacks this very archive, or has unpacked it; None for none."""
        noted = _content(self._job)
        if noted is None or noted.get("archive") != self._archive_tag:
            return None
        try:
            state = backend.state(noted["run"])
        except LostContactError:
            raise
        except ClusterError:
            return None
        whole = state.status == "Completed" and self.result is not None
        return str(noted["run"]) if whole or not state.ended else None

    def note(self, run: str) -> None:
        """Leave word of a job that was sent."""
        note = json.dumps({"run": run, "archive": self._archive_tag})
        self._job.upload_blob(note, overwrite=True)

    @property
    def bytes(self) -> int:
        """Bytes of the archive that the job has read, as far as is known."""
        from azure.core.exceptions import AzureError

        with suppress(AzureError):  # the next look may come through
            return int((_content(self._progress) or {}).get("bytes", 0))
        return 0

    @property
    def result(self) -> dict[str, Any] | None:
        """What the job found; None as long as it is not through."""
        return _content(self._result)

    def clear(self) -> None:
        """Take all of it away."""
        for blob in (self._job, self._progress, self._result):
            if blob.exists():
                blob.delete_blob()

    @property
    def _archive_tag(self) -> str:
        return str(self._archive.get_blob_properties().etag)


def _content(blob: "BlobClient") -> dict[str, Any] | None:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return json.loads(blob.download_blob().readall())
    except (ResourceNotFoundError, ValueError):
        return None


def _wait(
    backend: Sender, run: str, stopped: threading.Event, look: Callable[[], None]
) -> RunState:
    """Wait for a run's end, whatever the network does meanwhile; a stop cancels it.

    Raises:
        StoppedError: it was stopped.
    """
    while True:
        with suppress(LostContactError):
            state = backend.state(run)
            if state.ended:
                return state
            look()
        if stopped.wait(SECONDS_BETWEEN_LOOKS):
            backend.cancel(run)
            raise StoppedError(f"run {run}: stopped")


def _datastore(datastores: list[Datastore], account: str, container: str) -> Datastore:
    for each in datastores:
        if (each.account, each.container) == (account, container):
            return each
    raise ValueError(
        f"unpack_on='azureml': the workspace has no datastore of {account}/{container}: register "
        "one in the studio (Data, Datastores), or give unpack_on='here'"
    )
