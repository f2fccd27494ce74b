import base64
from dataclasses import replace

import h5py
import nbformat
import numpy as np
import papermill
import pytest
import torch
from fastmri.data.transforms import VarNetDataTransform

from demo.phantom.writing import write_volume
from workbench.data.cache import open_cache
from workbench.data.images import center_crop, centered_fft2, centered_ifft2, zero_filled
from workbench.data.masks import mask_of
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset, keep_columns
from workbench.recon.uncertainty import masks_for
from workbench.settings import project_root
from workbench.views import explore
from workbench.views.annotations import read_annotations
from workbench.views.explorer import SlicePicture, explorer
from workbench.views.header import attribute_table, header_table
from workbench.views.style import SYNTHETIC_NOTE
from workbench.views.viewer.panes import volume_pane

NOTEBOOK = project_root() / "notebooks/explore.ipynb"
SAMPLING = Sampling("equispaced", (4,), (0.08,))


def make(path, *, slices=3, coils=2, matrix=(48, 40), recon=(24, 32), own_mask=False):
    """Write smooth objects heard by smooth coils, in fastMRI's format."""
    rows, columns = (np.linspace(-1, 1, size) for size in matrix)
    distance = np.hypot(2 * rows[:, None], 1.3 * columns)
    kspace = np.zeros((slices, coils, *matrix), np.complex64)
    acquired = (3, matrix[1] - 1)
    for number in range(slices):
        for coil in range(coils):
            sensitivity = np.exp(-((columns - np.cos(np.pi * coil)) ** 2) + 1j * columns)
            image = (distance < 0.8 - 0.1 * number) * (1 + 0.4 * np.sin(9 * columns)) * sensitivity
            kspace[number, coil] = centered_fft2(1e-4 * image.astype(np.complex64))
    kspace[..., : acquired[0]] = kspace[..., acquired[1] :] = 0
    mask = np.arange(matrix[1]) % 3 == 0
    mask[18:23] = True
    return write_volume(
        path,
        kspace=kspace * mask if own_mask else kspace,
        target=None if own_mask else np.stack([zero_filled(part, recon) for part in kspace]),
        recon=recon,
        acquired=acquired,
        acquisition="AXT2",
        patient_id="0123",
        mask=mask if own_mask else None,
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "brain_multicoil"
    make(root / "multicoil_train/file_brain_AXT2_1.h5")
    make(root / "multicoil_val/file_brain_AXT2_2.h5")
    make(root / "multicoil_test/file_brain_AXT2_3.h5", own_mask=True)
    return root


def test_own_mask_is_one_and_the_same_to_all_who_read_it(tmp_path):
    """Full k-space beside a mask that also names columns of the zero padding."""
    root = tmp_path / "brain_multicoil"
    path = make(root / "multicoil_test/file1.h5", own_mask=True)
    with h5py.File(path, "a") as file, h5py.File(make(tmp_path / "full.h5")) as other:
        full, mask = other["kspace"][1], file["mask"][()]
        file["kspace"][...] = other["kspace"][()]
    attributes = {"padding_left": 3, "padding_right": 39, "recon_size": (24, 32, 1)}
    reference = VarNetDataTransform()(full * mask, mask, None, attributes, path.name, 1)
    look = explore.open_slice(str(root))
    expected = reference.mask.numpy().ravel()
    assert expected.sum() < mask.sum() == len(look.volume.mask)
    [sample] = SliceDataset(open_cache(root).with_volumes([look.volume]), None, slices=[(0, 1)])
    for found in (
        sample.mask.numpy().ravel(),
        look.mask(SAMPLING)[0],
        mask_of(look.volume, None)[0],
        masks_for(look.volume, None, 2)[0].columns,
    ):
        assert np.array_equal(found, expected)
    assert explore.volume_table(look.volume).value["own mask"] == f"{expected.sum()} of 40 lines"
    kspace = reference.masked_kspace.numpy().view(np.complex64)[..., 0]
    pane = volume_pane(path, look.volume)
    image = zero_filled(kspace, look.crop)
    assert torch.equal(sample.masked_kspace, reference.masked_kspace)
    assert np.array_equal(look.kspace, kspace)
    assert np.array_equal(pane.read("kspace", 1, 0), kspace[0])
    assert np.array_equal(center_crop(pane.read("image", 1), look.crop), image)


def test_first_validation_volume_and_middle_slice_are_the_default(dataset):
    look = explore.open_slice(str(dataset))
    assert (look.volume.split, look.number) == ("val", 1)
    assert look.kspace.shape == (2, 48, 40)


def test_volume_is_found_with_and_without_its_extension(dataset):
    cache = open_cache(dataset)
    for name in (
        "file_brain_AXT2_3",
        "file_brain_AXT2_3.h5",
        "multicoil_test/file_brain_AXT2_3.h5",
    ):
        assert explore.find_volume(cache, name).split == "test"


def test_wrong_volume_lists_names_close_to_it(dataset):
    with pytest.raises(ValueError, match=r"volume='file_brain_AXT2_22'.*file_brain_AXT2_2\.h5"):
        explore.open_slice(str(dataset), "file_brain_AXT2_22")


@pytest.mark.parametrize("number", [3, -2])
def test_wrong_slice_says_which_there_are(dataset, number):
    with pytest.raises(ValueError, match=f"slice_number={number}: .* has slices 0 to 2"):
        explore.open_slice(str(dataset), slice_number=number)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": True}, "dataset=True: give a name"),
        ({"dataset": 4.5}, "dataset=4.5: give a name"),
        ({"volume": 4.5}, "volume=4.5: give a file's name"),
        ({"volume": None}, "volume=None: give a file's name"),
        ({"slice_number": "2"}, "slice_number='2': give a whole number"),
        ({"slice_number": True}, "slice_number=True: give a whole number"),
        ({"volume": 77}, "volume=77: .* volumes, such as"),
    ],
)
def test_parameters_of_a_wrong_type_are_refused(dataset, arguments, message):
    with pytest.raises(ValueError, match=message):
        explore.open_slice(**{"dataset": str(dataset)} | arguments)


