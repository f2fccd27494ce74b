"""Tables and figures of what a dataset holds, and the notebook that shows them."""

import base64
import pickle
from dataclasses import replace
from pathlib import Path

import h5py
import nbformat
import numpy as np
import papermill
import pytest

from workbench.catalog import DATASETS
from workbench.data.cache import build_cache
from workbench.data.volume import Problem
from workbench.views import overview
from workbench_demo.phantom.writing import write_volume

NOTEBOOK = Path(__file__).parents[2] / "notebooks/cache.ipynb"


@pytest.fixture
def dataset(tmp_path):
    """Two training and two validation knees, 10 slices, of two sizes and two acquisitions."""
    root = tmp_path / "datasets/knee_multicoil"
    for number, (split, slices, coils, width, acquired) in enumerate(
        (
            ("train", 2, 4, 14, (2, 13)),
            ("train", 3, 4, 14, (0, 14)),
            ("val", 4, 8, 18, (0, 18)),
            ("val", 1, 4, 14, (0, 14)),
        )
    ):
        write_volume(
            root / f"multicoil_{split}/file{number}.h5",
            kspace=np.ones((slices, coils, 20, width), np.complex64),
            target=np.ones((slices, 10, 10), np.float32),
            acquisition=("CORPD_FBK", "CORPDFS_FBK")[number % 2],
            patient_id="0123",
            acquired=acquired,
        )
    return root


def texts(figure):
    found = [figure._suptitle.get_text(), figure._supxlabel and figure._supxlabel.get_text()]
    for axes in figure.axes:
        found += [text.get_text() for text in axes.texts]
        found += [axes.get_xlabel(), axes.get_ylabel()]
        found += [label.get_text() for label in axes.get_yticklabels()]
    return found


def test_splits_are_counted_against_the_official_numbers(dataset):
    cache = build_cache(dataset)
    table = overview.split_table(cache, overview.official_counts(cache))
    assert list(table.index) == ["train", "val", "test"]
    assert table.loc["train", "volumes"] == "2"
    assert table.loc["train", "of fastMRI's"] == "973 (0.2 %)"
    assert table.loc["val", "slices"] == "5"
    assert table.loc["test", "volumes"] == "0"
    assert table.loc["val", "folders"] == "multicoil_val"


def test_official_counts_go_by_the_folder_or_the_name_given(dataset, tmp_path):
    cache = build_cache(dataset)
    assert overview.official_counts(cache) == DATASETS["knee_multicoil"].counts
    moved = build_cache(dataset.rename(tmp_path / "mine"))
    assert overview.official_counts(moved) == {}
    assert overview.official_counts(moved, "brain_multicoil")["test"] == (558, 8852)
    assert "of fastMRI's" not in overview.split_table(moved, {}).to_numpy()


def test_acquisitions_are_tabled_with_their_sizes(dataset):
    table = overview.acquisition_table(build_cache(dataset))
    row = table.loc[("val", "CORPD_FBK")]
    assert (row["volumes"], row["slices"], row["coils"]) == ("1", "4", "8")
    assert (row["readout"], row["phase encodes"], row["image"]) == ("20", "18", "10×10")
    assert table.loc[("train", "CORPD_FBK"), "of them acquired"] == "11"


def test_a_dataset_that_lacks_one_volume_is_not_all_there(dataset):
    cache = build_cache(dataset)
    lacking = {"train": (len(cache.split("train")) + 5000, 5), "val": (1, 1)}
    assert overview.split_table(cache, lacking)["of fastMRI's"]["train"].endswith("(0.1 %)")
    volumes = [replace(volume, path=f"{n}.h5") for n in range(4999) for volume in cache[:1]]
    many = cache.with_volumes(volumes)
    (split,) = many.counts
    figure = overview.completeness_figure(many, {split: (5000, 1)})
    assert "99.9 % of fastMRI's volumes are here" in figure.get_suptitle()
    other = "val" if split == "train" else "train"
    figure = overview.completeness_figure(many, {split: (4000, 1), other: (999, 1)})
    assert "80 % of fastMRI's volumes are here" in figure.get_suptitle()


