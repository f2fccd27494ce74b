"""A training job for a cluster: everything is checked before it is sent."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import pydantic
from pydantic import ConfigDict, Field

from workbench.azure_login import require_workspace
from workbench.catalog import model_by_name
from workbench.compute.cluster import choose_cluster, choose_datastore, connect
from workbench.compute.estimate import P40_PACE, Price, measured_pace, retail_price
from workbench.compute.gpus import cluster_warnings, has_gpus, machine_of
from workbench.compute.images import IMAGES, check_image
from workbench.compute.jobs import in_words, run_folder
from workbench.compute.kept import fetch
from workbench.compute.loggers import USUAL_ON_CLUSTER, check_on_cluster, read_loggers
from workbench.compute.own_code import code_for
from workbench.compute.plan import Cloud, Plan, checked_job, phantom_remarks
from workbench.compute.runs import prepare_run
from workbench.compute.sender import (
    ClusterJob,
    DataFolder,
    conda_specification,
    parse_tags,
)
from workbench.data.cache import open_cache
from workbench.models.entry import check_whole
from workbench.models.own import is_own

Access = Literal["mount", "download", "stream"]


class ClusterChoices(pydantic.BaseModel):
    """A notebook's parameters that count only on a cluster; ``train.ipynb`` explains each."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    cluster: str | None = None
    low_priority: bool | None = None
    dataset_access: Access | None = None
    dataset_mount: bool | None = None
    azure_dataset: str | None = None
    datastore: str | None = None
    experiment: str = "fastmri"
    tags: str | None = None
    torch_build: str = ""
    sdk: str | None = None
    price_per_hour: float | None = Field(None, ge=0)

    @property
    def access(self) -> Access:
        """How the nodes read the dataset; ``dataset_mount`` is the name of 2021 for it."""
        named: Access | None = None
        if self.dataset_mount is not None:
            named = "mount" if self.dataset_mount else "download"
        if named and self.dataset_access not in (None, named):
            raise ValueError(
                f"dataset_access={self.dataset_access!r} and dataset_mount={self.dataset_mount}: "
                "give one of the two"
            )
        return self.dataset_access or named or get_args(Access)[0]


def plan_on_cluster(
    model: str,
    nodes: int,
    resume: bool,
    splits: tuple[str, ...],
    parameters: dict[str, Any],
    choices: Mapping[str, Any],
) -> Plan:
    """Check a notebook's parameters against the workspace, and prepare the run's folder.

    The dataset's cache is built on blob storage where it is missing. ``parameters`` are what
    ``training_job`` takes, ``choices`` the fields of ``ClusterChoices``; see ``plan_training``.
    """
    check_whole("nodes", nodes, 1)
    try:
        chosen = ClusterChoices(**{key: each for key, each in choices.items() if each is not None})
    except pydantic.ValidationError as error:
        raise ValueError(in_words(error)) from None
    access, tags = chosen.access, parse_tags(chosen.tags)
    folder = chosen.azure_dataset or model_by_name(model).dataset
    conda_specification(chosen.torch_build)
    logger = read_loggers(parameters.get("logger") or USUAL_ON_CLUSTER)
    check_on_cluster(logger)
    parameters = parameters | {"logger": logger}
    own = {key: parameters[key] for key in ("network", "loss") if is_own(parameters.get(key))}
    if (start := parameters.get("start_from")) and is_own(start.network):
        own["network"] = start.network
    code = code_for(own)
    sender = connect(require_workspace(), chosen.sdk)
    cluster = choose_cluster(sender.clusters(), chosen.cluster, nodes, chosen.low_priority)
    if access == "stream" and not cluster.identity:
        raise ValueError(
            f"dataset_access='stream': cluster {cluster.name} has no managed identity to read the "
            "storage with: assign it one in the studio, with the role Storage Blob Data Reader on "
            "the account, or give 'mount' or 'download'"
        )
    device = "GPU" if has_gpus(cluster.vm_size) else "CPU"
    check_image(IMAGES[device])
    container = choose_datastore(sender.datastores(), chosen.datastore)
    cache = open_cache(container.store(folder))
    job = checked_job(model, cache, splits, parameters)
    store = container.store(f"runs/{job.name}")
    if not (run_folder(job.name) / "job.json").exists():
        fetch(store, run_folder(job.name), lambda path: path in ("job.json", "metrics.csv"))
    run = prepare_run(job, cache, resume=resume)
    if job.start_from:  # the nodes find the file in the run's folder in the store
        parameters = parameters | {"start_from": job.start_from.asked}
    price = None
    if chosen.price_per_hour is not None:
        said = f"price_per_hour={chosen.price_per_hour:g} US dollars a node"
        price = Price(chosen.price_per_hour, said)
    elif machine_of(cluster.vm_size):
        price = retail_price(cluster.vm_size, cluster.region, low_priority=cluster.low_priority)
    remarks = cluster_warnings(cluster.vm_size, chosen.torch_build)
    if cluster.low_priority:
        remarks.append(
            "nodes of low priority may be taken away at any time: the run then goes on from its "
            f"last checkpoint, one every {job.checkpoint_minutes:g} minutes"
        )
    if code:
        remarks.append(f"the job takes along code of your own: {', '.join(code)}")
    if job.start_from:
        remarks.append(f"the job takes along the weights {job.start_from}")
    if cluster.problem:
        remarks.append(f"the cluster reports: {cluster.problem}")
    first = "" if chosen.sdk else ", the first that this Python and the workspace support"
    remarks.append(f"sent through AzureML's SDK {sender.sdk} ({sender.package}){first}")
    return Plan(
        job=job,
        cache=cache,
        run=run,
        splits=splits,
        remarks=(*remarks, *phantom_remarks(job, cache, parameters)),
        resume=resume,
        where=Cloud(
            cluster,
            ClusterJob(
                name=job.name,
                experiment=chosen.experiment,
                cluster=cluster.name,
                nodes=nodes,
                device=device,
                dataset=DataFolder("dataset", container.name, folder, access, job.dataset),
                store=DataFolder("store", container.name, f"runs/{job.name}", "write"),
                parameters={"model": model, "reconstruct": ", ".join(splits) or None, **parameters},
                tags=tags,
                torch_build=chosen.torch_build,
                code=code,
            ),
            sender,
            store,
            measured_pace(job, cluster.vm_size) or P40_PACE,
            price,
        ),
    )
