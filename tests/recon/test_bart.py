"""The classical reconstructions against BART's, where it is installed (Debian's package bart)."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from tests.recon.test_classical import slice_of
from workbench.models.operator import root
from workbench.recon.ssim import mean_ssim
from workbench.recon.weights import untrained

BART = shutil.which("bart")
pytestmark = pytest.mark.skipif(
    BART is None, reason="BART is not installed: sudo apt-get install -y bart"
)
WEIGHT = 0.005


def write(path, values):
    """Write an array in BART's order: its first dimension is the fastest."""
    path.with_suffix(".hdr").write_text(f"# Dimensions\n{' '.join(map(str, values.shape))}\n")
    values.astype(np.complex64).ravel(order="F").tofile(path.with_suffix(".cfl"))


def read(path):
    sizes = path.with_suffix(".hdr").read_text().splitlines()[1].split()
    values = np.fromfile(path.with_suffix(".cfl"), np.complex64)
    return values.reshape([int(size) for size in sizes], order="F").squeeze()


def by_bart(folder, kspace, maps, *how):
    """Solve with BART's pics; k-space and maps are (coils, H, W)."""
    for name, values in (("kspace", kspace), ("maps", maps)):
        write(folder / name, np.moveaxis(values, 0, -1)[:, :, None])
    command = [BART, "pics", *how, "-w", "1", "kspace", "maps", "image"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    return read(folder / "image")


@pytest.mark.parametrize(
    ("method", "options", "how"),
    [
        ("sense", {"iterations": 40}, ("-l2", "-r", f"{WEIGHT}", "-i", "40")),
        (
            "wavelet",
            {"wavelet": "db2", "iterations": 100},
            ("-R", f"W:3:0:{WEIGHT}", "-i", "100"),
        ),
        ("tv", {"iterations": 100}, ("-R", f"T:3:0:{WEIGHT}", "-i", "200")),
    ],
)
def test_image_is_as_good_as_bart_s_for_the_same_problem(method, options, how, tmp_path):
    masked, mask, truth, _ = slice_of(coils=6, height=96, width=80, noise=0.03)
    network = untrained(method, {"regularisation": WEIGHT, "maps": "espirit", **options})
    problem = network.problem(masked, mask, 10)
    ours = network.solve(problem, network.weight(mask[..., 0]))[0, 0]
    kspace = torch.view_as_complex(masked)[0] / problem.scale[0]
    theirs = by_bart(tmp_path, kspace.numpy(), problem.maps[0].numpy(), *how)

    def likeness(image):
        image = torch.as_tensor(image).abs() * problem.scale[0, 0]
        return float(mean_ssim(image.double()[None], truth.double()[None], 1.4))

    assert abs(likeness(ours) - likeness(theirs)) < 0.01
    # Random shifts are not BART's own.
    apart = 0.05 if method == "wavelet" else 0.03
    assert np.linalg.norm(ours.numpy() - theirs) < apart * np.linalg.norm(theirs)


def test_maps_span_what_bart_s_ecalib_finds(tmp_path):
    masked, mask, image, _ = slice_of(coils=4, height=96, width=80, noise=0.01)
    kspace = torch.view_as_complex(masked)[0].numpy()
    write(tmp_path / "kspace", np.moveaxis(kspace, 0, -1)[:, :, None])
    command = [BART, "ecalib", "-m1", "-c0", "-r", "10:10:1", "-k", "6", "kspace", "maps"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    theirs = torch.as_tensor(np.moveaxis(read(tmp_path / "maps"), -1, 0))
    theirs = theirs / root(theirs.abs().square().sum(0), empty=1.0)
    ours = untrained("sense", {"maps": "espirit"}).problem(masked, mask, 10).maps[0]
    likeness = (ours.conj() * theirs).sum(0).abs()[image > 0]
    assert likeness.mean() > 0.995
