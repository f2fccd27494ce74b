import h5py
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from workbench.data.describe import describe
from workbench.stores.disk import LocalFile
from workbench.views.export.geometry import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    plane_of,
    scan_geometry,
)
from workbench.views.reconstructions import contact_sheet, reconstruction_figure


def space(name, matrix, field):
    """A space of the header; ``field`` None leaves the field of view out."""
    sizes = "".join(f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", matrix, strict=True))
    given = "".join(
        f"<{axis}>{size}</{axis}>" for axis, size in zip("xyz", field or (), strict=False)
    )
    fields = f"<fieldOfView_mm>{given}</fieldOfView_mm>" if field else ""
    return f"<{name}><matrixSize>{sizes}</matrixSize>{fields}</{name}>"


@pytest.fixture
def geometry(tmp_path):
    """Geometry of a volume: (matrix, field of view) of each space, and the size of k-space."""

    def of(kspace, encoded, recon, more=""):
        header = (
            '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">'
            f"{more}<encoding>{space('encodedSpace', *encoded)}{space('reconSpace', *recon)}"
            "<encodingLimits><kspace_encoding_step_1><minimum>0</minimum>"
            f"<maximum>{kspace[1] - 1}</maximum><center>{encoded[0][1] // 2}</center>"
            "</kspace_encoding_step_1></encodingLimits></encoding></ismrmrdHeader>"
        )
        path = tmp_path / "file.h5"
        with h5py.File(path, "w") as file:
            file["kspace"] = np.ones((2, 1, *kspace), np.complex64)
            file["ismrmrd_header"] = header.encode()
        with LocalFile(path) as source:
            volume = describe(source, path="multicoil_test/file.h5", split="test")
        return scan_geometry(volume, path)

    return of


@pytest.mark.parametrize(
    ("kspace", "encoded", "recon", "pixel"),
    [
        # As most knees: an oversampled readout that is cropped away.
        ((64, 40), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), (160, 160, 4)), (5, 5)),
        # As some FLAIR: fewer columns than the scanner's image, so that the image is W x W.
        ((64, 26), ((64, 26, 1), (440, 220, 5)), ((40, 40, 1), (220, 220, 5)), (6.875, 220 / 26)),
        (
            (512, 213),
            ((512, 213, 1), (440, 220, 5)),
            ((320, 320, 1), (220, 220, 5)),
            (440 / 512, 220 / 213),
        ),
        # The scanner's own image is interpolated; ours is not.
        ((64, 40), ((64, 40, 1), (320, 200, 4)), ((64, 64, 1), (160, 200, 4)), (5, 5)),
        # Anisotropic, odd.
        ((63, 31), ((63, 31, 1), (252, 217, 3)), ((31, 31, 1), (124, 217, 3)), (4, 7)),
        # Filled with zeros, or cut, to another size than encoded: the field of view stays.
        ((64, 50), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), (160, 160, 4)), (5, 4)),
        ((64, 32), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), (160, 160, 4)), (5, 6.25)),
        ((80, 40), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), (160, 160, 4)), (4, 5)),
        # The readout's oversampling was taken off before the file was written.
        ((32, 40), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), (160, 160, 4)), (5, 5)),
        # What the scanner's image says does not matter.
        ((64, 40), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), None), (5, 5)),
    ],
)
def test_a_pixel_is_the_encoded_field_of_view_over_the_size_of_k_space(
    geometry, kspace, encoded, recon, pixel
):
    found = geometry(kspace, encoded, recon)
    assert found.pixel == pytest.approx(pixel)
    assert not any("1 mm" in text for text in found.assumed if "pixels" in text)
    # Another size than encoded is told.
    for size, full in zip(kspace, encoded[0], strict=False):
        assert size == full or any(str(size) in text for text in found.assumed)


@pytest.mark.parametrize("wrong", ["0", "-440", "nan", "inf", "1e30", "", "wide", "0.44"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_field_of_view_that_cannot_be_gives_pixels_of_1_mm_and_says_so(geometry, wrong, axis):
    field = ["320", "200", "4"]
    field[axis] = wrong
    found = geometry((64, 40), ((64, 40, 1), field), ((32, 32, 1), (160, 160, 4)))
    assert found.pixel == (1, 1)
    assert any("pixels of 1 mm" in text for text in found.assumed)


def test_a_header_without_fields_of_view_says_what_was_assumed(geometry):
    found = geometry((64, 40), ((64, 40, 1), None), ((32, 32, 1), None))
    assert (found.pixel, found.thickness) == ((1, 1), 1)
    assert {"pixels", "slices"} <= {text.partition(" of 1 mm")[0] for text in found.assumed}


@pytest.mark.parametrize(
    ("encoded", "recon", "thickness"),
    [
        ((1, 4.5), (1, 4.5), 4.5),
        ((20, 60), (16, 48), 3),
        ((1, 4.5), (1, "0"), 4.5),
        ((1, "-1"), (1, "nan"), 1),
    ],
)
def test_slices_are_as_thick_as_the_header_says(geometry, encoded, recon, thickness):
    found = geometry(
        (64, 40),
        ((64, 40, encoded[0]), (320, 200, encoded[1])),
        ((32, 32, recon[0]), (160, 160, recon[1])),
    )
    assert found.thickness == thickness
    assert any("gap" in text for text in found.assumed) == (encoded[0] == 1)


@pytest.mark.parametrize("wrong", ["nan", "inf", "-1", "long"])
def test_a_time_that_cannot_be_is_left_out(geometry, wrong):
    times = f"<sequenceParameters><TR>{wrong}</TR><TE>30</TE></sequenceParameters>"
    found = geometry((64, 40), ((64, 40, 1), (320, 200, 4)), ((32, 32, 1), None), times)
    assert "RepetitionTime" not in found.known
    assert found.known["EchoTime"] == 30


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


def test_figures_show_the_last_stored_row_on_top_and_keep_the_array(stored):
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
def test_acquisition_names_its_plane_which_is_right_handed(acquisition, plane):
    assert plane_of(acquisition) == plane
    assert tuple(np.cross(plane.right, plane.down)) == plane.next
