import re

import pytest
import torch
from fastmri.models import VarNet
from playwright.sync_api import expect

from tests.browser.jupyterlab import JupyterLab
from tests.browser.viewer_page import ViewerPage
from workbench.views.style import SYNTHETIC_NOTE
from workbench_demo.phantom.study import write_study

MEASURED = """
from workbench.data.cache import find_dataset, open_cache
from workbench.views.viewer.panes import volume_pane
from workbench.views.viewer.viewer import Viewer
cache = open_cache(find_dataset("brain_multicoil"))
volume = cache.split("val").volumes[0]
Viewer([volume_pane(cache.file(volume), volume)], title="measured")"""
RECONSTRUCTED = """
from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
from workbench.recon.results import Results
from workbench.views.annotations import read_annotations
from workbench.views.viewer.slice_browser import SliceBrowser
plan = plan_reconstruction(weights="weights.pt", local_dataset="brain_multicoil")
for line in reconstruct(plan):
    print(line)
volumes = SliceBrowser(Results(plan.folder), "psnr", read_annotations("findings.csv"))
display(volumes)"""
MISSING = "Error displaying widget: model not found"


def text_contrast(viewer, selector):
    """Return the contrast of a text with the page (WCAG's ratio)."""
    return viewer.root.locator(selector).first.evaluate(
        """(e) => {
          const light = (colour) => {
            const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
              .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const clear = (e) => /, 0\\)$/.test(getComputedStyle(e).backgroundColor);
          let behind = e;
          while (behind.parentElement && clear(behind)) behind = behind.parentElement;
          const [a, b] = [getComputedStyle(e).color, getComputedStyle(behind).backgroundColor]
            .map(light).sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        }"""
    )


@pytest.mark.parametrize("dark", [False, True])
def test_viewer_is_readable_in_light_and_dark(open_notebook, dark):
    notebook = open_notebook([MEASURED], dark=dark)
    notebook.run_all()
    viewer = ViewerPage(notebook.cell("volume_pane(cache"))
    viewer.press("?")
    for selector in ("label", "button", "figcaption", ".workbench-scale", ".workbench-help td"):
        assert text_contrast(viewer, selector) >= 4.5, selector


def test_reopened_notebook_shows_the_picture_alone_and_stays_small(open_notebook):
    notebook = open_notebook([MEASURED])
    notebook.run_all()
    cell = notebook.cell("volume_pane(cache")
    ViewerPage(cell)
    picture = cell.get_by_role("img", name="measured")
    assert not picture.is_visible()
    saved = notebook.save()
    assert "widgets" not in saved.metadata
    assert notebook.path.stat().st_size < 150_000
    notebook.reopen(fresh_kernel=True)
    picture.wait_for()
    assert picture.evaluate("(image) => image.naturalWidth") > 400
    assert not notebook.page.get_by_text(MISSING).is_visible()
    notebook.run_all()
    ViewerPage(cell).press("ArrowDown")
    assert not picture.is_visible()
    # ipywidgets says on the console that the old viewer is gone.
    assert all("widget model not found" in each for each in notebook.complaints)
    notebook.complaints.clear()


def test_notebook_reopened_while_its_kernel_lives_has_its_viewer_again(open_notebook):
    notebook = open_notebook([MEASURED])
    notebook.run_all()
    ViewerPage(notebook.cell("volume_pane(cache")).press("Home", "ArrowDown")
    notebook.save()
    notebook.reopen()
    viewer = ViewerPage(notebook.cell("volume_pane(cache"))
    assert viewer.number == 1
    viewer.press("ArrowDown")
    assert viewer.number == 2
    # A slow machine draws saved outputs before JupyterLab has fetched the kernel's widgets, says
    # so, and draws them again.
    early = [each for each in notebook.complaints if "widget model not found" in each]
    for each in early:
        notebook.complaints.remove(each)


