"""A notebook's page: a form in JupyterLab, the work at once where nobody sits at the notebook.

Both are opened by the same cell, and the cells below show the result in both: at once where it is
there, as soon as the form's work is done where it is not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from workbench.forms.fields import Field, checked, fields_of, notebook_path
from workbench.progress import interactive

if TYPE_CHECKING:
    from threading import Event

Values = Mapping[str, Any]


@dataclass(frozen=True)
class SecretEntry:
    """A secret that the form takes and the notebook never has.

    Attributes:
        name: of the environment variable that holds it for the work.
        label: what it is.
        help: where to find it.
        check: takes the text and returns what may be shown of it; raises ValueError.
        found: says where it is found without the form, for the values; "" where it is not.
        file: whether a file with it may be chosen.
        only: says for which values it is needed.
    """

    name: str
    label: str
    help: str
    check: Callable[[str], str]
    found: Callable[[Values], str] = lambda _: ""
    file: bool = False
    only: Callable[[Values], bool] = lambda _: True


@dataclass(frozen=True)
class Look:
    """How a field looks beyond what the parameters cell says.

    Attributes:
        label: what it is called; the parameter's name by default.
        unit: of the number.
        choices: gives what there is to choose from.
        several: whether several may be chosen.
        only_these: whether nothing but a choice is allowed.
        look_up: gives choices that take a network's answer, for the values; asked by a button.
    """

    label: str = ""
    unit: str = ""
    choices: Callable[[], Sequence[str]] = tuple
    several: bool = False
    only_these: bool = False
    look_up: Callable[[Values], Sequence[str]] | None = None


@dataclass(frozen=True)
class Page:
    """What a notebook asks for and does.

    Attributes:
        notebook: its name.
        address: where this page is to be imported from, as module:attribute.
        start: what the button says.
        check: raises ValueError where a value does not do; quick, for every key that is pressed.
        plan: checks everything, shows what will be done, and returns it.
        work: does it and prints how it goes; what it returns is pickled on its way to the notebook.
        common: the fields that are always in sight.
        groups: title -> fields that are folded away; what is in neither is in "More".
        looks: field -> how it looks.
        secrets: what is never a parameter.
        watch: shows in the form what comes while the work runs, until the event is set.
        hint: what the form says before anything was pressed.
        report: shown in the form beside the buttons once the work is done.
        tensorboard: whether TensorBoard is one click away.
    """

    notebook: str
    address: str
    start: str
    check: Callable[[Values], Any]
    plan: Callable[..., Any]
    work: Callable[[Any], Any]
    common: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    looks: Mapping[str, Look] = field(default_factory=dict)
    secrets: tuple[SecretEntry, ...] = ()
    watch: "Callable[[Any, Event], None] | None" = None
    hint: str = ""
    report: Callable[[Any], str] = lambda _: ""
    tensorboard: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """The parameters, as the notebook's file has them."""
        return fields_of(notebook_path(self.notebook))


class OpenPage(Protocol):
    """An opened page, in either mode."""

    @property
    def result(self) -> Any:
        """What the work returned.

        Raises:
            NotStartedError: nothing was started yet.
        """

    def show(self, view: Callable[[Any], Any]) -> None:
        """Show something of the result in this cell: what ``view`` displays and what it returns."""


class HeadlessPage:
    """A page where nobody sits at the notebook: its work is done by the time that it is there."""

    def __init__(self, page: Page, values: Values) -> None:
        self.result = page.work(page.plan(**values))

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
        variables: the notebook's, ``globals()``; those of the parameters cell are taken.

    Raises:
        NameError: the parameters cell was not run.
        ValueError: a parameter is of the wrong type.
    """
    fields = page.fields
    values = checked(fields, variables)
    if not interactive():
        return HeadlessPage(page, values)
    from workbench.forms.form import open_form

    return open_form(page, fields, values)