def test_numbers_that_papermill_made_of_names_are_taken(dataset, tmp_path, monkeypatch):
    assert explore.open_slice(str(dataset), 3).volume.name == "file_brain_AXT2_3.h5"
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    make(tmp_path / "datasets/7/multicoil_val/file0012.h5")
    make(tmp_path / "datasets/7/multicoil_val/file112.h5")
    assert explore.open_slice(7, 12).volume.name == "file0012.h5"
    with pytest.raises(
        ValueError, match=r"volume=2: 2 volumes end so, such as file0012\.h5, file1"
    ):
        explore.open_slice(7, 2)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("equispaced", "4,8", 0.08), r"acceleration=\(4.0, 8.0\): give one number"),
        (("equispaced", "fast", 0.08), "acceleration='fast': give a number"),
        (("equispaced", 4, "0.08,0.04"), "center_fraction=.*give one number"),
        ((4, 4, 0.08), "mask=4: give one of random"),
    ],
)
def test_a_mask_that_makes_no_sense_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        explore.sampling_of(*given)


def test_one_number_as_text_is_a_number():
    assert explore.sampling_of("random", "4", "0.08") == Sampling("random", (4.0,), (0.08,))


def test_mask_is_the_one_of_validation_and_keeps_to_acquired_lines(dataset):
    look = explore.open_slice(str(dataset))
    mask, low_frequencies = look.mask(SAMPLING)
    assert low_frequencies == 3
    assert not mask[:3].any()
    assert not mask[39:].any()


def test_undersampled_volume_keeps_its_own_mask(dataset):
    look = explore.open_slice(str(dataset), "file_brain_AXT2_3")
    mask, low_frequencies = look.mask(SAMPLING)
    assert mask[18:23].all()
    assert low_frequencies == 5
    assert look.target is None


def test_table_holds_header_and_attributes(dataset):
    table = explore.volume_table(explore.open_slice(str(dataset)).volume)
    assert table.loc["k-space", "value"] == "48 × 40"
    assert table.loc["acquired lines", "value"] == "3 to 38"
    assert table.loc["patient_id", "value"] == "0123"


@pytest.mark.parametrize("volume", ["", "file_brain_AXT2_3"])
def test_every_figure_is_drawn_and_says_that_it_is_synthetic(dataset, volume):
    look = explore.open_slice(str(dataset), volume)
    figures = (
        explore.slices_figure(look),
        explore.frequencies_figure(look),
        explore.kspace_and_image_figure(look),
        explore.profiles_figure(look),
        explore.oversampling_figure(look),
        explore.padding_figure(look),
        explore.coil_images_figure(look),
        explore.combination_figure(look),
        explore.sensitivity_maps_figure(look, SAMPLING),
        explore.kspace_figure(look, SAMPLING),
        explore.spread_figure(look, SAMPLING),
        explore.aliasing_figure(look, SAMPLING),
        explore.masks_figure(look),
    )
    for figure in figures:
        assert figure.get_supxlabel() == SYNTHETIC_NOTE
        assert figure._repr_png_().startswith(b"\x89PNG")


