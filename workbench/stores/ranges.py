"""Ranges of blobs by the plainest requests that a connection takes.

The storage SDK's ``download_blob`` costs 2 ms of a processor a call, ten times what sending the
request does: an index of thousands of volumes would wait for that, not for the storage. So a
request goes out here once, as it is; where anything but the bytes comes back, the caller asks
again through the SDK, which knows how to wait, to renew, and what the trouble is.
"""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from workbench.settings import Secret, hide_queries_in_logs

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

SECONDS_TO_WAIT = 30.0
_SERVICE_VERSION = "2021-08-06"
_SCOPE = "https://storage.azure.com/.default"
_SIGNED_FOR = 3600.0
_EARLY = 300.0


class RangeReader:
    """Reads ranges of a container's blobs with the rights that its client has.

    It may be used by many threads at a time, in the process that made it.

    Args:
        container: the client, whose account key, signature or login it uses.
        connections: that are kept open.
    """

    def __init__(self, container: "ContainerClient", connections: int) -> None:
        hide_queries_in_logs()
        url = urlsplit(container.url)
        self._path = url.path
        self._grant = _grant(container, Secret(url.query))
        self._granted: _Rights | None = None
        self._lock = threading.Lock()
        self._connections = _connections(f"{url.scheme}://{url.netloc}", connections)

    def read(self, name: str, offset: int, count: int) -> bytes | None:
        """Return ``count`` bytes of a blob from ``offset``; None where they did not come."""
        from azure.core.exceptions import AzureError
        from urllib3.exceptions import HTTPError

        try:
            query, authorization = self._rights()
            headers = {
                "x-ms-range": f"bytes={offset}-{offset + count - 1}",
                "x-ms-version": _SERVICE_VERSION,
            }
            if authorization:
                headers["Authorization"] = authorization.reveal()
            answer = self._connections.urlopen(
                "GET",
                f"{self._path}/{quote(name)}" + (f"?{query.reveal()}" if query else ""),
                headers=headers,
                retries=False,
                redirect=False,
                timeout=SECONDS_TO_WAIT,
            )
        except (HTTPError, AzureError, OSError):
            return None
        content: bytes = answer.data
        return content if answer.status == 206 and len(content) == count else None

    def _rights(self) -> tuple[Secret, Secret]:
        """Return the query and the header that let us in, new ones before the old run out."""
        with self._lock:
            if self._granted is None or time.time() > self._granted.until:
                self._granted = self._grant()
            return self._granted.query, self._granted.authorization


_NONE = Secret("")


@dataclass(frozen=True)
class _Rights:
    query: Secret = _NONE
    authorization: Secret = _NONE
    until: float = math.inf


def _grant(container: "ContainerClient", signature: Secret) -> Callable[[], _Rights]:
    """Return what gives the query and the authorization header of a request."""
    held: Any = container.credential

    def sign() -> _Rights:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        query = generate_container_sas(
            held.account_name,
            container.container_name,
            held.account_key,
            permission=ContainerSasPermissions(read=True),
            expiry=datetime.now(UTC) + timedelta(seconds=2 * _SIGNED_FOR),
        )
        return _Rights(query=Secret(query), until=time.time() + _SIGNED_FOR)

    def log_in() -> _Rights:
        token = held.get_token(_SCOPE)
        authorization = Secret(f"Bearer {token.token}")
        return _Rights(authorization=authorization, until=token.expires_on - _EARLY)

    if signature:
        return lambda: _Rights(query=signature)
    if hasattr(held, "account_key"):
        return sign
    return log_in if hasattr(held, "get_token") else _Rights


def _connections(url: str, count: int) -> Any:
    """Return a pool of connections to a server, through the proxy and with the CA of this place."""
    import requests
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    settings = session.merge_environment_settings(url, {}, None, None, None)
    return HTTPAdapter(pool_maxsize=count).get_connection_with_tls_context(
        requests.Request("GET", url).prepare(), settings["verify"], proxies=settings["proxies"]
    )
