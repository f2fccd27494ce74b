"""``workbench repeat``: the same training from several seeds, and how they spread."""

import re
import signal

import pytest
from click.testing import CliRunner

from tests.recon.conftest import study  # noqa: F401
from workbench.command.__main__ import main
from workbench.compute.runs import open_run
from workbench.pages.train import TrainPage
from workbench.recon.run import fit

TINY = ["cascades=1", "chans=2", "pools=1", "sens_chans=2", "sens_pools=1", "epochs=1"]


@pytest.fixture
def repeat(monkeypatch, tmp_path):
    """The command, with the notebook's work done in this process."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))

    def run_page(source, output, parameters):
        assert source.name == "train.ipynb"
        usual = {name: each.default for name, each in TrainPage.fields.items()}
        planned = TrainPage.of(usual | parameters).plan()
        fit(planned.job, planned.run.folder)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.touch()

    monkeypatch.setattr("workbench.command.running.run_page", run_page)
    before = signal.getsignal(signal.SIGTERM)
    yield lambda *words: CliRunner().invoke(main, ["repeat", *words])
    signal.signal(signal.SIGTERM, before)  # the command has its own


def test_each_seed_is_a_run_and_the_table_says_how_they_spread(repeat, study):  # noqa: F811
    place = study.parent / "both.ipynb"
    words = f"local_dataset={study}", "name=try", "seed=7", *TINY
    done = repeat("seeds=2", *words, f"--output={place}")
    assert done.exit_code == 0, done.output
    assert sorted(path.stem for path in place.parent.glob("both*.ipynb")) == [
        "both-seed7",
        "both-seed8",
    ]
    runs = [open_run(f"try-seed{seed}") for seed in (7, 8)]
    assert [run.job.seed for run in runs] == [7, 8]
    ssim = [run.metrics[0]["val_ssim"] for run in runs]
    assert ssim[0] != ssim[1]
    found = dict(re.findall(r"^(seed \d|mean|standard deviation) +([\d.]+)", done.output, re.M))
    assert float(found["seed 7"]) == pytest.approx(ssim[0], abs=1e-4)
    assert float(found["mean"]) == pytest.approx(sum(ssim) / 2, abs=1e-4)
    assert float(found["standard deviation"]) == pytest.approx(
        abs(ssim[0] - ssim[1]) / 2**0.5, abs=1e-4
    )


@pytest.mark.parametrize("words", [["seeds=1"], ["seeds=few"], ["seeds=2", "seeds=3"]])
def test_a_wrong_number_of_seeds_is_refused(repeat, words):
    done = repeat(*words)
    assert done.exit_code == 2
    assert "give a whole number from 2 to 100" in done.output
    assert "no such parameter" in repeat("seeds=2", "speed=3").output
