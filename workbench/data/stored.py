"""A dataset wherever it lies: in a folder, or at its address in blob storage.

An address is the folder's URL, ``https://ACCOUNT.blob.core.windows.net/CONTAINER/FOLDER``. What is
read there comes by ranges: nothing is mounted, nothing downloaded. The account's connection string
lets us in where it is configured, else our own login: on a cluster's node its managed identity.
"""

import multiprocessing
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from workbench.azure_login import STORAGE, LoginError, check_login, credential, new_login
from workbench.azure_storage import Storage, find_storage
from workbench.data.blob_source import (
    BlobFolder,
    build_blob_cache,
    load_blob_cache,
    wide_transport,
)
from workbench.data.cache import CacheFileError, DatasetCache, find_dataset, open_cache
from workbench.data.volume import Volume
from workbench.settings import AZURE_LOGIN, CONNECTION_VARIABLE
from workbench.stores import Source
from workbench.stores.blob import ROLE

_ADDRESS = re.compile(r"(https://([a-z0-9]{3,24})\.blob\.[a-z0-9.-]+)/([a-z0-9-]{3,63})/([^?#]+)")


@dataclass(frozen=True)
class StoredVolumes:
    """Gives the bytes of volumes in blob storage; it can be handed to other processes.

    Attributes:
        address: the dataset's.
    """

    address: str

    def __call__(self, volume: Volume) -> Source:
        """Return a volume's bytes."""
        return _folder(self.address, os.getpid()).blob(volume)


def is_address(where: str | Path) -> bool:
    """Say whether a dataset is named by its address in blob storage."""
    return isinstance(where, str) and "://" in where


def stored_folder(address: str) -> BlobFolder:
    """Return the folder at an address.

    Raises:
        ValueError: it is no address, or what is configured is no connection string.
        LoginError: no connection string of the account is configured, and no login works.
    """
    found = _ADDRESS.fullmatch(address.rstrip("/"))
    if found is None:
        raise ValueError(
            f"{address.split('?')[0]!r} is no dataset's address: give "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/FOLDER, without a signature"
        )
    from azure.storage.blob import ContainerClient, ExponentialRetry

    account, name, container, path = found.groups()
    # A training of days bears with what a mount would bear with.
    more = {
        "transport": wide_transport(),
        "retry_policy": ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=8),
    }
    if storage := _storage(name):
        connection = storage.connection.reveal()
        client = ContainerClient.from_connection_string(connection, container, **more)
        return BlobFolder(client, path)
    # A login's connections are not shared with the process that this one was forked from.
    login = new_login() if multiprocessing.parent_process() else credential()
    try:  # The storage's client would ask again and again.
        check_login(login, STORAGE)
    except LoginError as error:
        raise LoginError(f"storage account {name}: {error}; {ROLE}") from None
    return BlobFolder(ContainerClient(account, container, credential=login, **more), path)


def _storage(account: str) -> Storage | None:
    """Return the storage account whose connection string is configured, if it is this one."""
    with suppress(FileNotFoundError):
        storage = find_storage()
        if storage and storage.account == account:
            return storage
    return None


def credentials_for(where: str | Path) -> tuple[str, ...]:
    """Return which secrets a process needs to read a dataset, as ``child_environment`` takes them.

    None for a folder; for an address the account's connection string, else our login.
    """
    found = _ADDRESS.fullmatch(str(where).rstrip("/")) if is_address(where) else None
    if found is None:
        return ()
    return (CONNECTION_VARIABLE,) if _storage(found[2]) else (AZURE_LOGIN,)


def source_of(where: str | Path) -> Callable[[Volume], Source] | None:
    """Return what opens a dataset's volumes; None where they are files in a folder."""
    return StoredVolumes(str(where)) if is_address(where) else None


def open_dataset(where: str | Path, *, check: bool = True) -> tuple[str, DatasetCache]:
    """Find a dataset and open its cache.

    Args:
        where: its folder or name, see ``find_dataset``, or its address in blob storage.
        check: compare a folder's files with the cache; a published cache is taken as it is.

    Returns:
        The folder or address, and the cache.

    Raises:
        FileNotFoundError: there is no such dataset, or it holds no volumes.
        ValueError: it is no address.
        OSError: the storage refuses or cannot be reached.
        LoginError: it has no key for us, and no login works.
    """
    if not is_address(where):
        cache = open_cache(find_dataset(where), check=check)
        return str(cache.root), cache
    address = str(where).rstrip("/")
    return address, open_stored(stored_folder(address))


def open_stored(folder: BlobFolder) -> DatasetCache:
    """Open a published cache as it was written; build and publish it where there is none.

    Raises:
        FileNotFoundError: the folder holds no volumes.
        OSError: the storage refuses or cannot be reached.
    """
    try:
        cache = load_blob_cache(folder)
    except CacheFileError as error:
        print(f"{error}, so it is built anew.")
        cache = None
    if cache is None:
        return build_blob_cache(folder, refresh=False)
    print(
        f"Using the dataset cache of {cache.root} ({len(cache):,} volumes, {cache.slices:,} "
        "slices), as published; cache.ipynb with in_storage=True refreshes it."
    )
    return cache


@lru_cache(maxsize=8)
def _folder(address: str, process: int) -> BlobFolder:
    """Return the folder for one process."""
    return stored_folder(address)
