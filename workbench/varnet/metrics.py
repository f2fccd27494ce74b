"""SSIM, PSNR and NMSE as fastMRI trains with them and its leaderboard computes them.

SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861) with fastMRI's constants: a uniform 7x7 window,
k1 = 0.01, k2 = 0.03, the sample covariance, and only windows that lie inside the image.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 7


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
    c1 = (0.01 * data_range[:, None, None]) ** 2
    c2 = (0.03 * data_range[:, None, None]) ** 2
    likeness = (2 * of_product + c1) * (2 * sample * (product - of_product) + c2)
    return likeness / ((of_squares + c1) * (sample * (squares - of_squares) + c2))


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


def ssim_loss(image: Tensor, target: Tensor, data_range: Tensor) -> Tensor:
    """Return 1 - mean SSIM of a batch (batch, H, W); equals ``fastmri.losses.SSIMLoss``."""
    return 1 - ssim_map(image, target, data_range).mean()


def center_crop(image: Tensor, height: int, width: int) -> Tensor:
    """Return the central (..., height, width) of an image (..., H, W).

    Raises:
        ValueError: the image is smaller than that.
    """
    rows, columns = image.shape[-2:]
    if height > rows or width > columns:
        raise ValueError(f"an image of {rows}x{columns} has no centre of {height}x{width}")
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[..., top : top + height, left : left + width]


def crop_to_smaller(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Crop both (..., H, W) to the smaller height and the smaller width of the two."""
    height = min(image.shape[-2], target.shape[-2])
    width = min(image.shape[-1], target.shape[-1])
    return center_crop(image, height, width), center_crop(target, height, width)


@dataclass(frozen=True)
class SliceScore:
    """What one slice adds to its volume's figures.

    Attributes:
        volume: file name.
        slice: slice number.
        ssim: mean SSIM.
        squared_error: sum over pixels of (image - target)².
        squared_target: sum over pixels of target².
        pixels: number of pixels.
        data_range: the volume's largest target value.
    """

    volume: str
    slice: int
    ssim: float
    squared_error: float
    squared_target: float
    pixels: int
    data_range: float


def score_slice(
    image: Tensor, target: Tensor, volume: str, slice_number: int, data_range: float
) -> SliceScore:
    """Score one slice (H, W) in float64; a slice of a volume that is all zero scores against 1."""
    image, target = crop_to_smaller(image.detach().double(), target.double())
    if min(image.shape) < WINDOW:
        raise ValueError(
            f"{volume} slice {slice_number}: {tuple(image.shape)} is below the window of SSIM, 7x7"
        )
    span = torch.full((1,), data_range or 1.0, dtype=torch.float64, device=image.device)
    return SliceScore(
        volume,
        slice_number,
        float(ssim_map(image[None], target[None], span).mean()),
        float((image - target).square().sum()),
        float(target.square().sum()),
        target.numel(),
        data_range or 1.0,
    )


@dataclass(frozen=True)
class VolumeScore:
    """The figures of one volume; PSNR in dB."""

    volume: str
    slices: int
    ssim: float
    psnr: float
    nmse: float


def score_volumes(scores: Iterable[SliceScore]) -> list[VolumeScore]:
    """Form the figures of each volume from its slices; a slice that comes twice counts once.

    SSIM is the mean over the slices, NMSE the sum of squared errors over the sum of squares of the
    target, PSNR = 20 log10(max) - 10 log10(mean squared error) over the whole volume.
    """
    volumes: dict[str, dict[int, SliceScore]] = defaultdict(dict)
    for score in scores:
        volumes[score.volume][score.slice] = score
    return [_score_volume(name, list(volumes[name].values())) for name in sorted(volumes)]


def _score_volume(name: str, scores: list[SliceScore]) -> VolumeScore:
    # fsum: the result does not depend on the order in which the ranks report.
    error = math.fsum(score.squared_error for score in scores)
    power = math.fsum(score.squared_target for score in scores)
    mean_error = error / sum(score.pixels for score in scores)
    peak = max(score.data_range for score in scores)
    return VolumeScore(
        name,
        len(scores),
        math.fsum(score.ssim for score in scores) / len(scores),
        20 * math.log10(peak) - 10 * math.log10(mean_error) if mean_error else math.inf,
        error / power if power else math.nan,
    )


def score_volume(image: Tensor, target: Tensor, name: str) -> VolumeScore:
    """Score a volume (slices, H, W) as ``fastmri.evaluate`` does for the leaderboard.

    Both are cropped to the target's width squared; the data range is the cropped target's largest
    value.
    """
    width = target.shape[-1]
    square = min(width, target.shape[-2]), width
    target = center_crop(target, *square)
    image, target = crop_to_smaller(image, target)
    data_range = float(target.max())
    return score_volumes(
        score_slice(image[number], target[number], name, number, data_range)
        for number in range(len(target))
    )[0]


def mean_score(scores: Iterable[VolumeScore]) -> dict[str, float]:
    """Return the mean over volumes of each figure: {"ssim", "psnr", "nmse"}.

    A volume whose figure is undefined (PSNR without an error, NMSE of an empty target) is left out
    of that figure's mean; NaN where none is left.
    """
    means = {}
    scores = list(scores)
    for figure in ("ssim", "psnr", "nmse"):
        values = [getattr(score, figure) for score in scores]
        finite = [value for value in values if math.isfinite(value)]
        means[figure] = math.fsum(finite) / len(finite) if finite else math.nan
    return means
