import math
from dataclasses import replace

import numpy as np
import pytest

from workbench.views.comparison import (
    acceleration_figure,
    comparison_table,
    find_compared,
    labels_of,
    left_out_of_comparison,
)
from workbench.views.reconstruct import against_figure, score_table


@pytest.fixture
def first(reconstructed, in_project):
    reconstructed(acceleration=8, center_fraction=0.04)
    reconstructed(mask="random")
    return reconstructed()


def names(sets):
    return [each.folder.name for each in sets]


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
    assert names(find_compared(compare, first.folder)) == folders


def test_results_that_are_not_there_say_which_are(first):
    with pytest.raises(FileNotFoundError, match=r"weights@6x.*it has .*weights@val-random-4x"):
        find_compared("weights@6x", first.folder)
    with pytest.raises(FileNotFoundError, match="nobody has no results"):
        find_compared("nobody", first.folder)


@pytest.mark.parametrize("wrong", [3, "", " , "])
def test_wrong_comparison_is_refused(first, wrong):
    with pytest.raises(ValueError, match="compare="):
        find_compared(wrong, first.folder)


def test_table_has_a_row_a_set_with_means_over_common_volumes(first):
    others = find_compared("weights@8x", first.folder)
    one_volume = first.only([first[0].volume.path])
    table = comparison_table([one_volume, *others])
    assert list(table[("", "volumes")]) == [1, 1]
    expected = [each.only([first[0].volume.path])[0] for each in (first, *others)]
    by_name = dict(zip(table[("", "sampling")], table[("VarNet", "SSIM")], strict=True))
    for each, result in zip((first, *others), expected, strict=True):
        assert by_name[str(each.order)] == f"{result.reconstruction['ssim']:.4f}"
    values = table[("VarNet", "SSIM")].astype(float)
    assert values.is_monotonic_increasing


def test_figure_has_each_set_at_its_true_acceleration(first):
    others = find_compared("weights@8x", first.folder)
    figure = acceleration_figure([first, *others])
    line = figure.axes[0].lines[0]
    np.testing.assert_allclose(
        line.get_xdata(), sorted([first.acceleration, *(each.acceleration for each in others)])
    )
    assert figure._repr_png_()


def test_sets_without_a_volume_in_common_are_refused(first):
    with pytest.raises(ValueError, match="no volume with a target in common"):
        comparison_table([first, first.only([])])


def made_by(each, run, sha="a" * 64):
    """The same results as another run's, or those of other weights."""
    folder = each.folder.parents[2] / run / "reconstructions" / each.folder.name
    return replace(each, folder=folder, order=replace(each.order, weights_sha256=sha))


def with_scores(each, **metrics):
    """A set whose first volume has other metrics."""
    first, *rest = each
    changed = {**first.scores, "reconstruction": {**first.reconstruction, **metrics}}
    return replace(each, items=(replace(first, scores=changed), *rest))


def test_labels_say_what_differs_and_are_never_alike(first):
    (eight,) = find_compared("weights@8x", first.folder)
    (random,) = find_compared("weights@random", first.folder)
    sha = first.order.weights_sha256
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
    elsewhere = replace(first, folder=first.folder.with_name("val-copy"))
    assert labels_of([first, elsewhere]) == [
        "weights@val-equispaced-4x-0.08",
        "weights@val-copy",
    ]


def test_results_bear_their_runs_whole_name(first):
    assert made_by(first, "team/weights").run == "team/weights"


def test_rows_of_one_run_with_two_weights_name_them(first):
    table = comparison_table([first, made_by(first, "weights")])
    assert len(set(table[("", "weights")])) == 2


def test_infinite_psnr_leaves_its_volume_out_of_every_sets_mean(first):
    (eight,) = find_compared("weights@8x", first.folder)
    perfect = with_scores(eight, psnr=math.inf)
    table = comparison_table([first, perfect])
    assert list(table[("", "volumes")]) == [2, 2]
    expected = {f"{each[1].reconstruction['psnr']:.2f} (of 1)" for each in (first, eight)}
    assert set(table[("VarNet", "PSNR (dB)")]) == expected
    assert "PSNR (dB): mean of 1" in acceleration_figure([first, perfect]).get_suptitle()


def test_runs_over_different_volumes_are_compared_on_the_common_ones_which_is_said(first):
    (eight,) = find_compared("weights@8x", first.folder)
    less = eight.only([eight[0].volume.path])
    said = left_out_of_comparison([first, less])
    assert said == (
        "Compared on the 1 volume that all have scored: weights, 4x, centre 0.08 has 2."
    )
    assert said in acceleration_figure([first, less]).get_suptitle()
    assert left_out_of_comparison([first, eight]) == ""
    figure = against_figure(first, less, ("eight", "four"))
    assert "n = 1" in figure.get_suptitle()
    assert "1 volume of four alone is left out" in figure.get_suptitle()


def test_a_volume_without_a_target_enters_no_comparison(first):
    (eight,) = find_compared("weights@8x", first.folder)
    other = replace(eight, items=(replace(eight[0], scores={}), eight[1]))
    assert list(comparison_table([first, other])[("", "volumes")]) == [1, 1]


def test_means_by_acquisition_leave_out_what_is_not_finite_and_say_so(first):
    table = score_table(with_scores(first, psnr=math.inf), by="acquisition")
    assert table.data.loc["all", ("VarNet", "PSNR (dB)")] == first[1].reconstruction["psnr"]
    assert table.data.loc["all", ("", "volumes")] == 2
    assert "VarNet PSNR (dB), all: mean of 1 of 2 volumes" in table.to_html()
