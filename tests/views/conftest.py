"""Results of a network that never learned anything, on a few small volumes that have an up."""

import numpy as np
import pytest
import torch

from workbench.data.images import centered_fft2, zero_filled
from workbench.data.volume import ArrayLayout, Volume
from workbench.models import VarNet
from workbench.recon.asked import Order
from workbench.recon.orders import begin
from workbench.recon.reconstruction import reconstruct_share
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.results import Result, Results
from workbench.recon.training import Training  # noqa: F401  (warns while it is imported)
from workbench.recon.weights import load_network
from workbench_demo.phantom.writing import write_volume

MATRIX, RECON, ACQUIRED = (64, 40), (32, 32), (2, 39)


def body(number):
    """An object (H, W), bright in its last rows, which are on top of the patient."""
    rows, columns = (np.linspace(-1, 1, size) for size in MATRIX)
    distance = np.hypot(2.2 * rows[:, None], 1.5 * columns)
    shape = (distance < 0.9 - 0.05 * number) * (1 + 0.3 * np.sin(12 * columns))
    return shape * (1 + 0.8 * (rows[:, None] > 0.15))


def write(path, acquisition, *, slices=3, coils=2, own_mask=False, **more):
    kspace = np.zeros((slices, coils, *MATRIX), np.complex64)
    columns = np.linspace(-1, 1, MATRIX[1])
    random = np.random.default_rng(slices)
    for number in range(slices):
        for coil in range(coils):
            heard = np.exp(-((columns - np.cos(np.pi * coil)) ** 2) + 1j * (columns + coil))
            noise = random.normal(size=MATRIX) + 1j * random.normal(size=MATRIX)
            image = body(number) * heard + 0.01 * noise
            kspace[number, coil] = centered_fft2((1e-4 * image).astype(np.complex64))
    kspace[..., : ACQUIRED[0]] = kspace[..., ACQUIRED[1] :] = 0
    mask = np.arange(MATRIX[1]) % 3 == 0
    mask[18:23] = True
    return write_volume(
        path,
        kspace=kspace * mask if own_mask else kspace,
        target=None if own_mask else np.stack([zero_filled(part, RECON) for part in kspace]),
        recon=RECON,
        acquired=ACQUIRED,
        acquisition=acquisition,
        patient_id="0123",
        mask=mask if own_mask else None,
        **more,
    )


def volume_at(path, split, **attributes):
    sizes = (32, 32, 1)
    layout = ArrayLayout((3, 2, 8, 8), "<c8", 0)
    return Volume(path, split, 0, 0, layout, None, None, None, sizes, sizes, 0, 8, attributes)


def results_of(folder, scores, kinds=()):
    """Results: volume -> zero-filled and reconstructed metrics; of ``kinds`` of acquisition."""
    order = Order("w.pt", "", "/data", "val", None)
    items = []
    for path, (filled, made) in scores.items():
        attributes = {"acquisition": dict(kinds).get(path, "")}
        both = {"zero_filled": filled, "reconstruction": made}
        volume = volume_at(path, "val", **attributes)
        items.append(Result(folder / f"{path}.h5", volume, order, 4.0, 1, both))
    return Results(folder, items, order)


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    """A project's folder with a dataset and weights."""
    root = tmp_path_factory.mktemp("project")
    folder = root / "datasets/knee_multicoil"
    write(folder / "multicoil_val/file1000001.h5", "CORPD_FBK", field_of_view=(160, 160))
    write(folder / "multicoil_val/file1000002.h5", "AXT2", slices=4, thickness=4.5)
    write(folder / "multicoil_test/file1000003.h5", "CORPD_FBK", own_mask=True)
    torch.manual_seed(0)
    network = VarNet(num_cascades=1, chans=4, pools=2, sens_chans=2, sens_pools=2)
    torch.save(network.state_dict(), root / "weights.pt")
    return root


@pytest.fixture(scope="session")
def reconstructed(project):
    """Results: ``reconstructed(split="val", **sampling)``; made once each."""
    known = {}

    def of(split="val", **sampling):
        key = (split, *sorted(sampling.items()))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORKBENCH_ROOT", str(project))
            if key not in known:
                plan = plan_reconstruction(
                    weights="weights.pt", split=split, local_dataset="knee_multicoil", **sampling
                )
                # In this process: torchrun would take longer than the work.
                begin(plan.order, plan.cache, plan.folder)
                network = load_network(project / "weights.pt")
                list(reconstruct_share(plan.order, plan.cache, plan.folder, network))
                known[key] = Results(plan.folder)
        return known[key]

    return of


@pytest.fixture
def in_project(project, monkeypatch):
    """The project's folder, for as long as a test runs."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(project))
    return project
