"""The formulas of the page on scale."""

import itertools

import pytest

from benchmarks.scale_figure import MIXTURE, gradient_bytes, scale_figure
from benchmarks.scale_model import (
    Step,
    StepCost,
    cache_seconds,
    efficiency,
    exchange,
    fit_steps,
    visible_exchange,
    waiting,
)
from workbench.views.style import png

COST = StepCost(0.1, 1.5, 2.0, 0.3)
STEPS = [Step(*each) for each in itertools.product((1, 8), (20_000, 200_000), (1, 12))]


def test_fit_finds_the_coefficients_that_the_times_were_made_of():
    fitted = fit_steps([(step, COST.seconds(step)) for step in STEPS])
    assert vars(fitted) == pytest.approx(vars(COST))


def test_too_few_steps_to_fit_are_refused():
    with pytest.raises(ValueError, match="four different steps"):
        fit_steps([(STEPS[0], 1.0)] * 9)


def test_an_exchange_hides_behind_the_backward_pass_but_for_its_last_bucket():
    whole = exchange(32, 120e6, 1.25e9)
    assert whole == pytest.approx(2 * 31 / 32 * 120e6 / 1.25e9)
    assert visible_exchange(32, 10.0, 120e6, 1.25e9) == pytest.approx(whole * 25 / 120)
    assert visible_exchange(32, 0.03, 120e6, 1.25e9) == pytest.approx(whole - 0.02)


def test_one_rank_is_efficient_and_more_ranks_or_slower_links_are_less_so():
    shares = [efficiency(ranks, 0.2, 120e6, 1.25e9) for ranks in (1, 2, 8, 32)]
    assert shares[0] == 1
    assert shares == sorted(shares, reverse=True)
    assert efficiency(32, 0.2, 120e6, 3e9) > shares[-1]


def test_like_slices_in_a_step_wait_for_nobody():
    costs = [1.0, 2.0] * 64
    assert waiting(costs, 8, balanced=True) == 1
    assert waiting(costs, 1, balanced=False) == 1
    assert 1.3 < waiting(costs, 8, balanced=False) <= 4 / 3


def test_an_index_waits_for_storage_once_a_wave_and_works_on_each_volume():
    assert cache_seconds(64, 0.02, 0.0) == 0.04
    assert cache_seconds(6400, 0.02, 0.0) == pytest.approx(4)
    assert cache_seconds(6400, 0.02, 0.01) == pytest.approx(68)


def test_figure_shows_what_was_found():
    found = {
        "steps": [
            vars(step) | {"seconds": COST.seconds(step)}
            for step in (*STEPS, *(Step(n, 51200, 4) for n in (2, 4, 9)), Step(4, 51200, 2))
        ],
        "cost": vars(COST),
        "epochs": {"1": 10.0, "2": 5.5},
        "caches": [(16, 0.02, 0.3), (64, 0.02, 0.5)],
    }
    figure = scale_figure(found)
    titles = [axes.get_title() for axes in figure.axes]
    assert len(titles) == len(set(titles)) == 6
    assert png(figure).startswith(b"\x89PNG")


def test_the_default_networks_gradients_are_those_of_thirty_million_parameters():
    assert gradient_bytes() == 4 * 29_936_966
    assert len(set(MIXTURE)) == len(MIXTURE)
