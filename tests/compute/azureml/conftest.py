"""A workspace on loopback, with a dataset in its storage."""

import pytest

from workbench.compute import cluster_run
from workbench.compute.training import plan_training

TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}


@pytest.fixture
def workspace(cloud, monkeypatch, project):
    """The cloud, configured and logged in; what this project has in it goes to ``project``."""
    cloud.apply(monkeypatch)
    monkeypatch.setattr(cluster_run, "SECONDS_BETWEEN_LOOKS", 0.5)
    return cloud


@pytest.fixture
def stored(workspace, tiny_study):
    """The workspace with a tiny dataset in its storage."""
    container = workspace.storage.container()
    for file in tiny_study.rglob("*.h5"):
        container.upload_blob(f"brain_multicoil/{file.relative_to(tiny_study)}", file.read_bytes())
    return workspace


@pytest.fixture
def plan(stored):
    """Plan a tiny job: ``plan(nodes=2, sdk="v2")``."""

    def make(**parameters):
        given = {"model": "brain", "cluster": "cpu-cluster", **TINY, **parameters}
        return plan_training(**given)

    return make
