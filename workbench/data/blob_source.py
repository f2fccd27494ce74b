"""Old names, until all callers have moved to ``workbench.data.cache`` and ``workbench.stores``."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from workbench.data.cache import DatasetCache, build_cache
from workbench.data.stored import blob_folder as BlobFolder
from workbench.stores import Store
from workbench.stores.blob import (
    CONTAINER,
    configured_store,
    storage_problem,
    wide_transport,
)

__all__ = ["BlobFolder", "build_blob_cache", "storage_errors", "stored_dataset", "wide_transport"]


def stored_dataset(path: str, container: str = CONTAINER) -> Store:
    """Return a dataset's folder in the storage account that is configured here."""
    return configured_store(path, container)


def build_blob_cache(
    folder: Store, *, refresh: bool = True, workers: int | None = None
) -> DatasetCache:
    """Index a dataset in blob storage."""
    return build_cache(folder, refresh=refresh, workers=workers)


@contextmanager
def storage_errors(container: Any, what: str) -> Iterator[None]:
    """Turn the storage SDK's errors, which can quote what it signed, into ours."""
    from azure.core.exceptions import AzureError, ResourceNotFoundError

    problem = ""
    try:
        yield
    except ResourceNotFoundError:
        raise
    except AzureError as error:
        problem = storage_problem(error, str(container.account_name))
    if problem:
        raise OSError(f"{what}: {problem}")
