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

from workbench.forms.aside import Aside, Errand
from workbench.forms.cells import put, show, this_cell, views_of
from workbench.forms.controls import control, note_of
from workbench.forms.markup import ENDED, GONE, WAITING, WHEN_SHOWN, alert, details
from workbench.forms.page import Page
from workbench.forms.parameters import ParametersError
from workbench.forms.process import Message, PageProcess
from workbench.forms.secrets import SecretField
from workbench.forms.tensorboard import TensorBoard
from workbench.forms.told import Told
from workbench.progress import duration
from workbench.settings import child_environment

_SECONDS_UNTIL_KILL = 1.0  # a double click on Cancel does not end what tidies up
_MOST_SUGGESTED = 500

_open: dict[str, "Form"] = {}


def open_form(page: type[Page], values: Mapping[str, Any]) -> "Form":
    """Show a page's form in this cell; the one that is there already while its work runs."""
    from IPython.display import display

    there = before = _open.get(page.notebook)
    if there is None or not there.busy:
        there = _open[page.notebook] = Form(page, values)
        there.keep_warm(before)
        there.fill_cells_of(before)
    there.cell = this_cell()[1]
    display(there.widget)
    display({"text/html": ENDED, "text/plain": f"form of {page.notebook}"}, raw=True)
    if page.at_once and there is not before and values.get("target") in (None, False, "local"):
        there.start()
    return there


