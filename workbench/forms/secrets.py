"""A field for a secret, which is held in this process's memory and in no widget."""

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from workbench.forms.markup import alert
from workbench.forms.page import SecretEntry
from workbench.settings import Secret


class SecretInput(anywidget.AnyWidget):
    """A field that is emptied as soon as it was filled, and sends what it took as a message.

    No widget of ipywidgets can do that: their values are part of the state that JupyterLab may
    store with the notebook.
    """

    _esm = Path(__file__).parent / "secret.js"
    label = traitlets.Unicode().tag(sync=True)
    file = traitlets.Bool().tag(sync=True)
    disabled = traitlets.Bool().tag(sync=True)


class SecretField:
    """A secret of a form: taken and never given back.

    Args:
        entry: what it is.
        changed: called when one was taken or dropped.

    Attributes:
        held: the secret, or None.
        widget: the field.
        note: what is held, help and error, beside it.
    """

    def __init__(self, entry: SecretEntry, changed: Callable[[], None]) -> None:
        self.entry, self._changed = entry, changed
        self.held: Secret | None = None
        self._said = self._wrong = self._found = ""
        self.input = SecretInput(label=entry.label, file=entry.file)
        self.input.on_msg(
            lambda _, content, buffers: self.take(bytes(buffers[0]) if buffers else content["text"])
        )
        self.forget = ipywidgets.Button(description="Forget it")
        self.forget.on_click(lambda _: self.take(None))
        self.widget = ipywidgets.HBox([self.input, self.forget])
        self.note = ipywidgets.HTML()

    def take(self, text: str | bytes | None) -> None:
        """Take a text or a file's bytes; drop what was held where it is None or not valid."""
        from workbench.ingest.request import decoded

        plain = decoded(text) if isinstance(text, bytes) else text
        self.held, self._wrong = None, ""
        if plain is not None:
            try:
                self._said, self.held = self.entry.check(plain), Secret(plain)
            except ValueError as error:
                self._wrong = str(error)
        self._changed()

    def take_found(self, found: Any) -> None:
        """Show where it was found without the form, if anywhere."""
        self.show("" if isinstance(found, Exception) else found)

    def lacks(self, asked: Any) -> bool:
        """Say whether the work with these parameters needs it and it is not there."""
        return self.entry.only(asked) and not self.held and not self.entry.found(asked)

    def show(self, found: str | None = None) -> None:
        """Show what is held, none of it secret, and where it was found without the form."""
        self._found = self._found if found is None else found
        found = "" if self.held else self._found
        held = f"{self._said}; held until this notebook's kernel ends, never saved"
        there = f"✓ {held if self.held else found}" if self.held or found else ""
        self.note.value = (
            alert(self._wrong)
            + (f'<div class="wb-held" role="status">{escape(there)}</div>' if there else "")
            + f'<div class="wb-help">{escape(self.entry.help)}</div>'
        )
        self.forget.layout.display = None if self.held else "none"

    def enable(self, on: bool) -> None:
        """Let a person change it, or not."""
        self.input.disabled = self.forget.disabled = not on
