"""A training job for a cluster: everything is checked before it is sent."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.azure_login import require_workspace
from workbench.catalog import model_by_name
from workbench.compute.cluster import choose_cluster, choose_datastore, connect
from workbench.compute.estimate import P40_PACE, Estimate, Pace, estimates, measured_pace
from workbench.compute.evaluation import check_splits
from workbench.compute.gpus import cluster_warnings, has_gpus, machine_of
from workbench.compute.jobs import TrainingJob, run_folder, training_job
from workbench.compute.kept import fetch
from workbench.compute.plan import Plan, phantom_remarks
from workbench.compute.prices import Price, given_price, retail_price
from workbench.compute.runs import SENT, Run, prepare_run, read_record
from workbench.compute.sender import (
    Cluster,
    ClusterJob,
    DataFolder,
    Sender,
    conda_specification,
    parse_tags,
)
from workbench.compute.volumes import keep_cache, training_volumes
from workbench.data.cache import open_cache
from workbench.progress import duration
from workbench.stores import Store

ACCESS = ("mount", "download", "stream")
_ACCESS_SHOWN = {
    "mount": "mounts",
    "download": "downloads once a node",
    "stream": "streams by ranged reads",
}


@dataclass(frozen=True, kw_only=True)
class ClusterPlan(Plan):
    """What is about to be sent to a cluster; ``run`` fills with what the nodes keep.

    Attributes:
        cluster: the cluster.
        cluster_job: the job as it is sent.
        sender: the workspace.
        store: the run's folder in blob storage.
        pace: what a card does, for the estimate.
        price: what a node costs; None where it is unknown.
    """

    cluster: Cluster
    cluster_job: ClusterJob
    sender: Sender
    store: Store
    pace: Pace
    price: Price | None

    @property
    def processes(self) -> int:
        """Number of processes on all machines."""
        return self.cluster_job.nodes * _cards(self.cluster.vm_size)

    @property
    def slices(self) -> tuple[int, int]:
        """Training and validation slices of an epoch."""
        train, val = training_volumes(self.job, self.cache)
        return max(1, round(self.job.sample_rate * train.slices)), val.slices

    @property
    def estimates(self) -> list[Estimate]:
        """Time and cost for several numbers of nodes; none where the machines are unknown."""
        machine = machine_of(self.cluster.vm_size)
        if machine is None:
            return []
        return estimates(
            self.pace,
            machine,
            slices=self.slices,
            epochs=self.job.epochs - len(self.run.metrics),
            once=sum(self.cache.split(split).slices for split in self.splits),
            nodes=sorted({1, 2, 4, 8, self.cluster_job.nodes}),
            dollars=self.price.dollars if self.price else None,
        )

    def where(self) -> Iterator[str]:
        """Write where it runs, and what it takes."""
        nodes, dataset = self.cluster_job.nodes, self.cluster_job.dataset
        yield f"where      {nodes} node(s) of cluster {self.cluster}"
        yield (
            f"data       {_ACCESS_SHOWN[dataset.mode]} {dataset.path} in datastore "
            f"{dataset.datastore}; checkpoints go to {self.cluster_job.store.path} there"
        )
        found = self.estimates
        for each in (each for each in found if each.nodes == nodes):
            cost = "" if each.dollars is None else f", about {each.dollars:,.0f} US dollars"
            yield (
                f"estimate   {duration(3600 * each.hours)}{cost} at {each.efficiency:.0%} parallel "
                f"efficiency; {self.pace.source}"
            )
        if found and self.price:
            yield f"estimate   cost: {self.price.source}"


def plan_on_cluster(
    model: str,
    nodes: int,
    resume: bool,
    splits: tuple[str, ...],
    parameters: dict[str, Any],
    *,
    cluster: str | None = None,
    low_priority: bool | None = None,
    dataset_access: str | None = None,
    dataset_mount: bool | None = None,
    azure_dataset: str | None = None,
    datastore: str | None = None,
    experiment: str = "fastmri",
    tags: str | None = None,
    torch_build: str = "",
    sdk: str | None = None,
    price_per_hour: float | None = None,
) -> ClusterPlan:
    """Check a notebook's parameters against the workspace, and prepare the run's folder.

    The dataset's cache is built on blob storage where it is missing.

    Args:
        model: a model's name.
        nodes: number of nodes.
        resume: whether to go on with a run that is there.
        splits: what to reconstruct and measure once it is trained.
        parameters: what ``training_job`` takes.
        cluster: name of the cluster; None takes the only one that fits.
        low_priority: take only a cluster of that kind; None takes either.
        dataset_access: how the nodes read the dataset, one of ``ACCESS``; None is the first.
        dataset_mount: the name of 2021 for that: True mounts, False downloads.
        azure_dataset: its folder in the container; None takes the model's.
        datastore: the datastore; None takes that of the container ``datasets``.
        experiment: what the studio lists the run under.
        tags: shown in the studio, as "study:4x, who:me".
        torch_build: another build of torch, for older cards.
        sdk: "v1" or "v2"; None takes the first that works here.
        price_per_hour: US dollars for a node and hour, for the estimate; None takes Azure's
            public price where it can be looked up.

    Raises:
        ValueError: a parameter is outside what is allowed, or the dataset cannot be trained on.
        FileNotFoundError: there is no such dataset in the storage.
        OSError: the storage refuses or cannot be reached.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
        raise ValueError(f"nodes={nodes!r}: give 1 or more")
    access = _access(dataset_access, dataset_mount)
    price = None if price_per_hour is None else given_price(price_per_hour)
    folder = azure_dataset or model_by_name(model).dataset
    training_job(Path(), synthetic=False, model=model, **parameters)
    conda_specification(torch_build)
    shown_tags = parse_tags(tags)
    sender = connect(require_workspace(), sdk)
    chosen = choose_cluster(sender.clusters(), cluster, nodes, low_priority)
    if access == "stream" and not chosen.identity:
        raise ValueError(
            f"dataset_access='stream': cluster {chosen.name} has no managed identity to read the "
            "storage with: assign it one in the studio, with the role Storage Blob Data Reader on "
            "the account, or give 'mount' or 'download'"
        )
    container = choose_datastore(sender.datastores(), datastore)
    dataset = container.store(folder)
    cache = open_cache(dataset)
    job = training_job(dataset.address, synthetic=cache.synthetic, model=model, **parameters)
    training_volumes(job, cache)
    check_splits(splits, job, cache)
    kept_there = f"runs/{job.name}"
    store = container.store(kept_there)
    if not (run_folder(job.name) / "job.json").exists():
        fetch(store, run_folder(job.name), lambda path: path in ("job.json", "metrics.csv"))
    run = prepare_run(job, resume=resume)
    keep_cache(cache, run.folder, goes_on=run.last.exists())
    if price is None and machine_of(chosen.vm_size):
        price = retail_price(chosen.vm_size, chosen.region, low_priority=chosen.low_priority)
    return ClusterPlan(
        job=job,
        cache=cache,
        run=run,
        splits=splits,
        remarks=(
            *cluster_warnings(chosen.vm_size, torch_build),
            *_remarks(chosen, sender, sdk, job),
            *phantom_remarks(job, cache, parameters),
        ),
        resume=resume,
        cluster=chosen,
        cluster_job=ClusterJob(
            name=job.name,
            experiment=experiment,
            cluster=chosen.name,
            nodes=nodes,
            device="GPU" if has_gpus(chosen.vm_size) else "CPU",
            dataset=DataFolder("dataset", container.name, folder, access, dataset.address),
            store=DataFolder("store", container.name, kept_there, "write"),
            parameters={"model": model, "reconstruct": ", ".join(splits) or None, **parameters},
            tags=shown_tags,
            torch_build=torch_build,
        ),
        sender=sender,
        store=store,
        pace=measured_pace(job, _earlier_runs(), chosen.vm_size) or P40_PACE,
        price=price,
    )


