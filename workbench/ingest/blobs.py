"""A container of Azure Blob storage: opened with clear errors, read by ranges, written, locked."""

import io
import re
import tarfile
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from workbench.azure_login import login_problem
from workbench.azure_storage import Storage
from workbench.ingest.streams import Readable, as_file

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, ContainerClient

CONTAINER = "datasets"
LOCK = ".ingest.lock"
# One range of a read; 16 of them in flight fill 10 Gbit/s at 20 ms.
_PART = 8 << 20
# Blocks of a write: at 16 MiB a blob can hold 800 GB.
_BLOCK = 16 << 20
# The shortest lease that there is: what a killed run holds is free again this soon.
_LEASE_SECONDS = 15
_LEASE_PATIENCE = 25.0
ROLE = (
    "a login, and the managed identity of a cluster's nodes, needs the role Storage Blob Data "
    "Reader on the account, to write there Storage Blob Data Contributor"
)


class StorageError(Exception):
    """The storage account does not do what it should; the message says what to do."""


# ---- the container -----------------------------------------------------------------------


def check_container_name(name: str) -> None:
    """Check a container's name against Azure's rules.

    Raises:
        ValueError: it cannot be one.
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9](-?[a-z0-9]){2,62}", name):
        raise ValueError(
            f"container={name!r}: give 3 to 63 lower-case letters, digits and single dashes, "
            f"such as {CONTAINER!r}"
        )


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


def storage_problem(error: Exception, account: str) -> str:
    """Say what an error of the storage SDK means, and what to do, without its text."""
    from azure.core.exceptions import ClientAuthenticationError

    code = getattr(error, "error_code", None)
    code = str(getattr(code, "value", code) or "")  # an enumeration, or text where it is unknown
    status = getattr(error, "status_code", None)
    keys = "copy the connection string anew from the portal (Access keys)"
    known = {
        "AuthenticationFailed": f"refuses the key: it is wrong or was renewed: {keys}",
        "InvalidAuthenticationInfo": f"refuses the key: it is wrong or was renewed: {keys}",
        "AuthorizationFailure": "refuses this key or this machine: "
        f"{keys}; if it is right, the account's firewall (Networking) must let this machine in",
        "AuthorizationPermissionMismatch": f"does not let this login in: {ROLE}",
        "KeyBasedAuthenticationNotPermitted": "allows no access by key: its owner can allow it "
        "(Configuration, Allow storage account key access)",
        "AccountIsDisabled": "is disabled: see to the subscription's state in the portal",
        "ContainerBeingDeleted": "is still deleting a container of that name: try in a minute",
        "InvalidResourceName": "takes no container of that name: give another container",
    }
    if code in known:
        return f"storage account {account} {known[code]}"
    if isinstance(error, ClientAuthenticationError) and not code:
        return f"storage account {account}: {login_problem(str(error))}; {ROLE}"
    if status is None:
        return (
            f"storage account {account} cannot be reached: check AccountName in the connection "
            "string, the network and the proxy"
        )
    if status == 403:
        return f"storage account {account} {known['AuthorizationFailure']}"
    return f"storage account {account} answers {status} {code}: try again later".replace(" :", ":")


def blob_sizes(container: "ContainerClient", folder: str) -> dict[str, int]:
    """List what lies in a folder: path inside it -> bytes."""
    start = f"{folder.rstrip('/')}/"
    found = container.list_blobs(name_starts_with=start)
    return {blob.name.removeprefix(start): int(blob.size) for blob in found}


# ---- reading -----------------------------------------------------------------------------


def read_blob(
    blob: "BlobClient", *, connections: int = 8, stopped: threading.Event | None = None
) -> Generator[bytes, None, None]:
    """Yield a blob's bytes in order; ranges are fetched ahead over several connections.

    Raises:
        azure.core.exceptions.ResourceModifiedError: the blob became another one meanwhile.
        azure.core.exceptions.AzureError: storage failed for longer than the client bears with.
    """
    from azure.core import MatchConditions

    properties = blob.get_blob_properties()
    size, etag = properties.size, properties.etag
    stopped = stopped or threading.Event()

    def part(start: int) -> bytes:
        return bytes(
            blob.download_blob(
                start,
                min(_PART, size - start),
                etag=etag,
                match_condition=MatchConditions.IfNotModified,
            ).readall()
        )

    pending: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(max(connections, 1), "blob") as threads:
        try:
            starts = iter(range(0, size, _PART))
            while True:
                for start in islice(starts, connections + 1 - len(pending)):
                    pending.append(threads.submit(part, start))
                if not pending or stopped.is_set():
                    return
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


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
    from azure.core.exceptions import AzureError, ResourceExistsError

    blob = container.get_blob_client(LOCK)
    with suppress(ResourceExistsError):
        blob.upload_blob(b"", overwrite=False)
    lease = _lease(blob, say)
    over = threading.Event()

    def renew() -> None:
        while not over.wait(_LEASE_SECONDS / 3):
            # What a lapse of the network cost us is taken again, as long as nobody else has.
            with suppress(AzureError):
                try:
                    lease.renew()
                except ResourceExistsError:
                    lease.acquire(_LEASE_SECONDS)

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with suppress(AzureError):
            lease.release()


def _lease(blob: "BlobClient", say: Callable[[str], None]) -> Any:
    import time

    from azure.core.exceptions import ResourceExistsError
    from azure.storage.blob import BlobLeaseClient

    until = time.monotonic() + _LEASE_PATIENCE
    said = False
    while True:
        lease = BlobLeaseClient(blob)
        try:
            lease.acquire(_LEASE_SECONDS)
            return lease
        except ResourceExistsError:
            if time.monotonic() > until:
                break
        if not said:
            say("another ingest holds this container, or was killed just now: waiting for it")
            said = True
        time.sleep(1)
    raise RuntimeError(
        f"another ingest works on the container {blob.container_name} of {blob.account_name}: "
        "wait for it, or end it first"
    )
