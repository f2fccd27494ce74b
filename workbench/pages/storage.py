"""The page of ``storage.ipynb``: bring a dataset between a container and this machine."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

from pydantic import model_validator

from workbench.azure_storage import find_storage
from workbench.catalog import DATASETS, SPLITS
from workbench.forms.opening import OpenPage, open_page
from workbench.forms.page import Page
from workbench.forms.parameters import Field, Parameters, concerning
from workbench.forms.secrets import connection_entry
from workbench.ingest.request import listed
from workbench.ingest.transfer import Transfer, copy_dataset
from workbench.settings import resolve, shown
from workbench.stores import DiskStore, Store
from workbench.stores.blob import check_container_name, open_container

DIRECTIONS = ("download", "upload")


class StorageParameters(Parameters):
    """What ``storage.ipynb`` asks for."""

    notebook: ClassVar[str] = "storage"

    dataset: str = Field(
        "knee_multicoil",
        "folder of the dataset, here and in the container",
        choices=lambda: tuple(DATASETS),
    )
    direction: str = Field(
        "download", '"download" from the container to here, or "upload"', choices=DIRECTIONS
    )
    splits: str = Field(
        "", 'download: such as "val, test"; empty: all', choices=SPLITS, several=True
    )
    fraction: float = Field(
        1.0,
        "download: share of each split's volumes, the same ones each time",
        label="share of the volumes",
        gt=0,
        le=1,
    )
    root: str = Field(
        "datasets",
        "folder that holds the datasets; relative to the project",
        section="More",
        label="folder of the datasets",
    )
    container: str = Field("datasets", "container in the storage account")
    connection_file: str = Field("storage.secret", "file with the account's connection string")
    connections: int = Field(
        16, "files at work at the same time", ge=1, le=128, unit="files at a time"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        with concerning("dataset"):
            if ".." in _folder(self).split("/") or not _folder(self):
                known = ", ".join(DATASETS)
                raise ValueError(
                    f"dataset={self.dataset!r}: give a dataset's folder, such as one of {known}"
                )
        with concerning("container"):
            check_container_name(self.container)
        with concerning("connection_file"):
            find_storage(self.connection_file)
        return self


def _folder(parameters: StorageParameters) -> str:
    return parameters.dataset.strip("/ ")


def storage_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the transfer at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def plan(parameters: StorageParameters) -> StorageParameters:
    """Say what will be brought where."""
    storage = find_storage(parameters.connection_file)
    account = storage.account if storage else "?"
    dataset = _folder(parameters)
    here = shown(resolve(parameters.root) / dataset)
    there = f"{account}/{parameters.container}/{dataset}"
    upload = parameters.direction == "upload"
    part = ", ".join(listed(parameters.splits)) or "all splits"
    if parameters.fraction < 1:
        part += f", {parameters.fraction:.0%} of the volumes of each"
    source, target = (here, there) if upload else (there, here)
    print(f"from       {source}\nto         {target}\nwhat       {part}", flush=True)
    return parameters


def work(parameters: StorageParameters) -> dict[str, Any]:
    """Bring it over; what is there whole is passed over.

    Raises:
        ValueError: nothing is there to copy, or no storage account is given.
        TransferError: files could not be copied; run again for them.
    """
    storage = find_storage(parameters.connection_file)
    if storage is None:
        raise ValueError("no storage account: give its connection string first")
    disk: Store = DiskStore(resolve(parameters.root))
    container: Store = open_container(storage, parameters.container)
    upload = parameters.direction == "upload"
    done = copy_dataset(
        *((disk, container) if upload else (container, disk)),
        _folder(parameters),
        splits=listed(parameters.splits),
        fraction=parameters.fraction,
        connections=parameters.connections,
    )
    print(done)
    return asdict(done)


PAGE = Page(
    StorageParameters,
    "Transfer",
    plan,
    work,
    lambda left, _: Transfer(**left),
    report=lambda done: f": {done}",
    secrets=(connection_entry(),),
)
