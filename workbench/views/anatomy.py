"""What k-space is made of: k-space beside its image, profiles, padding, oversampling."""

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import (
    center_crop,
    centered_ifft2,
    root_sum_of_squares,
    zero_filled,
)
from workbench.views.explored import ExploredSlice
from workbench.views.kspace import decibels, show_kspace
from workbench.views.style import (
    BLUE,
    GREY,
    LABEL,
    ORANGE,
    SMALL,
    add_colour_bar,
    new_figure,
    show_image,
    tidy,
    window_of,
)

_FLOOR = -80.0  # dB, the darkest level of k-space that is shown


def kspace_and_image_figure(look: ExploredSlice) -> Figure:
    """Show a slice as it was measured, and as the Fourier transform turns it."""
    image = zero_filled(look.kspace, look.crop)
    percent = 100 / largest_signal(look, image)
    figure = new_figure(
        8.6,
        4.3,
        title=f"The same slice twice: as it is measured, and its Fourier transform\n{look.title}",
        synthetic=look.volume.synthetic,
    )
    panels = figure.subplots(1, 2)
    level = decibels(look.kspace)
    drawn = show_kspace(panels[0], level, (_FLOOR, 0.0), "k-space, all coils")
    panels[0].set_ylabel("readout, sample", fontsize=LABEL)
    shown = show_image(panels[1], image * percent, window_of(image * percent), "image")
    add_colour_bar(figure, drawn, [panels[0]], "dB of the maximum", extend="min")
    add_colour_bar(figure, shown, [panels[1]], "signal, % of maximum", extend="max")
    return figure


