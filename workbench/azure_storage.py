"""The storage account: its connection string, read from where secrets may lie, checked for form."""

import base64
import binascii
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from workbench.progress import interactive
from workbench.settings import CONNECTION_VARIABLE, Secret, resolve, shown

CONNECTION_FILE = "storage.secret"
_WHERE_TO_COPY = (
    "copy it from the portal: the storage account, Security + networking, Access keys, "
    "Connection string"
)


@dataclass(frozen=True)
class Storage:
    """A storage account and the key to it.

    Attributes:
        account: its name.
        connection: its connection string.
        endpoint: URL of its Blob service.
    """

    account: str
    connection: Secret
    endpoint: str

    @property
    def key(self) -> Secret:
        """The account's key, from its connection string."""
        return Secret(_parts(self.connection.reveal())["accountkey"])


def find_storage(file: str = "") -> Storage | None:
    """Find the connection string in its variable or in a file that git ignores.

    Args:
        file: the file; by default ``storage.secret`` in the project's folder.

    Returns:
        The account; None where there is none and a person is there to type it.

    Raises:
        ValueError: it is not a storage account's connection string.
        FileNotFoundError: there is none, and nobody to ask.
    """
    text = os.environ.get(CONNECTION_VARIABLE, "").strip()
    if text:
        return parse_connection(Secret(text))
    path = resolve(file.strip() or CONNECTION_FILE)
    if path.is_file():
        return parse_connection(Secret(path.read_text("utf-8-sig", errors="replace")))
    if interactive():
        return None
    raise FileNotFoundError(
        f"no storage account is given: set {CONNECTION_VARIABLE}, or save the connection string as "
        f"{shown(path)}; {_WHERE_TO_COPY}"
    )


def parse_connection(text: Secret) -> Storage:
    """Read a storage account's connection string and check its form.

    Raises:
        ValueError: says which part is wrong, never what it was.
    """
    plain = "".join(text.reveal().split()).strip("\"'").removeprefix(f"{CONNECTION_VARIABLE}=")
    plain = plain.strip("\"'").rstrip(";")
    if not plain:
        raise _bad("it is empty")
    if len(plain) == 88 and ";" not in plain:
        raise _bad("this is an account key alone")
    if "usedevelopmentstorage" in plain.lower():
        raise _bad("it is the storage emulator's, which Azure cannot reach")
    parts = _parts(plain)
    if "sharedaccesssignature" in parts:
        raise _bad("it holds a shared access signature, and Data Factory needs the account's key")
    for name in ("AccountName", "AccountKey"):
        if not parts.get(name.lower()):
            raise _bad(f"{name} is missing")
    account = parts["accountname"]
    if not re.fullmatch(r"[a-z0-9]{3,24}", account):
        raise _bad("AccountName is not 3 to 24 lower-case letters and digits")
    _check_key(parts["accountkey"])
    endpoint = _endpoint(account, parts)
    return Storage(account, Secret(plain), endpoint)


def _parts(connection: str) -> dict[str, str]:
    parts: dict[str, str] = {}
    for part in connection.split(";"):
        name, separator, value = part.partition("=")
        if not separator or not re.fullmatch(r"[A-Za-z]+", name):
            raise _bad("it is not a list of NAME=VALUE; NAME=VALUE")
        parts[name.lower()] = value
    return parts


def _check_key(key: str) -> None:
    try:
        whole = len(base64.b64decode(key, validate=True)) == 64
    except (binascii.Error, ValueError):
        whole = False
    if not whole:
        raise _bad(
            f"AccountKey is not 88 characters of base64 (it has {len(key)}): it is cut short"
        )


def _endpoint(account: str, parts: dict[str, str]) -> str:
    given = parts.get("blobendpoint")
    if given is None:
        suffix = parts.get("endpointsuffix", "core.windows.net")
        if not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", suffix):
            raise _bad("EndpointSuffix is none such as core.windows.net")
        given = f"{parts.get('defaultendpointsprotocol', 'https')}://{account}.blob.{suffix}"
    url = urlsplit(given)
    if url.scheme not in ("http", "https") or not url.hostname or url.query:
        raise _bad("DefaultEndpointsProtocol or BlobEndpoint make no URL")
    if url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost"):
        raise _bad("DefaultEndpointsProtocol is http, which sends patients' data in the clear")
    return given.rstrip("/")


def _bad(what: str) -> ValueError:
    return ValueError(f"connection string: {what}: {_WHERE_TO_COPY}")
