"""Ranges of blobs by the plainest requests that a connection takes.

The storage SDK's ``download_blob`` costs 2 ms of a processor a call, ten times what sending the
request does: an index of thousands of volumes would wait for that, not for the storage. So a
request goes out here once, as it is; where anything but the bytes comes back, the caller asks
again through the SDK, which knows how to wait, to renew, and what the trouble is.
"""

import math
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from workbench.settings import Secret, hide_queries_in_logs

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient

SECONDS_TO_WAIT = 30.0
_SERVICE_VERSION = "2021-08-06"
_SCOPE = "https://storage.azure.com/.default"
_SIGNED_FOR = 3600.0
_EARLY = 300.0


class _Rights(NamedTuple):
    """What lets a request in: a query, or an authorization header; and until when."""

    query: Secret = Secret("")
    authorization: Secret = Secret("")
    until: float = math.inf


class RangeReader:
    """Reads ranges of a container's blobs with the key, signature or login of its client.

    It may be used by many threads at a time, in the process that made it.
    """

    def __init__(self, container: "ContainerClient", connections: int) -> None:
        import requests
        from requests.adapters import HTTPAdapter

        hide_queries_in_logs()
        url = urlsplit(container.url)
        self._path, self._signature = url.path, Secret(url.query)
        self._container = container
        self._rights: _Rights | None = None
        self._lock = threading.Lock()
        # One pool of connections, through the proxy and with the CA of this place.
        server, session = f"{url.scheme}://{url.netloc}", requests.Session()
        settings = session.merge_environment_settings(server, {}, None, None, None)
        self._connections: Any = HTTPAdapter(
            pool_maxsize=connections
        ).get_connection_with_tls_context(
            requests.Request("GET", server).prepare(),
            settings["verify"],
            proxies=settings["proxies"],
        )

    def read(self, name: str, offset: int, count: int, size: int) -> bytes | None:
        """Return ``count`` bytes of a blob from ``offset``; None where they did not come.

        They did not where the blob has not ``size`` bytes: it is another one than was asked for.
        """
        from azure.core.exceptions import AzureError
        from urllib3.exceptions import HTTPError

        headers = {
            "x-ms-range": f"bytes={offset}-{offset + count - 1}",
            "x-ms-version": _SERVICE_VERSION,
        }
        try:
            with self._lock:  # new rights come before the old run out
                if self._rights is None or time.time() > self._rights.until:
                    self._rights = self._grant()
                rights = self._rights
            if rights.authorization:
                headers["Authorization"] = rights.authorization.reveal()
            query = f"?{rights.query.reveal()}" if rights.query else ""
            answer = self._connections.urlopen(
                "GET",
                f"{self._path}/{quote(name)}{query}",
                headers=headers,
                retries=False,
                redirect=False,
                timeout=SECONDS_TO_WAIT,
            )
        except (HTTPError, AzureError, OSError):
            return None
        content: bytes = answer.data
        wanted = f"bytes {offset}-{offset + count - 1}/{size}"
        came = answer.status == 206 and answer.headers.get("Content-Range") == wanted
        return content if came and len(content) == count else None

    def _grant(self) -> _Rights:
        from azure.storage.blob import ContainerSasPermissions, generate_container_sas

        held: Any = self._container.credential
        if self._signature:
            return _Rights(query=self._signature)
        if hasattr(held, "account_key"):
            query = generate_container_sas(
                held.account_name,
                self._container.container_name,
                held.account_key,
                permission=ContainerSasPermissions(read=True),
                expiry=datetime.now(UTC) + timedelta(seconds=2 * _SIGNED_FOR),
            )
            return _Rights(query=Secret(query), until=time.time() + _SIGNED_FOR)
        if hasattr(held, "get_token"):
            token = held.get_token(_SCOPE)
            return _Rights(
                authorization=Secret(f"Bearer {token.token}"), until=token.expires_on - _EARLY
            )
        return _Rights()
