"""Losses by name: their values, their scale, their gradients."""

import numpy as np
import pytest
import torch
from fastmri.losses import SSIMLoss
from scipy import ndimage

from workbench.compute.jobs import LOSSES
from workbench.models.own import find_loss, try_loss
from workbench.recon import losses

IMAGES = torch.rand(2, 2, 40, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SPAN = torch.tensor([1.5, 3.0], dtype=torch.float64)


def test_values_are_what_their_names_say():
    image, target = IMAGES
    error = (image - target) / SPAN[:, None, None]
    ssim = SSIMLoss().double()(image[:, None], target[:, None], SPAN)
    assert losses.ssim_loss(image, target, SPAN) == pytest.approx(float(ssim), abs=1e-7)
    assert losses.l1_loss(image, target, SPAN) == pytest.approx(float(error.abs().mean()))
    assert losses.mse_loss(image, target, SPAN) == pytest.approx(float((error**2).mean()))
    mixed = 0.84 * float(ssim) + 0.16 * float(error.abs().mean())
    assert losses.ssim_l1_loss(image, target, SPAN) == pytest.approx(mixed, abs=1e-7)
    kernel = np.array([1.0, 0.0, -1.0])
    parts = [
        (np.abs(e) * (1 + edges / edges.mean()) / 2).mean()
        for e, edges in (
            (e, np.hypot(*(ndimage.convolve1d(t, kernel, axis, mode="nearest") for axis in (0, 1))))
            for e, t in zip(error.numpy(), target.numpy(), strict=True)
        )
    ]
    assert losses.edge_loss(image, target, SPAN) == pytest.approx(np.mean(parts))


def test_edge_loss_of_a_flat_target_is_l1_and_edges_weigh_more():
    image, flat = IMAGES[0], torch.ones_like(IMAGES[0])
    assert losses.edge_loss(image, flat, SPAN) == pytest.approx(
        float(losses.l1_loss(image, flat, SPAN))
    )
    step = torch.zeros(1, 40, 40)
    step[:, :, 20:] = 1
    at_edge, away = step.clone(), step.clone()
    at_edge[:, :, 20] += 0.1
    away[:, :, 5] += 0.1
    one = torch.ones(1)
    assert losses.edge_loss(at_edge, step, one) > 9 * losses.edge_loss(away, step, one)


@pytest.mark.parametrize("name", LOSSES)
def test_every_name_is_a_loss_of_any_scale_with_a_gradient(name):
    try_loss(LOSSES[name])
    loss = find_loss(LOSSES[name])
    image, target = IMAGES
    value = loss(image, target, SPAN)
    assert loss(1e-6 * image, 1e-6 * target, 1e-6 * SPAN) == pytest.approx(float(value), rel=1e-6)
    assert torch.autograd.gradcheck(
        lambda x: loss(x, target[:1, :9, :9], SPAN[:1]), image[:1, :9, :9].clone().requires_grad_()
    )
