"""A page for the forms' tests, which the process of a form imports by its name."""

import os
import signal
import time
from pathlib import Path

from pydantic import model_validator

from workbench.forms.page import Page, SecretEntry
from workbench.forms.parameters import Field, WrongValueError
from workbench.progress import Progress
from workbench.settings import AZURE_LOGIN


def look_up(asked):
    raise OSError("no login works")


def check_secret(text):
    if len(text) < 10:
        raise ValueError("a secret: give 10 letters or more")
    return f"{len(text)} letters"


FAULTS = ("plan", "slow plan", "work", "kill", "open", "own_code")


class TurningPage(Page):
    notebook, start = "turning", "Turn"
    secrets = (
        SecretEntry(
            "FORM_SECRET",
            "a secret",
            "any text of 10 letters",
            check_secret,
            found=lambda _: "not needed",
            file=True,
        ),
    )

    rounds: int = Field(2, ge=1, le=1000, aliases=("num_rounds",))
    """how many, 1 to 1000"""
    folder: str = "."
    """where it writes"""
    fault: str | None = Field(None, section="Trouble", choices=FAULTS)
    """what goes wrong; None: nothing"""
    other: int = Field(3, ge=1, le=1000, unit="turns", look_up=look_up)
    """another number"""
    share: float | None = Field(None, gt=0, le=1)
    """a share, 0.5 (None)"""
    several: str = Field("", choices=("a", "b", "c"), several=True)
    """some of them"""
    quiet: bool = False
    """True: prints nothing"""

    @property
    def needs(self):
        return (AZURE_LOGIN,)

    @model_validator(mode="after")
    def _check(self):
        if self.rounds == self.other == 7:
            raise WrongValueError("other", "rounds and other are both 7: change one")
        return self

    def looks(self):
        return {"folder": self._look}

    def _look(self):
        if self.folder.endswith("dead"):
            Path(self.folder).read_text()  # of a pipe that nobody fills
        if self.folder.endswith("elsewhere"):
            raise WrongValueError("rounds", "rounds=2: too few for this folder")
        if not Path(self.folder).is_dir():
            raise FileNotFoundError(f"folder={self.folder!r}: no folder")

    def usual(self):
        return {"share": 0.9} if self.rounds == 9 else {}

    def plan(self):
        print(f"rounds     {self.rounds}")
        if self.fault == "plan":
            raise FileNotFoundError("fault='plan': it was asked for")
        if self.fault == "slow plan":
            time.sleep(60)
        if self.fault == "own_code":
            import own_code

            print(f"number     {own_code.NUMBER}")

    def work(self, planned):
        from IPython.display import HTML, display

        folder = Path(self.folder)
        try:
            display(HTML("<b>shown</b>"))
            print("at it")
            os.write(1, b"a library's line\n")  # a broken pipe once the kernel has ended
            (folder / "pid.new").write_text(str(os.getpid()))
            (folder / "pid.new").rename(folder / "pid")  # whole once it is there
            if self.fault == "work":
                raise RuntimeError("the work failed, mend it so")
            if self.fault == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            with Progress("turning", self.rounds, "rounds") as progress:
                for _ in range(self.rounds):
                    time.sleep(0.05)
                    progress.advance()
        except KeyboardInterrupt:
            (folder / "tidied").touch()
            raise
        return {"turned": self.rounds, "secret": len(os.environ.get("FORM_SECRET", ""))}

    def result(self, left):
        if self.fault == "open":
            raise ValueError("the result is damaged: turn again")
        return left

    def report(self, result):
        return f": turned {result['turned']}"


def values(page=TurningPage, /, **changed):
    """Return a page's defaults, some of them changed."""
    return {name: each.default for name, each in page.fields.items()} | changed
