"""A trained run's splits are reconstructed by the ranks that trained it, each volume once."""

import csv
import shutil
from dataclasses import replace

import pytest

from tests.recon.conftest import TINY, make_volume
from tests.recon.test_own_code import own  # noqa: F401
from workbench.compute.evaluation import parse_splits, unevaluated
from workbench.compute.training import plan_training, train
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.results import Results
from workbench.recon.run import evaluate
from workbench.views.training import evaluation_table


@pytest.fixture
def dataset(study, tmp_path):
    """The study, with a test volume that has neither target nor mask."""
    root = tmp_path / "dataset"
    shutil.copytree(study, root)
    return root


def planned(dataset, **more):
    return plan_training(
        model="brain",
        local_dataset=str(dataset),
        **{**TINY, "epochs": 1, "reconstruct": "val", **more},
    )


def made(run):
    """Return when each result was written."""
    return {path.name: path.stat().st_mtime_ns for path in run.folder.rglob("file*.h5")}


def test_ranks_train_own_code_reconstruct_and_keep_what_is_there(own, dataset, project):  # noqa: F811
    choices = {"network": f"{own}:Denoiser", "loss": f"{own}:L2", "epochs": 1, "reconstruct": "val"}

    def asked():
        return plan_training(model="brain", local_dataset=str(dataset), nodes=2, **choices)

    plan = asked()
    assert f"network    {own}:Denoiser(depth=2" in str(plan)
    assert f"loss       {own}:L2" in str(plan)
    assert "reconstructs on all ranks 2 val volumes (7 slices), equispaced" in str(plan)
    lines = list(train(plan))
    assert "reconstructing val: 2 volumes, 0 there already" in lines
    assert {line[:7] for line in lines if ", SSIM " in line and "rank" in line} == {
        "rank 0:",
        "rank 1:",
    }
    assert unevaluated(plan.run, plan.splits) == ()
    (folder,) = (plan.run.folder / "reconstructions").iterdir()
    with (folder / "scores.csv").open() as file:
        rows = {row["volume"]: row for row in csv.DictReader(file)}
    # reconstruct.ipynb finds them, has nothing to do, and shows the same figures.
    shown = plan_reconstruction(run="brain")
    assert shown.order.volumes == ()
    assert len(rows) == 2
    for result in Results(shown.folder):
        row = rows[result.volume.path]
        assert float(row["reconstruction_ssim"]) == result.reconstruction["ssim"]
        assert float(row["zero_filled_nmse"]) == result.zero_filled["nmse"]
        assert int(row["slices"]) == result.slices
    mean = sum(result.reconstruction["ssim"] for result in Results(shown.folder)) / 2
    assert f"{mean:.4f}" in evaluation_table(plan.run).to_html()
    assert "is finished" in next(iter(train(asked())))
    # Of volumes that came later, or were measured anew, nothing has been reconstructed.
    first = plan.cache.split("val")[0]
    for new in (
        replace(first, path="multicoil_val/later.h5"),
        replace(first, attributes=first.attributes | {"max": 2 * first.largest}),
    ):
        now = plan.cache.with_volumes([*plan.cache.split("val")[1:], new])
        assert unevaluated(plan.run, ("val",), now) == ("val",)
    # Killed in the middle: the table was yet to come, and one volume is not whole.
    before = made(plan.run)
    (folder / "scores.csv").unlink()
    (folder / "file11.h5").write_bytes(b"half")
    assert unevaluated(plan.run, ("val",)) == ("val",)
    evaluate(plan.run.folder, ["val"])
    after = made(plan.run)
    assert after["file10.h5"] == before["file10.h5"]
    assert after["file11.h5"] > before["file11.h5"]
    with (folder / "scores.csv").open() as file:
        again = {row["volume"]: row for row in csv.DictReader(file)}
    assert again.keys() == rows.keys()
    for name, row in again.items():
        assert float(row["reconstruction_ssim"]) == pytest.approx(
            float(rows[name]["reconstruction_ssim"])
        )


def test_splits_are_checked_before_the_training(dataset, project):
    with pytest.raises(ValueError, match="reconstruct='val, tset': give one or several of train"):
        planned(dataset, reconstruct="val, tset")
    with pytest.raises(ValueError, match="has no test volumes"):
        planned(dataset, reconstruct="test")
    make_volume(dataset / "multicoil_test/file20.h5", 20, target=False)
    with pytest.raises(ValueError, match=r"multicoil_test/file20\.h5 has no mask of its own"):
        planned(dataset, reconstruct="val,test")
    assert not (project / "outputs").exists()
    assert parse_splits(None) is parse_splits(" ") is None
    assert parse_splits("none") == ()
