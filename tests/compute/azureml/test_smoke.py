"""The smoke run, whole, against an Azure whose mounts and parameters are not what was hoped."""

import re
import sys

import pytest

from tests.cloud.sdks import SDKS
from workbench.compute import smoke
from workbench.compute.cluster_job import ModuleJob
from workbench.compute.smoke import NOT_TRIED, ROWS

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the SDKs' own
    pytest.mark.usefixtures("leaves_no_secret"),
]


@pytest.fixture
def file(workspace, monkeypatch):
    """The address of a small file, and a connection string to copy it with."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", workspace.storage.connection_string)
    monkeypatch.setattr(smoke, "SECONDS_BETWEEN_LOOKS", 0.3)
    (workspace.bucket.folder / "small").write_bytes(b"public")
    return workspace.bucket.link("/small")


def rows(said):
    """Row -> whether it held, or None where it was not tried; with the lines below it."""
    found, held = {}, {"held": True, "did not hold": False, "not tried": None}
    for line in said.splitlines():
        if start := re.match(r"(held|did not hold|not tried) {2,}(\w+(?: \w+)?) {2,}", line):
            found[name := start[2]] = (held[start[1]], "")
        elif found and line.startswith(" " * 31):
            found[name] = found[name][0], f"{found[name][1]}{line.strip()} "
    return found


@pytest.mark.parametrize("sdk", SDKS)
def test_a_smoke_run_says_what_held_and_leaves_nothing(workspace, file, sdk, monkeypatch, capsys):
    workspace.azureml.add_cluster("cheap", vm_size="Standard_D2_v3", nodes=1, low_priority=True)
    workspace.factory.pace.secure_strings = False
    monkeypatch.setattr(sys, "argv", ["smoke", "--yes", "--file", file, "--sdk", sdk])
    smoke.main()
    print(said := capsys.readouterr().out)
    assert "one node of cheap (STANDARD_D2_V3, low priority, up to 1 nodes)" in said
    found = rows(said)
    assert list(found) == list(ROWS)
    fails = {name for name, (held, _) in found.items() if held is False}
    # This cloud's mounts refuse renames and locks, and its factory secure strings.
    refused = {f"{place} {what}" for place in ("store", "outputs") for what in ("rename", "lock")}
    assert fails - {"mpirun"} == refused | {"secure"}
    assert "a String is expected" in found["secure"][1]
    assert "what to do: give secure_runs=False" in found["secure"][1]
    assert {name for name, (held, _) in found.items() if held is None} == set(NOT_TRIED)
    assert all(why for held, why in found.values() if not held)
    assert workspace.storage.names() == []
    assert workspace.factory.names == []
    assert {
        job.submission.command.count("smoke_node") for job in workspace.azureml.jobs.values()
    } == {1}
    secret = re.search(r"Signature=([^&]+)", file)[1]
    assert secret not in said


def test_nothing_is_made_before_somebody_says_yes(workspace, file, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["smoke"])
    monkeypatch.setattr("builtins.input", lambda asked: "")
    with pytest.raises(SystemExit, match="Nothing was made"):
        smoke.main()
    assert "billed, at a price that could not be looked up here" in capsys.readouterr().out
    assert workspace.azureml.jobs == {}
    assert workspace.factory.deleted == workspace.storage.names() == []


def test_an_image_that_is_not_built_and_a_link_that_fails_are_rows_too(
    workspace, file, monkeypatch, capsys
):
    monkeypatch.setattr(
        ModuleJob,
        "image",
        "mcr.microsoft.com/azureml/openmpi4.1.0-cuda12.1-cudnn8-ubuntu22.04",
    )
    monkeypatch.setattr(sys, "argv", ["smoke", "--yes", "--file", f"{file}0"])
    smoke.main()
    found = rows(capsys.readouterr().out)
    assert found["image"][0] is found["secure"][0] is found["plain"][0] is False
    assert "403" in found["plain"][1]
    assert found["store write"] == (
        None,
        "why: an earlier step did not get so far, or was left out ",
    )
    assert workspace.storage.names() == workspace.factory.names == []
