"""The storage account's connection string, as the forms ask for it."""

from collections.abc import Callable
from typing import Any

from workbench.azure_storage import (
    CONNECTION_FILE,
    CONNECTION_VARIABLE,
    find_storage,
    parse_connection,
)
from workbench.forms.page import SecretEntry
from workbench.settings import Secret

_HELP = (
    "From the portal: the storage account, Access keys. It leaves the field at once and is held in "
    f"memory alone; headless it comes from {CONNECTION_VARIABLE} or a file that git ignores."
)


def connection_entry(only: Callable[[Any], bool] = lambda _: True) -> SecretEntry:
    """Return the entry of a page that needs it, for the parameters that ``only`` says."""
    return SecretEntry(
        CONNECTION_VARIABLE,
        "Storage account's connection string",
        _HELP,
        lambda text: f"storage account {parse_connection(Secret(text)).account}",
        _found,
        only=only,
    )


def _found(parameters: Any) -> str:
    try:
        there = find_storage(getattr(parameters, "connection_file", CONNECTION_FILE))
    except (ValueError, OSError):
        return ""
    return f"storage account {there.account}, found where headless runs find it" if there else ""
