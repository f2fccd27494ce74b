"""What a training notebook refuses, and says, before anything starts."""

import re
import subprocess
import sys

import numpy as np
import pytest

from workbench.compute import cluster_plan
from workbench.compute.evaluation import judged_splits
from workbench.compute.training import plan_training
from workbench.data.cache import open_cache
from workbench_demo.phantom.writing import write_volume


def add_volume(path, *, target=True, synthetic=True, seed=0):
    rng = np.random.default_rng(seed)
    kspace = rng.normal(size=(2, 2, 16, 12, 2)).astype(np.float32).view(np.complex64)[..., 0]
    truth = np.abs(rng.normal(size=(2, 8, 8))).astype(np.float32)
    write_volume(
        path,
        kspace=kspace,
        target=truth if target else None,
        recon=(8, 8),
        acquisition="AXT2",
        patient_id="p",
        attributes={"synthetic": synthetic},
    )


@pytest.fixture
def dataset(project):
    root = project / "datasets" / "brain_multicoil"
    for split in ("train", "val"):
        add_volume(root / f"multicoil_{split}" / "a.h5", synthetic=False)
    return root


def test_plan_says_what_will_run_and_where(dataset):
    plan = plan_training(model="BrainMulticoil", nodes=2)
    text = str(plan)
    assert plan.job.epochs == 50
    assert re.search(r"dataset +datasets/brain_multicoil: 1 training volume \(2 slices\)", text)
    assert "VarNet of 12 cascades, 18 channels" in text
    assert "no AzureML workspace is configured, so the job runs on this machine" in text
    if plan.where.device == "CPU":
        assert "this machine has no GPU, so 2 CPU processes stand for them" in text


def test_a_plan_waits_for_nothing_that_learns_or_draws(dataset):
    code = (
        "import sys; import workbench.forms.opening; from workbench.pages.train import TrainPage; "
        f"asked = TrainPage.of(dict(model='brain', target='local', local_dataset={str(dataset)!r}))"
        "; print(asked.looked_at().plan()); "
        "print([m for m in ('torch', 'pandas', 'matplotlib', 'papermill') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "run        outputs/brain" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_phantom_has_small_defaults_and_the_plan_says_so(project):
    root = project / "outputs/demo/datasets/brain_multicoil"
    for split in ("train", "val"):
        add_volume(root / f"multicoil_{split}" / "a.h5")
    plan = plan_training(model="brain", chans=5)
    assert plan.job.config.chans == 5
    assert plan.job.config.cascades < 12
    assert plan.job.epochs < 50
    assert "synthetic phantom, not patient data" in str(plan)
    assert re.search(
        r"small defaults for the phantom \(cascades \d+, sens_chans \d+, .*lr \S+, epochs \d+\)",
        str(plan),
    )


def test_wrong_number_is_refused_before_the_dataset_is_looked_for(project):
    with pytest.raises(ValueError, match="epochs=0"):
        plan_training(model="knee", epochs=0)
    with pytest.raises(FileNotFoundError, match=r"workbench ingest.*workbench demo"):
        plan_training(model="knee")
    assert not (project / "outputs").exists()


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"nodes": 0}, "nodes=0: give a whole number, 1 or more"),
        ({"resume": "false"}, "resume='false': give True or False"),
        ({"nodes": 3}, "3 processes are more than the 2 training"),
        ({"mask": "magic_fraction", "acceleration": 8, "center_fraction": 0.5}, "cannot be drawn"),
        ({"precision": "16"}, "precision=16: only GPUs train in float16; give 32 or bf16"),
        ({"target": "moon"}, "target='moon': give one of auto, local"),
        ({"model": "liver"}, "model='liver': give one of knee"),
    ],
)
def test_bad_parameter_is_refused(dataset, choices, message):
    with pytest.raises(ValueError, match=message):
        plan_training(**{"model": "brain", **choices})


def test_volumes_that_are_missing_or_have_no_target_are_named(dataset, project):
    add_volume(dataset / "multicoil_train/untold.h5", target=False)
    with pytest.raises(ValueError, match=r"1 train volumes .* such as multicoil_train/untold\.h5"):
        plan_training(model="brain")
    (dataset / "multicoil_train/untold.h5").unlink()
    (dataset / "multicoil_val/a.h5").unlink()
    with pytest.raises(ValueError, match=r"has no val volumes \(volumes by split: train 1\)"):
        plan_training(model="brain")
    assert not (project / "outputs").exists(), "a refused plan leaves nothing behind"


