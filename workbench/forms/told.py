"""What a form shows of its work: the plan, figures and tables, how far it is, lines, an error."""

import re
from html import escape

import ipywidgets

from workbench.forms.markup import alert, details
from workbench.forms.process import Message

_LINES_KEPT = 400


class Told:
    """What the work has told since it was started.

    Attributes:
        planned: lines of the plan.
        log: lines that the work printed.
        outputs: name -> what the work displayed.
        failure: message and traceback of an error.
        progress: title -> share and line.
        widgets: above each other, as ``draw`` fills them.
    """

    def __init__(self) -> None:
        self._bars, self._failure, self._log = (ipywidgets.HTML() for _ in range(3))
        self._shown = ipywidgets.VBox()
        self.widgets = self._bars, self._failure, self._shown, self._log
        self.clear()

    def clear(self) -> None:
        """Forget all of it."""
        self.planned: list[str] = []
        self.log: list[str] = []
        self.outputs: dict[str, ipywidgets.HTML] = {}
        self.failure: tuple[str, str] | None = None
        self.progress: dict[str, tuple[float | None, str]] = {}

    def take(self, message: Message) -> None:
        """Take one message of the work; those that say how it goes on are for the form alone."""
        match message:
            case {"planned": line}:
                self.planned.append(line)
                text = escape("\n".join(self.planned))
                self._output("plan", f"<pre>{text}</pre>")
            case {"display": "image/png", "data": data, "name": name, "told": told}:
                from workbench.views.style import html_of

                self._output(name, html_of(data, **told | {"alt": name or told["alt"]}))
            case {"display": kind, "data": data, "name": name}:
                # HTML is the package's own tables, escaped where they are made.
                self._output(name, data if kind == "text/html" else f"<pre>{escape(data)}</pre>")
            case {"progress": title, "share": share, "line": line}:
                self.progress[title] = share, line
            case {"line": line}:
                self.log = [*self.log, line][-_LINES_KEPT:]
            case {"error": text, "trace": trace}:
                self.failure = text, trace
            case {"interrupted": _}:
                self.failure = None

    def _output(self, name: str, html: str) -> None:
        """Show something; what has a name may change, and stands above what the plan showed."""
        name = name or f"output {len(self.outputs)}"
        if name not in self.outputs:
            self.outputs[name] = ipywidgets.HTML()
            lasting = re.compile(r"plan|output \d+")
            live = {n: html for n, html in self.outputs.items() if not lasting.fullmatch(n)}
            self.outputs = live | self.outputs
        self.outputs[name].value = html

    def draw(self, busy: str) -> None:
        """Fill the widgets; ``busy`` is the title of work that goes on, until it says how far."""
        running = {busy: (None, "")} if busy else {}
        self._bars.value = "".join(
            f'<div class="wb-progress"><progress max="1" aria-label="{escape(title)}"'
            + ("" if share is None else f' value="{share:.4f}"')
            + f"></progress> {escape(line)}</div>"
            for title, (share, line) in list((self.progress or running).items())
        )
        text, trace = self.failure or ("", "")
        self._failure.value = alert(text, "wb-failure") + details(
            "", "Details for programmers", trace, ""
        )
        self._shown.children = list(self.outputs.values())
        self._log.value = details("open", "What it prints", "\n".join(self.log), "wb-lines")
