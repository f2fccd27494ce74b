"""A job is sent once, found again, watched through trouble, and cancelled only when asked."""

import json
from contextlib import ExitStack

import pytest
from azure.core.pipeline.policies._retry import RetryPolicyBase

from workbench.compute import cluster_run
from workbench.compute.azureml_v1 import AzureMLv1
from workbench.compute.azureml_v2 import AzureMLv2
from workbench.compute.cluster_job import ClusterJob
from workbench.compute.cluster_run import ShownLog
from workbench.compute.here import TrainingFailedError
from workbench.compute.sender import ClusterError
from workbench.compute.training import train

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs' own


def until(lines, text):
    """Return the next line with a text."""
    for line in lines:
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r}")


@pytest.fixture
def waiting(stored, little_code):
    """A cluster that gives no machines, so that jobs stay queued."""
    stored.azureml.clusters["cpu-cluster"].paused.set()
    return stored


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_a_job_that_was_sent_is_found_again_and_cancelled(waiting, plan, sdk):
    first = plan(nodes=2, sdk=sdk)
    lines = train(first)
    sent = until(lines, "sent as run")
    assert until(lines, "follow it in the studio: https://")
    until(lines, "Queued")
    lines.close()  # the notebook is closed
    assert waiting.azureml.job.status == "Queued"
    again = plan(nodes=2, sdk=sdk)
    lines = train(again)
    found = until(lines, "found run")
    assert sent.split("run ")[1].split()[0] in found
    assert len(waiting.azureml.jobs) == 1
    again.where.sender.cancel(waiting.azureml.job.id)
    with pytest.raises(TrainingFailedError, match="was cancelled; run this again to go on"):
        list(lines)
    assert waiting.azureml.job.status == "Canceled"


def test_a_job_that_fails_while_it_is_looked_at_has_its_reason(waiting, plan, monkeypatch):
    from azureml.core import Run

    planned = plan(nodes=2, sdk="v1")
    lines = train(planned)
    until(lines, "Queued")
    lines.close()
    job, details = waiting.azureml.job, Run.get_details

    def then_it_fails(run):
        told = details(run)
        job.error, job.status = "out of memory", "Failed"
        return told

    monkeypatch.setattr(Run, "get_details", then_it_fails)
    seen = [planned.where.sender.state(job.id) for _ in range(2)]
    job.status = "Queued"
    job.cancel()
    assert [(state.status, state.error) for state in seen] == [
        ("Queued", ""),
        ("Failed", "out of memory"),
    ]


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_the_nodes_that_a_cluster_has_are_told_only_where_the_sdk_knows_them(waiting, plan, sdk):
    waiting.azureml.clusters["cpu-cluster"].running = 1
    lines, said = train(plan(nodes=2, sdk=sdk)), []
    until(lines, "Queued")
    waiting.azureml.job.cancel()
    with pytest.raises(TrainingFailedError, match="was cancelled"):
        said.extend(lines)
    counted = [line for line in said if "node(s)" in line]
    assert counted == (["cpu-cluster has 1 node(s), 2 wanted"] if sdk == "v1" else [])


@pytest.mark.parametrize("sdk", ["v1", "v2"])
@pytest.mark.parametrize(
    ("size", "shared"),
    [("STANDARD_D4S_V3", "8g"), ("STANDARD_D2_V3", "4g"), ("STANDARD_NEW_V9", "8g")],
)
def test_a_node_shares_half_of_the_memory_that_it_has(waiting, plan, sdk, size, shared):
    waiting.azureml.clusters["cpu-cluster"].vm_size = size
    lines = train(plan(nodes=2, sdk=sdk))
    assert "sent as run" in next(lines)
    lines.close()
    sent = waiting.azureml.job.submission.document
    assert sent["docker" if sdk == "v1" else "resources"]["shmSize"] == shared


def test_curves_and_the_best_checkpoint_come_while_the_job_goes_on(waiting, plan):
    planned = plan(nodes=2)
    lines = train(planned)
    until(lines, "Queued")
    for path in ("tensorboard/events.out.tfevents.1", "checkpoints/best.ckpt"):
        waiting.storage.container().upload_blob(f"runs/brain/{path}", path.encode())
    assert "workbench reconstruct run=brain" in until(lines, "the best checkpoint so far is here")
    assert planned.run.best.read_bytes() == b"checkpoints/best.ckpt"
    assert (planned.run.folder / "tensorboard/events.out.tfevents.1").exists()
    waiting.storage.container().upload_blob(
        "runs/brain/checkpoints/best.ckpt", b"better", overwrite=True
    )
    waiting.azureml.job.cancel()
    with pytest.raises(TrainingFailedError, match="was cancelled"):
        list(lines)
    assert planned.run.best.read_bytes() == b"better"  # what it kept until then is here


