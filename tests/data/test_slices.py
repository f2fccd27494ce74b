"""Slices, masks and order: equal to fastMRI's transform, and a function of seed and epoch."""

import itertools
import shutil
from contextlib import suppress
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from fastmri.data import SliceDataset as ReferenceDataset
from fastmri.data.subsample import create_mask_for_mask_type
from fastmri.data.transforms import VarNetDataTransform
from torch.utils.data import DataLoader

from tests.data.far import far
from workbench.data.cache import build_cache
from workbench.data.loading import TrainingBatches, slices_of_rank
from workbench.data.masks import draw_mask, mask_of
from workbench.data.reading import read_kspace
from workbench.data.sampling import MASKS, Sampling, numbers, seed_of_file
from workbench.data.slices import SliceDataset, collate
from workbench_demo.phantom.writing import write_volume

KINDS = [(mask, rate) for mask in MASKS for rate in (4, 8)]


def complex_noise(rng, *shape):
    return rng.normal(size=(*shape, 2)).astype(np.float32).view(np.complex64)[..., 0]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Volumes that are contiguous, chunked and compressed, padded, and with masks of their own."""
    root = tmp_path_factory.mktemp("slices")
    rng = np.random.default_rng(0)
    kinds = {
        "multicoil_val/plain.h5": {},
        "multicoil_val/chunked.h5": {"chunks": True, "compression": "gzip"},
        "multicoil_val/padded.h5": {"acquired": (5, 31)},
        "multicoil_test/own.h5": {"mask": np.arange(37) % 3 == 0},
        "multicoil_test/own_padded.h5": {"mask": np.arange(37) % 2 == 0, "acquired": (5, 31)},
    }
    for path, extra in kinds.items():
        kspace = complex_noise(rng, 3, 2, 24, 37)
        left, right = extra.get("acquired", (0, 37))
        kspace[..., :left] = kspace[..., right:] = 0
        kspace = kspace * extra.get("mask", np.ones(37, bool))
        target = None if "mask" in extra else np.abs(rng.normal(size=(3, 12, 12)))
        write_volume(
            root / path,
            kspace=kspace.astype(np.complex64),
            target=None if target is None else target.astype(np.float32),
            recon=(12, 12),
            acquisition="AXT2",
            patient_id=path,
            **extra,
        )
    return root


def assert_same(sample, expected):
    assert torch.equal(sample.masked_kspace, expected.masked_kspace)
    assert torch.equal(sample.mask.flatten(), expected.mask.flatten())
    assert sample.mask.shape == expected.mask.shape
    assert sample.num_low_frequencies == expected.num_low_frequencies
    assert torch.equal(sample.target, expected.target)
    assert (sample.fname, sample.slice_num) == (expected.fname, expected.slice_num)
    assert sample.max_value == pytest.approx(expected.max_value, rel=1e-7)
    assert sample.crop_size == tuple(expected.crop_size)


@pytest.mark.parametrize(("mask", "rate"), KINDS)
def test_samples_equal_fastmris_transform(root, mask, rate):
    function = create_mask_for_mask_type(mask, [0.08], [rate])
    reference = ReferenceDataset(root / "multicoil_val", "multicoil", VarNetDataTransform(function))
    expected = {(sample.fname, sample.slice_num): sample for sample in reference}
    cache = build_cache(root).split("val")
    ours = SliceDataset(cache, Sampling(mask, (rate,), (0.08,)))
    assert len(ours) == len(expected) == 9
    for sample in ours:
        assert_same(sample, expected[sample.fname, sample.slice_num])


PAIR = np.dtype([("real", "<f8"), ("imag", "<f8")])


@pytest.mark.parametrize(
    ("number", "real"),
    [(">c8", ">f4"), ("<c16", "<f8"), (">c16", ">f8"), (PAIR, "<f4"), ("<c8", "<f2")],
    ids=str,
)
@pytest.mark.parametrize("storage", [{}, {"chunks": True, "compression": "gzip"}])
def test_numbers_of_other_types_are_read_as_those_of_fastmri(root, tmp_path, number, real, storage):
    path = tmp_path / "multicoil_val/plain.h5"
    path.parent.mkdir()
    shutil.copy(root / "multicoil_val/plain.h5", path)
    with h5py.File(path, "r+") as file:
        kspace, target = file["kspace"][()], file["reconstruction_rss"][()].astype(real)
        del file["kspace"], file["reconstruction_rss"]
        as_written = kspace.astype(np.complex128).view(PAIR) if number is PAIR else kspace
        file.create_dataset("kspace", data=as_written.astype(number), **storage)
        file.create_dataset("reconstruction_rss", data=target, **storage)
    written = build_cache(root)
    plain = SliceDataset(
        written.with_volumes(v for v in written if v.name == "plain.h5"), Sampling()
    )
    cache = build_cache(tmp_path)
    volumes = cache.volumes
    assert (volumes[0].kspace.offset is None) is bool(storage)
    for other in (SliceDataset(cache, Sampling()), SliceDataset(far(cache), Sampling())):
        assert len(plain) == len(other) == 3
        for number_of_slice, (one, expected) in enumerate(zip(other, plain, strict=True)):
            rounded = torch.from_numpy(target[number_of_slice].astype(np.float32))
            assert_same(one, expected._replace(target=rounded))
    assert np.array_equal(read_kspace(path, volumes[0], 0), kspace[0])
    assert np.array_equal(read_kspace(path, volumes[0], 2, 1), kspace[2, 1])


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("rate", [1.5, 2, 4, 5.5, 12, 50])
def test_where_every_width_is_said_to_be_possible_fastmri_draws_a_mask(mask, rate):
    failed = False
    for fraction in (0.001, 0.08, 0.25, 0.99):
        with suppress(ValueError):  # refused at any width
            sampling = Sampling(mask, (rate,), (fraction,))
            for width in (*range(7, 30), 107, 368):
                try:
                    draw_mask(sampling, width, 0)
                except (ValueError, ZeroDivisionError):
                    failed = True
            assert not (failed and sampling.always_possible)


def test_several_accelerations_are_drawn_as_fastmri_draws_them(root):
    sampling = Sampling("random", (4, 8), (0.08, 0.04))
    function = create_mask_for_mask_type("random", [0.08, 0.04], [4, 8])
    drawn = set()
    for number in range(20):
        seed = seed_of_file(f"file{number}.h5")
        mask, low = draw_mask(sampling, 64, seed)
        expected, expected_low = function((1, 64, 2), None, seed)
        assert np.array_equal(mask, expected.numpy().ravel() > 0)
        assert low == expected_low
        drawn.add(low)
    assert len(drawn) == 2


def test_own_mask_of_test_volumes_equals_fastmris(root):
    reference = ReferenceDataset(root / "multicoil_test", "multicoil", VarNetDataTransform())
    ours = SliceDataset(build_cache(root).split("test"), None)
    for sample, expected in zip(ours, reference, strict=True):
        assert_same(sample, expected)


@pytest.mark.parametrize("far_away", [False, True])
@pytest.mark.parametrize("storage", [{}, {"chunks": True, "compression": "gzip"}])
@pytest.mark.parametrize("acquired", [(0, 37), (5, 31)])
def test_own_mask_is_applied_to_full_kspace(tmp_path, far_away, storage, acquired):
    """What full k-space beside a mask gives is what fastMRI makes of the undersampled file."""
    full = complex_noise(np.random.default_rng(1), 2, 3, 24, 37)
    full[..., : acquired[0]] = full[..., acquired[1] :] = 0
    mask = np.arange(37) % 3 == 0
    target = np.ones((2, 12, 12), np.float32)
    known = {"target": target, "acquisition": "AXT2", "patient_id": "1", "acquired": acquired}
    for folder, kspace in (("full", full), ("undersampled", full * mask)):
        path = tmp_path / folder / "multicoil_val/file1.h5"
        write_volume(path, kspace=kspace.astype(np.complex64), mask=mask, **known, **storage)
    expected = ReferenceDataset(
        tmp_path / "undersampled/multicoil_val", "multicoil", VarNetDataTransform()
    )
    for folder in ("full", "undersampled"):
        root = tmp_path / folder
        cache = build_cache(root)
        ours = SliceDataset(far(cache) if far_away else cache, None)
        for sample, reference in zip(ours, expected, strict=True):
            assert_same(sample, reference)


@pytest.mark.parametrize("undersampled", [False, True])
def test_drawn_mask_samples_nothing_that_the_file_never_measured(tmp_path, undersampled):
    kspace = complex_noise(np.random.default_rng(1), 2, 3, 24, 36)
    own = np.arange(36) % 3 == 0
    write_volume(
        tmp_path / "multicoil_val/file1.h5",
        kspace=(kspace * own if undersampled else kspace).astype(np.complex64),
        target=np.ones((2, 12, 12), np.float32),
        acquisition="AXT2",
        patient_id="1",
        mask=own,
    )
    sampling = Sampling("equispaced", (2,), (0.2,))
    cache = build_cache(tmp_path)
    drawn, low = mask_of(cache.volumes[0], sampling)
    sample = SliceDataset(cache, sampling)[0]
    assert np.array_equal(sample.mask.flatten(), drawn & own if undersampled else drawn)
    assert sample.num_low_frequencies == (0 if undersampled else low)
    assert np.array_equal(
        torch.view_as_complex(sample.masked_kspace)[..., drawn].any((0, 1)),
        own[drawn] if undersampled else np.ones(drawn.sum(), bool),
    )


def test_volume_without_mask_needs_a_sampling(root):
    with pytest.raises(ValueError, match="has no mask of its own: give mask and acceleration"):
        SliceDataset(build_cache(root).split("val"), None)


@pytest.mark.parametrize("mask", ["equispaced", "magic"])
def test_fractional_acceleration_samples_as_many_lines(mask):
    found, _ = draw_mask(Sampling(mask, (3.5,), (0.01,)), 350, 1)
    assert found.sum() == pytest.approx(100, abs=6)


def test_acceleration_of_one_samples_all():
    assert draw_mask(Sampling("equispaced", (1,), (0.08,)), 40, 1)[0].all()


def test_padding_outside_of_kspace_leaves_the_mask_alone(root):
    volume = replace(build_cache(root).split("val").volumes[0], padding_left=-1, padding_right=99)
    assert volume.acquired == (0, 37)
    mask = SliceDataset(build_cache(root).with_volumes([volume]), Sampling())[0].mask
    assert mask.sum() >= 37 // 4


def test_training_masks_change_with_epoch_and_slice_and_come_again(root):
    volumes = build_cache(root).split("val")
    ours = SliceDataset(volumes, Sampling("random", (4,), (0.08,)), seed=7)
    masks = {
        (index, epoch): ours[(index, epoch)].mask.flatten()
        for index in range(3)
        for epoch in range(3)
    }
    assert len({tuple(mask.tolist()) for mask in masks.values()}) == 9
    again = SliceDataset(volumes, Sampling("random", (4,), (0.08,)), seed=7)
    assert torch.equal(again[(1, 2)].mask.flatten(), masks[1, 2])


def test_nothing_draws_from_the_global_random_state(root):
    np.random.seed(0)  # noqa: NPY002  the state that must not be touched
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    volumes = build_cache(root).split("val")
    ours = SliceDataset(volumes, Sampling(), seed=1).sampled(0.5, 3)
    list(TrainingBatches(ours, 1, 0))
    _ = ours[0]
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_sampled_slices_are_a_seeded_share(root):
    ours = SliceDataset(build_cache(root).split("val"), Sampling())
    half = ours.sampled(0.5, 3)
    assert len(half) == 4
    assert half.slices == ours.sampled(0.5, 3).slices != ours.sampled(0.5, 4).slices
    assert set(half.slices) < set(ours.slices)


def test_slices_from_far_away_equal_those_from_disk_with_two_requests_where_offsets_are_known(root):
    cache = build_cache(root).split("val")
    near, away = SliceDataset(cache, Sampling()), SliceDataset(far(cache), Sampling())
    for one, other in zip(away.sampled(0.9, 1), near.sampled(0.9, 1), strict=True):
        assert_same(one, other)
    requests = away.cache.store.requests
    assert requests["multicoil_val/plain.h5"] <= 2 * 3
    assert requests["multicoil_val/padded.h5"] <= 2 * 3


@pytest.fixture
def slices(root):
    """Nine slices of two shapes."""
    cache = build_cache(root).split("val")
    first, second, third = cache
    fewer = replace(second.kspace, shape=(3, 1, 24, 37))
    volumes = (first, replace(second, kspace=fewer), third)
    return SliceDataset(cache.with_volumes(volumes), Sampling(), seed=0)


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_ranks_share_an_epoch_in_equal_numbers_of_batches_of_one_shape(slices, ranks, batch_size):
    samplers = [TrainingBatches(slices, batch_size, 5, rank, ranks) for rank in range(ranks)]
    batches = [list(sampler) for sampler in samplers]
    assert {len(part) for part in batches} == {len(samplers[0])}
    for part in batches:
        for batch in part:
            assert len({slices.shape(item[0]) for item in batch}) == 1
    assert {item[0] for part in batches for batch in part for item in batch} == set(range(9))


def test_the_ranks_of_a_step_get_slices_of_like_cost_in_another_order_each_epoch(slices):
    samplers = [TrainingBatches(slices, 1, 5, rank, 3) for rank in range(3)]
    epochs = []
    for epoch in range(6):
        for sampler in samplers:
            sampler.set_epoch(epoch)
        epochs.append([[item[0] for [item] in step] for step in zip(*samplers, strict=True)])
    costs = [[[slices.values(index) for index in step] for step in steps] for steps in epochs]
    for of_epoch in costs:
        assert all(max(low) <= min(high) for low, high in itertools.pairwise(sorted(of_epoch)))
    assert any(of_epoch != sorted(of_epoch) for of_epoch in costs)
    assert len({tuple(sorted(map(tuple, map(sorted, steps)))) for steps in epochs}) > 1


def test_order_changes_with_the_epoch_and_goes_on_where_it_was(slices):
    whole = TrainingBatches(slices, 1, 5)
    epochs = []
    for epoch in range(2):
        whole.set_epoch(epoch)
        epochs.append(list(whole))
    assert epochs[0] != epochs[1]
    resumed = TrainingBatches(slices, 1, 5, start=4)
    resumed.set_epoch(0)
    assert list(resumed) == epochs[0][4:]
    assert len(resumed) == 9
    resumed.set_epoch(1)
    assert list(resumed) == epochs[1]


@pytest.mark.parametrize("ranks", [1, 2, 3, 10])
def test_every_slice_is_evaluated_on_exactly_one_rank(slices, ranks):
    shares = [list(slices_of_rank(slices, rank, ranks)) for rank in range(ranks)]
    assert sorted(index for share in shares for index in share) == list(range(9))


def test_batch_of_several_slices_is_stacked(root):
    ours = SliceDataset(build_cache(root).split("val"), Sampling())
    batch = next(iter(DataLoader(ours, batch_size=3, collate_fn=collate)))
    assert batch.masked_kspace.shape == (3, 2, 24, 37, 2)
    assert batch.mask.shape == (3, 1, 1, 37, 1)
    assert batch.num_low_frequencies.tolist() == [3, 3, 3]
    assert batch.max_value.dtype == torch.float32


@pytest.mark.parametrize("batch_size", [1, 3])
def test_batches_of_loader_processes_hold_the_same_values(root, batch_size):
    ours = SliceDataset(build_cache(root).split("val"), Sampling())
    here, there = (
        list(DataLoader(ours, batch_size, collate_fn=collate, num_workers=workers))
        for workers in (0, 1)
    )
    for one, other in zip(here, there, strict=True):
        assert other.masked_kspace.shape[0] == batch_size
        assert torch.equal(one.masked_kspace, other.masked_kspace)
        assert torch.equal(one.target, other.target)
        assert other.masked_kspace.is_shared()


@pytest.mark.parametrize(
    ("value", "expected"), [(4, (4.0,)), ("4", (4.0,)), ("4, 8", (4.0, 8.0)), ([4, 8], (4.0, 8.0))]
)
def test_one_number_or_several_are_read(value, expected):
    assert numbers("acceleration", value) == expected


def test_slice_that_was_never_written_is_named_and_an_empty_one_is_not(tmp_path):
    kspace = complex_noise(np.random.default_rng(0), 3, 2, 24, 37)
    target = np.ones((3, 12, 12), np.float32)
    kspace[1:] = target[2] = 0
    path = write_volume(
        tmp_path / "multicoil_train/file1.h5",
        kspace=kspace,
        target=target,
        recon=(12, 12),
        acquisition="AXT2",
        patient_id="a",
    )
    data = SliceDataset(build_cache(tmp_path), Sampling())
    assert not data[2].masked_kspace.any()
    with pytest.raises(ValueError, match=rf"slice 1 of kspace in {path} holds nothing but zeros"):
        data[1]
