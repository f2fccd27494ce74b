import numpy as np
import pytest

from workbench.views.comparison import (
    ResultSet,
    acceleration_figure,
    comparison_table,
    find_compared,
    open_results,
)


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
