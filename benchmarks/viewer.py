"""``python -m benchmarks.viewer``: how fast the viewer is, in JupyterLab in Chromium.

Into ``outputs/viewer.json`` and ``viewer.md``. It needs what the tests need: ``make lint`` installs
it, and ``make chromium`` a browser.
"""

import argparse
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.report import machine, write_document
from tests.browser.jupyterlab import JupyterLab
from tests.browser.notebook_page import FLAGS, NotebookPage, find_chromium
from tests.browser.sources import write_notebook
from workbench.data.images import centered_fft2, zero_filled
from workbench.settings import resolve, shown
from workbench_demo.phantom.writing import write_volume

_OPEN = """
import h5py
import numpy as np
from workbench.data.cache import find_dataset, open_cache
from workbench.views.viewer.panes import error_pane, image_pane, volume_pane
from workbench.views.viewer.viewer import Viewer
import workbench.views.viewer.viewer
cache = open_cache(find_dataset("knee_multicoil"))
volume = cache.volumes[0]"""
_MEASURED = "Viewer([volume_pane(cache.file(volume), volume)], title=volume.name)"
_LINKED = """
with h5py.File(cache.file(volume)) as file:
    target = file["reconstruction_rss"][()]
parts = {"target": target, "zero-filled": 2 * target, "VarNet": 0.9 * target}
panes = [image_pane(name, part.__getitem__, len(part)) for name, part in parts.items()]
Viewer([*panes, error_pane(panes[2], panes[0])], title="linked")"""
# A slice has changed when its pixels can be read; what is drawn into a canvas may be put off.
_TURN = """async (canvas) => {
  const times = [];
  for (const key of ["Home", ...Array(SLICES - 1).fill("ArrowDown")]) {
    const began = performance.now();
    canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
    for (const each of canvas.closest(".workbench-stage").querySelectorAll("canvas[tabindex]")) {
      each.getContext("2d").getImageData(each.width >> 1, each.height >> 1, 1, 1);
    }
    times.push(performance.now() - began);
    await new Promise((done) => setTimeout(done, 40));
  }
  return times;
}"""


@dataclass(frozen=True)
class Timing:
    """What a person waits for, of one viewer.

    Attributes:
        viewer: what it shows.
        first_paint_s: from the cell's start to the first slice on the screen.
        all_slices_s: until every slice is in the browser.
        first_coil_s: from choosing a coil to its slice; None where there are none.
        slice_ms: median of a change of slice.
        slowest_slice_ms: the slowest of them.
        notebook_bytes: of the saved notebook, with both viewers.
    """

    viewer: str
    first_paint_s: float
    all_slices_s: float
    first_coil_s: float | None
    slice_ms: float
    slowest_slice_ms: float
    notebook_bytes: int


