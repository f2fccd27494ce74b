"""A run's folder in blob storage: what the nodes keep, as this machine sees it.

What has come is noted in the run's folder here, so that a fetch that was broken off, or one from
another notebook, brings only what is missing or has changed.
"""

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.compute.cluster import Datastore
from workbench.compute.runs import read_record
from workbench.data.blob_source import storage_errors
from workbench.stores.disk import replacing, write_text

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

_STREAMS = 8
_FILES = 8  # at a time
_FILES_BETWEEN_NOTES = 64
FETCHED = ".fetched.json"


@dataclass(frozen=True)
class RunStore:
    """A run's folder in a datastore.

    Attributes:
        datastore: the datastore.
        path: the folder, such as "runs/brain".
    """

    datastore: Datastore
    path: str

    @cached_property
    def _container(self) -> "ContainerClient":
        return self.datastore.client()

    def files(self) -> dict[str, tuple[str, int]]:
        """Return the files in the folder: path -> ETag and bytes.

        Raises:
            OSError: the storage refuses or cannot be reached.
        """
        start = f"{self.path}/"
        with storage_errors(self._container, self.path):
            blobs = list(self._container.list_blobs(name_starts_with=start))
        found = {blob.name.removeprefix(start): (str(blob.etag), int(blob.size)) for blob in blobs}
        return {
            path: state
            for path, state in found.items()
            if not any(part.startswith(".") or part == ".." for part in Path(path).parts)
        }

    def fetch(self, folder: Path, wanted: Callable[[str], bool] = lambda path: True) -> list[str]:
        """Bring files that are new or changed into a folder, each whole or not at all.

        Args:
            folder: the run's folder here.
            wanted: says of a path whether it is to come.

        Returns:
            The paths of those that came.

        Raises:
            OSError: the storage refuses or cannot be reached; what came until then stays.
        """
        note = folder / FETCHED
        fetched: dict[str, list] = {}
        with suppress(OSError, ValueError):
            fetched = read_record(note)
        missing = {
            path: [tag, size]
            for path, (tag, size) in self.files().items()
            if wanted(path) and not _is_here(folder / path, fetched.get(path), tag, size)
        }
        came: list[str] = []
        try:
            with ThreadPoolExecutor(_FILES) as threads:
                fetching = threads.map(lambda path: self._fetch(path, folder / path), missing)
                for path, _ in zip(missing, fetching, strict=True):
                    fetched[path] = missing[path]
                    came.append(path)
                    if len(came) % _FILES_BETWEEN_NOTES == 0:
                        write_text(note, json.dumps(fetched))
        finally:
            if came:
                write_text(note, json.dumps(fetched))
        return came

    def _fetch(self, path: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        with storage_errors(self._container, path), replacing(target) as file:
            blob = self._container.download_blob(f"{self.path}/{path}", max_concurrency=_STREAMS)
            blob.readinto(file)

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


def _is_here(target: Path, noted: list | None, tag: str, size: int) -> bool:
    """Say whether a file was fetched as it is in the store, and has not been lost since."""
    return noted == [tag, size] and target.exists()
