"""``python -m benchmarks.startup``: what a person waits for before anything is seen.

Each wait from a fresh process, the better of two, into ``outputs/startup.json`` and ``startup.md``.
The form in JupyterLab needs a browser (``make chromium``), as the tests do; without one its row is
left out.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nbformat
import yaml  # type: ignore[import-untyped, unused-ignore]

from benchmarks.report import machine, write_document
from workbench.command.running import kernel_environment
from workbench.settings import notebooks, resolve, shown
from workbench_demo.phantom.study import write_study

_TRIES = 2
_LOOK = 0.02  # seconds between looks
_LIMIT = 600.0
_SMALL = {"cascades": 2, "chans": 4, "pools": 2, "sens_chans": 2, "sens_pools": 2, "epochs": 1}
_DATASET = "datasets/knee_multicoil"
_STUDY: dict[str, Any] = {
    "volumes": {"train": 8, "val": 1},
    "recon": 112,
    "slices": 8,
    "coils": (4,),
}
_PLAN = """
from workbench.pages.train import TrainPage
TrainPage.of({"model": "knee", "target": "local", "name": "planned"}).looked_at().plan()
"""


@dataclass(frozen=True)
class Wait:
    """One wait, in seconds; ``budget`` is what it may be on two warm cores."""

    name: str
    seconds: float
    budget: float


def waits(folder: Path, only: Sequence[str] | None = None) -> list[Wait]:
    """Measure all waits, or those whose names are given, on a small phantom in a folder."""
    write_study(folder / _DATASET, "knee_multicoil", **_STUDY)
    with kernel_environment() as kernel:
        place = Place(folder, {**os.environ, **kernel, "WORKBENCH_ROOT": str(folder)})
        place.python("from workbench.pages.cache import CachePage")
        ladder: dict[str, tuple[float, Callable[[int], float]]] = {
            "import workbench": (0.1, lambda _: place.python("import workbench")),
            "a notebook's imports": (2.0, lambda _: place.python(_imports("train"))),
            "a plan of a training": (3.0, lambda _: place.python(_PLAN)),
            "explore.ipynb to its first picture": (6.0, place.explore),
            "train.ipynb to the first step": (8.0, lambda number: place.train(number, 1)),
            "the same, 8 processes": (20.0, lambda number: place.train(number, 8)),
            "reconstruct.ipynb to the first volume": (10.0, place.reconstruct),
            "JupyterLab: from Run All to the form": (2.0, place.form),
        }
        found = []
        for name, (budget, measure) in ladder.items():
            if only and name not in only:
                continue
            try:
                times = [measure(number) for number in range(_TRIES)]
            except FileNotFoundError as missing:
                print(f"{name}: left out, {missing}", file=sys.stderr)
                continue
            found.append(Wait(name, min(times), budget))
            print(f"{name}: {min(times):.2f} s", flush=True)
    return found


def _imports(name: str) -> str:
    """Return a notebook's cell of imports."""
    cells = nbformat.read(notebooks() / f"{name}.ipynb", as_version=4).cells
    return next(str(cell.source) for cell in cells if "from workbench" in cell.source)


