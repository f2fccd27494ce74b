"""What is done with converted data that was measured undersampled, and has no target."""

import numpy as np
import pytest

from tests.convert.test_plan import head, planned
from tests.recon.conftest import made
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run
from workbench.convert.run import convert
from workbench.data.cache import open_cache
from workbench.recon import run as rank
from workbench.recon.reconstruction_plan import plan_reconstruction

SMALLEST = {"cascades": 1, "chans": 2, "pools": 2, "sens_chans": 2, "sens_pools": 2}


@pytest.fixture
def undersampled(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    measured = np.arange(32) % 3 == 0
    measured[11:21] = True
    for person in range(3):
        folder = tmp_path / f"raw/person{person}"
        folder.mkdir(parents=True)
        np.save(folder / "scan.npy", head(person) * measured)
    plan = planned(tmp_path / "raw")
    assert list(convert(plan)) == []
    return plan.ask.dataset, measured


def test_undersampled_scans_are_learned_from_and_reconstructed(undersampled):
    dataset, measured = undersampled
    cache = open_cache(dataset)
    for volume in cache:
        assert volume.target is None
        assert volume.own_mask.tolist() == measured.tolist()
    job = training_job(
        dataset,
        synthetic=False,
        model="brain",
        name="own",
        epochs=1,
        learning="self-supervised",
        **SMALLEST,
    )
    module = rank.fit(job, prepare_run(job, resume=True).folder)
    assert module.current_epoch == 1
    for asked in ({"run": "own"}, {"network": "sense"}):
        plan = plan_reconstruction(local_dataset=str(dataset), split="test", **asked)
        (result,) = made(plan)
        assert result.scores == {}
        assert result.images().max() > 0
