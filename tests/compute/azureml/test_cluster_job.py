"""Both SDKs send the same job, and nothing goes with it that should stay here."""

import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from tests.cloud.sdks import SDKS, needs_v1
from tests.forms.turning import values
from workbench.azure_login import find_workspace
from workbench.compute.cluster import connect
from workbench.compute.cluster_job import ClusterJob, DataFolder, conda_specification
from workbench.compute.cluster_plan import parse_tags
from workbench.compute.sender import new_run
from workbench.forms.form import Form
from workbench.pages.cache import CachePage
from workbench.pages.explore import ExplorePage
from workbench.settings import notebooks

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs' own

JOB = ClusterJob(
    "brain-4x",
    "fastmri",
    "cpu-cluster",
    2,
    "CPU",
    DataFolder("dataset", "fastmri", "brain_multicoil", "mount"),
    DataFolder("store", "fastmri", "runs/brain-4x", "write"),
    {"model": "brain", "epochs": 3, "mask": "random", "lr": None},
    {"who": "me"},
)


def sent(cloud, sdk, job=JOB):
    """Send a job that waits for machines; return it as the service received it."""
    cloud.azureml.clusters["cpu-cluster"].paused.set()
    run = new_run()
    connect(find_workspace(), sdk).submit(job, run)
    received = cloud.azureml.jobs[run]
    assert received.display_name == job.name
    return received.submission


def normal(command):
    """Write a command with the folders' names in place of how each SDK says where they are."""
    command = re.sub(r"\$AZUREML_DATAREFERENCE_(\w+?)\b", r"<\1>", command)
    return re.sub(r"\$\{\{(?:inputs|outputs)\.(\w+)\}\}", r"<\1>", command)


def folders(submission):
    return {
        data.name: (data.container, data.path.strip("/"), data.mode) for data in submission.data
    }


@needs_v1
@pytest.mark.parametrize("mode", ["mount", "download", "stream"])
def test_both_sdks_send_the_same_job(workspace, little_code, mode):
    address = f"{workspace.storage.url}/datasets/brain_m"
    dataset = DataFolder("dataset", "fastmri", "brain_m", mode, address)
    job = ClusterJob(**vars(JOB) | {"dataset": dataset})
    first, second = (sent(workspace, sdk, job) for sdk in ("v1", "v2"))
    assert normal(first.command) == normal(second.command)
    assert "papermill notebooks/train.ipynb" in first.command
    environment = first.document["environment"]
    assert (environment["name"], environment["docker"]["baseImage"]) == (
        job.environment,
        job.image,
    )
    held = environment["python"]["condaDependencies"]
    assert held["dependencies"] == conda_specification(extra="nodes")["dependencies"]
    # MLflow's way into the workspace, which this machine does not have.
    for submission in (first, second):
        (pip,) = (each["pip"] for each in submission.conda["dependencies"] if type(each) is dict)
        assert any(line.startswith("azureml-mlflow") for line in pip)
    for name in ("experiment", "nodes", "distributed"):
        assert getattr(first, name) == getattr(second, name), name
    assert first.cluster is second.cluster
    for job_sent in workspace.azureml.jobs.values():
        assert job_sent.tags.items() >= job.tags.items()
    assert first.variables.items() >= job.variables.items()
    assert second.variables.items() >= job.variables.items()
    assert folders(second)["store"] == folders(first)["store"]
    if mode == "stream":
        assert "dataset" not in folders(first) | folders(second)
        assert f'-r local_dataset "{address}"' in first.command
    else:
        assert folders(second)["dataset"][:2] == folders(first)["dataset"][:2]


@pytest.mark.parametrize("sdk", SDKS)
def test_only_the_code_goes_along_and_the_sdk_is_quiet(
    workspace, sdk, tmp_path, capfd, caplog, monkeypatch
):
    """The email and a key lie where people save them: beside the notebooks, and beside own code."""
    beside, own = shutil.copytree(notebooks(), tmp_path / "beside"), tmp_path / "mine"
    own.mkdir()
    for folder in (beside, own):
        for name in ("curl.txt", "storage.secret", ".env", ".netrc"):
            (folder / name).write_text(workspace.storage.connection_string)
    (own / "net.py").write_text("")
    monkeypatch.setattr("workbench.compute.cluster_job.notebooks", lambda: beside)
    job = ClusterJob(**vars(JOB) | {"code": {"mine": own}})
    submission = sent(workspace, sdk, job)
    assert "Uploading" not in "".join(capfd.readouterr())
    assert not any("experimental" in record.message for record in caplog.records)
    assert "anonymous registration" not in caplog.text
    submission.snapshot(tmp_path / "snapshot")
    files = {
        str(path.relative_to(tmp_path / "snapshot"))
        for path in (tmp_path / "snapshot").rglob("*")
        if path.is_file()
    }
    assert {"notebooks/train.ipynb", "workbench/recon/run.py"} <= files
    top = {name.split("/")[0] for name in files}
    assert top == {"workbench", "workbench_kernels", "notebooks", "mine"}
    assert not any(name.endswith((".h5", ".pyc", ".secret")) for name in files)
    assert {name for name in files if name.startswith("mine/")} == {"mine/net.py"}
    assert all(name.endswith(".ipynb") for name in files if name.startswith("notebooks/"))


def test_command_gives_papermill_the_parameters_as_they_were():
    given = {"mask": "it's", "acceleration": "4,8", "lr": 1e-5, "resume": True, "epochs": 3}
    job = ClusterJob(**vars(JOB) | {"parameters": {**given, "chans": None}})
    words = shlex.split(job.command({"dataset": "$D", "store": "$S"}))
    assert yaml.safe_load(words[words.index("-y") + 1]) == {**given, "target": "local"}
    assert words[words.index("-r") + 1 :][:2] == ["local_dataset", f"datasets/{JOB.dataset.path}"]


def test_a_streamed_folder_of_any_name_is_a_word_to_the_shell():
    address = "https://a.blob.core.windows.net/datasets/" + 'the "br\\in" of $(id) `x`'
    job = ClusterJob(**vars(JOB) | {"dataset": DataFolder("dataset", "d", "x", "stream", address)})
    word = re.search("-r local_dataset (.*) --log", job.command({"store": "$S"}))[1]
    assert subprocess.check_output(["bash", "-c", f"printf %s {word}"], text=True) == address


def test_another_build_of_torch_is_taken_from_torchs_own_index():
    usual, old = conda_specification(), conda_specification("cu126")
    pip = old["dependencies"][-1]["pip"]
    assert pip[0] == "--extra-index-url https://download.pytorch.org/whl/cu126"
    assert [line for line in pip if re.fullmatch(r"torch==[\d.]+\+cu126", line)]
    assert not any("cu126" in line for line in usual["dependencies"][-1]["pip"])
    with pytest.raises(ValueError, match="torch_build='cu99': give one of cu126"):
        conda_specification("cu99")


def test_tags_are_read_or_refused():
    assert parse_tags("study:4x, who: me,") == {"study": "4x", "who": "me"}
    assert parse_tags(None) == {}
    with pytest.raises(ValueError, match="tags='4x': give NAME:VALUE"):
        parse_tags("4x")


@pytest.mark.parametrize("page", [CachePage, ExplorePage])
def test_a_form_reaches_the_cluster_whether_or_not_it_takes_the_storages_key(stored, page):
    form = Form(page, values(page, dataset="brain_multicoil", target="azureml"))
    form.start("plan")
    form.wait(120)
    assert form.phase == "planned", form.told.failure
