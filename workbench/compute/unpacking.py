"""Unpack archives of an ingest on a cluster: one job for each, on one node, on mounted folders.

A job goes on when the notebook that sent it is killed. It is noted beside the dataset, so that the
next one waits for it instead of sending another.
"""

import shlex
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from workbench.azure_login import Workspace
from workbench.compute.cluster import choose_cluster, connect
from workbench.compute.sender import (
    ClusterError,
    ClusterJob,
    DataFolder,
    LostContactError,
    RunState,
    Sender,
)
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.fetch import StoppedError
from workbench.ingest.plan import archive_folder
from workbench.ingest.unpacking import Unpacker, progress_name, result_name
from workbench.stores import Store
from workbench.stores.blob import BlobStore

SECONDS_BETWEEN_LOOKS = 15.0


@dataclass(frozen=True)
class UnpackJob(ClusterJob):
    """A job that makes one pass over one archive; ``dataset`` is the folder of the archives."""

    def command(self, places: Mapping[str, str]) -> str:
        """Return what the node runs in its shell."""
        words = " ".join(shlex.quote(str(self.parameters[name])) for name in ("file", "source"))
        return (
            'export PYTHONPATH="$PWD"; python -m workbench.ingest.unpacking '
            f'"{places["dataset"]}" "{places["store"]}" {words}'
        )


def cluster_unpacker(
    workspace: Workspace, container: BlobStore, cluster: str = "", sdk: str | None = None
) -> Unpacker:
    """Return an unpacker whose passes are jobs of a cluster.

    Args:
        workspace: the AzureML workspace.
        container: the container that the archives landed in.
        cluster: the cluster's name; "" takes the only one there is.
        sdk: "v1" or "v2"; None takes the first that works here.

    Raises:
        ValueError: there is no such cluster, or the workspace knows no datastore of the container.
        ClusterError: the workspace refuses.
    """
    backend = connect(workspace, sdk)
    chosen = choose_cluster(backend.clusters(), cluster or None, 1, None)
    datastore = _datastore(backend, container)

    def unpacker(
        dataset: str,
        file: str,
        source: str,
        out: Unpacked,
        *,
        known: Mapping[str, str],
        stopped: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> str:
        job = UnpackJob(
            name=f"unpack-{file.partition('.')[0]}",
            experiment="fastmri-ingest",
            cluster=chosen.name,
            nodes=1,
            device="CPU",
            dataset=DataFolder("dataset", datastore, archive_folder(dataset), "mount"),
            store=DataFolder("store", datastore, dataset, "write"),
            parameters={"file": file, "source": source},
        )
        archive = container.folder(archive_folder(dataset)).entry(file)
        traces = _Traces(container.folder(dataset), file, archive.etag if archive else "")
        state = _followed(backend, job, traces, stopped, on_bytes)
        found = traces.result
        traces.clear()
        if found is None:
            error = f": {state.error}" if state.error else ""
            raise ClusterError(
                f"the job that unpacks {source} ended as {state.status}{error}; see {state.url}"
            )
        vars(out).update(found["out"])
        if found["error"]:
            raise ArchiveError(found["error"])
        return str(found["sha256"])

    return unpacker


def _followed(
    backend: Sender,
    job: UnpackJob,
    traces: "_Traces",
    stopped: threading.Event,
    on_bytes: Callable[[int], None],
) -> RunState:
    """Send a job, or take over the one that was sent, and wait for its end; a stop cancels it.

    Raises:
        StoppedError: it was stopped.
    """
    run = traces.run_of(backend)
    if run is None:
        traces.clear()
        run = backend.submit(job)
        traces.note(run)
    counted = 0
    while True:
        with suppress(LostContactError):  # the next look may come through
            state = backend.state(run)
            if state.ended:
                return state
            count = traces.bytes
            on_bytes(max(count - counted, 0))
            counted = max(count, counted)
        if stopped.wait(SECONDS_BETWEEN_LOOKS):
            backend.cancel(run)
            traces.clear()
            raise StoppedError(f"run {run}: stopped")


@dataclass(frozen=True)
class _Traces:
    """What the jobs that unpack an archive leave in the dataset's folder.

    Attributes:
        folder: the dataset's folder.
        file: the archive's name.
        tag: the archive's ETag; a job for another one is not waited for.
    """

    folder: Store
    file: str
    tag: str

    @property
    def _job(self) -> str:
        return f".unpack-job-{self.file}.json"

    def run_of(self, backend: Sender) -> str | None:
        """Return the run that unpacks this very archive, or has unpacked it; None for none."""
        noted = self._content(self._job)
        if noted is None or noted.get("archive") != self.tag:
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
        self.folder.write_json(self._job, {"run": run, "archive": self.tag})

    @property
    def bytes(self) -> int:
        """Bytes of the archive that the job has read, as far as is known."""
        with suppress(OSError):  # the next look may come through
            return int((self._content(progress_name(self.file)) or {}).get("bytes", 0))
        return 0

    @property
    def result(self) -> dict[str, Any] | None:
        """What the job found; None as long as it is not through."""
        return self._content(result_name(self.file))

    def clear(self) -> None:
        """Take all of it away."""
        for name in (self._job, progress_name(self.file), result_name(self.file)):
            self.folder.delete(name)

    def _content(self, name: str) -> dict[str, Any] | None:
        try:
            return dict(self.folder.read_json(name))
        except (FileNotFoundError, ValueError, TypeError):
            return None


def _datastore(backend: Sender, container: BlobStore) -> str:
    """Return the name of the workspace's datastore of a container."""
    for each in backend.datastores():
        if (each.account, each.container) == (container.account, container.container_name):
            return each.name
    raise ValueError(
        f"unpack_on='azureml': the workspace has no datastore of {container.account}/"
        f"{container.container_name}: register one in the studio (Data, Datastores), or give "
        "unpack_on='here'"
    )
