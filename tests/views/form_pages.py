"""A page for the forms' tests, which the process of a form imports by its address."""

import os
import signal
import time
from pathlib import Path

from workbench.forms.page import Look, Page, SecretEntry
from workbench.progress import Progress


def check(values):
    for name in ("rounds", "other"):
        if not 0 < values[name] <= 1000:
            raise ValueError(f"{name}={values[name]}: give 1 to 1000")
    if values["rounds"] == values["other"] == 7:
        raise ValueError("rounds and other are both 7: change one")


def plan(**values):
    check(values)
    print(f"rounds     {values['rounds']}")
    if values["fault"] == "plan":
        raise FileNotFoundError("fault='plan': it was asked for")
    return values


class Unreadable:
    """What is written well and cannot be read back, as where the kernel's code is older."""

    def __reduce__(self):
        return _unreadable, ()


def _unreadable():
    raise ModuleNotFoundError("No module named 'newer'")


def work(values):
    from IPython.display import HTML, display

    folder = Path(values["folder"])
    try:
        (folder / "pid").write_text(str(os.getpid()))
        display(HTML("<b>shown</b>"))
        print("at it")
        if values["fault"] == "work":
            raise RuntimeError("the work failed, mend it so")
        if values["fault"] == "result":
            return Unreadable()
        if values["fault"] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        with Progress("turning", values["rounds"], "rounds") as progress:
            for _ in range(values["rounds"]):
                time.sleep(0.05)
                progress.advance()
    except KeyboardInterrupt:
        (folder / "tidied").touch()
        raise
    return {"turned": values["rounds"], "secret": len(os.environ.get("FORM_SECRET", ""))}


PARAMETERS = """rounds: int = 2  # how many, 1 to 1000
other: int = 3  # another number
folder: str = "."  # where it writes
fault: str = None  # what goes wrong; None: nothing
share: float = None  # a share, 0.5 (None)
"""

PAGE = Page(
    notebook="cache",
    address="tests.views.form_pages:PAGE",
    start="Turn",
    check=check,
    plan=plan,
    work=work,
    common=("rounds", "folder"),
    groups={"Trouble": ("fault",)},
    looks={"fault": Look("what goes wrong", choices=lambda: ("plan", "work"), only_these=True)},
    report=lambda done: f": turned {done['turned']}",
    secrets=(
        SecretEntry(
            "FORM_SECRET",
            "a secret",
            "any text of 10 letters",
            lambda text: f"{len(text)} letters" if len(text) >= 10 else _refuse(),
            found=lambda values: "not needed",
            file=True,
        ),
    ),
)


def _refuse():
    raise ValueError("a secret: give 10 letters or more")
