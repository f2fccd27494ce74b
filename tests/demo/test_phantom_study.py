import hashlib
import importlib.util
import socket
import subprocess
import sys

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset
from fastmri.data.subsample import EquiSpacedMaskFunc
from fastmri.data.transforms import VarNetDataTransform, center_crop
from fastmri.evaluate import ssim
from ismrmrd import xsd

from workbench_demo.phantom.study import plan_study, write_study

SMALL = {"recon": 64, "slices": 2, "coils": (4, 3), "workers": 1}


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    root = tmp_path_factory.mktemp("brain_multicoil")
    write_study(root, "brain_multicoil", volumes={"train": 5, "test": 2}, odd_flair=1, **SMALL)
    return root


@pytest.fixture(scope="module")
def knee(tmp_path_factory):
    root = tmp_path_factory.mktemp("knee_singlecoil")
    write_study(root, "knee_singlecoil", volumes={"val": 2}, **SMALL)
    return root


def images_of(kspace):
    axes = (-2, -1)
    shifted = np.fft.ifft2(np.fft.ifftshift(kspace, axes=axes), norm="ortho")
    return np.fft.fftshift(shifted, axes=axes)


def digests(paths):
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_folders_and_names_are_fastmri_s(brain, knee):
    names = sorted(str(path.relative_to(brain)) for path in brain.rglob("*.h5"))
    assert len(names) == 7
    assert names[0] == "multicoil_test/file_brain_AXFLAIR_201_6004001.h5"
    assert names[2] == "multicoil_train/file_brain_AXFLAIR_201_6002001.h5"
    knees = sorted(str(path.relative_to(knee)) for path in knee.rglob("*.h5"))
    assert knees == ["singlecoil_val/file1001000.h5", "singlecoil_val/file1001001.h5"]


def test_acquisitions_widths_and_coil_counts_vary(brain):
    seen = set()
    for path in (brain / "multicoil_train").iterdir():
        with h5py.File(path) as file:
            _, coils, height, width = file["kspace"].shape
            assert height == 128
            seen.add((file.attrs["acquisition"], coils, width))
    acquisitions, coils, widths = (set(column) for column in zip(*seen, strict=True))
    assert acquisitions == {"AXT2", "AXFLAIR", "AXT1POST", "AXT1", "AXT1PRE"}
    assert coils == {3, 4}
    assert len(widths) >= 3


