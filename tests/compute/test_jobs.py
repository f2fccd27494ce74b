"""A job's parameters are checked, and a run's folder belongs to one job and one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench.compute import processes
from workbench.compute.here import Ranks, TrainingFailedError, ranks_here, run_here
from workbench.compute.jobs import TrainingJob, run_folder, training_job
from workbench.compute.node import noted_error
from workbench.compute.runs import Run, only_writer, open_run, prepare_run
from workbench.data.sampling import Sampling, numbers
from workbench.stores import DiskStore


def job(tmp_path, **choices):
    return training_job(tmp_path, synthetic=False, **{"model": "knee", **choices})


def test_defaults_are_those_of_2021_and_a_job_survives_json(tmp_path):
    found = job(tmp_path, model="KneeMulticoil")
    assert found.model == found.name == "knee"
    assert found.sampling == Sampling("equispaced", (4,), (0.08,))
    assert (found.epochs, found.batch_size, found.lr, found.lr_step) == (50, 1, 3e-4, 40)
    assert (found.config.cascades, found.config.chans, found.config.pools) == (12, 18, 4)
    found = job(tmp_path, acceleration="4,8", center_fraction=[0.08, 0.04], mask="random", lr=1e-3)
    assert found.sampling.accelerations == (4.0, 8.0)
    assert TrainingJob.from_json(found.to_json()) == found


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"model": "liver"}, "model='liver': give one of knee, brain"),
        ({"acceleration": 0.5}, "acceleration=0.5: give 1 or more"),
        ({"acceleration": "4,x"}, "acceleration='4,x': give a number"),
        ({"acceleration": "4,8"}, "2 accelerations and 1 centre fractions"),
        ({"center_fraction": 0}, "center_fraction=0: give a number between 0 and 1"),
        ({"mask": "spiral"}, "mask='spiral': give one of random"),
        ({"mask": "random", "center_fraction": 0.3}, "alone exceeds the 1/4"),
        ({"epochs": 0}, "epochs=0: give 1 or more"),
        ({"epochs": 1.5}, "epochs=1.5: give a whole number"),
        ({"cascades": 0}, "cascades=0"),
        ({"pools": 5}, "pools=5"),
        ({"lr": -1}, "lr=-1: give more than 0"),
        ({"sample_rate": 0}, "sample_rate=0: give more than 0"),
        ({"sample_rate": 2}, "sample_rate=2: give at most 1"),
        ({"sample_rate": 0.5, "volume_sample_rate": 0.5}, "sample slices or volumes"),
        ({"lr": float("inf")}, "lr=inf: give a finite number"),
        ({"weight_decay": float("nan")}, "weight_decay=nan"),
        ({"seed": 2**32}, "seed=4294967296: give less than"),
        ({"workers": True}, "workers=True: give a whole number"),
        ({"precision": "8"}, "precision='8': give '32', 'bf16' or '16'"),
        ({"tf32": 1}, "tf32=1: give True or False"),
        ({"compile": "yes"}, "compile='yes': give 'auto', 'on' or 'off'"),
        ({"low_memory": "always"}, "low_memory='always': give True, False or"),
        ({"crop_readout": 16}, "crop_readout=16: give True or False"),
        ({"first_estimate": "varnet"}, "'varnet': give one of published, zero-filled, sense"),
        ({"first_estimate": "tv, regularisation=2"}, "regularisation=2: give a number, 0 or more"),
        ({"first_estimate": "tv, weight=2"}, "TV has no argument weight; it has regularisation"),
        ({"first_estimate": "zero-filled, iterations=2"}, "give one of published"),
        ({"name": "../elsewhere"}, "name='../elsewhere': give letters"),
        ({"name": 20241105}, "name=20241105: give a text"),
        ({"learning_rate": 1}, "learning_rate: no such parameter"),
    ],
    ids=str,
)
def test_bad_parameter_says_what_is_allowed(tmp_path, choices, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")) as caught:
        job(tmp_path, **choices)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [True, [4, True], {4: 8}, None, [[4]]])
def test_acceleration_that_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"acceleration=.*: give a number"):
        numbers("acceleration", value)


@pytest.mark.parametrize("nodes", [0, -1, 1.5, "2", True])
def test_bad_number_of_nodes_is_refused(nodes):
    with pytest.raises(ValueError, match="give a whole number, 1 or more"):
        ranks_here(nodes)


def test_without_gpus_nodes_become_processes():
    ranks = ranks_here(3)
    assert ranks.device == "GPU" or ranks.count == 3


@pytest.mark.parametrize(("asked", "threads"), [("2", 2), ("99", 4), ("many", 4), ("", 4)])
def test_ranks_share_the_cores_and_take_fewer_where_asked(monkeypatch, asked, threads):
    monkeypatch.setattr("workbench.compute.here.cores", lambda: 8)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert ranks_here(2).threads == threads


# ---- the run's folder --------------------------------------------------------------------


def test_a_run_goes_on_with_its_own_job_only(project):
    prepare_run(job(project, epochs=3), resume=True)
    run = prepare_run(job(project, epochs=2, lr=1e-3), resume=False)
    assert run.job.lr == 1e-3, "planned and never begun, it may be planned otherwise"
    run.last.parent.mkdir()
    run.last.touch()
    with pytest.raises(ValueError, match=r"lr 0\.001 there, 0\.0003 here"):
        prepare_run(job(project, epochs=3), resume=True)
    with pytest.raises(ValueError, match="holds a run already"):
        prepare_run(job(project, epochs=3, lr=1e-3), resume=False)
    assert prepare_run(job(project, epochs=5, lr=1e-3), resume=True).job.epochs == 5


def test_unknown_run_lists_those_that_there_are(project):
    prepare_run(job(project, name="demo/knee"), resume=True)
    with pytest.raises(FileNotFoundError, match="take one of demo/knee"):
        open_run("brain")


def test_two_processes_do_not_work_in_one_folder(project):
    run = prepare_run(job(project, epochs=3), resume=True)
    with only_writer(run):
        with pytest.raises(RuntimeError, match="another process is at work"), only_writer(run):
            pass
        with pytest.raises(RuntimeError, match="another process is at work"):
            prepare_run(job(project, epochs=5), resume=True)
    assert run.job.epochs == 3


def test_a_rank_that_the_system_kills_is_told_from_a_lost_node(project, monkeypatch):
    run = Run(run_folder("r"))
    run.folder.mkdir(parents=True)
    (project / "killed.py").write_text(
        "import os, signal\ndef main():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(project))
    with pytest.raises(TrainingFailedError, match=r"Signal 9 \(SIGKILL\), as where the machine's"):
        list(run_here(run, "killed", Ranks(1, "CPU", 1)))
    assert not noted_error(DiskStore(run.folder))[1]


# ---- processes ---------------------------------------------------------------------------


def lines(script):
    return processes.lines_of([sys.executable, "-uc", script], {})


def test_lines_come_as_they_are_printed_and_failure_keeps_the_last():
    started = lines("print('one'); print('two'); raise SystemExit(3)")
    assert [next(started), next(started)] == ["one", "two"]
    with pytest.raises(processes.ProcessFailedError, match="exit code 3:\none\ntwo"):
        next(started)


FAMILY = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""
CALLER = """
import sys
from workbench.compute.processes import lines_of
child = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
for line in lines_of([sys.executable, "-uc", child], {}):
    print(line, flush=True)
"""


def gone(pid):
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_an_interrupt_ends_the_whole_family_and_a_killed_caller_leaves_no_orphan():
    started = lines(FAMILY)
    family = [int(pid) for pid in next(started).split()]
    with pytest.raises(KeyboardInterrupt):
        started.throw(KeyboardInterrupt)
    assert all(gone(pid) for pid in family)
    process = subprocess.Popen([sys.executable, "-c", CALLER], stdout=subprocess.PIPE, text=True)
    with process:
        child = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    assert gone(child)
