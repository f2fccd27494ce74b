"""SSIM as fastMRI trains with it and its leaderboard computes it.

SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) with fastMRI's constants: a uniform 7x7 window,
k1 = 0.01, k2 = 0.03, the sample covariance, and only windows that lie inside the image.
"""

from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench_kernels import functions as kernels

WINDOW = 7
K1, K2 = 0.01, 0.03


def ssim_map(image: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Return the SSIM of every window.

    Args:
        image: (batch, H, W).
        target: (batch, H, W).
        data_range: (batch,), the largest value that the images can have; above 0.

    Returns:
        (batch, H - WINDOW + 1, W - WINDOW + 1), each at its window's centre.
    """
    weight = _weight(image.dtype)
    stack = torch.stack([image, target, image * image + target * target, image * target], dim=1)
    mean_x, mean_y, squares, product = (_BoxSum.apply(stack) * weight).unbind(dim=1)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    of_product, of_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    c1 = (K1 * data_range[:, None, None]) ** 2
    c2 = (K2 * data_range[:, None, None]) ** 2
    likeness = (2 * of_product + c1) * (2 * sample * (product - of_product) + c2)
    return likeness / ((of_squares + c1) * (sample * (squares - of_squares) + c2))


def ssim_loss(image: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Return 1 - mean SSIM of a batch (batch, H, W); equals ``fastmri.losses.SSIMLoss``.

    Raises:
        ValueError: the images are smaller than the window.
    """
    _require_window(image)
    if not kernels.scores(image, target, WINDOW) or target.requires_grad:
        return 1 - ssim_map(image, target, data_range).mean()
    means = kernels.similarities(image, target, data_range, _weight(image.dtype))
    return (1 - means.mean()).to(image.dtype)


def mean_ssim(image: Tensor, target: Tensor, data_range: float) -> Tensor:
    """Return the mean SSIM of each image, (batch,), computed in float64, without a gradient.

    Args:
        image: (batch, H, W), of any precision.
        target: (batch, H, W), of the same.
        data_range: the largest value that they can have; above 0.

    Raises:
        ValueError: the images are smaller than the window.
    """
    _require_window(image)
    image, target = image.detach(), target.detach()
    span = torch.full((len(image),), data_range, dtype=torch.float64, device=image.device)
    if kernels.scores(image, target, WINDOW):  # which compute in float64 whatever they are given
        return kernels.similarities(image, target, span, _weight(torch.float64))
    pairs = zip(image.double().split(1), target.double().split(1), span.split(1), strict=True)
    return torch.stack([ssim_map(*pair).mean() for pair in pairs])


def _require_window(image: Tensor) -> None:
    if min(image.shape[-2:]) < WINDOW:
        raise ValueError(
            f"{tuple(image.shape[-2:])} is below the window of SSIM, {WINDOW}x{WINDOW}"
        )


def _weight(dtype: torch.dtype) -> float:
    """Return a pixel's share of a window; fastMRI's window is in float32, which rounds it."""
    return float(torch.tensor(1 / WINDOW**2)) if dtype == torch.float32 else 1 / WINDOW**2


class _BoxSum(torch.autograd.Function):
    """Sums (..., H, W) over every window that lies inside."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return _sum_along(_sum_along(image, -1), -2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A pixel lies in the windows that a window around it has for centres.
        around = F.pad(gradient, (WINDOW - 1,) * 4)
        return _sum_along(_sum_along(around, -2), -1)


def _sum_along(image: Tensor, axis: int) -> Tensor:
    """Sum every ``WINDOW`` neighbours along an axis: for seven 1 of them, then 2, then 4."""
    count = image.shape[axis] - WINDOW + 1
    sums, parts, done = image, [], 0
    for width in (1 << bit for bit in range(WINDOW.bit_length())):
        if width > 1:
            half, pairs = width // 2, sums.shape[axis] - width // 2
            sums = sums.narrow(axis, 0, pairs) + sums.narrow(axis, half, pairs)
        if WINDOW & width:
            parts.append(sums.narrow(axis, done, count))
            done += width
    return reduce(torch.add, parts)
