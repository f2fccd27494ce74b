"""What a training leaves in MLflow and in Weights & Biases, read back from what they keep."""

import csv
import json
import math
import shutil
import sqlite3
import struct
from contextlib import closing

import pytest
from PIL import Image
from wandb.proto.wandb_internal_pb2 import Record

from tests.cloud.faults import Faults
from tests.cloud.tracking import Tracking as Server
from tests.recon.conftest import TINY
from workbench.compute import loggers
from workbench.compute.training import plan_training, train
from workbench.recon import run as rank
from workbench.settings import child_environment

TOKEN = "a long token"


@pytest.fixture
def trained(project, study, monkeypatch, capsys):
    """Train and return the run's folder and lines: ``trained("mlflow", epochs=1)``.

    Here, unless ``ranks=True``: a process takes longer to start than the training. A database
    of MLflow's warns in a process whose warnings are errors.
    """
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(project))  # where a login of theirs would lie

    def run(logger, *, ranks=False, **choices):
        given = {"epochs": 1, "target": "local", **TINY, **choices}
        plan = plan_training(model="brain", local_dataset=str(study), logger=logger, **given)
        if ranks:
            return plan.run.folder, list(train(plan))
        rank.fit(plan.job, plan.run.folder)
        return plan.run.folder, capsys.readouterr().out.splitlines()

    return run


@pytest.fixture
def server(trained, monkeypatch):
    """MLflow's server, which knows one run of ours: ``server.run``."""
    with Server(Faults()) as server:
        for name, value in server.begin("run-1", "fastmri", TOKEN, plugin=True).items():
            monkeypatch.setenv(name, value)
        server.run = server.runs["run-1"]
        yield server


def epochs_of(folder):
    """Return metrics.csv, a dict of numbers an epoch."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


def rows_of(database, query):
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute(query).fetchall()


def test_mlflow_has_parameters_curves_images_and_the_best_model_and_goes_on_in_one_run(trained):
    _, first = trained("mlflow", ranks=True)
    folder, lines = trained("mlflow", ranks=True, epochs=2)
    database = folder / "mlruns/mlflow.db"
    ((name, status),) = rows_of(database, "select name, status from runs")
    assert (name, status) == ("brain", "FINISHED")
    # Every column of metrics.csv is a curve with the same numbers, each epoch once.
    for row in epochs_of(folder):
        query = f"select key, value from metrics where step = {row['step']}"
        there = rows_of(database, query)
        assert len(there) == len(dict(there))
        expected = {k: v for k, v in row.items() if k != "epochs_since_best"}
        assert dict(there) == pytest.approx(expected)
    params = dict(rows_of(database, "select key, value from params"))
    job = json.loads((folder / "job.json").read_text())
    assert job["code"] == {}  # of one's own, where there is any
    assert params.keys() == (job | job["config"]).keys() - {"config", "sampling", "code"} | {
        f"sampling/{name}" for name in job["sampling"]
    }
    assert (params["epochs"], params["lr"]) == ("1", str(job["lr"]))
    assert ("now epochs", "2") in rows_of(database, "select key, value from tags")
    (left,) = (folder / "mlruns").glob("*/artifacts")
    assert (left / "model/best.ckpt").read_bytes() == (
        folder / "checkpoints/best.ckpt"
    ).read_bytes()
    pictures = sorted(left.glob("validation/epoch_002/*.png"))
    assert len(pictures) == 4
    # Reconstruction, target and error of 24 x 24 pixels.
    with Image.open(pictures[0]) as picture:
        assert picture.size == (72, 24)
    assert not (folder / "tensorboard").exists()
    assert lines[-1].startswith("epoch 2/2")
    # Nothing of the database's own talk is among the lines.
    said = "\n".join([*first, *lines]).lower()
    assert "mlflow" not in said
    assert "alembic" not in said


def test_a_training_that_begins_anew_under_the_same_name_has_a_run_of_its_own(trained):
    """The curves of the one before had stayed, as they had its epochs already."""
    folder, _ = trained("mlflow", ranks=True, lr=1e-3, schedule="step")
    shutil.rmtree(folder / "checkpoints")
    (folder / "metrics.csv").unlink()
    trained("mlflow", ranks=True, lr=1e-5, schedule="step")
    database = folder / "mlruns/mlflow.db"
    rows = {
        table: dict(rows_of(database, f"select run_uuid, value from {table} where key = 'lr'"))
        for table in ("params", "metrics")
    }
    asked = {run: float(value) for run, value in rows["params"].items()}
    assert sorted(asked.values()) == [1e-5, 1e-3]
    assert rows["metrics"] == asked


def test_a_server_that_is_given_gets_it_by_its_token_which_no_file_or_line_holds(trained, server):
    folder, lines = trained("tensorboard, mlflow", ranks=True, nodes=2)
    run = server.run
    assert run.curve("val_ssim") == [(5, pytest.approx(epochs_of(folder)[0]["val_ssim"]))]
    assert run.params["network"] == "varnet"
    assert sum(path.startswith("validation/epoch_001/") for path in run.artifacts) == 4
    assert run.artifacts["model/best.ckpt"] == (folder / "checkpoints/best.ckpt").read_bytes()
    assert run.status == "RUNNING"  # the job's own end ends it
    assert (folder / "tensorboard").exists()
    assert not (folder / "mlruns").exists()
    left = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    sent = [request.body for request, _ in server.requests]
    assert not any(TOKEN.encode() in text for text in [*left, *sent, "\n".join(lines).encode()])
    # Rank 0 alone has spoken: each value came once.
    assert len(run.metrics) == len({(key, step) for key, step, _ in run.metrics})


def test_a_server_that_fails_ends_no_training_and_gets_later_what_it_lacks(trained, server):
    server.faults.add("runs/(get|log-batch)", status=400, times=2)
    folder, lines = trained("mlflow", epochs=3)
    said = [line for line in lines if "the training goes on without" in line]
    assert len(said) == 1
    assert said[0].startswith("mlflow: ")
    rows = epochs_of(folder)
    assert server.run.curve("epoch") == [(row["step"], row["epoch"]) for row in rows]
    assert "model/best.ckpt" in server.run.artifacts


def records_of(file):
    """Read what wandb leaves offline: LevelDB's log, blocks of 32 KiB with records in pieces."""
    data, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(data):
        if (1 << 15) - place % (1 << 15) < 7:  # no room for another head in this block
            place += (1 << 15) - place % (1 << 15)
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a record, or its last piece
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def test_weights_and_biases_has_it_offline_where_nobody_is_logged_in(trained):
    trained("wandb", ranks=True)
    folder, _ = trained("wandb", ranks=True, epochs=2)
    found = {}
    files = sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({file.name for file in files}) == 1  # one run, in as many parts as there were starts
    assert len(files) == 2
    for record in (record for file in files for record in records_of(file)):
        row = {(*item.nested_key, item.key)[0]: item.value_json for item in record.history.item}
        if "epoch" in row:
            found[int(float(row["epoch"]))] = float(row["val_ssim"])
    expected = {row["epoch"]: pytest.approx(row["val_ssim"]) for row in epochs_of(folder)}
    assert found == expected
    assert len(list((folder / "wandb").rglob("media/images/**/*.png"))) == 8


