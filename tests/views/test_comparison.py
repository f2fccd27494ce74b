import math
from dataclasses import replace

import numpy as np
import pytest

from workbench.views.comparison import (
    ResultSet,
    acceleration_figure,
    comparison_table,
    find_compared,
    labels_of,
    left_out_of_comparison,
    open_results,
    own_results,
)
from workbench.views.reconstruct import against_figure, score_table


@pytest.fixture
def plan(reconstructed, in_project):
    reconstructed(acceleration=8, center_fraction=0.04)
    reconstructed(mask="random")
    return reconstructed()[0]


def names(sets):
    return [each.plan.folder.name for each in sets]


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
def test_results_are_found_by_what_their_folder_says(plan, compare, folders):
    assert names(find_compared(compare, plan)) == folders


def test_results_that_are_not_there_say_which_are(plan):
    with pytest.raises(FileNotFoundError, match=r"weights@6x.*it has .*weights@val-random-4x"):
        find_compared("weights@6x", plan)
    with pytest.raises(FileNotFoundError, match="nobody has no results"):
        find_compared("nobody", plan)


@pytest.mark.parametrize("wrong", [3, "", " , "])
def test_wrong_comparison_is_refused(plan, wrong):
    with pytest.raises(ValueError, match="compare="):
        find_compared(wrong, plan)


def test_opened_results_are_those_that_were_made(plan, reconstructed):
    opened = open_results(plan.folder)
    _, found = reconstructed()
    assert [r.path for r in opened.results] == [r.path for r in found]
    assert opened.plan.cache.root == plan.cache.root
    assert opened.plan.job.sampling == plan.job.sampling


def own(plan, reconstructed):
    return ResultSet("weights", plan, tuple(reconstructed()[1]))


def test_table_has_a_row_a_set_with_means_over_common_volumes(plan, reconstructed):
    first, *others = own(plan, reconstructed), *find_compared("weights@8x", plan)
    one_volume = first.only([first.results[0].volume])
    table = comparison_table([one_volume, *others])
    assert list(table[("", "volumes")]) == [1, 1]
    expected = [each.only([first.results[0].volume]).results[0] for each in (first, *others)]
    by_name = dict(zip(table[("", "sampling")], table[("VarNet", "SSIM")], strict=True))
    for each, result in zip((first, *others), expected, strict=True):
        assert by_name[each.sampling] == f"{result.varnet.ssim:.4f}"
    values = table[("VarNet", "SSIM")].astype(float)
    assert values.is_monotonic_increasing


def test_figure_has_each_set_at_its_true_acceleration(plan, reconstructed):
    first, *others = own(plan, reconstructed), *find_compared("weights@8x", plan)
    figure = acceleration_figure([first, *others])
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(
        line.get_xdata(), sorted([first.acceleration, *(each.acceleration for each in others)])
    )
    assert figure._repr_png_()


def test_sets_without_a_volume_in_common_are_refused(plan, reconstructed):
    first = own(plan, reconstructed)
    with pytest.raises(ValueError, match="no volume with a target in common"):
        comparison_table([first, first.only([])])


def made_by(each, run, sha="a" * 64):
    """The same results as another run's, or those of other weights."""
    folder = each.plan.folder.parents[2] / run / "reconstructions" / each.plan.folder.name
    job = replace(each.plan.job, weights_sha256=sha)
    return replace(each, run=run, plan=replace(each.plan, job=job, folder=folder))


def with_scores(each, **figures):
    """A set whose first volume has other figures."""
    first, *rest = each.results
    return replace(each, results=(replace(first, varnet=replace(first.varnet, **figures)), *rest))


def test_labels_say_what_differs_and_are_never_alike(plan, reconstructed):
    first = own(plan, reconstructed)
    (eight,) = find_compared("weights@8x", plan)
    (random,) = find_compared("weights@random", plan)
    sha = first.plan.job.weights_sha256
    assert labels_of([first, made_by(first, "team/weights", sha)]) == ["weights", "team/weights"]
    assert labels_of([first, random]) == ["weights, equispaced", "weights, random"]
    assert labels_of([first, eight]) == [
        "weights, 4x, centre 0.08",
        "weights, 8x, centre 0.04",
    ]
    assert labels_of([first, made_by(first, "weights")]) == [
        f"weights, weights weights.pt {sha[:8]}",
        "weights, weights weights.pt aaaaaaaa",
    ]
    elsewhere = replace(first, plan=replace(plan, folder=plan.folder.with_name("val-copy")))
    assert labels_of([first, elsewhere]) == [
        "weights@val-equispaced-4x-0.08",
        "weights@val-copy",
    ]


def test_own_results_bear_their_runs_whole_name(plan, reconstructed, in_project):
    folder = in_project / "outputs/team/weights/reconstructions" / plan.folder.name
    assert own_results(replace(plan, folder=folder), reconstructed()[1]).run == "team/weights"


def test_rows_of_one_run_with_two_weights_name_them(plan, reconstructed):
    first = own(plan, reconstructed)
    table = comparison_table([first, made_by(first, "weights")])
    assert len(set(table[("", "weights")])) == 2


def test_infinite_psnr_leaves_its_volume_out_of_every_sets_mean(plan, reconstructed):
    first = own(plan, reconstructed)
    (eight,) = find_compared("weights@8x", plan)
    perfect = with_scores(eight, psnr=math.inf)
    table = comparison_table([first, perfect])
    assert list(table[("", "volumes")]) == [2, 2]
    expected = {f"{each.results[1].varnet.psnr:.2f} (of 1)" for each in (first, eight)}
    assert set(table[("VarNet", "PSNR (dB)")]) == expected
    assert "PSNR, dB: mean of 1" in acceleration_figure([first, perfect]).get_suptitle()


def test_runs_over_different_volumes_are_compared_on_the_common_ones_which_is_said(
    plan, reconstructed
):
    first = own(plan, reconstructed)
    (eight,) = find_compared("weights@8x", plan)
    less = eight.only([eight.results[0].volume])
    said = left_out_of_comparison([first, less])
    assert said == (
        "Compared on the 1 volume that all have scored: weights, 4x, centre 0.08 has 2."
    )
    assert said in acceleration_figure([first, less]).get_suptitle()
    assert left_out_of_comparison([first, eight]) == ""
    figure = against_figure(plan, first.results, less.results, ("eight", "four"))
    assert "n = 1" in figure.get_suptitle()
    assert "1 volume of four alone is left out" in figure.get_suptitle()


def test_a_volume_without_a_target_enters_no_comparison(plan, reconstructed):
    first = own(plan, reconstructed)
    (eight,) = find_compared("weights@8x", plan)
    untold = replace(eight.results[0], varnet=None, zero_filled=None)
    other = replace(eight, results=(untold, eight.results[1]))
    assert list(comparison_table([first, other])[("", "volumes")]) == [1, 1]


def test_means_by_acquisition_leave_out_what_is_not_finite_and_say_so(reconstructed, in_project):
    _, (first, second) = reconstructed()
    perfect = replace(
        first, acquisition=second.acquisition, varnet=replace(first.varnet, psnr=math.inf)
    )
    table = score_table([perfect, second], by="acquisition")
    assert table.data.loc["all", ("VarNet", "PSNR (dB)")] == second.varnet.psnr
    assert table.data.loc["all", ("", "volumes")] == 2
    assert "VarNet PSNR (dB), all: mean of 1 of 2 volumes" in table.to_html()
