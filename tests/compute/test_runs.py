"""A run is read from its folder, and a damaged table is named with a remedy."""

import subprocess
import sys

import pytest

from workbench.compute.jobs import training_job
from workbench.compute.runs import Run, keep_cache, prepare_run
from workbench.data.cache import build_cache
from workbench.views.training import volume_table

WHOLE = "epoch,step,train_loss\n1,10,0.5\n2,20,0.4\n"


def test_table_of_epochs_is_read(tmp_path):
    (tmp_path / "metrics.csv").write_text(WHOLE)
    assert [row["step"] for row in Run(tmp_path).metrics] == [10, 20]


@pytest.mark.parametrize(
    "damaged",
    [
        WHOLE.replace("2,20", "6,20"),
        WHOLE.replace("epoch", "epocj"),
        WHOLE.replace("1,10,0.5\n", ""),
        WHOLE.replace("20", "2\0"),
        "\0" * 40,
    ],
)
def test_damaged_table_says_that_it_can_be_removed(damaged, tmp_path):
    (tmp_path / "metrics.csv").write_text(damaged)
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged.*another name"):
        _ = Run(tmp_path).metrics
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_text("")
    with pytest.raises(ValueError, match=r"remove it, and the run writes it anew from last\.ckpt"):
        _ = Run(tmp_path).metrics


def test_the_table_of_volumes_says_after_which_epoch_and_which_was_the_best(tmp_path):
    rows = "1,0.4,0.6,30,0.02\n2,0.3,0.7,31,0.01\n3,0.2,0.65,30,0.02\n"
    (tmp_path / "metrics.csv").write_text(f"epoch,train_loss,val_ssim,val_psnr,val_nmse\n{rows}")
    (tmp_path / "volumes.csv").write_text("volume,slices,ssim,psnr,nmse\na.h5,3,0.65,30,0.02\n")
    said = "Validation after epoch 3, the last one; the best is epoch 2, whose weights reconstruct"
    assert said in volume_table(Run(tmp_path)).to_html()


READ = """
import sys
from pathlib import Path
from workbench.compute.runs import Run
from workbench.views.training import evaluation_table, show_run, volume_table
run = Run(Path(sys.argv[1]))
assert len(list(show_run(run))) == 2
assert evaluation_table(run) is None
print(run.name, run.synthetic, run.finished, run.job.epochs, len(volume_table(run).data))
assert not {"torch", "fastmri", "azure"} & sys.modules.keys()
"""


PLAN = """
import sys
from workbench.compute.training import plan_training
plan = plan_training(model="knee", target="local", local_dataset=sys.argv[1], name="planned")
assert "network" in str(plan)
assert not {"torch", "fastmri"} & sys.modules.keys() or plan.where.device == "GPU"
"""


def test_a_training_is_planned_without_torch_which_takes_seconds(tiny_study, project):
    subprocess.run([sys.executable, "-c", PLAN, str(tiny_study)], check=True)


def test_a_run_is_read_from_its_folder_without_torch_or_a_plan(tiny_study, project):
    """Nothing of what was trained on, or with, needs to be there."""
    run = prepare_run(training_job("/gone", synthetic=False, model="knee", epochs=2), resume=True)
    keep_cache(build_cache(tiny_study), run.folder, goes_on=False)
    columns = "epoch,step,train_loss,val_ssim,val_psnr,val_nmse,lr,seconds\n"
    (run.folder / "metrics.csv").write_text(
        f"{columns}1,2,0.5,0.6,20,0.1,1,9\n2,4,0.4,0.7,21,0.1,1,9\n"
    )
    (run.folder / "volumes.csv").write_text("volume,slices,ssim,psnr,nmse\na.h5,2,0.7,21,0.1\n")
    run.last.parent.mkdir()
    run.last.touch()
    done = subprocess.run(
        [sys.executable, "-c", READ, str(run.folder)], capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines()[-1:] == ["knee True True 2 1"], done.stderr