@pytest.mark.parametrize("status", ["Canceled", "Failed"])
def test_what_ended_while_nobody_watched_is_told_and_brought_before_another_job_is_paid_for(
    waiting, plan, status
):
    planned = plan(nodes=2)
    lines = train(planned)
    until(lines, "Queued")
    lines.close()  # the notebook is closed
    container = waiting.storage.container()
    container.upload_blob("runs/brain/checkpoints/best.ckpt", b"kept")
    waiting.azureml.job.cancel()
    waiting.azureml.job.join().status = status
    if status == "Failed":
        container.upload_blob(
            "runs/brain/errors/node0-rank0.json",
            json.dumps({"rank": 0, "kind": "ValueError", "message": "loss='x'"}),
        )
    said, message = [], {"Canceled": "was cancelled; run this again to go on"}
    with pytest.raises(TrainingFailedError, match=message.get(status, "ValueError")):
        said.extend(train(plan(nodes=2)))
    assert "checkpoints/best.ckpt" in said[0]
    assert planned.run.best.read_bytes() == b"kept"
    assert not any("goes on, and is billed" in line for line in said)
    assert len(waiting.azureml.jobs) == 1
    lines = train(plan(nodes=2))
    until(lines, "sent as run")
    lines.close()
    assert len(waiting.azureml.jobs) == 2
    waiting.azureml.job.cancel()


def test_a_log_that_grows_while_it_is_fetched_is_fetched_again_without_a_word(waiting, plan):
    planned = plan(nodes=2)
    lines = train(planned)
    until(lines, "Queued")
    changed = {"status": 412, "code": "ConditionNotMet", "times": 2}
    fault = waiting.storage.fail(r"GET .*/runs/brain/log\.txt", **changed)
    waiting.storage.container().upload_blob("runs/brain/log.txt", b"training on 2 slices\n")
    said = [next(lines), next(lines)]
    assert [line for line in said if "node(s)" not in line] == ["training on 2 slices"]
    assert fault.struck == 2
    waiting.azureml.job.cancel()
    lines.close()


def test_a_job_that_is_queued_again_by_itself_says_so_in_a_plain_line(waiting, plan):
    lines = train(plan(nodes=2))
    until(lines, "Queued")
    waiting.azureml.job.status = "Preparing"
    assert "has its image built, some ten minutes" in until(lines, "Preparing after")
    waiting.azureml.job.status = "Running"
    until(lines, "Running after")
    waiting.azureml.job.status = "Queued"
    assert next(lines) == cluster_run.REQUEUED
    waiting.azureml.job.cancel()
    with pytest.raises(TrainingFailedError, match="was cancelled"):
        list(lines)


CRASH = """[rank0]: Traceback (most recent call last):
[rank0]:   File "run.py", line 1, in <module>
[rank0]: RuntimeError: Connection closed by peer
"""


def test_a_traceback_gives_way_to_a_plain_line_where_another_attempt_follows():
    log, text = ShownLog(), "training on 8 slices\nepoch 1\n" + CRASH
    assert list(log.new(text)) == ["training on 8 slices", "epoch 1"]
    text += "training on 8 slices, going on from last.ckpt\nepo"
    plain, again = log.new(text)
    assert plain == "that attempt ended there (log.txt has its traceback); the next one:"
    assert again == "training on 8 slices, going on from last.ckpt"
    assert list(log.new(f"{text}ch 2\n")) == ["epoch 2"]
    assert log.held == []


def test_a_traceback_that_the_run_ends_with_is_kept():
    log = ShownLog()
    assert list(log.new(f"epoch 1\n{CRASH}")) == ["epoch 1"]
    assert log.held == CRASH.splitlines()


@pytest.mark.parametrize(
    ("sdk", "said"), [("v1", "cannot be reached"), ("v2", "AzureML answers 503")]
)
def test_lost_contact_is_said_once_and_watching_goes_on(waiting, plan, sdk, said, monkeypatch):
    monkeypatch.setattr(RetryPolicyBase, "get_backoff_time", lambda *_: 0.05)  # SDK v2's own tries
    lines = train(plan(nodes=2, sdk=sdk))
    until(lines, "Queued")
    with ExitStack() as trouble:
        if sdk == "v1":
            for host in ("*.azureml.ms", "management.azure.com"):
                trouble.enter_context(waiting.network.offline(host))
        else:
            waiting.fail(r"GET (management.*/jobs/|azureml.*/runs/)", status=503)
            trouble.callback(waiting.recover)
        assert said in until(lines, "the job runs on")
    until(lines, "in contact again")
    waiting.azureml.job.cancel()
    with pytest.raises(TrainingFailedError, match="was cancelled"):
        list(lines)


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_a_login_that_ends_meanwhile_is_told_and_the_job_goes_on(waiting, plan, sdk):
    planned = plan(nodes=2, sdk=sdk)
    lines = train(planned)
    until(lines, "Queued")
    waiting.login.expire()
    with pytest.raises(
        ClusterError, match=r"does not accept the login.*; run workbench-\w+ goes on"
    ):
        list(lines)
    assert waiting.azureml.job.status == "Queued"


