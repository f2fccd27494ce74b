"""The form as the browser has it: one widget, drawn by ``form.js`` in ``form.css``."""

from pathlib import Path
from typing import Any

import anywidget
import traitlets

_HERE = Path(__file__).parent


class FormWidget(anywidget.AnyWidget):
    """Fields, buttons, and what the work shows.

    Entries come back as ``values``. Buttons and secrets come as messages, which are kept nowhere:
    what is typed into a secret's field is in no trait, so that no saved notebook can hold it.
    """

    _esm = _HERE / "form.js"
    _css = _HERE / "form.css"

    title = traitlets.Unicode().tag(sync=True)
    groups: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    choices = traitlets.Dict().tag(sync=True)
    values = traitlets.Dict().tag(sync=True)
    errors = traitlets.Dict().tag(sync=True)
    secrets: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    start = traitlets.Unicode("Start").tag(sync=True)
    phase = traitlets.Unicode("idle").tag(sync=True)
    status = traitlets.Unicode().tag(sync=True)
    progress: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    outputs: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    log: "traitlets.List[Any]" = traitlets.List().tag(sync=True)
    failure = traitlets.Dict().tag(sync=True)
    command = traitlets.Unicode().tag(sync=True)
    tensorboard = traitlets.Dict().tag(sync=True)
