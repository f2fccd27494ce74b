"""A storage account: Azurite behind the network, under the host name that Azure would give it."""

import http.client
import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from azure.core.exceptions import ResourceExistsError

from tests.cloud.azurite import Azurite
from tests.cloud.faults import Fault, Faults
from tests.cloud.network import Network
from tests.cloud.service import Answer, Request, Service

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient, ContainerClient

_HOP_BY_HOP = ("connection", "content-length", "transfer-encoding", "keep-alive")


class Storage:
    """The account that a cloud's workspace stands on; entered and left with the cloud.

    Attributes:
        account: its name.
        key: its key.
        host: ``ACCOUNT.blob.core.windows.net``.
    """

    def __init__(self, azurite: Azurite, network: Network, ca: Path) -> None:
        self.account, self.key = azurite.account()
        self.host = f"{self.account}.blob.core.windows.net"
        self._ca, self._port, self._network = ca, azurite.port, network
        self._gate = _Gate(self.host, azurite.port, ssl.create_default_context(cafile=str(ca)))
        self._gate_open = False
        self._there: set[str] = set()

    def __enter__(self) -> "Storage":
        from azure.storage.blob import BlobServiceClient

        self._gate.__enter__()
        self._network.route(self.host, self._port)
        self._client = BlobServiceClient.from_connection_string(
            f"{self.connection_string};BlobEndpoint=https://127.0.0.1:{self._port}/{self.account}",
            connection_verify=str(self._ca),
            connection_timeout=20,
            proxies={"https": ""},
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()
        self._gate.__exit__()

    @property
    def connection_string(self) -> str:
        """The connection string as the portal shows it."""
        return (
            f"DefaultEndpointsProtocol=https;AccountName={self.account};AccountKey={self.key};"
            "EndpointSuffix=core.windows.net"
        )

    @property
    def url(self) -> str:
        """The Blob service's address."""
        return f"https://{self.host}"

    # ---- to look and to lay, past the network: neither slowed nor failed -------------

    def client(self) -> "BlobServiceClient":
        """Return a client that goes straight to Azurite."""
        return self._client

    def container(self, name: str = "datasets") -> "ContainerClient":
        """Return a container, made if it does not exist, by a client that goes straight there."""
        container = self._client.get_container_client(name)
        if name not in self._there:
            with suppress(ResourceExistsError):  # two jobs may start at once
                container.create_container()
        self._there.add(name)
        return container

    def names(self, container: str = "datasets", prefix: str = "") -> list[str]:
        """Return the names of the blobs in a container, sorted."""
        blobs = self.container(container).list_blobs(name_starts_with=prefix)
        return sorted(blob.name for blob in blobs)

    def signed(self, container: str, blob: str | None = None, permissions: str = "r") -> str:
        """Return a signed address (SAS), good for a day, of a blob or of a whole container."""
        from azure.storage.blob import generate_blob_sas, generate_container_sas

        common = {
            "account_key": self.key,
            "permission": permissions,
            "expiry": datetime.now(UTC) + timedelta(days=1),
        }
        if blob is None:
            query = generate_container_sas(self.account, container, **common)
            return f"{self.url}/{container}?{query}"
        query = generate_blob_sas(self.account, container, blob, **common)
        return f"{self.url}/{container}/{quote(blob)}?{query}"

    # ---- trouble ---------------------------------------------------------------------

    def fail(self, pattern: str, status: int | None = None, **more: object) -> Fault:
        """Have requests to the account fail (see ``Fault``); all of them pass a gate from now."""
        self.watch()
        return self._gate.faults.add(pattern, status, **more)

    def watch(self) -> list[tuple[Request, int]]:
        """Let all requests pass a gate that records them, and return its growing record."""
        if not self._gate_open:
            self._network.route(self.host, self._gate.port, plain=True)
            self._network.sever(self.host)
            self._gate_open = True
        return self._gate.requests

    def recover(self) -> None:
        """Take back all faults and close the gate."""
        self._gate.faults.clear()
        if self._gate_open:
            self._network.unroute(self.host)
            self._gate_open = False


class _Gate(Service):
    """Passes requests on to Azurite, unless they are to fail."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext) -> None:
        super().__init__("storage", Faults())
        self._host, self._port, self._tls = host, port, tls

    def dispatch(self, request: Request) -> Answer:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, context=self._tls)
        try:
            headers = {k: v for k, v in request.headers.items() if k not in _HOP_BY_HOP}
            if request.body or request.method in ("PUT", "POST"):
                headers["content-length"] = str(len(request.body))
            connection.request(request.method, request.target, request.body or None, headers)
            response = connection.getresponse()
            back = {
                name: value
                for name, value in response.getheaders()
                if name.lower() not in (*_HOP_BY_HOP, "content-type", "date", "server")
            }
            if request.method == "HEAD":
                back["Content-Length"] = response.headers.get("Content-Length", "0")
            kind = response.headers.get("Content-Type", "application/xml")
            return Answer(response.read(), response.status, back, kind)
        finally:
            connection.close()
