import math
from dataclasses import replace

import h5py
import numpy as np
import pytest

from workbench.views.ranking import check_order, rank_slices, rank_volumes, slice_table
from workbench.views.reconstruct import extreme_slices, score_table
from workbench.views.viewer.slice_browser import SliceBrowser


def scored(result, name, ssim, nmse, slices):
    score = {"ssim": ssim, "psnr": 30.0, "nmse": nmse}
    return replace(
        result,
        path=result.path.with_name(name),
        scores={"reconstruction": score, "zero_filled": score | {"ssim": 0.5}},
        slice_ssim=slices,
    )


@pytest.fixture
def found(reconstructed, in_project):
    first = reconstructed()[0]
    found = (
        scored(first, "a.h5", 0.9, 0.01, (0.95, 0.85)),
        scored(first, "b.h5", 0.7, 0.03, (0.7, 0.7)),
        scored(first, "c.h5", 0.8, 0.05, (0.6, 1.0)),
    )
    return replace(reconstructed(), items=found)


def names(results):
    return "".join(result.path.stem for result in results)


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [("ssim", "bca"), ("-ssim", "acb"), ("nmse", "cba"), ("GAIN", "bca"), ("volume", "abc")],
)
def test_worst_volume_comes_first(found, sort_by, order):
    assert names(rank_volumes(found, sort_by)) == order


def test_volume_that_is_not_finite_comes_before_all(found):
    found[0].scores["reconstruction"]["ssim"] = math.nan
    assert names(rank_volumes(found)) == "abc"
    assert names(rank_volumes(found, "-ssim")) == "acb"


@pytest.mark.parametrize("wrong", ["sharpness", "", None, 3])
def test_wrong_figure_is_named_with_those_there_are(wrong):
    with pytest.raises(ValueError, match=r"sort_by=.*ssim, psnr, nmse, gain"):
        check_order(wrong)


def test_slices_are_in_order_across_volumes(found):
    ranked = rank_slices(found, "ssim")
    assert [(each.result.path.stem, each.number) for each in ranked][:3] == [
        ("c", 0),
        ("b", 0),
        ("b", 1),
    ]
    by_volume = rank_slices(found, "zero_filled_nmse")
    assert [each.result.path.stem for each in by_volume] == list("ccbbaa")


def test_slices_psnr_and_nmse_are_those_of_image_and_target(reconstructed, in_project):
    ranked = rank_slices(reconstructed(), "psnr")
    psnr = [each.scores["psnr"] for each in ranked]
    assert psnr == sorted(psnr)
    one = ranked[0]
    with h5py.File(one.result.path) as file:
        image = file["reconstruction"][one.number].astype(float)
    with h5py.File(in_project / "datasets/knee_multicoil" / one.result.volume.path) as file:
        targets = file["reconstruction_rss"][()].astype(float)
    error = ((image - targets[one.number]) ** 2).mean()
    assert one.scores["psnr"] == pytest.approx(10 * np.log10(targets.max() ** 2 / error))
    assert one.scores["nmse"] == pytest.approx(error / (targets[one.number] ** 2).mean())
    table = slice_table(ranked, most=2)
    assert list(table.columns) == ["volume", "slice", "acquisition", "SSIM", "PSNR (dB)", "NMSE"]
    assert len(table) == 2


def test_table_is_in_the_order_asked_for(found):
    html = score_table(found, sort_by="nmse").to_html()
    assert html.index("c.h5") < html.index("b.h5") < html.index("a.h5")


def test_extremes_pass_over_what_is_not_finite_and_name_it(found):
    first, second, third = found
    found = [first, replace(second, slice_ssim=(0.7, math.nan)), third]
    chosen = [(title, result.path.stem, n) for title, result, n in extreme_slices(found)]
    assert chosen[0] == ("not finite: first such slice", "b", 1)
    assert chosen[1] == ("best slice", "c", 1)
    assert chosen[3] == ("worst slice", "c", 0)


def test_slice_chosen_in_the_list_opens_in_the_viewer(reconstructed, in_project, tmp_path):
    from workbench.views.annotations import read_annotations

    path = tmp_path / "knee.csv"
    path.write_text(
        "file,slice,study_level,x,y,width,height,label\nfile1000002,2,No,4,6,10,5,Mass\n"
    )
    results = reconstructed()
    browser = SliceBrowser(results, "ssim", read_annotations(path))
    ranked = rank_slices(browser.results)
    assert len(browser.list.options) == 7
    for index in (6, 0, 3):
        browser.list.index = index
        chosen = ranked[index]
        assert browser.results[browser.volume.value] is chosen.result
        assert browser.viewer.slice_number == chosen.number
    browser.order.value = "psnr"
    assert browser.list.index is None
    assert "PSNR" in browser.list.options[0]
    before = browser.list.options
    browser.best_first.value = True
    assert browser.list.options == before[::-1]
    (box,) = read_annotations(path).boxes(results[1].volume)
    place = {"x": 4, "y": 32 - 6 - 5, "width": 10, "height": 5}
    assert box == {"slice": 2, "label": "Mass", **place}
