"""Opening a page: a form in JupyterLab, its work at once in a headless run.

The same cell does both, ``page = open_page(TrainPage, globals())``, and the cells below show the
result in both, ``page.show(volume_table)``: at once, or as soon as the form's work is done.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from workbench.compute.node import noting_errors, this_node
from workbench.forms.cells import show
from workbench.forms.echo import lines_on_stderr
from workbench.forms.page import Page
from workbench.forms.parameters import ParametersError
from workbench.progress import interactive

if TYPE_CHECKING:
    from workbench.forms.form import Form


class HeadlessPage:
    """Headless page: runs the work on construction.

    On a cluster an error is left in the job's store, and the first node alone shows results.
    """

    def __init__(self, asked: Page) -> None:
        with lines_on_stderr():
            node = this_node()
            left = asked.work(asked.plan())
            self.shows = node is None or (node.rank == 0 and asked.shows_on_nodes)
            self.result = asked.result(left) if self.shows else None

    def show(self, view: Callable[[Any], Any]) -> None:
        """Show something of the result."""
        if self.shows:
            with noting_errors(first=False):
                show(view, self.result)


def open_page(page: type[Page], variables: Mapping[str, Any]) -> "HeadlessPage | Form":
    """Open a page: show its form in JupyterLab, do its work at once elsewhere.

    Args:
        page: the page.
        variables: the notebook's ``globals()``; those of the parameters cell are taken.

    Raises:
        NameError: the parameters cell was not run.
        ParametersError: a parameter is not valid. The form opens all the same and shows it beside
            its field, unless the value may not be shown.
    """
    values = page.given(variables)
    if not interactive():
        with noting_errors():
            page.refuse_unknown(variables)
            return HeadlessPage(page.of(values).looked_at())
    from workbench.forms.form import open_form  # ipywidgets are for JupyterLab only

    try:
        page.of(values)
    except ParametersError as error:
        if error.hidden:
            raise
    return open_form(page, values)
