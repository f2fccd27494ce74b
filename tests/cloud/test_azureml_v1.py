"""AzureML under azureml-core (SDK v1): a submitted job really runs, once on every node."""

import os

import psutil
import pytest
import requests

from tests.cloud.submission_v1 import SNAPSHOTS

pytestmark = pytest.mark.filterwarnings("ignore")  # azureml-core's own


@pytest.fixture
def workspace(cloud, monkeypatch):
    from azureml.core import Workspace
    from azureml.core.authentication import ServicePrincipalAuthentication

    cloud.apply(monkeypatch)
    known = cloud.principal
    login = ServicePrincipalAuthentication(known.tenant, known.client, known.secret)
    return Workspace.get(
        cloud.workspace.name,
        auth=login,
        subscription_id=cloud.workspace.subscription_id,
        resource_group=cloud.workspace.resource_group,
    )


@pytest.fixture
def submit(workspace, cloud, tmp_path):
    """Send a job: ``submit("echo hello", nodes=2, knee="mount")``."""
    from azureml.core import Datastore, Environment, Experiment, ScriptRunConfig
    from azureml.core.runconfig import PyTorchConfiguration

    source = tmp_path / "source"
    (source / "package").mkdir(parents=True)
    (source / "package/hello.py").write_text("print('hello')\n")
    (source / "big.h5").write_bytes(b"x")
    (source / ".amlignore").write_text("*.h5\n")

    def send(command, *, nodes=1, variables=None, cluster="gpu-cluster", seconds=None, **data):
        configuration = ScriptRunConfig(
            source_directory=str(source),
            command=command,
            compute_target=cluster,
            environment=Environment("fastmri"),
            distributed_job_config=PyTorchConfiguration(node_count=nodes),
            max_run_duration_seconds=seconds,
        )
        store = Datastore.get(workspace, "fastmri")
        references = {}
        for name, mode in data.items():
            path = store.path(f"knee_multicoil/{name}", data_reference_name=name)
            references[name] = path.as_mount() if mode == "mount" else path.as_download()
        for name, reference in references.items():
            configuration.command = configuration.command.replace(f"<{name}>", str(reference))
        run_config = configuration.run_config
        run_config.data_references = {n: r.to_config() for n, r in references.items()}
        run_config.environment_variables = variables or {}
        return Experiment(workspace, "fastmri").submit(configuration, tags={"who": "me"})

    return send


def test_the_workspace_shows_its_clusters_and_datastores(workspace, cloud):
    assert set(workspace.compute_targets) == {"gpu-cluster", "cpu-cluster"}
    cluster = workspace.compute_targets["gpu-cluster"]
    assert (cluster.vm_size, cluster.scale_settings.maximum_node_count) == (
        *("STANDARD_NC24ADS_A100_V4", 4),
    )
    assert {"workspaceblobstore", "fastmri"} < set(workspace.datastores)
    default = workspace.get_default_datastore()
    assert (default.account_name, default.name) == (cloud.storage.account, "workspaceblobstore")


def test_a_command_runs_on_every_node_with_azuremls_variables(submit, cloud):
    run = submit(
        "echo $NODE_RANK of $WORLD_SIZE at $MASTER_ADDR:$MASTER_PORT $A",
        nodes=2,
        variables={"A": "set"},
    )
    job = cloud.azureml.job.join()
    assert (run.get_status(), job.attempts) == ("Completed", 1)
    first, second = job.log(0).split(), job.log(1).split()
    assert (first[0], second[0]) == ("0", "1")
    assert first[1:] == second[1:]
    assert first[2] == "2"
    assert first[-1] == "set"
    assert run.get_details()["runId"] == cloud.azureml.job.id


def test_nodes_meet_at_the_master_and_see_the_data(submit, cloud):
    container = cloud.storage.container()
    for number in range(2):
        container.upload_blob(f"knee_multicoil/val/file{number}.h5", b"x")
    program = (
        "import os, sys, torch.distributed as d; d.init_process_group('gloo');"
        "x = [None] * 2; d.all_gather_object(x, d.get_rank());"
        "print('ranks', x, sorted(os.listdir(sys.argv[1]))); d.destroy_process_group()"
    )
    command = f'python -c "{program}" <val>'
    submit(command, nodes=2, val="mount")
    job = cloud.azureml.job.join()
    assert job.status == "Completed", job.log(0)
    for node in range(2):
        assert "ranks [0, 1] ['file0.h5', 'file1.h5']" in job.log(node)
    assert job.downloads == {"val": 1}
    assert cloud.backbone.refused == []


def test_a_node_has_the_snapshot_and_nothing_of_the_client(submit, cloud, monkeypatch):
    monkeypatch.setenv("OF_THE_CLIENT", "1")
    submit(
        "python package/hello.py; ls; env; python -c 'import workbench' || echo no workbench;"
        "cd $HOME; pwd"
    )
    job = cloud.azureml.job.join()
    assert job.log().startswith("hello\n")
    assert "no workbench" in job.log()
    for absent in ("big.h5", "OF_THE_CLIENT", "AZURE_CLIENT_SECRET", cloud.principal.secret):
        assert absent not in job.log()
    assert str(cloud.home) not in job.log()


