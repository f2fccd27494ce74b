"""A training that begins with given weights: which, checked when, and what is said of them."""

import json
import shutil

import pytest
import torch

from tests.recon.conftest import SMALL as RELEASED
from tests.recon.conftest import made
from tests.recon.test_training import SMALL
from workbench.compute.evaluation import sha256_of
from workbench.compute.node import NODES, STORE
from workbench.compute.runs import Run
from workbench.forms.parameters import ParametersError
from workbench.pages.train import TrainPage
from workbench.recon import run as rank
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.start import find_start
from workbench.recon.weights import load_network
from workbench.stores import DiskStore
from workbench.views.export.report import run_report


def plan(study, **choices):
    defaults = {name: each.default for name, each in TrainPage.fields.items()}
    asked = {"local_dataset": str(study), "epochs": 1, **choices}
    return TrainPage.of(defaults | asked).looked_at().plan()


@pytest.fixture
def source(study, project):
    """A run of one epoch, ``first``."""
    planned = plan(study, name="first", **SMALL)
    rank.fit(planned.job, planned.run.folder)
    return planned.run


def test_a_run_begins_with_the_weights_of_another_and_says_what_they_had_seen(
    source, study, project, capsys
):
    planned = plan(study, name="second", start_from="first", acceleration="8", lr=1e-12)
    job = planned.job
    assert (job.config, job.sampling.accelerations) == (source.job.config, (8,))
    said = f"they had been trained on train of {study}"
    assert f"start      began with the weights first (SHA256 {sha256_of(source.best)[:8]}); " in (
        text := str(planned)
    )
    assert said in text
    kept = json.loads((planned.run.folder / "job.json").read_text())["start_from"]
    assert kept == {
        "asked": "first",
        "weights_sha256": sha256_of(source.best),
        "seen": {str(study): ["train"]},
    }
    capsys.readouterr()
    module = rank.fit(job, planned.run.folder)
    assert said in capsys.readouterr().out
    before = load_network(source.best).state_dict()
    for name, value in module.network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-8)
    reconstructed = plan_reconstruction(run="second", split="train")
    assert f"{said}: scores on volumes of train among those flatter" in str(reconstructed)
    assert ": scores on" not in str(plan_reconstruction(run="second"))
    # The file says it wherever it lies.
    copied = shutil.copy(Run("outputs/second").best, project / "copied.ckpt")
    by_file = plan_reconstruction(weights=str(copied), local_dataset=str(study), split="train")
    assert f"{said}: scores on volumes of train among those flatter" in str(by_file)
    made(plan_reconstruction(run="second"))
    assert said in run_report("second").read_text()
    # A third run inherits what the first two had seen.
    assert find_start("second", Run("outputs/third")).seen == {str(study): ("train",)}


def test_what_does_not_go_with_the_weights_is_refused(source, study, project):
    with pytest.raises(ValueError, match="cascades=3: the weights first have cascades 2: leave it"):
        plan(study, name="x", start_from="first", cascades=3)
    assert plan(study, name="x", start_from="first", cascades=2).job.config.cascades == 2
    with pytest.raises(ValueError, match=r"VarNet': the weights first have network varnet"):
        plan(study, name="y", start_from="first", network="fastmri.models:VarNet")
    with pytest.raises(ParametersError, match="no run in outputs/nowhere"):
        plan(study, name="y", start_from="nowhere")
    (project / "notes.pt").write_text("no weights")
    with pytest.raises(ValueError, match=r"notes\.pt"):
        plan(study, name="y", start_from="notes.pt")
    with pytest.raises(ValueError, match=r"another job .start_from None there, first .SHA256"):
        plan(study, name="first", start_from="first")


def test_a_run_that_goes_on_needs_its_source_no_more(source, study, project):
    planned = plan(study, name="second", start_from="first")
    rank.fit(planned.job, planned.run.folder)
    shutil.rmtree(source.folder)
    planned.run.start.unlink()
    again = plan(study, name="second", start_from="first", epochs=2)
    assert again.job.parameters == planned.job.parameters | {"epochs": 2}
    rank.fit(again.job, again.run.folder)
    assert len(again.run.metrics) == 2


def test_a_source_that_changed_since_the_plan_is_planned_anew_or_refused(source, study, project):
    planned = plan(study, name="second", start_from="first")
    planned.run.start.write_bytes(b"other weights")
    with pytest.raises(ValueError, match=r"start\.pt is not the file that start_from=first named"):
        rank.fit(planned.job, planned.run.folder)
    again = plan(study, name="second", start_from="first")
    assert sha256_of(again.run.start) == sha256_of(source.best)


def test_a_file_of_fastmri_s_says_its_network_and_not_what_it_has_seen(released, study, project):
    _, path = released
    planned = plan(study, name="tuned", start_from=str(path))
    assert planned.job.config.cascades == RELEASED["num_cascades"]
    assert "what they had been trained on is not known" in str(planned)


def test_released_weights_had_seen_train_and_val(released, study, project, monkeypatch):
    from workbench.recon import start, weights

    name = "fastmri-knee"
    monkeypatch.setattr(weights, "find_weights", lambda _: released[1])
    found = start.find_start(name, Run("outputs/x"))
    assert found.seen == {"fastMRI": ("train", "val")}
    assert "train and val of fastMRI: scores on volumes of val among those flatter" in found.remark(
        ["val"]
    )


def test_on_a_node_the_weights_come_from_the_store(source, study, project, tmp_path, monkeypatch):
    planned = plan(study, name="second", start_from="first")
    store = DiskStore(tmp_path / "store")
    for path in ("job.json", "checkpoints/start.pt"):
        store.write(path, (planned.run.folder / path).read_bytes())
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path / "node"))
    monkeypatch.setenv(NODES, "1")
    monkeypatch.setenv(STORE, str(store.root))
    there = plan(study, name="second", start_from="first")
    assert there.job.to_json() == planned.job.to_json()
    rank.fit(there.job, there.run.folder)
    assert there.run.finished
