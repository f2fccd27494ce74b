"""The demo's tables: what enters a mean, and the trainings of other seeds."""

import math

import pytest

from tests.views.test_annotations import volume_at
from workbench.recon.metrics import METRICS
from workbench.recon.results import KINDS, Order, Result, Results
from workbench_demo.report import PartReport, table
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


def test_infinite_psnr_is_in_no_mean_and_the_table_says_over_how_many(tmp_path):
    found = report(tmp_path, [30.0, math.inf, 40.0])
    rows = table([found]).splitlines()
    assert "∞" in rows[3]
    mean, counts, spread = rows[5:8]
    assert mean.startswith("brain, mean of 3 volumes")
    assert mean.split()[-6:] == ["0.500", "35.0", "0.1000"] * 2
    assert counts.split()[-len(METRICS) :] == ["3", "2", "3"]
    assert "nan" not in spread
    assert found.summary["counted"]["reconstruction"]["psnr"] == 2


def test_one_volume_has_no_deviation(tmp_path):
    rows = table([report(tmp_path, [30.0])]).splitlines()
    assert rows[4].split()[-6:] == ["–"] * 6


def test_other_seeds_train_beside_the_demo_s_own(monkeypatch, tmp_path):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    demo = Demo(SIZES["tiny"])
    others = other_seeds(demo, 3)
    assert [stage.name for stage in others.pages][:2] == [
        "brain-seed43 train",
        "brain-seed43 reconstruct",
    ]
    runs = [others.run_name(part) for part in others.size.parts]
    assert len({*runs, *(demo.run_name(part) for part in demo.size.parts)}) == 6
    assert others.folder == demo.folder
    assert other_seeds(demo, 1).pages == []


@pytest.mark.parametrize("wrong", ["0", "many"])
def test_wrong_number_of_seeds_is_refused(wrong, capsys):
    from workbench_demo.__main__ import main

    with pytest.raises(SystemExit):
        main(["tiny", "--seeds", wrong])
    assert "--seeds" in capsys.readouterr().err
