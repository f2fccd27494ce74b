"""Results in the order of a metric, and beside those of other runs and accelerations."""

import math
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from workbench.recon.metrics import METRICS
from workbench.recon.results import Results, read_result
from workbench.views.annotations import read_annotations
from workbench.views.compared import find_compared, labels_of, left_out_of_comparison
from workbench.views.comparison import comparing_figure, comparison_table
from workbench.views.export.report import run_report
from workbench.views.kspace import sampling_in_words
from workbench.views.ranking import (
    check_order,
    rank_slices,
    rank_volumes,
    score_table,
    slice_table,
)
from workbench.views.reconstructions import extreme_slices
from workbench.views.scores import EVERY, against_figure, spread_figure
from workbench.views.viewer.slice_browser import SliceBrowser

# ---- orders -------------------------------------------------------------------------------


def scored(result, name, ssim, nmse, slices):
    score = {"ssim": ssim, "psnr": 30.0, "nmse": nmse}
    scores = {"reconstruction": score, "zero_filled": score | {"ssim": 0.5}}
    path = result.path.with_name(name)
    return replace(result, path=path, scores=scores, slice_ssim=slices)


@pytest.fixture
def found(reconstructed, in_project):
    first = reconstructed()[0]
    found = (
        scored(first, "a.h5", 0.9, 0.01, (0.95, 0.85)),
        scored(first, "b.h5", 0.7, 0.03, (0.7, 0.7)),
        scored(first, "c.h5", 0.8, 0.05, (0.6, 1.0)),
    )
    return Results(reconstructed().folder, found)


def names(results):
    return "".join(result.path.stem for result in results)


@pytest.mark.parametrize(
    ("sort_by", "order"),
    [("ssim", "bca"), ("-ssim", "acb"), ("nmse", "cba"), ("GAIN", "bca"), ("volume", "abc")],
)
def test_worst_volume_comes_first(found, sort_by, order):
    assert names(rank_volumes(found, sort_by)) == order
    html = score_table(found, sort_by=sort_by).to_html()
    assert sorted("abc", key=lambda name: html.index(f"{name}.h5")) == list(order)


def test_volume_that_is_not_finite_comes_before_all(found):
    found[0].scores["reconstruction"]["ssim"] = math.nan
    assert names(rank_volumes(found)) == "abc"
    assert names(rank_volumes(found, "-ssim")) == "acb"


@pytest.mark.parametrize("wrong", ["sharpness", ""])
def test_wrong_order_is_named_with_those_there_are(wrong):
    with pytest.raises(ValueError, match=r"sort_by=.*ssim, psnr, nmse, gain"):
        check_order(wrong)


def test_slices_are_in_order_across_volumes(found):
    ranked = rank_slices(found, "ssim")
    assert names(ranked["result"][:3]) == "cbb"
    assert list(ranked["slice"][:3]) == [0, 0, 1]
    assert names(rank_slices(found, "zero_filled_nmse")["result"]) == "ccbbaa"


def test_slices_psnr_and_nmse_are_those_of_image_and_target(reconstructed, in_project):
    ranked = rank_slices(reconstructed(), "psnr")
    assert ranked["psnr"].is_monotonic_increasing
    one = ranked.iloc[0]
    number, result = one["slice"], one["result"]
    image = result.image(number).astype(float)
    with h5py.File(in_project / "datasets/knee_multicoil" / result.volume.path) as file:
        targets = file["reconstruction_rss"][()].astype(float)
    error = ((image - targets[number]) ** 2).mean()
    assert one.psnr == pytest.approx(10 * np.log10(targets.max() ** 2 / error))
    assert one.nmse == pytest.approx(error / (targets[number] ** 2).mean())
    table = slice_table(ranked, most=2)
    assert list(table.columns) == ["volume", "slice", "acquisition", "SSIM", "PSNR (dB)", "NMSE"]
    assert len(table) == 2


def test_extremes_pass_over_what_is_not_finite_and_name_it(found):
    first, second, third = found
    found = [first, replace(second, slice_ssim=(0.7, math.nan)), third]
    chosen = [(title, result.path.stem, n) for title, result, n in extreme_slices(found)]
    assert chosen[0] == ("not finite: first such slice", "b", 1)
    assert chosen[1] == ("best slice", "c", 1)
    assert chosen[3] == ("worst slice", "c", 0)