def test_profile_says_how_much_of_the_energy_the_centre_holds(dataset):
    look = explore.open_slice(str(dataset))
    title = explore.profiles_figure(look).axes[1].get_title("left")
    power = np.abs(look.kspace.astype(complex)) ** 2
    share = 100 * power[..., 19:22].sum() / power.sum()
    assert title == f"the central 3 of 36 lines hold {share:.1f} % of the energy"


def test_half_of_the_readout_folds_what_lies_outside_into_the_image(dataset):
    look = explore.open_slice(str(dataset))
    image = np.zeros((48, 40), np.complex64)
    image[4:8] = 1  # outside the central 24 rows; half a field of view on, inside
    look = replace(look, kspace=centered_fft2(image)[None])
    whole, cut, folded = (
        axes.images[0].get_array() for axes in explore.oversampling_figure(look).axes[:3]
    )
    assert cut.max() < 1e-3 * whole.max()
    assert set(np.flatnonzero(folded.max(axis=1) > 0.1 * folded.max())) == set(range(16, 20))


def test_padding_keeps_the_brightness_and_adds_pixels_alone(dataset):
    figure = explore.padding_figure(explore.open_slice(str(dataset)))
    assert figure.get_suptitle().startswith("4 of 40 lines were never measured")
    alone, stored, more = (axes.images[0].get_array() for axes in figure.axes[:3])
    assert alone.shape[1] < stored.shape[1] < more.shape[1]
    assert alone.mean() == pytest.approx(stored.mean(), rel=0.05)
    np.testing.assert_allclose(more[:, ::2], stored, rtol=1e-3, atol=1e-3)


def test_annotated_slices_carry_their_boxes(dataset, tmp_path):
    path = tmp_path / "brain.csv"
    path.write_text(
        "file,slice,study_level,x,y,width,height,label\n"
        "file_brain_AXT2_2,1,No,4,6,10,5,Mass\nfile_brain_AXT2_2,1,No,1,1,3,3,Lacunar infarct\n"
        "file_brain_AXT2_2,2,No,4,6,10,5,Mass\nfile_brain_AXT2_2,0,Yes,,,,,Normal for age\n"
    )
    look = explore.open_slice(str(dataset))
    figure = explore.annotated_figure(look, read_annotations(path))
    assert "whole study: Normal for age" in " ".join(figure.get_suptitle().split())
    assert [axes.get_title() for axes in figure.axes[:2]] == ["slice 1", "slice 2"]
    assert [len(axes.patches) for axes in figure.axes[:2]] == [2, 1]
    other = explore.open_slice(str(dataset), "file_brain_AXT2_1")
    assert explore.annotated_figure(other, read_annotations(path)) is None


def test_header_and_attributes_are_shown_whole(dataset):
    look = explore.open_slice(str(dataset))
    header, attributes = header_table(look.file), attribute_table(look.file)
    assert header.loc["encoding/encodedSpace/matrixSize/y", "value"] == "40"
    assert (
        header.loc["encoding/reconSpace/fieldOfView_mm/x", "meaning"] == "mm, height of the image"
    )
    assert header.loc["sequenceParameters/TR", "meaning"] == "ms, repetition time"
    assert attributes.loc["patient_id", "value or shape"] == "0123"
    assert attributes.loc["kspace", "value or shape"] == "3 × 2 × 48 × 40"


def test_combination_is_the_target(dataset):
    figure = explore.combination_figure(explore.open_slice(str(dataset)))
    assert "to the last bit" in figure.get_suptitle()


def test_combination_says_how_far_it_is_from_another_target(dataset):
    look = explore.open_slice(str(dataset))
    look.target[10, 10] += 0.25 * look.data_range
    figure = explore.combination_figure(look)
    assert "is the target" not in figure.get_suptitle()
    assert "25 %" in figure.get_suptitle()


def test_sliders_redraw_what_they_choose(dataset):
    look = explore.open_slice(str(dataset))
    box = explorer(look, SAMPLING)
    sliders, message, shown = box.children
    number, coil, form, rate, centre = sliders.children
    for slider, value in ((number, 2), (coil, 1), (form, "random"), (rate, 2.0), (centre, 0.2)):
        before = shown.value
        slider.value = value
        assert shown.value != before
        assert not message.value
    expected = SlicePicture(look).draw(2, 1, Sampling("random", (2.0,), (0.2,)))
    assert shown.value == expected


