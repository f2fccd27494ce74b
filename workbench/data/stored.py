"""Old names, until all callers have moved to ``workbench.data.cache`` and ``workbench.stores``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from workbench.data import cache as caches
from workbench.data.cache import DatasetCache
from workbench.data.volume import Volume
from workbench.stores import Source, Store, credentials_for, is_address, open_store

__all__ = ["credentials_for", "is_address", "open_dataset", "open_stored", "source_of"]


def source_of(where: str | Path) -> Callable[[Volume], Source] | None:
    """Return what opens a dataset's volumes; None where they are files in a folder."""
    if not is_address(where):
        return None
    store = open_store(where)
    return lambda volume: store.source(volume.path, volume.size)


def open_dataset(where: str | Path, *, check: bool = True) -> tuple[str, DatasetCache]:
    """Find a dataset and open its cache; return its folder or address too."""
    cache = caches.open_dataset(where, check=check)
    return cache.store.address, cache


def open_stored(store: Store) -> DatasetCache:
    """Open a published cache."""
    return caches.open_cache(store)


def blob_folder(client: Any, path: str) -> Store:
    """Return a folder of a container that a client is at hand for."""
    from workbench.stores.blob import REQUESTS, BlobStore, _Connected
    from workbench.stores.ranges import RangeReader

    endpoint = client.url.split("?")[0].removesuffix(f"/{client.container_name}")
    store = BlobStore(endpoint, client.container_name, path)
    store._shared[os.getpid()] = _Connected(client, client, RangeReader(client, REQUESTS))
    return store