def test_slice_chosen_in_the_list_opens_in_the_viewer(reconstructed, in_project, tmp_path):
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
        chosen = ranked.iloc[index]
        assert browser.results[browser.volume.value] is chosen["result"]
        assert browser.viewer.slice_number == chosen["slice"]
    browser.order.value = "psnr"
    assert browser.list.index is None
    assert "PSNR" in browser.list.options[0]
    before = browser.list.options
    browser.best_first.value = True
    assert browser.list.options == before[::-1]
    (box,) = read_annotations(path).boxes(results[1].volume, (32, 32))
    place = {"x": 4, "y": 32 - 6 - 5, "width": 10, "height": 5}
    assert box == {"slice": 2, "label": "Mass", **place}


# ---- runs side by side --------------------------------------------------------------------


@pytest.fixture
def first(reconstructed, in_project):
    reconstructed(acceleration=8, center_fraction=0.04)
    reconstructed(mask="random")
    return reconstructed()


@pytest.fixture
def eight(first):
    (eight,) = find_compared("weights@8x", first.folder, first.order)
    return eight


@pytest.mark.parametrize(
    ("compare", "folders"),
    [
        (None, []),
        ("weights@8x", ["val-equispaced-8x-0.04"]),
        ("weights@random", ["val-random-4x-0.08"]),
        ("weights@random-4x, weights@8x", ["val-random-4x-0.08", "val-equispaced-8x-0.04"]),
        ("weights@4x", ["val-random-4x-0.08"]),
        ("weights@val-random-4x-0.08", ["val-random-4x-0.08"]),
    ],
)
def test_results_are_found_by_what_their_folder_says(first, compare, folders):
    assert [
        each.folder.name for each in find_compared(compare, first.folder, first.order)
    ] == folders


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        ("weights@6x", FileNotFoundError, r"weights@6x.*it has .*weights@val-random-4x"),
        ("nobody", FileNotFoundError, "nobody has no results"),
        ("", ValueError, "compare="),
        ("weights@equispaced-4x", ValueError, "these are the results themselves"),
        (" , ", ValueError, "compare="),
    ],
)
def test_comparison_with_what_is_not_there_says_what_is(first, wrong, error, said):
    with pytest.raises(error, match=said):
        find_compared(wrong, first.folder, first.order)


def test_results_of_weights_that_have_learned_on_since_are_compared_with_nothing(first, in_project):
    path, remark = in_project / "weights.pt", "weights that their file holds no more"
    before = path.read_bytes()
    assert remark not in run_report("weights").read_text()
    path.write_bytes(before + b"more")
    try:
        said = f"it has .*, made with {remark}.*make_missing=True"
        with pytest.raises(FileNotFoundError, match=said):
            find_compared("weights@8x", first.folder, first.order)
        assert run_report("weights").read_text().count(remark) >= 3
    finally:
        path.write_bytes(before)
    assert find_compared("weights@8x", first.folder, first.order)


def test_table_has_a_row_a_set_with_means_over_common_volumes(first, eight):
    path = first[0].volume.path
    table = comparison_table([first.only([path]), eight])
    assert list(table[("", "volumes")]) == [1, 1]
    by_name = dict(zip(table[("", "sampling")], table[("VarNet", "SSIM")], strict=True))
    for each in (first, eight):
        (result,) = each.only([path])
        assert by_name[str(each.order)] == f"{result.reconstruction['ssim']:.4f}"
    assert table[("VarNet", "SSIM")].astype(float).is_monotonic_increasing
    with pytest.raises(ValueError, match="no volume with a target in common"):
        comparison_table([first, eight.only([])])


def test_figure_has_each_set_at_its_true_acceleration(first, eight):
    figure = comparing_figure([eight, first])
    rates = figure.axes[0].lines[0].get_xdata()
    np.testing.assert_allclose(rates, sorted([first.acceleration, eight.acceleration]))
    assert figure._repr_png_()