def test_a_run_goes_on_with_the_same_volumes_and_network_however_it_computes(dataset):
    plan = plan_training(model="brain")
    plan.run.last.parent.mkdir(parents=True)
    plan.run.last.touch()
    again = plan_training(model="brain", low_memory=True, compile="off")
    assert again.run == plan.run
    assert (again.job.low_memory, again.job.compile) == (True, "off")
    with pytest.raises(ValueError, match="holds a run of another job"):
        plan_training(model="brain", crop_readout=True)
    (dataset / "multicoil_train/a.h5").unlink()
    add_volume(dataset / "multicoil_train/a.h5", synthetic=False, seed=1)  # as converted anew
    with pytest.raises(ValueError, match="has trained on other volumes than datasets/brain_multic"):
        plan_training(model="brain")
    (dataset / "multicoil_train/a.h5").unlink()
    add_volume(dataset / "multicoil_train/a.h5", synthetic=False)
    assert plan_training(model="brain").run == plan.run
    add_volume(dataset / "multicoil_train/more.h5", synthetic=False)
    with pytest.raises(ValueError, match="has trained on other volumes than datasets/brain_multic"):
        plan_training(model="brain")


def test_with_a_workspace_and_the_dataset_here_both_ways_are_named_and_no_cloud_is_asked(
    dataset, monkeypatch
):
    """The names are a workspace's; a look at it would fail, as nobody is logged in."""
    for name, value in {
        "AZURE_SUBSCRIPTION_ID": "01234567-89ab-cdef-0123-456789abcdef",
        "AZURE_RESOURCE_GROUP": "group",
        "AZURE_WORKSPACE_NAME": "space",
    }.items():
        monkeypatch.setenv(name, value)
    asked = []
    monkeypatch.setattr(cluster_plan, "connect", lambda *_: asked.append(1) or 1 / 0)
    text = str(plan_training(model="brain"))
    assert "two ways: on this machine, or on a cluster of workspace space with target=azu" in text
    assert "Chosen: this machine, as datasets/brain_multicoil is here" in text
    assert asked == []
    with pytest.raises(ZeroDivisionError):
        plan_training(model="brain", target="azureml")
    with pytest.raises(ZeroDivisionError):  # the dataset is in the storage, if anywhere
        plan_training(model="knee")
    # Whose end was not seen is watched there, though the dataset is here.
    record = dataset.parents[1] / "outputs/brain/azureml.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text('{"fetched": false}')
    with pytest.raises(ZeroDivisionError):
        plan_training(model="brain")


def test_what_a_network_is_judged_by_is_val_and_test_as_far_as_they_can_be(dataset):
    assert judged_splits(open_cache(dataset)) == ("val",)
    add_volume(dataset / "multicoil_test/a.h5", synthetic=False)  # it has no mask
    add_volume(dataset / "multicoil_test_full/a.h5", synthetic=False)
    assert judged_splits(open_cache(dataset)) == ("val", "test_full")
    add_volume(dataset / "multicoil_val/b.h5", target=False)
    assert judged_splits(open_cache(dataset)) == ("test_full",)


def test_augmentation_is_refused_on_targets_of_another_kind_than_it_forms(dataset):
    # As of targets in other units, or combined by another method.
    message = r"target of slice 1 of multicoil_train/a.h5 is not the root sum .*leave augment out"
    with pytest.raises(ValueError, match=message):
        plan_training(model="brain", augment="flips")


def test_validation_volume_that_is_a_training_volume_too_is_told_whatever_its_name(dataset):
    add_volume(dataset / "multicoil_train/b.h5", seed=1)
    add_volume(dataset / "multicoil_val/b.h5", seed=2)  # of one name, and another scan
    text = str(plan_training(model="brain"))
    assert "1 of 2 validation volumes are training volumes as well, such as multicoil_val/a" in text
    (dataset / "multicoil_val/a.h5").rename(dataset / "multicoil_val/c.h5")
    assert "are training volumes as well, such as multicoil_val/c.h5" in str(
        plan_training(model="brain")
    )
    (dataset / "multicoil_val/c.h5").unlink()
    assert "as well" not in str(plan_training(model="brain"))
