"""A job is sent once, found again, watched through trouble, and cancelled only when asked."""

import json
from contextlib import ExitStack

import pytest
from azure.core.pipeline.policies._retry import RetryPolicyBase
from click.testing import CliRunner

from tests.cloud.sdks import OLDEST, needs_v1
from workbench.azure_login import new_login
from workbench.command.__main__ import main
from workbench.compute import cluster_run
from workbench.compute.azureml_v1 import AzureMLv1
from workbench.compute.azureml_v2 import AzureMLv2
from workbench.compute.cluster_job import ClusterJob
from workbench.compute.cluster_run import ShownLog
from workbench.compute.cluster_training import TrainingRun
from workbench.compute.here import TrainingFailedError
from workbench.compute.kept import fetch
from workbench.compute.sender import ClusterError
from workbench.compute.training import train

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs' own


ASKED = r"GET management.*/jobs/|(GET|POST) .*azureml.ms/history/.*/run"
"""Requests of either SDK that look at a run."""


def until(lines, text, said=None):
    """Return the next line with a text; ``said`` keeps those before it, and it."""
    for line in lines:
        if said is not None:
            said.append(line)
        if text in line:
            return line
    raise AssertionError(f"no line with {text!r}")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """SDK v1 keeps Retry-After to itself, and waits for 32 s and more whatever it says."""
    if OLDEST == "v1":
        monkeypatch.setattr("azureml._restclient.clientbase.DEFAULT_BACKOFF", 1)
    monkeypatch.setattr("workbench.azure_resources.BUSY_SECONDS", 1.0)
    monkeypatch.setattr(RetryPolicyBase, "get_backoff_time", lambda *_: 0.05)  # SDK v2's own tries


@pytest.fixture
def waiting(stored, little_code, monkeypatch):
    """A cluster that gives no machines, so that jobs stay queued; they are looked at often."""
    monkeypatch.setattr(cluster_run, "SECONDS_BETWEEN_LOOKS", 0.3)
    stored.azureml.clusters["cpu-cluster"].paused.set()
    return stored


@pytest.mark.parametrize(
    ("sdk", "lost"),
    [
        pytest.param("v1", "cannot be reached", marks=needs_v1),
        ("v2", "AzureML answers 503"),
    ],
)
def test_a_job_is_found_again_and_watched_through_trouble_until_it_is_cancelled(
    waiting, plan, sdk, lost
):
    waiting.azureml.clusters["cpu-cluster"].running = 1
    lines = train(plan(nodes=2, sdk=sdk))
    run = until(lines, "sent as run").split("run ")[1].split()[0]
    assert until(lines, "follow it in the studio: https://")
    assert "goes on, and is billed" in next(lines)
    until(lines, "Queued")
    lines.close()  # the notebook is closed
    job = waiting.azureml.job
    assert job.status == "Queued"
    sent = job.submission.document
    assert sent["docker" if sdk == "v1" else "resources"]["shmSize"] == "8g"  # half of D4s_v3's
    # A login that may not see the run sends no second one.
    again = plan(nodes=2, sdk=sdk)
    waiting.fail(ASKED, status=403)
    with pytest.raises(ClusterError, match="ask for the role AzureML Data Scientist"):
        next(train(again))
    waiting.recover()
    # A login that ends meanwhile is told.
    lines = train(again)
    assert run in until(lines, "found run")
    until(lines, "Queued after")
    waiting.login.expire()
    with pytest.raises(ClusterError, match=r"does not accept the login.*; run workbench-\w+ goes"):
        list(lines)
    assert job.status == "Queued"
    new_login()
    # Lost contact is said once, whatever is asked for then.
    again, said = plan(nodes=2, sdk=sdk), []
    lines = train(again)
    for line in ("found run", "Queued after"):
        until(lines, line, said)
        with ExitStack() as trouble:
            if sdk == "v1":
                for host in ("*.azureml.ms", "management.azure.com"):
                    trouble.enter_context(waiting.network.offline(host))
            else:
                waiting.fail(r"GET (management.*/jobs/|azureml.*/runs/)", status=503)
                trouble.callback(waiting.recover)
            assert lost in until(lines, "the job runs on", said)
        until(lines, "in contact again", said)
    asked = CliRunner().invoke(main, ["cancel", "brain"])
    assert (asked.exit_code, job.id in asked.output) == (0, True), asked.output
    # Where Azure answers 429, nobody asks again before its Retry-After has passed.
    fault = waiting.fail(ASKED, status=429, retry_after=1, times=5)
    with pytest.raises(TrainingFailedError, match="was cancelled; run this again to go on"):
        until(lines, "no such line", said)
    assert (fault.struck, fault.early) == (5, 0)
    assert (job.status, len(waiting.azureml.jobs)) == ("Canceled", 1)
    for words, message in (
        (["cancel", "outputs/brain"], f"no job is at work for outputs/brain: run {job.id} is Canc"),
        (["cancel", "knee"], "no job was sent for outputs/knee"),
        (["cancel", "../brain"], "RUN='../brain': give letters"),
    ):
        refused = CliRunner().invoke(main, words)
        assert (refused.exit_code, message in refused.output) == (1, True), refused.output
    counted = [line for line in said if "node(s)" in line]  # only SDK v1 knows them
    assert counted == (["cpu-cluster has 1 node(s), 2 wanted"] if sdk == "v1" else [])
    assert len([line for line in said if lost in line]) == 2


