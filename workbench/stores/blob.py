"""A folder of a container in Azure Blob storage: listed, read by ranges, written whole, locked."""

import multiprocessing
import os
import re
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import urlsplit

from workbench.azure_login import (
    STORAGE,
    LoginError,
    check_login,
    credential,
    login_problem,
    new_login,
)
from workbench.azure_storage import CONNECTION_FILE, Storage, find_storage
from workbench.settings import CONNECTION_VARIABLE, Secret
from workbench.stores.base import (
    CannotWriteError,
    ChangedError,
    Entry,
    RemoteFile,
    StorageError,
    Store,
    changed_size,
)
from workbench.stores.ranges import RangeReader
from workbench.stores.streams import CHUNK, Readable, as_file

if TYPE_CHECKING:
    from azure.storage.blob import BlobClient, BlobProperties, ContainerClient

CONTAINER = "datasets"
ROLE = (
    "a login, and the managed identity of a cluster's nodes, needs the role Storage Blob Data "
    "Reader on the account, to write there Storage Blob Data Contributor"
)
REQUESTS = 64
"""Connections kept open: at 20 ms a request, 64 at a time bring 3,200 answers a second."""
_FIRST_RETRIES = 2  # of the first request: a wrong name or key shows within seconds
_ADDRESS = re.compile(r"(https://([a-z0-9]{3,24})\.blob\.[a-z0-9.-]+)/([a-z0-9-]{3,63})/([^?#]+)")
# One range of a stream; 16 of them in flight fill 10 Gbit/s at 20 ms.
_PART = 8 << 20
# Blocks of a write: at 16 MiB a blob can hold 800 GB.
_BLOCK = 16 << 20
# The shortest lease that there is: what a killed process holds is free again this soon.
_LEASE_SECONDS = 15
_LEASE_PATIENCE = 25.0


def parse_address(address: str) -> tuple[str, str, str, str]:
    """Return an address's endpoint, container, folder and account.

    ValueError where it is not valid; a signature in it is not repeated.
    """
    found = _ADDRESS.fullmatch(address.rstrip("/"))
    if found is None:
        raise ValueError(
            f"{address.split('?')[0]!r} is no dataset's address: give "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/FOLDER, without a signature, or "
            "s3://BUCKET/FOLDER or gs://BUCKET/FOLDER"
        )
    endpoint, account, container, path = found.groups()
    return endpoint, container, path, account


