"""The estimate repeats the table it is from, and takes what was measured where there is any."""

import pytest

from workbench.compute.estimate import (
    ASSUMED,
    P40_PACE,
    Pace,
    efficiency,
    estimates,
    measured_pace,
    price_of,
)
from workbench.compute.gpus import Machine, machine_of
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run

BRAIN = (70748, 21842)


def test_estimate_repeats_the_table_of_2021():
    found = estimates(P40_PACE, machine_of("STANDARD_ND24S"), slices=BRAIN, epochs=1)
    minutes = [round(60 * each.hours) for each in found]
    assert minutes == [255, 133, 66, 34]
    assert all(each.dollars is None for each in found)


def test_cost_is_price_times_nodes_times_hours():
    machine = Machine("card", (9, 0), 2, 10.0)
    (one, two) = estimates(
        Pace(1.8, ""),
        machine,
        slices=(3000, 3000),
        epochs=1,
        nodes=(1, 2),
        price=price_of(machine, None),
    )
    assert one.hours == pytest.approx(4000 * 1.8 / 2 / 3600)
    assert one.dollars == pytest.approx(10 * one.hours)
    assert two.hours == pytest.approx(one.hours / 2 / efficiency(2))
    assert two.dollars > one.dollars
    (more,) = estimates(
        Pace(1.8, ""), machine, slices=(3000, 3000), epochs=1, once=3000, nodes=(1,)
    )
    assert more.hours == pytest.approx(5000 * 1.8 / 2 / 3600)
    assert more.dollars is None


def test_price_is_a_dated_assumption_or_what_was_given():
    machine = Machine("card", (9, 0), 2, 10.0)
    assumed = price_of(machine, None)
    assert assumed.dollars == 10
    assert f"assuming 10 US dollars an hour and node, a figure of {ASSUMED}" in assumed.source
    assert "give it as price_per_hour" in assumed.source
    given = price_of(machine, 3.5)
    assert (given.dollars, given.source) == (3.5, "price_per_hour=3.5 US dollars a node")
    retired = Machine("card", (6, 0), 1)
    assert price_of(retired, None) is None
    assert price_of(retired, 2).dollars == 2
    for wrong in (-1, "3", True, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"^price_per_hour=.*: give US dollars"):
            price_of(machine, wrong)


def test_efficiency_between_the_tables_rows_is_the_lower():
    assert efficiency(1) == 1
    assert efficiency(3) == min(efficiency(2), efficiency(4))
    assert efficiency(64) == efficiency(8) < 1


def test_pace_is_taken_from_a_run_of_the_same_network_and_machines(project):
    job = training_job(project, synthetic=False, model="brain", name="earlier")
    run = prepare_run(job, resume=True)
    (run.folder / "metrics.csv").write_text("epoch,seconds\n1,200\n2,100\n")
    known = [(run, "STANDARD_X", 4, (300, 300))]
    pace = measured_pace(job, known, "STANDARD_X")
    assert pace.seconds == pytest.approx(100 * 4 / 400)
    assert "measured in earlier" in pace.source
    assert measured_pace(job, known, "STANDARD_Y") is None
    other = training_job(project, synthetic=False, model="brain", chans=4)
    assert measured_pace(other, known, "STANDARD_X") is None
