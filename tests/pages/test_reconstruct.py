from dataclasses import replace

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tests.forms.turning import values
from workbench.forms.cells import show
from workbench.pages import reconstruct as views
from workbench.pages.reconstruct import ReconstructPage
from workbench.recon.metrics import METRICS
from workbench.views.uncertainty import uncertainty_figures

CSV = (
    "file,slice,study_level,x,y,width,height,label\n"
    "file1000001,1,No,4,6,10,5,Meniscus Tear\nfile1000002,0,Yes,,,,,Normal for age\n"
)


@pytest.fixture
def shown(monkeypatch):
    """What cells display."""
    found = []
    monkeypatch.setattr("IPython.display.display", found.append)
    return found


def asked(**changed):
    given = {"weights": "weights.pt", "local_dataset": "knee_multicoil"}
    return ReconstructPage.of(values(ReconstructPage, **given | changed))


def reconstruct(page):
    return page.result(page.work(page.plan()))


@pytest.fixture(scope="module", autouse=True)
def in_this_project(project):
    """The project of all tests here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_ROOT", str(project))
        yield


@pytest.fixture(scope="module")
def done(reconstructed, tmp_path_factory):
    """A reconstruction with all that can be asked for, its comparison made before."""
    reconstructed(acceleration=8, center_fraction=0.04)
    reconstructed()
    path = tmp_path_factory.mktemp("findings") / "knee.csv"
    path.write_text(CSV)
    parameters = asked(
        compare="weights@8x",
        sort_by="psnr",
        uncertainty=3,
        annotations=str(path),
        export="nifti",
    )
    return reconstruct(parameters)


def test_comparison_that_is_not_there_is_refused_before_any_work(done, capsys):
    with pytest.raises(FileNotFoundError, match=r"weights@6x.*make_missing=True"):
        asked(compare="weights@6x").plan()
    with pytest.raises(ValueError, match="'spiral' is neither a mask nor such as 8x"):
        asked(compare="weights@spiral", make_missing=True).plan()


def test_comparison_that_is_not_there_is_made_where_that_is_wanted(done, monkeypatch):
    wanted = []

    def plan(**given):
        wanted.append(given)
        return views_plan(**{"weights": "weights.pt", **given, "run": None})

    views_plan = views.plan_reconstruction
    monkeypatch.setattr(views, "plan_reconstruction", plan)
    parameters = asked(compare="weights@6x", make_missing=True, local_dataset="knee_multicoil")
    own, missing = parameters.plan()
    assert wanted[1]["run"] == "weights"
    assert wanted[1]["acceleration"] == 6
    assert own.folder != missing.folder
    assert missing.folder.name.startswith("val-equispaced-6x")


def test_method_with_other_options_is_made_where_that_is_wanted(done):
    compare = "wavelet@6x-iterations=2-regularisation=1e-05"
    own, missing = asked(compare=compare, make_missing=True).plan()
    assert (missing.config.iterations, missing.config.regularisation) == (2, 1e-05)
    assert missing.folder.parent == own.folder.parent
    assert missing.folder.name.endswith("-wavelet-regularisation=1e-05-iterations=2")
    assert missing.folder.name.startswith("val-equispaced-6x")


def test_every_cell_shows_something(done, shown, capsys):
    cells = {
        views.show_scores: 2,
        views.show_acquisitions: 2,
        views.show_compared: 4,
        views.show_extremes: 6,
        views.show_uncertainty: 3,
        views.show_findings: 2,
        views.show_volumes: 1,
        views.show_exports: 0,
    }
    for view, count in cells.items():
        shown.clear()
        show(view, done)
        assert len(shown) == count, view.__name__
        assert all(f._repr_png_() for f in shown if isinstance(f, Figure))
    printed = capsys.readouterr().out
    assert "file1000002.h5, the whole study: Normal for age" in printed
    assert "nifti       2 of them in outputs/weights/" in printed


def test_first_volumes_are_shown_where_more_are_there(done):
    fewer = reconstruct(asked(volumes=1))
    assert [each.name for each in fewer.results] == [done.results[0].name]
    assert len(reconstruct(asked()).results) == len(done.results) == 2


def test_a_volume_that_has_left_the_split_is_not_among_its_results(done, project):
    path = project / "datasets/knee_multicoil/multicoil_val/file1000002.h5"
    elsewhere = path.rename(project / path.name)
    try:
        assert [each.name for each in reconstruct(asked()).results] == ["file1000001.h5"]
    finally:
        elsewhere.rename(path)
    assert len(reconstruct(asked()).results) == 2


def test_cells_of_what_was_not_asked_for_say_so(done, shown, capsys):
    plain = replace(done, asked=asked(), compared=(), annotations=None)
    for view in (
        views.show_compared,
        views.show_uncertainty,
        views.show_findings,
        views.show_exports,
    ):
        show(view, plain)
    assert shown == []
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_one_volume_that_is_not_finite_stops_no_cell(done, shown, tmp_path, capsys):
    import h5py

    from workbench.recon.results import Results, read_result

    first, second = done.results
    broken = tmp_path / first.path.name
    broken.write_bytes(first.path.read_bytes())
    with h5py.File(broken, "a") as file:
        file["reconstruction"][1] = np.nan
        file.attrs["slice_ssim"] = [0.5, np.nan, 0.4]
        for metric in METRICS:
            file.attrs[f"reconstruction_{metric.name}"] = np.nan
    found = read_result(broken, first.volume, first.order), second
    one = replace(
        done,
        results=Results(done.results.folder, found, done.results.order),
        asked=asked(),
        compared=(),
    )
    for view in (
        views.show_scores,
        views.show_acquisitions,
        views.show_extremes,
        views.show_findings,
        views.show_volumes,
    ):
        show(view, one)
    figures = [each for each in shown if isinstance(each, Figure)]
    assert all(figure._repr_png_() for figure in figures)
    assert any(
        "not finite, left out of VarNet: file1000001.h5" in f.get_suptitle() for f in figures
    )
    titles = [axes.get_title() for figure in figures for axes in figure.axes]
    assert any("100 % of the pixels are not finite" in title for title in titles)


def test_maps_of_other_weights_than_the_results_are_refused(reconstructed, project):
    path, results = project / "weights.pt", reconstructed()
    before = path.read_bytes()
    torch.save({k: 1.1 * v for k, v in torch.load(path).items()}, path)
    try:
        with pytest.raises(ValueError, match=r"weights\.pt was written anew since"):
            next(uncertainty_figures(results, 3))
    finally:
        path.write_bytes(before)


def test_slice_with_one_possible_mask_has_no_map_and_says_so(reconstructed, capsys):
    results = reconstructed(acceleration=1, center_fraction=0.08)
    assert list(uncertainty_figures(results, 8)) == []
    assert "only one mask is possible" in capsys.readouterr().out
