"""Figures of reconstructed images: beside their target, with what differs, and many at once."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.recon.metrics import METRICS, Scores, metrics_of
from workbench.views.style import (
    GREY,
    LABEL,
    RED,
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
    worst = max(
        _percentile(zero_filled, 95),
        *(_percentile(error, 99.5) for error in reconstructions),
        0.0,
    )
    return max((factor for factor in FACTORS if worst * factor <= data_range), default=1)


def _percentile(errors: np.ndarray, share: float) -> float:
    """Return a percentile of what is finite; 0 where nothing is."""
    finite = errors[np.isfinite(errors)]
    return float(np.percentile(finite, share)) if finite.size else 0.0


def slice_scores(image: np.ndarray, target: np.ndarray, data_range: float) -> Scores:
    """Return the metrics of one slice (H, W)."""
    import torch

    from workbench.recon.scoring import score_slice

    score = score_slice(torch.from_numpy(image), torch.from_numpy(target), "slice", 0, data_range)
    return metrics_of([score.parts])


def ssim_image(image: np.ndarray, target: np.ndarray, data_range: float) -> np.ndarray:
    """Return the SSIM around each pixel, (H, W); NaN where the 7x7 window leaves the image."""
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
    synthetic: bool = False,
) -> Figure:
    """Show a slice beside its target: images, errors and SSIM maps, each row in one window.

    Args:
        target: (H, W).
        zero_filled: (H, W).
        images: name -> reconstruction (H, W).
        title: the figure's message; volume and slice.
        data_range: the volume's ``max``, which SSIM and PSNR take as data range and which is 100 %
            in the colour bars; the target's own largest value by default.
        synthetic: whether it is a phantom.

    What is not finite is shown in a colour of its own, and said in place of the metrics.

    Raises:
        ValueError: the arrays are not all of one shape.
    """
    shown = {"zero-filled": zero_filled, **images}
    _check(target, shown)
    data_range = float(data_range or np.nan_to_num(target).max()) or 1.0
    errors = {name: np.abs(image - target) for name, image in shown.items()}
    factor = error_factor(errors["zero-filled"], [errors[name] for name in images], data_range)
    percent = 100 / data_range
    window = (0.0, window_of(target)[1] * percent)

    columns = 1 + len(shown)
    tall = target.shape[0] / target.shape[1]
    figure = new_figure(
        2.65 * columns + 0.8, 3 * (2.65 * tall + 0.3) + 0.6, title=title, synthetic=synthetic
    )
    axes = figure.subplots(3, columns, squeeze=False)
    drawn = show_image(axes[0, 0], target * percent, window, "target\nfrom full k-space")
    for column, (name, image) in enumerate(shown.items(), start=1):
        text = f"{name}\n{metrics_text(image, target, data_range)}"
        show_image(axes[0, column], image * percent, window, text, undefined=RED)
        error_drawn = show_image(
            axes[1, column],
            errors[name] * percent,
            (0, 100 / factor),
            f"error ×{factor}",
            colours="inferno",
            undefined=RED,
        )
        likeness = ssim_image(image, target, data_range)
        likeness_drawn = show_image(
            axes[2, column], likeness, (0, 1), "SSIM map", colours="viridis"
        )
    _say(axes[1, 0], f"error ×{factor}", "|image − target|,\none scale for all")
    _say(axes[2, 0], "SSIM map", "7×7 windows;\n1: like the target")
    add_colour_bar(figure, drawn, list(axes[0]), "signal, % of maximum", extend="max")
    add_colour_bar(figure, error_drawn, list(axes[1]), "error, % of maximum", extend="max")
    add_colour_bar(figure, likeness_drawn, list(axes[2]), "SSIM", extend="min")
    return figure


def contact_sheet(
    images: Sequence[np.ndarray] | np.ndarray,
    labels: Sequence[str],
    *,
    title: str = "",
    columns: int | None = None,
    window: tuple[float, float] | None = None,
    unit: str = "signal, % of maximum",
    colours: str = "gray",
    synthetic: bool = False,
) -> Figure:
    """Show many images in one window.

    Args:
        images: each (H, W); sizes may differ.
        labels: one for each image.
        title: the figure's message.
        columns: images a row; as many as make the sheet a little wider than high by default.
        window: lowest and highest value; by default the images are scaled to % of the brightest
            pixel of all, from 0 to just under it.
        unit: label of the colour bar.
        colours: colour map.
        synthetic: whether they are of a phantom.

    Raises:
        ValueError: there is no image, one has not two axes, or labels do not match.
    """
    if not len(images) or len(images) != len(labels):
        raise ValueError(f"{len(images)} images, {len(labels)} labels: give one label an image")
    for label, image in zip(labels, images, strict=True):
        if image.ndim != 2:
            raise ValueError(f"image {label!r} of shape {image.shape}: give (H, W)")
    if window is None:
        brightest = max(float(np.nan_to_num(image, posinf=0).max()) for image in images) or 1.0
        images = [image * (100 / brightest) for image in images]
        window = (0.0, max(window_of(image)[1] for image in images))
    if columns is None:
        rows = -(-len(images) // int(np.ceil(np.sqrt(1.6 * len(images)))))
        columns = -(-len(images) // rows)
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    lines = max(label.count("\n") for label in labels) + 1
    tall = images[0].shape[0] / images[0].shape[1]
    panel = min(2.6, max(1.5, 11 / columns))
    figure = new_figure(
        panel * columns + 0.8,
        rows * (panel * tall + 0.1 + 0.13 * lines) + 0.6,
        title=title,
        synthetic=synthetic,
    )
    axes = figure.subplots(rows, columns, squeeze=False)
    for place in axes.flat[len(images) :]:
        place.set_axis_off()
    for place, image, label in zip(axes.flat, images, labels, strict=False):
        drawn = show_image(place, image, window, label, undefined=RED)
    add_colour_bar(figure, drawn, list(axes.flat), unit, rows=rows, extend="max")
    return figure


def _check(target: np.ndarray, images: Mapping[str, np.ndarray]) -> None:
    if target.ndim != 2 or min(target.shape) < 7:
        raise ValueError(f"target of shape {target.shape}: give (H, W), 7x7 or more")
    for name, image in images.items():
        if image.shape != target.shape:
            raise ValueError(
                f"{name} of shape {image.shape}, target of {target.shape}: crop both to one shape"
            )


def metrics_text(image: np.ndarray, target: np.ndarray, data_range: float) -> str:
    """Write the metrics of a slice (H, W); where it is not finite, how much of it."""
    undefined = float((~np.isfinite(image)).mean())
    if undefined:
        return f"{100 * undefined:.3g} % of the pixels are not finite (red)"
    scores = slice_scores(image, target, data_range)
    return ", ".join(metric.say(scores[metric.name], metric.short) for metric in METRICS)


def _say(axes: Axes, heading: str, text: str) -> None:
    """Use a panel that has no image to say what its row shows."""
    axes.set_axis_off()
    axes.text(0.95, 0.53, heading, ha="right", va="bottom", fontsize=LABEL, fontweight="bold")
    axes.text(0.95, 0.47, text, ha="right", va="top", fontsize=LABEL, color=GREY)
