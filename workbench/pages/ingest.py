"""The page of ``ingest.ipynb``: from the email's text to volumes, here or in Azure."""

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.azure_login import credential, require_workspace
from workbench.catalog import DATASETS
from workbench.forms.page import Look, OpenPage, Page, SecretEntry, Values, open_page
from workbench.forms.storage_secret import connection_entry
from workbench.ingest.azure.plan import CloudPlan
from workbench.ingest.azure.request import LEFTOVER, UNPACK_ON, CloudRequest
from workbench.ingest.links import WHERE_TO_ASK, parse_links
from workbench.ingest.plan import IngestPlan
from workbench.ingest.report import IngestReport
from workbench.ingest.request import (
    DESTINATIONS,
    IngestRequest,
    email_text,
    ingest_request,
)
from workbench.settings import LINKS_VARIABLE
from workbench.views.ingest import do_plan, show_plan

Order = tuple[IngestRequest | CloudRequest, IngestPlan | CloudPlan]


def ingest_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the ingest at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def check(values: Values) -> None:
    """Check the parameters.

    Raises:
        ValueError: one is outside what is allowed.
    """
    ingest_request(**{name: value for name, value in values.items() if name != "links_file"})


def plan(*, links_file: str, **values: Any) -> Order:
    """Check the parameters, read the email and show what there is to do."""
    request = ingest_request(**values)
    return request, show_plan(request, email_text(links_file))


def work(order: Order) -> IngestReport:
    """Do it; what could not be done is shown.

    Raises:
        IngestError: an archive could not be brought in; lists each with what to do.
    """
    return do_plan(*order)


def _links(text: str) -> str:
    links = parse_links(text)
    datasets = sorted({link.dataset for link in links if link.dataset})
    left_out = "".join(f"; left out: {link}" for link in links.left_out)
    return f"{len(links)} links, for {', '.join(datasets) or 'no dataset that is known'}{left_out}"


def _email(values: Values) -> str:
    try:
        text = email_text(str(values["links_file"]))
        return f"{_links(text.reveal())}, found where headless runs find them" if text else ""
    except (ValueError, OSError):
        return ""


def _in_azure(values: Values) -> bool:
    return values["destination"] == "azure"


def _clusters(values: Values) -> Sequence[str]:
    from workbench.compute.cluster import connect

    return [
        each.name
        for each in connect(
            require_workspace(values["workspace"]), str(values.get("sdk") or "v1")
        ).clusters()
    ]


def _locations(values: Values) -> Sequence[str]:
    from workbench.ingest.azure.arm import ResourceManager

    workspace = require_workspace(values["workspace"])
    return ResourceManager(credential()).factory_locations(workspace.subscription_id)


PAGE = Page(
    notebook="ingest",
    address="workbench.pages.ingest:PAGE",
    start="Ingest",
    check=check,
    plan=plan,
    work=work,
    report=lambda report: f": {report.summary()}",
    hint="Plan shows what the email offers and what there is to do; it changes nothing.",
    common=("datasets", "destination", "keep_archives"),
    groups={
        "On this machine": ("root", "side_by_side", "connections", "accept_mismatch", "links_file"),
        "In Azure": (
            *("workspace", "container", "location", "unpack_on", "cluster"),
            *("connection_file", "leftover", "secure_runs"),
        ),
    },
    looks={
        "datasets": Look(choices=lambda: tuple(DATASETS), several=True),
        "destination": Look("where to", choices=lambda: DESTINATIONS, only_these=True),
        "keep_archives": Look("keep the archives"),
        "root": Look("folder of the datasets"),
        "side_by_side": Look(unit="archives"),
        "connections": Look(unit="connections"),
        "location": Look("location of the factory", look_up=_locations),
        "unpack_on": Look(choices=lambda: UNPACK_ON, only_these=True),
        "cluster": Look(look_up=_clusters),
        "leftover": Look("a killed run's factory", choices=lambda: LEFTOVER, only_these=True),
        "secure_runs": Look("links as secure parameters"),
        "accept_mismatch": Look("accept a wrong hash of"),
    },
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
        connection_entry(_in_azure),
    ),
)
