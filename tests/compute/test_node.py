"""Nodes of a job train one run together, and what they keep outlives them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import torch

from workbench.compute import node
from workbench.compute.cluster_job import SOURCE, ClusterJob, DataFolder
from workbench.compute.runs import Run
from workbench.dataset.cache import build_cache

TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}


def a_job(nodes=2, **parameters):
    return ClusterJob(
        "tiny",
        "fastmri",
        "cpu",
        nodes,
        "CPU",
        DataFolder("dataset", "blobs", "brain_multicoil", "mount"),
        DataFolder("store", "blobs", "runs/tiny", "write"),
        {"model": "brain", **TINY, **parameters},
    )


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Nodes:
    """The job's command on every node, started as AzureML starts it."""

    def __init__(self, job, folder, dataset, store):
        self.folder = folder
        command = job.command({"dataset": str(dataset), "store": str(store)})
        port = str(free_port())
        self.processes = []
        for rank in range(job.nodes):
            place = folder / f"node{rank}"
            place.mkdir(parents=True)
            for name in ("workbench", "notebooks"):
                (place / name).symlink_to(SOURCE / name)
            place_in_job = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "NODE_RANK": str(rank),
                "TMPDIR": str(place),
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            }
            with (place / "log").open("w") as log:
                process = subprocess.Popen(
                    ["bash", "-c", command],
                    cwd=place,
                    env={**os.environ, **job.variables, **place_in_job, "OMP_NUM_THREADS": "1"},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            self.processes.append(process)

    def wait(self):
        return [process.wait(120) for process in self.processes]

    def log(self, rank):
        return (self.folder / f"node{rank}/log").read_text()

    def kill(self):
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def start(tmp_path):
    started = []

    def begin(job, dataset, store, name="job"):
        started.append(Nodes(job, tmp_path / name, dataset, store))
        return started[-1]

    yield begin
    for nodes in started:
        nodes.kill()


def test_two_nodes_train_one_run_and_node_0_keeps_it(tiny_study, tmp_path, start):
    dataset, store = tmp_path / "dataset", tmp_path / "store"
    shutil.copytree(tiny_study, dataset)
    build_cache(dataset)
    store.mkdir()
    nodes = start(a_job(epochs=2), dataset, store)
    assert nodes.wait() == [0, 0], nodes.log(0) + nodes.log(1)
    kept = Run(store)
    assert [row["epoch"] for row in kept.metrics] == [1, 2]
    assert kept.metrics[-1]["step"] == 4  # 4 slices on 2 ranks, 2 epochs
    assert torch.load(kept.last, weights_only=True)["epoch"] == 1
    assert "2 rank(s) on CPU" in (store / node.LOG_FILE).read_text()
    assert "Using the dataset cache" in nodes.log(0)
    assert "unchecked" in nodes.log(1)
    notebook = nbformat.read(store / "train.ipynb", as_version=4)
    shown = json.dumps(notebook)
    assert "node 0 of 2 with 1 CPU process" in shown
    assert "best epoch" in shown
    # Only node 0 leaves anything where AzureML collects a job's outputs.
    assert (tmp_path / "job/node0/outputs/train.ipynb").exists()
    assert not (tmp_path / "job/node1/outputs").exists()


def test_what_was_restored_is_not_sent_back(tmp_path):
    folder, store = tmp_path / "run", tmp_path / "store"
    (store / "reconstructions").mkdir(parents=True)
    for name in ("metrics.csv", "reconstructions/a.h5"):
        (store / name).write_text("old")
    node.restore(folder, store)
    before = {path: path.stat().st_ino for path in store.rglob("*") if path.is_file()}
    with node.kept(folder, store):
        (folder / "metrics.csv").write_text("new")
    assert (store / "metrics.csv").read_text() == "new"
    assert (store / "reconstructions/a.h5").stat().st_ino == before[store / "reconstructions/a.h5"]
    other = tmp_path / "another node"
    assert node.restore(other, store, without="reconstructions") == ["metrics.csv"]