@dataclass(frozen=True)
class Place:
    """A folder with a dataset, and the variables with which processes work in it."""

    folder: Path
    environment: Mapping[str, str]

    def python(self, code: str) -> float:
        """Return how long Python takes for some code."""
        began = time.monotonic()
        command = [sys.executable, "-c", code]
        subprocess.run(
            command, env=self.environment, cwd=self.folder, stdout=subprocess.DEVNULL, check=True
        )
        return time.monotonic() - began

    def explore(self, number: int) -> float:
        """Return the time until explore.ipynb has a picture."""
        output = self.folder / f"explore-{number}.ipynb"
        return self._until(
            lambda: output.exists() and "image/png" in output.read_text(errors="replace"),
            *("explore", output, {"dataset": _DATASET}),
        )

    def train(self, number: int, processes: int) -> float:
        """Return the time until a first step is done: its checkpoint is there."""
        name = f"steps-{processes}-{number}"
        asked = {"model": "knee", "name": name, "nodes": processes, "checkpoint_minutes": 1e-6}
        last = self.folder / "outputs" / name / "checkpoints/last.ckpt"
        output = self.folder / f"{name}.ipynb"
        return self._until(last.exists, "train", output, {**_SMALL, **asked, "target": "local"})

    def reconstruct(self, number: int) -> float:
        """Return the time until a volume is reconstructed by a run's weights."""
        if not (run := self.folder / "outputs/trained").exists():
            asked = {**_SMALL, "model": "knee", "name": "trained", "target": "local"}
            output = self.folder / "trained.ipynb"
            self._until((run / "checkpoints/best.ckpt").exists, "train", output, asked, whole=True)
        for made in (run / "reconstructions").rglob("*.h5"):
            made.unlink()
        output = self.folder / f"reconstruct-{number}.ipynb"
        return self._until(
            lambda: any((run / "reconstructions").rglob("file*.h5")),
            *("reconstruct", output, {"run": "trained"}),
        )

    def form(self, _: int) -> float:
        """Return the time from Run All to a form whose buttons can be pressed."""
        from playwright.sync_api import sync_playwright

        from tests.browser.jupyterlab import JupyterLab
        from tests.browser.notebook_page import FLAGS, NotebookPage, find_chromium
        from tests.browser.sources import write_notebook

        chromium = find_chromium()
        with (
            tempfile.TemporaryDirectory(prefix="form-") as folder,
            JupyterLab(Path(folder)) as lab,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
            path = write_notebook("train", None, lab.project / "notebooks")
            notebook = NotebookPage(lab, browser, path)
            began = time.monotonic()
            notebook.start_all()
            notebook.page.locator(".wb-form button:visible").first.wait_for()
            taken = time.monotonic() - began
            notebook.close()
            browser.close()
        return taken

    def _until(
        self,
        seen: Callable[[], bool],
        notebook: str,
        output: Path,
        parameters: Mapping[str, Any],
        *,
        whole: bool = False,
    ) -> float:
        """Run a notebook by papermill until something is seen, or to its end, and end it."""
        command = [
            *(sys.executable, "-m", "papermill", str(notebooks() / f"{notebook}.ipynb")),
            *(str(output), "--parameters_yaml", yaml.safe_dump(dict(parameters))),
            *("--no-progress-bar", "--log-level", "ERROR"),
        ]
        began = time.monotonic()
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            while not (found := seen()) and process.poll() is None:
                if time.monotonic() - began > _LIMIT:
                    break
                time.sleep(_LOOK)
            taken = time.monotonic() - began
            if not (found and whole):
                process.send_signal(signal.SIGINT)  # on which papermill ends its kernel
            _, said = process.communicate()
        if not (found or seen()):
            raise RuntimeError(f"{notebook}.ipynb ended before that: {said[-2000:]}")
        return taken


def markdown(found: Sequence[Wait], where: Mapping[str, object]) -> str:
    """Return the waits as a Markdown table."""
    lines = [
        f"{where['processor']}, {where['processors']} processors, load {where['load_at_start']}.",
        "",
        "| from a fresh process | wait | budget |",
        "| --- | ---: | ---: |",
        *(f"| {each.name} | {each.seconds:.2f} s | {each.budget:g} s |" for each in found),
    ]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--out", default="outputs", help="folder of startup.json and startup.md")
    parser.add_argument("--only", action="append", help="a row's name; may be given several times")
    options = parser.parse_args(arguments)
    where, folder = machine(), resolve(options.out)
    with tempfile.TemporaryDirectory(prefix="startup-") as place:
        found = waits(Path(place), options.only)
    document = {"machine": where, "waits": [asdict(each) for each in found]}
    write_document(folder, "startup", document, markdown(found, where))
    print(f"\n{markdown(found, where)}\n\nWritten to {shown(folder / 'startup.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
