import shutil

import h5py
import numpy as np
import pytest
import torch

from workbench.data.cache import DatasetCache, build_cache
from workbench.data.images import center_crop
from workbench.data.reading import read_both
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset, collate
from workbench.models import NETWORKS, VarNet, build
from workbench.models.classical.network import Classical
from workbench.recon.arrays import reconstruct, reconstruct_sample
from workbench.recon.asked import Order
from workbench.recon.results import Result
from workbench.recon.uncertainty import (
    check_masks_wanted,
    map_uncertainty,
    masks_for,
    rank_correlation,
)
from workbench.stores import DiskStore
from workbench.stores.disk import LocalFile
from workbench.views.uncertainty import agreement

RANDOM = Sampling("random", (3,), (0.1,))


def network():
    torch.manual_seed(0)
    return VarNet(num_cascades=2, chans=4, pools=2, sens_chans=2, sens_pools=2)


FULL = np.ones((1, 1, 32), np.complex64)


@pytest.fixture(scope="module")
def trained(study):
    """A network that learned for a moment on the study's training volumes."""
    volumes = build_cache(study).split("train")
    data = SliceDataset(volumes, RANDOM, seed=0)
    net = network().train()
    optimiser = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(45):
        batch = collate([data[step % len(data)]])
        image = net(batch.masked_kspace, batch.mask, batch.num_low_frequencies)
        image = image[:, 12:36, 4:28]
        loss = ((image - batch.target) ** 2).sum() / (batch.target**2).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net.eval()


@pytest.fixture(scope="module")
def val(study):
    return build_cache(study).split("val").volumes[0]


def read(study, volume, number=1):
    with LocalFile(study / volume.path) as source:
        return read_both(source, volume, number)


def test_deviation_and_true_error_go_together_and_a_shuffled_one_does_not(study, val, trained):
    masks = masks_for(val, RANDOM, 8, FULL)
    for number in range(val.slices):
        kspace, target = read(study, val, number)
        found = map_uncertainty(trained, kspace, masks, val.recon[:2])
        error = np.abs(found.image - target)
        assert agreement(found.deviation, error, target)[0] > 0.4
    shuffled = np.random.default_rng(0).permutation(found.deviation.ravel())
    assert abs(agreement(shuffled.reshape(error.shape), error, target)[0]) < 0.3


