"""Folders that stages read and write: on this machine's disk, or in Azure Blob storage."""

from pathlib import Path

from workbench.settings import resolve
from workbench.stores.base import CannotWriteError, Entry, Source, StorageError, Store
from workbench.stores.disk import DiskStore

__all__ = [
    "CannotWriteError",
    "DiskStore",
    "Entry",
    "Source",
    "StorageError",
    "Store",
    "is_address",
    "open_store",
]


def is_address(place: str | Path) -> bool:
    """Say whether a place is an address in blob storage, and not a path."""
    return isinstance(place, str) and "://" in place


def open_store(place: str | Path) -> Store:
    """Open a folder as a store.

    Args:
        place: a path (a relative one counts from the project's root), or the folder's URL in blob
            storage, ``https://ACCOUNT.blob.core.windows.net/CONTAINER/FOLDER``. The account's
            connection string lets us in where it is configured, else our own login: on a
            cluster's node its managed identity.

    Raises:
        ValueError: it is no such URL, or what is configured is no connection string.
        LoginError: no connection string of the account is configured, and no login works.
    """
    if is_address(place):
        from workbench.stores.blob import BlobStore  # brings azure's packages in

        return BlobStore.at(str(place))
    return DiskStore(resolve(place))
