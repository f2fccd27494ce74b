"""A dataset in blob storage, read by byte range: nothing is mounted and nothing downloaded.

Its cache is built from two or three ranged reads a volume, many at a time, and published as
``dataset_cache.json`` in the dataset's folder, where a job that mounts the dataset finds it.
"""

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from workbench.azure_storage import CONNECTION_FILE, CONNECTION_VARIABLE, find_storage
from workbench.catalog import split_of_folder
from workbench.data.cache import CACHE_NAME, DatasetCache, left_out
from workbench.data.cache_file import CacheFileError, read_cache_file, write_cache_file
from workbench.data.describe import UnusableVolumeError, describe
from workbench.data.folders import FoundFile, place_files
from workbench.data.indexing import describe_files
from workbench.data.volume import Problem, Volume
from workbench.stores.blob import CONTAINER, storage_problem, wide_transport
from workbench.stores.ranges import RangeReader

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

WORKERS = 64
"""Requests under way at a time: at 20 ms each, 64 bring 3,200 answers a second."""


@dataclass(frozen=True)
class Blob:
    """A blob as a ``Source``.

    Attributes:
        container: the container's client.
        name: the blob's name.
        size: bytes in it.
        ranges: reads faster than the client does; None leaves all to the client.
    """

    container: "ContainerClient" = field(repr=False)
    name: str
    size: int
    ranges: RangeReader | None = field(default=None, repr=False)

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only where the blob ends.

        Raises:
            OSError: the storage refuses, or cannot be reached after the client's own retries.
        """
        count = min(count, self.size - offset)
        if count <= 0:
            return b""
        content = self.ranges.read(self.name, offset, count) if self.ranges else None
        if content is not None:
            return content
        with storage_errors(self.container, self.name):
            # One stream of its own: ranges are small here, and many go side by side.
            stream = self.container.download_blob(
                self.name, offset=offset, length=count, max_concurrency=1
            )
            return stream.readall()

    def close(self) -> None:
        """Do nothing: the connections belong to the container."""


@dataclass(frozen=True)
class BlobFolder:
    """A dataset's folder in a container.

    Attributes:
        container: the container's client.
        path: the folder, such as "brain_multicoil".
    """

    container: "ContainerClient" = field(repr=False)
    path: str

    @property
    def root(self) -> Path:
        """The folder as it is written for people, container first."""
        return Path("/", self.container.container_name, self.path)

    def __truediv__(self, path: str) -> str:
        """Return the blob name of a path in the folder."""
        return f"{self.path}/{path}"

    @cached_property
    def _ranges(self) -> RangeReader:
        return RangeReader(self.container, WORKERS)

    def blob(self, file: Volume | FoundFile) -> Blob:
        """Return a volume's file."""
        return Blob(self.container, self / file.path, file.size, self._ranges)

    def files(self) -> tuple[list[FoundFile], list[Problem]]:
        """List the ``*.h5`` files that may be volumes, by the rules for a folder on a disk.

        Sizes and times come with the listing, 5,000 files a request.

        Raises:
            FileNotFoundError: there is no such container, or nothing in the folder.
            OSError: the storage refuses or cannot be reached.
        """
        items = {item.name[len(self.path) + 1 :]: item for item in self._listed()}
        splits, problems = place_files(items, split_of_folder(PurePosixPath(self.path).name))
        found = [
            FoundFile(
                path, split, items[path].size, int(items[path].last_modified.timestamp() * 1e9)
            )
            for path, split in splits.items()
        ]
        if not items:
            raise FileNotFoundError(
                f"nothing in {self.root} of the storage account {self.container.account_name}: "
                "ingest the dataset with notebooks/ingest.ipynb, destination azure"
            )
        return found, problems

    def _listed(self) -> Iterator[Any]:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            with storage_errors(self.container, str(self.root)):
                yield from self.container.list_blobs(name_starts_with=f"{self.path}/")
        except ResourceNotFoundError:
            raise FileNotFoundError(
                f"the storage account {self.container.account_name} has no container "
                f"{self.container.container_name}: ingest with destination azure makes it"
            ) from None


