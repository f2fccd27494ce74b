"""What a notebook asks of an ingest: its parameters, checked, and the email's text."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from workbench import catalog
from workbench.azure_login import require_workspace
from workbench.azure_storage import find_storage
from workbench.ingest.azure.request import LEFTOVER, SDKS, UNPACK_ON, CloudRequest
from workbench.ingest.blobs import check_container_name
from workbench.ingest.links import WHERE_TO_ASK, archive_stem, parse_links
from workbench.ingest.local import run_ingest
from workbench.ingest.plan import IngestPlan, plan_ingest
from workbench.ingest.report import IngestReport
from workbench.progress import interactive
from workbench.settings import LINKS_VARIABLE, Secret, resolve, shown

DESTINATIONS = ("local", "azure")

# What a notebook may choose, by the names that ``ingest_request`` takes.
PARAMETERS = (
    *("datasets", "destination", "root", "keep_archives", "accept_mismatch"),
    *("side_by_side", "connections"),
    *("workspace", "container", "connection_file", "location"),
    *("unpack_on", "cluster", "sdk", "leftover", "secure_runs"),
)


@dataclass(frozen=True)
class IngestRequest:
    """A checked order for an ingest.

    Attributes:
        datasets: names of datasets; empty for all that the email offers.
        root: folder that holds the datasets.
        keep_archives: whether each archive stays beside what it holds.
        accept_mismatch: stems of archives to unpack although their hash differs from the list.
        side_by_side: archives at work at the same time.
        connections: connections that fetch one archive.
    """

    datasets: tuple[str, ...]
    root: Path
    keep_archives: bool
    accept_mismatch: tuple[str, ...]
    side_by_side: int
    connections: int
    lacks_storage: ClassVar[bool] = False

    def plan(self, text: Secret) -> IngestPlan:
        """Find out what there is to do for an email's text."""
        return plan_ingest(
            parse_links(text.reveal()),
            self.root,
            self.datasets,
            keep_archives=self.keep_archives,
            accept_mismatch=self.accept_mismatch,
        )

    def run(self, plan: IngestPlan) -> IngestReport:
        """Do it."""
        return run_ingest(plan, side_by_side=self.side_by_side, connections=self.connections)


def ingest_request(
    *,
    datasets: str,
    destination: str,
    root: str,
    keep_archives: bool,
    accept_mismatch: str,
    side_by_side: int,
    connections: int,
    workspace: str = "",
    container: str = "datasets",
    connection_file: str = "",
    location: str = "",
    unpack_on: str = "here",
    cluster: str = "",
    sdk: str = "v1",
    leftover: str = "adopt",
    secure_runs: bool = True,
) -> IngestRequest | CloudRequest:
    """Check a notebook's parameters. Those after ``connections`` are for Azure alone.

    Raises:
        ValueError: names the parameter, what it was and what is allowed.
        FileNotFoundError: a storage account is needed, none is given, and there is nobody to ask.
    """
    if destination not in DESTINATIONS:
        raise ValueError(f"destination={destination!r}: give {_either(DESTINATIONS)}")
    for parameter, answer in (("keep_archives", keep_archives), ("secure_runs", secure_runs)):
        if not isinstance(answer, bool):
            raise ValueError(f"{parameter}={answer!r}: give True or False")
    names = _listed("datasets", datasets)
    for name in names:
        if name not in catalog.DATASETS:
            raise ValueError(f"datasets={name!r}: give one of {', '.join(catalog.DATASETS)}")
    for parameter, value in (("side_by_side", side_by_side), ("connections", connections)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 32:
            raise ValueError(f"{parameter}={value!r}: give a whole number from 1 to 32")
    accepted = tuple(archive_stem(name) for name in _listed("accept_mismatch", accept_mismatch))
    if destination == "local":
        folder = resolve(_text("root", root) or "datasets")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"root={root!r}: it is a file, give a folder")
        return IngestRequest(names, folder, keep_archives, accepted, side_by_side, connections)
    for parameter, choice, allowed in (
        ("unpack_on", unpack_on, UNPACK_ON),
        ("sdk", sdk, SDKS),
        ("leftover", leftover, LEFTOVER),
    ):
        if choice not in allowed:
            raise ValueError(f"{parameter}={choice!r}: give {_either(allowed)}")
    check_container_name(container)
    return CloudRequest(
        require_workspace(_text("workspace", workspace)),
        find_storage(_text("connection_file", connection_file)),
        names,
        container,
        _text("location", location),
        keep_archives,
        accepted,
        side_by_side,
        unpack_on,
        _text("cluster", cluster),
        sdk,
        leftover,
        secure_runs,
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
    path = resolve(_text("links_file", links_file) or "curl.txt")
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


def _either(allowed: Sequence[str]) -> str:
    return " or ".join(map(repr, allowed))


def _text(parameter: str, value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{parameter}={value!r}: give a text")
    return value.strip()


def _listed(parameter: str, value: str | Sequence[str]) -> tuple[str, ...]:
    if not isinstance(value, str):
        if not isinstance(value, list | tuple) or not all(isinstance(x, str) for x in value):
            raise ValueError(f"{parameter}={value!r}: give names separated by commas")
        value = ",".join(value)
    return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
