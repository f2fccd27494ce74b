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

    Without ``low_frequencies``, the number of ACS columns, the unbroken run of sampled columns
    around DC counts, which by chance may include a neighbouring line.
    """
    width = len(mask)
    if low_frequencies:
        start = (width - low_frequencies + 1) // 2
        return start, start + low_frequencies
    gaps, middle = np.flatnonzero(~mask.astype(bool)).tolist(), width // 2
    start = max((gap + 1 for gap in gaps if gap < middle), default=0)
    return start, min((gap for gap in gaps if gap >= middle), default=width)


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
    share = magnitude / (magnitude.max() or 1.0)
    return 20 * np.log10(share, where=share > 0, out=np.full_like(share, np.nan))


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
        kspace: ([coils,] H, W), H the readout. Where it is zero outside the mask, as in test
            volumes, there is no panel of full k-space.
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
    size = 11.6 if full else 8.0, 4.15 + 0.25 * bool(title)
    figure = new_figure(*size, title=f"{title}\n{words}".strip(), synthetic=synthetic)
    panels = figure.subplots(1, 3 if full else 2)
    level = decibels(kspace)
    known = level[np.isfinite(level)]
    # The darkest level is the noise, in whole tens of dB.
    noise = float(np.percentile(known, 2)) if known.size else -80.0
    window = (float(np.clip(10 * np.floor(noise / 10), -120, -40)), 0.0)
    if full:
        show_kspace(panels[0], level, window, "k-space, fully sampled")
    hatched = ", padding hatched" if right - left < width else ""
    lines = np.broadcast_to(sampled, (height, width))
    show_kspace(panels[-2], lines, (0, 1), f"mask: sampled lines white{hatched}")
    acs = acs_columns(sampled, low_frequencies)
    for column in acs:
        panels[-2].axvline(column - 0.5, color=ORANGE, linewidth=1.4)
    ground = {"facecolor": ORANGE, "edgecolor": "none", "pad": 1.5}
    place = (acs[1] + 0.01 * width, 0.04 * height)
    panels[-2].annotate("ACS", place, color="black", fontsize=SMALL, va="top", bbox=ground)
    kept = "k-space, masked" if full else "k-space, sampled lines"
    drawn = show_kspace(panels[-1], np.where(sampled, level, np.nan), window, kept)
    panels[0].set_ylabel("readout, sample", fontsize=LABEL)
    for axes in panels:
        for start, stop in ((0, left), (right, width)):
            if stop > start:
                span = (start - 0.5, stop - 0.5)
                axes.axvspan(*span, facecolor="#123", edgecolor=SKY, hatch="/////", linewidth=0)
    label = "magnitude over all coils, dB of the maximum"
    add_colour_bar(figure, drawn, panels, label, extend="min")
    return figure


def show_kspace(
    axes: Axes, level: np.ndarray, window: tuple[float, float], title: str
) -> AxesImage:
    """Show k-space (H, W), in dB, as stored: readout downwards, phase encode across.

    The readout, sampled twice as densely, is drawn square.
    """
    height, width = level.shape
    drawn = axes.imshow(level, cmap="gray", vmin=window[0], vmax=window[1], aspect=width / height)
    axes.set_facecolor("black")
    axes.set_title(title, fontsize=LABEL)
    axes.set_xlabel("phase encode, line", fontsize=LABEL)
    axes.set_xticks([0, width // 2, width - 1])
    axes.set_yticks([0, height // 2, height - 1])
    axes.tick_params(labelsize=SMALL)
    return drawn


def coils_figure(
    images: np.ndarray, *, sensitivities: bool = False, title: str = "", synthetic: bool = False
) -> Figure:
    """Show magnitude (above) and phase (below) of complex images (coils, H, W), eight in a row.

    ``sensitivities`` says that they are sensitivity maps, which are 0 in air, not coil images.
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
    pairs = zip(axes[0::2].flat, axes[1::2].flat, strict=True)
    for coil, (upper, lower) in zip(range(coils), pairs, strict=False):
        first = show_image(upper, magnitude[coil], window, f"coil {coil}", colours=colours)
        # Both ends of the phase's colours stand out from grey.
        grey = Rectangle((0, 0), 1, 1, transform=lower.transAxes, color="0.55", zorder=-1)
        lower.add_patch(grey)
        phase = np.angle(images[coil])
        second = show_image(lower, phase, (-np.pi, np.pi), colours="twilight", alpha=seen[coil])
    for above, below in zip(axes[0::2], axes[1::2], strict=True):
        add_colour_bar(figure, first, above, label, extend=extend)
        bar = add_colour_bar(figure, second, below, "phase, rad", extend="neither")
        bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    return figure