def make_volume(path: Path, slices: int, coils: int, matrix: tuple[int, int]) -> None:
    """Write an ellipse that coils hear from all sides, with noise, in fastMRI's format."""
    random = np.random.default_rng(0)
    rows, columns = (np.linspace(-1, 1, size, dtype=np.float32) for size in matrix)
    ellipse = (np.hypot(2.4 * rows[:, None], 1.2 * columns) < 0.9).astype(np.float32)
    kspace = np.empty((slices, coils, *matrix), np.complex64)
    for number in range(slices):
        texture = ellipse * (1 + 0.3 * np.sin((8 + number) * columns + 9 * rows[:, None]))
        for coil in range(coils):
            angle = 2 * np.pi * coil / coils
            far = np.hypot(rows[:, None] - np.sin(angle), columns - np.cos(angle))
            image = texture * np.exp(-far + 1j * (angle + columns))
            noise = random.normal(scale=0.02, size=(2, *matrix)).astype(np.float32)
            kspace[number, coil] = centered_fft2(1e-4 * (image + noise[0] + 1j * noise[1]))
    crop = (matrix[0] // 2, min(matrix[0] // 2, matrix[1]))
    target = np.stack([zero_filled(part, crop) for part in kspace])
    write_volume(
        path,
        kspace=kspace,
        target=target,
        recon=crop,
        acquisition="CORPD_FBK",
        patient_id="benchmark",
    )


def measure(notebook: NotebookPage, source: str, name: str, slices: int, coils: int) -> Timing:
    """Run the cell that makes a viewer, and look through it as a person does."""
    cell = notebook.cell(source)
    cell.locator(".cm-content").click()
    began = time.monotonic()
    notebook.page.keyboard.press("Control+Enter")
    cell.locator(".workbench-live").wait_for()
    painted = time.monotonic() - began
    notebook.wait_until_idle()
    slider = cell.get_by_role("slider", name="slice")
    for number in range(slices):
        slider.fill(str(number))
        cell.locator(".workbench-waiting").last.wait_for(state="detached")
    everything = time.monotonic() - began
    canvas = cell.locator("canvas[tabindex]").first
    times = canvas.evaluate(_TURN.replace("SLICES", str(slices)))
    coil_time = None
    if coils:
        began = time.monotonic()
        cell.get_by_role("combobox", name="coil").select_option("0")
        cell.locator(".workbench-waiting").last.wait_for(state="detached")
        coil_time = time.monotonic() - began
    notebook.save()
    size = notebook.path.stat().st_size
    return Timing(name, painted, everything, coil_time, median(times), max(times), size)


def run(slices: int, coils: int, matrix: tuple[int, int]) -> list[Timing]:
    """Measure a viewer of measured data and one of four linked panes."""
    from playwright.sync_api import sync_playwright

    chromium = find_chromium()
    with (
        tempfile.TemporaryDirectory(prefix="viewer-") as folder,
        JupyterLab(Path(folder)) as lab,
        sync_playwright() as playwright,
    ):
        file = lab.project / "datasets/knee_multicoil/multicoil_val/file1.h5"
        make_volume(file, slices, coils, matrix)
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        path = write_notebook(
            [_OPEN, _MEASURED, _LINKED], None, lab.project / "notebooks", name="viewer"
        )
        notebook = NotebookPage(lab, browser, path)
        notebook.cell("import h5py").locator(".cm-content").click()
        notebook.page.keyboard.press("Control+Enter")
        notebook.wait_until_idle()
        size = f"{slices} slices of {matrix[0]}x{matrix[1]}"
        timings = [
            measure(notebook, _MEASURED, f"{size}, {coils} coils, complex", slices, coils),
            measure(notebook, "error_pane(panes", "its target, in 4 linked panes", slices, 0),
        ]
        notebook.close()
        browser.close()
    return timings


def markdown(timings: list[Timing], where: dict[str, object]) -> str:
    """Return the timings as a Markdown table."""
    lines = [
        f"{where['processor']}, {where['processors']} processors, load {where['load_at_start']}.",
        "",
        "| viewer | first paint | all slices there | a coil's first | a slice, median | slowest |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in timings:
        coil = "" if each.first_coil_s is None else f"{each.first_coil_s:.2f} s"
        lines.append(
            f"| {each.viewer} | {each.first_paint_s:.2f} s | {each.all_slices_s:.1f} s | {coil} "
            f"| {each.slice_ms:.1f} ms | {each.slowest_slice_ms:.1f} ms |"
        )
    lines += ["", f"The notebook with both, saved: {timings[-1].notebook_bytes / 1e3:.0f} kB."]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and write the report; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.viewer", description=__doc__)
    parser.add_argument("--toy", action="store_true", help="a small volume, in seconds")
    parser.add_argument("--out", default="outputs", help="folder of viewer.json and viewer.md")
    options = parser.parse_args(arguments)
    where, folder = machine(), resolve(options.out)
    timings = run(3, 2, (64, 48)) if options.toy else run(16, 16, (640, 368))
    document = {"machine": where, "timings": [asdict(each) for each in timings]}
    write_document(folder, "viewer", document, markdown(timings, where))
    print(f"{markdown(timings, where)}\n\nWritten to {shown(folder / 'viewer.json')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
