"""Nodes start from images that Microsoft publishes; its registry is asked before a job is sent."""

import importlib.metadata
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.cloud.images import HOST, PUBLISHED
from tests.cloud.sdks import SDKS
from workbench.compute import images
from workbench.compute.cluster_job import ClusterJob, DataFolder, ModuleJob
from workbench.compute.here import TrainingFailedError
from workbench.compute.images import IMAGES, check_image, is_published
from workbench.compute.training import train
from workbench.settings import project_root

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs' own

NOWHERE = f"{HOST}/azureml/openmpi4.1.0-cuda12.1-cudnn8-ubuntu22.04"


@pytest.fixture(autouse=True)
def _a_busy_machine(monkeypatch):
    monkeypatch.setattr(images, "_SECONDS", 60)


def test_every_image_is_in_microsofts_list():
    assert {image.removeprefix(f"{HOST}/azureml/") for image in IMAGES.values()} <= {*PUBLISHED}


def test_registry_says_which_images_there_are(workspace):
    assert all(is_published(image) for image in IMAGES.values())
    assert is_published(f"{IMAGES['CPU']}:latest")
    assert is_published(f"{IMAGES['CPU']}:20010101.v1") is False
    assert is_published(NOWHERE) is False


@pytest.mark.parametrize("trouble", ["offline", "busy", "a proxy's own 404"])
def test_a_registry_that_cannot_be_asked_stops_nothing(workspace, trouble):
    if trouble == "offline":
        with workspace.network.offline(HOST):
            check_image(NOWHERE)
        return
    workspace.fail("manifests", status=503 if trouble == "busy" else 404)
    check_image(NOWHERE)


def test_an_image_that_is_gone_is_told_before_anything_is_sent(plan, workspace):
    workspace.registry.repositories.clear()
    with pytest.raises(ValueError, match=r"openmpi5\.0-ubuntu24\.04 is no longer published"):
        plan()
    assert not workspace.azureml.jobs


@pytest.mark.parametrize(("gone", "code"), [(False, 0), (True, 1)])
def test_command_asks_for_all_images(workspace, capsys, gone, code):
    if gone:
        workspace.registry.repositories.clear()
    with pytest.raises(SystemExit) as ended:
        images.main()
    assert ended.value.code == code
    said = "not published" if gone else "published"
    assert capsys.readouterr().out.splitlines() == [
        f"{each}  {IMAGES[each]}: {said}" for each in IMAGES
    ]


@pytest.mark.parametrize("sdk", SDKS)
def test_a_job_whose_image_cannot_be_built_ends_with_the_reason(
    plan, little_code, monkeypatch, sdk, capsys
):
    monkeypatch.setitem(IMAGES, "CPU", NOWHERE)
    monkeypatch.setattr("workbench.compute.cluster_plan.check_image", lambda image: None)
    planned = plan(sdk=sdk)
    with pytest.raises(TrainingFailedError, match=r"^Image build failed"):
        list(train(planned))
    assert "RunId" not in capsys.readouterr().out


def test_unpacking_needs_only_the_packages_of_its_own_small_environment(tmp_path):
    folder = DataFolder("dataset", "fastmri", "knee", "mount")
    job = ModuleJob("unpack", "fastmri", "cpu-cluster", 1, "CPU", folder, folder, {}, module="m")
    assert job.environment != ClusterJob.environment
    (pip,) = [each["pip"] for each in job.packages["dependencies"] if type(each) is dict]
    for name in brought_by(Requirement(line).name for line in pip):
        for file in importlib.metadata.files(name) or ():
            top = file.parts[0]
            if not re.search(r"dist-info|^\.\.|^__pycache__", top):
                link = tmp_path / top
                if not link.exists():
                    link.symlink_to(
                        Path(str(importlib.metadata.distribution(name).locate_file(top)))
                    )
    path = os.pathsep.join((str(project_root()), str(tmp_path)))
    # -S leaves out this interpreter's own packages.
    command = [sys.executable, "-S", "-c", "import workbench.ingest.unpacking"]
    subprocess.run(command, env={"PYTHONPATH": path}, check=True)


def brought_by(wanted):
    """Return the distributions that pip installs for some, extras aside."""
    found, left = set(), list(wanted)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            lines = map(Requirement, importlib.metadata.requires(name) or ())
            left += [
                line.name
                for line in lines
                if line.marker is None or line.marker.evaluate({"extra": ""})
            ]
    return found
