"""The page of ``storage.ipynb``: bring a dataset between a container and this machine."""

from collections.abc import Mapping
from typing import Any

from workbench.catalog import DATASETS, SPLITS
from workbench.forms.page import Look, OpenPage, Page, Values, open_page
from workbench.forms.storage_secret import connection_entry
from workbench.ingest.azure.transfer import Transfer
from workbench.ingest.azure.transfer_request import DIRECTIONS, TransferRequest, transfer_request
from workbench.settings import shown


def storage_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the transfer at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def check(values: Values) -> None:
    """Check the parameters.

    Raises:
        ValueError: one is outside what is allowed.
    """
    transfer_request(**values)


def plan(**values: Any) -> TransferRequest:
    """Check the parameters and say what will be brought where."""
    request = transfer_request(**values)
    where = f"{request.storage.account}/{request.container}" if request.storage else "?"
    here = shown(request.root / request.dataset)
    there = f"{where}/{request.dataset}"
    source, target = (here, there) if request.direction == "upload" else (there, here)
    part = ", ".join(request.splits) or "all splits"
    share = "" if request.fraction == 1 else f", {request.fraction:.0%} of the volumes of each"
    what = f"\nwhat       {part}{share}" if request.direction == "download" else ""
    print(f"from       {source}\nto         {target}{what}", flush=True)
    return request


def work(request: TransferRequest) -> Transfer:
    """Bring it over; what is there whole is passed over."""
    done = request.run()
    print(done)
    return done


PAGE = Page(
    notebook="storage",
    address="workbench.pages.storage:PAGE",
    start="Transfer",
    check=check,
    plan=plan,
    work=work,
    report=lambda done: f": {done}",
    common=("dataset", "direction", "splits", "fraction"),
    groups={"More": ("root", "container", "connection_file", "connections")},
    looks={
        "dataset": Look(choices=lambda: tuple(DATASETS)),
        "direction": Look(choices=lambda: DIRECTIONS, only_these=True),
        "splits": Look(choices=lambda: SPLITS, several=True),
        "fraction": Look("share of the volumes"),
        "root": Look("folder of the datasets"),
        "connections": Look(unit="files at a time"),
    },
    secrets=(connection_entry(),),
)
