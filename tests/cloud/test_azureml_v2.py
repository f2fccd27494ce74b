"""AzureML under azure-ai-ml (SDK v2): the same jobs, sent as resources of the workspace."""

import pytest

ml = pytest.importorskip("azure.ai.ml")

pytestmark = pytest.mark.filterwarnings("ignore")  # azure-ai-ml's own


@pytest.fixture
def client(cloud, monkeypatch):
    from azure.identity import ClientSecretCredential

    cloud.apply(monkeypatch)
    known, workspace = cloud.principal, cloud.workspace
    return ml.MLClient(
        ClientSecretCredential(known.tenant, known.client, known.secret),
        workspace.subscription_id,
        workspace.resource_group,
        workspace.name,
        enable_telemetry=False,
    )


@pytest.fixture
def submit(client, tmp_path):
    """Send a job: ``submit("echo ${{inputs.knee}}", nodes=2, knee="ro_mount")``."""
    from azure.ai.ml.entities import Environment

    source = tmp_path / "source"
    (source / "package").mkdir(parents=True)
    (source / "package/hello.py").write_text("print('hello')\n")
    (source / "big.h5").write_bytes(b"x")
    (source / ".amlignore").write_text("*.h5\n")
    conda = tmp_path / "environment.yml"
    conda.write_text("name: fastmri\nchannels: [conda-forge]\ndependencies: [python=3.11]\n")

    def send(command, *, nodes=1, cluster="gpu-cluster", variables=None, output=None, **data):
        inputs = {
            name: ml.Input(
                type="uri_folder",
                path=f"azureml://datastores/fastmri/paths/knee_multicoil/{name}/",
                mode=mode,
            )
            for name, mode in data.items()
        }
        outputs = {}
        if output:
            path = f"azureml://datastores/fastmri/paths/{output}/"
            outputs = {"store": ml.Output(type="uri_folder", path=path, mode="rw_mount")}
        job = ml.command(
            code=str(source),
            command=command,
            inputs={"epochs": 3, **inputs},
            outputs=outputs,
            environment=Environment(
                name="fastmri", image="mcr.microsoft.com/azureml/openmpi", conda_file=str(conda)
            ),
            environment_variables=variables or {},
            compute=cluster,
            instance_count=nodes,
            distribution={"type": "PyTorch", "process_count_per_instance": 1},
            experiment_name="fastmri",
            display_name="knee",
            tags={"who": "me"},
        )
        return client.jobs.create_or_update(job)

    return send


def test_the_workspace_shows_its_clusters_and_datastores(client, cloud):
    assert {cluster.name for cluster in client.compute.list()} == {"gpu-cluster", "cpu-cluster"}
    cluster = client.compute.get("gpu-cluster")
    assert (cluster.size.upper(), cluster.max_instances) == ("STANDARD_NC24ADS_A100_V4", 4)
    stores = {store.name: store.container_name for store in client.datastores.list()}
    assert stores["fastmri"] == "datasets"
    default = client.datastores.get_default()
    assert (default.name, default.account_name) == ("workspaceblobstore", cloud.storage.account)


def test_a_job_runs_on_every_node_with_its_data_and_leaves_its_files(
    submit, client, cloud, tmp_path
):
    cloud.storage.container().upload_blob("knee_multicoil/val/file0.h5", b"x")
    sent = submit(
        "python package/hello.py; ls; echo node $NODE_RANK of $WORLD_SIZE epochs"
        " ${{inputs.epochs}} $A; ls ${{inputs.val}}; ls $AZURE_ML_INPUT_val;"
        " echo $NODE_RANK > ${{outputs.store}}/$NODE_RANK; mkdir -p outputs; echo 1 > outputs/b",
        nodes=2,
        variables={"A": "set"},
        val="ro_mount",
        output="runs/knee",
    )
    job = cloud.azureml.job.join()
    assert client.jobs.get(sent.name).status == "Completed", job.log()
    for node in range(2):
        assert job.log(node).startswith("hello\n")
        assert f"node {node} of 2 epochs 3 set\nfile0.h5\nfile0.h5\n" in job.log(node)
        assert "big.h5" not in job.log(node)
    assert cloud.storage.names(prefix="runs") == ["runs/knee/0", "runs/knee/1"]
    client.jobs.download(sent.name, download_path=tmp_path / "down")
    assert (tmp_path / "down/artifacts/outputs/b").read_text() == "1\n"
    assert cloud.network.refused == []


def test_downloads_are_one_a_node(submit, cloud):
    cloud.storage.container().upload_blob("knee_multicoil/val/a", b"x")
    submit("cat ${{inputs.val}}/a", nodes=2, val="download")
    job = cloud.azureml.job.join()
    assert (job.status, job.downloads) == ("Completed", {"val": 2})


def test_a_failed_job_says_why(submit, client, cloud, capsys):
    sent = submit("echo no data; exit 3")
    cloud.azureml.job.join()
    assert client.jobs.get(sent.name).status == "Failed"
    with pytest.raises(Exception, match="exited with status code 3"):
        client.jobs.stream(sent.name)


def test_a_job_is_cancelled(submit, client, cloud):
    sent = submit("echo started; sleep 60")
    cloud.azureml.job.wait_for("started")
    client.jobs.begin_cancel(sent.name).result()
    assert cloud.azureml.job.join(30).status == "Canceled"


def test_a_preempted_node_has_the_job_started_again(submit, cloud):
    submit(
        "[ -e ${{outputs.store}}/1 ] && exit; echo 1 > ${{outputs.store}}/1; echo saved; sleep 60",
        output="runs/knee",
    )
    job = cloud.azureml.job
    job.wait_for("saved")
    job.preempt()
    assert (job.join().status, job.attempts) == ("Completed", 2)


def test_jobs_that_cannot_run_are_rejected(submit, cloud):
    with pytest.raises(Exception, match="exceeds the maximum node count 4"):
        submit("true", nodes=5)
    with pytest.raises(Exception, match="nowhere"):
        submit("true", cluster="nowhere")
    assert cloud.azureml.jobs == {}