def stored_dataset(path: str, container: str = CONTAINER) -> BlobFolder:
    """Return a dataset's folder in the storage account that is configured here.

    Raises:
        ValueError: no account is configured, or its connection string cannot be one.
        FileNotFoundError: none is configured, and nobody is there to be asked.
    """
    from azure.storage.blob import ContainerClient

    storage = find_storage()
    if storage is None:
        raise ValueError(
            f"no storage account is given: set {CONNECTION_VARIABLE}, or save the connection "
            f"string as {CONNECTION_FILE} in the project's folder"
        )
    client = ContainerClient.from_connection_string(
        storage.connection.reveal(), container, transport=wide_transport()
    )
    return BlobFolder(client, path.strip("/"))


def load_blob_cache(folder: BlobFolder) -> DatasetCache | None:
    """Load a dataset's published cache as it was written; None where there is none.

    Raises:
        CacheFileError: it is damaged or of another version.
        OSError: the storage refuses or cannot be reached.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        with storage_errors(folder.container, folder / CACHE_NAME):
            content = folder.container.download_blob(folder / CACHE_NAME).readall()
    except ResourceNotFoundError:
        return None
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, CACHE_NAME)
        path.write_bytes(content)
        return DatasetCache(folder.root, *read_cache_file(path))


def build_blob_cache(
    folder: BlobFolder, *, refresh: bool = True, workers: int = WORKERS
) -> DatasetCache:
    """Index a dataset in blob storage, publish its cache there, and say in one line what was done.

    Args:
        folder: the dataset's folder.
        refresh: read only files that are new or changed; False reads every file anew.
        workers: requests under way at a time.

    Raises:
        FileNotFoundError: the folder holds no ``.h5`` file.
        OSError: the storage refuses or cannot be reached.
    """
    if workers < 1:
        raise ValueError(f"workers={workers}: give 1 or more")
    before = None
    if refresh:
        try:
            before = load_blob_cache(folder)
        except CacheFileError as error:
            print(f"{error}, so it is built anew.")
    files, problems = folder.files()
    if not files and not problems:
        raise FileNotFoundError(
            f"no volumes in {folder.root}: expected .h5 files in folders such as multicoil_train"
        )

    def describe_blob(file: FoundFile) -> Volume | Problem:
        try:
            return describe(
                folder.blob(file), path=file.path, split=file.split, mtime_ns=file.mtime_ns
            )
        except UnusableVolumeError as error:
            return Problem(file.path, str(error))

    with ThreadPoolExecutor(workers) as executor:
        known = {volume.path: volume for volume in before or ()}
        index = describe_files(files, problems, known, describe_blob, executor, folder.path)
    cache = DatasetCache(folder.root, index.volumes, index.problems)
    held = f"{folder.root} ({len(cache):,} volumes, {cache.slices:,} slices)"
    if cache == before:
        print(f"Using the dataset cache of {held}.")
        return cache
    publish_cache(folder, cache)
    verb = "Built" if before is None else "Refreshed"
    print(f"{verb} the dataset cache of {held}: read {index.read:,} files by range, published.")
    print(left_out(cache), end="")
    return cache


def publish_cache(folder: BlobFolder, cache: DatasetCache) -> None:
    """Write a dataset's cache into its folder; a blob appears whole or not at all.

    Raises:
        OSError: the storage refuses or cannot be reached.
    """
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, CACHE_NAME)
        write_cache_file(path, cache.volumes, cache.problems)
        with storage_errors(folder.container, folder / CACHE_NAME):
            folder.container.upload_blob(folder / CACHE_NAME, path.read_bytes(), overwrite=True)


@contextmanager
def storage_errors(container: "ContainerClient", what: str) -> Iterator[None]:
    """Turn the storage SDK's errors, which can quote what it signed, into ours.

    Raises:
        OSError: the storage refuses or cannot be reached; the message says what to do.
    """
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
