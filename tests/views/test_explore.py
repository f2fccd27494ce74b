import base64
import re
import subprocess
import sys
from dataclasses import replace

import h5py
import nbformat
import numpy as np
import papermill
import pytest
import torch
from fastmri.data.transforms import VarNetDataTransform

from tests.forms.turning import values
from tests.views.conftest import ACQUIRED, MATRIX, RECON, write
from workbench.data.cache import open_cache
from workbench.data.images import center_crop, centered_fft2, centered_ifft2, zero_filled
from workbench.data.masks import mask_of
from workbench.data.reading import keep_columns
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.forms.parameters import ParametersError
from workbench.pages.explore import ExplorePage
from workbench.recon.uncertainty import masks_for
from workbench.settings import project_root
from workbench.views import explore, undersampling
from workbench.views.annotations import read_annotations
from workbench.views.explored import find_volume, open_slice
from workbench.views.header import (
    attribute_table,
    header_table,
    repetitions_in_words,
    volume_table,
)
from workbench.views.kspace import acs_columns
from workbench.views.style import SYNTHETIC_NOTE
from workbench.views.tables import styled_table
from workbench.views.undersampling import SlicePicture, sliders
from workbench.views.viewer.panes import volume_pane

NOTEBOOK = project_root() / "notebooks/explore.ipynb"
SAMPLING = Sampling("equispaced", (4,), (0.08,))
OTHER = Sampling("random", (2.0,), (0.2,))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "brain_multicoil"
    for split, number in (("train", 1), ("val", 2), ("test", 3)):
        path = root / f"multicoil_{split}/file_brain_AXT2_{number}.h5"
        write(path, "AXT2", own_mask=split == "test")
    return str(root)


@pytest.fixture(scope="module")
def explored(dataset):
    return open_slice(dataset)


@pytest.fixture(scope="module")
def undersampled(dataset):
    return open_slice(dataset, "file_brain_AXT2_3")


def test_own_mask_is_one_and_the_same_to_all_who_read_it(tmp_path):
    """Full k-space beside a mask that also names columns of the zero padding."""
    root = tmp_path / "brain_multicoil"
    path = write(root / "multicoil_test/file1.h5", "AXT2", own_mask=True)
    with h5py.File(path, "a") as file, h5py.File(write(tmp_path / "full.h5", "AXT2")) as other:
        full, mask = other["kspace"][1], file["mask"][()]
        file["kspace"][...] = other["kspace"][()]
    attributes = {"padding_left": 2, "padding_right": 39, "recon_size": (*RECON, 1)}
    reference = VarNetDataTransform()(full * mask, mask, None, attributes, path.name, 1)
    explored = open_slice(str(root))
    expected = reference.mask.numpy().ravel()
    assert expected.sum() < mask.sum() == len(explored.volume.mask)
    [sample] = SliceDataset(open_cache(root).with_volumes([explored.volume]), None, slices=[(0, 1)])
    for found in (
        sample.mask.numpy().ravel(),
        explored.mask[0],
        mask_of(explored.volume, None)[0],
        masks_for(explored.volume, None, 2, explored.kspace)[0][0],
    ):
        assert np.array_equal(found, expected)
    assert volume_table(explored.volume).value["own mask"] == f"{expected.sum()} of 40 lines"
    kspace = reference.masked_kspace.numpy().view(np.complex64)[..., 0]
    pane = volume_pane(path, explored.volume)
    image = zero_filled(kspace, explored.crop)
    assert torch.equal(sample.masked_kspace, reference.masked_kspace)
    assert np.array_equal(explored.kspace, kspace)
    assert np.array_equal(pane.read("kspace", 1, 0), kspace[0])
    assert np.array_equal(center_crop(pane.read("image", 1), explored.crop), image)


