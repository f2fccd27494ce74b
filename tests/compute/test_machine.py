"""What runs is what was planned, by ranks that hold its folder, on machines as they are."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from workbench.compute.here import Ranks, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run, only_writer
from workbench.compute.training import plan_training, train
from workbench.settings import (
    AZURE_LOGIN,
    CONNECTION_VARIABLE,
    LINKS_VARIABLE,
    child_environment,
)

TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1, "epochs": 1}


def plan(study, **choices):
    return plan_training(
        model="brain", target="local", local_dataset=str(study), **{**TINY, **choices}
    )


@pytest.fixture
def module(project, monkeypatch):
    """Gives a module that ranks run: ``module(text)``."""

    def make(text):
        (project / "ranked.py").write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(project))
        run = Run(run_folder("r"))
        run.folder.mkdir(parents=True)
        return run

    return make


def test_the_job_that_was_planned_runs_whatever_was_planned_since(tiny_study, project):
    first = plan(tiny_study, lr=1e-3, seed=7)
    plan(tiny_study, lr=1e-5, seed=8, epochs=3)
    list(train(first))
    assert first.run.job == first.job
    assert [row["lr"] for row in first.run.metrics] == [1e-3]


def test_a_plan_is_refused_where_another_job_has_run_since(tiny_study, project):
    first = plan(tiny_study, lr=1e-3)
    list(train(plan(tiny_study, lr=1e-5)))
    with pytest.raises(ValueError, match=r"a run of another job \(lr 0\.001|lr 1e-05 there"):
        list(train(first))
    assert first.run.job.lr == 1e-5


def test_a_plan_not_to_resume_is_refused_where_the_same_job_has_run_since(tiny_study, project):
    first, second = plan(tiny_study, resume=False), plan(tiny_study, resume=False)
    list(train(second))
    with pytest.raises(ValueError, match="holds a run already"):
        list(train(first))


def test_a_plan_is_refused_where_the_run_has_learned_from_other_volumes_since(
    tiny_study, project, tmp_path
):
    other = tmp_path / "other"
    shutil.copytree(tiny_study, other, ignore=shutil.ignore_patterns("*.json"))
    (other / "multicoil_val/file3.h5").unlink()
    first = plan(tiny_study)
    list(train(plan(other)))
    with pytest.raises(ValueError, match="has trained on other volumes"):
        list(train(first))


def test_a_run_that_was_sent_to_a_cluster_is_not_trained_here_too(tiny_study, project):
    first = plan(tiny_study)
    record = first.run.folder / "azureml.json"
    record.write_text(json.dumps({"run": "x", "fetched": False}))
    for start in (lambda: plan(tiny_study), lambda: list(train(first))):
        with pytest.raises(ValueError, match="was sent to AzureML, and its end was not seen"):
            start()


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "{", "", '{"run": 1}', "\x00", "NaN"])
@pytest.mark.parametrize("name", ["job.json", "azureml.json"])
def test_a_damaged_file_of_a_run_is_named_with_the_way_out(tiny_study, project, name, text):
    first = plan(tiny_study)
    (first.run.folder / name).write_text(text)
    if (name, text) == ("azureml.json", '{"run": 1}'):
        match = "was sent to AzureML"
    else:
        match = rf"outputs/brain/{name} is damaged, .*: give another name, or remove outputs/brain"
    with pytest.raises(ValueError, match=match):
        plan(tiny_study)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", ["brain"]), ("model", 5), ("dataset", {}), ("sampling", []), ("sampling", None),
        ("sampling", {"accelerations": "4"}), ("sampling", {"mask": {}}), ("epochs", "50"),
        ("epochs", 1e300), ("lr", []), ("lr", "1e-3"), ("compile", {}), ("low_memory", 3),
        ("workers", True), ("seed", -1), ("precision", 32), ("images", None),
    ],
)  # fmt: skip
def test_a_job_of_wrong_types_is_named(tiny_study, project, field, value):
    first = plan(tiny_study)
    file = first.run.folder / "job.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {field: value}))
    with pytest.raises(ValueError, match=r"outputs/brain/job\.json is damaged"):
        _ = first.run.job


SECRETS = {
    LINKS_VARIABLE: "curl https://signed",
    CONNECTION_VARIABLE: "AccountName=a;AccountKey=k",
    "AZURE_CLIENT_SECRET": "s",
    "AZURE_CLIENT_ID": "i",
    "AZURE_STORAGE_KEY": "k",
    "HIML_SERVICE_PRINCIPAL_PASSWORD": "p",
    "APPLICATION_KEY": "a",
    "AZUREML_RUN_TOKEN": "t",
    "MSI_SECRET": "m",
    "IDENTITY_HEADER": "h",
}


@pytest.fixture
def secrets(monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    return SECRETS


def test_a_child_gets_no_secret_but_what_it_needs(secrets):
    def held(*needs):
        return secrets.keys() & child_environment(*needs).keys()

    assert held() == set()
    assert held(LINKS_VARIABLE) == {LINKS_VARIABLE}
    assert held(CONNECTION_VARIABLE) == {CONNECTION_VARIABLE}
    assert held(AZURE_LOGIN) == secrets.keys() - {
        LINKS_VARIABLE, CONNECTION_VARIABLE, "AZURE_STORAGE_KEY",
    }  # fmt: skip
    assert child_environment()["PATH"] == os.environ["PATH"]


TELL = "import os; print('has', *sorted(os.environ))"


def test_ranks_get_no_secret_but_what_they_need(module, secrets):
    run = module(TELL)
    for needs in ((), (CONNECTION_VARIABLE,)):
        lines = run_here(run, "ranked", Ranks(1, "CPU", 1), needs=needs)
        [has] = [line.split() for line in lines if line.startswith("has")]
        assert secrets.keys() & set(has) == set(needs)
        assert "WORKBENCH_ROOT" in has


LAUNCHER = """
import sys
from workbench.compute.here import Ranks, run_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
for line in run_here(Run(run_folder("r")), "ranked", Ranks(2, "CPU", 1)):
    print(line, flush=True)
