"""A workspace on loopback, with a dataset in its storage."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench.compute import cluster_job, cluster_run
from workbench.compute.training import plan_training

LOOKS = """
from workbench.compute import cluster_run

cluster_run.SECONDS_BETWEEN_LOOKS = 1.0
"""
"""What kernels of this machine run first: a job here takes less than the usual ten seconds."""
TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}


@pytest.fixture
def workspace(cloud, monkeypatch, project):
    """The cloud, configured and logged in; what this project has in it goes to ``project``.

    This process and the notebooks that it runs look at their jobs every second.
    """
    cloud.apply(monkeypatch)
    monkeypatch.setattr(cluster_run, "SECONDS_BETWEEN_LOOKS", 1.0)
    startup = cloud.home / ".ipython/profile_default/startup/looks.py"
    startup.parent.mkdir(parents=True)
    startup.write_text(LOOKS)
    return cloud


@pytest.fixture
def little_code(tmp_path_factory, monkeypatch):
    """Jobs take next to no code along: for those that no node runs. To send all takes seconds."""
    package = tmp_path_factory.mktemp("little")
    (package / "__init__.py").touch()
    for name in ("workbench", "workbench_kernels"):
        little = SimpleNamespace(__name__=name, __path__=[str(package)])
        monkeypatch.setattr(cluster_job, name, little)


@pytest.fixture
def stored(workspace, tiny_study):
    """The workspace with a tiny dataset in its storage."""
    container = workspace.storage.container()
    for file in tiny_study.rglob("*.h5"):
        container.upload_blob(f"brain_multicoil/{file.relative_to(tiny_study)}", file.read_bytes())
    return workspace


_LETS_IN = re.compile(
    rb"[?&;](sig|Signature)=[\w%+/]{20,}|AccountKey=[\w+/]{40,}|[Bb]earer ey[\w-]{20,}"
)


@pytest.fixture
def leaves_no_secret(workspace, project):
    """After the test: keys and signatures are in nothing that it left, here, there, or between.

    Looked at are this project's folder, home and cache where SDKs keep what they like, the nodes'
    disks with their logs, what was sent, and all that lies in storage: runs, code, what AzureML
    collects.
    """
    yield
    places = (project, workspace.home, workspace.cache, workspace.folder / "jobs")
    left = {
        str(path): path.read_bytes()
        for place in places
        for path in Path(place).rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    for job in workspace.azureml.jobs.values():
        left[f"submission of {job.id}"] = repr(job.submission).encode()
        left[f"{job.id} failed"] = job.error.encode()
    for name in ("datasets", "azureml", "snapshots"):
        container = workspace.storage.container(name)
        for blob in workspace.storage.names(name):
            left[f"{name}/{blob}"] = container.download_blob(blob).readall()
    assert left
    secrets = [each.encode() for each in (workspace.storage.key, workspace.principal.secret)]
    for where, content in left.items():
        found = _LETS_IN.search(content)
        assert not found, (where, found)
        assert not any(secret in content for secret in secrets), where


@pytest.fixture
def plan(stored):
    """Plan a tiny job: ``plan(nodes=2, sdk="v2")``."""

    def make(**parameters):
        given = {"model": "brain", "cluster": "cpu-cluster", **TINY, **parameters}
        return plan_training(**given)

    return make