def profiles_figure(look: ExploredSlice) -> Figure:
    """Plot how the signal falls from the centre of k-space, along readout and phase encode."""
    magnitude = root_sum_of_squares(look.kspace)
    height, width = magnitude.shape
    left, right = look.acquired
    figure = new_figure(
        9.6,
        3.3,
        title="Most of the signal is in the centre: that is why its lines are always measured",
        synthetic=look.volume.synthetic,
    )
    panels = figure.subplots(1, 2, sharey=True)
    power = np.square(magnitude.astype(np.float64))
    share = 100 * power[:, _central(width, left, right)].sum() / (power.sum() or 1.0)
    for axes, axis, size, name in (
        (panels[0], 1, height, "readout, sample"),
        (panels[1], 0, width, "phase encode, line"),
    ):
        energy = power.sum(axis=axis)
        level = 10 * np.log10(energy / (energy.max() or 1.0), where=energy > 0, out=_nan(size))
        axes.plot(np.arange(size), level, color=BLUE, linewidth=1.2)
        axes.set_xlabel(name, fontsize=LABEL)
        axes.set_xticks([0, size // 2, size - 1])
        tidy(axes)
    panels[0].set_ylabel("energy, dB of the maximum", fontsize=LABEL)
    central = _central(width, left, right)
    panels[1].axvspan(central.start - 0.5, central.stop - 0.5, color=ORANGE, alpha=0.3, linewidth=0)
    panels[1].set_title(
        f"the central {central.stop - central.start} of {right - left} lines hold {share:.1f} % "
        "of the energy",
        fontsize=SMALL,
        loc="left",
    )
    for start, stop in ((0, left), (right, width)):
        if stop > start:
            panels[1].axvspan(start - 0.5, stop - 0.5, color="0.85", linewidth=0)
            panels[1].annotate(
                "padding", ((start + stop) / 2, 0.97), xycoords=("data", "axes fraction"),
                fontsize=SMALL, color=GREY, ha="center", va="top", rotation=90,
            )  # fmt: skip
    return figure


def oversampling_figure(look: ExploredSlice) -> Figure:
    """Show what the readout's oversampling is for: the whole image, cropped, and without it."""
    coils = centered_ifft2(look.kspace)
    whole = root_sum_of_squares(coils)
    cut = center_crop(whole, look.crop)
    # Every second sample of the readout: the field of view halves, what is outside folds in.
    half = look.kspace[:, look.kspace.shape[1] // 2 % 2 :: 2]
    folded = root_sum_of_squares(centered_ifft2(half))
    folded = center_crop(
        folded, (min(look.crop[0], folded.shape[0]), min(look.crop[1], folded.shape[1]))
    )
    percent = 100 / largest_signal(look, cut)
    window = window_of(cut * percent)
    figure = new_figure(
        9.4,
        3.7,
        title="Twice as many samples along the readout cost no time, and nothing folds over",
        synthetic=look.volume.synthetic,
    )
    panels = figure.subplots(1, 3, width_ratios=[1, 1, 1])
    scale = np.sqrt(look.kspace.shape[1] / half.shape[1])
    for axes, values, name in (
        (panels[0], whole, f"all samples, {whole.shape[0]} × {whole.shape[1]}"),
        (panels[1], cut, f"cropped, {cut.shape[0]} × {cut.shape[1]}"),
        (panels[2], folded * scale, "every second sample only"),
    ):
        drawn = show_image(axes, values * percent, window, name)
    top, left = ((a - b) / 2 for a, b in zip(whole.shape, cut.shape, strict=True))
    panels[0].plot(
        [left, left + cut.shape[1], left + cut.shape[1], left, left],
        [top, top, top + cut.shape[0], top + cut.shape[0], top],
        color=ORANGE,
        linewidth=1.2,
    )
    add_colour_bar(figure, drawn, list(panels), "signal, % of maximum", extend="max")
    return figure


def padding_figure(look: ExploredSlice) -> Figure:
    """Show what zero padding does: the acquired lines alone, padded as stored, and with more.

    Padding puts no new detail into an image: it draws the same one on smaller pixels.
    """
    left, right = look.acquired
    width = look.volume.matrix[1]
    middle = width // 2
    reach = min(middle - left, right - middle)  # symmetric about the centre of k-space
    alone = look.kspace[..., middle - reach : middle + reach]
    more = np.pad(look.kspace, [(0, 0), (0, 0), (width // 2, width - width // 2)])
    rows = look.crop[0]
    images = []
    for kspace in (alone, look.kspace, more):
        # One field of view, whatever the number of lines: columns shrink, the object stays.
        columns = max(1, round(look.crop[1] * kspace.shape[-1] / width))
        image = root_sum_of_squares(centered_ifft2(kspace))
        size = rows, min(columns, image.shape[1])
        images.append(center_crop(image, size) * np.sqrt(kspace.shape[-1] / width))
    percent = 100 / largest_signal(look, images[1])
    window = window_of(images[1] * percent)
    padded = width - (right - left)
    figure = new_figure(
        9.4,
        3.7,
        title=f"{padded} of {width} lines were never measured but are zeros: padding only "
        "interpolates"
        if padded
        else "Nothing is padded here: more zeros would only interpolate",
        synthetic=look.volume.synthetic,
    )
    panels = figure.subplots(1, 3)
    names = (
        f"the {2 * reach} lines about the centre alone",
        f"as stored, {width} lines",
        f"padded to {more.shape[-1]} lines",
    )
    for axes, image, name in zip(panels, images, names, strict=True):
        drawn = show_image(axes, image * percent, window, name)
        axes.set_aspect(image.shape[1] / image.shape[0] * rows / look.crop[1])
        side = image.shape[1]
        axes.set_xlim(0.3 * side, 0.6 * side)
        axes.set_ylim(0.4 * rows, 0.4 * rows + 0.3 * look.crop[1])
    add_colour_bar(figure, drawn, list(panels), "signal, % of maximum", extend="max")
    return figure


def _central(width: int, left: int, right: int, share: float = 0.08) -> slice:
    count = max(1, round((right - left) * share))
    start = (width - count + 1) // 2
    return slice(start, start + count)


def largest_signal(look: ExploredSlice, image: np.ndarray) -> float:
    """Return what is 100 %: the volume's maximum, without a target the image's."""
    return look.data_range if look.target is not None else float(image.max()) or 1.0


def _nan(size: int) -> np.ndarray:
    return np.full(size, np.nan)
