"""The page of ``storage.ipynb``: bring a dataset between a container and this machine."""

from collections.abc import Callable
from typing import Self

from pydantic import model_validator

from workbench.azure_storage import find_storage
from workbench.catalog import DATASETS, SPLITS
from workbench.forms.page import Page
from workbench.forms.parameters import Field, concerning
from workbench.ingest.request import listed
from workbench.ingest.transfer import copy_dataset
from workbench.pages.shared import STORAGE, check_dataset, connection_entry
from workbench.settings import resolve, shown
from workbench.stores import DiskStore, Store
from workbench.stores.blob import check_container_name, open_container


class StoragePage(Page):
    """Copy a dataset's folder to or from blob storage; what is there whole is passed over."""

    notebook, start, secrets = "storage", "Transfer", (connection_entry(),)

    dataset: str = Field("knee_multicoil", choices=lambda _: tuple(DATASETS))
    """folder of the dataset, here and in the container"""
    direction: str = Field("download", choices=("download", "upload"))
    """"download" from the container to here, or "upload" to it"""
    splits: str = Field("", choices=SPLITS, several=True)
    """download: such as "val, test"; empty: all"""
    fraction: float = Field(1.0, label="share of the volumes", gt=0, le=1)
    """download: share of each split's volumes, the same ones each time"""

    root: str = Field("datasets", section="More", label="folder of the datasets")
    """folder that holds the datasets; relative to the project"""
    container: str = "datasets"
    """container in the storage account"""
    connection_file: str = "storage.secret"
    """file with the account's connection string"""
    connections: int = Field(16, ge=1, le=128, unit="files at a time")
    """files at work at the same time"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        with concerning("dataset"):
            if ".." in self._folder.split("/") or not self._folder:
                known = ", ".join(DATASETS)
                raise ValueError(
                    f"dataset={self.dataset!r}: give a dataset's folder, such as one of {known}"
                )
        with concerning("container"):
            check_container_name(self.container)
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """What lets us into the storage."""
        return STORAGE

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look for the account's connection string, and for what is to be uploaded."""
        looks: dict[str, Callable[[], object]] = {
            "connection_file": lambda: find_storage(self.connection_file)
        }
        if self.direction == "upload":
            looks["dataset"] = lambda: check_dataset(str(resolve(self.root) / self._folder))
        return looks

    @property
    def _folder(self) -> str:
        return self.dataset.strip("/ ")

    def plan(self) -> None:
        """Say what will be brought where."""
        storage = find_storage(self.connection_file)
        here = shown(resolve(self.root) / self._folder)
        there = f"{self.container}/{self._folder} of the storage account that you give"
        if storage:
            there = f"{storage.endpoint}/{self.container}/{self._folder}"
        source, target = (there, here) if self.direction == "download" else (here, there)
        part = ", ".join(listed(self.splits)) or "all splits"
        if self.fraction < 1:
            part += f", {self.fraction:.0%} of the volumes of each"
        print(f"from       {source}\nto         {target}\nwhat       {part}", flush=True)

    def work(self, planned: None) -> str:
        """Bring it over.

        Raises:
            ValueError: nothing is there to copy, or no storage account is given.
            TransferError: files could not be copied; run again for them.
        """
        storage = find_storage(self.connection_file)
        if storage is None:
            raise ValueError("no storage account: give its connection string first")
        here: Store = DiskStore(resolve(self.root))
        there: Store = open_container(storage, self.container)
        done = copy_dataset(
            *((there, here) if self.direction == "download" else (here, there)),
            self._folder,
            splits=listed(self.splits),
            fraction=self.fraction,
            connections=self.connections,
        )
        print(done)
        return str(done)

    def report(self, result: str) -> str:
        """Say it in a line."""
        return f": {result}"