def test_a_quota_that_keeps_the_cluster_small_is_shown(waiting, plan):
    waiting.azureml.clusters["cpu-cluster"].error = (
        "QuotaExceeded",
        "Operation would exceed the quota of 24 cores.",
    )
    planned = plan(nodes=2)
    assert "the cluster reports: Operation would exceed the quota" in str(planned)
    lines = train(planned)
    assert "quota of 24 cores" in until(lines, "cpu-cluster reports")
    waiting.azureml.job.cancel()
    with pytest.raises(TrainingFailedError):
        list(lines)


def test_a_plan_that_cannot_run_is_refused_before_anything_is_sent(
    stored, plan, project, monkeypatch
):
    for parameters, error, message in (
        ({"nodes": 3}, ValueError, "nodes=3: cluster cpu-cluster .*up to 2 nodes"),
        ({"nodes": 0}, ValueError, "nodes=0: give a whole number, 1 or more"),
        ({"azure_dataset": "knee"}, FileNotFoundError, "no volumes in .*/datasets/knee"),
        ({"datastore": "x"}, ValueError, "datastore='x': the workspace has"),
        ({"tags": "4x"}, ValueError, "tags='4x'"),
        ({"experiment": "mine and yours"}, ValueError, "experiment='mine and yours': give letters"),
        ({"torch_build": "cu99"}, ValueError, "torch_build='cu99'"),
        ({"sdk": "v3"}, ValueError, "sdk='v3': give one of v1, v2"),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"dataset_mount": "yes"}, ValueError, "dataset_mount='yes': give True or False"),
        ({"dataset_access": "fly"}, ValueError, "dataset_access='fly': give 'mount', 'downl"),
        ({"dataset_access": "stream", "dataset_mount": True}, ValueError, "give one of the two"),
        ({"dataset_access": "stream"}, ValueError, "has no managed identity .* Data Reader"),
        ({"price_per_hour": "3"}, ValueError, "price_per_hour='3': give a number"),
        ({"price_per_hour": -1}, ValueError, "price_per_hour=-1: give 0 or more"),
        ({"reconstruct": "tset"}, ValueError, "reconstruct='tset': give one or several of train"),
        ({"reconstruct": "test"}, ValueError, "has no test volumes"),
        ({"target": "azureml", "local_dataset": "x"}, ValueError, "give azure_dataset"),
    ):
        with pytest.raises(error, match=message):
            plan(**parameters)
    stored.fail(r"GET .*/computes", status=403)
    with pytest.raises(ClusterError, match="ask for the role AzureML Data Scientist"):
        plan()
    monkeypatch.delenv("AZURE_WORKSPACE_NAME")
    with pytest.raises(ValueError, match=r"no AzureML workspace is configured: download config\.j"):
        plan(target="azureml")
    assert stored.azureml.jobs == {}
    assert not (project / "outputs").exists()


def test_a_run_of_this_machine_goes_on_in_the_cloud(waiting, plan):
    planned = plan(nodes=2)
    planned.run.last.parent.mkdir()
    planned.run.last.write_bytes(b"checkpoint")
    lines = train(planned)
    until(lines, "sent as run")
    kept = waiting.storage.names(prefix="runs/brain/")
    names = ("checkpoints/last.ckpt", "dataset_cache.json", "job.json")
    assert kept == [f"runs/brain/{name}" for name in names]
    record = json.loads((planned.run.folder / "azureml.json").read_text())
    assert (record["cluster"], record["nodes"], record["attempts"]) == ("cpu-cluster", 2, 1)
    waiting.azureml.job.cancel()
    lines.close()


