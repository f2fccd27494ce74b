"""The widgets of a form's fields: each with its label, and beside it its help and its error."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import ipywidgets
import traitlets

from workbench.forms.parameters import FormField

_LABEL = {"description_width": "11rem"}


class Control:
    """A parameter's widget.

    Args:
        field: the parameter.
        value: of it, at first.
        changed: called when a person changes the entry.
        look_up: called by the button that asks Azure for choices.

    Attributes:
        widget: what a person enters.
        note: help and error, beside it.
    """

    def __init__(
        self,
        field: FormField,
        value: Any,
        changed: Callable[[], None],
        look_up: Callable[[str], None],
    ) -> None:
        self.field = field
        self.label = field.label or field.name.replace("_", " ")
        self.note = ipywidgets.HTML()
        self._inputs: list[Any] = []
        entry = field.entry(value)
        if field.several:
            self.widget = self._boxes(str(entry))
        else:
            self._inputs = [self._input(entry)]
            self.widget = self._inputs[0]
        for each in self._inputs:
            each.observe(lambda _: changed(), "value")
        if field.look_up:
            button = ipywidgets.Button(
                description="Look up", tooltip=f"ask Azure for what there is ({self.label})"
            )
            button.on_click(lambda _: look_up(field.name))
            self.widget = ipywidgets.HBox([self.widget, button])
        self.show("")

    @property
    def entry(self) -> str | bool:
        """What a person entered."""
        if self.field.several:
            return ", ".join(box.description for box in self._inputs if box.value)
        return self._inputs[0].value

    @property
    def changed(self) -> bool:
        """Whether the entry is another than the default."""
        return self.entry != self.field.entry(self.field.default)

    def enter(self, entry: str | bool) -> None:
        """Enter something, as a person does."""
        if self.field.several:
            for box in self._inputs:
                box.value = box.description in str(entry)
        else:
            self._inputs[0].value = entry

    def suggest(self, choices: Sequence[str]) -> None:
        """Suggest choices that were looked up."""
        self._inputs[0].options = tuple(choices)

    def show(self, error: str) -> None:
        """Show the help, and what is wrong with the entry."""
        unit = f"<b>{escape(self.field.unit)}</b> · " if self.field.unit else ""
        self.note.value = (
            f'<div class="wb-error" role="alert">{escape(error)}</div>' if error else ""
        ) + f'<div class="wb-help">{unit}{escape(self.field.explanation)}</div>'
        for each in self._inputs:
            (each.add_class if error else each.remove_class)("wb-wrong")

    def enable(self, on: bool) -> None:
        """Let a person change the entry, or not."""
        for each in self._inputs:
            each.disabled = not on

    def on_enter(self, pressed: Callable[[], None]) -> None:
        """Have something called when Enter is pressed in a field of text."""

        def heard(_: Any, content: Any, __: Any) -> None:
            if content.get("event") == "submit":
                pressed()

        for each in self._inputs:
            if isinstance(each, ipywidgets.Text):
                each.on_msg(heard)

    def _input(self, entry: str | bool) -> Any:
        field = self.field
        named = {"description": self.label, "style": _LABEL, "value": entry}
        if field.kind is bool and not field.optional:
            return ipywidgets.Checkbox(**named)
        only = ("True", "False") if field.kind is bool else field.only
        if only:
            options = [(each, each) for each in only]
            if field.optional or field.default == "":
                options.insert(0, (field.placeholder or "–", ""))
            if entry not in dict(options).values():
                options.append((str(entry), str(entry)))  # a wrong one, which its error is about
            return ipywidgets.Dropdown(options=options, **named)
        if callable(field.choices) or field.look_up:
            suggested = tuple(field.choices()) if callable(field.choices) else ()
            return ipywidgets.Combobox(options=suggested, placeholder=field.placeholder, **named)
        return ipywidgets.Text(placeholder=field.placeholder, **named)

    def _boxes(self, entry: str) -> Any:
        chosen = [name.strip() for name in entry.split(",") if name.strip()]
        names = dict.fromkeys([*self.field.only, *chosen])
        self._inputs = [
            ipywidgets.Checkbox(description=name, value=name in chosen, indent=False)
            for name in names
        ]
        label = ipywidgets.HTML(f'<div class="wb-label">{escape(self.label)}</div>')
        boxes = ipywidgets.HBox(self._inputs)
        boxes.add_class("wb-several")
        return ipywidgets.HBox([label, boxes])


class SecretInput(anywidget.AnyWidget):
    """A field that is emptied as soon as it was filled, and sends what it took as a message.

    No widget of ipywidgets can do that: their values are part of the state that JupyterLab may
    store with the notebook.
    """

    _esm = Path(__file__).parent / "secret.js"
    label = traitlets.Unicode().tag(sync=True)
    file = traitlets.Bool().tag(sync=True)
    disabled = traitlets.Bool().tag(sync=True)


class SecretControl:
    """A field for a secret with its note; no widget keeps what it took.

    Args:
        label: what it is.
        file: whether a file with it may be chosen.
        take: is given a text that was typed or pasted, or a file's bytes.
        forget: called by the button.

    Attributes:
        widget: the field.
        note: what is held, help and error, beside it.
    """

    def __init__(
        self,
        label: str,
        file: bool,
        take: Callable[[str | bytes], None],
        forget: Callable[[], None],
    ) -> None:
        self._take = take
        self.input = SecretInput(label=label, file=file)
        self.input.on_msg(self._message)
        self.forget = ipywidgets.Button(description="Forget it")
        self.forget.on_click(lambda _: forget())
        self.widget = ipywidgets.HBox([self.input, self.forget])
        self.note = ipywidgets.HTML()

    def _message(
        self, _: object, content: Mapping[str, Any], buffers: Sequence[memoryview]
    ) -> None:
        self.give(bytes(buffers[0]) if buffers else content["text"])

    def give(self, secret: str | bytes) -> None:
        """Take a text or a file's bytes, as the field does."""
        self._take(secret)

    def show(self, held: str, help: str, error: str, forget: bool) -> None:
        """Show what is held, none of it secret."""
        self.note.value = (
            (f'<div class="wb-error" role="alert">{escape(error)}</div>' if error else "")
            + (f'<div class="wb-held" role="status">{escape(held)}</div>' if held else "")
            + f'<div class="wb-help">{escape(help)}</div>'
        )
        self.forget.layout.display = None if forget else "none"

    def enable(self, on: bool) -> None:
        """Let a person change it, or not."""
        self.input.disabled = self.forget.disabled = not on