"""

STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as a rank in the middle of a long step
print("rank", os.getpid(), flush=True)
time.sleep(600)
"""


def test_ranks_that_outlive_a_killed_launcher_hold_the_run_s_folder(module):
    run = module(STUBBORN)
    command = [sys.executable, "-c", LAUNCHER]
    ranks = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        try:
            while len(ranks) < 2:
                words = launcher.stdout.readline().split()
                ranks += [int(words[1])] if words[:1] == ["rank"] else []
            launcher.kill()
            launcher.wait()
            with (
                pytest.raises(RuntimeError, match="another process is at work in outputs/r"),
                only_writer(run),
            ):
                pass
            with pytest.raises(RuntimeError, match="another process is at work"):
                list(run_here(run, "ranked", Ranks(1, "CPU", 1)))
        finally:
            for rank in ranks:
                os.kill(rank, signal.SIGKILL)
    with only_writer(run, wait=True):
        pass


def test_ranks_meet_on_a_machine_whose_name_does_not_resolve(module):
    run = module(
        "import os; import torch.distributed as d; d.init_process_group('gloo'); "
        "d.barrier(); os.write(1, b'met %d\\n' % d.get_world_size()); d.destroy_process_group()"
    )
    namespace = ["unshare", "--uts"] if os.geteuid() == 0 else ["unshare", "-r", "--uts"]
    script = 'hostname no-such-host.invalid && exec "$@"'
    command = [*namespace, "sh", "-c", script, "sh", sys.executable, "-c", LAUNCHER]
    if subprocess.run([*namespace, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a host name of its own needs user namespaces, which this machine forbids")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.count("met 2") == 2, done.stderr
    assert run.folder.exists()
