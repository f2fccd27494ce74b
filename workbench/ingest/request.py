"""What a notebook asks of an ingest: its parameters, checked, and the email's text."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench import catalog
from workbench.ingest.links import WHERE_TO_ASK, archive_stem, parse_links
from workbench.ingest.local import run_ingest
from workbench.ingest.plan import IngestPlan, plan_ingest
from workbench.ingest.report import IngestReport
from workbench.progress import interactive
from workbench.settings import Secret, resolve, shown

VARIABLE = "FASTMRI_LINKS"


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
) -> IngestRequest:
    """Check a notebook's parameters.

    Raises:
        ValueError: names the parameter, what it was and what is allowed.
    """
    if destination == "azure":
        raise ValueError("destination='azure': not there yet, give 'local'")
    if destination != "local":
        raise ValueError(f"destination={destination!r}: give 'local'")
    if not isinstance(keep_archives, bool):
        raise ValueError(f"keep_archives={keep_archives!r}: give True or False")
    names = _listed("datasets", datasets)
    for name in names:
        if name not in catalog.DATASETS:
            raise ValueError(f"datasets={name!r}: give one of {', '.join(catalog.DATASETS)}")
    for parameter, value in (("side_by_side", side_by_side), ("connections", connections)):
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 32:
            raise ValueError(f"{parameter}={value!r}: give a whole number from 1 to 32")
    folder = resolve(_text("root", root) or "datasets")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"root={root!r}: it is a file, give a folder")
    accepted = tuple(archive_stem(name) for name in _listed("accept_mismatch", accept_mismatch))
    return IngestRequest(names, folder, keep_archives, accepted, side_by_side, connections)


def email_text(links_file: str) -> Secret | None:
    """Read the email's text from the variable FASTMRI_LINKS or from a file.

    Returns:
        The text; None where there is none and a person is there to paste it.

    Raises:
        FileNotFoundError: there is none, and nobody to ask.
    """
    if os.environ.get(VARIABLE, "").strip():
        return Secret(os.environ[VARIABLE])
    path = resolve(_text("links_file", links_file) or "curl.txt")
    if path.is_file():
        return Secret(decoded(path.read_bytes()))
    if interactive():
        return None
    raise FileNotFoundError(
        f"links_file={shown(path)}: no such file: save the text of fastMRI's email there, or put "
        f"it into the environment variable {VARIABLE}; ask for the email at {WHERE_TO_ASK}"
    )


def decoded(content: bytes) -> str:
    """Decode a text file as mail programs and editors save it: UTF-8, UTF-16 or Latin-1."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


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