def test_saved_widget_state_holds_no_images_and_without_kernel_leaves_the_picture(
    open_notebook, tmp_path
):
    with JupyterLab(tmp_path, saves_widgets=True) as lab:
        study = {"volumes": {"val": 1}, "recon": 48, "slices": 2, "coils": (2,), "workers": 1}
        write_study(lab.project / "datasets/brain_multicoil", "brain_multicoil", **study)
        notebook = open_notebook([MEASURED], lab=lab)
        notebook.run_all()
        cell = notebook.cell("volume_pane(cache")
        ViewerPage(cell).press("Home")
        saved = notebook.save()
        states = saved.metadata.widgets["application/vnd.jupyter.widget-state+json"].state
        (viewer,) = (each for each in states.values() if each.model_module == "anywidget")
        assert viewer.state.first == {}
        assert "buffers" not in viewer
        notebook.reopen(fresh_kernel=True)
        cell.get_by_role("img", name="measured").wait_for()
        assert not cell.locator(".workbench-viewer").is_visible()
        notebook.complaints.clear()


def test_explore_has_a_viewer_of_its_volume_and_saves_no_widget_state(open_notebook):
    notebook = open_notebook("explore")
    notebook.run_all()
    viewer = ViewerPage(notebook.cell("explored_viewer"))
    assert SYNTHETIC_NOTE in viewer.root.inner_text()
    before = viewer.colour(0.5, 0.5)
    viewer.press("k", "ArrowRight")
    assert viewer.root.get_by_role("combobox", name="coil").input_value() == "0"
    assert viewer.colour(0.5, 0.5) != before
    assert "widgets" not in notebook.save().metadata


def test_slice_chosen_in_the_sorted_list_opens_in_linked_panes(open_notebook, lab):
    torch.manual_seed(0)
    network = VarNet(num_cascades=1, chans=2, pools=1, sens_chans=2, sens_pools=1)
    torch.save(network.state_dict(), lab.project / "weights.pt")
    files = sorted((lab.project / "datasets/brain_multicoil/multicoil_val").glob("*.h5"))
    lines = [f"{path.stem},{n},No,10,10,12,9,Mass" for path in files for n in range(4)]
    head = "file,slice,study_level,x,y,width,height,label"
    (lab.project / "findings.csv").write_text("\n".join([head, *lines]))
    notebook = open_notebook([RECONSTRUCTED, "volumes.open(0, 3)"])
    notebook.run_all()
    cell = notebook.cell("SliceBrowser(Results")
    viewer = ViewerPage(cell)
    panes = viewer.root.locator("figcaption strong").all_inner_texts()
    assert panes == ["target", "zero-filled", "VarNet", "error of VarNet", "SSIM map of VarNet"]
    assert viewer.number == 3
    viewer.press("Shift+ArrowDown", pane=2)
    assert viewer.value(3) == pytest.approx(abs(viewer.value(2) - viewer.value(0)), rel=1e-3)
    value, volumes = viewer.value(0), cell.get_by_role("combobox", name="volume")
    volumes.select_option(index=1)
    slice_shown = viewer.root.locator(".workbench-slice")
    expect(slice_shown).to_have_text(re.compile(r"^2\b"))
    viewer.press("End", "Shift+ArrowDown")
    assert viewer.value(0) != value

    slices = cell.get_by_label("slice", exact=True).first
    names = [name.replace("\xa0", " ") for name in slices.locator("option").all_text_contents()]
    assert len(names) == 8
    psnr = [float(name.split("PSNR ")[1].split(" ")[0]) for name in names]
    assert psnr == sorted(psnr)
    for place in (5, 0):
        slices.select_option(index=place)
        volume, number = names[place].split(":")[0].split(", slice ")
        expect(slice_shown).to_have_text(re.compile(rf"^{number}\b"))
        chosen = volumes.locator("option:checked")
        expect(chosen).to_have_text(re.compile(rf"^{volume}\b"))
    cell.get_by_label("best first").check()
    best = re.compile(names[-1].replace(" ", r"\s"))
    expect(slices.locator("option").first).to_have_text(best)
