"""A run's folder in blob storage: what the nodes keep, as this machine sees it."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.compute.cluster import Datastore
from workbench.dataset.blob_source import storage_errors
from workbench.dataset.cache_file import replacing

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_STREAMS = 8


@dataclass(frozen=True)
class RunStore:
    """A run's folder in a datastore.

    Attributes:
        datastore: the datastore.
        path: the folder, such as "runs/brain".
    """

    datastore: Datastore
    path: str
    _seen: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _container(self) -> "ContainerClient":
        return self.datastore.client()

    def files(self) -> dict[str, Any]:
        """Return the files in the folder: path -> ETag.

        Raises:
            OSError: the storage refuses or cannot be reached.
        """
        start = f"{self.path}/"
        with storage_errors(self._container, self.path):
            blobs = list(self._container.list_blobs(name_starts_with=start))
        found = {blob.name.removeprefix(start): blob.etag for blob in blobs}
        return {
            path: tag
            for path, tag in found.items()
            if not any(part.startswith(".") or part == ".." for part in Path(path).parts)
        }

    def fetch(self, folder: Path, wanted: Iterable[str] | None = None) -> list[str]:
        """Bring files that are new or changed into a folder, each whole or not at all.

        Args:
            folder: the run's folder here.
            wanted: paths; None brings all.

        Returns:
            The paths of those that came.

        Raises:
            OSError: the storage refuses or cannot be reached.
        """
        wanted = None if wanted is None else set(wanted)
        came = []
        for path, tag in self.files().items():
            target = folder / path
            if wanted is not None and path not in wanted:
                continue
            if self._seen.get(path) == tag and target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with storage_errors(self._container, path), replacing(target) as file:
                blob = self._container.download_blob(
                    f"{self.path}/{path}", max_concurrency=_STREAMS
                )
                blob.readinto(file)
            self._seen[path] = tag
            came.append(path)
        return came

    def read(self, path: str) -> str:
        """Return a file's text; "" where it is not there."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with storage_errors(self._container, path):
                content = self._container.download_blob(f"{self.path}/{path}").readall()
        except ResourceNotFoundError:
            return ""
        return content.decode(errors="replace")

    def put(self, folder: Path, paths: Iterable[str]) -> None:
        """Bring files of a folder here into the store.

        Raises:
            OSError: the storage refuses or cannot be reached.
        """
        for path in paths:
            with storage_errors(self._container, path), (folder / path).open("rb") as file:
                self._container.upload_blob(
                    f"{self.path}/{path}", file, overwrite=True, max_concurrency=_STREAMS
                )

    def forget(self, path: str) -> None:
        """Delete a file, if it is there."""
        from azure.core.exceptions import ResourceNotFoundError

        with suppress(ResourceNotFoundError), storage_errors(self._container, path):
            self._container.delete_blob(f"{self.path}/{path}")
