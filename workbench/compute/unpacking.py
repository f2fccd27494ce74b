"""Unpack archives of an ingest on a cluster: one job for each, on one node, on mounted folders.

A job goes on when the notebook that sent it is killed. It is noted beside the dataset, so that the
next one waits for it instead of sending another.
"""

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from workbench.azure_login import LoginError, Workspace
from workbench.compute.cluster import choose_cluster, connect
from workbench.compute.cluster_job import DataFolder, ModuleJob
from workbench.compute.gpus import has_gpus
from workbench.compute.images import IMAGES, check_image
from workbench.compute.sender import (
    Cluster,
    ClusterError,
    RunState,
    Sender,
    new_run,
)
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.fetch import StoppedError
from workbench.ingest.passing import passing_note
from workbench.ingest.plan import IngestPlan, archive_folder
from workbench.ingest.unpacking import Unpacker, progress_name, result_name
from workbench.stores import Store
from workbench.stores.blob import BlobStore

SECONDS_BETWEEN_LOOKS = 15.0


@dataclass(frozen=True)
class ClusterUnpacker(Unpacker):
    """Passes over archives that are jobs of a cluster.

    Attributes:
        datastore: the workspace's name of the container.
    """

    sender: Sender
    cluster: Cluster
    datastore: str
    container: BlobStore

    def __call__(
        self,
        dataset: str,
        file: str,
        source: str,
        out: Unpacked,
        *,
        known: Mapping[str, str],
        stopped: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> str:
        """Make the pass over one archive, and return its SHA256; see ``unpack_kept``."""
        job = ModuleJob(
            name=f"unpack-{file.partition('.')[0]}",
            experiment="fastmri-ingest",
            cluster=self.cluster.name,
            nodes=1,
            device="CPU",
            dataset=DataFolder("dataset", self.datastore, archive_folder(dataset), "mount"),
            store=DataFolder("store", self.datastore, dataset, "write"),
            parameters={"file": file, "source": source},
            module="workbench.ingest.unpacking",
        )
        archive = self.container.folder(archive_folder(dataset)).entry(file)
        folder, tag = self.container.folder(dataset), archive.etag if archive else ""
        state = _followed(self.sender, job, folder, file, tag, stopped, on_bytes)
        found = _noted(folder, result_name(file))
        _clear(folder, file)
        if found is None:
            error = f": {state.error}" if state.error else ""
            raise ClusterError(
                f"the job that unpacks {source} ended as {state.status}{error}; see {state.url}"
            )
        vars(out).update(found["out"])
        if found["error"]:
            raise ArchiveError(found["error"])
        return str(found["sha256"])


def with_unpacker(
    plan: IngestPlan, unpack_on: str | None, cluster: str = "", sdk: str | None = None
) -> IngestPlan:
    """Return an ingest's plan with who verifies and unpacks, and a note that says so.

    Args:
        plan: where a Data Factory brings the archives, else it is returned as it is.
        unpack_on: "azureml"; "here", this machine; None for the workspace's cluster where it has
            one without GPUs, else this machine.
        cluster: that is to unpack; "" chooses one.
        sdk: see ``connect``.

    Raises:
        ValueError: there is no such cluster, or the workspace knows no datastore of the container.
        ClusterError: the workspace refuses.
    """
    if plan.factory is None or not plan.to_unpack:
        return plan
    assert isinstance(plan.store, BlobStore)
    why = "unpack_on='here'"
    if unpack_on != "here":
        wanted = bool(unpack_on or cluster)
        try:
            unpacker = _cluster_unpacker(plan.factory.workspace, plan.store, cluster, sdk, wanted)
            note = (
                f"jobs on the cluster {unpacker.cluster} verify and unpack the archives, which do "
                "not pass through this machine"
            )
            return replace(plan, unpacker=unpacker, notes=(*plan.notes, note))
        except (ValueError, ClusterError, LoginError) as error:
            if wanted:
                raise
            why = str(error)
    return replace(plan, notes=(*plan.notes, passing_note(plan, why)))


def _cluster_unpacker(
    workspace: Workspace, container: BlobStore, name: str, sdk: str | None, wanted: bool
) -> ClusterUnpacker:
    """Find what unpacks; unless it is wanted all the same, a cluster without GPUs."""
    sender = connect(workspace, sdk)
    clusters = sender.clusters()
    if not name:
        # Of several the one with most machines, those of low priority first: they cost less.
        order = sorted(clusters, key=lambda each: (-each.max_nodes, not each.low_priority))
        usable = [each for each in order if each.max_nodes and not has_gpus(each.vm_size)]
        if not usable and not wanted:
            raise ValueError("the workspace has no cluster without GPUs")
        clusters = usable[:1] or clusters
    chosen = choose_cluster(clusters, name or None, 1, None)
    check_image(IMAGES["CPU"])
    place = (container.account, container.container_name)
    datastores = {(each.account, each.container): each.name for each in sender.datastores()}
    if place not in datastores:
        raise ValueError(
            f"unpack_on='azureml': the workspace has no datastore of {'/'.join(place)}: register "
            "one in the studio (Data, Datastores), or give unpack_on='here'"
        )
    return ClusterUnpacker(sender, chosen, datastores[place], container)


def _followed(
    sender: Sender,
    job: ModuleJob,
    folder: Store,
    file: str,
    tag: str,
    stopped: threading.Event,
    on_bytes: Callable[[int], None],
) -> RunState:
    """Send a job, or take over the one that was sent, and wait for its end; a stop cancels it.

    A job that was sent for an archive of another ETag is not waited for.
    """
    run = ""
    noted = _noted(folder, _note(file)) or {}
    if noted.get("archive") == tag and (earlier := sender.known(noted["run"])):
        whole = earlier.status == "Completed" and _noted(folder, result_name(file)) is not None
        run = str(noted["run"]) if whole or not earlier.ended else ""
    if not run:
        _clear(folder, file)
        run = new_run()
        folder.write_json(_note(file), {"run": run, "archive": tag})
        sender.send(job, run)
    counted = 0
    for state in sender.looks(run, SECONDS_BETWEEN_LOOKS, stopped.wait):
        if state.ended:
            return state
        with suppress(OSError):
            count = int((_noted(folder, progress_name(file)) or {}).get("bytes", 0))
            on_bytes(max(count - counted, 0))
            counted = max(count, counted)
    sender.cancel(run)
    _clear(folder, file)
    raise StoppedError(f"run {run}: stopped")


def _note(file: str) -> str:
    return f".unpack-job-{file}.json"


def _noted(folder: Store, name: str) -> dict[str, Any] | None:
    """Return what a job, or whoever sent it, has left; None where it is missing or damaged."""
    try:
        return dict(folder.read_json(name))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def _clear(folder: Store, file: str) -> None:
    for name in (_note(file), progress_name(file), result_name(file)):
        folder.delete(name)
