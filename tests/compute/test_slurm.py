"""The script of docs/slurm.md runs as it stands there: two nodes here, and queued again."""

import csv
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).parents[2]
TINY = ("cascades=1", "chans=2", "pools=1", "sens_chans=2", "sens_pools=1")

# What SLURM itself does. Each node's task has an address of its own for nothing but its name.
SRUN = """#!{python}
import os, signal, subprocess, sys
import psutil

command = [each for each in sys.argv[1:] if not each.startswith("--")]
tasks = [
    subprocess.Popen(
        command,
        env=os.environ | {{
            "SLURM_NODEID": str(node), "SLURM_PROCID": str(node), "SLURM_LOCALID": "0",
            "SLURM_STEP_NUM_NODES": "2", "SLURMD_NODENAME": f"127.0.0.{{node + 1}}",
            "TMPDIR": os.environ["DISKS"] + str(node),
        }},
    )
    for node in range(2)
]

def end(*_):  # as slurmstepd does: every process of the step hears it
    for process in psutil.Process().children(recursive=True):
        try:
            process.terminate()
        except psutil.NoSuchProcess:
            pass

signal.signal(signal.SIGTERM, end)
sys.exit(max(abs(task.wait()) for task in tasks))
"""
SCONTROL = """#!/bin/sh
case "$1" in
    show) echo 127.0.0.1; echo 127.0.0.2 ;;
    requeue) echo "$2" > "$REQUEUED" ;;
esac
"""


@pytest.fixture
def cluster(tmp_path, tiny_study):
    """Returns what starts the script of the docs as SLURM's first node would."""
    (script,) = re.findall(
        r"```bash\n(#!/bin/bash\n.*?)```", (ROOT / "docs/slurm.md").read_text(), re.S
    )
    project, tools = tmp_path / "project", tmp_path / "bin"
    (project / "datasets").mkdir(parents=True)
    (project / "datasets/brain_multicoil").symlink_to(tiny_study)
    (project / ".venv").symlink_to(sys.prefix)
    (project / "train.sbatch").write_text(script)
    tools.mkdir()
    for name, text in {"srun": SRUN.format(python=sys.executable), "scontrol": SCONTROL}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    for node in range(2):
        (tmp_path / f"disk{node}").mkdir()
    slurm = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "brain",
        "SLURM_SUBMIT_DIR": str(project),
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "127.0.0.[1-2]",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_CPUS_PER_TASK": "1",
    }
    own = {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DISKS": str(tmp_path / "disk"),
        "REQUEUED": str(tmp_path / "requeued"),
    }

    def start(*parameters, restarts=0):
        return subprocess.Popen(
            ["bash", "train.sbatch", "model=brain", *TINY, *parameters],
            cwd=project,
            env=os.environ | slurm | own | {"SLURM_RESTART_COUNT": str(restarts)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    started = []
    yield lambda *given, **how: started.append(start(*given, **how)) or started[-1]
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_two_nodes_train_one_run_and_go_on_when_the_job_is_queued_again(cluster, tmp_path):
    first = cluster("epochs=20")
    run = tmp_path / "project/outputs/brain"
    while not (run / "checkpoints/last.ckpt").exists():
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGUSR1)  # the time is nearly up
    while not (tmp_path / "requeued").exists():
        time.sleep(0.05)
    (srun,) = psutil.Process(first.pid).children()
    srun.terminate()
    assert "Traceback" not in first.stdout.read()
    assert first.wait(60) != 0
    assert (tmp_path / "requeued").read_text() == "4711\n"
    assert [*tmp_path.glob("disk*/tmp.*")] == []  # the nodes' own copies of the run are gone

    second = cluster("epochs=20", "reconstruct=val", restarts=1)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == 0, said
    assert re.search(r"2 rank\(s\) on CPU, .*going on from last.ckpt", said), said
    with (run / "metrics.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(n) for n in range(1, 21)]
    assert len([*run.glob("reconstructions/val*/*.h5")]) == 2
    assert (tmp_path / "project/outputs/brain-node1.ipynb").exists()
