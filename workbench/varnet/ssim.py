"""SSIM as fastMRI trains with it and its leaderboard computes it.

SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) with fastMRI's constants: a uniform 7x7 window,
k1 = 0.01, k2 = 0.03, the sample covariance, and only windows that lie inside the image.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

WINDOW = 7
K1, K2 = 0.01, 0.03

# Rows of windows that are formed at a time: what they need stays in a core's cache.
_ROWS = 48


def ssim_map(image: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Return the SSIM of every window.

    Args:
        image: (batch, H, W).
        target: (batch, H, W).
        data_range: (batch,), the largest value that the images can have; above 0.

    Returns:
        (batch, H - 6, W - 6), each at its window's centre.
    """
    # One over 49 as float32 rounds it: fastMRI's window, whatever the precision in use.
    weight = float(torch.tensor(1 / WINDOW**2)) if image.dtype == torch.float32 else 1 / WINDOW**2
    stack = torch.stack([image, target, image * image + target * target, image * target], dim=1)
    mean_x, mean_y, squares, product = (_BoxSum.apply(stack) * weight).unbind(dim=1)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    of_product, of_squares = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    c1 = (K1 * data_range[:, None, None]) ** 2
    c2 = (K2 * data_range[:, None, None]) ** 2
    likeness = (2 * of_product + c1) * (2 * sample * (product - of_product) + c2)
    return likeness / ((of_squares + c1) * (sample * (squares - of_squares) + c2))


def ssim_loss(image: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Return 1 - mean SSIM of a batch (batch, H, W); equals ``fastmri.losses.SSIMLoss``."""
    return 1 - ssim_map(image, target, data_range).mean()


def mean_ssim(image: Tensor, target: Tensor, data_range: float) -> float:
    """Return the mean SSIM of one image (H, W), computed in float64, without a gradient.

    On the CPU it works through the image in strips, several times faster than ``ssim_map``.

    Raises:
        ValueError: the image is smaller than the window.
    """
    if min(image.shape) < WINDOW:
        raise ValueError(f"{tuple(image.shape)} is below the window of SSIM, 7x7")
    image, target = image.detach(), target.detach()
    if image.device.type != "cpu":
        span = torch.full((1,), data_range, dtype=torch.float64, device=image.device)
        return float(ssim_map(image.double()[None], target.double()[None], span).mean())
    return _mean_in_strips(image.contiguous().numpy(), target.contiguous().numpy(), data_range)


class _BoxSum(torch.autograd.Function):
    """Sums (..., H, W) over every window that lies inside: (..., H - 6, W - 6)."""

    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return _sum_of_seven(_sum_of_seven(image, -1), -2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # A pixel lies in the windows that a window around it has for centres.
        around = F.pad(gradient, (WINDOW - 1,) * 4)
        return _sum_of_seven(_sum_of_seven(around, -2), -1)


def _sum_of_seven(image: Tensor, axis: int) -> Tensor:
    """Sum over every 7 neighbours along an axis: 2, then 4, then 4 + 2 + 1 of them."""
    count = image.shape[axis] - WINDOW + 1
    two = image.narrow(axis, 0, count + 5) + image.narrow(axis, 1, count + 5)
    four = two.narrow(axis, 0, count) + two.narrow(axis, 2, count)
    four += two.narrow(axis, 4, count)
    return four.add_(image.narrow(axis, 6, count))


def _mean_in_strips(image: NDArray[Any], target: NDArray[Any], data_range: float) -> float:
    """Return the mean SSIM of two images (H, W).

    With s and d, the sum and the difference of the images, and S, D, Q, R the sums over a window of
    s, d, s² and d², SSIM is (S² - D² + 2 c1) ((49 Q - S²) - (49 R - D²) + 2 c2) divided by the same
    with each inner minus between the two images turned into a plus; c1 and c2 scaled accordingly.

    Rows lie one behind the other in memory, so that a neighbour below is W values further on. That
    makes each step one pass over a flat array; the last 6 columns, whose windows reach around into
    the next row, are left out at the end.
    """
    height, width = image.shape
    windows = height - WINDOW + 1
    pixels = WINDOW**2
    c1 = 2 * (pixels * K1 * data_range) ** 2
    c2 = 2 * pixels * (pixels - 1) * (K2 * data_range) ** 2
    own, scratch = np.empty((2, 4, (min(_ROWS, windows) + WINDOW - 1) * width))
    total = 0.0
    for top in range(0, windows, _ROWS):
        rows = min(_ROWS, windows - top)
        strip = slice(top, top + rows + WINDOW - 1)
        sums = own[:, : (rows + WINDOW - 1) * width]
        first, second = scratch[:2, : sums.shape[1]]
        np.copyto(first, image[strip].reshape(-1))
        np.copyto(second, target[strip].reshape(-1))
        np.add(first, second, out=sums[0])
        np.subtract(first, second, out=sums[1])
        np.multiply(sums[:2], sums[:2], out=sums[2:])
        for step in (width, 1):
            sums = _sum_of_seven_in_place(sums, step, scratch)
        ratios = _ratios(sums, c1, c2, scratch)[: rows * width].reshape(rows, width)
        total += ratios[:, : width - WINDOW + 1].sum()
    return float(total / (windows * (width - WINDOW + 1)))


def _sum_of_seven_in_place(
    values: NDArray[np.float64], step: int, scratch: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum (maps, n) over every 7 values that are ``step`` apart: (maps, n - 6 step)."""
    count = values.shape[1] - 6 * step
    two = scratch[:, : count + 4 * step]
    np.add(values[:, : count + 4 * step], values[:, step : count + 5 * step], out=two)
    seven = values[:, 6 * step :]
    for offset in (0, 2, 4):
        seven += two[:, offset * step : offset * step + count]
    return seven


def _ratios(
    sums: NDArray[np.float64], c1: float, c2: float, scratch: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the SSIM of each window, in ``scratch``, of the four sums over it (4, n)."""
    s, d, q, r = sums
    s *= s
    d *= d
    q *= WINDOW**2
    q -= s
    r *= WINDOW**2
    r -= d
    s += c1
    q += c2
    ratio, factor = scratch[:2, : len(s)]
    np.subtract(s, d, out=ratio)
    np.subtract(q, r, out=factor)
    ratio *= factor
    s += d
    q += r
    s *= q
    ratio /= s
    return scratch[0]
