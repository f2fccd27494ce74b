"""SSIM, PSNR and NMSE of slices and volumes, as fastMRI's leaderboard computes them."""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from workbench.recon.ssim import WINDOW, mean_ssim
from workbench_kernels import functions as kernels


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
        volume: path within the dataset, which no two volumes share.
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
    return score_slices(image[None], target[None], volume, slice_number, data_range)[0]


def score_slices(
    images: Tensor, targets: Tensor, volume: str, first: int, data_range: float
) -> list[SliceScore]:
    """Score slices (slices, H, W) that follow each other in a volume, as ``score_slice`` does."""
    images, targets = crop_to_smaller(images.detach(), targets.detach())
    if min(images.shape[1:]) < WINDOW:
        raise ValueError(
            f"{volume} slice {first}: {tuple(images.shape[1:])} is below the window of SSIM, 7x7"
        )
    dtype = torch.promote_types(images.dtype, targets.dtype)
    dtype = dtype if dtype in (torch.float32, torch.float64) else torch.float32
    images, targets = images.to(dtype), targets.to(dtype)
    data_range = data_range or 1.0
    if kernels.scores(images, targets):
        sums = kernels.errors(images, targets)
    else:
        precise = targets.double()
        off = images.double() - precise
        sums = torch.stack([off.square().sum((1, 2)), precise.square().sum((1, 2))], dim=1)
    figures = zip(mean_ssim(images, targets, data_range).tolist(), sums.tolist(), strict=True)
    pixels = targets[0].numel()
    return [
        SliceScore(volume, first + number, ssim, error, power, pixels, data_range)
        for number, (ssim, (error, power)) in enumerate(figures)
    ]


@dataclass(frozen=True)
class VolumeScore:
    """The figures of one volume, by its path within the dataset; PSNR in dB."""

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
    return score_volumes(score_slices(image, target, name, 0, float(target.max())))[0]


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