class BlobStore(Store):
    """A folder of a container, as a ``Store``; "" is the container itself.

    Each process has connections of its own: a store can be used after a fork. Pickled, it takes
    its address along and no key; the other process finds its own way in.

    The key is the account's or a shared access signature; None takes the connection string that is
    configured for the account, else our login. The account is the first part of the endpoint's
    host where it is not given.
    """

    connections = 8

    def __init__(
        self,
        endpoint: str,
        container: str,
        path: str = "",
        account: str = "",
        *,
        key: Secret | None = None,
    ) -> None:
        self.account = account or str(urlsplit(endpoint).hostname).partition(".")[0]
        self.container_name, self.path = container, path.strip("/")
        self.address = "/".join(filter(None, (endpoint, container, self.path)))
        self._endpoint, self._key = endpoint, key
        self._shared: dict[int, tuple[ContainerClient, RangeReader]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address."""
        return BlobStore, (self._endpoint, self.container_name, self.path, self.account)

    def checked(self) -> "BlobStore":
        """Ask the account once whether it lets us in, and return the store.

        A wrong name, key or login shows within seconds, not after a transfer's patience of days.
        """
        with self._errors(""):
            self._new_client(retry_total=_FIRST_RETRIES).exists()
        return self

    @property
    def client(self) -> "ContainerClient":
        """This process's client of the container."""
        return self._connected[0]

    @property
    def _connected(self) -> "tuple[ContainerClient, RangeReader]":
        process = os.getpid()
        if process not in self._shared:
            # A transfer of a day or a training of weeks bears with what a mount would bear with.
            client = self._new_client(retry_total=8)
            self._shared[process] = client, RangeReader(client, REQUESTS)
        return self._shared[process]

    def _new_client(self, *, retry_total: int) -> "ContainerClient":
        import requests
        from azure.core.pipeline.transport import RequestsTransport
        from azure.storage.blob import ContainerClient, ExponentialRetry
        from requests.adapters import HTTPAdapter

        storage = None if self._key else configured_storage(self.account)
        key = storage.key if storage else self._key
        held: Any = key.reveal() if key else self._log_in()
        if key and "sig=" not in held:
            held = {"account_name": self.account, "account_key": held}
        # As many connections as requests are under way at a time: with the usual ten, each further
        # request at a time would shake hands anew.
        session = requests.Session()
        session.mount("https://", HTTPAdapter(pool_maxsize=REQUESTS))
        return ContainerClient(
            self._endpoint,
            self.container_name,
            credential=held,
            transport=RequestsTransport(
                session=session, session_owner=False, connection_timeout=20, read_timeout=60
            ),
            max_block_size=_BLOCK,
            max_single_put_size=_BLOCK,
            retry_policy=ExponentialRetry(1, increment_base=2, retry_total=retry_total),
        )

    def _log_in(self) -> Any:
        # A login's connections are not shared with the process that this one was forked from.
        forked = self._shared or multiprocessing.parent_process()
        login = new_login() if forked else credential()
        try:  # The storage's client would ask again and again.
            check_login(login, STORAGE)
        except LoginError as error:
            raise LoginError(f"storage account {self.account}: {error}; {ROLE}") from None
        return login

    # ---- the interface of all stores ---------------------------------------------------------

    def list(self, under: str = "") -> Iterator[Entry]:
        """Yield the files in a folder and in all folders below, 5,000 a request."""
        start = self._name(under).rstrip("/")
        blobs = self.client.list_blobs(f"{start}/" if start else "", include=["metadata"])
        while True:
            with self._errors(under):
                blob = next(blobs, None)
            if blob is None:
                return
            if not _is_folder(blob):
                yield _entry(blob.name[len(self._name("")) :], blob)

    def entry(self, path: str) -> Entry | None:
        """Return one file's entry; None where it is missing."""
        with suppress(FileNotFoundError):
            found = self._properties(path)
            return None if _is_folder(found) else _entry(path, found)
        return None

    def source(self, path: str, size: int | None = None) -> RemoteFile:
        """Open a file to be read by byte range."""
        size = self._properties(path).size if size is None else size
        return RemoteFile(f"{self.address}/{path}", size, partial(self._range, path, size))

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self._errors(path):
            return self._blob(path).download_blob().readall()

    def open(self, path: str) -> BinaryIO:
        """Open a file as a stream, which fetches ahead over several connections."""
        return cast(BinaryIO, as_file(self._parts(path, self._properties(path))))

    def _parts(self, path: str, properties: "BlobProperties") -> Generator[bytes, None, None]:
        """Yield a file's bytes in order; an error where it becomes another one meanwhile."""
        from azure.core import MatchConditions

        blob = self._blob(path)
        same: Any = {"etag": properties.etag, "match_condition": MatchConditions.IfNotModified}

        def part(start: int) -> bytes:
            count = min(_PART, properties.size - start)
            return bytes(blob.download_blob(start, count, **same).readall())

        pending: deque[Future[bytes]] = deque()
        starts = iter(range(0, properties.size, _PART))
        with ThreadPoolExecutor(self.connections, "blob") as threads:
            try:
                while True:
                    for start in islice(starts, self.connections + 1 - len(pending)):
                        pending.append(threads.submit(part, start))
                    if not pending:
                        return
                    with self._errors(path):
                        content = pending.popleft().result()
                    yield content
            finally:
                for future in pending:
                    future.cancel()

    def write(
        self, path: str, content: bytes | Readable, size: int | None = None, *, md5: str = ""
    ) -> None:
        """Write a file whole or not at all; see ``Store``."""
        from azure.storage.blob import ContentSettings

        whole: Any = content
        if isinstance(content, bytes):
            size = len(content)
        elif size is not None:
            whole = as_file(_exactly(content, size))
        with self._errors(path, writing=True):
            self._blob(path).upload_blob(
                whole,
                length=size,
                overwrite=True,
                max_concurrency=self.connections,
                content_settings=ContentSettings(content_md5=bytearray.fromhex(md5) or None),
            )

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        with suppress(FileNotFoundError), self._errors(path, writing=True):
            self._blob(path).delete_blob()

    @contextmanager
    def lock(self, path: str, busy: str) -> Iterator[None]:
        """Hold a lock while the context lasts; see ``Store``.

        It is a lease that is renewed, and that a killed process loses within a quarter of a
        minute: so long it is waited for. Who loses it, out of the network's reach, is told.
        """
        from azure.core.exceptions import AzureError, ResourceExistsError, ResourceNotFoundError
        from azure.storage.blob import BlobLeaseClient

        lease = BlobLeaseClient(self._blob(path))
        until, said = time.monotonic() + _LEASE_PATIENCE, False
        with self._errors(path, writing=True):
            while True:
                try:
                    lease.acquire(_LEASE_SECONDS)
                    break
                except ResourceNotFoundError:  # not before: of a held one Azure says 412
                    with suppress(ResourceExistsError):
                        self._blob(path).upload_blob(b"", overwrite=False)
                except ResourceExistsError:
                    if time.monotonic() > until:
                        raise RuntimeError(busy) from None
                    if not said:
                        print(f"waiting for a lock that may be a killed process's: {busy}")
                        said = True
                    time.sleep(1)
        over = threading.Event()

        def renew() -> None:
            lost = False
            while not over.wait(_LEASE_SECONDS / 3):
                # What a lapse of the network cost us is taken again, as long as nobody else has.
                with suppress(AzureError):
                    try:
                        lease.renew()
                    except ResourceExistsError:
                        try:
                            lease.acquire(_LEASE_SECONDS)
                        except ResourceExistsError:
                            if not lost:
                                print(f"{self.address}/{path} was lost: {busy}", flush=True)
                            lost = True

        thread = threading.Thread(target=renew, name="lease", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
            with suppress(AzureError):
                lease.release()

    def free(self) -> None:
        """Return None: an account has no limit that one file would meet."""

    def folder(self, path: str) -> "BlobStore":
        """Return the same store as seen from a folder in it, over the same connections."""
        place = (self._endpoint, self.container_name, self._name(path), self.account)
        below = BlobStore(*place, key=self._key)
        below._shared = self._shared
        return below

    # ---- names and errors --------------------------------------------------------------------

    def _name(self, path: str) -> str:
        """Return a file's name in the container."""
        return f"{self.path}/{self.inside(path)}" if self.path else self.inside(path)

    def _blob(self, path: str) -> "BlobClient":
        return self.client.get_blob_client(self._name(path))

    def _properties(self, path: str) -> "BlobProperties":
        with self._errors(path):
            return self._blob(path).get_blob_properties()

    def _range(self, path: str, size: int, offset: int, count: int) -> bytes:
        """Return bytes of a file that has ``size`` of them; ChangedError where it has others."""
        content = self._connected[1].read(self._name(path), offset, count, size)
        if content is not None:
            return content
        with self._errors(path):
            # One stream of its own: ranges are small here, and many go side by side.
            stream = self._blob(path).download_blob(offset, count, max_concurrency=1)
            there = int(str(stream.properties.content_range).rpartition("/")[2])
            if there == size:
                return stream.readall()
        raise ChangedError(changed_size(f"{self.address}/{path}", there, size))

    @contextmanager
    def _errors(self, path: str, *, writing: bool = False) -> Iterator[None]:
        """Turn the storage SDK's errors, which can quote what it signed, into ours."""
        from azure.core.exceptions import AzureError, ResourceNotFoundError

        what = f"{self.address}/{path}".rstrip("/")
        try:
            yield
            return
        except ResourceNotFoundError as error:
            problem: OSError = FileNotFoundError(f"{what} is not there")
            if getattr(error, "error_code", None) == "ContainerNotFound":
                problem = FileNotFoundError(
                    f"the storage account {self.account} has no container "
                    f"{self.container_name}: ingest with destination azure makes it"
                )
        except AzureError as error:
            said = _problem(error, self.account)
            status = getattr(error, "status_code", None)
            if status in (412, 416) and not writing:  # another one, or one that ends earlier
                problem = ChangedError(f"{what} changed while it was read: read it again")
            elif writing and status and status < 500:
                problem = CannotWriteError(f"{what} cannot be written: {said}")
            else:
                problem = StorageError(f"{what}: {said}")
        raise problem from None


def _is_folder(blob: Any) -> bool:
    """Say whether a blob stands for a folder, as mounts and hierarchical namespaces have them."""
    about = {name.lower(): value for name, value in (blob.metadata or {}).items()}
    return about.get("hdi_isfolder") == "true"


def _entry(path: str, blob: Any) -> Entry:
    changed = int(blob.last_modified.timestamp() * 1e9)
    md5 = bytes(blob.content_settings.content_md5 or b"").hex()
    return Entry(path.lstrip("/"), int(blob.size), changed, str(blob.etag).strip('"'), md5)


def _exactly(content: Readable, size: int) -> Iterator[bytes]:
    """Yield a stream's ``size`` bytes, or fail: an upload must not end early in silence."""
    left = size
    while left:
        piece = content.read(min(CHUNK, left))
        if not piece:
            raise EOFError(f"the stream lacks {left:,} of its {size:,} bytes")
        left -= len(piece)
        yield piece


# ---- the account that is configured here, and its containers -----------------------------


def configured_storage(account: str) -> Storage | None:
    """Return the storage account whose connection string is configured, if it is this one."""
    with suppress(FileNotFoundError):
        storage = find_storage()
        return storage if storage and storage.account == account else None
    return None


def configured_store(path: str) -> BlobStore:
    """Return a folder in the storage account that is configured here.

    Raises:
        ValueError: no account is configured, or its connection string cannot be one.
        FileNotFoundError: none is configured, and nobody is there to be asked.
    """
    storage = find_storage()
    if storage is None:
        raise ValueError(
            f"no storage account is given: set {CONNECTION_VARIABLE}, or save the connection "
            f"string as {CONNECTION_FILE} in the project's folder"
        )
    place = (storage.endpoint, CONTAINER, path, storage.account)
    return BlobStore(*place, key=storage.key).checked()


def check_container_name(name: str) -> None:
    """Check a container's name against Azure's rules; ValueError where it cannot be one."""
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9](-?[a-z0-9]){2,62}", name):
        raise ValueError(
            f"container={name!r}: give 3 to 63 lower-case letters, digits and single dashes, "
            f"such as {CONTAINER!r}"
        )


def open_container(storage: Storage, name: str = CONTAINER) -> BlobStore:
    """Open a container as a store; make it where it does not exist.

    StorageError where the account is not there, or refuses the key.
    """
    from azure.core.exceptions import AzureError

    check_container_name(name)
    store = BlobStore(storage.endpoint, name, account=storage.account, key=storage.key)
    problem = ""
    try:
        # A wrong name or key shows at once, not after the patience for a day-long transfer.
        quick = store._new_client(retry_total=_FIRST_RETRIES)
        if not quick.exists():
            quick.create_container()
    except AzureError as error:
        if getattr(error, "error_code", None) != "ContainerAlreadyExists":
            problem = _problem(error, storage.account)
    if problem:  # Outside of the except block: the SDK's own text can quote what it signed.
        raise StorageError(problem)
    return store


def _problem(error: Exception, account: str) -> str:
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
    said = known.get(code)
    if said is None and isinstance(error, ClientAuthenticationError) and not code:
        return f"storage account {account}: {login_problem(str(error))}; {ROLE}"
    if said is None and status is None:
        said = (
            "cannot be reached: check AccountName in the connection string, the network and the "
            "proxy"
        )
    elif said is None and status == 403:
        said = known["AuthorizationFailure"]
    answer = f"answers {status} {code}".rstrip()
    return f"storage account {account} {said or f'{answer}: try again later'}"
