"""Opening a page: a form in JupyterLab, its work at once in a headless run.

The same cell opens both, and the cells below show the result in both: at once where it is there,
as soon as the form's work is done where it is not.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from workbench.forms.page import Page, display_of
from workbench.forms.parameters import Parameters, ParametersError
from workbench.progress import interactive


class OpenPage(Protocol):
    """An opened page, in either mode."""

    @property
    def result(self) -> Any:
        """The result of the work.

        Raises:
            NotStartedError: nothing was started yet.
        """

    def show(self, view: Callable[[Any], Any]) -> None:
        """Show something of the result in this cell: what ``view`` displays and what it returns."""


class HeadlessPage:
    """Headless page: runs the work on construction."""

    def __init__(self, page: Page, parameters: Parameters) -> None:
        self.result = page.open(page.work(page.plan(parameters)), parameters)

    def show(self, view: Callable[[Any], Any]) -> None:
        """Show something of the result."""
        display_of(view, self.result)


def open_page(page: Page, variables: Mapping[str, Any]) -> OpenPage:
    """Open a page: show its form in JupyterLab, do its work at once elsewhere.

    Args:
        page: the page.
        variables: the notebook's ``globals()``; those of the parameters cell are taken.

    Raises:
        NameError: the parameters cell was not run.
        ParametersError: a parameter does not do. The form opens all the same and shows it beside
            its field, unless the value may not be shown.
    """
    if not interactive():
        return HeadlessPage(page, page.parameters.read(variables))
    values = page.parameters.given(variables)
    from workbench.forms.form import open_form  # ipywidgets are for JupyterLab only

    try:
        page.parameters.of(values)
    except ParametersError as error:
        if error.hidden:
            raise
    return open_form(page, values)