def test_results_of_other_weights_than_a_run_has_learned_are_told_by_them(first, in_project):
    """By the run's name alone, released weights' scores stood for what the run had learned."""
    runs = [in_project / "outputs" / name for name in ("told/knee", "told/brain")]
    try:
        for run in runs:
            (run / "checkpoints").mkdir(parents=True)
            (run / "job.json").write_text("{}")
        knee = made_by(first, "told/knee", "b" * 64)
        brain = made_by(first, "told/brain", "c" * 64)
        own = replace(brain.order, weights=str(runs[1] / "checkpoints/best.ckpt"))
        brain = Results(brain.folder, brain, own)
        assert labels_of([knee, brain]) == ["told/knee, weights weights.pt bbbbbbbb", "told/brain"]
        table = comparison_table([knee, brain])
        assert list(table["", "weights"]) == ["best.ckpt cccccccc", "weights.pt bbbbbbbb"]
    finally:
        shutil.rmtree(in_project / "outputs/told")


def test_true_acceleration_counts_no_padding_as_the_figure_of_k_space_has_it(first, tmp_path):
    for result in first:
        (left, right), width = result.volume.acquired, result.volume.matrix[1]
        assert right - left < width
        kspace, _ = result.measured(0)
        mask, low = result.mask(kspace)
        words = sampling_in_words(mask, low, (left, right))
        assert f" {result.acceleration:.2f}× true acceleration" in words
        earlier = tmp_path / result.path.name  # which counted all columns
        shutil.copy(result.path, earlier)
        with h5py.File(earlier, "a") as file:
            del file.attrs["sampled"]
            file.attrs["acceleration"] = width / mask.sum()
        read = read_result(earlier, result.volume, first.order)
        assert read.acceleration == pytest.approx(result.acceleration)


def test_results_of_one_acceleration_stand_side_by_side_under_their_full_names(first):
    other = made_by(first, "team/a-run-with-a-name-that-is-long/second", first.order.weights_sha256)
    better = replace(first[0], scores=dict(first[0].scores))
    better.scores["reconstruction"] = better.reconstruction | {"ssim": 0.999}
    other = Results(other.folder, [better, *other[1:]], other.order)
    figure = comparing_figure([first, other])
    names = [label.get_text().replace("\n", "") for label in figure.axes[0].get_yticklabels()]
    assert names == ["weights", "team/a-run-with-a-name-that-is-long/second"]
    (title,) = [line for line in figure.get_suptitle().splitlines() if "highest" in line]
    mean = (0.999 + first[1].reconstruction["ssim"]) / 2
    assert title == f"The highest mean SSIM, {mean:.4f}: {other.run}"
    assert all(line.get_linestyle() == "None" for line in figure.axes[0].lines)
    figure.draw_without_rendering()
    for text in (*figure.axes[0].get_yticklabels(), figure._suptitle):
        box = text.get_window_extent()
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.width
    assert (
        "of 2 results at one acceleration"
        in comparing_figure(
            [first, made_by(first, "twin", first.order.weights_sha256)]
        ).get_suptitle()
    )


def test_line_joins_accelerations_and_not_centre_fractions(first, eight):
    joined = comparing_figure([first, eight]).axes[0].lines
    assert [len(line.get_xdata()) for line in joined] == [2, 2]
    sampling = replace(first.order.sampling, center_fractions=(0.04,))
    narrow = Results(
        first.folder.with_name("val-equispaced-4x-0.04"),
        first,
        replace(first.order, sampling=sampling),
    )
    lines = comparing_figure([first, narrow, eight]).axes[0].lines
    labels = {line.get_label(): len(line.get_xdata()) for line in lines}
    assert labels["weights, equispaced, centre 0.08, VarNet"] == 1
    assert labels["weights, equispaced, centre 0.04, VarNet"] == 2


def made_by(each, run, sha="a" * 64):
    """The same results as another run's, or those of other weights."""
    folder = each.folder.parents[2] / run / "reconstructions" / each.folder.name
    return Results(folder, each, replace(each.order, weights_sha256=sha))


def test_labels_say_what_differs_and_are_never_alike(first, eight):
    (random,) = find_compared("weights@random", first.folder, first.order)
    sha = first.order.weights_sha256
    assert labels_of([first, made_by(first, "team/weights", sha)]) == ["weights", "team/weights"]
    assert labels_of([first, random]) == ["weights, equispaced", "weights, random"]
    assert labels_of([first, eight]) == ["weights, 4x, centre 0.08", "weights, 8x, centre 0.04"]
    assert labels_of([first, made_by(first, "weights")]) == [
        f"weights, weights weights.pt {sha[:8]}",
        "weights, weights weights.pt aaaaaaaa",
    ]
    with pytest.raises(ValueError, match="is there twice"):
        labels_of([first, first])
    elsewhere = Results(first.folder.with_name("val-copy"), first, first.order)
    assert labels_of([first, elsewhere]) == [
        "weights@val-equispaced-4x-0.08",
        "weights@val-copy",
    ]
    table = comparison_table([first, made_by(first, "weights")])
    assert len(set(table[("", "weights")])) == 2


