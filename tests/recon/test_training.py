"""Training: fastMRI's trajectory, exact continuation, the same figures on any number of ranks."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict, replace

import h5py
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from fastmri import complex_abs, ifft2c, rss
from fastmri.data import SliceDataset as ReferenceDataset
from fastmri.data.transforms import VarNetDataTransform, apply_mask, center_crop_to_smallest
from fastmri.losses import SSIMLoss
from fastmri.models import VarNet as ReferenceVarNet

from tests.recon.conftest import made
from workbench.compute.here import Ranks
from workbench.compute.jobs import training_job
from workbench.compute.runs import Run, prepare_run
from workbench.compute.training import plan_training, train
from workbench.data.cache import open_cache
from workbench.data.loading import SliceData, TrainingBatches
from workbench.data.masks import _FUNCTIONS
from workbench.data.sampling import Sampling, seed_of_draw
from workbench.data.slices import SliceDataset, collate
from workbench.models import first_estimate
from workbench.recon import run as rank
from workbench.recon.metrics import METRICS
from workbench.recon.reconstruction import reconstruct_volume
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.speed import compiles
from workbench.recon.training import NonFiniteLossError, Training, WeightAverage, cosine
from workbench.recon.weights import load_network

SMALL = {
    "cascades": 2,
    "chans": 2,
    "pools": 2,
    "sens_chans": 2,
    "sens_pools": 2,
    # Unlike the phantom's defaults.
    "schedule": "step",
    "first_estimate": "published",
    "lr": 1e-3,
}


def small_job(study, **choices):
    return training_job(study, synthetic=True, model="brain", **{**SMALL, "epochs": 2, **choices})


def trainer(**settings):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        **settings,
    )


def small_data(study, job):
    train_slices, val_slices = rank.datasets(job, open_cache(study))
    return SliceData(
        train_slices, val_slices, batch_size=1, seed=job.seed, workers=0, batches_done=lambda _: 0
    )


class Losses(pl.Callback):
    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, outputs, *rest):
        self.values.append(float(outputs["loss"]))


def apply_mask_seeded(seed):
    return lambda kspace, function, padding, **_: apply_mask(
        kspace, function, seed=seed, padding=padding
    )


def fastmri_losses(study, job, steps):
    """Train with fastMRI's reader, transform, network and loss over the same order and masks."""
    pl.seed_everything(job.seed, verbose=False)
    numbers = asdict(job.config)
    network = ReferenceVarNet(num_cascades=numbers.pop("cascades"), **numbers).double()
    optimizer = torch.optim.Adam(network.parameters(), lr=job.lr)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, job.lr_step, job.lr_gamma)
    raw = ReferenceDataset(study / "multicoil_train", "multicoil")
    place = {(each.fname.name, each.slice_ind): n for n, each in enumerate(raw.raw_samples)}
    mask = _FUNCTIONS[job.sampling.mask](job.sampling.center_fractions, (4,))
    ours, _ = rank.datasets(job, open_cache(study))
    order = TrainingBatches(ours, 1, job.seed)
    losses = []
    for epoch in range(job.epochs):
        order.set_epoch(epoch)
        for (item,) in order:
            volume, number = ours.slices[item[0]]
            path, slice_index, metadata = raw.raw_samples[place[ours.volumes[volume].name, number]]
            with h5py.File(path) as file:
                arguments = (
                    file["kspace"][slice_index],
                    None,
                    file["reconstruction_rss"][slice_index],
                )
                attributes = dict(file.attrs) | metadata
            sample = VarNetDataTransform(mask, use_seed=False)

            drawn = apply_mask_seeded(seed_of_draw(job.seed, epoch, item[0]))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("fastmri.data.transforms.apply_mask", drawn)
                sample = sample(*arguments, attributes, path.name, slice_index)
            image = network(
                sample.masked_kspace[None].double(), sample.mask[None], sample.num_low_frequencies
            )
            target, image = center_crop_to_smallest(sample.target[None].double(), image)
            loss = SSIMLoss().double()(
                image[:, None], target[:, None], torch.tensor([sample.max_value]).double()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            if len(losses) == steps:
                return losses
        schedule.step()
    return losses


def test_twenty_steps_follow_fastmris_own(study):
    job = small_job(study, epochs=3, lr_step=1, lr_gamma=0.5)
    open_cache(study)
    pl.seed_everything(job.seed, verbose=False)
    module, losses = Training(job), Losses()
    trainer(max_steps=20, max_epochs=3, callbacks=[losses], precision="64-true").fit(
        module, small_data(study, job)
    )
    expected = fastmri_losses(study, job, 20)
    assert len(losses.values) == len(expected) == 20
    assert expected[-1] < expected[0]
    # In float32 both drift from this by rounding alone; in float64 what is left is the window of
    # fastMRI's loss, which is 1/49 rounded to float32.
    np.testing.assert_allclose(losses.values, expected, rtol=0, atol=1e-6)


KILLED = """
import os, signal, sys
from workbench.recon import record, run

class RunCheckpoints(record.RunCheckpoints):  # its name is that of its state
    def die(self, trainer, where):
        if [where, str(trainer.global_step)] == sys.argv[2:]:
            os.kill(os.getpid(), signal.SIGKILL)

    def on_train_batch_end(self, trainer, module, *rest):
        super().on_train_batch_end(trainer, module, *rest)
        self.die(trainer, "batch")

    def on_train_epoch_start(self, trainer, module):
        self.die(trainer, "epoch")

run.RunCheckpoints = RunCheckpoints
main = run.main
if __name__ == "__main__":
    main()
"""


def rank_process(folder, *arguments, module, ranks=1):
    command = [module] if ranks == 1 else ["workbench.compute.ranks", f"--count={ranks}", module]
    return subprocess.run(
        [sys.executable, "-m", *command, str(folder), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def killed(project, monkeypatch):
    """A module that is killed at a step of the command line's: by SIGKILL, in each rank."""
    (project / "killed.py").write_text(KILLED)
    monkeypatch.setenv("PYTHONPATH", str(project), prepend=os.pathsep)
    return "killed"


AVERAGED = ("current_model_state", "averaging_state")


def learned(run):
    """Return the average of the weights, what the training goes on with, and the epochs' rows."""
    checkpoint = torch.load(run.last, weights_only=True)
    rows = [{name: row[name] for name in row if name != "seconds"} for row in run.metrics]
    goes_on = [checkpoint[name] for name in ("optimizer_states", *AVERAGED) if name in checkpoint]
    return checkpoint["state_dict"], goes_on, rows


@pytest.mark.parametrize(
    ("where", "step", "schedule"), [("batch", 13, "cosine"), ("epoch", 9, "step")]
)
def test_a_killed_run_goes_on_exactly(study, project, killed, where, step, schedule, capsys):
    open_cache(study)
    choices = {"epochs": 3, "lr_step": 1, "checkpoint_minutes": 1e-9, "ema": 0.9, "clip": 0.5}
    if schedule == "cosine":
        choices |= {"schedule": schedule, "first_estimate": "sense", "augment": "full"}
    whole = prepare_run(small_job(study, name="whole", **choices), resume=True)
    rank.fit(whole.job, whole.folder)
    weights, optimizer, rows = learned(whole)
    run = prepare_run(small_job(study, name="killed", **choices), resume=True)
    ended = rank_process(run.folder, where, step, module=killed)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert not run.finished
    if where == "batch":  # as if that epoch had taken longer before
        seen = torch.load(run.last, weights_only=True)
        seen["callbacks"]["RunRecord"]["spent"] += 1000
        torch.save(seen, run.last)
    capsys.readouterr()
    rank.fit(run.job, run.folder)
    assert "going on from last.ckpt" in capsys.readouterr().out
    weights_after, optimizer_after, rows_after = learned(run)
    assert rows_after == rows
    if schedule == "step":  # each epoch's own rate, not that of the next
        assert [row["lr"] for row in run.metrics] == pytest.approx([1e-3, 1e-4, 1e-5])
    # A resumed epoch's seconds are all that it took.
    assert [row["seconds"] > 1000 for row in run.metrics].count(True) == (where == "batch")
    assert all(torch.equal(weights_after[name], weights[name]) for name in weights)
    torch.testing.assert_close(optimizer_after, optimizer, rtol=0, atol=0)


def test_cosine_rises_then_falls_to_zero_at_the_last_step(study):
    job = small_job(study, epochs=2, schedule="cosine", lr=0.5)
    open_cache(study)
    module, data = Training(job), small_data(study, job)
    rates = []

    class Rates(pl.Callback):
        def on_train_batch_start(self, trainer, *_):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    trainer(max_epochs=2, callbacks=[Rates()]).fit(module, data)
    highest = rates.index(max(rates))
    assert max(rates) == 0.5
    assert rates == [*sorted(rates[:highest]), *sorted(rates[highest:], reverse=True)]
    assert 0 <= module.lr_schedulers().get_last_lr()[0] < 1e-9


def test_cosine_falls_over_the_epochs_on_whatever_ranks_each_is_learned(study, project, killed):
    """By steps alone it stood at its end, or never came there: a rank of few has more of them."""
    job = small_job(study, name="moved", epochs=3, schedule="cosine")
    open_cache(study)
    run = prepare_run(job, resume=True)
    rank_process(run.folder, "epoch", 3, module=killed, ranks=3)
    assert [row["step"] for row in run.metrics] == [3]
    rank.fit(job, run.folder)
    expected = [job.lr * cosine(n * steps - 1, 3 * steps) for n, steps in ((1, 3), (2, 9), (3, 9))]
    assert [row["lr"] for row in run.metrics] == pytest.approx(expected)


@pytest.mark.parametrize("network", ["varnet", "promptmr"])
@pytest.mark.parametrize("estimate", ["zero-filled", "sense", "tv, regularisation=0.002"])
def test_untrained_network_returns_nearly_what_it_begins_with(study, network, estimate):
    sizes = {"cascades": 2, "chans": 4, "sens_chans": 4}
    job = training_job(study, synthetic=True, model="brain", network=network, **sizes)
    found = {}
    for begins in (None, estimate):
        pl.seed_everything(1, verbose=False)
        training = Training(job.model_copy(update={"first_estimate": begins})).eval()
        data = SliceDataset(
            open_cache(study).split("val"), job.sampling, neighbours=training.network.neighbours
        )
        batch = collate([data[0], data[1]])
        given = batch.masked_kspace, batch.mask, batch.num_low_frequencies
        expected = rss(complex_abs(ifft2c(batch.middle)), dim=1)
        if first := first_estimate(estimate):
            expected = first(torch.view_as_real(torch.view_as_complex(batch.middle)), *given[1:])
        with torch.no_grad():
            image = training(batch)
        found[begins] = float((image - expected).norm() / expected.norm())
    assert found[estimate] < 0.5 * found[None]
    assert found[estimate] < 0.25


def test_first_estimate_goes_with_the_weights(study, project):
    open_cache(study)
    job = small_job(study, epochs=1, first_estimate="sense")
    run = prepare_run(job.model_copy(update={"name": "one"}), resume=True)
    trained = rank.fit(run.job, run.folder).network
    loaded = load_network(run.last)
    sample = collate([SliceDataset(open_cache(study).split("val"), Sampling())[0]])
    given = sample.masked_kspace, sample.mask, sample.num_low_frequencies
    with torch.no_grad():
        assert torch.equal(loaded(*given), trained.eval()(*given))
        loaded.begin_with(None)
        assert not torch.equal(loaded(*given), trained(*given))
    plan = plan_reconstruction(run="one", local_dataset=str(study))
    assert made(plan).labels["reconstruction"] == "VarNet (from CG-SENSE)"


def test_loss_of_an_epoch_resumed_on_two_ranks_is_that_of_an_unbroken_one(study, project, killed):
    open_cache(study)
    losses, weights = {}, {}
    for name in ("whole", "killed"):
        choices = {**SMALL, "name": name, "epochs": 1, "checkpoint_minutes": 1e-9, "ema": 0.9}
        plan = plan_training(model="brain", local_dataset=str(study), **choices)
        run = plan.run
        if name == "killed":
            done = rank_process(run.folder, "batch", 3, module=killed, ranks=2)
            assert "Signal 9 (SIGKILL)" in done.stderr
            assert not run.finished
        lines = list(train(replace(plan, where=Ranks(2, "CPU", 1))))
        assert any("going on from" in line for line in lines) == (name == "killed")
        losses[name], weights[name] = run.metrics[0]["train_loss"], learned(run)[:2]
    assert losses["killed"] == pytest.approx(losses["whole"], rel=1e-12)
    torch.testing.assert_close(weights["killed"], weights["whole"], rtol=0, atol=0)


@pytest.mark.parametrize("begins", ["published", "tv, maps=espirit, iterations=2"])
def test_nan_in_kspace_stops_the_run_and_names_the_slice(study, project, tmp_path, begins):
    broken = tmp_path / "broken"
    shutil.copytree(study, broken, ignore=shutil.ignore_patterns("*.json"))
    with h5py.File(broken / "multicoil_train/file1.h5", "r+") as file:
        file["kspace"][2] = np.nan
    open_cache(broken)
    wide = {"center_fraction": 0.3, "acceleration": 2}  # so that ESPIRiT has room
    job = small_job(broken, epochs=1, first_estimate=begins, **wide)
    with pytest.raises(NonFiniteLossError, match=r"file1\.h5 slice 2"):
        rank.fit(job, project / "run")


def test_nan_in_validation_names_the_slice(study):
    module = Training(small_job(study))
    _, val = rank.datasets(small_job(study), open_cache(study))
    sample = val[1]
    broken = sample._replace(target=sample.target * torch.nan)
    with pytest.raises(NonFiniteLossError, match=r"validation SSIM is nan .*file10\.h5 slice 1"):
        module.validation_step(collate([broken]), 0)


def test_losses_do_not_depend_on_accumulation(study, project):
    open_cache(study)
    losses = []
    for accumulate in (1, 3):
        job = small_job(study, epochs=1, accumulate=accumulate, lr=1e-12)
        rank.fit(job, project / str(accumulate))
        losses.append(Run(project / str(accumulate)).metrics[0]["train_loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_an_all_zero_slice_trains_without_nan(study):
    job = small_job(study)
    open_cache(study)
    module = Training(job)
    data, _ = rank.datasets(job, open_cache(study))
    sample = data[0]
    zero = sample._replace(
        masked_kspace=torch.zeros_like(sample.masked_kspace),
        target=torch.zeros_like(sample.target),
        max_value=0.0,
    )
    module.training_step(collate([zero]), 0).backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize(
    ("choices", "message"),
    [({"cascades": 3}, "cascades 3 there, 2 here"), ({"loss": "l1"}, "loss l1 there, None here")],
)
def test_checkpoint_of_another_job_is_refused(study, choices, message):
    """Such as in the storage of a cluster, where somebody has trained under the same name."""
    saved = {"job": small_job(study, **choices).model_dump()}
    with pytest.raises(ValueError, match=rf"last checkpoint is of another job \({message}\)"):
        Training(small_job(study)).on_load_checkpoint(saved)


@pytest.mark.parametrize(
    "choices",
    [
        {"precision": "bf16"},
        {"batch_size": 2, "accumulate": 2},
        {"sample_rate": 0.5},
        {"crop_readout": True, "low_memory": True, "tf32": True},
        {"loss": "edge", "optimizer": "adamw", "weight_decay": 0.01},
        {"loss": "ssim_l1", "optimizer": "rmsprop", "clip": 1.0, "ema": 0.99, "patience": 5},
    ],
    ids=str,
)
def test_options_train(study, project, choices):
    job = small_job(study, epochs=1, **choices)
    open_cache(study)
    module = rank.fit(job, project)
    assert 0 < module.volume_scores[0]["ssim"] < 1
    # 9 slices: of two shapes they make 5 batches of up to 2, in pairs 3 steps; half of them are 4.
    steps = 3 if "accumulate" in choices else 4 if "sample_rate" in choices else 9
    assert module.trainer.global_step == steps


class Weights(pl.Callback):
    """Keeps the weights after every step, and the norm of its gradient."""

    def __init__(self):
        self.after, self.norms = [], []

    def on_train_batch_end(self, trainer, module, *rest):
        self.after.append([p.detach().clone() for p in module.parameters()])
        gradients = [p.grad for p in module.parameters()]
        self.norms.append(float(torch.nn.utils.get_total_norm(gradients)))


def test_average_follows_the_steps_with_a_decay_that_grows(study):
    job = small_job(study, lr=0.01)
    steps, module = Weights(), Training(job)
    trainer(max_epochs=2, callbacks=[WeightAverage(0.5, torch.device("cpu")), steps]).fit(
        module, small_data(study, job)
    )
    expected = steps.after[0]
    for number, weights in enumerate(steps.after[1:], start=2):
        decay = min(0.5, number / (number + 9))
        expected = [decay * e + (1 - decay) * w for e, w in zip(expected, weights, strict=True)]
    assert len(steps.after) == 18
    torch.testing.assert_close(list(module.parameters()), expected)


def test_average_is_validated_and_reconstructs(study, project):
    job = small_job(study, epochs=1, lr=0.01, ema=0.99)
    module = rank.fit(job, project)
    checkpoint = torch.load(project / "checkpoints/best.ckpt", weights_only=True)
    average, last = checkpoint["state_dict"], checkpoint["current_model_state"]
    assert sum(torch.equal(average[name], last[name]) for name in average) == 1  # of no effect
    network = load_network(project / "checkpoints/best.ckpt")
    for name, weights in network.state_dict().items():
        assert torch.equal(weights, average[f"network.{name}"])
    _, val = rank.datasets(job, open_cache(study))
    again = Training(job)
    again.network.load_state_dict(network.state_dict())
    with torch.inference_mode():
        for index in range(len(val)):
            again.validation_step(collate([val[index]]), index)
    again.on_validation_epoch_end()
    assert again.volume_scores == module.volume_scores


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("multicoil_val/file11.h5", 1),
        ("multicoil_val/file11.h5", 0.5),
        ("multicoil_val/file11.h5", 1e4),
        ("multicoil_train/file0.h5", 0.5),
    ],
)
def test_a_range_that_is_not_the_targets_is_told_with_the_first_validation(
    study, project, capsys, name, factor
):
    """With a range too large every SSIM is nearly 1, and the loss nearly 0."""
    shutil.copytree(study / "multicoil_train", project / "scans/multicoil_train")
    shutil.copytree(study / "multicoil_val", project / "scans/multicoil_val")
    with h5py.File(project / "scans" / name, "r+") as file:
        file.attrs["max"] *= factor
        held = file["reconstruction_rss"][()].max()
    job = small_job(project / "scans", epochs=2)
    rank.fit(job, project)
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert len(notes) == (factor != 1)
    for note in notes:
        assert "1 of 5 volumes do not hold the largest target value" in note
        assert f"such as {name}: {held:.3g}, not {factor * held:.3g}." in note


def test_gradients_are_cut_to_a_norm(study):
    job = small_job(study)
    norms = []
    for clip in (None, 1e-3):
        steps = Weights()
        fitted = trainer(max_epochs=1, callbacks=[steps], gradient_clip_val=clip)
        fitted.fit(Training(job), small_data(study, job))
        norms.append(steps.norms)
    assert min(norms[0]) > 1e-3
    np.testing.assert_allclose(norms[1], 1e-3, rtol=1e-4)


def test_three_ranks_score_as_one_and_end_together_without_a_better_epoch(study, project, capsys):
    """They accumulate gradients; with so small a rate that changes no weights."""

    def planned(patience, name="patient", **more):
        choices = {**SMALL, "epochs": 9, "lr": 1e-12, "patience": patience, "ema": 0.9, **more}
        return plan_training(model="brain", local_dataset=str(study), name=name, **choices)

    together = {"accumulate": 2, "low_memory": True}
    plan = planned(2, **together)
    assert ", ended after 2 epochs without a better one" in str(plan)
    lines = list(train(replace(plan, where=Ranks(3, "CPU", 1))))
    (told,) = [line for line in lines if "3 rank(s)" in line]
    assert "low memory" in told
    assert "ended: 2 epochs without a better validation" in lines
    alone = planned(None, "alone", epochs=1)
    capsys.readouterr()
    rank.fit(alone.job, alone.run.folder)  # in this process: another takes longer than the work
    assert "low memory" not in capsys.readouterr().out
    scores = []
    for run in (plan.run, alone.run):
        assert sum(int(row["slices"]) for row in run.volumes) == plan.cache.split("val").slices
        scores.append([[float(row[metric.name]) for metric in METRICS] for row in run.volumes])
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    # It is finished, and goes on with more patience.
    assert [row["epochs_since_best"] for row in plan.run.metrics] == [0, 1, 2]
    assert plan.run.finished
    assert list(train(plan)) == ["outputs/patient is finished: 3 epochs are done"]
    rank.fit(plan.job, plan.run.folder)  # as where it was killed before its rows were written
    assert len(plan.run.metrics) == 3
    plan = planned(3, **together)
    assert not plan.run.finished
    rank.fit(plan.job, plan.run.folder)
    assert [row["epochs_since_best"] for row in plan.run.metrics] == [0, 1, 2, 3]


def test_first_line_says_why_there_are_no_kernels(study, project, monkeypatch, capsys):
    monkeypatch.setattr(rank, "obstacle", lambda: "there is no C compiler")
    open_cache(study)
    rank.fit(small_job(study, epochs=1, sample_rate=0.1), project)
    [line] = [one for one in capsys.readouterr().out.splitlines() if one.startswith("training on")]
    assert line.endswith(", without the faster kernels (there is no C compiler)")


def test_checkpoint_carries_what_changes_the_numbers_and_released_weights_do_not(study, project):
    open_cache(study)
    job = small_job(study, epochs=1, precision="bf16", crop_readout=True, tf32=True)
    rank.fit(job, project)
    checkpoint = project / "checkpoints/last.ckpt"
    trained = load_network(checkpoint)
    assert (trained.bf16, trained.crop_readout, trained.tf32) == (True, True, True)
    cache = open_cache(study)
    data = SliceDataset(cache.with_volumes(cache.split("val").volumes[:1]), job.sampling)
    image, *_ = reconstruct_volume(trained, data)
    assert image.shape[1:] == (24, 24)
    released = project / "released.pt"
    torch.save(trained.state_dict(), released)
    plain = load_network(released)
    assert (plain.bf16, plain.crop_readout, plain.tf32) == (False, False, False)


def test_compiling_is_for_long_trainings_on_gpus_or_on_request(study, monkeypatch):
    assert not compiles(small_job(study), 10**6)
    assert not compiles(small_job(study, compile="off"), 10**6)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ValueError, match="needs a C\\+\\+ compiler"):
        compiles(small_job(study, compile="on"), 1)
    monkeypatch.setattr("shutil.which", lambda _: "/usr/bin/g++")
    assert compiles(small_job(study, compile="on"), 1)


def test_single_coil_knee_trains(single, project):
    job = training_job(single, synthetic=True, model="knee_singlecoil", **SMALL, epochs=1)
    module = rank.fit(job, project / "run")
    assert module.volume_scores[0]["slices"] == 3
