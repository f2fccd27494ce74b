"""Jobs that really train on the nodes of a cluster on loopback."""

import json
import threading
import time

import nbformat
import papermill
import pytest

from tests.cloud.sdks import OLDEST
from workbench.compute.here import TrainingFailedError
from workbench.compute.runs import open_run
from workbench.compute.training import train
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.tables import read_scores
from workbench.settings import notebooks

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the SDKs' own
    pytest.mark.usefixtures("leaves_no_secret"),
]

TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}
VOLUMES = ["multicoil_val/file2.h5", "multicoil_val/file3.h5"]


def preempt_once_a_checkpoint_is_kept(cloud):
    end = time.monotonic() + 400
    while time.monotonic() < end:
        if any(job.status in ("Failed", "Completed") for job in cloud.azureml.jobs.values()):
            return
        if "runs/brain/checkpoints/last.ckpt" in cloud.storage.names(prefix="runs/brain/"):
            cloud.azureml.job.preempt(node=1)
            return
        time.sleep(0.1)


def names(node):
    outputs = node / "wd/outputs"
    return {str(path.relative_to(outputs)) for path in outputs.rglob("*")}


def test_a_preempted_job_ends_with_all_its_epochs_and_goes_on_through_the_other_sdk(
    stored, plan, project
):
    """The first job mounts the dataset, the second streams it. Two ranks do two steps an epoch.

    By the other SDK a reconstruction is preempted, in ``test_notebooks_on_azureml``.
    """
    choices = {"epochs": 16, "checkpoint_minutes": 1e-9, "reconstruct": "val"}
    planned = plan(nodes=2, sdk=OLDEST, tags="study:test", **choices)
    assert "2 node(s) of cluster cpu-cluster (STANDARD_D4S_V3, dedicated" in str(planned)
    assert "STANDARD_D4S_V3 has no GPU" in str(planned)
    watcher = threading.Thread(
        target=preempt_once_a_checkpoint_is_kept, args=(stored,), daemon=True
    )
    watcher.start()
    lines = list(train(planned))
    watcher.join()
    job, run = stored.azureml.job, planned.run
    assert (job.status, job.attempts, len(stored.azureml.jobs)) == ("Completed", 2, 1)
    assert [row["epoch"] for row in run.metrics] == list(range(1, 17))
    assert run.metrics[-1]["step"] == 32
    assert "going on from last.ckpt" in job.log(0)
    assert "Using the dataset cache" in job.log(0)
    assert "unchecked" in job.log(1)
    assert any("2 rank(s) on CPU" in line for line in lines)
    # All that a run leaves is here, as if it had been trained here.
    assert run.finished
    assert run.best.exists()
    assert run.synthetic
    assert len(run.volumes) == 2
    page = nbformat.read(run.folder / "train.ipynb", as_version=4)
    assert page.metadata.papermill.exception is None
    # Only node 0 leaves anything where AzureML collects a job's outputs.
    collected = stored.storage.names("azureml")
    assert f"{job.artifacts}/outputs/train.ipynb" in collected
    # What node 0 left before it was preempted, AzureML brings to all nodes of the second attempt.
    attempts = job.nodes[1].folder.parent.parent
    assert names(attempts / "attempt2/node1") <= names(attempts / "attempt1/node0")
    assert "node 0 of 2 with 1 CPU process" in job.log(0)
    # The studio has the run's curves, each epoch once though the job was queued twice.
    tracked = stored.tracking.runs[job.id]
    assert tracked.curve("val_ssim") == [
        (row["step"], pytest.approx(row["val_ssim"])) for row in run.metrics
    ]
    assert tracked.params["epochs"] == "16"
    assert tracked.artifacts["model/best.ckpt"] == run.best.read_bytes()
    assert "without" not in "".join(line for line in lines if line.startswith("mlflow"))
    # Each node has reconstructed one of the two volumes, and all of it is here.
    assert "reconstructing val: 2 volumes, 0 there already" in lines
    assert "rank 0: 1 of 1" in job.log(0)
    assert "rank 1: 1 of 1" in job.log(1)
    results = run.folder / "reconstructions/val-equispaced-4x-0.08"
    assert [row["volume"] for row in read_scores(results)] == VOLUMES
    # reconstruct.ipynb reads the dataset where it lies, and finds all of it done.
    assert plan_reconstruction(run="brain").order.volumes == ()
    assert next(iter(train(plan(nodes=2, **choices)))).endswith("is finished: 16 epochs are done")
    # As if the notebook had been killed while it fetched: the rest comes, and no job is sent.
    record = run.folder / "azureml.json"
    record.write_text(record.read_text().replace('"fetched": true', '"fetched": false'))
    (results / "file2.h5").unlink()
    assert list(train(plan(nodes=2, **choices)))[-1].endswith("is finished: 16 epochs are done")
    assert (results / "file2.h5").exists()
    assert len(stored.azureml.jobs) == 1

    stored.azureml.add_cluster("known", vm_size="STANDARD_D4S_V3", nodes=2, identity=True)
    chosen = {"model": "brain", "nodes": 2, "cluster": "known", "sdk": "v2", **choices, **TINY}
    chosen |= {"epochs": 18, "dataset_access": "stream"}
    requests = stored.storage.watch()
    page = papermill.execute_notebook(
        notebooks() / "train.ipynb",
        project / "outputs/page.ipynb",
        chosen,
        progress_bar=False,
    )
    job = stored.azureml.job
    assert job.status == "Completed", job.log(0)
    assert "going on from last.ckpt" in job.log(0)
    assert (job.attempts, len(stored.azureml.jobs)) == (1, 2)
    # Nothing but the run's own folder was mounted, and nothing downloaded.
    assert set(job.downloads) == {"store"}
    asked = [each for each, _ in requests if "/brain_multicoil/multicoil_" in each.path]
    assert len(asked) >= 2 * 8 * 2  # k-space and target of 8 slices in each of two epochs
    assert all("range" in each.headers or "x-ms-range" in each.headers for each in asked)
    assert open_run("brain").finished
    assert [row["epoch"] for row in run.metrics] == list(range(1, 19))
    assert run.metrics[-1]["step"] == 36
    shown = json.dumps(page)
    for text in ("sent as run", "follow it in the studio", "2 rank(s) on CPU", "best epoch"):
        assert text in shown
    for text in ("streams by ranged reads", "reconstructing val: ", "zero-filled"):
        assert text in shown
    assert [row["volume"] for row in read_scores(results)] == VOLUMES