@pytest.mark.parametrize("crop_readout", [False, True])
def test_image_is_the_reconstruction_s_own(study, val, crop_readout, monkeypatch):
    monkeypatch.setattr(VarNet, "readout_margin", 4)
    net = network().eval()
    net.crop_readout = crop_readout
    kspace, _ = read(study, val)
    sample = collate([SliceDataset(DatasetCache(DiskStore(study), (val,)), RANDOM)[1]])
    with torch.inference_mode():
        expected = net(sample.masked_kspace, sample.mask, sample.num_low_frequencies, rows=24)[0]
    assert expected.shape == ((32, 32) if crop_readout else (48, 32))
    found = map_uncertainty(net, kspace, masks_for(val, RANDOM, 3, FULL), val.recon[:2])
    expected = center_crop(expected, (24, 24)).numpy()
    np.testing.assert_allclose(found.image, expected, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("method", ["sense", "wavelet", "tv"])
def test_image_is_that_of_a_network_whose_maps_see_the_whole_readout(
    study, val, method, monkeypatch
):
    """Of k-space whose readout was cropped before, coil maps and images were others."""
    monkeypatch.setattr(Classical, "readout_margin", 4)
    net = build(method, NETWORKS[method].configured({})).eval()
    kspace, _ = read(study, val)
    data = SliceDataset(DatasetCache(DiskStore(study), (val,)), RANDOM)
    expected = reconstruct_sample(net, data[1])
    assert expected.shape[0] + 2 * 4 < val.matrix[0]
    found = map_uncertainty(net, kspace, masks_for(val, RANDOM, 3, FULL), val.recon[:2])
    np.testing.assert_allclose(found.image, expected, atol=1e-6 * expected.max())
    assert found.overruled < 1e-5  # the measured lines are put back


def test_network_that_changes_nothing_overrules_nothing(study, val):
    net = network().eval()
    for cascade in net.cascades:
        for weights in cascade.model.parameters():
            torch.nn.init.zeros_(weights)
    kspace, _ = read(study, val)
    found = map_uncertainty(net, kspace, masks_for(val, RANDOM, 2, FULL), val.recon[:2])
    assert found.overruled < 1e-5
    assert found.residual.max() < 1e-5 * found.image.max()
    assert (
        map_uncertainty(network(), kspace, masks_for(val, RANDOM, 2, FULL), val.recon[:2]).overruled
        > 1e-4
    )


def test_deviation_is_that_of_the_images_of_each_mask(study, val):
    net = network().eval()
    kspace, _ = read(study, val)
    masks = masks_for(val, RANDOM, 3, FULL)
    found = map_uncertainty(net, kspace, masks, val.recon[:2])
    images = [map_uncertainty(net, kspace, [mask, masks[0]], val.recon[:2]).image for mask in masks]
    np.testing.assert_allclose(found.deviation, np.std(images, axis=0, ddof=1), rtol=1e-3)
    np.testing.assert_allclose(found.mean, np.mean(images, axis=0), rtol=1e-5)


def test_masks_differ_and_begin_with_the_reconstruction_s(study, val):
    masks = masks_for(val, RANDOM, 6, FULL)
    own = SliceDataset(DatasetCache(DiskStore(study), (val,)), RANDOM)[0].mask.numpy().ravel()
    assert (masks[0][0] == own).all()
    assert len({columns.tobytes() for columns, _ in masks}) == 6
    # Equispaced ones are as many as their offsets.
    assert len(masks_for(val, Sampling("equispaced", (4,), (0.08,)), 10, FULL)) == 4


def test_own_mask_s_lines_are_left_out_in_turn_and_its_centre_never(study, val):
    from dataclasses import replace

    own = tuple(n for n in range(32) if n % 4 == 0 or 13 <= n < 19)
    masks = masks_for(replace(val, mask=own), None, 4, FULL)
    assert set(np.flatnonzero(masks[0][0])) == set(own)
    left_out = [set(own) - set(np.flatnonzero(mask[0])) for mask in masks[1:]]
    assert all(left_out)
    assert not any(13 <= line < 19 for lines in left_out for line in lines)
    assert sum(map(len, left_out)) == len(set.union(*left_out))
    assert set.union(*left_out) == {n for n in own if not 12 <= n < 19}


def test_masks_drawn_for_a_file_that_is_undersampled_sample_what_it_holds(study, val, tmp_path):
    own = np.arange(32) % 2 == 0
    own[12:20] = True
    path = tmp_path / "cut" / val.path
    path.parent.mkdir(parents=True)
    shutil.copy(study / val.path, path)
    with h5py.File(path, "a") as file:
        file["mask"] = own
        file["kspace"][...] = file["kspace"][()] * own
    cache = build_cache(tmp_path / "cut")
    (volume,) = cache
    kspace, _ = cache.read(volume, 1)
    sample = SliceDataset(cache, RANDOM).slice_of(volume, 1)
    masks = masks_for(volume, RANDOM, 4, kspace)
    assert np.array_equal(masks[0][0], sample.mask.numpy().ravel())
    assert len(masks) > 1
    assert not any((columns & ~own).any() or low for columns, low in masks)
    net = network().eval()
    found = map_uncertainty(net, kspace, masks, volume.recon[:2])
    wanted = reconstruct(net, sample)
    np.testing.assert_allclose(found.image, wanted, rtol=1e-4, atol=1e-9)
    order = Order("w.pt", "", str(tmp_path / "cut"), "val", RANDOM)
    result = Result(path, volume, order, 4.0, 3)
    assert np.array_equal(result.mask(kspace)[0], masks[0][0])


def test_wrong_number_of_masks_is_named(study, val):
    kspace, _ = read(study, val)
    with pytest.raises(ValueError, match="1 masks: give 2 or more"):
        map_uncertainty(network(), kspace, [(np.ones(32, bool), 0)], (24, 24))
    for wrong in (-1, 1, True, "8", 2.5):
        with pytest.raises(ValueError, match="uncertainty="):
            check_masks_wanted(wrong)


def test_rank_correlation_is_spearman_s():
    from scipy.stats import spearmanr

    random = np.random.default_rng(0)
    first = random.normal(size=(9, 9)).round(1)
    second = first + random.normal(size=(9, 9)).round(1)
    assert rank_correlation(first, second) == pytest.approx(spearmanr(first, second, axis=None)[0])
    assert np.isnan(rank_correlation(first, np.ones((9, 9))))


def test_masks_of_several_accelerations_are_of_the_first_one_s(val):
    for name in ("random", "equispaced"):
        masks = masks_for(val, Sampling(name, (3, 8), (0.1, 0.1)), 4, FULL)
        lines = [mask[0].sum() for mask in masks]
        assert len(masks) >= 2
        assert max(lines) < 1.3 * min(lines)