@pytest.mark.parametrize(
    ("logger", "lacks", "message"),
    [
        ("mlflow", "sqlalchemy", r'logger=mlflow needs sqlalchemy.*pip install -e "\.\[mlflow\]"'),
        ("tensorboard,wandb", "wandb", r'logger=wandb needs wandb.*pip install -e "\.\[wandb\]"'),
        ("paper", "", r"logger='paper': give one or several of tensorboard, mlflow, wandb"),
    ],
)
def test_a_logger_that_cannot_be_used_is_refused_before_the_dataset_is_opened(
    trained, monkeypatch, project, logger, lacks, message
):
    before = loggers.importlib.util.find_spec
    monkeypatch.setattr(
        loggers.importlib.util, "find_spec", lambda name: None if name == lacks else before(name)
    )
    monkeypatch.setattr("workbench.compute.training.open_dataset", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match=message):
        trained(logger)
    assert not (project / "outputs").exists()


def test_only_processes_that_log_there_are_handed_the_server_s_address_and_keys(monkeypatch):
    names = {"MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_TOKEN", "WANDB_API_KEY", "AZUREML_RUN_TOKEN"}
    for name in names:
        monkeypatch.setenv(name, "secret")

    def held(logger):
        return names & child_environment(*loggers.login_of(logger)).keys()

    assert held("tensorboard") == set()
    assert held("tensorboard, mlflow") == held("wandb") == names


def test_with_a_server_mlflow_needs_no_database(monkeypatch):
    before = loggers.importlib.util.find_spec
    monkeypatch.setattr(
        loggers.importlib.util, "find_spec", lambda name: before(name) if name == "mlflow" else None
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://host")
    loggers.check_installed("tensorboard, mlflow")


def test_numbers_that_are_none_are_not_sent(trained, server):
    trained("mlflow", learning="self-supervised")
    assert all(math.isfinite(value) for _, _, value in server.run.metrics)
    assert server.run.curve("train_loss")