class NotStartedError(RuntimeError):
    """A result was asked for before there was one; shown in one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class Form:
    """A page as a form, which begins with the values that the parameters cell gives.

    Attributes:
        errors: field -> what is wrong with the entries; under "" what concerns no one field.
        found: look -> the field, and what is wrong with what the entries name, as far as known.
        phase: "idle", "planning", "planned", "running", "cancelling", "cancelled", "done" or
            "failed".
        status: one line beside the buttons.
        told: what the work tells.
        cell: the request that ran the form's cell.
    """

    def __init__(self, page: type[Page], values: Mapping[str, Any]) -> None:
        self.page, self.fields = page, page.fields
        self.cell: dict[str, Any] = {}
        # The last that were right; until then what was given.
        self._asked: Page = page.model_construct(**values)
        self._results: list[Any] = []  # the last one, once there is one
        self._cells: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {}
        self._process: PageProcess | None = None
        self._warm = False
        self._aside = Aside(self._soon)
        self._follower: threading.Thread | None = None
        self._began, self._interrupted = 0.0, 0.0
        self._action, self._report = "", ""
        self.errors: dict[str, str] = {}
        self.found: dict[str, tuple[str, str]] = {}
        self._usual: dict[str, str] = {}
        self.phase, self.status = "idle", page.hint
        self.told = Told()
        self.inputs = {name: control(field, values[name]) for name, field in self.fields.items()}
        self.notes = {name: ipywidgets.HTML() for name in self.fields}
        self.secrets = {each.name: SecretField(each, self._check) for each in page.secrets}
        self.widget = self._laid_out()
        self._check()

    @property
    def busy(self) -> bool:
        """Whether something is being planned or done."""
        return self.phase in ("planning", "running", "cancelling")

    @property
    def result(self) -> Any:
        """What the work left.

        Raises:
            NotStartedError: there is nothing yet.
        """
        if not self._results:
            raise NotStartedError(
                f"Nothing to show yet: press {self.page.start} in the form above, and run this "
                "cell again when its work is done."
            )
        return self._results[0]

    def show(self, view: Callable[[Any], Any]) -> None:
        """Show something of the result in this cell, now or as soon as it is there."""
        from IPython.display import HTML, display

        cell, parent = this_cell()
        self._cells[cell] = parent, view  # a cell that is run again shows once
        if self._results:
            show(view, self.result)
        else:
            display(HTML(WAITING.format(start=self.page.start)))

    # ---- layout --------------------------------------------------------------------------

    def _laid_out(self) -> ipywidgets.VBox:
        css = (Path(__file__).parent / "form.css").read_text()
        self._secret_grid = _with_class(ipywidgets.GridBox(), "wb-grid")
        fields: list[Any] = []
        self.folds: list[tuple[Any, str, Any, list[str]]] = []
        for name, field in self.fields.items():
            if field.section or not fields:
                grid = _with_class(ipywidgets.GridBox(), "wb-grid")
                if field.section:
                    fold = _with_class(ipywidgets.ToggleButton(), "wb-section")
                    fold.observe(lambda _: self._draw(), "value")
                    self.folds.append((fold, field.section, grid, []))
                    fields.append(fold)
                fields.append(grid)
            if self.folds:
                self.folds[-1][-1].append(name)
            grid.children += self._row(name)
        self._plan = _with_class(ipywidgets.Button(description="Plan"), "wb-work")
        self._plan.on_click(lambda _: self.start("plan"))
        self._start = _with_class(_with_class(ipywidgets.Button(), "wb-main"), "wb-work")
        self._start.on_click(lambda _: self.start())
        self._cancel = _with_class(ipywidgets.Button(), "wb-work")
        self._cancel.on_click(lambda _: self.cancel())
        self._status = _with_class(ipywidgets.HTML(), "wb-told")
        self._general, self.command = (ipywidgets.HTML() for _ in range(2))
        bars, failure, shown, log = self.told.widgets
        board = [TensorBoard()] if self.page.tensorboard else []
        buttons = ipywidgets.HBox([self._plan, self._start, *board, self._cancel, self._status])
        actions = [self._general, _with_class(buttons, "wb-actions"), bars, failure]
        when_shown = WHEN_SHOWN.replace("{id}", self._status.model_id)
        style = ipywidgets.HTML(f'<style onload="{when_shown}">{css}</style>')
        parts = [
            style,
            ipywidgets.HTML(GONE),
            self._secret_grid,
            *fields,
            *actions,
            shown,
            log,
            self.command,
        ]
        return _with_class(ipywidgets.VBox(parts), "wb-form")

    def _row(self, name: str) -> tuple[Any, Any]:
        """Return a field's widget, which is heard from now on, and its note."""
        widget = self.inputs[name]
        widget.observe(lambda _: self._check(), "value")
        if isinstance(widget, ipywidgets.Text):
            widget.on_msg(
                lambda _, content, __: self.start() if content.get("event") == "submit" else None
            )
        if self.fields[name].look_up:
            tip = f"ask Azure for what there is ({widget.description})"
            button = ipywidgets.Button(description="Look up", tooltip=tip)
            button.on_click(lambda _: threading.Thread(target=self.look_up, args=(name,)).start())
            widget = ipywidgets.HBox([widget, button])
        return widget, self.notes[name]

    # ---- entries -------------------------------------------------------------------------

    def _check(self) -> None:
        """Check what was entered, and show each error beside its field."""
        before, errors = self._asked, {}
        try:
            entries = {name: each.value for name, each in self.inputs.items()}
            self._asked = self.page.of(entries, typed=False)
        except ParametersError as error:
            errors = error.errors
        if self.phase == "planned" and self._asked != before:
            self.status = "changed since this plan was made"
        self.errors = errors
        for fold, *_, names in self.folds:
            fold.value = fold.value or not errors.keys().isdisjoint(names)
        wanted = self._wanted()
        for secret in wanted:
            secret.show()
        children = tuple(part for each in wanted for part in (each.widget, each.note))
        if children != self._secret_grid.children:
            self._secret_grid.children = children
        self._aside.ask(self._errands())
        self._draw()

    # ---- looks at what the entries name, which never keep anybody waiting ------------------

    def _errands(self) -> dict[str, Errand]:
        asked = self._asked
        errands: dict[str, Errand] = {
            f"choices of {name}": (partial(field.choices, asked), partial(self._suggest, name))
            for name, field in self.fields.items()
            if callable(field.choices)
        }
        for name, secret in self.secrets.items():
            if secret.entry.only(asked):
                errands[name] = partial(secret.entry.found, asked), secret.take_found
        if not self.errors:
            errands["usual"] = asked.usual, self._take_usual
            for name, look in asked.looks().items():
                errands[f"look at {name}"] = look, partial(self._looked, name)
        return errands

    def _suggest(self, name: str, found: Any) -> None:
        if not isinstance(found, Exception):
            self.inputs[name].options = tuple(found)[:_MOST_SUGGESTED]

    def _take_usual(self, found: Any) -> None:
        """Show what empty fields stand for with what is here, such as the phantom's epochs."""
        if not isinstance(found, Exception):
            self._usual = {name: str(value) for name, value in found.items()}
            self._draw()

    def _looked(self, name: str, found: Any) -> None:
        """Show beside a field what a look at its entry has found."""
        self.found.pop(name, None)
        if isinstance(found, TimeoutError):
            slow = f"{name}: no answer yet; the disk or the storage may be slow or away"
            self.found[name] = name, slow
        elif isinstance(found, Exception):
            self.found[name] = getattr(found, "field", name), str(found)
        self._draw()

    def _soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Call something on the kernel's own thread, between two cells; at once without one."""
        from IPython import get_ipython

        kernel = getattr(get_ipython(), "kernel", None)
        kernel.io_loop.add_callback(call, *arguments) if kernel else call(*arguments)

    def look_up(self, name: str) -> None:
        """Ask Azure for a field's choices."""
        ask = self.fields[name].look_up
        assert ask is not None
        self._say(f"asking Azure for {name} ...")
        try:
            found = self.inputs[name].options = tuple(ask(self._asked))
        except Exception as error:
            self._say(f"{name} could not be looked up: {error}")
        else:
            self._say(f"{name}: {', '.join(found) or 'there is none'}")

    def _say(self, status: str) -> None:
        self.status = status
        self._draw()

    # ---- the work ------------------------------------------------------------------------

    def keep_warm(self, before: "Form | None") -> None:
        """Have a process ready from now on, the one of the form before where there is one."""
        self._warm = True
        if before and before._process and before._process.usable:
            self._process, before._process = before._process, None
        self._process = self._process or PageProcess(self.page)

    def fill_cells_of(self, before: "Form | None") -> None:
        """Fill the cells that a form before this one has filled, as if they had asked for it."""
        self._cells |= before._cells if before else {}

    def cancel(self) -> None:
        """Interrupt what is running; asked again, end it at once."""
        again = self.phase == "cancelling"
        if not self.busy or (again and time.monotonic() - self._interrupted < _SECONDS_UNTIL_KILL):
            return
        self._interrupted = time.monotonic()
        self.phase = "cancelling"
        self._say("cancelling: what it has done so far is being kept ...")
        if self._process:
            self._process.cancel()

    def wait(self, seconds: float | None = None) -> None:
        """Wait for the end of what is running."""
        if self._follower:
            self._follower.join(seconds)

    def start(self, action: str = "start") -> None:
        """Do the work, or only "plan" it, as the buttons do."""
        if self.busy or self.errors:
            return
        self._began, self._action = time.monotonic(), action
        self.told.clear()
        self.phase, self.status = "planning", "looking at what there is to do ..."
        self._draw()
        environment = self._environment()
        if not (self._process and self._process.fits(environment)):
            if self._process:
                self._process.close()
            self._process = PageProcess(self.page)
        arguments = self._process, environment
        self._follower = threading.Thread(target=self._do, args=arguments, daemon=True)
        self._follower.start()

    def _do(self, process: PageProcess, environment: Mapping[str, str]) -> None:
        """Ask for the work, and show what it tells, a few times a second; then fill the cells."""
        lacking = [s.entry.label for s in self._wanted() if s.lacks(self._asked)]
        if lacking:
            self.phase = "idle"
            self._say(f"first give {' and '.join(lacking)}")
            return
        if self._action == "start":
            self._empty_cells()
        process.ask(self._action, self._asked.model_dump(), environment)
        for batch in process.batches():
            for message in batch:
                self._take(message)
            self._draw()
        if self._warm and not process.usable and self._process is process:
            self._process = PageProcess(self.page)
        self._aside.ask(self._errands())  # there may be more to choose from
        if self.phase == "done":
            self._fill()

    def _empty_cells(self) -> None:
        """Take the last result out of the cells: it is not that of the work that begins."""
        from IPython.display import HTML

        self._results = []
        for parent, _ in list(self._cells.values()):
            self._soon(put, parent, [HTML(WAITING.format(start=self.page.start))])

    def _wanted(self) -> list[SecretField]:
        """Return the secrets that the work may need, as it is asked for."""
        return [each for each in self.secrets.values() if each.entry.only(self._asked)]

    def _environment(self) -> dict[str, str]:
        """Return the work's variables, with the secrets that it needs and no other."""
        held = {each.entry.name: each.held.reveal() for each in self._wanted() if each.held}
        return child_environment(*self._asked.needs) | held

    def _take(self, message: Message) -> None:
        self.told.take(message)
        match message:
            case {"started": _} if self.phase == "planning":
                self.phase, self.status = "running", "at work"
            case {"result": left}:
                try:
                    result = self._asked.result(left)
                    self._report = self._asked.report(result)
                    self._results = [result]
                except Exception as error:
                    self.told.failure = str(error), traceback.format_exc()
            case {"end": code, "cancelled": cancelled}:
                self._end(code, cancelled)

    def _end(self, code: int, cancelled: bool) -> None:
        start, spent = self.page.start, duration(time.monotonic() - self._began)
        self.told.progress = {}
        if cancelled:
            planned = self._action == "plan"
            rest = "nothing was changed" if planned else self._asked.when_cancelled
            phase, status = "cancelled", f"cancelled after {spent}; {rest}"
        elif self.told.failure or code:
            phase, status = "failed", f"failed after {spent}"
            ended = (
                f"the process ended with exit code {code}: something outside ended it; -9 is what "
                "Linux does where memory runs out"
            )
            self.told.failure = self.told.failure or (ended, "")
        elif self._action == "plan":
            phase, status = "planned", f"nothing was changed; {start} does this"
        else:
            phase, status = "done", f"done in {spent}{self._report}"
        self.phase, self.status = phase, status

    def _fill(self) -> None:
        """Show the result in the cells that wait for it, and keep what was done in the form's.

        Figures are drawn here, beside the kernel's own thread, which answers clicks meanwhile.
        """
        from IPython.display import HTML

        lines = escape("\n".join([self._asked.command(), *self.told.planned, self.status]))
        record = HTML(f'<pre class="wb-record">{lines}</pre>')
        self._soon(put, self.cell, views_of(lambda _: record, None), False)
        cells, results = list(self._cells.values()), self._results
        for number, (parent, view) in enumerate(cells):
            line = f"drawing {number + 1} of {len(cells)}"
            self.told.progress = {"drawing": (number / len(cells), line)}
            self._draw()
            try:
                drawn: Any = list(views_of(view, results[0]))
            except Exception as error:
                drawn = error
            if self._results is not results:  # the next work has begun
                return
            self._soon(put, parent, drawn)
        self.told.progress = {}
        self._draw()

    # ---- what is seen --------------------------------------------------------------------

    def _draw(self) -> None:
        self.told.draw(self.page.start if self.busy else "")
        self._status.value = f'<span class="wb-status" role="status">{escape(self.status)}</span>'
        self._general.value = alert(self.errors.get("", ""))
        self.command.value = details(
            "open", "The same without a browser", self._asked.command(), "wb-command"
        )
        self._cancel.description = "End it at once" if self.phase == "cancelling" else "Cancel"
        self._cancel.layout.display = None if self.busy else "none"
        self._start.description = self.page.start
        self._start.disabled = self.busy or bool(self.errors)
        self._plan.disabled = self.busy or bool(self.errors)
        for fold, title, grid, names in self.folds:
            entries = [(self.inputs[name].value, self.fields[name]) for name in names]
            changed = sum(entry != field.entry(field.default) for entry, field in entries)
            more = f" ({changed} changed)" if changed else ""
            fold.description = f"{'▾' if fold.value else '▸'} {title}{more}"
            grid.layout.display = None if fold.value else "none"
        wrong = dict(self.found.values()) | self.errors
        for name, widget in self.inputs.items():
            error, usual = wrong.get(name, ""), self._usual.get(name, "")
            self.notes[name].value = note_of(self.fields[name], error, usual)
            (widget.add_class if error else widget.remove_class)("wb-wrong")
            if hasattr(widget, "placeholder"):
                widget.placeholder = usual or self.fields[name].placeholder
            widget.disabled = self.busy
        for secret in self.secrets.values():
            secret.enable(not self.busy)


def _with_class(widget: Any, name: str) -> Any:
    widget.add_class(name)
    return widget
