"""The page of ``ingest.ipynb``: from the email's text to volumes, here or in Azure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from workbench.azure_login import credential, require_workspace
from workbench.catalog import DATASETS
from workbench.forms.page import OpenPage, Page, SecretEntry, open_page
from workbench.forms.parameters import Field, Parameters, concerning
from workbench.forms.storage_secret import connection_entry
from workbench.ingest.azure.request import LEFTOVER, SDKS, UNPACK_ON, CloudRequest
from workbench.ingest.azure.run import CloudReport
from workbench.ingest.blobs import check_container_name
from workbench.ingest.links import WHERE_TO_ASK, parse_links
from workbench.ingest.report import report_html
from workbench.ingest.request import DESTINATIONS, IngestRequest, email_text, ingest_request
from workbench.settings import LINKS_VARIABLE
from workbench.views.ingest import activities_html, do_plan, show_plan

if TYPE_CHECKING:
    from IPython.display import HTML

    from workbench.ingest.azure.plan import CloudPlan
    from workbench.ingest.plan import IngestPlan

    Order = tuple[IngestRequest | CloudRequest, IngestPlan | CloudPlan]


def _clusters(parameters: "IngestParameters") -> Sequence[str]:
    from workbench.compute.cluster import connect

    backend = connect(require_workspace(parameters.workspace), parameters.sdk)
    return [each.name for each in backend.clusters()]


def _locations(parameters: "IngestParameters") -> Sequence[str]:
    from workbench.ingest.azure.arm import ResourceManager

    workspace = require_workspace(parameters.workspace)
    return ResourceManager(credential()).factory_locations(workspace.subscription_id)


class IngestParameters(Parameters):
    """What ``ingest.ipynb`` asks for."""

    notebook: ClassVar[str] = "ingest"

    datasets: str = Field(
        "",
        'such as "knee_multicoil, brain_multicoil"; empty: all in the email',
        choices=tuple(DATASETS),
        several=True,
    )
    destination: str = Field(
        "local",
        'where to: "local", this machine, or "azure"',
        label="where to",
        choices=DESTINATIONS,
    )
    keep_archives: bool = Field(
        True, "False: keep only what is unpacked", label="keep the archives"
    )
    root: str = Field(
        "datasets",
        "local: folder that holds the datasets; relative to the project",
        section="On this machine",
        label="folder of the datasets",
    )
    side_by_side: int = Field(
        4,
        "archives at work at the same time; the factory copies all at once",
        ge=1,
        le=32,
        unit="archives",
    )
    connections: int = Field(
        4, "local: connections that fetch one archive", ge=1, le=32, unit="connections"
    )
    accept_mismatch: str = Field(
        "",
        "archives to unpack although their SHA256 differs",
        label="accept a wrong hash of",
    )
    links_file: str = Field(
        "curl.txt",
        "file with the email's text; variable FASTMRI_LINKS comes first",
        aliases=("curl",),
    )
    workspace: str = Field(
        "",
        "azure: SUBSCRIPTION/GROUP/NAME; empty: config.json or AZURE_ variables",
        section="In Azure",
    )
    container: str = Field("datasets", "azure: container in the storage account")
    location: str = Field(
        "",
        'azure: of the factory, such as "westeurope"; empty: the workspace\'s',
        label="location of the factory",
        look_up=_locations,
    )
    unpack_on: str = Field(
        "here",
        'azure: "here", this machine, or "azureml", jobs on a cluster',
        choices=UNPACK_ON,
    )
    cluster: str = Field(
        "",
        "azure: the AzureML cluster that unpacks; empty: the only one there is",
        look_up=_clusters,
    )
    sdk: str = Field(
        "v1", 'azure: AzureML\'s SDK that sends the unpacking, "v1" or "v2"', choices=SDKS
    )
    connection_file: str = Field(
        "storage.secret", "azure: file with the account's connection string"
    )
    leftover: str = Field(
        "adopt",
        'azure: go on with a killed run\'s factory, or "delete" it',
        label="a killed run's factory",
        choices=LEFTOVER,
    )
    secure_runs: bool = Field(
        True,
        "azure: False where the factory refuses links as secure parameters",
        label="links as secure parameters",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.destination == "azure":
            with concerning("container"):
                check_container_name(self.container)
            with concerning("workspace"):
                require_workspace(self.workspace)
        with concerning("connection_file" if self.destination == "azure" else "root"):
            self.request()
        return self

    def request(self) -> IngestRequest | CloudRequest:
        """Return what is asked of an ingest."""
        return ingest_request(**self.model_dump(exclude={"links_file"}))


@dataclass(frozen=True)
class Ingested:
    """What an ingest did.

    Attributes:
        summary: in one line.
        html: every archive, the volumes beside fastMRI's own counts, and the problems.
    """

    summary: str
    html: str


def ingest_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the ingest at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def plan(parameters: IngestParameters) -> "Order":
    """Read the email and show what there is to do."""
    request = parameters.request()
    return request, show_plan(request, email_text(parameters.links_file))


def work(order: "Order") -> dict[str, str]:
    """Do it; what could not be done is shown.

    Raises:
        IngestError: an archive could not be brought in; lists each with what to do.
    """
    report = do_plan(*order)
    html = report_html(report)
    if isinstance(report, CloudReport) and report.activities:
        html += activities_html(report)
    return {"summary": report.summary(), "html": html}


def show_report(done: Ingested) -> "HTML":
    """Show what the ingest did."""
    from IPython.display import HTML

    return HTML(done.html)


def _links(text: str) -> str:
    links = parse_links(text)
    datasets = sorted({link.dataset for link in links if link.dataset})
    left_out = "".join(f"; left out: {link}" for link in links.left_out)
    return f"{len(links)} links, for {', '.join(datasets) or 'no dataset that is known'}{left_out}"


def _email(parameters: IngestParameters) -> str:
    try:
        text = email_text(parameters.links_file)
        return f"{_links(text.reveal())}, found where headless runs find them" if text else ""
    except (ValueError, OSError):
        return ""


PAGE = Page(
    IngestParameters,
    "Ingest",
    plan,
    work,
    lambda left, _: Ingested(**left),
    report=lambda done: f": {done.summary}",
    hint="Plan shows what the email offers and what there is to do; it changes nothing.",
    secrets=(
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
    ),
)
