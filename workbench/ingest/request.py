"""An ingest as a notebook asks for it: its parameters, and the email's text."""

import os
from collections.abc import Sequence

from workbench import catalog
from workbench.azure_login import Workspace, credential, require_workspace
from workbench.azure_storage import Storage, find_storage
from workbench.ingest.factory_copy import factory_place
from workbench.ingest.links import WHERE_TO_ASK, archive_stem, parse_links
from workbench.ingest.plan import IngestPlan, make_plan
from workbench.progress import interactive
from workbench.settings import LINKS_VARIABLE, Secret, resolve, shown
from workbench.stores import DiskStore
from workbench.stores.blob import check_container_name, open_container

DESTINATIONS = ("local", "azure")
UNPACK_ON = ("here", "azureml")


def check_ingest(
    *,
    datasets: str,
    destination: str,
    root: str,
    workspace: str = "",
    container: str = "datasets",
    connection_file: str = "",
    **others: object,
) -> tuple[Workspace, Storage | None] | None:
    """Check what an ingest is asked for, as far as this machine knows.

    Returns:
        For Azure, the workspace and the storage account, which is None where a person has yet to
        type its connection string.

    Raises:
        ValueError: names the parameter, what it was and what is allowed.
        FileNotFoundError: a storage account is needed, none is given, and there is nobody to ask.
    """
    for name in listed(datasets):
        if name not in catalog.DATASETS:
            raise ValueError(f"datasets={name!r}: give one of {', '.join(catalog.DATASETS)}")
    if destination not in DESTINATIONS:
        allowed = " or ".join(map(repr, DESTINATIONS))
        raise ValueError(f"destination={destination!r}: give {allowed}")
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
    destination: str = "local",
    root: str = "datasets",
    keep_archives: bool = True,
    accept_mismatch: str = "",
    workspace: str = "",
    container: str = "datasets",
    connection_file: str = "",
    location: str = "",
    leftover: str = "adopt",
    secure_runs: bool = True,
    **others: object,
) -> IngestPlan:
    """Find out what there is to do for an email; only a missing container is made.

    Args:
        email: its text.
        datasets: names, separated by commas; empty for all that the email offers.
        destination: "local", this machine, or "azure".
        root: local: folder that holds the datasets.
        keep_archives: whether each archive stays beside what it holds.
        accept_mismatch: archives to unpack although their hash differs from fastMRI's list.
        workspace: azure: "SUBSCRIPTION/GROUP/NAME", or "" for the one that is configured.
        container: azure: the container in the storage account.
        connection_file: azure: file with the storage account's connection string.
        location: azure: of the Data Factory; "" for the workspace's.
        leftover: azure: see ``FactoryPlace``.
        secure_runs: azure: see ``FactoryDocuments``.
        **others: of the notebook's parameters, those that the plan does not need.

    Raises:
        ValueError: a parameter, or the email's text, does not do.
        FileNotFoundError: a storage account is needed, and none is given.
        LoginError: Azure refuses the login.
        ResourceError: Azure refuses to say what is there.
        OSError: the store refuses or cannot be reached.
    """
    found = check_ingest(
        datasets=datasets,
        destination=destination,
        root=root,
        workspace=workspace,
        container=container,
        connection_file=connection_file,
    )
    links = parse_links(email.reveal())
    accepted = [archive_stem(name) for name in listed(accept_mismatch)]
    if found is None:
        store = DiskStore(resolve(root.strip() or "datasets"))
        return make_plan(
            links, store, listed(datasets), keep_archives=keep_archives, accept_mismatch=accepted
        )
    in_workspace, storage = found
    if storage is None:
        raise ValueError("no storage account: give its connection string first")
    place = factory_place(
        in_workspace,
        storage,
        container,
        credential(),
        location.strip(),
        leftover=leftover,
        secure_runs=secure_runs,
    )
    return make_plan(
        links,
        open_container(storage, container),
        listed(datasets),
        factory=place,
        keep_archives=keep_archives,
        accept_mismatch=accepted,
    )


def email_text(links_file: str) -> Secret | None:
    """Read the email's text from the variable FASTMRI_LINKS or from a file.

    Returns:
        The text; None where there is none and a person is there to paste it.

    Raises:
        FileNotFoundError: there is none, and nobody to ask.
    """
    if os.environ.get(LINKS_VARIABLE, "").strip():
        return Secret(os.environ[LINKS_VARIABLE])
    path = resolve(links_file.strip() or "curl.txt")
    if path.is_file():
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


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """Read names that are separated by commas."""
    names = value.split(",") if isinstance(value, str) else value
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
