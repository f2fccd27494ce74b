"""What views show of a result, in the cell that asked for it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from workbench.forms.executed import Executed


def this_cell() -> tuple[str, dict[str, Any]]:
    """Return the id of the cell that is being run, and the request that runs it."""
    from IPython import get_ipython

    shell = get_ipython()
    parent = dict(shell.get_parent()) if hasattr(shell, "get_parent") else {}
    cell = str((parent.get("metadata") or {}).get("cellId") or parent.get("msg_id") or "")
    return cell, parent


def views_of(view: Callable[[Any], Any], result: Any) -> Iterator[Any]:
    """Yield what a view of a result returns, or each thing that it yields, as ``put`` shows it.

    Of a notebook that was executed elsewhere it is what the view's cell showed there.
    """
    found = result.outputs(view) if isinstance(result, Executed) else view(result)
    for each in found if isinstance(found, Iterator) else [found]:
        if each is not None:
            yield _bundle_of(each)


def _bundle_of(each: Any) -> Any:
    """Return what IPython would display of a thing, drawn now; a dict is MIME data.

    A text stays as it is, and so does what displays itself: it has to in the cell that it is for.
    """
    from IPython import get_ipython

    shell = get_ipython()
    if isinstance(each, dict):
        return each, {}
    if shell is None or isinstance(each, str) or hasattr(each, "_ipython_display_"):
        return each
    return shell.display_formatter.format(each)


def show(view: Callable[[Any], Any], result: Any) -> None:
    """Display what a view shows of a result in this cell; texts are printed."""
    _display(views_of(view, result))


def put(parent: dict[str, Any], drawn: Any, anew: bool = True) -> None:
    """Show texts and bundles, or an exception, in the cell that a request ran."""
    from IPython import get_ipython
    from IPython.display import clear_output

    shell = get_ipython()
    before = shell.get_parent() if parent else {}
    try:
        if parent:
            shell.set_parent(parent)
        if anew:
            clear_output()
        if not isinstance(drawn, Exception):
            _display(drawn)
        elif shell is None:
            raise drawn
        else:
            shell.showtraceback((type(drawn), drawn, drawn.__traceback__))
    finally:
        if parent:
            shell.set_parent(before)


def _display(drawn: Iterable[Any]) -> None:
    from IPython.display import display

    for each in drawn:
        if isinstance(each, tuple):
            display(each[0], metadata=each[1], raw=True)
        else:
            print(each) if isinstance(each, str) else display(each)
