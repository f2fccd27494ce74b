"""The classical reconstructions against BART's, where it is installed (Debian's package bart)."""

import numpy as np
import pytest
import torch

from benchmarks import bart
from tests.recon.test_classical import slice_of
from workbench.models.operator import root
from workbench.recon.ssim import mean_ssim
from workbench.recon.weights import untrained

pytestmark = pytest.mark.skipif(
    not bart.installed(), reason="BART is not installed: sudo apt-get install -y bart"
)


@pytest.mark.parametrize("method", bart.METHODS)
def test_image_is_as_good_as_bart_s_for_the_same_problem(method, tmp_path):
    masked, mask, truth, _ = slice_of(coils=6, height=96, width=80, noise=0.03)
    network = bart.classical(method)
    problem = network.problem(masked, mask, 10)
    ours = network.solve(problem, network.weight(mask[..., 0]))[0, 0]
    kspace = torch.view_as_complex(masked)[0] / problem.scale[0]
    bart.hand_over(tmp_path, kspace.numpy(), problem.maps[0].numpy())
    theirs = bart.solve(tmp_path, *bart.METHODS[method][1])

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
    bart.write(tmp_path / "kspace", np.moveaxis(kspace, 0, -1)[:, :, None])
    calibrate = ("ecalib", "-m1", "-c0", "-r", "10:10:1", "-k", "6", "kspace", "maps")
    bart.run(tmp_path, *calibrate)
    theirs = torch.as_tensor(np.moveaxis(bart.read(tmp_path / "maps"), -1, 0))
    theirs = theirs / root(theirs.abs().square().sum(0), empty=1.0)
    ours = untrained("sense", {"maps": "espirit"}).problem(masked, mask, 10).maps[0]
    likeness = (ours.conj() * theirs).sum(0).abs()[image > 0]
    assert likeness.mean() > 0.995
