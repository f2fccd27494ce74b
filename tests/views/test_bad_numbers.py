"""Slices with numbers that are not finite, or with little in them: seen as far as they can be."""

import json
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.views.conftest import write
from workbench.views import explore
from workbench.views.viewer.panes import volume_pane

NOTEBOOK = Path(__file__).parents[2] / "notebooks/explore.ipynb"


def run_explore(folder, **values):
    """Run explore.ipynb's cells as papermill does; return what they showed."""
    shown = []
    variables = {}
    for cell in json.loads(NOTEBOOK.read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), variables)
            if "parameters" in cell["metadata"].get("tags", ()):
                variables |= {"dataset": str(folder), **values}
            if "display" in variables:
                variables["display"] = shown.append
    for each in shown:
        if hasattr(each, "_repr_png_"):
            assert each._repr_png_()
    return variables["look"], shown


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "multicoil_val/file1.h5", "AXT2")
    return tmp_path


def test_explored_slice_says_where_numbers_are_not_finite(folder, capsys):
    with h5py.File(folder / "multicoil_val/file1.h5", "a") as file:
        file["kspace"][1, 0, 3:6, 20] = np.nan
        file["kspace"][1, 1, 7, 21] = complex(0, np.inf)
        file["reconstruction_rss"][1, 4, 5] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        look, shown = run_explore(folder, slice_number=1)
    assert len(shown) > 12
    assert capsys.readouterr().out.splitlines()[1:7] == [
        "k-space, slice 1: 4 of 5120 numbers are NaN or infinite; they are drawn as 0",
        "  coil 0, column 20: 3",
        "  coil 1, column 21: 1",
        "reconstruction_rss, slice 1: 1 of 1024 numbers are NaN or infinite; they are drawn as 0",
        "  column 5: 1",
        "annotations=None: no findings to show",
    ]
    assert np.isfinite(look.kspace).all()
    assert "without numbers that are not finite" in look.title


@pytest.mark.parametrize("value", [0, np.nan])
def test_slice_without_any_signal_is_explored(folder, value):
    with h5py.File(folder / "multicoil_val/file1.h5", "a") as file:
        file["kspace"][1] = value
        file["reconstruction_rss"][1] = value
    _, shown = run_explore(folder, slice_number=1)
    assert len(shown) > 12


def test_volume_stored_undersampled_without_any_signal_is_explored(tmp_path):
    write(tmp_path / "multicoil_test/file1.h5", "AXT2", own_mask=True)
    with h5py.File(tmp_path / "multicoil_test/file1.h5", "a") as file:
        file["kspace"][...] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        _, shown = run_explore(tmp_path)
    assert len(shown) > 12


def test_k_space_too_large_for_its_square_is_explored(folder):
    with h5py.File(folder / "multicoil_val/file1.h5", "a") as file:
        file["kspace"][1, 0, 3, 20] = 3e38
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of the overflow
        _, shown = run_explore(folder, slice_number=1)
    assert len(shown) > 12


def test_other_slices_that_are_not_finite_are_marked_on_the_sheet(folder):
    with h5py.File(folder / "multicoil_val/file1.h5", "a") as file:
        file["kspace"][2, 0, 3, 20] = np.nan
    sheet = explore.slices_figure(explore.open_slice(str(folder), slice_number=0))
    assert [axes.get_title() for axes in sheet.axes[:3]] == [
        "slice 0",
        "slice 1",
        "slice 2\nnot all finite",
    ]


def test_viewer_shows_what_is_left_beside_a_number_that_is_not_finite(folder):
    look = explore.open_slice(str(folder), slice_number=1)
    whole = volume_pane(look.file, look.volume)
    with h5py.File(folder / "multicoil_val/file1.h5", "a") as file:
        file["kspace"][1, 0, 3, 20] = np.nan
    pane = volume_pane(look.file, look.volume)
    for coil in (None, 0, 1):
        np.testing.assert_allclose(
            pane.read("image", 1, coil), whole.read("image", 1, coil), atol=1e-4
        )
    assert np.isnan(pane.read("kspace", 1, 0)[3, 20])


def test_one_slice_of_one_coil_is_explored(tmp_path):
    write(tmp_path / "multicoil_val/file1.h5", "AXT2", slices=1, coils=1)
    _, shown = run_explore(tmp_path)
    assert len(shown) > 12
