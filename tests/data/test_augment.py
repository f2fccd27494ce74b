"""Augmented slices are measurements of transformed anatomy, and a function of seed and epoch."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from fastmri import fft2c, ifft2c, rss_complex
from fastmri.data.transforms import complex_center_crop, to_tensor

from tests.recon.conftest import make_volume
from workbench.data.augment import MOST, Augmentation, Transform, check_targets
from workbench.data.cache import build_cache
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset

RECON = (24, 24)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("augment")
    make_volume(root / "multicoil_train/a.h5", 0, slices=6, recon=RECON)
    return root


def whole(root, number=0):
    cache = build_cache(root)
    kspace, target = cache.read(cache[0], number)
    return kspace[None], target


def target_of(kspace):
    return rss_complex(complex_center_crop(ifft2c(to_tensor(kspace)), RECON), dim=0).numpy()


@pytest.mark.parametrize("change", [lambda x: 2 * x, lambda x: x[:, ::-1], lambda x: x[:, 1:]])
def test_targets_of_another_kind_are_refused(root, tmp_path, change):
    shutil.copytree(root, tmp_path / "other")
    check_targets(build_cache(tmp_path / "other"))
    with h5py.File(tmp_path / "other/multicoil_train/a.h5", "r+") as file:
        target = change(file["reconstruction_rss"][:])
        del file["reconstruction_rss"]
        file["reconstruction_rss"] = target
    with pytest.raises(ValueError, match=r"slice 3 of multicoil_train/a.h5 is not the root sum"):
        check_targets(build_cache(tmp_path / "other"))


@pytest.mark.parametrize(("rows", "columns"), [(True, False), (False, True), (True, True)])
def test_flips_are_exact(root, rows, columns):
    kspace, target = whole(root)
    axes = [axis for axis, on in ((0, rows), (1, columns)) if on]
    changed, image = Transform(rows, columns).apply(kspace, RECON)
    np.testing.assert_allclose(image, np.flip(target, axes), atol=1e-6 * target.max())
    again, image = Transform(rows, columns).apply(changed, RECON)
    np.testing.assert_allclose(again, kspace, atol=1e-6 * np.abs(kspace).max())


def test_target_and_kspace_are_of_the_same_image_whatever_the_transform(root):
    kspace, target = whole(root)
    transform = Transform(True, False, (3, -4), ((0.8, 0.3), (-0.4, 0.9)))
    changed, image = transform.apply(kspace, RECON)
    assert changed.dtype == np.complex64
    np.testing.assert_allclose(image, target_of(changed[0]), atol=2e-6 * target.max())
    assert np.abs(image - target).max() > 0.1 * target.max()
    single, image = transform.apply(kspace[:, 0], RECON, target=False)
    np.testing.assert_allclose(single, changed[:, 0], atol=1e-6 * np.abs(kspace).max())
    assert image is None
    stack = np.concatenate([whole(root, number)[0] for number in (1, 0, 2)])
    together, image = transform.apply(stack, RECON)
    np.testing.assert_allclose(together[1], changed[0], atol=1e-6 * np.abs(kspace).max())
    np.testing.assert_allclose(image, target_of(changed[0]), atol=2e-6 * target.max())


def test_half_a_turn_is_both_flips_and_a_turn_leaves_a_disc_round(root):
    kspace, _ = whole(root)
    turned, _ = Transform(affine=((-1.0, 0.0), (0.0, -1.0))).apply(kspace, RECON)
    flipped, _ = Transform(True, True).apply(kspace, RECON)
    np.testing.assert_allclose(turned, flipped, atol=1e-4 * np.abs(kspace).max())
    rows, columns = np.mgrid[:48, :32]
    disc = (1 / (1 + np.exp(np.hypot(rows - 23.5, columns - 15.5) - 10))).astype(np.complex64)
    disc = fft2c(to_tensor(disc[None, None])).numpy().view(np.complex64)[..., 0]
    turn = ((np.cos(0.5), -np.sin(0.5)), (np.sin(0.5), np.cos(0.5)))
    _, before = Transform().apply(disc, RECON)
    _, after = Transform(affine=turn).apply(disc, RECON)
    np.testing.assert_allclose(after, before, atol=0.05)


def test_a_shift_moves_by_whole_pixels_and_mirrors_the_edge():
    images = np.arange(12, dtype=np.complex64).reshape(1, 3, 4)
    moved = Transform(shift=(1, -2)).images(images)[0].real
    assert moved.tolist() == [[2, 3, 3, 2], [2, 3, 3, 2], [6, 7, 7, 6]]


@pytest.mark.parametrize("kind", ["flips", "full"])
def test_draws_follow_seed_epoch_and_slice_alone_and_become_more(kind):
    augmentation = Augmentation(kind, 20, 7)
    chances = [augmentation.probability(epoch) for epoch in range(21)]
    assert chances[0] == 0
    assert chances == sorted(chances)
    assert chances[20] == pytest.approx(MOST)

    def drawn(epoch, seed=7):
        same = replace(augmentation, seed=seed)
        return [same.draw(epoch, index, (48, 32)) for index in range(200)]

    assert drawn(0) == [None] * 200
    assert drawn(9) == drawn(9)
    assert drawn(9) != drawn(9, seed=8)
    shares = [sum(each is not None for each in drawn(epoch)) / 200 for epoch in (1, 19)]
    assert shares[0] < shares[1]
    if kind == "flips":
        assert all(each.affine is None and each.shift == (0, 0) for each in drawn(19) if each)
        assert shares[1] == pytest.approx(1 - (1 - MOST / 2) ** 2, abs=0.1)


def test_dataset_masks_what_it_has_transformed(root):
    sampling = Sampling("random", 2, 0.2)
    plain = SliceDataset(build_cache(root), sampling, seed=3)
    augmented = SliceDataset(
        plain.cache, sampling, seed=3, augmentation=Augmentation("full", 8, 3)
    ).sampled(1.0, 3)
    for index in range(len(plain)):
        first, other = plain[index, 0], augmented[index, 0]
        assert (first.masked_kspace == other.masked_kspace).all()
    changed = 0
    for index in range(len(plain)):
        transform = augmented.augmentation.draw(7, index, (48, 32))
        sample, before = augmented[index, 7], plain[index, 7]
        kspace = sample.masked_kspace.numpy().view(np.complex64)[..., 0]
        assert not kspace[..., ~sample.mask.flatten().numpy()].any()
        if transform:
            changed += 1
            expected, target = transform.apply(whole(root, sample.slice_num)[0], RECON)
            drawn = sample.mask.flatten().numpy()
            np.testing.assert_array_equal(kspace[..., drawn], expected[0][..., drawn])
            np.testing.assert_array_equal(sample.target, target)
            assert sample.max_value == before.max_value
    assert changed > 1


def test_acquired_columns_are_mirrored_with_the_image(root):
    volume = replace(build_cache(root)[0], padding_left=3, padding_right=30)
    kspace = np.zeros((1, 1, 48, 32), np.complex64)
    kspace[..., 3:30] = 1 + np.arange(27)
    changed, _ = Transform(columns=True).apply(kspace, RECON)
    left, right = Transform(columns=True).volume(volume).acquired
    assert (left, right) == (3, 30)
    volume = replace(volume, padding_left=5)
    kspace[..., :5] = 0
    changed, _ = Transform(columns=True).apply(kspace, RECON)
    left, right = Transform(columns=True).volume(volume).acquired
    assert (left, right) == (3, 28)
    there = np.abs(changed).max((0, 1, 2)) > 1e-3
    assert there.nonzero()[0].tolist() == list(range(left, right))
    full = replace(volume, padding_left=0, padding_right=32)
    assert Transform(columns=True).volume(full).acquired == (0, 32)


@pytest.mark.parametrize("width", [32, 31])
def test_no_column_counts_as_acquired_that_was_not_before_it_was_mirrored(root, width):
    volume = build_cache(root)[0]
    layout = replace(volume.kspace, shape=(1, 1, 48, width))
    for left, right in ((0, 28), (4, width), (0, width)):
        cut = replace(volume, kspace=layout, padding_left=left, padding_right=right)
        kspace = np.zeros((1, 1, 48, width), np.complex64)
        kspace[..., left:right] = 1 + np.arange(right - left)
        changed, _ = Transform(columns=True).apply(kspace, RECON, target=False)
        there = np.abs(changed).max((0, 1, 2)) > 1e-3
        first, end = Transform(columns=True).volume(cut).acquired
        assert there[first:end].all()
        assert there.sum() - there[first:end].sum() == (width == 32 and left == 0 and right < 32)
