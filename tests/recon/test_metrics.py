"""The figures against fastMRI's own functions."""

import numpy as np
import pytest
import torch
from fastmri import evaluate
from fastmri.losses import SSIMLoss
from skimage.metrics import structural_similarity

from workbench.data.images import cropped
from workbench.recon import ssim
from workbench.recon.metrics import mean_scores, score_volumes
from workbench.recon.scoring import score_slice, score_volume
from workbench.recon.ssim import mean_ssim, ssim_loss, ssim_map
from workbench_kernels import functions as kernels


@pytest.fixture
def volume():
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 6, 48)
    target = (1.5 + np.sin(ramp)[:, None] * np.cos(2 * ramp)[None]) * 1e-4
    target = np.stack([target * scale for scale in (1, 0.7, 1.3)]).astype(np.float32)
    image = target + rng.normal(scale=8e-6, size=target.shape).astype(np.float32)
    return torch.from_numpy(image), torch.from_numpy(target)


@pytest.mark.parametrize("compiled", [True, False])
def test_loss_and_gradient_equal_fastmris(volume, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(kernels, "scores", lambda *_: False)
    image, target = volume
    span = torch.tensor([2e-4, 2.5e-4, 3e-4])
    results = []
    for loss in (
        lambda x: SSIMLoss()(x[:, None], target[:, None], span),
        lambda x: ssim_loss(x, target, span),
    ):
        x = image.clone().requires_grad_()
        value = loss(x)
        value.backward()
        results.append((value.detach(), x.grad))
    torch.testing.assert_close(results[1][0], results[0][0], rtol=0, atol=5e-7)
    assert (results[1][1] - results[0][1]).norm() < 1e-4 * results[0][1].norm()


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("shape", [(1, 103, 40), (2, 200, 33), (1, 49, 7)])
def test_bands_of_an_image_give_the_loss_and_gradient_of_the_map(shape, threads, torch_threads):
    torch_threads(threads)
    rng = np.random.default_rng(1)
    image, target = (torch.from_numpy(rng.normal(size=shape) + 3) for _ in range(2))
    span = torch.full(shape[:1], 4.0, dtype=torch.float64)
    found, expected = image.clone().requires_grad_(), image.clone().requires_grad_()
    loss, truth = ssim_loss(found, target, span), 1 - ssim_map(expected, target, span).mean()
    loss.backward()
    truth.backward()
    torch.testing.assert_close(loss, truth, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-14)


def test_another_window_is_one_number_and_never_the_kernels_own(volume, monkeypatch):
    monkeypatch.setattr(ssim, "WINDOW", 11)
    image, target = volume
    found = ssim.mean_ssim(image, target, 4e-4)
    for place, one in enumerate(zip(image.double().numpy(), target.double().numpy(), strict=True)):
        *_, likeness = structural_similarity(*one, win_size=11, data_range=4e-4, full=True)
        assert found[place].item() == pytest.approx(likeness[5:-5, 5:-5].mean(), rel=1e-6)


def test_volume_figures_equal_the_leaderboards(volume):
    image, target = volume
    score = score_volume(image, target, "a.h5")
    truth, guess = target.double().numpy(), image.double().numpy()
    assert score["ssim"] == pytest.approx(evaluate.ssim(truth, guess).item(), rel=1e-7)
    assert score["psnr"] == pytest.approx(evaluate.psnr(truth, guess), rel=1e-7)
    assert score["nmse"] == pytest.approx(evaluate.nmse(truth, guess).item(), rel=1e-7)


def test_tall_target_is_cropped_square_as_the_leaderboard_crops_it(volume):
    image, target = (part[..., 4:-4] for part in volume)
    assert score_volume(image, target, "a.h5") == score_volume(
        image[:, 4:-4], target[:, 4:-4], "a.h5"
    )


def test_a_slice_reported_twice_counts_once(volume):
    image, target = volume
    slices = [score_slice(image[n], target[n], "a.h5", n, 3e-4) for n in range(3)]
    assert score_volumes([*slices, slices[0]]) == score_volumes(slices[::-1])


def test_mean_is_over_volumes_not_slices(volume):
    image, target = volume
    scores = score_volumes(
        [
            score_slice(image[0], target[0], "a.h5", 0, 3e-4),
            score_slice(image[1], target[1], "b.h5", 0, 3e-4),
            score_slice(image[2], target[2], "b.h5", 1, 3e-4),
        ]
    )
    mean = (scores[0]["ssim"] + scores[1]["ssim"]) / 2
    assert mean_scores(scores)["ssim"] == pytest.approx(mean)


def test_undefined_figures_are_left_out_of_their_mean():
    image = torch.rand(9, 9)
    scores = score_volumes(
        [
            score_slice(image, image, "exact.h5", 0, 1.0),
            score_slice(image, image.flip(0), "flipped.h5", 0, 1.0),
            score_slice(image, image * 0, "empty.h5", 0, 1.0),
            score_slice(image, -image - 1, "negative.h5", 0, -1.0),
        ]
    )
    means = mean_scores(scores)
    assert all(np.isfinite(value) for value in means.values())
    assert means["ssim"] == pytest.approx(np.mean([score["ssim"] for score in scores]))


def test_all_zero_volume_gives_finite_ssim():
    zero = torch.zeros(9, 9)
    assert score_slice(zero, zero, "a.h5", 0, 0.0).parts["ssim"] == pytest.approx(1)


def test_crop_takes_the_smaller_of_each_axis():
    image, target = cropped(torch.zeros(2, 10, 7), torch.zeros(2, 8, 9))
    assert image.shape == target.shape == (2, 8, 7)


@pytest.mark.parametrize("threads", [1, 7])
@pytest.mark.parametrize("shape", [(7, 7), (7, 60), (60, 7), (54, 33), (103, 40)])
def test_mean_equals_the_mean_of_the_map_with_and_without_the_kernels(
    shape, threads, monkeypatch, torch_threads
):
    torch_threads(threads)
    rng = np.random.default_rng(1)
    image, target = (torch.from_numpy(rng.normal(size=(2, *shape)) + 3) for _ in range(2))
    span = torch.tensor([4.0, 4.0], dtype=torch.float64)
    expected = ssim_map(image, target, span).mean((1, 2)).tolist()
    assert mean_ssim(image, target, 4.0).tolist() == pytest.approx(expected, rel=1e-11)
    whole = torch.nn.functional.pad(image, (3, 2)), torch.nn.functional.pad(target, (3, 2))
    inner = [part[..., 3:-2] for part in whole]
    assert mean_ssim(*inner, 4.0).tolist() == mean_ssim(image, target, 4.0).tolist()
    both = [score_volume(image, target, "a.h5")]
    monkeypatch.setattr(kernels, "scores", lambda *_: False)
    assert mean_ssim(image, target, 4.0).tolist() == pytest.approx(expected, rel=1e-11)
    both.append(score_volume(image, target, "a.h5"))
    assert both[0] == pytest.approx(both[1], rel=1e-11)


def test_float32_images_are_scored_as_exactly_as_their_float64_copies(volume):
    image, target = volume
    found = score_volume(image.float(), target.float(), "a.h5")
    exact = score_volume(image.float().double(), target.float().double(), "a.h5")
    assert found == pytest.approx(exact, rel=1e-11)


def test_an_image_below_the_window_is_refused():
    with pytest.raises(ValueError, match=r"\(6, 9\) is below the window"):
        mean_ssim(torch.ones(1, 6, 9), torch.ones(1, 6, 9), 1.0)
    with pytest.raises(ValueError, match=r"\(6, 9\) is below the window"):
        ssim_loss(torch.ones(1, 6, 9), torch.ones(1, 6, 9), torch.ones(1))


def test_scoring_leaves_the_images_as_they_were(volume):
    image, target = volume
    before = image.clone(), target.clone()
    score_volume(image, target, "a.h5")
    assert torch.equal(image, before[0])
    assert torch.equal(target, before[1])
