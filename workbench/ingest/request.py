"""An ingest as a notebook asks for it: its parameters, and the email's text."""

import os
from typing import Any

from workbench.azure_login import Workspace, credential, require_workspace
from workbench.azure_storage import Storage, find_storage
from workbench.ingest.factory_copy import factory_place
from workbench.ingest.links import WHERE_TO_ASK, archive_stem, parse_links
from workbench.ingest.plan import IngestPlan, make_plan
from workbench.progress import interactive
from workbench.settings import LINKS_VARIABLE, Secret, resolve, shown
from workbench.stores import DiskStore, Store
from workbench.stores.blob import check_container_name, open_container

DESTINATIONS = ("local", "azure")
UNPACK_ON = ("here", "azureml")
_LONGEST_EMAIL = 64 << 20  # bytes; mail servers take some 25 MB


def check_ingest(
    *,
    destination: str = "local",
    root: str = "datasets",
    workspace: str = "",
    container: str = "datasets",
    connection_file: str = "",
    **others: object,
) -> tuple[Workspace, Storage | None] | None:
    """Check where an ingest is to go, as far as this machine knows.

    Returns:
        For Azure, the workspace and the storage account, which is None where a person has yet to
        type its connection string.

    Raises:
        ValueError: names the parameter, what it was and what is allowed.
        FileNotFoundError: a storage account is needed, none is given, and no person to ask.
    """
    if destination == "local":
        folder = resolve(root.strip() or "datasets")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"root={root!r}: it is a file, give a folder")
        return None
    check_container_name(container)
    return require_workspace(workspace.strip()), find_storage(connection_file)


def plan_ingest(
    email: Secret,
    *,
    datasets: str = "",
    root: str = "datasets",
    keep_archives: bool = True,
    accept_mismatch: str = "",
    container: str = "datasets",
    location: str = "",
    leftover: str = "adopt",
    secure_runs: bool = True,
    **others: Any,
) -> IngestPlan:
    """Find out what there is to do for an email; only a missing container is made.

    All but the email's text are the notebook's parameters.

    Raises:
        ValueError: a parameter, or the email's text, is not valid.
        FileNotFoundError: a storage account is needed, and none is given.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses to say what is there.
        OSError: the store refuses or cannot be reached.
    """
    azure = check_ingest(root=root, container=container, **others)
    links, place = parse_links(email.reveal()), None
    store: Store = DiskStore(resolve(root.strip() or "datasets"))
    if azure:
        workspace, storage = azure
        if storage is None:
            raise ValueError("no storage account: give its connection string first")
        place = factory_place(
            *(workspace, storage, container, credential(), location.strip()),
            leftover=leftover,
            secure_runs=secure_runs,
        )
        store = open_container(storage, container)
    return make_plan(
        links,
        store,
        listed(datasets),
        factory=place,
        keep_archives=keep_archives,
        accept_mismatch=[archive_stem(name) for name in listed(accept_mismatch)],
    )


def email_text(links_file: str) -> Secret | None:
    """Read the email's text from the variable FASTMRI_LINKS or from a file.

    Returns:
        The text; None where there is none and a person is there to paste it.

    Raises:
        FileNotFoundError: there is none, and no person to ask (a headless run).
        ValueError: the file is too large.
    """
    if os.environ.get(LINKS_VARIABLE, "").strip():
        return Secret(os.environ[LINKS_VARIABLE])
    path = resolve(links_file.strip() or "curl.txt")
    if path.is_file():
        if path.stat().st_size > _LONGEST_EMAIL:
            raise ValueError(
                f"links_file={shown(path)}: {path.stat().st_size:,} bytes are no email's text: "
                "give the file that you saved the text of fastMRI's email in"
            )
        return Secret(decoded(path.read_bytes()))
    if interactive():
        return None
    raise FileNotFoundError(
        f"links_file={shown(path)}: no such file: save the text of fastMRI's email there, or put "
        f"it into the environment variable {LINKS_VARIABLE}; ask for the email at {WHERE_TO_ASK}"
    )


def decoded(content: bytes) -> str:
    """Decode a text file as mail programs and editors save it: UTF-8, UTF-16 or Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def listed(value: str) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
