"""Figures of what the scanner measures: k-space, masks, coils."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from workbench.data.images import root_sum_of_squares
from workbench.views.style import (
    LABEL,
    ORANGE,
    SKY,
    SMALL,
    add_colour_bar,
    new_figure,
    show_image,
    window_of,
)

_COILS_A_ROW = 8


def acs_columns(mask: np.ndarray, low_frequencies: int | None = None) -> tuple[int, int]:
    """Return the first ACS column of a mask (W,) and the one after the last.

    Args:
        mask: sampled columns.
        low_frequencies: number of ACS columns. By default the unbroken run of sampled columns
            around DC counts, which by chance may include a neighbouring line.
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
    """Return the magnitude of k-space ([coils,] H, W) over all coils, in dB of its largest value.

    Zeros become NaN.
    """
    magnitude = root_sum_of_squares(kspace if kspace.ndim == 3 else kspace[None])
    largest = magnitude.max() or 1.0
    return 20 * np.log10(
        magnitude / largest, where=magnitude > 0, out=np.full_like(magnitude, np.nan)
    )


def point_spread(mask: np.ndarray) -> np.ndarray:
    """Return the point spread function (W,) of a mask (W,): 1 at the centre; 0 for no samples.

    It is the magnitude of the mask's Fourier transform. Its side peaks are where copies of the
    object fall when the missing lines are left at zero.
    """
    return np.abs(np.fft.fftshift(np.fft.fft(mask.astype(float)))) / max(1, int(mask.sum()))


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
        kspace: (coils, H, W) or (H, W), H the readout. Where it is zero outside the mask, as in
            test volumes, there is no panel of full k-space.
        mask: (W,) bool, the sampled phase-encode columns.
        low_frequencies: number of ACS columns; found from the mask by default.
        acquired: first acquired column and the one after the last; all by default.
        title: a line above the one that says how much is sampled.
        synthetic: whether it is a phantom.
    """
    height, width = kspace.shape[-2:]
    left, right = acquired or (0, width)
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
    known = level[np.isfinite(level)]
    # The darkest level is the noise, in whole tens of dB.
    noise = float(np.percentile(known, 2)) if known.size else -80.0
    window = (float(np.clip(10 * np.floor(noise / 10), -120, -40)), 0.0)
    if full:
        show_kspace(panels[0], level, window, "k-space, fully sampled")
    panels[-2].imshow(np.broadcast_to(sampled, (height, width)), cmap="gray", vmin=0, vmax=1)
    hatched = ", padding hatched" if right - left < width else ""
    _label_axes(panels[-2], height, width, f"mask: sampled lines white{hatched}")
    _mark_acs(panels[-2], acs_columns(sampled, low_frequencies), height, width)
    kept = "k-space, masked" if full else "k-space, sampled lines"
    drawn = show_kspace(panels[-1], np.where(sampled, level, np.nan), window, kept)
    panels[0].set_ylabel("readout, sample", fontsize=LABEL)
    for axes in panels:
        for start, stop in ((0, left), (right, width)):
            if stop > start:
                span = (start - 0.5, stop - 0.5)
                axes.axvspan(*span, facecolor="#123", edgecolor=SKY, hatch="/////", linewidth=0)
    label = "magnitude over all coils, dB of the maximum"
    add_colour_bar(figure, drawn, list(panels), label, extend="min")
    return figure


def show_kspace(
    axes: Axes, level: np.ndarray, window: tuple[float, float], title: str
) -> AxesImage:
    """Show k-space (H, W), in dB, as stored: readout downwards, phase encode across."""
    drawn = axes.imshow(level, cmap="gray", vmin=window[0], vmax=window[1])
    axes.set_facecolor("black")
    height, width = level.shape
    _label_axes(axes, height, width, title)
    return drawn


def _label_axes(axes: Axes, height: int, width: int, title: str) -> None:
    """Label phase encode and readout; the readout, sampled twice as densely, is drawn square."""
    axes.set_aspect(width / height)
    axes.set_title(title, fontsize=LABEL)
    axes.set_xlabel("phase encode, line", fontsize=LABEL)
    axes.set_xticks([0, width // 2, width - 1])
    axes.set_yticks([0, height // 2, height - 1])
    axes.tick_params(labelsize=SMALL)


def _mark_acs(axes: Axes, acs: tuple[int, int], height: int, width: int) -> None:
    for column in acs:
        axes.axvline(column - 0.5, color=ORANGE, linewidth=1.4)
    axes.annotate(
        "ACS",
        (acs[1] + 0.01 * width, 0.04 * height),
        color="black",
        fontsize=SMALL,
        va="top",
        bbox={"facecolor": ORANGE, "edgecolor": "none", "pad": 1.5},
    )


def coils_figure(
    images: np.ndarray, *, sensitivities: bool = False, title: str = "", synthetic: bool = False
) -> Figure:
    """Show magnitude (above) and phase (below) of each coil, in rows of at most eight coils.

    Args:
        images: (coils, H, W) complex.
        sensitivities: whether these are sensitivity maps, which are 0 in air, or coil images.
        title: the figure's message.
        synthetic: whether they are of a phantom.
    """
    magnitude = np.abs(images)
    if sensitivities:
        inside = (magnitude > 0).any(axis=0)
        seen = np.broadcast_to(inside, images.shape).astype(float)
        magnitude, window = np.where(inside, magnitude, np.nan), (0.0, 1.0)
        label, colours, extend = "sensitivity", "viridis", "neither"
    else:
        # Phase in air is noise: it fades with the signal.
        seen = np.nan_to_num(np.clip(magnitude / (0.05 * window_of(magnitude)[1]), 0, 1) ** 2)
        magnitude = 100 * magnitude / (magnitude.max() or 1.0)
        window = window_of(magnitude)
        label, colours, extend = "signal, % of max.", "gray", "max"
    coils, height, width = images.shape
    columns = min(coils, _COILS_A_ROW)
    blocks = -(-coils // columns)
    panel = min(2.6, max(1.4, 11 / columns))
    size = panel * columns + 0.9, blocks * (2 * panel * height / width + 0.3) + 0.6
    figure = new_figure(*size, title=title, synthetic=synthetic)
    axes = figure.subplots(2 * blocks, columns, squeeze=False)
    for place in axes.flat:
        place.set_axis_off()
    for coil in range(coils):
        row, column = 2 * (coil // columns), coil % columns
        upper, lower = axes[row, column], axes[row + 1, column]
        first = show_image(upper, magnitude[coil], window, f"coil {coil}", colours=colours)
        # Both ends of the phase's colours stand out from grey.
        grey = Rectangle((0, 0), 1, 1, transform=lower.transAxes, color="0.55", zorder=-1)
        lower.add_patch(grey)
        phase = np.angle(images[coil])
        second = show_image(lower, phase, (-np.pi, np.pi), colours="twilight", alpha=seen[coil])
    for upper, lower in zip(axes[0::2], axes[1::2], strict=True):
        add_colour_bar(figure, first, list(upper), label, extend=extend)
        bar = add_colour_bar(figure, second, list(lower), "phase, rad")
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    return figure