def test_picture_shows_the_image_of_the_mask_that_was_chosen(dataset):
    look = explore.open_slice(str(dataset))
    picture = SlicePicture(look)
    for sampling in (SAMPLING, Sampling("random", (2,), (0.2,))):
        picture.draw(0, 1, sampling)
        kspace = keep_columns(look.other(0).kspace, look.mask(sampling)[0])
        panels = picture._figure.axes[:4]
        _, coil, combined, _ = (axes.images[0].get_array() for axes in panels)
        percent = 100 / look.data_range
        np.testing.assert_allclose(combined, percent * zero_filled(kspace, look.crop), rtol=1e-5)
        np.testing.assert_allclose(coil, percent * zero_filled(kspace[1], look.crop), rtol=1e-5)


def test_sliders_show_the_point_spread_of_the_mask_that_was_chosen(dataset):
    look = explore.open_slice(str(dataset))
    picture = SlicePicture(look)
    for sampling in (SAMPLING, Sampling("random", (2,), (0.2,))):
        picture.draw(0, 0, sampling)
        mask = look.mask(sampling)[0]
        shown = picture._figure.axes[4].lines[0].get_ydata()
        # One bright pixel, measured through the mask.
        pixel = np.zeros((1, 40), np.complex64)
        pixel[0, 20] = 1
        seen = np.abs(centered_ifft2(centered_fft2(pixel) * mask))[0]
        np.testing.assert_allclose(shown, 100 * seen / seen[20], atol=1e-3)
        assert "the strongest copy has" in picture._figure.axes[4].get_title("left")


def test_k_space_of_the_sliders_is_shown_as_stored_and_images_upright(dataset):
    picture = SlicePicture(explore.open_slice(str(dataset)))
    picture.draw(0, 0, SAMPLING)
    first, second = (axes.get_ylim() for axes in picture._figure.axes[:2])
    assert first[0] > first[1]
    assert second[0] < second[1]


def test_impossible_sliders_say_why_and_keep_the_picture(dataset):
    box = explorer(explore.open_slice(str(dataset)), Sampling("random", (4,), (0.08,)))
    sliders, message, shown = box.children
    before = shown.value
    sliders.children[4].value = 0.4
    assert "center_fraction=0.4 alone exceeds" in message.value
    assert shown.value == before


def test_sliders_of_an_undersampled_volume_leave_its_mask_alone(dataset):
    box = explorer(explore.open_slice(str(dataset), "file_brain_AXT2_3"), SAMPLING)
    assert [slider.disabled for slider in box.children[0].children] == [False, False] + [True] * 3


def run(output, **parameters):
    papermill.execute_notebook(
        NOTEBOOK, output, parameters, progress_bar=False, execution_timeout=300, log_output=False
    )
    return nbformat.read(output, 4)


def test_notebook_runs_headless_without_widgets(dataset, tmp_path):
    notebook = run(tmp_path / "explore.ipynb", dataset=str(dataset))
    pictures = [
        base64.b64decode(output.data["image/png"])
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 13
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    assert "widgets" not in notebook.metadata


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("mask", "radial", "mask='radial': give one of random, equispaced"),
        ("acceleration", 0.5, "acceleration=0.5: give 1 or more"),
        ("volume", "file_brain_AXT2_9", "volume='file_brain_AXT2_9': .* such as file_brain_AXT2_"),
    ],
)
def test_notebook_refuses_a_wrong_parameter_in_its_first_cell(dataset, name, value, said):
    cells = [cell for cell in nbformat.read(NOTEBOOK, 4).cells if cell.cell_type == "code"]
    names: dict[str, object] = {}
    exec(cells[0].source, names)
    names |= {"dataset": str(dataset), name: value}
    with pytest.raises(ValueError, match=said):
        exec(cells[1].source, names)


def test_notebooks_parameters_have_types_and_help():
    parameters = papermill.inspect_notebook(NOTEBOOK)
    assert list(parameters) == [
        "dataset",
        "volume",
        "slice_number",
        "mask",
        "acceleration",
        "center_fraction",
        "annotations",
    ]
    assert all(
        each["inferred_type_name"] != "None" and each["help"] for each in parameters.values()
    )


def test_notebook_is_stored_without_outputs():
    notebook = nbformat.read(NOTEBOOK, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
