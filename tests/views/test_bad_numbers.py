"""Data with NaN or infinity, or with little in it, is explored as far as possible."""

import json
import re
import warnings
from pathlib import Path

import h5py
import IPython.display
import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.views.conftest import write
from workbench.data.cache import build_cache
from workbench.views import explore, overview
from workbench.views.explored import open_slice
from workbench.views.header import attribute_table, header_table, volume_table
from workbench.views.style import png
from workbench.views.viewer.panes import volume_pane

NOTEBOOK = Path(__file__).parents[2] / "notebooks/explore.ipynb"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "multicoil_val/file1.h5", "AXT2")
    return tmp_path


def damage(folder, number=1, **arrays):
    """Overwrite parts of a volume: name of an array -> (place, value)."""
    with h5py.File(next(folder.rglob(f"file{number}.h5")), "a") as file:
        for name, (place, value) in arrays.items():
            file[name][place] = value


def run_explore(folder, warn="error", **values):
    """Run explore.ipynb's cells as papermill does, and draw what they show; return the slice."""
    shown, variables = [], {}
    with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(IPython.display, "display", shown.append)
        warnings.simplefilter(warn, RuntimeWarning)
        for cell in json.loads(NOTEBOOK.read_text())["cells"]:
            if cell["cell_type"] == "code":
                exec("".join(cell["source"]), variables)
                if "parameters" in cell["metadata"].get("tags", ()):
                    variables |= {"dataset": str(folder), **values}
        for each in shown:
            if isinstance(each, Figure):
                assert png(each)
    assert len(shown) > 12
    return variables["page"].result


def test_explored_slice_says_where_numbers_are_not_finite(folder, capsys):
    damage(folder, kspace=((1, 0, slice(3, 6), 20), np.nan), reconstruction_rss=((1, 4, 5), np.nan))
    damage(folder, kspace=((1, 1, 7, 21), complex(0, np.inf)))
    explored = run_explore(folder, slice_number=1)
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("k-space"))
    assert lines[first : first + 6] == [
        "k-space, slice 1: 4 of 5120 numbers are NaN or infinite; they are drawn as 0",
        "  coil 0, column 20: 3",
        "  coil 1, column 21: 1",
        "reconstruction_rss, slice 1: 1 of 1024 numbers are NaN or infinite; they are drawn as 0",
        "  column 5: 1",
        "annotations=None: no findings to show",
    ]
    assert np.isfinite(explored.kspace).all()
    assert "without numbers that are not finite" in explored.title


def test_slice_without_any_number_is_explored_as_one_without_signal(folder):
    damage(folder, kspace=(1, np.nan), reconstruction_rss=(1, np.nan))
    explored = run_explore(folder, slice_number=1)
    assert not explored.kspace.any()
    assert not explored.target.any()


@pytest.mark.parametrize("more", [{"own_mask": True}, {"slices": 1, "coils": 1}])
def test_volume_stored_undersampled_without_signal_or_of_one_coil_is_explored(tmp_path, more):
    write(tmp_path / "multicoil_test/file1.h5", "AXT2", **more)
    if more.get("own_mask"):
        damage(tmp_path, kspace=(..., 0))
    run_explore(tmp_path)


def test_k_space_too_large_for_its_square_is_explored(folder):
    damage(folder, kspace=((1, 0, 3, 20), 3e38))
    run_explore(folder, warn="ignore", slice_number=1)  # of the overflow


def test_other_slices_that_are_not_finite_are_marked_on_the_sheet(folder):
    damage(folder, kspace=((2, 0, 3, 20), np.nan))
    sheet = explore.slices_figure(open_slice(str(folder), slice_number=0))
    titles = [axes.get_title() for axes in sheet.axes[:3]]
    assert titles == ["slice 0", "slice 1", "slice 2\nnot all finite"]


def test_viewer_shows_what_is_left_beside_a_number_that_is_not_finite(folder):
    explored = open_slice(str(folder), slice_number=1)
    whole = volume_pane(explored.file, explored.volume)
    damage(folder, kspace=((1, 0, 3, 20), np.nan))
    pane = volume_pane(explored.file, explored.volume)
    for coil in (None, 0, 1):
        np.testing.assert_allclose(
            pane.read("image", 1, coil), whole.read("image", 1, coil), atol=1e-4
        )
    assert np.isnan(pane.read("kspace", 1, 0)[3, 20])


@pytest.fixture
def unknown(tmp_path):
    """Four volumes: NaN in the header, NaN for the acquisition, no acquisition, and a sound one."""
    attributes = ({"norm": np.nan}, {"acquisition": np.nan}, {"acquisition": ""}, {})
    for number, more in enumerate(attributes):
        path = write(tmp_path / f"multicoil_val/file{number}.h5", "AXT2")
        with h5py.File(path, "a") as file:
            file.attrs.update(more)
            if not number:
                header = file["ismrmrd_header"][()].decode()
                del file["ismrmrd_header"]
                file["ismrmrd_header"] = re.sub("<TR>.*</TR>", "<TR>nan</TR>", header)
    damage(tmp_path, 3, kspace=((0, 0, 0, 0), np.nan))
    return build_cache(tmp_path)


def test_overview_counts_volumes_with_unknown_numbers_apart(unknown):
    assert overview.split_table(unknown, {}).loc["val", "with NaN or Inf"] == "2"
    table = overview.acquisition_table(unknown)
    assert dict(table.loc["val", "volumes"]) == {"AXT2": "2", "not said": "1", "–": "1"}
    assert "with NaN or Inf" not in overview.split_table(unknown.only(acquisition=""), {})
    for quantity in ("acquisition", "coils", "matrix", "slices"):
        figure = overview.distribution_figure(unknown, quantity)
        assert figure._repr_png_()
        assert np.isfinite(figure.axes[0].get_xlim()).all()
        assert sum(bar.get_width() for bar in figure.axes[0].patches) == 4


def test_tables_show_a_dash_for_unknown_numbers_and_say_what_they_were(unknown):
    first, second = (unknown.volumes[number] for number in (0, 1))
    table = volume_table(first)
    assert table.loc["norm"].tolist() == ["–", "Euclidean norm of the target (not finite: nan)"]
    assert volume_table(second).loc["acquisition", "value"] == "–"
    header = header_table(unknown.file(first))
    assert header.loc["sequenceParameters/TR", "value"] == "–"
    assert header.loc["sequenceParameters/TR", "meaning"].endswith("(not finite: nan)")
    assert attribute_table(unknown.file(first)).loc["norm", "value or shape"] == "–"
