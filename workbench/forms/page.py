"""A notebook's page: a form in JupyterLab, its work at once in a headless run.

The same cell opens both, and the cells below show the result in both: at once where it is there,
as soon as the form's work is done where it is not.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from workbench.forms.parameters import Parameters, ParametersError
from workbench.progress import interactive

if TYPE_CHECKING:
    from threading import Event


def _same(found: Any, _: Any) -> Any:
    return found


@dataclass(frozen=True)
class SecretEntry:
    """A secret that the form takes and the notebook never has.

    Attributes:
        name: of the environment variable that holds it for the work.
        label: what it is.
        help: where to find it.
        check: takes the text and returns what may be shown of it; raises ValueError.
        found: says where the parameters find it without the form; "" where they do not.
        file: whether a file with it may be chosen.
        only: says for which parameters it is needed.
    """

    name: str
    label: str
    help: str
    check: Callable[[str], str]
    found: Callable[[Any], str] = lambda _: ""
    file: bool = False
    only: Callable[[Any], bool] = lambda _: True


@dataclass(frozen=True)
class Page:
    """What a notebook asks for and does.

    Attributes:
        parameters: what it asks for.
        start: the text of the button.
        plan: checks everything, shows what will be done, and returns it.
        work: does it and prints how it goes; returns what JSON can hold, such as a folder's path.
        open: reads the result from what ``work`` returned, given the parameters.
        secrets: what is never a parameter.
        watch: shows in the form what comes while the work runs, until the event is set.
        hint: what the form says before anything was pressed.
        report: shown in the form beside the buttons once the work is done.
        tensorboard: whether TensorBoard is one click away.
    """

    parameters: type[Parameters]
    start: str
    plan: Callable[[Any], Any]
    work: Callable[[Any], Any]
    open: Callable[[Any, Any], Any] = _same
    secrets: tuple[SecretEntry, ...] = ()
    watch: "Callable[[Any, Event], None] | None" = None
    hint: str = ""
    report: Callable[[Any], str] = lambda _: ""
    tensorboard: bool = False

    @property
    def address(self) -> str:
        """Where this page is imported from, as module:attribute."""
        return f"{self.plan.__module__}:PAGE"


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


def display_of(view: Callable[[Any], Any], result: Any) -> None:
    """Display what a view of a result displays, and what it returns."""
    from IPython.display import display

    shown = view(result)
    if shown is not None:
        display(shown)


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
    from workbench.forms.form import open_form

    try:
        page.parameters.of(values)
    except ParametersError as error:
        if error.hidden:
            raise
    return open_form(page, values)
