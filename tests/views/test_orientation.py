import numpy as np
import pytest

from workbench.views.orientation import AXIAL, CORONAL, SAGITTAL, plane_of, upright
from workbench.views.reconstructions import contact_sheet, reconstruction_figure


@pytest.fixture
def stored():
    """An image as fastMRI stores it: what is on top in the patient is in the last rows."""
    image = np.zeros((20, 20), np.float32)
    image[16:, :] = 1
    image += 0.01 * np.arange(20)
    return image


def pixels(figure, axes):
    """What is seen inside some axes, as brightness (H, W), row 0 on top."""
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].mean(axis=-1)
    box = axes.get_window_extent()
    height = drawn.shape[0]
    return drawn[
        round(height - box.y1) + 2 : round(height - box.y0) - 2, round(box.x0) + 2 : round(box.x1)
    ]


def test_turning_twice_gives_the_stored_images_back():
    images = np.arange(24).reshape(2, 4, 3)
    assert (upright(images)[:, 0] == images[:, 3]).all()
    assert (upright(upright(images)) == images).all()


def test_figures_show_the_last_stored_row_on_top_and_keep_the_array(stored):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    for figure in (
        contact_sheet([stored], ["one"]),
        reconstruction_figure(stored, stored, {"VarNet": stored}),
    ):
        FigureCanvasAgg(figure)
        axes = next(axes for axes in figure.axes if axes.images)
        seen = pixels(figure, axes)
        quarter = len(seen) // 8
        assert seen[:quarter].mean() > 5 * seen[-quarter:].mean()
        shown = axes.images[0].get_array()
        assert shown[-1].mean() > shown[0].mean()


@pytest.mark.parametrize(
    ("acquisition", "plane"),
    [("AXT2", AXIAL), ("CORPDFS_FBK", CORONAL), ("SAGT1", SAGITTAL), ("", AXIAL)],
)
def test_acquisition_names_its_plane(acquisition, plane):
    assert plane_of(acquisition) == plane


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL])
def test_planes_are_right_handed(plane):
    assert tuple(np.cross(plane.right, plane.down)) == plane.next
