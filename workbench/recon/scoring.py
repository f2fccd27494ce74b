"""Measures images against their targets, as fastMRI's leaderboard does."""

import torch
from torch import Tensor

from workbench.data.images import center_crop, cropped
from workbench.recon.metrics import METRICS, Scores, SliceScore, metrics_of
from workbench.recon.ssim import WINDOW
from workbench_kernels import functions as kernels


def score_slices(
    images: Tensor, targets: Tensor, volume: str, first: int, data_range: float
) -> list[SliceScore]:
    """Score slices (slices, H, W) that follow each other in a volume, in float64.

    Args:
        images: what is measured.
        targets: what it is measured against; both are cropped to the smaller size of the two.
        volume: the volume's path.
        first: number of the first slice.
        data_range: the volume's largest target value; 0, of a volume that is all zero, counts as 1.

    Raises:
        ValueError: the images are smaller than the window of SSIM.
    """
    images, targets = cropped(images.detach(), targets.detach())
    if min(images.shape[1:]) < WINDOW:
        raise ValueError(
            f"{volume} slice {first}: {tuple(images.shape[1:])} is below the window of SSIM, "
            f"{WINDOW}x{WINDOW}"
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
    columns = {"squared_error": sums[:, 0], "squared_target": sums[:, 1]} | {
        metric.name: metric.of_slices(images, targets, data_range)
        for metric in METRICS
        if metric.of_slices
    }
    common = {"pixels": float(targets[0].numel()), "peak": data_range}
    rows = zip(*(values.tolist() for values in columns.values()), strict=True)
    return [
        SliceScore(volume, first + number, dict(zip(columns, row, strict=True)) | common)
        for number, row in enumerate(rows)
    ]


def score_slice(
    image: Tensor, target: Tensor, volume: str, slice_number: int, data_range: float
) -> SliceScore:
    """Score one slice (H, W), as ``score_slices`` does."""
    return score_slices(image[None], target[None], volume, slice_number, data_range)[0]


def judged_slices(
    image: Tensor, target: Tensor, name: str, data_range: float | None = None
) -> list[SliceScore]:
    """Score the slices of a volume (slices, H, W) by what ``fastmri.evaluate`` sees of them.

    Both are cropped to the target's width squared; the data range is the cropped target's largest
    value, unless another is given.
    """
    width = target.shape[-1]
    target = center_crop(target, (min(width, target.shape[-2]), width))
    image, target = cropped(image, target)
    peak = float(target.max()) if data_range is None else data_range
    return score_slices(image, target, name, 0, peak)


def score_volume(
    image: Tensor, target: Tensor, name: str, data_range: float | None = None
) -> Scores:
    """Score a volume as ``fastmri.evaluate`` does for the leaderboard; see ``judged_slices``."""
    return metrics_of([each.parts for each in judged_slices(image, target, name, data_range)])
