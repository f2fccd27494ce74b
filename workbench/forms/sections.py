"""Cells that show a result later: each keeps its own output area until the result is there."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from workbench.forms.page import display_of

WAITING = (
    '<p style="color: var(--jp-ui-font-color2); font-style: italic">'
    "This cell fills when the form above has done its work: press <b>{start}</b> there. Where the "
    "page was reloaded meanwhile, run this cell again.</p>"
)


class NotStartedError(RuntimeError):
    """A result was asked for before there was one; shown in one line, without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


@dataclass(frozen=True)
class Section:
    """A cell that shows something of the result.

    Attributes:
        cell: the cell's id; a cell that is run again takes the place of what it asked for before.
        parent: the request that ran it, which says where its output goes.
        view: shows it.
    """

    cell: str
    parent: dict[str, Any]
    view: Callable[[Any], Any]

    def fill(self, result: Any) -> None:
        """Show it in the place of whatever the cell showed; its error, if it has one, too."""
        from IPython import get_ipython
        from IPython.display import clear_output

        shell = get_ipython()
        with output_of(self.parent):
            clear_output()
            try:
                display_of(self.view, result)
            except Exception:
                if shell is None:
                    raise
                shell.showtraceback()


def this_cell() -> tuple[str, dict[str, Any]]:
    """Return the id of the cell that is being run, and the request that runs it."""
    from IPython import get_ipython

    shell = get_ipython()
    parent = dict(shell.get_parent()) if hasattr(shell, "get_parent") else {}
    cell = str((parent.get("metadata") or {}).get("cellId") or parent.get("msg_id") or "")
    return cell, parent


@contextmanager
def output_of(parent: dict[str, Any]) -> Iterator[None]:
    """Have what is displayed or printed meanwhile go to the cell that a request ran."""
    from IPython import get_ipython

    shell = get_ipython()
    if not parent or not hasattr(shell, "set_parent"):
        yield
        return
    before = shell.get_parent()
    shell.set_parent(parent)
    try:
        yield
    finally:
        shell.set_parent(before)


def on_main_thread(work: Callable[[], None]) -> None:
    """Do something between two cells on the kernel's own thread; at once where there is none."""
    from IPython import get_ipython

    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None:
        work()
    else:
        kernel.io_loop.add_callback(work)
