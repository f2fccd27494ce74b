"""A container of Azure Blob storage: opened with clear errors, read by ranges, written, locked."""

import io
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from workbench.azure_storage import Storage
from workbench.stores import StorageError
from workbench.stores.blob import (
    CONTAINER,
    check_container_name,
    hold_lease,
    read_blob,
    storage_problem,
)
from workbench.stores.streams import Readable, as_file

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

__all__ = [
    "CONTAINER",
    "StorageError",
    "check_container_name",
    "read_blob",
    "storage_problem",
]

LOCK = ".ingest.lock"
# Blocks of a write: at 16 MiB a blob can hold 800 GB.
_BLOCK = 16 << 20


def open_container(storage: Storage, name: str = CONTAINER) -> "ContainerClient":
    """Open a container; make it where it does not exist.

    Raises:
        ValueError: the name cannot be a container's.
        StorageError: the account is not there, or refuses the key.
    """
    from azure.core.exceptions import AzureError
    from azure.storage.blob import ExponentialRetry

    check_container_name(name)
    problem = ""
    try:
        # A wrong name or key shows at once, not after the patience for a day-long transfer.
        with _service(storage, ExponentialRetry(initial_backoff=1, retry_total=2)) as service:
            container = service.get_container_client(name)
            if not container.exists():
                container.create_container()
    except AzureError as error:
        if getattr(error, "error_code", None) != "ContainerAlreadyExists":
            problem = storage_problem(error, storage.account)
    if problem:  # Outside of the except block: the SDK's own text can quote what it signed.
        raise StorageError(problem)
    patient = ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=8)
    return _service(storage, patient).get_container_client(name)


def _service(storage: Storage, retry: Any) -> Any:
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient.from_connection_string(
        storage.connection.reveal(),
        retry_policy=retry,
        max_block_size=_BLOCK,
        max_single_put_size=_BLOCK,
        connection_timeout=20,
        read_timeout=60,
    )


def blob_sizes(container: "ContainerClient", folder: str) -> dict[str, int]:
    """List what lies in a folder: path inside it -> bytes."""
    start = f"{folder.rstrip('/')}/"
    found = container.list_blobs(name_starts_with=start)
    return {blob.name.removeprefix(start): int(blob.size) for blob in found}


# ---- writing -----------------------------------------------------------------------------


@dataclass
class BlobFolder:
    """A folder in a container as a destination for an archive's members.

    Attributes:
        container: the container.
        folder: the folder in it.
        sizes: path -> bytes of what lies there.
        connections: connections that send one member.
    """

    container: "ContainerClient"
    folder: str
    sizes: dict[str, int] = field(default_factory=dict)
    connections: int = 4

    def size_of(self, path: str) -> int | None:
        """Return the size of the blob at a member's path."""
        return self.sizes.get(path)

    def read(self, path: str) -> io.BufferedReader:
        """Open the blob at a member's path."""
        blob = self.container.get_blob_client(f"{self.folder}/{path}")
        return as_file(read_blob(blob, connections=self.connections))

    def free(self) -> None:
        """Return None: an account has no limit that an archive would meet."""

    def write(self, path: str, content: Readable, size: int) -> None:
        """Upload a member; its blob appears when all of it has come, or not at all."""
        self.container.upload_blob(
            f"{self.folder}/{path}",
            _Whole(content, size),
            length=size,
            overwrite=True,
            max_concurrency=self.connections,
        )
        self.sizes[path] = size


class _Whole(io.RawIOBase):
    """A stream of exactly ``size`` bytes, or an error: an upload must not end early in silence."""

    def __init__(self, content: Readable, size: int) -> None:
        self._content, self._left = content, size

    def readable(self) -> bool:
        return True

    def read(self, count: int = -1) -> bytes:
        count = self._left if count is None or count < 0 else min(count, self._left)
        data = self._content.read(count) if count else b""
        if count and not data:
            raise tarfile.ReadError("unexpected end of data")
        self._left -= len(data)
        return data


# ---- one run at a time -------------------------------------------------------------------


@contextmanager
def only_ingest_into(
    container: "ContainerClient", say: Callable[[str], None] = print
) -> Iterator[None]:
    """Hold a container for one ingest at a time, by a lease that a killed run soon loses.

    Raises:
        RuntimeError: another ingest works on it.
    """
    from azure.core.exceptions import ResourceExistsError

    blob = container.get_blob_client(LOCK)
    with suppress(ResourceExistsError):
        blob.upload_blob(b"", overwrite=False)
    busy = (
        f"another ingest works on the container {blob.container_name} of {blob.account_name}: "
        "wait for it, or end it first"
    )
    release = hold_lease(blob, busy, say=say)
    try:
        yield
    finally:
        release()
