"""Runs, caches, checkpoints, results and manifests of an earlier version still open."""

import os
import shutil
from pathlib import Path

import pytest

from tests.recon.conftest import TINY
from workbench.compute.runs import Run, open_run
from workbench.compute.training import plan_training
from workbench.data.cache import open_cache
from workbench.ingest.manifest import read_records
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.results import Results
from workbench.recon.run import fit

SAMPLES = Path(__file__).parent / "samples"
CHOICES = {"model": "brain", "acceleration": "4, 8", "center_fraction": "0.08, 0.04"}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The samples in a project of their own, as if they had been made there."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    for part in ("datasets", "outputs"):
        shutil.copytree(SAMPLES / part, tmp_path / part)
    for volume in open_cache(tmp_path / "datasets/small", check=False):
        file = tmp_path / "datasets/small" / volume.path
        os.utime(file, ns=(volume.mtime_ns, volume.mtime_ns))
    for text in tmp_path.rglob("*.json"):
        text.write_text(text.read_text().replace("/srv/fastmri", str(tmp_path)))
    return tmp_path


def test_cache_is_used_as_it_is(project, capsys):
    cache = open_cache(project / "datasets/small")
    assert "Using the dataset cache" in capsys.readouterr().out
    assert cache.counts == {"train": (2, 2), "val": (2, 4)}


def test_run_says_what_was_trained_and_how_well(project):
    run = open_run("small")
    assert run.finished
    assert run.job.epochs == 2
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert run.metrics[-1]["val_ssim"] == pytest.approx(0.39329, abs=1e-5)
    assert [row["volume"] for row in run.volumes] == [
        "multicoil_val/file10.h5",
        "multicoil_val/file11.h5",
    ]


def test_run_goes_on_from_its_checkpoint(project, capsys):
    plan = plan_training(
        **{**CHOICES, **TINY, "name": "small", "local_dataset": "datasets/small", "epochs": 3},
        # The phantom's defaults were others then.
        lr=1e-3,
        schedule="step",
        first_estimate="published",
    )
    fit(plan.job, plan.run.folder)
    assert "going on from last.ckpt" in capsys.readouterr().out
    assert [row["epoch"] for row in Run(project / "outputs/small").metrics] == [1, 2, 3]


@pytest.mark.parametrize(("acceleration", "share"), [(4, 0.08), (8, 0.04)])
def test_results_are_found_and_not_made_again(project, acceleration, share):
    plan = plan_reconstruction(run="small", acceleration=acceleration, center_fraction=share)
    assert plan.order.volumes == ()
    found = Results(plan.folder)
    assert [result.volume.path for result in found] == [
        "multicoil_val/file10.h5",
        "multicoil_val/file11.h5",
    ]
    assert all(result.slices == 2 and len(result.slice_ssim) == 2 for result in found)
    assert all(0 < result.reconstruction["ssim"] < 1 for result in found)
    assert all(result.measured(1)[0].shape == result.volume.kspace.shape[1:] for result in found)


@pytest.mark.parametrize("place", ["local", "azure"])
def test_manifest_of_an_ingest_is_read(place):
    records = read_records((SAMPLES / f"ingest/{place}.json").read_bytes())
    assert {record.state for record in records.values()} == {"unpacked"}
    assert records["knee_multicoil_val"].members
