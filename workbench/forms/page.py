"""What a notebook's page asks for, does and shows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.forms.parameters import Parameters

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


def display_of(view: Callable[[Any], Any], result: Any) -> None:
    """Display what a view of a result displays, and what it returns."""
    from IPython.display import display

    shown = view(result)
    if shown is not None:
        display(shown)
