import h5py
import numpy as np
import pytest

from tests.browser.notebook_page import NotebookPage
from tests.browser.sources import write_notebook
from tests.browser.viewer_page import ViewerPage
from workbench.data.images import centered_fft2, centered_ifft2, root_sum_of_squares

MEASURED = """
from workbench.data.cache import find_dataset, open_cache
from workbench.views.viewer.panes import error_pane, image_pane, volume_pane
from workbench.views.viewer.viewer import Viewer
cache = open_cache(find_dataset("brain_multicoil"))
volume = cache.split("val").volumes[0]
measured = Viewer([volume_pane(cache.file(volume), volume)], title="measured")
display(measured)"""
LINKED = """
import h5py
with h5py.File(cache.file(volume)) as file:
    target = file["reconstruction_rss"][()]
noisy, near = target + target.max() / 10, target * 0.9
parts = {"target": target, "zero-filled": noisy, "VarNet": near}
panes = [image_pane(name, part.__getitem__, len(part)) for name, part in parts.items()]
box = {"slice": 1, "x": 0, "y": 0, "width": 24, "height": 12, "label": "Lesion"}
linked = Viewer([*panes, error_pane(panes[2], panes[0])], boxes=[box])
display(linked)"""
SENT = "print('sent', measured.sent)"


@pytest.fixture(scope="module")
def notebook(lab, browser):
    """A notebook with a viewer of measured data and one of linked panes."""
    path = write_notebook([MEASURED, LINKED, SENT], None, lab.project / "notebooks")
    notebook = NotebookPage(lab, browser, path)
    notebook.run_all()
    yield notebook
    complaints = notebook.complaints
    notebook.close()
    assert complaints == []


@pytest.fixture
def measured(notebook):
    """The viewer of measured data, as it was in the beginning."""
    return fresh(notebook.cell("volume_pane(cache"))


@pytest.fixture
def linked(notebook):
    """The linked panes, as they were in the beginning."""
    return fresh(notebook.cell("error_pane(panes"))


def fresh(cell):
    viewer = ViewerPage(cell)
    viewer.root.get_by_role("button", name="window and zoom as they were").click()
    viewer.press("m", "Home", *["ArrowLeft"] * 3)
    return viewer


@pytest.fixture(scope="module")
def file(lab):
    with h5py.File(min((lab.project / "datasets/brain_multicoil/multicoil_val").iterdir())) as file:
        yield {name: file[name][()] for name in ("kspace", "reconstruction_rss")}


def five_digits(value):
    return float(f"{value:.4e}")


def test_wheel_and_keys_turn_slices_as_far_as_there_are(measured):
    measured.canvas().hover()
    for _ in range(2):
        measured.page.mouse.wheel(0, 120)
    measured.settle()
    assert measured.number == 2
    measured.page.mouse.wheel(0, -120)
    measured.settle()
    assert measured.number == 1
    for keys, number in ((["ArrowDown"], 2), (["End", "ArrowDown"], 3), (["Home", "ArrowUp"], 0)):
        measured.press(*keys)
        assert measured.number == number


def test_value_under_the_cursor_is_the_arrays_own_in_every_view(measured, file):
    kspace = file["kspace"][1]
    image, crop = centered_ifft2(kspace), file["reconstruction_rss"].shape[1:]
    top, left = (np.subtract(kspace.shape[1:], crop) // 2).tolist()
    measured.press("ArrowDown", "Shift+ArrowRight", "Shift+ArrowRight", "Shift+ArrowUp")
    row, column = measured.cursor
    at = top + row, left + column
    assert measured.value() == five_digits(root_sum_of_squares(image)[at])
    measured.press("ArrowRight", "ArrowRight")  # coil 1
    shown = {"m": np.abs(image), "p": np.angle(image), "r": image.real, "i": image.imag}
    for key, values in shown.items():
        measured.press(key)
        assert measured.value() == pytest.approx(values[1][at], rel=1e-4), key
    measured.press("k")
    assert measured.value() == pytest.approx(abs(kspace[1][measured.cursor]), rel=1e-4)


def test_mouse_reads_upright_images_as_they_are_stored(measured, file):
    target = file["reconstruction_rss"]
    for share in (0.3, 0.6):
        box = measured.canvas().bounding_box()
        measured.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + share * box["height"])
        assert measured.cursor[0] == pytest.approx((1 - share) * target.shape[1], abs=1)
        assert measured.value() == five_digits(target[(0, *measured.cursor)])


def test_image_without_coils_is_transformed_for_its_kspace(linked, file):
    linked.press("k", "Shift+ArrowRight")
    kspace = centered_fft2(file["reconstruction_rss"][0].astype(np.complex64))
    assert linked.value() == pytest.approx(abs(kspace[linked.cursor]), rel=1e-4)