@needs_v1
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


def test_a_node_shares_half_of_the_memory_that_it_has(stored, plan):
    cluster = stored.azureml.clusters["cpu-cluster"]
    for cluster.vm_size, shared in (("STANDARD_D2_V3", "4g"), ("STANDARD_NEW_V9", "8g")):
        assert plan(nodes=2).where.job.shared_memory == shared


@needs_v1  # SDK v2 knows no problem of a cluster's nodes
def test_what_a_job_keeps_and_meets_is_shown_while_it_goes_on(waiting, plan, monkeypatch, capsys):
    cluster, container = waiting.azureml.clusters["cpu-cluster"], waiting.storage.container()
    cluster.error = ("QuotaExceeded", "Operation would exceed the quota of 24 cores.")
    planned, said = plan(nodes=2), []
    assert "the cluster reports: Operation would exceed the quota" in str(planned)
    lines, log = train(planned), "runs/brain/log.txt"
    assert "quota of 24 cores" in until(lines, "cpu-cluster reports")
    # A log that grows while it is fetched is fetched again without a word.
    changed = {"status": 412, "code": "ConditionNotMet", "times": 2}
    fault = waiting.storage.fail(rf"GET .*/{log}", **changed)
    container.upload_blob(log, b"training on 2 slices\n")
    until(lines, "training on 2 slices", said)
    assert (fault.struck, len(said)) == (2, 1)
    waiting.storage.recover()
    # Curves and the best checkpoint come.
    for path in ("tensorboard/events.out.tfevents.1", "checkpoints/best.ckpt"):
        container.upload_blob(f"runs/brain/{path}", path.encode())
    assert "workbench reconstruct run=brain" in until(lines, "the best checkpoint so far is here")
    assert planned.run.best.read_bytes() == b"checkpoints/best.ckpt"
    assert (planned.run.folder / "tensorboard/events.out.tfevents.1").exists()
    # That it is queued again by itself is a plain line.
    waiting.azureml.job.status = "Preparing"
    assert "has its image built, some ten minutes" in until(lines, "Preparing after")
    waiting.azureml.job.status = "Running"
    until(lines, "Running after")
    waiting.azureml.job.status = "Queued"
    assert next(lines) == cluster_run.REQUEUED

    def interrupted(self, run):
        raise KeyboardInterrupt

    with monkeypatch.context() as stopped:
        stopped.setattr(AzureMLv1, "state", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(lines)
    assert (
        "goes on, and is billed: run this again to watch it; `workbench cancel"
        in capsys.readouterr().out
    )
    assert waiting.azureml.job.status == "Queued"
    lines = train(plan(nodes=2))
    assert "found run" in next(lines)
    container.upload_blob("runs/brain/checkpoints/best.ckpt", b"better", overwrite=True)
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


CRASH = """[rank0]: Traceback (most recent call last):
[rank0]:   File "run.py", line 1, in <module>
[rank0]: RuntimeError: Connection closed by peer
"""


def test_a_traceback_is_kept_and_gives_way_to_a_plain_line_where_another_attempt_follows():
    log, text = ShownLog(), "training on 8 slices\nepoch 1\n" + CRASH
    assert list(log.new(text)) == ["training on 8 slices", "epoch 1"]
    assert log.held == CRASH.splitlines()  # shown where the run ends with it
    text += "training on 8 slices, going on from last.ckpt\nepo"
    plain, again = log.new(text)
    assert plain == "that attempt ended there (log.txt has its traceback); the next one:"
    assert again == "training on 8 slices, going on from last.ckpt"
    assert list(log.new(f"{text}ch 2\n")) == ["epoch 2"]
    assert log.held == []


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


@pytest.mark.parametrize(("here", "there"), [(2, 1), (1, 1), (1, 2)])
def test_the_nodes_go_on_from_where_the_run_is_furthest(waiting, plan, here, there):
    """On the cluster, then on this machine, then on the cluster again."""
    planned = plan(nodes=2)
    folder, container = planned.run.folder, waiting.storage.container()

    def table(epochs):
        return b"epoch,step\n" + b"".join(b"%d,%d\n" % (n, n) for n in range(1, epochs + 1))

    container.upload_blob("runs/brain/checkpoints/last.ckpt", b"of the nodes")
    container.upload_blob("runs/brain/metrics.csv", table(1))
    fetch(planned.where.store, folder)
    if here > 1:
        planned.run.last.write_bytes(b"of this machine")
        (folder / "metrics.csv").write_bytes(table(here))
    if there > 1:  # as another machine has watched it
        container.upload_blob("runs/brain/checkpoints/last.ckpt", b"of later", overwrite=True)
        container.upload_blob("runs/brain/metrics.csv", table(there), overwrite=True)
    lines = train(plan(nodes=2))
    until(lines, "sent as run")
    furthest = {(2, 1): b"of this machine", (1, 1): b"of the nodes", (1, 2): b"of later"}
    found = container.download_blob("runs/brain/checkpoints/last.ckpt").readall()
    assert found == furthest[here, there]
    found = container.download_blob("runs/brain/metrics.csv").readall()
    assert found == table(max(here, there))
    # What the nodes have learned since stays, where one of them is lost and the job sent again.
    container.upload_blob("runs/brain/checkpoints/last.ckpt", b"of the nodes since", overwrite=True)
    container.upload_blob("runs/brain/metrics.csv", table(3), overwrite=True)
    fetch(planned.where.store, folder, lambda path: path == "metrics.csv")
    TrainingRun(planned, planned.where).bring_along()
    found = container.download_blob("runs/brain/checkpoints/last.ckpt").readall()
    assert found == b"of the nodes since"
    waiting.azureml.job.cancel()
    lines.close()


def test_what_another_job_of_that_name_has_learned_is_not_gone_on_from(waiting, plan):
    """Such as a colleague's, in the storage of the workspace."""
    container, before = waiting.storage.container(), plan(nodes=2, loss="l1").job
    container.upload_blob("runs/brain/checkpoints/last.ckpt", b"of a colleague")
    container.upload_blob("runs/brain/job.json", before.to_json())
    with pytest.raises(
        ValueError, match=r"runs/brain in the storage .*\(loss l1 there, None here\)"
    ):
        next(train(plan(nodes=2)))
    assert container.download_blob("runs/brain/job.json").readall().decode() == before.to_json()
    with pytest.raises(ValueError, match="runs/brain in the storage holds a run already"):
        next(train(plan(nodes=2, loss="l1", resume=False)))
    assert waiting.azureml.jobs == {}
    lines = train(plan(nodes=2, loss="l1"))
    until(lines, "sent as run")
    waiting.azureml.job.cancel()
    lines.close()


def test_a_node_lost_for_good_has_the_job_sent_again_but_not_for_ever(waiting, plan, monkeypatch):
    """The nodes do nothing until they are lost: a log stands for a training that had begun."""
    monkeypatch.setattr(cluster_run, "ATTEMPTS", 2)
    monkeypatch.setattr(ClusterJob, "command", lambda *_: "exec sleep 600")
    planned = plan(nodes=1)
    lines = train(planned)
    until(lines, "sent as run")
    waiting.storage.container().upload_blob("runs/brain/log.txt", b"training on 2 slices\n")
    waiting.azureml.clusters["cpu-cluster"].paused.clear()
    while not waiting.azureml.job.nodes:
        next(lines)
    waiting.azureml.job.preempt(requeue=False, warning=0.1)
    assert "attempt 2 of 2" in until(lines, "a node was lost")
    assert len(waiting.azureml.jobs) == 2
    while not waiting.azureml.job.nodes:
        next(lines)
    waiting.azureml.job.preempt(requeue=False, warning=0.1)
    with pytest.raises(TrainingFailedError, match="preempted or became unusable"):
        list(lines)


@pytest.mark.parametrize(
    ("sdk", "submission"),
    [
        pytest.param("v1", "POST .*snapshotrun", marks=needs_v1),
        ("v2", r"PUT management.*/jobs/"),
    ],
)
def test_a_job_that_is_rejected_says_why_and_one_that_came_too_early_is_sent_once(
    waiting, plan, sdk, submission
):
    planned = plan(nodes=1, sdk=sdk)
    message = "The requested VM size is not allowed by the policy of this subscription."
    waiting.fail(submission, status=400, code="UserError", message=message)
    with pytest.raises(ClusterError, match="is not allowed by the policy"):
        list(train(planned))
    waiting.recover()
    waiting.fail(submission, status=403, code="AuthorizationFailed", message="no write")
    with pytest.raises(ClusterError, match="ask for the role AzureML Data Scientist"):
        list(train(planned))
    waiting.recover()
    assert waiting.azureml.jobs == {}
    assert not (planned.run.folder / "azureml.json").exists()
    fault = waiting.fail(submission, status=429, retry_after=1, times=5)
    lines = train(planned)
    until(lines, "Queued")
    lines.close()
    assert (fault.struck, fault.early) == (5, 0)
    assert len(waiting.azureml.jobs) == 1


@pytest.mark.parametrize("sender", [pytest.param(AzureMLv1, marks=needs_v1), AzureMLv2])
def test_a_job_that_never_arrived_is_sent_and_one_that_was_taken_is_not_sent_twice(
    waiting, plan, sender, monkeypatch
):
    """The notebook is interrupted before the service hears of the job, and before it answers."""
    send = sender.submit

    def broken(self, *job):
        raise KeyboardInterrupt

    def taken(self, *job):
        send(self, *job)
        raise KeyboardInterrupt

    for submit, jobs in ((broken, 0), (taken, 1)):
        with monkeypatch.context() as killed:
            killed.setattr(sender, "submit", submit)
            with pytest.raises(KeyboardInterrupt):
                list(train(plan(nodes=2, sdk=sender.sdk)))
        assert len(waiting.azureml.jobs) == jobs
    lines = train(plan(nodes=2, sdk=sender.sdk))
    assert "found run" in next(lines)
    assert len(waiting.azureml.jobs) == 1
    waiting.azureml.job.cancel()
    lines.close()


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