def _access(access: str | None, mount: bool | None) -> str:
    """Return how the nodes read the dataset."""
    if mount is not None and not isinstance(mount, bool):
        raise ValueError(f"dataset_mount={mount!r}: give True or False")
    if access not in (None, *ACCESS):
        raise ValueError(f"dataset_access={access!r}: give one of {', '.join(ACCESS)}")
    named_otherwise = None if mount is None else "mount" if mount else "download"
    if access and named_otherwise and access != named_otherwise:
        raise ValueError(
            f"dataset_access={access!r} and dataset_mount={mount}: give one of the two"
        )
    return access or named_otherwise or ACCESS[0]


def _earlier_runs() -> Iterator[tuple[Run, str, int, tuple[int, int]]]:
    """Yield the runs here that a cluster trained, each with VM size, ranks and slices."""
    outputs = run_folder("x").parent
    records = sorted(outputs.rglob(SENT), key=lambda path: -path.stat().st_mtime)
    for path in records:
        with suppress(ValueError, KeyError, TypeError):  # a damaged one tells nothing
            record = read_record(path)
            train, val = record["slices"]
            ranks = record["nodes"] * _cards(record["vm_size"])
            yield Run(path.parent), record["vm_size"], ranks, (train, val)


def _cards(vm_size: str) -> int:
    """Return the processes of a node: one for each GPU, else one."""
    machine = machine_of(vm_size)
    return machine.count if machine else 1


def _remarks(cluster: Cluster, sender: Sender, sdk: str | None, job: TrainingJob) -> Iterator[str]:
    if cluster.low_priority:
        yield (
            "nodes of low priority may be taken away at any time: the run then goes on from its "
            f"last checkpoint, one every {job.checkpoint_minutes:g} minutes"
        )
    if cluster.problem:
        yield f"the cluster reports: {cluster.problem}"
    chosen = "" if sdk else ", the first that this Python and the workspace support"
    yield f"sent through AzureML's SDK {sender.sdk} ({sender.package}){chosen}"