LOSS = """
import os

def loss(image, target, max_value):
    if os.environ.get("NODE_RANK") == "1" and "TORCHELASTIC_RUN_ID" in os.environ:
        raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
    return (image - target).abs().mean()
"""


def test_the_cause_is_told_though_another_node_fails_in_its_wake(
    stored, plan, project, monkeypatch
):
    """Each node sees of the store what was there when it began, and what it wrote itself."""
    (project / "scarce.py").write_text(LOSS)
    monkeypatch.syspath_prepend(project)
    planned = plan(nodes=2, loss="scarce:loss", epochs=1)
    with pytest.raises(TrainingFailedError, match="rank 1: RuntimeError: CUDA out of memory"):
        list(train(planned))
    assert len(stored.azureml.jobs) == 1  # not sent again: no node was lost
    assert "runs/brain/errors/node1-rank1.json" in stored.storage.names(prefix="runs/brain/errors/")


HOARDING = """
import os, tempfile

if "WORKBENCH_NODES" in os.environ:
    with open(tempfile.mkstemp()[0], "wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))

def loss(image, target, max_value):
    return (image - target).abs().mean()
"""


def test_a_node_whose_disk_is_full_says_so_and_no_other_one_is_paid_for(
    stored, plan, project, monkeypatch, small_disk
):
    """Its own code fills the disk, so that not even its error can be left in the storage."""
    small_disk("60m", stored.folder / "jobs")
    (project / "hoarding.py").write_text(HOARDING)
    monkeypatch.syspath_prepend(project)
    planned = plan(nodes=1, loss="hoarding:loss", epochs=1)
    with pytest.raises(TrainingFailedError) as failed:
        list(train(planned))
    assert "The emulator failed" not in str([each.error for each in stored.azureml.jobs.values()])
    assert len(stored.azureml.jobs) == 1
    assert "exited with status code" in str(failed.value)
    assert "no error in the storage: its disk may have been full" in str(failed.value)


def test_nodes_that_lack_the_gpus_they_were_taken_for_end_the_job_at_once(stored, plan):
    planned = plan(cluster="gpu-cluster", epochs=1)
    with pytest.raises(TrainingFailedError, match=r"UnusableGpuError: torch sees no GPU.*studio"):
        list(train(planned))
    assert len(stored.azureml.jobs) == 1  # not sent again: the node was not lost
    assert "Using the dataset cache" not in stored.azureml.job.log(0)
