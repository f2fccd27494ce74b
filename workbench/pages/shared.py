"""What the pages of several notebooks share: choices of what is here, checks, the storage's key."""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo

from workbench.azure_login import require_workspace
from workbench.azure_storage import CONNECTION_FILE, find_storage, parse_connection
from workbench.catalog import DATASETS
from workbench.compute.jobs import read_options, run_folder
from workbench.data.folders import find_dataset
from workbench.data.sampling import Sampling, numbers
from workbench.forms.page import SecretEntry
from workbench.forms.parameters import concerning
from workbench.models import check_network_name
from workbench.models.own import check_there, is_own
from workbench.settings import (
    AWS_LOGIN,
    AZURE_LOGIN,
    CONNECTION_VARIABLE,
    GOOGLE_LOGIN,
    Secret,
    resolve,
    shown,
)
from workbench.stores import is_address, unopened

STORAGE = (CONNECTION_VARIABLE, AZURE_LOGIN)
"""What lets us into Azure's blob storage."""
ANY_DATASET = (*STORAGE, AWS_LOGIN, GOOGLE_LOGIN)
"""What lets us into whatever a dataset's address names."""


def datasets_here(_: Any = None) -> list[str]:
    """Return the datasets that are here: names under ``datasets/``, paths of the demo's."""
    real = [path.name for path in sorted(resolve("datasets").glob("[!.]*/"))]
    demo = sorted(resolve("outputs").glob("[!.]*/datasets/*/"))
    return [
        *(name for name in real if not name.endswith("_compressed")),
        *(shown(path) for path in demo if path.name in DATASETS),
    ]


def runs_here(_: Any = None) -> list[str]:
    """Return the training runs under ``outputs/``, the latest first."""
    outputs = run_folder("x").parent
    jobs = sorted(outputs.rglob("job.json"), key=lambda path: -path.stat().st_mtime)
    return [str(path.parent.relative_to(outputs)) for path in jobs]


def check_dataset(place: str) -> None:
    """Check that a dataset is here; of an address only its form, for nobody has logged in yet.

    Raises:
        ValueError: it is no address.
        FileNotFoundError: there is no such folder; the message says how to get the dataset.
        NotADirectoryError: it is a file.
    """
    if is_address(place):
        unopened(place)
    else:
        find_dataset(place, announce=False)


def in_workspace(kind: str) -> Callable[[Any], Sequence[str]]:
    """Return what looks up an AzureML workspace's "clusters" or "datastores", given parameters."""

    def look_up(asked: Any) -> Sequence[str]:
        from workbench.compute.cluster import connect

        workspace = require_workspace(getattr(asked, "workspace", ""))
        return [each.name for each in getattr(connect(workspace, asked.sdk), kind)()]

    return look_up


def _check_run(value: str, info: ValidationInfo) -> str:
    run_folder(value, str(info.field_name))
    return value


RunName = Annotated[str, AfterValidator(_check_run)]
"""Folder of a run under ``outputs/``."""


def _check_network(name: str) -> str:
    return check_there("network", name) if is_own(name) else check_network_name(name)


def _check_options(text: str) -> str:
    read_options(text)
    return text


NetworkName = Annotated[str, AfterValidator(_check_network)]
"""A network of the registry, or somebody's own as package.module:MyNetwork."""
NetworkOptions = Annotated[str, AfterValidator(_check_options)]
"""Arguments of a network, such as "depth=5, norm=batch"."""


def check_sampling(asked: Any, usual: Sampling) -> None:
    """Check how k-space is to be undersampled, where None stands for the usual.

    Args:
        asked: has mask, acceleration and center_fraction.
        usual: for what is None.

    Raises:
        WrongValueError: the values do not go together.
    """
    accelerations, fractions = usual.accelerations, usual.center_fractions
    if asked.acceleration is not None:
        accelerations = numbers("acceleration", asked.acceleration)
    if asked.center_fraction is not None:
        fractions = numbers("center_fraction", asked.center_fraction)
    one_more = asked.center_fraction is not None and asked.acceleration is None
    with concerning("center_fraction" if one_more else "acceleration"):
        Sampling(asked.mask or usual.mask, accelerations, fractions)


def connection_entry(only: Callable[[Any], bool] = lambda _: True) -> SecretEntry:
    """Return the entry of a page that needs the storage account, where ``only`` says so."""

    def found(asked: Any) -> str:
        try:
            there = find_storage(getattr(asked, "connection_file", CONNECTION_FILE))
        except (ValueError, OSError):
            return ""
        return (
            f"storage account {there.account}, found where headless runs find it" if there else ""
        )

    return SecretEntry(
        CONNECTION_VARIABLE,
        "Storage account's connection string",
        "From the portal: the storage account, Access keys. It leaves the field at once and is "
        f"held in memory alone; headless it comes from {CONNECTION_VARIABLE} or a file that git "
        "ignores.",
        lambda text: f"storage account {parse_connection(Secret(text)).account}",
        found,
        only=only,
    )
