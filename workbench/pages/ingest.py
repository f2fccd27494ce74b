"""The page of ``ingest.ipynb``: from the email's text to volumes, here or in Azure."""

from collections.abc import Callable, Sequence
from threading import Event
from typing import TYPE_CHECKING, Self

from pydantic import PrivateAttr, model_validator

from workbench.azure_login import credential, require_workspace
from workbench.catalog import DATASETS
from workbench.compute.cluster import SDKS
from workbench.forms.page import Page, SecretEntry
from workbench.forms.parameters import Field, concerning
from workbench.ingest.factory_copy import LEFTOVER
from workbench.ingest.links import WHERE_TO_ASK, parse_links
from workbench.ingest.plan import IngestPlan
from workbench.ingest.report import IngestReport, plan_html, progress_html, report_html
from workbench.ingest.request import (
    DESTINATIONS,
    UNPACK_ON,
    check_ingest,
    email_text,
    plan_ingest,
)
from workbench.ingest.run import ingest
from workbench.pages.shared import STORAGE, connection_entry, in_workspace
from workbench.settings import LINKS_VARIABLE
from workbench.stores.blob import check_container_name

if TYPE_CHECKING:
    from IPython.display import HTML

SECONDS_BETWEEN_LOOKS = 1.0


def _locations(asked: "IngestPage") -> Sequence[str]:
    from workbench.azure_resources import ResourceManager

    workspace = require_workspace(asked.workspace)
    return ResourceManager(credential()).factory_locations(workspace.subscription_id)


def _links(text: str) -> str:
    links = parse_links(text)
    datasets = sorted({link.dataset for link in links if link.dataset})
    left_out = "".join(f"; left out: {link}" for link in links.left_out)
    return f"{len(links)} links, for {', '.join(datasets) or 'no dataset that is known'}{left_out}"


def _email(asked: "IngestPage") -> str:
    try:
        text = email_text(asked.links_file)
        return f"{_links(text.reveal())}, found where headless runs find them" if text else ""
    except (ValueError, OSError):
        return ""


class IngestPage(Page):
    """Bring the email's archives in, verified and unpacked."""

    notebook, start = "ingest", "Ingest"
    hint = "Plan shows what the email offers and what there is to do; it changes nothing."
    secrets = (
        SecretEntry(
            LINKS_VARIABLE,
            "fastMRI's email",
            f"Paste the whole email, or choose a file with its text; ask for it at {WHERE_TO_ASK}. "
            "It is taken from the field at once and held in memory alone.",
            _links,
            _email,
            file=True,
        ),
        connection_entry(lambda asked: asked.destination == "azure"),
    )

    datasets: str = Field("", choices=tuple(DATASETS), several=True)
    """such as "knee_multicoil, brain_multicoil"; empty: all in the email"""
    destination: str = Field("local", label="where to", choices=DESTINATIONS)
    """where to: "local", this machine, or "azure", blob storage"""
    keep_archives: bool = Field(True, label="keep the archives")
    """False: keep only what is unpacked"""

    root: str = Field("datasets", section="On this machine", label="folder of the datasets")
    """local: folder that holds the datasets; relative to the project"""
    side_by_side: int = Field(4, ge=1, le=32, unit="archives")
    """archives at work at the same time; the factory copies all at once"""
    connections: int = Field(4, ge=1, le=32, unit="connections")
    """local: connections that fetch one archive"""
    accept_mismatch: str = Field("", label="accept a wrong hash of")
    """archives to unpack although their SHA256 differs"""
    links_file: str = Field("curl.txt", aliases=("curl",))
    """file with the email's text; variable FASTMRI_LINKS comes first"""

    workspace: str = Field("", section="In Azure")
    """azure: SUBSCRIPTION/GROUP/NAME; empty: config.json or AZURE_ variables"""
    container: str = "datasets"
    """azure: container in the storage account"""
    location: str = Field("", label="location of the factory", look_up=_locations)
    """azure: of the factory, such as "westeurope"; empty: the workspace's"""
    unpack_on: str | None = Field(None, choices=UNPACK_ON)
    """azure: "here" or "azureml", jobs; None: a cluster without GPUs, if any"""
    cluster: str = Field("", look_up=in_workspace("clusters"))
    """azure: the AzureML cluster that unpacks; empty: one without GPUs"""
    sdk: str | None = Field(None, label="AzureML's SDK", choices=SDKS)
    """azure: AzureML's SDK that unpacks, v1 or v2; None: the first that works here"""
    connection_file: str = "storage.secret"
    """azure: file with the account's connection string"""
    leftover: str = Field("adopt", label="a killed run's factory", choices=LEFTOVER)
    """azure: go on with a killed run's factory, or "delete" it"""
    secure_runs: bool = Field(True, label="links as secure parameters")
    """azure: False where the factory refuses links as secure parameters"""

    _report: IngestReport = PrivateAttr(default_factory=IngestReport)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.destination == "azure":
            with concerning("container"):
                check_container_name(self.container)
            with concerning("workspace"):
                require_workspace(self.workspace)
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """The email, and what lets us into the storage where that is the place."""
        return LINKS_VARIABLE, *(STORAGE if self.destination == "azure" else ())

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look at where the volumes are to go."""
        field = "connection_file" if self.destination == "azure" else "root"
        return {field: lambda: check_ingest(**self.model_dump(exclude={"links_file"}))}

    def plan(self) -> IngestPlan:
        """Read the email and show what there is to do.

        Raises:
            ValueError: the text or a parameter is not valid, or the text is missing.
        """
        from IPython.display import HTML, display

        text = email_text(self.links_file)
        if text is None:
            raise ValueError("the email's text is missing: give it first")
        planned = plan_ingest(text, **self.model_dump(exclude={"links_file"}))
        if planned.factory:
            from workbench.compute.unpacking import with_unpacker

            planned = with_unpacker(planned, self.unpack_on, self.cluster, self.sdk)
        display(HTML(plan_html(planned)))
        return planned

    def work(self, planned: IngestPlan) -> dict[str, str]:
        """Do it; what could not be done is shown.

        Raises:
            IngestError: an archive could not be brought in; lists each with what to do.
        """
        from IPython.display import display

        report = ingest(
            planned,
            side_by_side=self.side_by_side,
            connections=self.connections,
            report=self._report,
        )
        done = {"summary": report.summary(), "html": report_html(report)}
        if report.problems:
            display(show_report(done))
        report.raise_for_problems()
        return done

    def watch(self, planned: IngestPlan, ended: Event) -> None:
        """Show how far each archive is, wherever it goes."""
        from IPython.display import HTML, display

        before, last = "", False
        while not last:
            last = ended.wait(SECONDS_BETWEEN_LOOKS)
            if (html := progress_html(self._report)) != before:
                display(HTML(html), display_id="archives")
                before = html

    def report(self, result: dict[str, str]) -> str:
        """Say what was done in a line."""
        return f": {result['summary']}"


def show_report(done: dict[str, str]) -> "HTML":
    """Show every archive, the volumes beside fastMRI's own counts, and the problems."""
    from IPython.display import HTML

    return HTML(done["html"])
