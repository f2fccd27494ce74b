"""Figures of reconstructed images: beside their target, with what differs, and many at once."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import cropped
from workbench.recon.metrics import LEADING, METRICS, Scores
from workbench.recon.results import Result
from workbench.views.kspace import kspace_and_mask_figure
from workbench.views.style import (
    GREY,
    LABEL,
    RED,
    Look,
    add_colour_bar,
    new_figure,
    show_image,
    window_of,
)

FACTORS = (1, 2, 5, 10, 20, 50, 100)


def error_factor(
    zero_filled: np.ndarray, reconstructions: Sequence[np.ndarray], data_range: float
) -> int:
    """Return how much brighter than the images errors are shown: 1, 2, 5, 10, ... 100.

    The largest factor at which at most 0.5 % of the pixels of each reconstruction's error burn out,
    and at most 5 % of the zero-filled image's.
    """
    worst = 0.0
    for error, share in ((zero_filled, 95), *((each, 99.5) for each in reconstructions)):
        if (known := error[np.isfinite(error)]).size:
            worst = max(worst, float(np.percentile(known, share)))
    return max((factor for factor in FACTORS if worst * factor <= data_range), default=1)


def slice_scores(image: np.ndarray, target: np.ndarray, data_range: float) -> Scores:
    """Return the metrics of one slice (H, W), of the part of it by which volumes are judged."""
    import torch

    from workbench.recon.scoring import score_volume

    pair = torch.from_numpy(image)[None], torch.from_numpy(target)[None]
    return score_volume(*pair, "slice", data_range)


def metrics_text(image: np.ndarray, target: np.ndarray, data_range: float) -> str:
    """Write the metrics of a slice (H, W); where it is not finite, how much of it."""
    undefined = float((~np.isfinite(image)).mean())
    if undefined:
        return f"{100 * undefined:.3g} % of the pixels are not finite (red)"
    scores = slice_scores(image, target, data_range)
    return ", ".join(metric.say(scores[metric.name], metric.short) for metric in METRICS)


def ssim_image(image: np.ndarray, target: np.ndarray, data_range: float) -> np.ndarray:
    """Return the SSIM around each pixel, (H, W); NaN where the window leaves the image."""
    import torch

    from workbench.recon.ssim import WINDOW, ssim_map

    first, second = (torch.from_numpy(array).double()[None] for array in (image, target))
    values = ssim_map(first, second, torch.tensor([data_range], dtype=torch.float64))[0].numpy()
    return np.pad(values, WINDOW // 2, constant_values=np.nan)


def reconstruction_figure(
    target: np.ndarray,
    zero_filled: np.ndarray,
    images: Mapping[str, np.ndarray],
    *,
    title: str = "",
    data_range: float | None = None,
    factor: int | None = None,
    synthetic: bool = False,
) -> Figure:
    """Show a slice beside its target: images, errors and SSIM maps, each row in one window.

    What is not finite is shown in a colour of its own, and said in place of the metrics.

    Args:
        target: (H, W).
        zero_filled: (H, W).
        images: name -> reconstruction (H, W).
        title: the figure's message; volume and slice.
        data_range: what SSIM and PSNR take as data range and what is 100 % in the colour bars; the
            target's own largest value by default.
        factor: how much brighter than the images errors are shown; by default what fits this slice.
            Slices that stand together have one (``common_factor``).
        synthetic: whether it is a phantom.

    Raises:
        ValueError: the target is smaller than SSIM's window.
    """
    from workbench.recon.ssim import WINDOW

    shown = {"zero-filled": zero_filled, **images}
    if min(target.shape) < WINDOW:
        raise ValueError(f"target of shape {target.shape}: give (H, W), {WINDOW}x{WINDOW} or more")
    data_range = data_range or _largest(target)
    errors = {name: np.abs(image - target) for name, image in shown.items()}
    factor = factor or error_factor(
        errors["zero-filled"], [errors[name] for name in images], data_range
    )
    percent = 100 / data_range
    window = (0.0, window_of(target)[1] * percent)
    columns, tall = 1 + len(shown), target.shape[0] / target.shape[1]
    size = 2.65 * columns + 0.8, 3 * (2.65 * tall + 0.3) + 0.6
    figure = new_figure(*size, title=title, synthetic=synthetic)
    axes = figure.subplots(3, columns, squeeze=False)
    heading = f"error ×{factor}"
    drawn = [show_image(axes[0, 0], target * percent, window, "target\nfrom full k-space")]
    for (above, middle, below), (name, image) in zip(axes.T[1:], shown.items(), strict=True):
        text = f"{name}\n{metrics_text(image, target, data_range)}"
        show_image(above, image * percent, window, text, undefined=RED)
        look: Look = {"colours": "inferno", "undefined": RED}
        error = show_image(middle, errors[name] * percent, (0, 100 / factor), heading, **look)
        likeness = ssim_image(image, target, data_range)
        ssim = show_image(below, likeness, (0, 1), "SSIM map", colours="viridis")
        drawn[1:] = [error, ssim]
    # The first column has one image only: the panels below say what their rows show.
    for place, bold, text in (
        (axes[1, 0], heading, "|image − target|,\none scale for all"),
        (axes[2, 0], "SSIM map", f"{WINDOW}×{WINDOW} windows;\n1: like the target"),
    ):
        place.set_axis_off()
        right: Look = {"ha": "right", "fontsize": LABEL}
        place.text(0.95, 0.53, bold, va="bottom", fontweight="bold", **right)
        place.text(0.95, 0.47, text, va="top", color=GREY, **right)
    add_colour_bar(figure, drawn[0], axes[0])
    add_colour_bar(figure, drawn[1], axes[1], "error, % of maximum")
    add_colour_bar(figure, drawn[2], axes[2], "SSIM", extend="min")
    return figure


def contact_sheet(
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[str],
    *,
    title: str = "",
    columns: int | None = None,
    window: tuple[float, float] | None = None,
    panel: tuple[float, float] | None = None,
    synthetic: bool = False,
) -> Figure:
    """Show many images (H, W), of one or several sizes, in one window, with a label each.

    By default the images are scaled to % of the brightest pixel of all, the window is from 0 to
    just under it, and the sheet a little wider than high. A ``panel`` is (width, height), inches.
    """
    if window is None:
        brightest = max(float(np.nan_to_num(image, posinf=0).max()) for image in images) or 1.0
        images = [image * (100 / brightest) for image in images]
        window = (0.0, max(window_of(image)[1] for image in images))
    count = len(images)
    if columns is None:
        rows = -(-count // math.ceil(math.sqrt(1.6 * count)))
        columns = -(-count // rows)
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    lines = max(label.count("\n") for label in labels) + 1
    usual = min(2.6, max(1.5, 11 / columns))
    across, down = panel or (usual, usual * images[0].shape[0] / images[0].shape[1])
    size = across * columns + 0.8, rows * (down + 0.1 + 0.13 * lines) + 0.6
    figure = new_figure(*size, title=title, synthetic=synthetic)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for place in axes[count:]:
        place.set_axis_off()
    for place, image, label in zip(axes, images, labels, strict=False):
        drawn = show_image(place, image, window, label, undefined=RED)
    add_colour_bar(figure, drawn, axes, rows=rows)
    return figure


def extreme_slices(results: Sequence[Result]) -> list[tuple[str, Result, int]]:
    """Return the best, the middle and the worst slice by SSIM, each with its volume.

    A slice that has no SSIM because it is not finite comes before them, the first of each volume.
    """
    every = [
        (ssim, result.volume.path, number, result)
        for result in results
        for number, ssim in enumerate(result.slice_ssim)
    ]
    ranked = sorted((each for each in every if math.isfinite(each[0])), key=lambda each: each[:3])
    broken: dict[Path, tuple[str, Result, int]] = {}
    for ssim, _, number, result in every:
        if not math.isfinite(ssim):
            broken.setdefault(result.path, ("not finite: first such slice", result, number))
    places = {"best": -1, "median": len(ranked) // 2, "worst": 0} if ranked else {}
    chosen = [(f"{kind} slice", ranked[at][3], ranked[at][2]) for kind, at in places.items()]
    return [*broken.values(), *chosen]


def images_of(result: Result, number: int) -> list[np.ndarray]:
    """Return a slice zero-filled and reconstructed, and its target if it has one: (h, w) each."""
    kspace, target = result.measured(number)
    images = result.zero_fill(kspace), result.image(number)
    return cropped(*images, *([] if target is None else [target]))


def data_range_of(result: Result, target: np.ndarray) -> float:
    """Return what is 100 %, and the data range of SSIM and PSNR: that of the result's metrics.

    It is the largest target value that the leaderboard sees, and need not be the file's ``max``,
    which is taken where a result does not say it; without either, the target's own largest value.
    """
    return result.peak or result.volume.largest or _largest(target)


def _largest(image: np.ndarray) -> float:
    return float(np.nan_to_num(image).max()) or 1.0


def common_factor(slices: Sequence[tuple[str, Result, int]]) -> int | None:
    """Return the one factor at which the errors of all of some slices fit; None without targets."""
    factors = []
    for _, result, number in slices:
        filled, image, *targets = images_of(result, number)
        for target in targets:
            errors = np.abs(filled - target), [np.abs(image - target)]
            factors.append(error_factor(*errors, data_range_of(result, target)))
    return min(factors, default=None)


def extreme_views(results: Sequence[Result]) -> Iterator[Figure]:
    """Show the best, the median and the worst slice, all errors on one scale, and their k-space."""
    slices = extreme_slices(results)
    factor = common_factor(slices)
    for kind, result, number in slices:
        yield slice_figure(result, number, kind, factor)
        kspace, _ = result.measured(number)
        mask, low = result.mask(kspace)
        about: Look = {"acquired": result.volume.acquired, "synthetic": result.volume.synthetic}
        yield kspace_and_mask_figure(kspace, mask, low_frequencies=low, **about)


def slice_figure(result: Result, number: int, title: str, factor: int | None = None) -> Figure:
    """Show a slice beside its target, with errors and SSIM maps.

    ``factor`` is that of the errors, see ``reconstruction_figure``.
    """
    volume = result.volume
    title = f"{title}: {result.name}, slice {number}, {volume.acquisition}"
    about: Look = {"title": title, "synthetic": volume.synthetic}
    filled, image, *targets = images_of(result, number)
    if not targets:
        return contact_sheet([filled, image], ["zero-filled", result.label], **about)
    about |= {"factor": factor, "data_range": data_range_of(result, targets[0])}
    return reconstruction_figure(targets[0], filled, {result.label: image}, **about)


def sheet_figure(result: Result) -> Figure:
    """Show every slice of a reconstructed volume."""
    images = result.images()
    ssim = [f": {LEADING.say(value, LEADING.short)}" for value in result.slice_ssim]
    labels = [f"{number}{text}" for number, text in enumerate(ssim or [""] * len(images))]
    title = f"{result.name}, {result.volume.acquisition}: every slice"
    return contact_sheet(images, labels, title=title, synthetic=result.volume.synthetic)