def test_infinite_psnr_leaves_its_volume_out_of_every_mean_which_is_said(first, eight):
    def perfect(each):
        one, *rest = each
        scores = one.scores | {"reconstruction": one.reconstruction | {"psnr": math.inf}}
        return Results(each.folder, [replace(one, scores=scores), *rest])

    table = comparison_table([first, perfect(eight)])
    assert list(table[("", "volumes")]) == [2, 2]
    expected = {f"{each[1].reconstruction['psnr']:.2f} (of 1)" for each in (first, eight)}
    assert set(table[("VarNet", "PSNR (dB)")]) == expected
    assert "PSNR (dB): mean of 1" in comparing_figure([first, perfect(eight)]).get_suptitle()
    table = score_table(perfect(first), by="acquisition")
    expected = f"{first[1].reconstruction['psnr']:.2f} (of 1)"
    assert table.data.loc[EVERY, ("VarNet", "PSNR (dB)")] == expected
    assert table.data.loc[EVERY, ("", "volumes")] == 2
    assert "∞" in score_table(perfect(first)).to_html()


def test_volumes_without_a_target_have_a_dash_and_are_counted_apart(first):
    results = Results(first.folder, [replace(first[0], scores={}), first[1]])
    assert score_table(results).to_html().count("–") == 2 * len(METRICS)
    table = score_table(results, by="acquisition")
    assert dict(table.data.loc[EVERY, ""][["volumes", "measured"]]) == {"volumes": 2, "measured": 1}
    html = table.to_html()
    assert "–" in html
    assert "nan" not in html


def test_acquisition_of_the_summarys_name_is_no_summary(first):
    volume = replace(first[0].volume, attributes={"acquisition": EVERY})
    results = Results(first.folder, [replace(first[0], volume=volume), first[1]])
    table = score_table(results, by="acquisition").data
    assert list(table.loc[EVERY, ("", "volumes")]) == [1, 2]
    ticks = spread_figure(results).axes[0].get_xticklabels()
    counts = sorted(
        label.get_text().split("\n")[-1] for label in ticks if EVERY in label.get_text()
    )
    assert counts == ["n = 1", "n = 2"]


def test_runs_over_different_volumes_are_compared_on_the_common_ones_which_is_said(first, eight):
    less = eight.only([eight[0].volume.path])
    said = left_out_of_comparison([first, less])
    assert said == (
        "Compared on the 1 volume that all have scored: weights, 4x, centre 0.08 has 2."
    )
    assert said in comparing_figure([first, less]).get_suptitle()
    assert left_out_of_comparison([first, eight]) == ""
    said = " ".join(against_figure(less, first).get_suptitle().split())
    assert "n = 1" in said
    assert "1 volume of weights, 4x, centre 0.08 alone is left out" in said
    # Another site's volume of the same path, or one that was converted anew.
    attributes = eight[0].volume.attributes | {"max": 2 * eight[0].volume.largest}
    volume = replace(eight[0].volume, attributes=attributes)
    for other in (replace(eight[0], fingerprint="other"), replace(eight[0], volume=volume)):
        mixed = Results(eight.folder, [other, eight[1]])
        assert list(comparison_table([first, mixed])[("", "volumes")]) == [1, 1]
        assert left_out_of_comparison([first, mixed]).count(" has 2") == 2
        assert "n = 1" in " ".join(against_figure(first, mixed).get_suptitle().split())
    unknown = Results(eight.folder, [replace(eight[0], fingerprint=""), eight[1]])
    assert list(comparison_table([first, unknown])[("", "volumes")]) == [2, 2]
    untargeted = Results(eight.folder, [replace(eight[0], scores={}), eight[1]])
    assert list(comparison_table([first, untargeted])[("", "volumes")]) == [1, 1]