def test_a_node_lost_for_good_has_the_job_sent_again_but_not_for_ever(stored, plan, monkeypatch):
    """The job is stopped by hand before it runs: its log stands for a training that had begun."""
    monkeypatch.setattr(cluster_run, "ATTEMPTS", 2)
    stored.azureml.clusters["cpu-cluster"].paused.set()
    planned = plan(nodes=1)
    lines = train(planned)
    until(lines, "sent as run")
    stored.storage.container().upload_blob("runs/brain/log.txt", b"training on 2 slices\n")
    stored.azureml.clusters["cpu-cluster"].paused.clear()
    while not stored.azureml.job.nodes:
        next(lines)
    stored.azureml.job.preempt(requeue=False, warning=0.1)
    assert "attempt 2 of 2" in until(lines, "a node was lost")
    assert len(stored.azureml.jobs) == 2
    while not stored.azureml.job.nodes:
        next(lines)
    stored.azureml.job.preempt(requeue=False, warning=0.1)
    with pytest.raises(TrainingFailedError, match="preempted or became unusable"):
        list(lines)


@pytest.mark.parametrize(
    ("sdk", "submission"), [("v1", "POST .*snapshotrun"), ("v2", r"PUT management.*/jobs/")]
)
def test_a_job_that_is_rejected_says_why_and_leaves_no_record(
    stored, little_code, plan, sdk, submission
):
    planned = plan(nodes=1, sdk=sdk)
    message = "The requested VM size is not allowed by the policy of this subscription."
    stored.fail(submission, status=400, code="UserError", message=message)
    with pytest.raises(ClusterError, match="is not allowed by the policy"):
        list(train(planned))
    stored.recover()
    stored.fail(submission, status=403, code="AuthorizationFailed", message="no write")
    with pytest.raises(ClusterError, match="ask for the role AzureML Data Scientist"):
        list(train(planned))
    assert stored.azureml.jobs == {}
    assert not (planned.run.folder / "azureml.json").exists()


@pytest.mark.parametrize("sender", [AzureMLv1, AzureMLv2])
def test_a_job_whose_sender_is_killed_before_it_hears_of_it_is_not_sent_twice(
    waiting, plan, sender, monkeypatch
):
    """The service has taken the job, and bills it, when the notebook is interrupted."""
    send = sender.submit

    def taken(self, *job):
        send(self, *job)
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(sender, "submit", taken)
        with pytest.raises(KeyboardInterrupt):
            list(train(plan(nodes=2, sdk=sender.sdk)))
    planned = plan(nodes=2, sdk=sender.sdk)
    lines = train(planned)
    assert "found run" in next(lines)
    assert len(waiting.azureml.jobs) == 1
    waiting.azureml.job.cancel()
    lines.close()


def test_an_interrupt_says_that_the_job_goes_on_and_costs(waiting, plan, monkeypatch, capsys):
    lines = train(plan(nodes=2))
    until(lines, "follow it in the studio")
    assert "goes on, and is billed" in next(lines)
    until(lines, "Queued")

    def interrupted(self, run):
        raise KeyboardInterrupt

    monkeypatch.setattr(AzureMLv1, "state", interrupted)
    with pytest.raises(KeyboardInterrupt):
        list(lines)
    assert "goes on, and is billed: run this again to watch it, or" in capsys.readouterr().out
    assert waiting.azureml.job.status == "Queued"


def test_a_job_that_never_arrived_is_sent_at_the_next_start(waiting, plan, monkeypatch):
    def broken(self, *job):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(AzureMLv1, "submit", broken)
        with pytest.raises(KeyboardInterrupt):
            list(train(plan(nodes=2)))
    lines = train(plan(nodes=2))
    assert any("sent as run" in next(lines) for _ in range(4))
    assert len(waiting.azureml.jobs) == 1
    lines.close()


@pytest.mark.parametrize("sdk", ["v1", "v2"])
def test_a_login_that_may_not_see_the_run_sends_no_second_one(waiting, plan, sdk):
    lines = train(plan(nodes=2, sdk=sdk))
    until(lines, "Queued")
    lines.close()
    planned = plan(nodes=2, sdk=sdk)
    waiting.fail(r"GET management.*/jobs/|(GET|POST) .*azureml.ms/history/.*/run", status=403)
    with pytest.raises(ClusterError, match="ask for the role AzureML Data Scientist"):
        next(train(planned))
    assert len(waiting.azureml.jobs) == 1


def test_a_job_that_fails_before_it_begins_is_not_sent_again_though_one_before_it_did_begin(
    stored, little_code, plan, monkeypatch
):
    """The log of an earlier job is in the folder: this one's image cannot be built."""
    image = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda12.1-cudnn8-ubuntu22.04"
    monkeypatch.setattr(ClusterJob, "image", image)
    planned, said = plan(nodes=1), []
    log = planned.run.folder / "log.txt"
    log.write_text("training on 2 slices\n")
    stored.storage.container().upload_blob("runs/brain/log.txt", log.read_bytes())
    with pytest.raises(TrainingFailedError, match="Image build failed"):
        said.extend(train(planned))
    assert len(stored.azureml.jobs) == 1
    assert "training on 2 slices" not in said
