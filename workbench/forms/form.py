"""A page's form at work: it checks entries, starts and cancels the work, and fills the cells."""

import threading
import time
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets

from workbench.forms.controls import Control, SecretControl
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
from workbench.progress import duration

SECONDS_BETWEEN_DRAWINGS = 0.2
_SECONDS_UNTIL_CANCEL = 0.7  # a double click on Start cancels nothing
_LINES_KEPT = 400
_BUSY = ("planning", "running", "cancelling")

# A notebook that is opened without its kernel has no form, only the line "model not found" in its
# place. Style alone hides that line and shows this, with what the form did; where there is a form
# it is the other way round.
_ENDED = """<style>
.jp-OutputArea-child:has(+ .jp-OutputArea-child .wb-record):not(:has(.wb-form, .wb-record)),
.jp-OutputArea:has(.wb-form) > .jp-OutputArea-child:has(.wb-record) {
  display: none;
}
</style><p class="wb-record">The form ended with its kernel: run the notebook again for a new one.
What it did is kept here.</p>"""

# JupyterLab's keys (D D, arrows) are for cells, not for what has the focus in a form.
_KEEP_KEYS = (
    "this.closest('.wb-form').onkeydown = (event) => {"
    " if (!(event.ctrlKey || event.metaKey) || event.key === 'Enter') event.stopPropagation(); }"
)

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

    Attributes:
        controls: the fields by their names.
        errors: field -> what is wrong; under "" what concerns no one field.
        phase: "idle", "planning", "planned", "running", "cancelling", "cancelled", "done" or
            "failed".
        status: one line beside the buttons.
        outputs: name -> kind and data of what the work displayed.
        log: the last lines that the work printed.
        failure: message and traceback of an error.
        progress: title -> share and line.
        widget: all of it.
    """

    def __init__(self, page: Page, values: Mapping[str, Any]) -> None:
        self.page = page
        self.cell: dict[str, Any] = {}
        # The last that were right; until then what was given.
        self._parameters: Parameters = page.parameters.model_construct(**values)
        self._result: Any = None
        self._there = False
        self._sections: dict[str, Section] = {}
        self._process: PageProcess | None = None
        self._began = 0.0
        self._drawing: threading.Timer | None = None
        self._lock = threading.Lock()
        self._board = TensorBoard()
        self._secrets = SecretFields(page.secrets)
        self.errors: dict[str, str] = {}
        self.phase, self.status = "idle", page.hint
        self.outputs: dict[str, tuple[str, str]] = {}
        self.log: list[str] = []
        self.failure: dict[str, str] = {}
        self.progress: dict[str, tuple[float | None, str]] = {}
        self.controls = {
            name: Control(field, values[name], self._check, self.look_up)
            for name, field in page.parameters.fields().items()
        }
        self.secrets = {
            entry.name: SecretControl(
                entry.label,
                entry.file,
                partial(self.take, entry.name),
                partial(self.forget, entry.name),
            )
            for entry in page.secrets
        }
        self.widget = self._laid_out()
        self._check()

    @property
    def busy(self) -> bool:
        """Whether something is being planned or done."""
        return self.phase in _BUSY

    @property
    def result(self) -> Any:
        """What the work left."""
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

    # ---- layout --------------------------------------------------------------------------

    def _laid_out(self) -> ipywidgets.VBox:
        css = (Path(__file__).parent / "form.css").read_text()
        parts: list[Any] = [ipywidgets.HTML(f'<style onload="{_KEEP_KEYS}">{css}</style>')]
        self._secret_grid = _grid([])
        parts.append(self._secret_grid)
        self._folded: list[tuple[Any, str, list[Control]]] = []
        group: list[Control] = []
        title = ""
        for control in [*self.controls.values(), None]:
            if control is None or control.field.section:
                parts += self._section(title, group)
                title, group = control.field.section if control else "", []
            if control:
                group.append(control)
                control.on_enter(self.start)
        self._plan = ipywidgets.Button(description="Plan")
        self._plan.on_click(lambda _: self.plan())
        self._start = ipywidgets.Button(description=self.page.start)
        self._start.add_class("wb-main")
        self._start.on_click(lambda _: self._press())
        buttons = [self._plan, self._start]
        if self.page.tensorboard:
            board = ipywidgets.Button(description="TensorBoard")
            board.on_click(lambda _: self._board.toggle(self._show_board))
            self._board_button, self._board_link = board, ipywidgets.HTML()
            buttons += [board, self._board_link]
        self._status, self._general, self._command = (ipywidgets.HTML() for _ in range(3))
        self._bars, self._failure, self._log = (ipywidgets.HTML() for _ in range(3))
        self._shown = ipywidgets.VBox()
        actions = ipywidgets.HBox([*buttons, self._status])
        actions.add_class("wb-actions")
        parts += [self._general, actions, self._bars, self._failure, self._shown]
        parts += [self._log, self._command]
        form = ipywidgets.VBox(parts)
        form.add_class("wb-form")
        return form

    def _section(self, title: str, group: list[Control]) -> list[Any]:
        grid = _grid([part for each in group for part in (each.widget, each.note)])
        if not title:
            return [grid]
        fold = ipywidgets.ToggleButton(description=f"▸ {title}")
        fold.add_class("wb-section")

        def unfold(_: Any) -> None:
            grid.layout.display = None if fold.value else "none"
            self._name_sections()

        fold.observe(unfold, "value")
        grid.layout.display = "none"
        self._folded.append((fold, title, group))
        return [fold, grid]

    def _name_sections(self) -> None:
        for fold, title, group in self._folded:
            changed = sum(each.changed for each in group)
            mark = "▾" if fold.value else "▸"
            fold.description = f"{mark} {title}" + (f" ({changed} changed)" if changed else "")

    # ---- entries -------------------------------------------------------------------------

    def _check(self) -> None:
        """Check what was entered, and show each error beside its field."""
        before, errors = self._parameters, {}
        values = {name: each.field.read(each.entry) for name, each in self.controls.items()}
        try:
            self._parameters = self.page.parameters.of(values)
        except ParametersError as error:
            errors = error.errors
        if self.phase == "planned" and self._parameters != before:
            self.status = "changed since this plan was made"
        for name in errors.keys() | self.errors.keys():
            if name in self.controls:
                self.controls[name].show(errors.get(name, ""))
        self.errors = errors
        for fold, _, group in self._folded:
            if any(each.field.name in errors for each in group):
                fold.value = True
        self._name_sections()
        self._show_secrets()
        self._show_state()

    def _show_secrets(self) -> None:
        wanted = []
        for each in self._secrets.shown(self._parameters):
            control = self.secrets[each["name"]]
            control.show(each["held"], each["help"], each["error"], each["forget"])
            if each["wanted"]:
                wanted += [control.widget, control.note]
        if tuple(wanted) != self._secret_grid.children:
            self._secret_grid.children = wanted

    def take(self, name: str, text: str | bytes) -> None:
        """Take a secret that was typed, or a file's bytes."""
        self._secrets.take(name, text)
        self._check()

    def forget(self, name: str) -> None:
        """Drop a secret."""
        self._secrets.forget(name)
        self._check()

    def look_up(self, name: str) -> None:
        """Ask Azure for a field's choices, on a thread."""
        threading.Thread(target=self._look_up, args=(name,)).start()

    def _look_up(self, name: str) -> None:
        ask = self.controls[name].field.look_up
        assert ask is not None
        self._say(f"asking Azure for {name} ...")
        try:
            found = list(ask(self._parameters))
        except Exception as error:
            self._say(f"{name} could not be looked up: {error}")
            return
        self.controls[name].suggest(found)
        self._say(f"{name}: {', '.join(found) or 'there is none'}")

    def _say(self, status: str) -> None:
        self.status = status
        self._show_state()

    # ---- the work ------------------------------------------------------------------------

    def _press(self) -> None:
        """Start, or cancel what runs: the focus stays on one button."""
        if not self.busy:
            self.start()
        elif time.monotonic() - self._began > _SECONDS_UNTIL_CANCEL:
            self.cancel()

    def plan(self) -> None:
        """Show what would be done, as the button does."""
        self._begin("plan")

    def start(self) -> None:
        """Do it, as the button does."""
        self._begin("start")

    def cancel(self) -> None:
        """Interrupt what is running; asked again, end it at once."""
        if self._process and self.busy:
            self.phase = "cancelling"
            self._say("cancelling: what it has done so far is being kept ...")
            self._process.cancel()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end of what is running."""
        if self._process:
            self._process.wait(seconds)

    def _begin(self, action: str) -> None:
        if self.busy or self.errors:
            return
        if lacking := self._secrets.lacking(self._parameters):
            self._say(f"first give {lacking}")
            return
        self._began = time.monotonic()
        self.outputs, self.log, self.progress, self.failure = {}, [], {}, {}
        self.phase, self.status = "planning", "looking at what there is to do ..."
        self._draw()
        request = {
            "page": self.page.address,
            "action": action,
            "values": self._parameters.model_dump(),
            "secrets": self._secrets.variables(self._parameters),
        }
        needs = self._secrets.needs(self._parameters)
        self._process = PageProcess(request, self._receive, needs)

    def _receive(self, message: Message) -> None:
        """Take a message of the process, on one of its threads."""
        with self._lock:
            self._take(message)
            if self._drawing is None and "end" not in message:
                self._drawing = threading.Timer(SECONDS_BETWEEN_DRAWINGS, self._draw)
                self._drawing.daemon = True
                self._drawing.start()
        if "end" in message:
            self._ended(message)

    def _take(self, message: Message) -> None:
        if "planned" in message:
            before = self.outputs.get("plan", ("", ""))[1]
            text = f"{before}\n{message['planned']}" if before else message["planned"]
            self.outputs["plan"] = ("text/plain", text)
        elif "display" in message:
            name = message["name"] or f"output {len(self.outputs)}"
            self.outputs[name] = (message["display"], message["data"])
        elif "progress" in message:
            self.progress[message["progress"]] = (message["share"], message["line"])
        elif "line" in message:
            self.log = [*self.log, message["line"]][-_LINES_KEPT:]
        elif "started" in message and self.phase == "planning":
            self.phase, self.status = "running", "at work"
        elif "error" in message:
            self.failure = {"message": message["error"], "trace": message["trace"]}
        elif "interrupted" in message:
            self.failure = {}
        elif "result" in message:
            try:
                self._result = self.page.open(message["result"], self._parameters)
                self._there = True
            except (OSError, ValueError) as error:
                self.failure = {"message": str(error), "trace": traceback.format_exc()}

    def _ended(self, end: Message) -> None:
        planned, start = self.phase == "planning", self.page.start
        spent = duration(time.monotonic() - self._began)
        self.progress = {}
        if end["cancelled"]:
            phase, status = "cancelled", f"cancelled after {spent}; {start} goes on from there"
        elif self.failure or end["end"]:
            phase, status = "failed", f"failed after {spent}"
            self.failure = self.failure or {
                "message": f"the process ended with exit code {end['end']}: something outside "
                "ended it; -9 is what Linux does where memory runs out",
                "trace": "",
            }
        elif planned:
            phase, status = "planned", f"nothing was changed; {start} does this"
        else:
            phase, status = "done", f"done in {spent}{self.page.report(self._result)}"
        self.phase, self.status = phase, status
        self._draw()
        if phase == "done":
            on_main_thread(self._fill)

    def _fill(self) -> None:
        """Show the result in the cells that wait for it, and keep what was done in the form's."""
        from IPython.display import HTML, display

        plan = self.outputs.get("plan", ("", ""))[1]
        lines = escape("\n".join([self._parameters.command(), plan, self.status]))
        with output_of(self.cell):
            display(HTML(f'<pre class="wb-record">{lines}</pre>'))
        for section in list(self._sections.values()):
            section.fill(self._result)

    # ---- what is seen --------------------------------------------------------------------

    def _draw(self) -> None:
        """Show what the work shows: a few times a second, however much it tells."""
        with self._lock:
            self._drawing = None
            self._bars.value = "".join(
                f'<div class="wb-progress"><progress max="1" aria-label="{escape(title)}"'
                + ("" if share is None else f' value="{share:.4f}"')
                + f"></progress> {escape(line)}</div>"
                for title, (share, line) in self.progress.items()
            )
            lines = escape("\n".join(self.log))
            self._log.value = lines and (
                "<details open><summary>What it prints</summary>"
                f'<div class="wb-lines" tabindex="0"><pre>{lines}</pre></div></details>'
            )
            self._failure.value = _failure(**self.failure) if self.failure else ""
            self._draw_outputs()
        self._show_state()

    def _draw_outputs(self) -> None:
        shown = list(self._shown.children)[: len(self.outputs)]
        shown += [ipywidgets.HTML() for _ in range(len(self.outputs) - len(shown))]
        for place, (name, (kind, data)) in zip(shown, self.outputs.items(), strict=True):
            place.value = _output(name, kind, data)
        if len(shown) != len(self._shown.children):
            self._shown.children = shown

    def _show_state(self) -> None:
        self._status.value = f'<span class="wb-status" role="status">{escape(self.status)}</span>'
        general = escape(self.errors.get("", ""))
        self._general.value = general and f'<div class="wb-error" role="alert">{general}</div>'
        command = escape(self._parameters.command())
        self._command.value = (
            '<details open class="wb-command"><summary>The same without a browser</summary>'
            f'<pre tabindex="0" aria-label="the command">{command}</pre></details>'
        )
        name = "End it at once" if self.phase == "cancelling" else "Cancel"
        self._start.description = name if self.busy else self.page.start
        self._start.disabled = not self.busy and bool(self.errors)
        self._plan.disabled = self.busy or bool(self.errors)
        for control in self.controls.values():
            control.enable(not self.busy)
        for secret in self.secrets.values():
            secret.enable(not self.busy)

    def _show_board(self, state: Mapping[str, Any]) -> None:
        url, note = state.get("url"), state.get("note", "")
        self._board_button.description = "Stop TensorBoard" if url or note else "TensorBoard"
        link = f'<a href="{url}" target="_blank" rel="noopener">open TensorBoard</a>'
        self._board_link.value = link if url else f'<span class="wb-note">{escape(note)}</span>'


def _grid(children: list[Any]) -> ipywidgets.GridBox:
    grid = ipywidgets.GridBox(children)
    grid.add_class("wb-grid")
    return grid


def _output(name: str, kind: str, data: str) -> str:
    if kind == "image/png":
        return f'<img src="data:image/png;base64,{data}" alt="{escape(name)}">'
    # HTML is the package's own tables, escaped where they are made.
    return data if kind == "text/html" else f"<pre>{escape(data)}</pre>"


def _failure(message: str, trace: str) -> str:
    return f'<div class="wb-failure" role="alert">{escape(message)}</div>' + (
        f"<details><summary>Details for programmers</summary><pre>{escape(trace)}</pre></details>"
        if trace
        else ""
    )