def test_a_complete_dataset_shows_as_such(dataset):
    figure = overview.completeness_figure(build_cache(dataset), {"train": (2, 5), "val": (4, 9)})
    found = texts(figure)
    assert "knee_multicoil: 67 % of fastMRI's volumes are here" in found
    assert "2 of 4 volumes" in found
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == [100, 100, 100, 50]


@pytest.mark.parametrize(
    ("quantity", "title", "labels", "totals"),
    [
        ("acquisition", "volumes by acquisition", ["CORPD_FBK", "CORPDFS_FBK"], [2, 2]),
        ("coils", "4 to 8 receive coils a volume", ["4", "8"], [3, 1]),
        (
            "matrix",
            "2 k-space sizes; only slices of one size fit in a batch",
            ["20 × 14", "20 × 18"],
            [3, 1],
        ),
        ("slices", "1 to 4 slices a volume", ["1", "2", "3", "4"], [1, 1, 1, 1]),
    ],
)
def test_a_distribution_counts_every_volume_once(dataset, quantity, title, labels, totals):
    figure = overview.distribution_figure(build_cache(dataset), quantity)
    (axes,) = figure.axes
    assert figure._suptitle.get_text() == f"knee_multicoil: {title}"
    assert [label.get_text() for label in axes.get_yticklabels()] == labels
    assert [text.get_text() for text in axes.texts] == [str(total) for total in totals]
    assert sum(bar.get_width() for bar in axes.patches) == 4
    assert axes.get_xlabel() == "volumes"
    assert axes.get_ylabel()


def test_figures_of_phantoms_say_so_and_figures_of_patients_do_not(dataset):
    cache = build_cache(dataset)
    for figure in (
        overview.distribution_figure(cache, "coils"),
        overview.completeness_figure(cache, overview.official_counts(cache)),
    ):
        assert any("synthetic phantom" in str(text) for text in texts(figure))
    for file in dataset.rglob("*.h5"):
        with h5py.File(file, "a") as volume:
            del volume.attrs["synthetic"]
    cache = build_cache(dataset)
    figure = overview.distribution_figure(cache, "coils")
    assert not any("synthetic" in str(text) for text in texts(figure))


def test_a_dataset_without_a_volume_still_gives_a_page(dataset):
    for file in dataset.rglob("*.h5"):
        file.write_bytes(b"")
    cache = build_cache(dataset)
    assert len(overview.acquisition_table(cache)) == 0
    assert "no volumes" in overview.distribution_figure(cache, "matrix")._suptitle.get_text()
    assert "0 bytes" in overview.problem_table(cache.problems).to_html()
    reason = "it is truncated " + "x" * 200
    assert reason in overview.problem_table([Problem("file.h5", reason)]).to_html()


def test_the_notebook_shows_a_dataset_and_writes_and_compares_the_pickle(
    dataset, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    (dataset / "multicoil_train/broken.h5").write_bytes(b"no volume")
    done = tmp_path / "done.ipynb"
    papermill.execute_notebook(
        NOTEBOOK,
        done,
        {"export_pickle": "fastmri.pkl", "compare_pickle": "", "workers": 2},
        progress_bar=False,
        execution_timeout=120,
    )
    data = [output for cell in nbformat.read(done, 4).cells for output in cell.get("outputs", [])]
    shown = [output.get("data", {}) for output in data]
    printed = "".join(output.get("text", "") for output in data)
    printed += "".join(each.get("text/html", "") for each in shown)
    images = [base64.b64decode(each["image/png"]) for each in shown if "image/png" in each]
    assert "Built the dataset cache of datasets/knee_multicoil (4 volumes, 10 slices" in printed
    assert "Files left out: 1\n" in printed
    assert "it is no HDF5 file" in printed
    assert len(images) == 5
    assert all(image.startswith(b"\x89PNG") for image in images)
    with (tmp_path / "fastmri.pkl").open("rb") as file:
        assert len(pickle.load(file)[str(dataset / "multicoil_train")]) == 5