def test_a_second_snapshot_sends_what_has_changed_and_is_whole(submit, cloud, tmp_path):
    """The SDK compares with the last snapshot that it sent, and sends only the difference."""
    source = tmp_path / "source"
    (source / "stays.txt").write_text("stays")
    (source / "goes.txt").write_text("goes")
    submit("true")
    cloud.azureml.job.join()
    (source / "goes.txt").unlink()
    (source / "package/hello.py").write_text("print('hello again')\n")
    submit("python package/hello.py; ls")
    job = cloud.azureml.job.join()
    assert job.log().splitlines()[0] == "hello again"
    assert "stays.txt" in job.log()
    assert "goes.txt" not in job.log()


def test_downloads_are_one_a_node_and_mounts_are_written_back(submit, cloud):
    cloud.storage.container().upload_blob("knee_multicoil/val/a", b"x")
    cloud.storage.container().upload_blob("knee_multicoil/store/old", b"x")
    submit(
        "cp <val>/a <store>/$NODE_RANK; rm -f <store>/old", nodes=2, val="download", store="mount"
    )
    job = cloud.azureml.job.join()
    assert job.status == "Completed", job.log()
    assert job.downloads == {"val": 2, "store": 1}
    assert cloud.storage.names(prefix="knee_multicoil/store") == [
        "knee_multicoil/store/0",
        "knee_multicoil/store/1",
    ]


def test_logs_and_outputs_are_fetched(submit, cloud, tmp_path):
    run = submit("echo hello; mkdir -p outputs/a; echo 1 > outputs/a/b; echo 2 > logs/c")
    cloud.azureml.job.join()
    assert set(run.get_file_names()) == {"outputs/a/b", "logs/c", "user_logs/std_log.txt"}
    run.download_files(prefix="outputs", output_directory=str(tmp_path / "all"))
    assert (tmp_path / "all/outputs/a/b").read_text() == "1\n"
    run.download_file("logs/c", str(tmp_path / "c"))
    assert (tmp_path / "c").read_text() == "2\n"
    (link,) = run.get_details()["logFiles"].values()
    assert requests.get(link, timeout=5).text == "hello\n"


def test_a_failed_command_fails_the_run_and_ends_the_other_nodes(submit, cloud):
    run = submit('[ $NODE_RANK = 1 ] && { echo "no data"; exit 3; }; sleep 60', nodes=2)
    job = cloud.azureml.job.join()
    assert run.get_status() == "Failed"
    assert "node 1 exited with status code 3" in run.get_details()["error"]["error"]["message"]
    assert "no data" in job.log(1)


def test_a_run_is_found_again_and_cancelled(submit, workspace, cloud):
    run = submit("echo started; sleep 60")
    cloud.azureml.job.wait_for("started")
    again = workspace.get_run(run.id)
    assert (again.get_status(), again.tags) == ("Running", {"who": "me"} | again.tags)
    again.cancel()
    assert cloud.azureml.job.join(20).status == "Canceled"


def test_a_preempted_node_has_the_job_queued_and_started_again(submit, cloud):
    command = (
        "echo attempt $(ls <store>); [ -e <store>/$NODE_RANK ] && exit; "
        "echo 1 > <store>/$NODE_RANK; echo saved; sleep 60"
    )
    submit(command, nodes=2, store="mount")
    job = cloud.azureml.job
    for node in range(2):
        job.wait_for("saved", node)
    job.preempt(node=1)
    job.join()
    assert (job.status, job.attempts) == ("Completed", 2)
    assert job.log().startswith("attempt 0 1")


def test_a_lost_node_may_fail_the_run_instead(submit, cloud):
    run = submit("echo started; sleep 60")
    cloud.azureml.job.wait_for("started")
    cloud.azureml.job.preempt(requeue=False)
    cloud.azureml.job.join()
    assert run.get_status() == "Failed"


def test_killed_nodes_leave_no_process(submit, cloud, tmp_path):
    submit("(setsid sleep 300 & echo $! > $HOME/pid); echo started; sleep 300")
    job = cloud.azureml.job
    job.wait_for("started")
    pid = int((job.nodes[0].folder / "home/pid").read_text())
    os.kill(pid, 0)
    job.cancel()
    job.join()
    assert not any(process.pid == pid for process in alive())


def alive():
    """Processes that run: a dead one that nobody has waited for is listed too."""
    return [p for p in psutil.process_iter(["status"]) if p.info["status"] != "zombie"]


def test_jobs_that_cannot_run_are_rejected(submit, cloud):
    with pytest.raises(Exception, match="exceeds the maximum node count 4"):
        submit("true", nodes=5)
    with pytest.raises(Exception, match="nowhere"):
        submit("true", cluster="nowhere")
    assert cloud.azureml.jobs == {}
    assert cloud.storage.names(SNAPSHOTS)


def test_a_job_waits_for_machines(submit, cloud):
    cluster = cloud.azureml.clusters["gpu-cluster"]
    cluster.error = ("QuotaExceeded", "Operation would exceed the quota of 24 cores.")
    run = submit("true")
    assert run.get_status() == "Queued"
    cluster.error = None
    cloud.azureml.job.join()
    assert run.get_status() == "Completed"


def test_nodes_may_have_an_identity_to_log_in_with(submit, cloud):
    cloud.azureml.add_cluster("with-identity", identity=True)
    program = (
        "from azure.identity import DefaultAzureCredential as D;"
        "print(len(D().get_token('https://storage.azure.com/.default').token) > 50)"
    )
    submit(f'python -c "{program}"', cluster="with-identity")
    assert cloud.azureml.job.join().log().splitlines()[-1] == "True"


def test_a_job_ends_at_its_time_limit(submit, cloud):
    submit("sleep 60", seconds=1)
    assert cloud.azureml.job.join(20).status == "Canceled"
