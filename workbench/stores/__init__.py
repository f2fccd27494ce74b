"""Folders that stages read and write: on a disk, in Azure Blob storage, in buckets of others."""

import os
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.settings import AZURE_LOGIN, CONNECTION_VARIABLE, resolve
from workbench.stores.base import (
    CannotWriteError,
    ChangedError,
    Entry,
    Source,
    StorageError,
    Store,
)
from workbench.stores.disk import DiskStore

if TYPE_CHECKING:
    from workbench.stores.blob import BlobStore
    from workbench.stores.bucket import BucketStore

__all__ = [
    "CannotWriteError",
    "ChangedError",
    "DiskStore",
    "Entry",
    "Source",
    "StorageError",
    "Store",
]


def is_address(place: str | Path) -> bool:
    """Say whether a place is an address in a cloud's storage, and not a path."""
    return isinstance(place, str) and "://" in place


def open_store(place: str | Path) -> Store:
    """Open a folder as a store: a path, or an address.

    Addresses are ``https://ACCOUNT.blob.../CONTAINER/FOLDER``, ``s3://BUCKET/FOLDER`` and
    ``gs://BUCKET/FOLDER``. A relative path counts from the project's root. In blob storage the
    account's connection string lets us in where it is configured, else our own login: on a
    cluster's node its managed identity.

    Raises:
        ValueError: it is no such address, what is configured is no connection string, or the
            package that reads it is not installed.
        LoginError: no connection string of the account is configured, and no login works.
    """
    if is_address(place):
        return _store_at(str(place).rstrip("/"), os.getpid())
    return DiskStore(resolve(place))


@lru_cache(maxsize=8)
def _store_at(address: str, process: int) -> Store:
    """Return one store for an address and process, so that its connections are kept."""
    return unopened(address).checked()


def unopened(address: str) -> "BlobStore | BucketStore":
    """Return the store of an address, of which nothing is asked yet.

    Raises:
        ValueError: it is no address; a signature in it is not repeated.
    """
    from workbench.stores.blob import BlobStore, parse_address  # brings azure's packages in
    from workbench.stores.bucket import CLOUDS, BucketStore

    if address.partition("://")[0] in CLOUDS:
        return BucketStore(address)
    return BlobStore(*parse_address(address))


def credentials_for(place: str | Path) -> tuple[str, ...]:
    """Return which secrets a process needs to open a store, as ``child_environment`` takes them.

    None for a folder; for blob storage the account's connection string, else our login.
    """
    if not is_address(place):
        return ()
    from workbench.stores.bucket import CLOUDS

    if known := CLOUDS.get(str(place).partition("://")[0]):
        return (known[1],)
    from workbench.stores.blob import configured_storage, parse_address

    try:
        account = parse_address(str(place))[3]
    except ValueError:
        return ()
    return (CONNECTION_VARIABLE,) if configured_storage(account) else (AZURE_LOGIN,)