@pytest.mark.parametrize("start", ["", "multicoil_test/"])
@pytest.mark.parametrize("end", ["", ".h5"])
def test_volume_is_found_with_and_without_folder_and_extension(dataset, start, end):
    cache = open_cache(dataset)
    assert find_volume(cache, f"{start}file_brain_AXT2_3{end}").split == "test"
    default = open_slice(dataset)
    assert (default.volume.split, default.number) == ("val", 1)
    assert default.kspace.shape == (2, 64, 40)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"volume": "77"}, "volume='77': .* volumes, such as .* cache is refreshed"),
        ({"volume": "file_brain_AXT2_22"}, r"volume='file_brain_AXT2_22'.*file_brain_AXT2_2\.h5"),
        ({"slice_number": 3}, "slice_number=3: .* has slices 0 to 2"),
        ({"slice_number": -2}, "slice_number=-2: .* has slices 0 to 2"),
    ],
)
def test_wrong_parameters_say_what_there_is(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        open_slice(**{"dataset": dataset} | arguments)
    with pytest.raises(ParametersError, match=message):
        ExplorePage.of({"dataset": dataset} | arguments).looked_at()


def test_volume_is_found_by_the_number_that_its_name_ends_with(dataset, tmp_path):
    assert open_slice(dataset, "3").volume.name == "file_brain_AXT2_3.h5"
    write(tmp_path / "multicoil_val/file0012.h5", "AXT2")
    write(tmp_path / "multicoil_val/file112.h5", "AXT2")
    assert open_slice(str(tmp_path), "12").volume.name == "file0012.h5"
    with pytest.raises(ValueError, match=r"volume='2': 2 volumes match, .* file0012\.h5, file112"):
        open_slice(str(tmp_path), "2")


def test_mask_is_the_volumes_own_or_that_of_validation_on_acquired_lines(explored, undersampled):
    mask, low_frequencies = explored.mask
    assert low_frequencies == 3
    assert not mask[: ACQUIRED[0]].any()
    assert not mask[ACQUIRED[1] :].any()
    mask, low_frequencies = undersampled.mask
    assert mask[18:23].all()
    assert low_frequencies == 0
    assert acs_columns(mask) == (18, 23)
    assert undersampled.target is None


def test_own_acs_lines_are_marked_where_they_are_however_lopsided(tmp_path):
    path = write(tmp_path / "brain/multicoil_test/file1.h5", "AXT2", own_mask=True)
    with h5py.File(path, "a") as file:
        mask = np.arange(MATRIX[1]) < 26  # partial Fourier
        file["mask"][...] = mask
        file["kspace"][...] = file["kspace"][()] * mask
    explored = open_slice(str(tmp_path / "brain"))
    figure = undersampling.kspace_figure(explored)
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert marks == [ACQUIRED[0] - 0.5, 25.5]
    assert "ACS 24 lines" in figure.get_suptitle()
    maps = undersampling.sensitivity_maps_figure(explored)
    assert "from 12 ACS lines" in " ".join(maps.get_suptitle().split())


def test_tables_hold_header_attributes_and_arrays(explored):
    table = volume_table(explored.volume)
    assert table.loc["k-space", "value"] == "64 × 40"
    assert table.loc["acquired lines", "value"] == "2 to 38"
    assert table.loc["patient_id", "value"] == "0123"
    header, attributes = header_table(explored.file), attribute_table(explored.file)
    assert header.loc["encoding/encodedSpace/matrixSize/y", "value"] == "40"
    height = header.loc["encoding/reconSpace/fieldOfView_mm/x", "meaning"]
    assert height == "mm, height of the image"
    assert header.loc["sequenceParameters/TR", "meaning"] == "ms, repetition time"
    assert attributes.loc["patient_id", "value or shape"] == "0123"
    assert attributes.loc["kspace", "value or shape"] == "3 × 2 × 64 × 40"


def with_header(path, old, new):
    with h5py.File(path, "a") as file:
        header = file["ismrmrd_header"][()].decode()
        assert old in header
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = header.replace(old, new)


USER = (
    "<userParameters><userParameterLong><name>EchoTrainLength</name><value>9</value>"
    "</userParameterLong></userParameters></ismrmrdHeader>"
)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("TurboSpinEcho", "TurboSpinEcho", "How many: not known"),
        ("</encoding>", "<echoTrainLength>9</echoTrainLength></encoding>", "9 lines .* 5 rep"),
        ("</ismrmrdHeader>", USER, "9 lines .*: the 37 lines of a slice take 5 repetitions"),
        ("</encoding>", "<echoTrainLength>1</echoTrainLength></encoding>", "one line: .* 37 rep"),
        ("TurboSpinEcho", "", "does not name the sequence. How many: not known"),
    ],
)
def test_lines_of_a_repetition_are_what_the_header_says(tmp_path, old, new, said):
    path = write(tmp_path / "multicoil_val/file1.h5", "AXT2")
    with_header(path, old, new)
    assert re.search(said, repetitions_in_words(path, open_slice(str(tmp_path)).volume))


