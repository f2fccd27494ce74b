"""Folders that stages read and write: on this machine's disk, or in Azure Blob storage."""

import os
from functools import lru_cache
from pathlib import Path

from workbench.settings import AZURE_LOGIN, CONNECTION_VARIABLE, resolve
from workbench.stores.base import CannotWriteError, Entry, Source, StorageError, Store
from workbench.stores.disk import DiskStore

__all__ = ["CannotWriteError", "DiskStore", "Entry", "Source", "StorageError", "Store"]


def is_address(place: str | Path) -> bool:
    """Say whether a place is an address in blob storage, and not a path."""
    return isinstance(place, str) and "://" in place


def open_store(place: str | Path) -> Store:
    """Open a folder as a store: a path, or the URL ``https://ACCOUNT.blob.../CONTAINER/FOLDER``.

    A relative path counts from the project's root. The account's connection string lets us in
    where it is configured, else our own login: on a cluster's node its managed identity.

    Raises:
        ValueError: it is no such URL, or what is configured is no connection string.
        LoginError: no connection string of the account is configured, and no login works.
    """
    if is_address(place):
        return _blob_store(str(place).rstrip("/"), os.getpid())
    return DiskStore(resolve(place))


@lru_cache(maxsize=8)
def _blob_store(address: str, process: int) -> Store:
    """Return one store for an address and process, so that its connections are kept."""
    from workbench.stores.blob import BlobStore, parse_address  # brings azure's packages in

    return BlobStore(*parse_address(address)).checked()


def credentials_for(place: str | Path) -> tuple[str, ...]:
    """Return which secrets a process needs to open a store, as ``child_environment`` takes them.

    None for a folder; for an address the account's connection string, else our login.
    """
    if not is_address(place):
        return ()
    from workbench.stores.blob import configured_storage, parse_address

    try:
        account = parse_address(str(place))[3]
    except ValueError:
        return ()
    return (CONNECTION_VARIABLE,) if configured_storage(account) else (AZURE_LOGIN,)
