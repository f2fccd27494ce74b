"""The cells that a form fills: what is shown for a result goes to the cell that asked for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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


def bundle_of(each: Any) -> Any:
    """Return what IPython would display of a thing, drawn now.

    A text stays as it is, and so does what displays itself: it has to in the cell that it is for.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if isinstance(each, dict):
        return each, {}
    if shell is None or isinstance(each, str) or hasattr(each, "_ipython_display_"):
        return each
    return shell.display_formatter.format(each)


def put(parent: dict[str, Any], drawn: Any, anew: bool = True) -> None:
    """Show texts and bundles, or an exception, in the cell that a request ran."""
    from IPython import get_ipython
    from IPython.display import clear_output, display

    shell = get_ipython()
    with output_of(parent):
        if anew:
            clear_output()
        if isinstance(drawn, Exception):
            if shell is None:
                raise drawn
            shell.showtraceback((type(drawn), drawn, drawn.__traceback__))
            return
        for each in drawn:
            if isinstance(each, tuple):
                display(each[0], metadata=each[1], raw=True)
            else:
                print(each) if isinstance(each, str) else display(each)
