"""What a notebook asks for, does and shows."""

from collections.abc import Callable
from dataclasses import dataclass
from threading import Event
from typing import Any, ClassVar, Self

from workbench.forms.parameters import Parameters, ParametersError


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


class Page(Parameters):
    """A notebook's parameters and its work, which runs in a process of its own.

    Attributes:
        start: the text of the button.
        hint: what the form says before anything was pressed.
        secrets: what is never a parameter.
        tensorboard: whether TensorBoard is one click away.
        at_once: whether the form begins its work as soon as it is shown.
        imports: modules that plan and work need: the form's process has them before it is asked.
        shows_on_nodes: whether the first node of a job has all that the cells show.
    """

    start: ClassVar[str]
    hint: ClassVar[str] = ""
    secrets: ClassVar[tuple[SecretEntry, ...]] = ()
    tensorboard: ClassVar[bool] = False
    at_once: ClassVar[bool] = False
    imports: ClassVar[tuple[str, ...]] = ()
    shows_on_nodes: ClassVar[bool] = True

    @property
    def needs(self) -> tuple[str, ...]:
        """Secrets and logins of this kernel that the work is handed, see ``child_environment``."""
        return ()

    @property
    def when_cancelled(self) -> str:
        """Say what becomes of work that was cancelled."""
        return f"{self.start} goes on from there"

    def looks(self) -> dict[str, Callable[[], object]]:
        """Return checks of what the parameters name, a path or a run: field -> check.

        A check raises ValueError or OSError. It may take its time, so that the form never waits.
        """
        return {}

    def usual(self) -> dict[str, Any]:
        """Return defaults that depend on what is here, by field; it may take its time."""
        return {}

    def looked_at(self) -> Self:
        """Return the page itself, once all its looks have found nothing wrong.

        Raises:
            ParametersError: names every parameter that does not do.
        """
        errors: dict[str, str] = {}
        for name, look in self.looks().items():
            try:
                look()
            except (ValueError, OSError) as error:
                errors.setdefault(getattr(error, "field", name), str(error))
        if errors:
            raise ParametersError(errors)
        return self

    def plan(self) -> Any:
        """Check everything, show what will be done, and return it."""

    def work(self, planned: Any) -> Any:
        """Do it and print how it goes; return what JSON can hold, such as a folder's path."""

    def watch(self, planned: Any, ended: Event) -> None:
        """Show in the form what comes while the work runs, until the event is set."""

    def result(self, left: Any) -> Any:
        """Read the result from what ``work`` returned."""
        return left

    def report(self, result: Any) -> str:
        """Return what the form adds to "done in 3 s"."""
        return ""
