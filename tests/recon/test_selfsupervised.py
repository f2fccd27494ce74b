"""Learning without targets: which lines are held out, what they count, what is never read."""

import shutil

import h5py
import numpy as np
import pytest
import torch

from tests.recon.conftest import make_volume
from tests.recon.test_training import SMALL, small_job
from workbench.compute.jobs import training_job, try_own_code
from workbench.compute.training import plan_training
from workbench.data.cache import open_cache
from workbench.data.masks import draw_mask
from workbench.data.sampling import MASKS, Sampling
from workbench.data.slices import SliceDataset, collate
from workbench.models.reconstructor import Reconstructor
from workbench.recon import run as rank
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.selfsupervised import held_out_error, split_lines, training_loss
from workbench.views.curves import learning_curves, say_standing
from workbench.views.training import show_run, volume_table


@pytest.mark.parametrize("mask", MASKS)
def test_lines_beside_the_centre_are_held_out_and_count_for_all_that_are_not_shown(mask):
    sampled, acs = draw_mask(Sampling(mask, 4, 0.08), 320, 1, (10, 300))
    split = split_lines(sampled, acs, 0.4, np.random.default_rng(0))
    again = split_lines(sampled, acs, 0.4, np.random.default_rng(0))
    other = split_lines(sampled, acs, 0.4, np.random.default_rng(1))
    assert (split.held_out == again.held_out).all()
    assert (split.held_out != other.held_out).any()
    assert (split.shown ^ split.held_out == sampled).all()
    centre = np.zeros(320, bool)
    first = (320 - acs + 1) // 2
    centre[first : first + acs] = True
    assert split.shown[centre].all()
    assert split.held_out.sum() == round(0.4 * sampled.sum())
    ends = np.flatnonzero(sampled & ~centre)
    unseen = (~split.shown)[ends[0] : ends[-1] + 1].sum()
    assert split.weight * split.held_out.sum() == pytest.approx(unseen)


def test_the_centre_is_read_off_a_mask_of_its_own_and_too_few_lines_are_refused():
    mask = np.zeros(40, bool)
    mask[::5] = mask[17:23] = True
    split = split_lines(mask, 0, 0.9, np.random.default_rng(0))
    assert split.shown[17:23].all()
    assert split.held_out.sum() == (mask.sum() - 6) - 1  # one more than the centre stays
    only = np.zeros(40, bool)
    only[17:23] = True
    with pytest.raises(ValueError, match="0 lines are sampled beside the 6 ACS lines, too few"):
        split_lines(only, 0, 0.4, np.random.default_rng(0))


class Knows(Reconstructor):
    """Returns the coil images of the whole k-space, times a factor."""

    def __init__(self, kspace, factor):
        super().__init__()
        self.kspace, self.factor, self.masks = kspace, factor, []

    def coil_images(self, masked_kspace, mask, num_low_frequencies=None, rows=None):
        self.masks.append(mask)
        assert not masked_kspace[(~mask).expand_as(masked_kspace)].any()
        images = torch.fft.fftshift(
            torch.fft.ifft2(torch.fft.ifftshift(self.kspace, (-2, -1)), norm="ortho"), (-2, -1)
        )
        first = (images.shape[-2] - rows) // 2
        return self.factor * (images[:, :, first : first + rows] if self.crop_readout else images)


@pytest.mark.parametrize("cropped", [False, True])
def test_who_knows_the_lines_has_no_loss_and_who_says_nothing_has_all_of_it(study, cropped):
    cache = open_cache(study)
    data = SliceDataset(cache.split("train"), Sampling(), seed=1)
    batch = collate([data[0], data[1]])
    kspace = torch.stack([torch.from_numpy(cache.read(data.volumes[0], n)[0]) for n in (0, 1)])
    for factor, expected in ((1, 0), (0, 1)):
        network = Knows(kspace, factor)
        network.crop_readout = cropped
        loss = training_loss(network, batch, 24, (3, 0))
        assert float(loss) == pytest.approx(expected, abs=1e-5)
        assert held_out_error(network, batch, 24) == pytest.approx([expected] * 2, abs=1e-5)
        assert (network.masks[0].sum((1, 2, 3, 4)) < batch.mask.sum((1, 2, 3, 4))).all()
    network = Knows(kspace, 0)
    for seed in ((3, 0), (3, 0), (3, 1)):
        training_loss(network, batch, 24, seed)
    first, same, other = network.masks
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    # In validation all slices of a volume, in any epoch, have the same lines.
    fixed = SliceDataset(data.cache, Sampling())
    held_out_error(network, collate([fixed[0], fixed[1]]), 24)
    assert torch.equal(*network.masks[-1])


def test_targets_have_no_part_in_it_and_it_goes_on_exactly(study, project, tmp_path):
    blind = tmp_path / "blind"
    shutil.copytree(study, blind, ignore=shutil.ignore_patterns("*.json"))
    for path in (blind / "multicoil_train").glob("*.h5"):
        with h5py.File(path, "r+") as file:
            del file["reconstruction_rss"]
    learned = []
    for number, root in enumerate((study, blind)):
        open_cache(root)
        job = small_job(root, learning="self-supervised", epochs=2, schedule="step")
        if number:  # with a break
            rank.fit(job.model_copy(update={"epochs": 1}), project / str(number))
        module = rank.fit(job, project / str(number))
        assert 0 < module.volume_scores[0]["ssim"] < 1
        learned.append(module.network.state_dict())
    assert all(torch.equal(learned[0][name], learned[1][name]) for name in learned[0])


