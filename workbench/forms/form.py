"""A page's form at work: it checks entries, starts and cancels the work, and fills the cells."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from workbench.forms.layout import choices_of, layout_of
from workbench.forms.page import Page, display_of
from workbench.forms.parameters import Parameters, ParametersError
from workbench.forms.process import Message, PageProcess
from workbench.forms.secrets import SecretFields
from workbench.forms.sections import (
    WAITING,
    NotStartedError,
    Section,
    on_main_thread,
    output_of,
    this_cell,
)
from workbench.forms.tensorboard import TensorBoard
from workbench.forms.widget import FormWidget
from workbench.progress import duration

SECONDS_BETWEEN_DRAWINGS = 0.2
_LINES_KEPT = 400
_BUSY = ("planning", "running", "cancelling")

# A notebook that is opened without its kernel has no form, only the line "model not found" in its
# place. By style alone, since nothing else in a stored notebook runs, that line is hidden and this
# is seen, with what the form did; where there is a form it is the other way round.
_ENDED = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .wb-record):not(:has(.wb-form, .wb-record)),
.jp-OutputArea:has(.wb-form) > .jp-OutputArea-child:has(.wb-record) {
  display: none;
}
</style><p class="wb-record">The form ended with its kernel: run the notebook again for a new one.
What it did is kept here.</p>"""

_open: dict[str, "FormPage"] = {}


def open_form(page: Page, values: Mapping[str, Any]) -> "FormPage":
    """Show a page's form in this cell; the one that is there already while its work runs."""
    from IPython.display import display

    notebook = page.parameters.notebook
    there = _open.get(notebook)
    if there is None or not there.busy:
        there = _open[notebook] = FormPage(page, values)
    there.cell = this_cell()[1]
    display(there.widget)
    display({"text/html": _ENDED, "text/plain": f"form of {notebook}"}, raw=True)
    return there


