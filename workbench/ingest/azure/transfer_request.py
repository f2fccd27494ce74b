"""What a notebook asks of a transfer between a container and this machine: parameters, checked."""

from dataclasses import dataclass
from pathlib import Path

from workbench import catalog
from workbench.azure_storage import AwaitsStorage, Storage, find_storage
from workbench.ingest.azure.transfer import (
    Transfer,
    check_choice,
    download_dataset,
    upload_dataset,
)
from workbench.ingest.blobs import check_container_name, open_container
from workbench.settings import resolve

DIRECTIONS = ("download", "upload")


@dataclass
class TransferRequest(AwaitsStorage):
    """A checked order for a transfer.

    Attributes:
        dataset: folder here and in the container.
        direction: one of ``DIRECTIONS``.
        splits: splits to download; empty for all.
        fraction: share of each split to download.
        root: folder that holds the datasets.
        container: the container's name.
        storage: the storage account; None until a person has typed its connection string.
        connections: files at work at the same time.
    """

    dataset: str
    direction: str
    splits: tuple[str, ...]
    fraction: float
    root: Path
    container: str
    storage: Storage | None
    connections: int

    def run(self) -> Transfer:
        """Do it; see ``download_dataset`` and ``upload_dataset`` for what is raised."""
        container = open_container(self.connected(), self.container)
        if self.direction == "upload":
            return upload_dataset(container, self.dataset, self.root, connections=self.connections)
        return download_dataset(
            container,
            self.dataset,
            self.root,
            splits=self.splits,
            fraction=self.fraction,
            connections=self.connections,
        )


def transfer_request(
    *,
    dataset: str,
    direction: str,
    splits: str,
    fraction: float,
    root: str,
    container: str,
    connection_file: str,
    connections: int,
) -> TransferRequest:
    """Check a notebook's parameters.

    Raises:
        ValueError: names the parameter, what it was and what is allowed.
        FileNotFoundError: no storage account is given, and there is nobody to ask.
    """
    texts = {
        "dataset": dataset,
        "splits": splits,
        "root": root,
        "connection_file": connection_file,
    }
    for name, value in texts.items():
        if not isinstance(value, str):
            raise ValueError(f"{name}={value!r}: give a text")
    folder = dataset.strip().strip("/")
    if not folder or ".." in folder.split("/"):
        known = ", ".join(catalog.DATASETS)
        raise ValueError(f"dataset={dataset!r}: give a dataset's folder, such as one of {known}")
    if direction not in DIRECTIONS:
        raise ValueError(f"direction={direction!r}: give 'download' or 'upload'")
    chosen = tuple(name.strip() for name in splits.split(",") if name.strip())
    check_choice(chosen, fraction, connections)
    check_container_name(container)
    return TransferRequest(
        folder,
        direction,
        chosen,
        fraction,
        resolve(root.strip() or "datasets"),
        container,
        find_storage(connection_file),
        connections,
    )
