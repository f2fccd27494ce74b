"""What the pages of notebooks share that run on a cluster, too."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, model_validator

from workbench.azure_login import require_workspace
from workbench.compute.cluster import SDKS
from workbench.compute.cluster_plan import (
    ClusterChoices,
    check_experiment,
    find_site,
    parse_tags,
    read_choices,
)
from workbench.compute.cluster_run import GOES_ON, ClusterRun, on_cluster
from workbench.compute.gpus import TORCH_BUILDS
from workbench.compute.jobs import run_folder
from workbench.forms.page import Page
from workbench.forms.parameters import Field, WrongValueError, concerning
from workbench.pages.shared import ANY_DATASET, in_workspace
from workbench.stores import Store, is_address

TARGET: dict[str, Any] = {"meanings": {True: "azureml", False: "local"}, "aliases": ("azureml",)}
"""What a page's field ``target`` takes beside its choices."""


def _check_tags(text: str) -> str:
    parse_tags(text)
    return text


class ClusterPage(Page):
    """A page whose notebook runs here or on a cluster, as its field ``target`` says.

    Attributes:
        only_here: fields that name files of this machine, which no node has.
    """

    only_here: ClassVar[tuple[str, ...]] = ()

    cluster: str | None = Field(None, section="AzureML", look_up=in_workspace("clusters"))
    """AzureML cluster; None: the only one that fits, for networks with GPUs"""
    low_priority: bool | None = None
    """True or False: only a cluster of that kind"""
    sdk: str | None = Field(None, label="AzureML's SDK", choices=SDKS)
    """AzureML's SDK, v1 or v2; None: the first that works here"""
    dataset_access: str | None = Field(None, choices=("mount", "download", "stream"))
    """mount (None), download to each node first, or stream by ranged reads"""
    dataset_mount: bool | None = Field(None, aliases=("use_dataset_mount",))
    """the name of 2021 for that: True mounts, False downloads"""
    dataset_mountpoint: str | None = None
    """of 2021, without effect: AzureML chooses the place on a node"""
    azure_dataset: str | None = Field(None, aliases=("azure_dataset_id",))
    """folder of the dataset in blob storage; None: the dataset's name"""
    datastore: str | None = Field(None, look_up=in_workspace("datastores"))
    """AzureML datastore; None: that of the container datasets"""
    experiment: Annotated[str, AfterValidator(check_experiment)] | None = None
    """the studio lists the run under it, fastmri (None)"""
    tags: Annotated[str, AfterValidator(_check_tags)] | None = None
    """for the studio: NAME:VALUE, several separated by commas"""
    torch_build: str | None = Field(None, choices=TORCH_BUILDS)
    """torch for older GPUs: cu126; None: the usual one"""
    price_per_hour: float | None = Field(None, ge=0, unit="US dollars an hour and node")
    """US dollars a node, for the estimate; None: Azure's public price"""

    @model_validator(mode="after")
    def _check_place(self) -> Self:
        """Check that there is a workspace for what goes there, and that all of it can go."""
        if self._sent:
            with concerning("target"):
                require_workspace()
            for name in self.only_here:
                if getattr(self, name) not in (None, "", False):
                    raise WrongValueError(
                        name,
                        f"{name}={getattr(self, name)!r} is of this machine, and target=azureml "
                        "works on a node: leave it out",
                    )
        return self

    @property
    def _sent(self) -> bool:
        return getattr(self, "target", "") == "azureml"

    @property
    def needs(self) -> tuple[str, ...]:
        """Whatever lets us in where the dataset or the cluster is."""
        return ANY_DATASET

    @property
    def when_cancelled(self) -> str:
        """Say that a job on a cluster knows nothing of it."""
        return f"a job that was sent {GOES_ON}" if self._sent else super().when_cancelled

    def on_node(
        self, dataset: str, look: Callable[[Store], object] = lambda data: None
    ) -> ClusterRun:
        """Plan this notebook on one node of a cluster, and show it.

        Args:
            dataset: name of its dataset.
            look: checks it in the storage, before anything is sent.

        Raises:
            ValueError: a parameter is wrong, or the workspace lacks what it names.
            FileNotFoundError: the storage holds no such dataset.
        """
        chosen = read_choices(self.model_dump(include={*ClusterChoices.model_fields}))
        folder = chosen.azure_dataset or dataset
        if is_address(folder) or Path(folder).is_absolute():
            raise WrongValueError(
                "dataset", f"dataset={folder!r}: for target=azureml give its folder's name"
            )
        site = find_site(1, chosen, gpus=False)
        data = site.datastore.store(folder)
        entries = sorted(data.list(), key=lambda entry: entry.path)
        if not entries:
            raise FileNotFoundError(f"no files in {data.address}: ingest the dataset there first")
        # What a job has shown is of the volumes that were there then.
        volumes = [(e.path, e.size, e.mtime_ns) for e in entries if e.path.endswith(".h5")]
        look(data)
        left_out = {*ClusterChoices.model_fields, "target", "dataset"}
        given = {
            name: value
            for name, value in self
            if name not in left_out and value != self.fields[name].default
        }
        parts = (re.sub(r"[^A-Za-z0-9.-]+", "_", part) for part in folder.split("/"))
        name = "/".join(part.strip("._-") or "dataset" for part in parts)
        name = f"cluster/{self.notebook}/{name}"
        told = {"notebook": self.notebook, "paths": {"dataset": "{dataset}"}}
        work = ClusterRun(
            run_folder(name),
            site.cloud(site.job(name, folder, parameters=given, **told)),
            hashlib.sha256(repr(volumes).encode()).hexdigest(),
        )
        print(work, *(f"note       {remark}" for remark in site.remarks), sep="\n", flush=True)
        return work

    def follow(self, work: ClusterRun) -> str:
        """Send the notebook, or find it again, and watch it; return the executed one's path."""
        for line in on_cluster(work):
            print(line, flush=True)
        return str(work.folder / f"{self.notebook}.ipynb")
