"""The page of ``storage.ipynb``: bring a dataset between a container and this machine."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

from pydantic import model_validator

from workbench.catalog import DATASETS, SPLITS
from workbench.forms.page import OpenPage, Page, open_page
from workbench.forms.parameters import Field, Parameters, concerning
from workbench.forms.storage_secret import connection_entry
from workbench.ingest.azure.transfer import Transfer
from workbench.ingest.azure.transfer_request import DIRECTIONS, TransferRequest, transfer_request
from workbench.settings import shown


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
        16, "files at work at the same time", ge=1, le=256, unit="files at a time"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        with concerning("dataset"):
            transfer_request(**self.model_dump())
        return self


def storage_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the transfer at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def plan(parameters: StorageParameters) -> TransferRequest:
    """Say what will be brought where."""
    request = transfer_request(**parameters.model_dump())
    where = f"{request.storage.account}/{request.container}" if request.storage else "?"
    here = shown(request.root / request.dataset)
    there = f"{where}/{request.dataset}"
    source, target = (here, there) if request.direction == "upload" else (there, here)
    part = ", ".join(request.splits) or "all splits"
    share = "" if request.fraction == 1 else f", {request.fraction:.0%} of the volumes of each"
    what = f"\nwhat       {part}{share}" if request.direction == "download" else ""
    print(f"from       {source}\nto         {target}{what}", flush=True)
    return request


def work(request: TransferRequest) -> dict[str, Any]:
    """Bring it over; what is there whole is passed over."""
    done = request.run()
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
