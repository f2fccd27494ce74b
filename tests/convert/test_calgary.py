"""Calgary-Campinas: files of the published form, synthesised from a known image."""

import h5py
import numpy as np
import pytest

from tests.convert.reading import converted, kspace_of, only_scan, refusal
from tests.convert.test_arrays import images
from workbench.convert.plan import Ask, plan_conversion
from workbench.convert.readers import READERS
from workbench.convert.run import convert
from workbench.convert.scan import Choices, RefusedError
from workbench.data.cache import open_cache

COILS, SLICES = 12, 3


def write(path, matrix=(36, 40), measured=0.85, change=None, strength=1):
    """Write a file in Calgary-Campinas's form; return its k-space (x, coils, y, z)."""
    height, width = matrix
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    body = (np.hypot(1.6 * y - 0.2, 1.3 * x) < 0.8) * (1 + 0.4 * np.sin(9 * x + 7 * y))
    heard = [np.exp(-np.hypot(y - np.cos(c), x - np.sin(c)) + 1j * c) for c in range(COILS)]
    images = np.stack([(1 + number) * body * np.stack(heard) for number in range(SLICES)])
    # The object stands in the middle of an FFT without shifts, and k-space's centre in the middle.
    kspace = np.fft.fftshift(np.fft.fft2(images, norm="ortho"), axes=(-2, -1))
    kspace *= 1e6 * strength
    kspace[..., int(np.ceil(measured * width)) :] = 0
    if change:
        change(kspace)
    stored = np.zeros((SLICES, height, width, 2 * COILS), np.float32)
    stored[..., 0::2] = kspace.real.transpose(0, 2, 3, 1)
    stored[..., 1::2] = kspace.imag.transpose(0, 2, 3, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = stored
    return kspace


@pytest.mark.parametrize("choice", [{"whiten": True}, {"recon": (20, 20)}, {"center": 0}])
def test_choice_that_would_change_nothing_is_refused(tmp_path, choice):
    write(tmp_path / "e1s3_P1.7.h5")
    reason = f"is a Calgary-Campinas file, whose {next(iter(choice))} cannot be chosen"
    assert reason in refusal(tmp_path / "e1s3_P1.7.h5", Choices(**choice))


@pytest.mark.parametrize("matrix", [(36, 40), (35, 41)])
def test_pairs_become_a_volume_whose_image_is_that_of_a_plain_fft(tmp_path, matrix):
    kspace = write(tmp_path / "Train/e13991s3_P01536.7.h5", matrix)
    write(tmp_path / "Val/e14078s3_P05120.7.h5", matrix, strength=2)
    plan = plan_conversion(Ask(tmp_path, tmp_path / "made", tmp_path / "private", scale=1e-10))
    assert plan.refusals == ()
    assert list(convert(plan)) == []
    made = open_cache(tmp_path / "made")
    assert made.counts == {"train": (1, SLICES), "val": (1, SLICES)}
    (volume,) = made.split("train")
    expected = np.sqrt((np.abs(np.fft.ifft2(kspace, norm="ortho")) ** 2).sum(1)) * 1e-10
    with h5py.File(made.file(volume)) as file:
        np.testing.assert_allclose(
            file["reconstruction_rss"][()], expected, rtol=0, atol=1e-5 * expected.max()
        )
        values = file["kspace"][()]
    end = int(np.ceil(0.85 * matrix[1]))
    assert volume.acquired == (0, end)
    assert not values[..., end:].any()
    middle = np.abs(values).sum((0, 1))
    assert np.unravel_index(middle.argmax(), matrix) == (matrix[0] // 2, matrix[1] // 2)
    assert {item.scan.person for item in plan.items} == {"calgary e13991", "calgary e14078"}


def test_what_was_measured_up_to_the_end_stays(tmp_path):
    kspace = write(tmp_path / "e1s3_P1.7.h5", measured=1)
    scan = only_scan(tmp_path / "e1s3_P1.7.h5")
    assert (scan.header.lines, scan.target) == (40, True)
    (values,) = scan.read((1,))
    np.testing.assert_allclose(np.abs(values), np.abs(kspace[1]), rtol=1e-4, atol=1)


def test_missing_columns_leave_a_mask_and_no_target(tmp_path):
    def change(kspace):
        kspace[..., 1:12:2] = 0

    write(tmp_path / "e1s3_P1.7.h5", change=change)
    scan = only_scan(tmp_path / "e1s3_P1.7.h5")
    assert not scan.target
    assert np.flatnonzero(~scan.sampled).tolist() == [1, 3, 5, 7, 9, 11, *range(34, 40)]


def test_samples_that_are_missing_along_both_axes_are_refused(tmp_path):
    def change(kspace):
        kspace *= np.random.default_rng(0).random(kspace.shape[-2:]) < 0.2

    write(tmp_path / "e1s3_P1.7.h5", change=change)
    with pytest.raises(RefusedError, match="is undersampled along both phase encodes"):
        only_scan(tmp_path / "e1s3_P1.7.h5")


def test_pairs_are_known_by_the_published_size_whatever_the_name(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("kspace", (256, 218, 170, 64), np.float32)
    assert READERS["calgary"].holds(tmp_path / "a.h5")


def test_other_real_numbers_of_such_a_shape_are_no_pairs(tmp_path):
    """Such as all real parts of 12 coils, and then all imaginary ones."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["kspace"] = np.ones((3, 48, 35, 24), np.float32)
    assert "it holds kspace (3x48x35x24, real)" in refusal(tmp_path / "a.h5")


@pytest.mark.parametrize("coils", [1, 2])
def test_array_whose_axes_a_person_names_is_known_by_no_shape(tmp_path, coils):
    """The last axis had been pairs of 32 coils; of two coils it had been a radial scan."""
    names = ("slice", "coil", "readout", "phase")
    kspace = kspace_of(images(64 if coils == 1 else 3, coils))
    stored = np.stack([kspace.real, kspace.imag]).astype(np.float32)
    axes = ["complex", *names]
    if coils == 1:
        stored, axes = stored[:, :, 0].transpose(0, 2, 3, 1), ["complex", *names[2:], "slice"]
    with h5py.File(tmp_path / "e1s3_P1.7.h5", "w") as file:
        file["kspace"] = stored
    _, found = converted(tmp_path / "e1s3_P1.7.h5", Choices(axes=tuple(axes)))
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-5)


def test_radial_scans_of_the_breast_are_refused_by_their_form(tmp_path):
    with h5py.File(tmp_path / "fastMRI_breast_001_1.h5", "w") as file:
        file["kspace"] = np.zeros((2, 288, 64, 4, 3), np.float32)
    with pytest.raises(RefusedError, match=r"is a radial scan.* of 288 spokes with 64 samples"):
        only_scan(tmp_path / "fastMRI_breast_001_1.h5")
