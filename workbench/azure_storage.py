"""The storage account: its connection string, read from where secrets may lie, checked for form."""

import base64
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
    """A storage account: its name, connection string, its Blob service's URL, and the key."""

    account: str
    connection: Secret
    endpoint: str
    key: Secret


def find_storage(file: str = "") -> Storage | None:
    """Find the connection string in its variable or in a file that git ignores.

    The file is ``storage.secret`` in the project's folder by default. None where there is none and
    a person is there to type it.

    Raises:
        ValueError: it is not a storage account's connection string.
        FileNotFoundError: there is none, and no person to ask (a headless run).
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

    ValueError says which part is wrong, never what it was.
    """

    def refuse_if(wrong: object, what: str) -> None:
        if wrong:
            raise ValueError(f"connection string: {what}: {_WHERE_TO_COPY}")

    plain = "".join(text.reveal().split()).strip("\"'").removeprefix(f"{CONNECTION_VARIABLE}=")
    plain = plain.strip("\"'").rstrip(";")
    refuse_if(not plain, "it is empty")
    refuse_if(len(plain) == 88 and ";" not in plain, "this is an account key alone")
    emulator = "usedevelopmentstorage" in plain.lower()
    refuse_if(emulator, "it is the storage emulator's, which Azure cannot reach")
    pairs = [part.partition("=") for part in plain.split(";")]
    listed = all(sign and re.fullmatch(r"[A-Za-z]+", name) for name, sign, _ in pairs)
    refuse_if(not listed, "it is not a list of NAME=VALUE; NAME=VALUE")
    parts = {name.lower(): value for name, _, value in pairs}
    refuse_if(
        "sharedaccesssignature" in parts,
        "it holds a shared access signature, and Data Factory needs the account's key",
    )
    for name in ("AccountName", "AccountKey"):
        refuse_if(not parts.get(name.lower()), f"{name} is missing")
    account, key = parts["accountname"], parts["accountkey"]
    refuse_if(
        not re.fullmatch(r"[a-z0-9]{3,24}", account),
        "AccountName is not 3 to 24 lower-case letters and digits",
    )
    try:
        whole = len(base64.b64decode(key, validate=True)) == 64
    except ValueError:
        whole = False
    cut = f"AccountKey is not 88 characters of base64 (it has {len(key)}): it is cut short"
    refuse_if(not whole, cut)
    suffix = parts.get("endpointsuffix", "core.windows.net")
    refuse_if(
        "blobendpoint" not in parts and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", suffix),
        "EndpointSuffix is not a domain, such as core.windows.net",
    )
    protocol = parts.get("defaultendpointsprotocol", "https")
    endpoint = parts.get("blobendpoint", f"{protocol}://{account}.blob.{suffix}")
    url = urlsplit(endpoint)
    refuse_if(
        url.scheme not in ("http", "https") or not url.hostname or url.query,
        "DefaultEndpointsProtocol or BlobEndpoint does not give a valid URL",
    )
    refuse_if(
        url.scheme == "http" and url.hostname not in ("127.0.0.1", "localhost"),
        "DefaultEndpointsProtocol is http, which sends patients' data in the clear",
    )
    return Storage(account, Secret(plain), endpoint.rstrip("/"), Secret(key))
