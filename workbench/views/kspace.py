"""Figures of what the scanner measures: k-space, masks, coils."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from workbench.data.images import root_sum_of_squares
from workbench.views.style import (
    BLUE,
    LABEL,
    ORANGE,
    SKY,
    SMALL,
    add_colour_bar,
    new_figure,
    show_image,
    tidy,
    window_of,
)

_COILS_A_ROW = 8


def acs_columns(mask: np.ndarray, low_frequencies: int | None = None) -> tuple[int, int]:
    """Return the first ACS column of a mask (W,) and the one after the last.

    Args:
        mask: sampled columns.
        low_frequencies: their number, where it is known; else the unbroken run of sampled columns
            around DC counts, to which a neighbouring line may belong by chance.
    """
    width = len(mask)
    if low_frequencies:
        start = (width - low_frequencies + 1) // 2
        return start, start + low_frequencies
    start = stop = width // 2
    while start > 0 and mask[start - 1]:
        start -= 1
    while stop < width and mask[stop]:
        stop += 1
    return start, stop


def sampling_in_words(
    mask: np.ndarray,
    low_frequencies: int | None = None,
    acquired: tuple[int, int] | None = None,
) -> str:
    """Say how much a mask (W,) samples: lines, true acceleration, ACS."""
    left, right = acquired or (0, len(mask))
    sampled = int(mask[left:right].sum())
    start, stop = acs_columns(mask, low_frequencies)
    rate = (right - left) / sampled if sampled else np.inf
    return (
        f"{sampled} of {right - left} lines sampled: {rate:.2f}× true acceleration, "
        f"ACS {stop - start} lines ({100 * (stop - start) / len(mask):.1f} %)"
    )


def decibels(kspace: np.ndarray) -> np.ndarray:
    """Return the magnitude of k-space ([coils,] H, W) over all coils, dB below its largest value.

    What is exactly zero is NaN.
    """
    magnitude = root_sum_of_squares(kspace if kspace.ndim == 3 else kspace[None])
    largest = magnitude.max() or 1.0
    return 20 * np.log10(
        magnitude / largest, where=magnitude > 0, out=np.full_like(magnitude, np.nan)
    )


def kspace_and_mask_figure(
    kspace: np.ndarray,
    mask: np.ndarray,
    *,
    low_frequencies: int | None = None,
    acquired: tuple[int, int] | None = None,
    title: str = "",
    synthetic: bool = False,
) -> Figure:
    """Show k-space, a mask, and what the mask leaves, with zero padding hatched.

    Args:
        kspace: (coils, H, W) or (H, W), H the readout. Where it is zero already outside the
            mask, as in test volumes, there is no full k-space to show.
        mask: (W,) bool, the sampled phase-encode columns.
        low_frequencies: number of ACS columns; found from the mask by default.
        acquired: first acquired column and the one after the last; all by default.
        title: a line above the one that says how much is sampled.
        synthetic: whether it is a phantom.

    Raises:
        ValueError: the shapes do not fit together.
    """
    _check_kspace(kspace)
    width = kspace.shape[-1]
    if mask.shape != (width,):
        raise ValueError(f"mask of shape {mask.shape}, kspace of {kspace.shape}: give ({width},)")
    left, right = acquired or (0, width)
    if not 0 <= left < right <= width:
        raise ValueError(f"acquired=({left}, {right}): give columns from 0 to {width}")
    sampled = mask.astype(bool) & (np.arange(width) >= left) & (np.arange(width) < right)
    full = bool(kspace[..., left:right][..., ~sampled[left:right]].any())
    words = sampling_in_words(sampled, low_frequencies, (left, right))
    figure = new_figure(
        11.6 if full else 8.0,
        4.15 + 0.25 * bool(title),
        title=f"{title}\n{words}" if title else words,
        synthetic=synthetic,
    )
    panels = figure.subplots(1, 3 if full else 2)
    level = decibels(kspace)
    window = (_floor(level), 0.0)
    if full:
        drawn = show_kspace(panels[0], level, window, "k-space, fully sampled")
    _show_mask(panels[-2], sampled, acs_columns(sampled, low_frequencies), kspace.shape[-2])
    if right - left < width:
        panels[-2].set_title("mask: sampled lines white, padding hatched", fontsize=LABEL)
    kept = np.where(sampled, level, np.nan)
    drawn = show_kspace(
        panels[-1], kept, window, "k-space, masked" if full else "k-space, sampled lines"
    )
    panels[0].set_ylabel("readout, sample", fontsize=LABEL)
    for axes in panels:
        _mark_padding(axes, (left, right), width)
    add_colour_bar(
        figure, drawn, list(panels), "magnitude over all coils, dB of the maximum", extend="min"
    )
    return figure


def point_spread(mask: np.ndarray) -> np.ndarray:
    """Return what a mask (W,) makes of one bright pixel in the middle: (W,), 1 at its true place.

    Zero everywhere where the mask samples nothing.
    """
    return np.abs(np.fft.fftshift(np.fft.fft(mask.astype(float)))) / max(1, int(mask.sum()))


def point_spread_figure(mask: np.ndarray, *, title: str = "", synthetic: bool = False) -> Figure:
    """Plot what a mask (W,) makes of one bright pixel, along the phase-encode direction.

    The point spread function is the mask's Fourier transform; its side peaks are where an object's
    copies fall when the missing lines are left at zero.

    Raises:
        ValueError: the mask has not one axis, or samples nothing.
    """
    if mask.ndim != 1 or not mask.any():
        raise ValueError(f"mask of shape {mask.shape}: give (W,) with one sampled column or more")
    width = len(mask)
    spread = point_spread(mask)
    shift = np.arange(width) - width // 2
    figure = new_figure(9.6, 2.7, title=title, synthetic=synthetic)
    axes = figure.subplots()
    axes.vlines(shift, 0, 100 * spread, color=BLUE, linewidth=1.4)
    axes.set_xlabel("distance along phase encode, pixels", fontsize=LABEL)
    axes.set_ylabel("signal,\n% of the true place", fontsize=LABEL)
    axes.set_xlim(shift[0] - 1, shift[-1] + 1)
    axes.set_ylim(0, 105)
    tidy(axes)
    return figure


def coils_figure(images: np.ndarray, *, title: str = "", synthetic: bool = False) -> Figure:
    """Show the magnitude and the phase of coil images (coils, H, W), complex, all coils alike."""
    _check_coils(images)
    magnitude = np.abs(images)
    percent = 100 * magnitude / (magnitude.max() or 1.0)
    window = window_of(percent)
    # Phase in air is noise: it fades with the signal.
    seen = np.nan_to_num(np.clip(magnitude / (0.05 * window_of(magnitude)[1]), 0, 1) ** 2)
    return _coil_grid(percent, images, seen, window, "signal, % of max.", "gray", title, synthetic)


def sensitivities_figure(maps: np.ndarray, *, title: str = "", synthetic: bool = False) -> Figure:
    """Show the magnitude and the phase of sensitivity maps (coils, H, W), complex."""
    _check_coils(maps)
    magnitude = np.abs(maps)
    inside = (magnitude > 0).any(axis=0)
    shown = np.where(inside, magnitude, np.nan)
    seen = np.broadcast_to(inside, maps.shape).astype(float)
    return _coil_grid(shown, maps, seen, (0, 1), "sensitivity", "viridis", title, synthetic)


def _coil_grid(
    magnitude: np.ndarray,
    images: np.ndarray,
    seen: np.ndarray,
    window: tuple[float, float],
    label: str,
    colours: str,
    title: str,
    synthetic: bool,
) -> Figure:
    """Lay out coils in rows of at most eight: magnitude above, phase below."""
    coils, height, width = images.shape
    columns = min(coils, _COILS_A_ROW)
    blocks = -(-coils // columns)
    panel = min(2.6, max(1.4, 11 / columns))
    figure = new_figure(
        panel * columns + 0.9,
        blocks * (2 * panel * height / width + 0.3) + 0.6,
        title=title,
        synthetic=synthetic,
    )
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    phase = np.angle(images)
    for coil in range(coils):
        row, column = 2 * (coil // columns), coil % columns
        upper, lower = axes[row, column], axes[row + 1, column]
        first = show_image(upper, magnitude[coil], window, f"coil {coil}", colours=colours)
        lower.add_patch(_backdrop(lower))
        second = show_image(
            lower, phase[coil], (-np.pi, np.pi), colours="twilight", alpha=seen[coil]
        )
    extend = "max" if window[1] > 1 else "neither"
    for upper, lower in zip(axes[0::2], axes[1::2], strict=True):
        add_colour_bar(figure, first, list(upper), label, extend=extend)
        bar = add_colour_bar(figure, second, list(lower), "phase, rad")
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    return figure


def _backdrop(axes: Axes) -> Rectangle:
    """Return a grey ground, on which both ends of the phase's colours can be told."""
    return Rectangle((0, 0), 1, 1, transform=axes.transAxes, color="0.55", zorder=-1)


