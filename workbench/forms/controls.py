"""The widget of a form's field, and what stands beside it."""

from html import escape
from typing import Any

import ipywidgets
import traitlets

from workbench.forms.markup import alert
from workbench.forms.parameters import FormField


class Several(ipywidgets.HBox):
    """Check boxes; the value is what is chosen, with commas between."""

    value = traitlets.Unicode()
    disabled = traitlets.Bool()

    def __init__(self, label: str, names: tuple[str, ...], value: str) -> None:
        chosen = [name.strip() for name in value.split(",") if name.strip()]
        self.boxes = [
            ipywidgets.Checkbox(description=name, value=name in chosen, indent=False)
            for name in dict.fromkeys([*names, *chosen])
        ]
        for box in self.boxes:
            box.observe(self._changed, "value")
            traitlets.dlink((self, "disabled"), (box, "disabled"))
        boxes = ipywidgets.HBox(self.boxes)
        boxes.add_class("wb-several")
        title = ipywidgets.HTML(f'<div class="wb-label">{escape(label)}</div>')
        super().__init__([title, boxes], value=", ".join(chosen))

    def _changed(self, _: Any) -> None:
        self.value = ", ".join(box.description for box in self.boxes if box.value)


def label_of(field: FormField) -> str:
    """Return what the form calls a parameter."""
    return field.label or field.name.replace("_", " ")


def control(field: FormField, value: Any) -> Any:
    """Return a parameter's widget, with a value; its own value is the entry: a text, or on or off.

    Args:
        field: the parameter.
        value: of it; a wrong one is shown too, for its error is about it.
    """
    entry = field.entry(value)
    if field.several:
        return Several(label_of(field), field.only, str(entry))
    named = {
        "description": label_of(field),
        "style": {"description_width": "11rem"},
        "value": entry,
    }
    if isinstance(entry, bool):
        return ipywidgets.Checkbox(**named)
    if only := ("True", "False") if field.kind is bool else field.only:
        options = [(each, each) for each in dict.fromkeys([*only, entry]) if each]
        if field.optional or field.default == "" or not entry:
            options.insert(0, (field.placeholder or "–", ""))
        return ipywidgets.Dropdown(options=options, **named)
    if callable(field.choices) or field.look_up:
        return ipywidgets.Combobox(placeholder=field.placeholder, **named)
    return ipywidgets.Text(placeholder=field.placeholder, **named)


def note_of(field: FormField, error: str = "", usual: str = "") -> str:
    """Write a parameter's unit and help, and what is wrong with the entry, as HTML.

    ``usual`` is what an empty field stands for, where that is not what the help says.
    """
    unit = f"<b>{escape(field.unit)}</b> · " if field.unit else ""
    return f'{alert(error)}<div class="wb-help">{unit}{escape(field.explanation(usual))}</div>'
