"""The notebook as a person runs it: killed in the middle, and run again."""

import subprocess

import psutil
import pytest

from tests.ingest.azure.conftest import RELEASES, found_in, notebook, secrets_of
from tests.programs import wait_for
from workbench_demo.bucket import Faults


@pytest.fixture
def both(release, cloud, tmp_path):
    """An email with links of both generations: knees of 2025, brains and DICOMs of 2021."""
    old, new = release("2021"), release("2025")
    for name in ("multicoil_train.tar.gz", "multicoil_val.tar.gz"):
        (cloud.bucket.folder / name).unlink()
    old.members.pop("knee_multicoil")
    mails = {
        "2021": ["brain_multicoil_val.tar.gz", "knee_mri_dicom_batch1.tar"],
        "2025": [*RELEASES["2025"], "SHA256"],
    }
    email = "\n".join(cloud.bucket.email(when, names=names) for when, names in mails.items())
    return old.members | new.members, email, new


def kill(process: subprocess.Popen) -> None:
    """End a notebook and its kernel as kill -9 does."""
    everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for each in everyone:
        each.kill()
    process.wait(30)
    psutil.wait_procs(everyone[1:], 30)


def test_notebook_that_is_killed_and_run_again_brings_both_generations_once(both, cloud, tmp_path):
    members, email, brought = both
    slow = Faults("knee_multicoil_val", seconds_per_mb=5)
    cloud.bucket.faults.append(slow)
    process = notebook(cloud, email, tmp_path)

    def all_but_the_slow_one_landed():
        assert process.poll() is None, (tmp_path / "log").read_text()[-3000:]
        return sum(run.status == "Succeeded" for run in cloud.factory.runs) == 4

    wait_for(all_but_the_slow_one_landed, 180)
    kill(process)
    (left,) = cloud.factory.names
    cloud.bucket.faults.remove(slow)
    asked = len(cloud.bucket.requests)
    again = notebook(cloud, email, tmp_path)
    assert again.wait(240) == 0, (tmp_path / "log").read_text()[-3000:]
    for dataset, expected in members.items():
        assert brought.in_container(dataset) == expected
    # What had landed whole, and what was on its way, came once.
    whole = [path for _, path, part in cloud.bucket.requests[asked:] if part is None]
    assert [path for path in whole if not path.endswith("SHA256")] == []
    assert cloud.factory.names == []
    assert left in cloud.factory.deleted
    shown = (tmp_path / "out.ipynb").read_text() + (tmp_path / "log").read_text()
    assert "archives brought in" in shown
    assert found_in(secrets_of(cloud, email), shown) == []