def test_target_is_the_rss_of_the_cropped_images(brain):
    for path in (brain / "multicoil_train").iterdir():
        with h5py.File(path) as file:
            kspace, target = file["kspace"][()], file["reconstruction_rss"][()]
            assert file.attrs["max"] == target.max()
            assert file.attrs["norm"] == pytest.approx(np.linalg.norm(target), rel=1e-5)
            assert file.attrs["synthetic"]
            assert "ynthetic" in file.attrs["notice"]
        top, left = ((a - b) // 2 for a, b in zip(kspace.shape[-2:], target.shape[1:], strict=True))
        cropped = images_of(kspace)[..., top : top + target.shape[1], left : left + target.shape[2]]
        rss = np.sqrt((np.abs(cropped) ** 2).sum(axis=1))
        np.testing.assert_allclose(rss, target, atol=1e-5 * target.max())
        assert 1e-5 < target.max() < 1e-2


def test_single_coil_target_is_the_magnitude(knee):
    for path in knee.rglob("*.h5"):
        with h5py.File(path) as file:
            kspace, target = file["kspace"][()], file["reconstruction_esc"][()]
        assert kspace.ndim == 3
        left = (kspace.shape[-1] - 64) // 2
        magnitude = np.abs(images_of(kspace))[:, 32:96, left : left + 64]
        np.testing.assert_allclose(magnitude, target, atol=1e-5 * target.max())


def test_padding_columns_are_zero_and_match_the_header(brain):
    padded = 0
    for path in brain.rglob("multicoil_train/*.h5"):
        with h5py.File(path) as file:
            kspace = file["kspace"][()]
            encoding = xsd.CreateFromDocument(file["ismrmrd_header"][()]).encoding[0]
        limits = encoding.encodingLimits.kspace_encoding_step_1
        left = encoding.encodedSpace.matrixSize.y // 2 - limits.center
        right = left + limits.maximum + 1
        sampled = np.abs(kspace).sum(axis=(0, 1, 2)) > 0
        assert (np.flatnonzero(sampled)[[0, -1]] == (left, right - 1)).all()
        assert sampled[left:right].all()
        padded += kspace.shape[-1] - (right - left)
    assert padded > 0


def test_odd_flair_is_narrower_than_its_matrix(brain):
    with h5py.File(brain / "multicoil_train/file_brain_AXFLAIR_201_6002001.h5") as file:
        header = xsd.CreateFromDocument(file["ismrmrd_header"][()])
        assert file["kspace"].shape == (2, 4, 128, 53)
        assert file["reconstruction_rss"].shape == (2, 53, 53)
        assert header.encoding[0].reconSpace.matrixSize.y == 64
        assert header.sequenceParameters.TI == [2500.0]


def test_test_volumes_hold_a_mask_and_zeros_where_it_is(brain):
    accelerations = []
    for path in sorted((brain / "multicoil_test").iterdir()):
        with h5py.File(path) as file:
            mask, kspace = file["mask"][()], file["kspace"][()]
            assert "reconstruction_rss" not in file
            accelerations.append(int(file.attrs["acceleration"]))
            low = int(file.attrs["num_low_frequency"])
        assert mask.shape == kspace.shape[-1:]
        assert not kspace[..., ~mask].any()
        start = (len(mask) - low + 1) // 2
        assert mask[start : start + low].all()
    assert sorted(accelerations) == [4, 8]


@pytest.mark.parametrize("split", ["train", "test"])
def test_fastmri_s_transform_reads_every_slice(brain, split):
    masks = EquiSpacedMaskFunc([0.08], [4]) if split == "train" else None
    samples = SliceDataset(
        brain / f"multicoil_{split}", "multicoil", VarNetDataTransform(masks), False
    )
    assert len(samples) == (10 if split == "train" else 4)
    for sample in samples:
        assert sample.masked_kspace.isfinite().all()
        assert sample.mask.sum() > 0
        assert sample.masked_kspace.abs().amax(dim=(-3, -1))[0].max() > 0
        assert (sample.masked_kspace.abs().sum(dim=(1, 2, 3)) > 0).all(), "a coil is all zero"


@pytest.mark.parametrize("dataset", ["brain_multicoil", "knee_multicoil"])
def test_zero_filled_images_leave_much_to_reconstruct(tmp_path, dataset):
    paths = write_study(
        tmp_path, dataset, volumes={"val": 2}, recon=128, slices=2, coils=(6,), workers=1
    )
    for path in paths:
        with h5py.File(path) as file:
            kspace, target = file["kspace"][()], file["reconstruction_rss"][()]
        width = kspace.shape[-1]
        mask = np.arange(width) % 4 == 0
        low = round(0.08 * width)
        mask[(width - low + 1) // 2 :][:low] = True
        images = center_crop(np.abs(images_of(kspace * mask)), (128, 128))
        zero_filled = np.sqrt((images**2).sum(axis=1))
        similarity = ssim(target, zero_filled, target.max()).item()
        assert 0.35 < similarity < 0.8
        # Detail worth reconstructing: the image is not a smooth blob.
        assert np.abs(np.diff(target, axis=-1)).mean() > 0.01 * target.max()


def test_same_seed_gives_the_same_files_whatever_the_workers(tmp_path):
    small = {**SMALL, "recon": 32, "volumes": {"train": 1, "val": 1}}
    first = write_study(tmp_path / "a", "brain_multicoil", **small)
    second = write_study(tmp_path / "b", "brain_multicoil", **{**small, "workers": 2})
    assert digests(first) == digests(second)
    other = write_study(tmp_path / "c", "brain_multicoil", **small, seed=1)
    assert set(digests(other)).isdisjoint(digests(first))
    assert len(set(digests(first))) == 2


def test_second_run_keeps_what_is_there_and_remakes_what_another_plan_made(tmp_path):
    small = {**SMALL, "recon": 48, "volumes": {"val": 1}}
    [path] = write_study(tmp_path, "knee_multicoil", **small)
    made = path.stat().st_mtime_ns
    write_study(tmp_path, "knee_multicoil", **small)
    assert path.stat().st_mtime_ns == made
    write_study(tmp_path, "knee_multicoil", **{**small, "recon": 32})
    with h5py.File(path) as file:
        assert file["reconstruction_rss"].shape == (2, 32, 32)


def test_nothing_goes_over_the_network(tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the phantom opened a socket")

    from workbench_demo.phantom.atlas import atlas

    atlas.cache_clear()
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    write_study(tmp_path, "brain_multicoil", volumes={"val": 1}, **SMALL)


def test_missing_atlas_is_said_in_one_line(monkeypatch):
    from workbench_demo.phantom.atlas import atlas

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r'^[^\n]*pip install -e "\.\[demo\]"$'):
        atlas.__wrapped__()


def test_importing_the_study_loads_nothing_heavy():
    code = (
        "import sys, workbench_demo.phantom.study\n"
        "heavy = {'scipy', 'h5py', 'nibabel', 'nilearn', 'torch', 'ismrmrd'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("dataset", "options", "said"),
    [
        ("knee_DICOMs", {}, "knee_DICOMs"),
        ("spleen", {}, "spleen"),
        ("brain_multicoil", {"acquisitions": ("CORPD_FBK",)}, "for a brain give some of"),
        ("brain_multicoil", {"volumes": {"training": 1}}, "training"),
        ("brain_multicoil", {"recon": 8}, "recon=8"),
        ("brain_multicoil", {"coils": ()}, r"coils=\(\)"),
        ("brain_multicoil", {"snr": 0}, "snr=0"),
        ("brain_multicoil", {"widths": (0.5,)}, r"widths=\(0.5,\)"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, dataset, options, said):
    with pytest.raises(ValueError, match=said):
        plan_study(tmp_path, dataset, **{"volumes": {"train": 1}, **options})
