"""A few small volumes in fastMRI's format, made in a moment; a network; its results."""

import h5py
import numpy as np
import pytest
import torch
from fastmri import fft2c, rss_complex
from fastmri.data.transforms import complex_center_crop, to_tensor
from fastmri.models import VarNet as ReferenceVarNet

from workbench.recon import reconstruction
from workbench.recon.orders import begin
from workbench.recon.results import Results
from workbench.recon.training import Training  # noqa: F401  (warns while it is imported)
from workbench_demo.phantom.writing import write_volume


def make_volume(path, seed, *, slices=3, coils=3, matrix=(48, 32), recon=(24, 24), target=True):
    """Write smooth random coil images with noise as one volume; return its path."""
    rng = np.random.default_rng(seed)
    height, width = matrix
    rows, columns = np.meshgrid(
        np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"
    )
    images = np.zeros((slices, coils, height, width), complex)
    for number in range(slices):
        shape = (np.hypot(2 * rows, columns) < 0.8) * (
            1 + 0.5 * np.sin(9 * columns + seed + number)
        )
        for coil in range(coils):
            angle = 2 * np.pi * coil / coils
            falloff = np.exp(-(np.hypot(rows - np.cos(angle), columns - np.sin(angle)) ** 2))
            images[number, coil] = shape * falloff * np.exp(1j * (coil + columns))
    images += 0.02 * (rng.normal(size=images.shape) + 1j * rng.normal(size=images.shape))
    kspace = fft2c(to_tensor(images * 1e-4))
    truth = rss_complex(complex_center_crop(to_tensor(images * 1e-4), recon), dim=1).numpy()
    return write_volume(
        path,
        kspace=kspace.numpy()[..., 0].astype(np.float32)
        + 1j * kspace.numpy()[..., 1].astype(np.float32),
        target=truth.astype(np.float32) if target else None,
        recon=recon,
        acquisition="AXT2",
        patient_id=str(seed),
    )


@pytest.fixture(scope="session")
def study(tmp_path_factory):
    """A dataset of 3 training and 2 validation volumes, of two shapes."""
    root = tmp_path_factory.mktemp("study")
    for number in range(3):
        coils = 3 if number < 2 else 2
        make_volume(root / f"multicoil_train/file{number}.h5", number, coils=coils)
    for number in (10, 11):
        make_volume(root / f"multicoil_val/file{number}.h5", number, slices=number - 7)
    return root


@pytest.fixture(scope="session")
def single(tmp_path_factory):
    """A single-coil dataset of 2 training volumes and a validation volume."""
    root = tmp_path_factory.mktemp("knee_singlecoil")
    for number, split in enumerate(("train", "train", "val")):
        with h5py.File(make_volume(root / f"{number}.h5", number, coils=1)) as file:
            kspace, target = file["kspace"][:, 0], file["reconstruction_rss"][:]
        (root / f"{number}.h5").unlink()
        write_volume(
            root / f"singlecoil_{split}/file{number}.h5",
            kspace=kspace,
            target=target,
            acquisition="CORPD_FBK",
            patient_id="1",
        )
    return root


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return tmp_path


TINY = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}
SMALL = {"num_cascades": 2, "chans": 3, "pools": 2, "sens_chans": 2, "sens_pools": 1}


@pytest.fixture
def released(tmp_path):
    """Weights as fastMRI releases them: the state dict of its own network."""
    torch.manual_seed(0)
    network = ReferenceVarNet(**SMALL).eval()
    torch.save(network.state_dict(), tmp_path / "released.pt")
    return network, tmp_path / "released.pt"


def made(plan):
    """Reconstruct in this process: torchrun would take longer than the work."""
    begin(plan.order, plan.cache, plan.folder)
    reconstruction.reconstruct(plan.order, plan.folder)
    return Results(plan.folder)


def noise(*shape, seed=0):
    """Complex noise, complex64."""
    values = np.random.default_rng(seed).normal(size=(*shape, 2))
    return values.astype(np.float32).view(np.complex64)[..., 0]