class FormPage:
    """A page as a form.

    Args:
        page: the page.
        values: what the parameters cell gives them.
    """

    def __init__(self, page: Page, values: Mapping[str, Any]) -> None:
        self.page, self._fields = page, page.parameters.fields()
        self.cell: dict[str, Any] = {}
        # The last that did; until then what was given.
        self._parameters: Parameters = page.parameters.model_construct(**values)
        self._result: Any = None
        self._there = False
        self._sections: dict[str, Section] = {}
        self._process: PageProcess | None = None
        self._began = 0.0
        self._drawing: threading.Timer | None = None
        self._failed: dict[str, str] = {}
        self._shown: dict[str, list[Any]] = {"outputs": [], "log": []}
        self._progress: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self._board = TensorBoard()
        self._secrets = SecretFields(page.secrets)
        self.widget = FormWidget(
            title=f"{page.parameters.notebook} form",
            groups=layout_of(page),
            choices=choices_of(page),
            values={name: each.entry(values[name]) for name, each in self._fields.items()},
            start=page.start,
            status=page.hint,
            tensorboard={"offered": page.tensorboard},
        )
        self.widget.observe(lambda _: self._check(), "values")
        self.widget.on_msg(self._message)
        self._check()

    @property
    def busy(self) -> bool:
        """Whether something is being planned or done."""
        return self.widget.phase in _BUSY

    @property
    def result(self) -> Any:
        """What the work returned."""
        if not self._there:
            raise NotStartedError(
                f"Nothing to show yet: press {self.page.start} in the form above, and run this "
                "cell again when its work is done."
            )
        return self._result

    def show(self, view: Callable[[Any], Any]) -> None:
        """Show something of the result in this cell, now or as soon as it is there."""
        from IPython.display import HTML, display

        cell, parent = this_cell()
        self._sections[cell] = Section(cell, parent, view)
        if self._there:
            display_of(view, self._result)
        else:
            display(HTML(WAITING.format(start=self.page.start)))

    # ---- entries -------------------------------------------------------------------------

    def _check(self) -> None:
        entries, before, errors = self.widget.values, self._parameters, {}
        values = {name: each.read(entries[name]) for name, each in self._fields.items()}
        try:
            self._parameters = self.page.parameters.of(values)
        except ParametersError as error:
            errors = error.errors
        if self.widget.phase == "planned" and self._parameters != before:
            self.widget.status = "changed since this plan was made"
        self.widget.errors = errors
        self.widget.secrets = self._secrets.shown(self._parameters)
        self.widget.command = self._parameters.command()

    def _message(
        self, _: object, content: Mapping[str, Any], buffers: Sequence[memoryview]
    ) -> None:
        """Take what a button or a secret's field sends."""
        if "secret" in content:
            self._secrets.take(content["secret"], content.get("text") or bytes(buffers[0]))
            self._check()
        elif "forget" in content:
            self._secrets.forget(content["forget"])
            self._check()
        elif content.get("action") == "cancel":
            self.cancel()
        elif content.get("action") == "tensorboard":
            self._board.toggle(lambda state: setattr(self.widget, "tensorboard", state))
        elif not self.busy:
            self.widget.values = content["values"]
            if "look_up" in content:
                threading.Thread(target=self._look_up, args=(content["look_up"],)).start()
            else:
                self._begin(content["action"])

    def _look_up(self, name: str) -> None:
        ask = self._fields[name].look_up
        assert ask is not None
        self.widget.status = f"asking Azure for {name} ..."
        try:
            found = list(ask(self._parameters))
        except Exception as error:
            self.widget.status = f"{name} could not be looked up: {error}"
            return
        self.widget.choices = {**self.widget.choices, name: found}
        self.widget.status = f"{name}: {', '.join(found) or 'there is none'}"

    # ---- the work ------------------------------------------------------------------------

    def plan(self) -> None:
        """Show what would be done, as the button does."""
        self._begin("plan")

    def start(self) -> None:
        """Do it, as the button does."""
        self._begin("start")

    def cancel(self) -> None:
        """Interrupt what is running; asked again, end it at once."""
        if self._process and self.busy:
            self.widget.phase = "cancelling"
            self.widget.status = "cancelling: what it has done so far is being kept ..."
            self._process.cancel()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end of what is running."""
        if self._process:
            self._process.wait(seconds)

    def _begin(self, action: str) -> None:
        if self.busy or self.widget.errors:
            return
        lacking = self._secrets.lacking(self._parameters)
        if lacking:
            self.widget.status = f"first give {lacking}"
            return
        self._began = time.monotonic()
        self._shown = {"outputs": [], "log": []}
        self._progress = {}
        self._failed = {}
        widget = self.widget
        with widget.hold_sync():
            widget.failure, widget.outputs, widget.log, widget.progress = {}, [], [], []
            widget.phase = "planning"
            widget.status = "looking at what there is to do ..."
        request = {
            "page": self.page.address,
            "action": action,
            "values": self._parameters.model_dump(),
            "secrets": self._secrets.variables(self._parameters),
        }
        self._process = PageProcess(request, self._receive, self._secrets.needs(self._parameters))

    def _receive(self, message: Message) -> None:
        """Take a message of the process, on one of its threads."""
        with self._lock:
            self._take(message)
            if self._drawing is None and "end" not in message:
                self._drawing = threading.Timer(SECONDS_BETWEEN_DRAWINGS, self._draw)
                self._drawing.daemon = True
                self._drawing.start()
        if "end" in message:
            self._progress = {}
            self._draw()
            self._ended(message)

    def _take(self, message: Message) -> None:
        if "planned" in message:
            self._show("text/plain", message["planned"], "plan", more=True)
        elif "display" in message:
            self._show(message["display"], message["data"], message["name"])
        elif "progress" in message:
            title = message["progress"]
            self._progress[title] = {"title": title, **message}
        elif "line" in message:
            self._shown["log"] = [*self._shown["log"], message["line"]][-_LINES_KEPT:]
        elif "started" in message and self.widget.phase == "planning":
            self.widget.phase = "running"
            self.widget.status = "at work"
        elif "error" in message:
            self._failed = {"message": message["error"], "trace": message["trace"]}
        elif "interrupted" in message:
            self._failed = {}
        elif "result" in message:
            self._result = self.page.open(message["result"], self._parameters)
            self._there = True

    def _show(self, kind: str, data: str, name: str, *, more: bool = False) -> None:
        outputs = self._shown["outputs"]
        for place, output in enumerate(outputs):
            if name and output["name"] == name:
                data = f"{output['data']}\n{data}" if more else data
                outputs[place] = {"kind": kind, "data": data, "name": name}
                return
        outputs.append({"kind": kind, "data": data, "name": name})

    def _draw(self) -> None:
        """Bring the widget up to date: a few times a second, however much the work tells."""
        with self._lock, self.widget.hold_sync():
            self._drawing = None
            self.widget.outputs = list(self._shown["outputs"])
            self.widget.log = list(self._shown["log"])
            self.widget.progress = list(self._progress.values())

    def _ended(self, end: Message) -> None:
        widget, planned = self.widget, self.widget.phase == "planning"
        spent = duration(time.monotonic() - self._began)
        with widget.hold_sync():
            if end["cancelled"]:
                widget.phase = "cancelled"
                widget.status = f"cancelled after {spent}; {self.page.start} goes on from there"
            elif self._failed or end["end"]:
                widget.phase, widget.status = "failed", f"failed after {spent}"
                widget.failure = self._failed or {
                    "message": f"the process ended with exit code {end['end']}: something outside "
                    "ended it; -9 is what Linux does where memory runs out"
                }
            elif planned:
                widget.phase = "planned"
                widget.status = f"nothing was changed; {self.page.start} does this"
            else:
                widget.phase = "done"
                widget.status = f"done in {spent}{self.page.report(self._result)}"
        if widget.phase == "done":
            on_main_thread(self._fill)

    def _fill(self) -> None:
        """Show the result in the cells that wait for it, and keep what was done in the form's."""
        from IPython.display import HTML, display

        plan = [o["data"] for o in self._shown["outputs"] if o["name"] == "plan"]
        lines = escape("\n".join([self.widget.command, *plan, self.widget.status]))
        with output_of(self.cell):
            display(HTML(f'<pre class="wb-record">{lines}</pre>'))
        for section in list(self._sections.values()):
            section.fill(self._result)