def test_long_values_stand_in_tables_whole(tmp_path):
    path = write(tmp_path / "multicoil_val/file1.h5", "AXT2")
    with h5py.File(path, "a") as file:
        file.attrs["long"] = "a" * 200
    assert "a" * 200 in styled_table(attribute_table(path)).to_html()


def figures_of(explored):
    """Return every figure of the notebook."""
    figures = (
        *(explore.explored_viewer, explore.kspace_and_image_figure, explore.profiles_figure),
        *(explore.frequencies_figure, explore.coil_images_figure, explore.combination_figure),
        *(explore.oversampling_figure, explore.padding_figure),
        *(undersampling.sensitivity_maps_figure, undersampling.kspace_figure),
        *(undersampling.spread_figure, undersampling.aliasing_figure, undersampling.explorer),
    )
    return [figure(explored) for figure in figures]


def test_every_figure_says_that_it_is_synthetic_and_is_drawn_without_a_target(
    explored, undersampled
):
    """Those of a slice with a target are drawn by the notebook, below."""
    drawn = figures_of(undersampled)
    assert all(figure._repr_png_().startswith(b"\x89PNG") for figure in drawn)
    for figure in (*drawn, *figures_of(explored)):
        assert figure.get_supxlabel() == SYNTHETIC_NOTE


def test_profile_says_how_much_of_the_energy_the_centre_holds(explored):
    title = explore.profiles_figure(explored).axes[1].get_title("left")
    power = np.abs(explored.kspace.astype(complex)) ** 2
    share = 100 * power[..., 19:22].sum() / power.sum()
    assert title == f"the central 3 of 37 lines hold {share:.1f} % of the energy"


def shown(figure, count):
    return [axes.images[0].get_array() for axes in figure.axes[:count]]


def test_half_of_the_readout_folds_what_lies_outside_into_the_image(explored):
    image = np.zeros((64, 40), np.complex64)
    image[4:8] = 1  # outside the central 32 rows; half a field of view on, inside
    moved = replace(explored, kspace=centered_fft2(image)[None])
    whole, cut, folded = shown(explore.oversampling_figure(moved), 3)
    assert cut.max() < 1e-3 * whole.max()
    assert set(np.flatnonzero(folded.max(axis=1) > 0.1 * folded.max())) == set(range(20, 24))


def test_padding_keeps_the_brightness_and_adds_pixels_only(explored):
    figure = explore.padding_figure(explored)
    assert figure.get_suptitle().startswith("3 of 40 lines were never measured")
    only, stored, more = shown(figure, 3)
    assert only.shape[1] < stored.shape[1] < more.shape[1]
    assert only.mean() == pytest.approx(stored.mean(), rel=0.05)
    np.testing.assert_allclose(more[:, ::2], stored, rtol=1e-3, atol=1e-3)


def test_annotated_slices_carry_their_boxes(dataset, explored, tmp_path):
    path = tmp_path / "brain.csv"
    path.write_text(
        "file,slice,study_level,x,y,width,height,label\n"
        "file_brain_AXT2_2,1,No,4,6,10,5,Mass\nfile_brain_AXT2_2,1,No,1,1,3,3,Lacunar infarct\n"
        "file_brain_AXT2_2,2,No,4,6,10,5,Mass\nfile_brain_AXT2_2,0,Yes,,,,,Normal for age\n"
    )
    figure = explore.annotated_figure(explored, read_annotations(path))
    assert "whole study: Normal for age" in " ".join(figure.get_suptitle().split())
    assert [axes.get_title() for axes in figure.axes[:2]] == ["slice 1", "slice 2"]
    assert [len(axes.patches) for axes in figure.axes[:2]] == [2, 1]
    other = open_slice(dataset, "file_brain_AXT2_1")
    assert explore.annotated_figure(other, read_annotations(path)) is None


def test_combination_is_the_target_or_says_how_far_from_it(explored):
    assert "to the last bit" in explore.combination_figure(explored).get_suptitle()
    target = explored.target.copy()
    target[10, 10] += 0.25 * explored.data_range
    title = explore.combination_figure(replace(explored, target=target)).get_suptitle()
    assert "is the target" not in title
    assert "25 %" in title


def test_equispaced_mask_spreads_to_every_fourth_of_the_width(explored, monkeypatch):
    equispaced = np.arange(40) % 4 == 0
    monkeypatch.setattr(type(explored), "mask", (equispaced, 1))
    lines = undersampling.spread_figure(explored).axes[0].collections[0].get_segments()
    peaks = sorted(round(line[0][0]) for line in lines if line[1][1] > 99)
    assert peaks == [-20, -10, 0, 10]


