"""A page for the forms' tests, which the process of a form imports by its address."""

import os
import signal
import time
from pathlib import Path
from typing import ClassVar

from pydantic import model_validator

from workbench.forms.page import Page, SecretEntry
from workbench.forms.parameters import Field, Parameters, WrongValueError
from workbench.progress import Progress


def look_up(parameters):
    raise OSError("no login works")


class TurningParameters(Parameters):
    notebook: ClassVar[str] = "turning"

    rounds: int = Field(2, "how many, 1 to 1000", ge=1, le=1000, aliases=("num_rounds",))
    folder: str = Field(".", "where it writes")
    fault: str | None = Field(
        None,
        "what goes wrong; None: nothing",
        section="Trouble",
        label="what goes wrong",
        choices=("plan", "work", "kill", "open"),
    )
    other: int = Field(3, "another number", ge=1, le=1000, unit="turns", look_up=look_up)
    share: float | None = Field(None, "a share, 0.5 (None)", gt=0, le=1)
    several: str = Field("", "some of them", choices=("a", "b", "c"), several=True)
    quiet: bool = Field(False, "True: prints nothing")

    @model_validator(mode="after")
    def _check(self):
        if self.rounds == self.other == 7:
            raise WrongValueError("other", "rounds and other are both 7: change one")
        return self


def plan(parameters):
    print(f"rounds     {parameters.rounds}")
    if parameters.fault == "plan":
        raise FileNotFoundError("fault='plan': it was asked for")
    return parameters


def work(asked):
    from IPython.display import HTML, display

    folder = Path(asked.folder)
    try:
        (folder / "pid").write_text(str(os.getpid()))
        display(HTML("<b>shown</b>"))
        print("at it")
        if asked.fault == "work":
            raise RuntimeError("the work failed, mend it so")
        if asked.fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        with Progress("turning", asked.rounds, "rounds") as progress:
            for _ in range(asked.rounds):
                time.sleep(0.05)
                progress.advance()
    except KeyboardInterrupt:
        (folder / "tidied").touch()
        raise
    return {"turned": asked.rounds, "secret": len(os.environ.get("FORM_SECRET", ""))}


def open_turned(left, asked):
    if asked.fault == "open":
        raise ValueError("the result is damaged: turn again")
    return left


def check_secret(text):
    if len(text) < 10:
        raise ValueError("a secret: give 10 letters or more")
    return f"{len(text)} letters"


PAGE = Page(
    TurningParameters,
    "Turn",
    plan,
    work,
    open_turned,
    report=lambda done: f": turned {done['turned']}",
    secrets=(
        SecretEntry(
            "FORM_SECRET",
            "a secret",
            "any text of 10 letters",
            check_secret,
            found=lambda _: "not needed",
            file=True,
        ),
    ),
)


def values(**changed):
    return {name: each.default for name, each in TurningParameters.fields().items()} | changed
