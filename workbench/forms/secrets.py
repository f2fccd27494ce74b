"""What a form holds of secrets: in this process's memory, never in a widget."""

from collections.abc import Callable, Sequence
from typing import Any

from workbench.azure_storage import (
    CONNECTION_FILE,
    find_storage,
    parse_connection,
)
from workbench.forms.page import SecretEntry
from workbench.settings import AZURE_LOGIN, CONNECTION_VARIABLE, LINKS_VARIABLE, Secret


class SecretFields:
    """The secrets of a form, taken and never given back.

    Args:
        entries: what the form asks for.
    """

    def __init__(self, entries: Sequence[SecretEntry]) -> None:
        self._entries = entries
        self._held: dict[str, Secret] = {}
        self._said: dict[str, str] = {}
        self._wrong: dict[str, str] = {}

    def take(self, name: str, text: str | bytes) -> None:
        """Take a text that was typed or pasted, or a file's bytes; drop one that does not do."""
        from workbench.ingest.request import decoded

        plain = decoded(text) if isinstance(text, bytes) else text
        entry = next(each for each in self._entries if each.name == name)
        self._wrong.pop(name, None)
        try:
            self._said[name] = entry.check(plain)
        except ValueError as error:
            self.forget(name)
            self._wrong[name] = str(error)
        else:
            self._held[name] = Secret(plain)

    def forget(self, name: str) -> None:
        """Drop a secret."""
        self._held.pop(name, None)
        self._said.pop(name, None)
        self._wrong.pop(name, None)

    def shown(self, parameters: Any) -> list[dict[str, Any]]:
        """Return what the form shows of each secret, none of it secret."""
        return [
            {
                "name": entry.name,
                "label": entry.label,
                "help": entry.help,
                "file": entry.file,
                "wanted": entry.only(parameters),
                "held": self._state(entry, parameters),
                "forget": entry.name in self._held,
                "error": self._wrong.get(entry.name, ""),
            }
            for entry in self._entries
        ]

    def _state(self, entry: SecretEntry, parameters: Any) -> str:
        if entry.name in self._held:
            return (
                f"✓ {self._said[entry.name]}; held until this notebook's kernel ends, never saved"
            )
        return f"✓ {found}" if (found := entry.found(parameters)) else ""

    def lacking(self, parameters: Any) -> str:
        """Name what is needed and not there; "" where nothing is."""
        return " and ".join(
            entry.label
            for entry in self._entries
            if entry.only(parameters)
            and entry.name not in self._held
            and not entry.found(parameters)
        )

    def variables(self, parameters: Any) -> dict[str, str]:
        """Return the environment of the work: it goes to its process by a pipe."""
        return {
            entry.name: self._held[entry.name].reveal()
            for entry in self._entries
            if entry.name in self._held and entry.only(parameters)
        }

    def needs(self, parameters: Any) -> tuple[str, ...]:
        """Return what the work needs of this process's own secrets, see ``child_environment``.

        A page that does not ask for the storage's key may yet be given an address in it.
        """
        wanted = {entry.name: entry.only(parameters) for entry in self._entries}
        links = (LINKS_VARIABLE,) if wanted.get(LINKS_VARIABLE) else ()
        azure = (CONNECTION_VARIABLE, AZURE_LOGIN) if wanted.get(CONNECTION_VARIABLE, True) else ()
        return links + azure


# ---- the storage account --------------------------------------------------------------

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