def show_kspace(
    axes: Axes, level: np.ndarray, window: tuple[float, float], title: str
) -> AxesImage:
    """Show a level of k-space (H, W), dB, as stored: readout downwards, phase encode across."""
    height, width = level.shape
    drawn = axes.imshow(level, cmap="gray", vmin=window[0], vmax=window[1])
    axes.set_facecolor("black")
    _label_axes(axes, height, width, title)
    return drawn


def _show_mask(axes: Axes, sampled: np.ndarray, acs: tuple[int, int], height: int) -> None:
    axes.imshow(np.broadcast_to(sampled, (height, len(sampled))), cmap="gray", vmin=0, vmax=1)
    _label_axes(axes, height, len(sampled), "mask: sampled lines white")
    for column in acs:
        axes.axvline(column - 0.5, color=ORANGE, linewidth=1.4)
    axes.annotate(
        "ACS",
        (acs[1] + 0.01 * len(sampled), 0.04 * height),
        color="black",
        fontsize=SMALL,
        va="top",
        bbox={"facecolor": ORANGE, "edgecolor": "none", "pad": 1.5},
    )


def _label_axes(axes: Axes, height: int, width: int, title: str) -> None:
    """Label phase encode and readout; the readout, sampled twice as densely, is drawn square."""
    axes.set_aspect(width / height)
    axes.set_title(title, fontsize=LABEL)
    axes.set_xlabel("phase encode, line", fontsize=LABEL)
    axes.set_xticks([0, width // 2, width - 1])
    axes.set_yticks([0, height // 2, height - 1])
    axes.tick_params(labelsize=SMALL)


def _mark_padding(axes: Axes, acquired: tuple[int, int], width: int) -> None:
    for start, stop in ((0, acquired[0]), (acquired[1], width)):
        if stop > start:
            axes.axvspan(
                start - 0.5, stop - 0.5, facecolor="#123", edgecolor=SKY, hatch="/////", linewidth=0
            )


def _floor(level: np.ndarray) -> float:
    """Return the lowest level to show: the noise, in whole tens of dB, -120 to -40."""
    finite = level[np.isfinite(level)]
    noise = float(np.percentile(finite, 2)) if finite.size else -80.0
    return float(np.clip(10 * np.floor(noise / 10), -120, -40))


def _check_kspace(kspace: np.ndarray) -> None:
    if kspace.ndim not in (2, 3):
        raise ValueError(f"kspace of shape {kspace.shape}: give one slice, ([coils,] H, W)")


def _check_coils(images: np.ndarray) -> None:
    if images.ndim != 3 or not np.iscomplexobj(images):
        raise ValueError(f"{images.dtype} of shape {images.shape}: give complex (coils, H, W)")
