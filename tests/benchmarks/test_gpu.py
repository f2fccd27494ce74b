"""The benchmark for GPUs: its ways give one image, and what a machine cannot is said in its row."""

import json
import math
from dataclasses import replace

import pytest
import torch

from benchmarks import gpu
from benchmarks.__main__ import main
from benchmarks.gpu import WAYS, Cost, costs, measure, trips, ways_here
from benchmarks.sizes import SIZES

TOY = replace(SIZES["toy"], inference={"knee": (3, 48, 37)})
HALF = {"fastMRI, bf16 autocast", "bf16", "fp16"}


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)


@pytest.fixture(scope="module")
def found():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.cuda.is_available", lambda: False)
        patch.setitem(gpu._REPEATS, "cpu", 1)
        return list(costs(TOY))


def test_every_way_is_measured_or_says_why_not(found, tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.gpu.costs", lambda size, ways: iter(found))
    table = measure(TOY, tmp_path)
    written = json.loads((tmp_path / "cpu.json").read_text())
    assert [Cost(**row) for row in written["costs"]] == found
    assert (tmp_path / "cpu.md").read_text() == f"{table}\n"
    slices = [row.way for row in found if row.work.startswith("reconstruct")]
    steps = [row.way for row in found if row.work.startswith("a training step")]
    assert steps == [way.label for way in WAYS if way.trains]
    assert slices == [way.label for way in WAYS if not way.low_memory]
    for row in found:
        assert (row.ms is None) == bool(row.why_not)
        if "graph" in row.way or "compiled" in row.way:
            assert row.why_not == "needs an NVIDIA GPU"
        assert row.way in table


def test_each_way_gives_fastmris_image_within_its_precision(found):
    rows = [row for row in found if row.off is not None]
    assert {row.way for row in rows} >= HALF | {"float32", "TF32"}
    for row in rows:
        # bfloat16 has 8 bits of a fraction; three cascades add up what it rounds off.
        assert row.off <= (0.1 if row.way in HALF else 1e-4)
        assert row.off > 0 or row.way.startswith("fastMRI")


def test_a_processor_is_measured_in_the_ways_that_are_of_use_there():
    labels = [way.label for way in ways_here()]
    assert labels == [
        "fastMRI, float32",
        "fastMRI, bf16 autocast",
        "float32",
        "float32, low memory",
        "bf16",
    ]


def test_what_fails_in_one_way_leaves_the_others(monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr("benchmarks.gpu._peak", fail)
    monkeypatch.setattr("workbench.models.unrolled.zero_filled", fail)
    training = replace(TOY, inference={})
    rows = {row.way: row for row in costs(training, (WAYS[0], WAYS[3]))}
    assert rows["float32"].why_not == "out of memory"
    assert rows["fastMRI, float32"].ms > 0


def test_a_slice_comes_to_the_device_by_its_sampled_columns_alone():
    whole, pinned, sampled = trips((3, 48, 37))
    assert whole.mb == pinned.mb
    columns = set(range(0, 37, 4)) | {17, 18, 19}  # 4x, and 3 in the centre
    assert math.isclose(sampled.mb / whole.mb, len(columns) / 37)


def test_a_machine_without_a_gpu_is_told_so_before_anything_runs(capsys):
    with pytest.raises(SystemExit):
        main(["--gpu"])
    assert "sees no NVIDIA GPU" in capsys.readouterr().err
