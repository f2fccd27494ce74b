"""The losses that a training knows by name; ``compute.jobs.LOSSES`` lists them.

Each takes images and targets (batch, H, W), cropped to one size, and the largest target value of
each one's volume, (batch,), above 0, and returns one number. A loss that has a unit divides by that
value, as fastMRI's SSIM takes it for the data range: volumes of any scale then count alike.
"""

import torch.nn.functional as F
from torch import Tensor

from workbench.recon.ssim import ssim_loss

__all__ = ["edge_loss", "l1_loss", "mse_loss", "ssim_l1_loss", "ssim_loss"]

_SSIM_SHARE = 0.84  # of SSIM and L1 together


def l1_loss(image: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """Return the mean absolute error, in units of the largest value."""
    return _absolute(image, target, max_value).mean()


def mse_loss(image: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """Return the mean squared error, in units of the largest value."""
    return _absolute(image, target, max_value).square().mean()


def ssim_l1_loss(image: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """Return 0.84 (1 - SSIM) + 0.16 L1, the weights of Zhao et al. 2017.

    doi:10.1109/TCI.2016.2644865, which has SSIM at several scales.
    """
    ssim, l1 = (loss(image, target, max_value) for loss in (ssim_loss, l1_loss))
    return _SSIM_SHARE * ssim + (1 - _SSIM_SHARE) * l1


def edge_loss(image: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    """Return the mean absolute error where half of the weight lies on the target's edges.

    A pixel's weight is (1 + g / mean g) / 2, with g the magnitude of the target's gradient by
    central differences. Weights have the mean 1 in each image.
    """
    across = F.pad(target[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    rows = across[:, 2:, 1:-1] - across[:, :-2, 1:-1]
    columns = across[:, 1:-1, 2:] - across[:, 1:-1, :-2]
    edges = (rows.square() + columns.square()).sqrt()
    mean = edges.mean((1, 2), keepdim=True)
    flat = mean == 0  # a target without edges: every pixel counts alike
    weights = (1 + edges.masked_fill(flat, 1) / mean.masked_fill(flat, 1)) / 2
    return (weights * _absolute(image, target, max_value)).mean()


def _absolute(image: Tensor, target: Tensor, max_value: Tensor) -> Tensor:
    return (image - target).abs() / max_value[:, None, None]
