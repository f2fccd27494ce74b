"""The demo's tables: what enters a mean, and the trainings of other seeds."""

import json
import math
from dataclasses import replace

import pytest

from tests.views.conftest import volume_at
from workbench.recon.asked import Order
from workbench.recon.metrics import METRICS
from workbench.recon.results import KINDS, Result, Results
from workbench_demo.report import PartReport, summary, table
from workbench_demo.seeds import other_seeds
from workbench_demo.sizes import SIZES
from workbench_demo.stages import Demo


def report(tmp_path, psnrs):
    order, results = Order("w.pt", "", "/data", "val", None), []
    for number, psnr in enumerate(psnrs):
        volume = volume_at(f"multicoil_val/{number}.h5", "val")
        scores = {kind: {"ssim": 0.5, "psnr": psnr, "nmse": 0.1} for kind in KINDS}
        results.append(Result(tmp_path / volume.name, volume, order, 4.0, 1, scores))
    return PartReport("brain", Results(tmp_path, results, order))


def counted_of(*counts):
    return {metric.name: count for metric, count in zip(METRICS, counts, strict=True)}


def test_infinite_psnr_is_in_no_mean_and_the_table_says_over_how_many(tmp_path):
    found = report(tmp_path, [30.0, math.inf, 40.0])
    heading, filled, counts, trained, *_ = table([found]).splitlines()[2:]
    assert heading == "brain, 3 validation volumes"
    assert filled.split() == ["zero-filled", "0.500", "35.0", "0.1000", "0.000", "7.1", "0.0000"]
    assert counts.split()[-len(METRICS) :] == ["3", "2", "3"]
    assert trained.split()[0] == "VarNet"
    assert found.summary["counted"] == {n: counted_of(3, 2, 3) for n in ("zero_filled", "varnet")}


def test_every_method_has_a_row_and_the_trained_one_is_last(tmp_path):
    found = report(tmp_path, [30.0, 40.0])
    beside = [
        Results(
            tmp_path, [replace(each, network=name) for each in found.results], Order(*"abcd", None)
        )
        for name in ("sense", "wavelet", "tv")
    ]
    found = replace(found, beside=tuple(beside))
    names = [row.split()[0] for row in table([found]).splitlines()[3:8]]
    assert names == ["zero-filled", "CG-SENSE", "L1-wavelet", "TV", "VarNet"]
    summary = found.summary
    methods = ["zero_filled", "sense", "wavelet", "tv", "varnet"]
    assert list(summary) == [*methods, "counted", "volumes", "slices"]
    assert all(set(summary[name]) == {"ssim", "psnr", "nmse"} for name in methods)


def test_one_volume_has_no_deviation(tmp_path):
    rows = table([report(tmp_path, [30.0])]).splitlines()
    assert rows[3].split()[-3:] == rows[4].split()[-3:] == ["–"] * 3


def test_other_seeds_train_beside_the_demo_s_own(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    demo = Demo(SIZES["tiny"])
    others = other_seeds(demo, 3)
    assert [stage.name for stage in others.lanes[0]] == [
        "brain-seed43 train",
        "brain-seed43 reconstruct",
    ]
    runs = [others.run_name(part) for part in others.size.parts]
    assert len({*runs, *(demo.run_name(part) for part in demo.size.parts)}) == 6
    assert others.folder == demo.folder
    assert other_seeds(demo, 1).lanes == []


@pytest.mark.parametrize("wrong", ["0", "many"])
def test_wrong_number_of_seeds_is_refused(wrong, capsys):
    from workbench_demo.__main__ import main

    with pytest.raises(SystemExit):
        main(["tiny", "--seeds", wrong])
    assert "--seeds" in capsys.readouterr().err


def test_mean_over_no_volume_is_null_in_the_summary(tmp_path):
    found = report(tmp_path, [math.inf])
    text = json.dumps(summary([found], {"brain train": 1.5}), allow_nan=False)
    assert json.loads(text)["brain"]["varnet"] == {"ssim": 0.5, "psnr": None, "nmse": 0.1}
    assert math.isnan(found.summary["varnet"]["psnr"])
    assert "brain, 1 validation volume" in table([found]).splitlines()


def test_options_of_a_method_are_in_its_name(tmp_path):
    found = report(tmp_path, [30.0, 40.0])
    beside = [
        Results(
            tmp_path,
            [replace(each, network="wavelet", network_options=text) for each in found.results],
            Order(*"abcd", None),
        )
        for text in ("regularisation=0.005, iterations=60", "iterations=9")
    ]
    found = replace(found, beside=tuple(beside))
    assert list(found.methods) == ["zero_filled", "wavelet", "wavelet, iterations=9", "varnet"]
    label, _ = found.methods["wavelet, iterations=9"]
    assert label == "L1-wavelet (iterations=9)"
