"""The page of ``ingest.ipynb``: from the email's text to volumes, here or in Azure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import model_validator

from workbench.azure_login import credential, require_workspace
from workbench.catalog import DATASETS
from workbench.compute.cluster import SDKS
from workbench.forms.opening import OpenPage, open_page
from workbench.forms.page import Page, SecretEntry
from workbench.forms.parameters import Field, Parameters, concerning
from workbench.forms.secrets import connection_entry
from workbench.ingest.factory_copy import LEFTOVER
from workbench.ingest.links import WHERE_TO_ASK, parse_links
from workbench.ingest.plan import IngestPlan
from workbench.ingest.report import plan_html, report_html
from workbench.ingest.request import (
    DESTINATIONS,
    UNPACK_ON,
    check_ingest,
    email_text,
    plan_ingest,
)
from workbench.ingest.run import ingest
from workbench.settings import LINKS_VARIABLE
from workbench.stores.blob import BlobStore, check_container_name

if TYPE_CHECKING:
    from IPython.display import HTML

    from workbench.ingest.unpacking import Unpacker


def _clusters(parameters: "IngestParameters") -> Sequence[str]:
    from workbench.compute.cluster import connect

    backend = connect(require_workspace(parameters.workspace), parameters.sdk)
    return [each.name for each in backend.clusters()]


def _locations(parameters: "IngestParameters") -> Sequence[str]:
    from workbench.azure_resources import ResourceManager

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
    sdk: str | None = Field(
        None,
        "azure: AzureML's SDK that unpacks, v1 or v2; None: the first that works here",
        label="AzureML's SDK",
        choices=SDKS,
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
            check_ingest(**self.model_dump(exclude={"links_file"}))
        return self


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


Order = tuple[IngestParameters, IngestPlan]


def plan(parameters: IngestParameters) -> Order:
    """Read the email and show what there is to do.

    Raises:
        ValueError: the text, or what is asked for, does not do; or the text is missing.
    """
    from IPython.display import HTML, display

    text = email_text(parameters.links_file)
    if text is None:
        raise ValueError("the email's text is missing: give it first")
    found = plan_ingest(text, **parameters.model_dump(exclude={"links_file"}))
    display(HTML(plan_html(found)))
    return parameters, found


def work(order: Order) -> dict[str, str]:
    """Do it; what could not be done is shown.

    Raises:
        IngestError: an archive could not be brought in; lists each with what to do.
    """
    parameters, found = order
    report = ingest(
        found,
        side_by_side=parameters.side_by_side,
        connections=parameters.connections,
        unpacker=_unpacker(parameters, found),
    )
    done = Ingested(report.summary(), report_html(report))
    if report.problems:
        from IPython.display import display

        display(show_report(done))
    report.raise_for_problems()
    return asdict(done)


def _unpacker(parameters: IngestParameters, found: IngestPlan) -> "Unpacker | None":
    """Return who unpacks what a Data Factory landed; None stands for this machine."""
    if found.factory is None or parameters.unpack_on == "here":
        return None
    from workbench.compute.unpacking import cluster_unpacker

    assert isinstance(found.store, BlobStore)
    workspace = found.factory.workspace
    return cluster_unpacker(workspace, found.store, parameters.cluster, parameters.sdk)


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
