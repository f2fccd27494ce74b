"""Unpack archives of an ingest on a cluster: one job for each, on one node, on mounted folders."""

import json
import shlex
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.azure_login import Workspace
from workbench.compute.cluster import (
    Backend,
    ClusterError,
    Datastore,
    LostContactError,
    RunState,
    choose_cluster,
    connect,
)
from workbench.compute.cluster_job import ClusterJob, DataFolder
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.azure.manifest import BlobManifest
from workbench.ingest.azure.mounted import result_name
from workbench.ingest.azure.unpack import StoppedError, Unpacker, settle

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

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
        result = container.get_blob_client(f"{dataset}/{result_name(record.archive)}")
        if result.exists():  # Of a job that a killed notebook did not wait for, or of an old one.
            result.delete_blob()
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
        state = _wait(backend, backend.submit(job), stopped)
        if not result.exists():
            raise ClusterError(
                f"the job that unpacks {record.source} ended as {state.status}"
                f"{f': {state.error}' if state.error else ''}; see {state.url}"
            )
        found = json.loads(result.download_blob().readall())
        result.delete_blob()
        vars(out).update(found["out"])
        on_bytes(found["size"])
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


def _wait(backend: Backend, run: str, stopped: threading.Event) -> RunState:
    """Wait for a run's end, whatever the network does meanwhile; a stop cancels it."""
    while not stopped.wait(SECONDS_BETWEEN_LOOKS):
        try:
            state = backend.state(run)
        except LostContactError:
            continue
        if state.ended:
            return state
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