def test_sliders_redraw_what_they_choose(explored):
    row, message, picture = sliders(explored).children
    for slider, value in zip(row.children, (2, 1, "random", 2.0, 0.2), strict=True):
        before = picture.value
        slider.value = value
        assert picture.value != before
        assert not message.value
    assert picture.value == SlicePicture(explored).draw(2, 1, OTHER)
    assert "masked k-space true acceleration" in picture.value.partition('alt="')[2]


def test_impossible_sliders_say_why_and_own_masks_have_none(explored, undersampled):
    row, message, picture = sliders(
        replace(explored, sampling=Sampling("random", (4,), (0.08,)))
    ).children
    before = picture.value
    row.children[4].value = 0.4
    assert "center_fraction=0.4 alone exceeds" in message.value
    assert picture.value == before
    row = sliders(undersampled).children[0]
    assert [slider.disabled for slider in row.children] == [False, False] + [True] * 3


def test_picture_shows_images_and_point_spread_of_the_mask_that_was_chosen(explored):
    picture, percent = SlicePicture(explored), 100 / explored.data_range
    for sampling in (SAMPLING, OTHER):
        picture.draw(0, 1, sampling)
        mask = replace(explored, sampling=sampling).mask[0]
        kspace = keep_columns(explored.other(0).kspace, mask)
        _, coil, combined, _ = shown(picture.figure, 4)
        for seen, measured in ((combined, kspace), (coil, kspace[1])):
            expected = percent * zero_filled(measured, explored.crop)
            np.testing.assert_allclose(seen, expected, rtol=1e-5)
        pixel = np.zeros((1, 40), np.complex64)  # one bright pixel, measured through the mask
        pixel[0, 20] = 1
        seen = np.abs(centered_ifft2(centered_fft2(pixel) * mask))[0]
        spread = picture.figure.axes[4]
        np.testing.assert_allclose(spread.lines[0].get_ydata(), 100 * seen / seen[20], atol=1e-3)
        assert "the strongest copy has" in spread.get_title("left")
    first, second = (axes.get_ylim() for axes in picture.figure.axes[:2])
    assert first[0] > first[1]  # k-space is shown as stored, images upright
    assert second[0] < second[1]


def test_notebook_runs_headless_without_widgets(dataset, tmp_path):
    output = tmp_path / "explore.ipynb"
    papermill.execute_notebook(NOTEBOOK, output, {"dataset": dataset}, progress_bar=False)
    notebook = nbformat.read(output, 4)
    pictures = [
        base64.b64decode(output.data["image/png"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 13
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "widgets" not in notebook.metadata


def test_a_slice_is_of_the_dataset_as_it_is_also_where_its_index_cannot_be_renewed(
    small_disk, tmp_path, monkeypatch
):
    """As on a mount that is indexed by somebody else, and has got other files since."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    root = small_disk("16m", tmp_path / "datasets/brain_multicoil")
    path = write(root / "multicoil_val/file_2.h5", "AXT2")
    open_cache(root)
    write(root / "multicoil_val/file_1.h5", "AXT1")
    write(path, "AXT2", slices=5)
    subprocess.run(["mount", "-o", "remount,ro", str(root)], check=True)
    page = ExplorePage.of(values(ExplorePage, dataset="brain_multicoil"))
    seen = page.result(page.work(page.plan()))
    assert (seen.volume.name, seen.volume.acquisition) == ("file_1.h5", "AXT1")
    page = page.model_copy(update={"volume": "file_2"})
    seen = page.result(page.work(page.plan()))
    with h5py.File(path) as file:
        assert (seen.volume.slices, seen.number) == (5, 2)
        assert np.array_equal(seen.kspace, file["kspace"][2])


SEE = """
import sys
from workbench.pages.explore import ExplorePage
from workbench.views import explore
page = ExplorePage.of({"dataset": sys.argv[1]}).looked_at()
seen = page.result(page.work(page.plan()))
assert explore.explored_viewer(seen).axes
assert explore.kspace_and_image_figure(seen).axes
assert not {"torch", "fastmri"} & sys.modules.keys()
"""


def test_a_slice_is_shown_without_torch_which_takes_seconds(dataset):
    subprocess.run([sys.executable, "-c", SEE, dataset], check=True)