def test_coil_is_sent_when_it_is_looked_at_and_once(notebook, measured):
    def sent():
        notebook.cell("print('sent'").locator(".cm-content").click()
        notebook.page.keyboard.press("Control+Enter")
        notebook.wait_until_idle()
        return int(notebook.output("print('sent'").inner_text().split()[1])

    def visit(coil):
        measured.root.get_by_role("combobox", name="coil").select_option(coil)
        for number in range(4):
            measured.root.get_by_role("slider", name="slice").fill(str(number))
            measured.settle()

    visit("all combined")
    before = sent()
    visit("2")
    assert sent() == before + 4
    visit("all combined")
    visit("2")
    assert sent() == before + 4


def test_dragging_and_keys_change_the_window_and_take_it_back(measured):
    low, high = measured.window()
    measured.drag(100, 0)
    wider = measured.window()
    assert wider[1] - wider[0] == pytest.approx(1.5 * (high - low), rel=0.02)
    dark = measured.colour(0.5, 0.5)
    measured.drag(0, -100)
    assert measured.window()[1] < wider[1]
    assert measured.colour(0.5, 0.5) > dark
    measured.canvas().dblclick()
    assert measured.window() == [low, high]
    measured.press("W")
    assert measured.window()[1] - measured.window()[0] > high - low
    measured.press("L")
    assert measured.window()[0] > low - 0.2 * (high - low)
    measured.press("a")
    assert measured.window() == [low, high]


def test_linked_panes_share_slice_cursor_and_window_but_the_errors(linked, file):
    linked.press("ArrowDown", "Shift+ArrowDown", pane=1)
    row, column = linked.cursor
    value = file["reconstruction_rss"][1, row, column]
    largest = file["reconstruction_rss"].max()
    assert linked.value(0) == five_digits(value)
    assert linked.value(1) == five_digits(value + largest / 10)
    assert linked.value(3) == pytest.approx(0.1 * value, rel=1e-3)
    before = linked.window(3)
    linked.drag(60, 0, pane=2)
    assert linked.window(0) == linked.window(1) == linked.window(2) != linked.window(3)
    assert linked.window(3) == before


def test_zoom_keeps_the_point_under_the_mouse_and_shift_drag_moves_it(linked):
    box = linked.canvas(1).bounding_box()
    place = box["x"] + 0.7 * box["width"], box["y"] + 0.4 * box["height"]
    linked.page.mouse.move(*place)
    before = linked.cursor
    linked.page.keyboard.down("Control")
    linked.page.mouse.wheel(0, -300)
    linked.page.keyboard.up("Control")
    assert "zoom 2.1" in linked.status
    assert linked.cursor == before
    linked.page.keyboard.down("Shift")
    linked.drag(-40, 0, pane=1)
    linked.page.keyboard.up("Shift")
    linked.page.mouse.move(*place)
    assert linked.cursor[0] == before[0]
    assert linked.cursor[1] > before[1]
    linked.press("0")
    assert "zoom" not in linked.status


def test_box_lies_on_its_slice_where_it_is_stored_and_turns_with_the_image(linked):
    yellow = lambda colour: colour[0] > 150 and colour[1] > 150 and colour[2] < 120  # noqa: E731
    upright, stored = (0.25, 0.75), (0.25, 0.25)  # the box's inner edge, a quarter of the rows in
    assert not yellow(linked.colour(*upright))
    linked.press("ArrowDown")
    assert yellow(linked.colour(*upright))
    assert not yellow(linked.colour(*stored))
    linked.press("f")
    assert yellow(linked.colour(*stored))
    assert not yellow(linked.colour(*upright))
    linked.press("b")
    assert not yellow(linked.colour(*stored))
    linked.press("f", "b")


def test_playing_goes_round_until_it_is_stopped(measured):
    measured.root.get_by_role("button", name="play").click()
    for number in (1, 3, 0):
        measured.root.locator(".workbench-slice", has_text=f"{number} of").wait_for()
    measured.root.get_by_role("button", name="stop").click()
    measured.root.get_by_role("button", name="play").wait_for()


def test_keys_are_listed_and_reach_the_viewer_alone(notebook, measured):
    cells = notebook.page.locator(".jp-Cell").count()
    measured.press("?")
    keys = measured.root.get_by_role("dialog", name="Keys")
    assert "window narrower, wider" in keys.inner_text()
    measured.page.keyboard.press("Escape")
    keys.wait_for(state="hidden")
    # In JupyterLab's command mode these add a cell above and below, and delete one.
    measured.press("a", "b", "d", "d", "b")
    assert notebook.page.locator(".jp-Cell").count() == cells


def test_every_control_is_reached_by_tab_and_has_a_name(measured):
    measured.root.get_by_role("slider", name="slice").focus()
    found = []
    for _ in range(8):
        found.append(
            measured.page.evaluate(
                """() => {
                  const e = document.activeElement;
                  const label = e.closest("label")?.firstChild.textContent ?? "";
                  return e.ariaLabel || label.trim();
                }"""
            )
        )
        measured.page.keyboard.press("Tab")
    assert found[:3] == ["slice", "play", "show"]
    assert found[3] == "coil"
    assert found[-2] == "keys"
    assert "magnitude, slice 0" in found[-1]
