"""A training job for a cluster: everything is checked before it is sent."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.azure_login import require_workspace
from workbench.catalog import model_by_name
from workbench.compute.cluster import (
    Backend,
    Cluster,
    choose_cluster,
    choose_datastore,
    connect,
)
from workbench.compute.cluster_job import ClusterJob, DataFolder, conda_specification, parse_tags
from workbench.compute.cluster_store import RunStore
from workbench.compute.estimate import (
    P40_PACE,
    Estimate,
    Pace,
    Price,
    check_price,
    estimates,
    measured_pace,
    price_of,
)
from workbench.compute.evaluation import check_splits
from workbench.compute.gpus import Machine, cluster_warnings, has_gpus, machine_of
from workbench.compute.jobs import TrainingJob, run_folder, training_job
from workbench.compute.runs import SENT, Run, prepare_run, read_record
from workbench.compute.training import described, phantom_remarks
from workbench.compute.volumes import keep_cache, training_volumes
from workbench.data.blob_source import BlobFolder
from workbench.data.cache import DatasetCache
from workbench.data.stored import open_stored
from workbench.progress import duration

ACCESS = ("mount", "download", "stream")
_ACCESS_SHOWN = {
    "mount": "mounts",
    "download": "downloads once a node",
    "stream": "streams by ranged reads",
}


@dataclass(frozen=True)
class ClusterChoices:
    """The cluster's part of a notebook's parameters.

    Attributes:
        cluster: name of the cluster; None takes the only one that fits.
        low_priority: take only a cluster of that kind; None takes either.
        dataset_access: how the nodes read the dataset, one of ``ACCESS``; None is the first.
        dataset_mount: the name of 2021 for that: True mounts, False downloads.
        azure_dataset: its folder in the container; None takes the model's.
        datastore: the datastore; None takes that of the container ``datasets``.
        experiment: what the studio lists the run under.
        tags: shown in the studio, as "study:4x, who:me".
        torch_build: another build of torch, for older cards.
        sdk: "v1" or "v2".
        price_per_hour: US dollars for a node and hour, for the estimate; None takes an assumption.
    """

    cluster: str | None = None
    low_priority: bool | None = None
    dataset_access: str | None = None
    dataset_mount: bool | None = None
    azure_dataset: str | None = None
    datastore: str | None = None
    experiment: str = "fastmri"
    tags: str | None = None
    torch_build: str = ""
    sdk: str = "v1"
    price_per_hour: float | None = None

    @property
    def access(self) -> str:
        """How the nodes read the dataset.

        Raises:
            ValueError: what was given is no such way, or two different ones.
        """
        mount, access = self.dataset_mount, self.dataset_access
        if mount is not None and not isinstance(mount, bool):
            raise ValueError(f"dataset_mount={mount!r}: give True or False")
        if access not in (None, *ACCESS):
            raise ValueError(f"dataset_access={access!r}: give one of {', '.join(ACCESS)}")
        of_mount = None if mount is None else "mount" if mount else "download"
        if access and of_mount and access != of_mount:
            raise ValueError(
                f"dataset_access={access!r} and dataset_mount={mount}: give one of the two"
            )
        return access or of_mount or ACCESS[0]


@dataclass(frozen=True)
class ClusterPlan:
    """What is about to be sent to a cluster.

    Attributes:
        job: what to train.
        cache: the dataset, as its published cache has it.
        run: the run's folder here, which fills with what the nodes keep.
        cluster: the cluster.
        cluster_job: the job as the SDKs send it.
        backend: the workspace.
        store: the run's folder in blob storage.
        pace: what a card does, for the estimate.
        remarks: what a person should know before it is sent.
        sdk: the SDK that sends it.
        splits: what the job reconstructs and measures once it has trained.
        price_per_hour: US dollars for a node and hour; None takes an assumption.
        resume: whether to go on with a run that the folder holds.
    """

    job: TrainingJob
    cache: DatasetCache
    run: Run
    cluster: Cluster
    cluster_job: ClusterJob
    backend: Backend
    store: RunStore
    pace: Pace
    remarks: tuple[str, ...]
    sdk: str
    splits: tuple[str, ...] = ()
    price_per_hour: float | None = None
    resume: bool = True

    @property
    def price(self) -> Price | None:
        """What a node costs; None where nobody knows."""
        machine = machine_of(self.cluster.vm_size)
        return price_of(machine, self.price_per_hour) if machine else None

    @property
    def slices(self) -> tuple[int, int]:
        """Training and validation slices of an epoch."""
        train, val = training_volumes(self.job, self.cache)
        return max(1, round(self.job.sample_rate * train.slices)), val.slices

    @property
    def estimates(self) -> list[Estimate]:
        """Time and cost for several numbers of nodes; none where the machines are not known."""
        machine = machine_of(self.cluster.vm_size)
        if machine is None:
            return []
        nodes = sorted({1, 2, 4, 8, self.cluster_job.nodes})
        done = len(self.run.metrics)
        return estimates(
            self.pace,
            machine,
            slices=self.slices,
            epochs=self.job.epochs - done,
            once=sum(self.cache.split(split).slices for split in self.splits),
            nodes=nodes,
            price=self.price,
        )

    def __str__(self) -> str:
        machine = machine_of(self.cluster.vm_size)
        nodes, dataset = self.cluster_job.nodes, self.cluster_job.dataset
        ranks = nodes * (_cards(machine) if has_gpus(self.cluster.vm_size) else 1)
        return "\n".join(
            (
                *described(self.job, self.cache, self.run, ranks, self.splits),
                f"where      {nodes} node(s) of cluster {self.cluster}",
                f"data       {_ACCESS_SHOWN[dataset.mode]} {dataset.path} in datastore "
                f"{dataset.datastore}; checkpoints go to {self.cluster_job.store.path} there",
                *(f"estimate   {line}" for line in self._estimate_lines()),
                *(f"note       {remark}" for remark in self.remarks),
            )
        )

    def _estimate_lines(self) -> Iterator[str]:
        for each in self.estimates:
            if each.nodes == self.cluster_job.nodes:
                cost = "" if each.dollars is None else f", about {each.dollars:,.0f} US dollars"
                yield (
                    f"{duration(3600 * each.hours)}{cost} at {each.efficiency:.0%} parallel "
                    f"efficiency; {self.pace.source}"
                )
        if self.price and self.estimates:
            yield f"cost {self.price.source}"


def plan_on_cluster(
    model: str,
    nodes: int,
    resume: bool,
    splits: tuple[str, ...],
    choices: ClusterChoices,
    parameters: dict[str, Any],
) -> ClusterPlan:
    """Check a notebook's parameters against the workspace, and prepare the run's folder.

    The dataset's cache is built on blob storage where it is missing.

    Args:
        model: a model's name.
        nodes: number of nodes.
        resume: whether to go on with a run that is there.
        splits: what to reconstruct and measure once it is trained.
        choices: the cluster's part of the parameters.
        parameters: what ``training_job`` takes.

    Raises:
        ValueError: a parameter is outside what is allowed, or the dataset cannot be trained on.
        FileNotFoundError: there is no such dataset in the storage.
        OSError: the storage refuses or cannot be reached.
        ClusterError: AzureML refuses what it was asked.
        LoginError: no login works.
    """
    if not isinstance(nodes, int) or isinstance(nodes, bool) or nodes < 1:
        raise ValueError(f"nodes={nodes!r}: give 1 or more")
    access = choices.access
    if choices.price_per_hour is not None:
        check_price(choices.price_per_hour)
    folder = choices.azure_dataset or model_by_name(model).dataset
    training_job(Path(), synthetic=False, model=model, **parameters)
    conda_specification(choices.torch_build)
    tags = parse_tags(choices.tags)
    backend = connect(require_workspace(), choices.sdk)
    cluster = choose_cluster(backend.clusters(), choices.cluster, nodes, choices.low_priority)
    if access == "stream" and not cluster.identity:
        raise ValueError(
            f"dataset_access='stream': cluster {cluster.name} has no managed identity to read the "
            "storage with: assign it one in the studio, with the role Storage Blob Data Reader on "
            "the account, or give 'mount' or 'download'"
        )
    datastore = choose_datastore(backend.datastores(), choices.datastore)
    cache = open_stored(BlobFolder(datastore.client(), folder))
    address = datastore.address(folder)
    job = training_job(address, synthetic=cache.synthetic, model=model, **parameters)
    training_volumes(job, cache)
    check_splits(splits, job, cache)
    store = RunStore(datastore, f"runs/{job.name}")
    if not (run_folder(job.name) / "job.json").exists():
        store.fetch(run_folder(job.name), lambda path: path in ("job.json", "metrics.csv"))
    run = prepare_run(job, resume=resume)
    keep_cache(cache, run.folder, goes_on=run.last.exists())
    return ClusterPlan(
        job,
        cache,
        run,
        cluster,
        ClusterJob(
            name=job.name,
            experiment=choices.experiment,
            cluster=cluster.name,
            nodes=nodes,
            device="GPU" if has_gpus(cluster.vm_size) else "CPU",
            dataset=DataFolder("dataset", datastore.name, folder, access, address),
            store=DataFolder("store", datastore.name, store.path, "write"),
            parameters={"model": model, "reconstruct": ", ".join(splits) or None, **parameters},
            tags=tags,
            torch_build=choices.torch_build,
        ),
        backend,
        store,
        measured_pace(job, _earlier_runs(), cluster.vm_size) or P40_PACE,
        tuple(_remarks(cluster, choices, job, cache, parameters)),
        choices.sdk,
        splits,
        choices.price_per_hour,
        resume,
    )


def _earlier_runs() -> Iterator[tuple[Run, str, int, tuple[int, int]]]:
    """Yield the runs here that a cluster trained, each with VM size, ranks and slices."""
    outputs = run_folder("x").parent
    records = sorted(outputs.rglob(SENT), key=lambda path: -path.stat().st_mtime)
    for path in records:
        with suppress(ValueError, KeyError, TypeError):  # a damaged one tells nothing
            record = read_record(path)
            machine = machine_of(record["vm_size"])
            train, val = record["slices"]
            ranks = record["nodes"] * _cards(machine)
            yield Run(path.parent), record["vm_size"], ranks, (train, val)


def _cards(machine: Machine | None) -> int:
    return machine.count if machine else 1


def _remarks(
    cluster: Cluster,
    choices: ClusterChoices,
    job: TrainingJob,
    cache: DatasetCache,
    parameters: dict[str, Any],
) -> Iterator[str]:
    yield from cluster_warnings(cluster.vm_size, choices.torch_build)
    if cluster.low_priority:
        yield (
            "nodes of low priority may be taken away at any time: the run then goes on from its "
            f"last checkpoint, one every {job.checkpoint_minutes:g} minutes; they cost a fraction "
            "of the estimate"
        )
    if cluster.problem:
        yield f"the cluster reports: {cluster.problem}"
    if choices.sdk == "v1":
        yield "SDK v1, which Microsoft supported until June 2026; sdk=v2 sends the same job"
    yield from phantom_remarks(job, cache, parameters)
