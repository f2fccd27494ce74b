"""``python -m tests.browser.pictures``: JupyterLab's part of the README's pictures.

It opens the notebooks on what ``make demo`` has left, and writes what a person sees then.
"""

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from tests.browser.jupyterlab import JupyterLab
from tests.browser.notebook_page import FLAGS, NotebookPage, find_chromium
from tests.browser.sources import write_notebook
from tests.browser.viewer_page import ViewerPage
from workbench.settings import project_root, resolve, shown

if TYPE_CHECKING:
    from playwright.sync_api import Locator

_LARGEST = 300_000  # bytes of a picture, for the README to load quickly
_RUN, _DATASET = "outputs/demo/brain", "outputs/demo/datasets/brain_multicoil"


@contextmanager
def opened(
    lab: JupyterLab, browser: Browser, name: str, parameters: dict[str, Any]
) -> Iterator[NotebookPage]:
    """Open a notebook and run it, with the file browser out of the way."""
    path = write_notebook(name, parameters, lab.project / "notebooks")
    path = path.rename(path.with_name(f"{name}.ipynb"))
    notebook = NotebookPage(lab, browser, path)
    notebook.command("application:toggle-left-area")
    notebook.run_all(300)
    yield notebook
    notebook.close()


def viewer_picture(lab: JupyterLab, browser: Browser) -> bytes:
    """Reconstruct, and show a volume's linked panes with the cursor on one of them."""
    parameters = {"run": "demo/brain", "local_dataset": _DATASET}
    with opened(lab, browser, "reconstruct", parameters) as notebook:
        notebook.page.get_by_role("button", name="Reconstruct", exact=True).click()
        ended = notebook.page.locator(".wb-status", has_text=re.compile("done in|failed"))
        ended.wait_for(timeout=400_000)
        viewer = ViewerPage(notebook.cell("show_volumes)"))
        notebook.wait_until_idle(300)
        viewer.press("ArrowDown", *["Shift+ArrowUp"] * 12, *["Shift+ArrowRight"] * 9, pane=2)
        return framed(notebook.cell("show_volumes)").locator(".jp-Cell-outputArea"))


def explore_picture(lab: JupyterLab, browser: Browser) -> bytes:
    """Show a page with a viewer in it."""
    with opened(lab, browser, "explore", {"dataset": _DATASET}) as notebook:
        viewer = ViewerPage(notebook.cell("explored_viewer"))
        viewer.press("ArrowRight", "ArrowRight")
        viewer.canvas().evaluate("(canvas) => canvas.blur()")
        top_of(notebook, "explored_viewer")
        return notebook.page.screenshot()


def form_picture(lab: JupyterLab, browser: Browser) -> bytes:
    """Show a form before it is sent."""
    parameters = {"model": "brain", "local_dataset": _DATASET, "nodes": 2}
    with opened(lab, browser, "train", parameters) as notebook:
        form = notebook.page.locator(".wb-form")
        form.wait_for()
        notebook.page.wait_for_timeout(1000)  # its check of what is filled in
        # These notebooks lie outside the checkout, so the form names its files in full.
        form.locator("pre").evaluate_all(
            r"""(all) => {
              for (const each of all) {
                each.textContent = each.textContent.replace(/\S*([.]venv|notebooks)/g, "$1");
              }
            }"""
        )
        return framed(form)


PICTURES: dict[str, Callable[[JupyterLab, Browser], bytes]] = {
    "viewer.png": viewer_picture,
    "explore.png": explore_picture,
    "form.png": form_picture,
}


def framed(part: "Locator") -> bytes:
    """Take a picture of a part of the page, no matter how much of it is on the screen."""
    part.page.set_viewport_size({"width": 1400, "height": 1600})
    part.scroll_into_view_if_needed()
    return part.screenshot()


def top_of(notebook: NotebookPage, source: str) -> None:
    """Scroll to a cell's top."""
    notebook.cell(source).evaluate("(cell) => cell.scrollIntoView({ block: 'start' })")
    notebook.page.wait_for_timeout(500)


def small(picture: bytes) -> bytes:
    """Return a PNG file of at most ``_LARGEST`` bytes: with fewer colours and pixels if need be."""
    image = Image.open(BytesIO(picture)).convert("RGB")
    if len(smallest := _png(image)) <= _LARGEST:
        return smallest
    while len(smallest := _png(image.quantize(256))) > _LARGEST:
        width, height = (round(0.9 * size) for size in image.size)
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return smallest


def _png(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "png", optimize=True)
    return buffer.getvalue()


def take(demo: Path, folder: Path, only: str | None = None) -> Iterator[Path]:
    """Write the pictures; yield their paths.

    Args:
        demo: what ``make demo`` has left.
        folder: where they go.
        only: the name of the one to take.

    Raises:
        FileNotFoundError: the demo has not run, or there is no Chromium.
    """
    run, dataset = demo / "brain", demo / "datasets/brain_multicoil"
    for part in (run / "checkpoints/best.ckpt", dataset):
        if not part.exists():
            raise FileNotFoundError(f"{shown(part)} is not there: run `make demo` first")
    chromium = find_chromium()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="pictures-") as place,
        JupyterLab(Path(place)) as lab,
        sync_playwright() as playwright,
    ):
        shutil.copytree(run, lab.project / _RUN)
        shutil.copytree(dataset, lab.project / _DATASET)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for name, picture in PICTURES.items():
            if only in (None, name):
                partial = folder / f".{name}.partial"
                partial.write_bytes(small(picture(lab, browser)))
                yield partial.replace(folder / name)
        browser.close()


def main(arguments: list[str] | None = None) -> int:
    """Write the pictures into ``docs/pictures/``."""
    parser = argparse.ArgumentParser(prog="python -m tests.browser.pictures", description=__doc__)
    parser.add_argument("--demo", default="outputs/demo", help="what make demo has left")
    parser.add_argument("--only", choices=PICTURES, help="one picture")
    options = parser.parse_args(arguments)
    for path in take(resolve(options.demo), project_root() / "docs/pictures", options.only):
        print(f"{shown(path)}: {path.stat().st_size / 1e3:.0f} kB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