@pytest.fixture
def undersampled(tmp_path):
    """Volumes without targets, each undersampled already by its own mask."""
    root = tmp_path / "undersampled"
    mask = np.zeros(32, bool)
    mask[::3] = mask[12:20] = True
    for split, count in (("train", 2), ("val", 2)):
        for number in range(count):
            path = make_volume(root / f"multicoil_{split}/{split}{number}.h5", number, target=False)
            with h5py.File(path, "r+") as file:
                file["kspace"][...] = file["kspace"][()] * mask
                file["mask"] = mask
    return root


def test_files_that_are_undersampled_already_are_learned_from(undersampled, project):
    choices = {**SMALL, "epochs": 3, "learning": "self-supervised", "lr": 3e-3}
    plan = plan_training(model="brain", local_dataset=str(undersampled), **choices)
    assert "learning   self-supervised" in str(plan)
    assert "sampling   each file with its own mask" in str(plan)
    rank.fit(plan.job, plan.run.folder)
    rows = plan.run.metrics
    assert rows[-1]["val_held_out"] < rows[0]["val_held_out"] < 1.5
    assert plan.run.best.exists()
    assert say_standing(rows[-1]).startswith("error on held-out lines 0.")
    figure = learning_curves(rows)
    assert len([axes for axes in figure.axes if axes.axison]) == 2
    *_, said = show_run(plan.run)
    assert "validation error on held-out lines" in said["text/plain"]
    assert "held_out" in volume_table(plan.run).to_html()


def test_a_mask_that_is_drawn_over_files_own_ones_is_said_to_sample_less(undersampled, project):
    own = undersampled / "multicoil_test"
    (undersampled / "multicoil_val").rename(own)
    asked = {"network": "sense", "local_dataset": str(undersampled), "split": "test"}
    assert "less than it says" not in str(plan_reconstruction(**asked))
    plan = plan_reconstruction(**asked, mask="equispaced", acceleration=4, center_fraction=0.1)
    sample = SliceDataset(plan.cache, plan.order.sampling)[0]
    columns = sample.masked_kspace.any(-1).any(0).any(0)
    rate = 32 / int(columns.sum())
    assert rate > 4
    assert (
        "2 of 2 test volumes have masks of their own: where nothing was measured beyond those, "
        f"equispaced 4x, centre fraction 0.1 samples less there than it says, such as one column "
        f"of {rate:.3g} in multicoil_test/val0.h5"
    ) in str(plan)


@pytest.mark.parametrize("kind", ["no mask", "mask of what was left out", "compressed"])
def test_zeros_that_count_as_measured_are_said_in_the_plan(undersampled, project, kind):
    asked = {"network": "sense", "local_dataset": str(undersampled)}
    plain = {"mask": "equispaced", "acceleration": 4, "center_fraction": 0.1}
    assert "hold zeros" not in str(plan_reconstruction(**asked, **plain))
    with h5py.File(undersampled / "multicoil_val/val0.h5", "r+") as file:
        mask = file["mask"][:]
        del file["mask"]
        if kind.startswith("mask"):
            file["mask"] = ~mask
        if kind == "compressed":
            kspace = file["kspace"][:]
            del file["kspace"]
            file.create_dataset("kspace", data=kspace, compression="gzip")
    count = f"{(~mask).sum()} of the {(~mask).sum() if kind.startswith('mask') else 32} columns"
    whose = "its mask samples" if kind.startswith("mask") else "its header calls acquired"
    expected = f"{count} of multicoil_val/val0.h5 that {whose} hold zeros alone, and count as"
    assert expected in str(plan_reconstruction(**asked, **plain))
    choices = {**SMALL, "learning": "self-supervised"}
    assert expected in str(plan_training(model="brain", local_dataset=str(undersampled), **choices))


def test_what_it_cannot_do_is_refused_in_the_plan(study, undersampled, project):
    given = {"model": "brain", "learning": "self-supervised"}
    with pytest.raises(ValueError, match=r"loss='my:loss' compares images with targets"):
        training_job(study, synthetic=False, loss="my:loss", **given)
    job = training_job(study, synthetic=False, network="fastmri.models:VarNet", **given)
    with pytest.raises(ValueError, match="forms no images of single coils: give another network"):
        try_own_code(job)
    with pytest.raises(ValueError, match=r"have no target to learn from.*learning=self-supervised"):
        plan_training(model="brain", local_dataset=str(undersampled), **SMALL)
    augmented = {**SMALL, "learning": "self-supervised", "augment": "flips"}
    with pytest.raises(ValueError, match="augment=flips needs fully sampled k-space, and 2 train"):
        plan_training(model="brain", local_dataset=str(undersampled), **augmented)


def test_augmented_training_goes_on_with_the_same_epochs(study, project):
    choices = {**SMALL, "epochs": 2, "augment": "full", "name": "augmented"}
    plan = plan_training(model="brain", local_dataset=str(study), **choices)
    rank.fit(plan.job, plan.run.folder)
    with pytest.raises(ValueError, match=r"another job .epochs 2 there, 3 here"):
        plan_training(model="brain", local_dataset=str(study), **choices | {"epochs": 3})
