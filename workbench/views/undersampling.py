"""What leaving lines out does to a slice: masks, sensitivity maps, aliasing, and sliders to try."""

import base64
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import (
    center_crop,
    centered_ifft2,
    root_sum_of_squares,
    sensitivity_maps,
)
from workbench.data.reading import keep_columns
from workbench.data.sampling import MASKS, Sampling, acs_count
from workbench.progress import interactive
from workbench.views.explored import ExploredSlice
from workbench.views.kspace import (
    coils_figure,
    decibels,
    kspace_and_mask_figure,
    point_spread,
)
from workbench.views.reconstructions import (
    contact_sheet,
    metrics_text,
    reconstruction_figure,
    slice_scores,
)
from workbench.views.style import (
    BLUE,
    LABEL,
    SMALL,
    add_colour_bar,
    frame,
    html_of,
    new_figure,
    png,
    show_image,
    window_of,
)

if TYPE_CHECKING:
    import ipywidgets

_DPI = 112  # 1,456 pixels wide, and never enlarged, so always crisp
_DARKEST = -70.0  # dB
_ERROR = 20.0  # % of the maximum


def sensitivity_maps_figure(explored: ExploredSlice) -> Figure:
    """Show sensitivity maps estimated from the ACS lines of a mask."""
    mask, low_frequencies = explored.mask
    low_frequencies = low_frequencies or max(1, acs_count(mask))  # as networks do
    maps = sensitivity_maps(explored.kspace, low_frequencies)
    return coils_figure(
        center_crop(maps, explored.crop),
        sensitivities=True,
        title=f"Sensitivity maps, estimated from {low_frequencies} ACS lines "
        "(low-resolution coil images over their root sum of squares)",
        synthetic=explored.volume.synthetic,
    )


def kspace_figure(explored: ExploredSlice) -> Figure:
    """Show k-space, the mask, and what it leaves."""
    mask, low_frequencies = explored.mask
    return kspace_and_mask_figure(
        explored.kspace,
        mask,
        low_frequencies=low_frequencies,
        acquired=explored.volume.acquired,
        title=f"{explored.title}: {explored.form}",
        synthetic=explored.volume.synthetic,
    )


def spread_figure(explored: ExploredSlice) -> Figure:
    """Plot the point spread function of a mask: where the signal of one bright pixel goes."""
    spread = 100 * point_spread(explored.mask[0])
    shift = np.arange(len(spread)) - len(spread) // 2
    title, synthetic = f"One bright pixel, seen through {explored.form}", explored.volume.synthetic
    figure = new_figure(9.6, 2.7, title=title, synthetic=synthetic)
    axes = figure.subplots()
    axes.vlines(shift, 0, spread, color=BLUE, linewidth=1.4)
    axes.set(xlim=(shift[0] - 1, shift[-1] + 1), ylim=(0, 105))
    y = "signal,\n% of the true place"
    frame(axes, x="distance along phase encode, pixels", y=y)
    return figure


def aliasing_figure(explored: ExploredSlice) -> Figure:
    """Show the zero-filled image of a mask beside the target, if there is one."""
    image, synthetic = explored.zero_filled(), explored.volume.synthetic
    if explored.target is None:
        title, label = (
            f"{explored.title} has no target to compare with",
            "zero-filled, its own mask",
        )
        return contact_sheet([image], [label], title=title, synthetic=synthetic)
    return reconstruction_figure(
        center_crop(explored.target, explored.crop),
        image,
        {},
        title=f"Aliasing: what zeros in place of lines do\n{explored.title}, {explored.form}",
        data_range=explored.data_range,
        synthetic=synthetic,
    )


def masks_figure(explored: ExploredSlice) -> Figure:
    """Show the zero-filled images of three forms of mask at four accelerations, with their SSIM.

    A volume without target, or with its own mask, has only one image to show.
    """
    if explored.undersampled or explored.target is None:
        return aliasing_figure(explored)
    target = center_crop(explored.target, explored.crop)
    percent, (left, right) = 100 / explored.data_range, explored.volume.acquired
    images, labels = [], []
    for form in ("equispaced", "equispaced_fraction", "random"):
        for acceleration in (2, 4, 6, 8):
            # The ACS takes at most half of the sampled lines.
            fraction = min(explored.sampling.center_fractions[0], 0.5 / acceleration)
            masked = replace(explored, sampling=Sampling(form, (acceleration,), (fraction,)))
            image = masked.zero_filled()
            ssim = slice_scores(image, target, explored.data_range)["ssim"]
            images.append(image * percent)
            true = (right - left) / masked.mask[0].sum()
            labels.append(f"{form} {acceleration}× (true {true:.1f}×)\nSSIM {ssim:.3f}")
    return contact_sheet(
        images,
        labels,
        columns=4,
        window=(0.0, window_of(target)[1] * percent),
        title=f"Zero-filled images by form and acceleration of the mask\n{explored.title}",
        synthetic=explored.volume.synthetic,
    )


class SlicePicture:
    """Five panels of one volume, drawn again and again; only what changes is replaced."""

    def __init__(self, explored: ExploredSlice) -> None:
        height, width = explored.volume.matrix
        self.figure = new_figure(13, 6.5, synthetic=explored.volume.synthetic)
        # Texts that are replaced in ``draw``: the layout leaves room for them.
        self.figure.suptitle("-", fontsize=11, fontweight="bold")
        grid = self.figure.add_gridspec(2, 4, height_ratios=(3, 1))
        blank = np.zeros(explored.crop, np.float32)
        kspace, unit = np.zeros((height, width), np.float32), (0.0, 1.0)
        self._images = [
            show_image(
                self.figure.add_subplot(grid[0, column]), start, window, "-\n-", colours=name
            )
            for column, (start, window, name) in enumerate(
                (
                    (kspace, (_DARKEST, 0.0), "gray"),
                    (blank, unit, "gray"),
                    (blank, unit, "gray"),
                    (blank, (0.0, _ERROR), "inferno"),
                )
            )
        ]
        self._images[0].axes.set_aspect(width / height)
        self._images[0].axes.invert_yaxis()  # k-space is shown as stored
        shift = np.arange(width) - width // 2
        self._below = below = self.figure.add_subplot(grid[1, :])
        (self._spread,) = below.plot(shift, np.zeros(width), color=BLUE, linewidth=1.2)
        frame(below, "-", x="distance along phase encode, pixels", y="signal, %")
        below.set(xlim=(shift[0], shift[-1]), ylim=(0, 105))
        below.xaxis.label.set_fontsize(SMALL + 0.5)
        below.yaxis.label.set_fontsize(SMALL + 0.5)
        for image, label in zip(
            self._images,
            ("dB of the maximum", *["signal, % of max."] * 2, "error, % of max."),
            strict=True,
        ):
            extend = "min" if label.startswith("dB") else "max"
            add_colour_bar(self.figure, image, [image.axes], label, extend=extend, side="bottom")
        self._slice = lru_cache(maxsize=4)(explored.other)
        png(self.figure, _DPI, quick=True)
        # The layout stays from here on: computing it anew would take most of the time.
        self.figure.set_layout_engine("none")

    def draw(self, number: int, coil: int, sampling: Sampling) -> str:
        """Draw slice, coil and mask; return the picture as HTML."""
        explored = replace(self._slice(number), sampling=sampling)
        percent = 100 / explored.data_range
        mask, _ = explored.mask
        kspace = keep_columns(explored.kspace, mask)
        coils = center_crop(centered_ifft2(kspace), explored.crop)
        image = root_sum_of_squares(coils).astype(np.float32)
        one = np.abs(coils[coil]) * percent
        left, right = explored.volume.acquired
        rate = (right - left) / max(1, int(mask[left:right].sum()))
        # The target's window makes brightness comparable from mask to mask.
        window, said = window_of(image * percent), ("zero-filled", "no target, no error")
        error = np.zeros_like(image)
        if explored.target is not None:
            target = center_crop(explored.target, explored.crop)
            window, error = (0.0, window_of(target)[1] * percent), np.abs(image - target) * percent
            text = f"zero-filled\n{metrics_text(image, target, explored.data_range)}"
            said = text, f"error ×{100 / _ERROR:.0f}"
        level = np.nan_to_num(decibels(kspace), nan=_DARKEST)
        shown = (
            (level, f"masked k-space\ntrue acceleration {rate:.2f}", None),
            (one, f"coil {coil}, zero-filled", window_of(one)),
            (image * percent, said[0], window),
            (error, said[1], None),
        )
        for panel, (values, title, limits) in zip(self._images, shown, strict=True):
            panel.set_data(values)
            panel.axes.set_title(title, fontsize=LABEL)
            if limits:
                panel.set_clim(*limits)
        spread = 100 * point_spread(mask)
        self._spread.set_ydata(spread)
        away = np.abs(np.arange(len(spread)) - len(spread) // 2)
        beyond = np.where(away > len(spread) / 24, spread, 0)
        place = int(beyond.argmax())
        copy = f"{beyond[place]:.0f} % of the signal, {away[place]} pixels away"
        text = f"point spread function: the strongest copy has {copy}"
        self._below.set_title(text, fontsize=10, loc="left")
        self.figure.suptitle(f"{explored.title}: {explored.form}", fontsize=11, fontweight="bold")
        picture = base64.b64encode(png(self.figure, _DPI, quick=True)).decode()
        width, height = (round(inches * _DPI) for inches in self.figure.get_size_inches())
        alt = self.figure.alt
        return html_of(picture, alt=alt, width=width, height=height, kind="wb-image")


def explorer(explored: ExploredSlice) -> "ipywidgets.VBox | Figure":
    """Make sliders for slice, coil and mask; outside JupyterLab, a sheet of masks."""
    return sliders(explored) if interactive() else masks_figure(explored)


def sliders(explored: ExploredSlice) -> "ipywidgets.VBox":
    """Make the sliders, a line for messages, and the picture below them."""
    from ipywidgets import HTML, Dropdown, FloatSlider, HBox, IntSlider, Label, VBox

    picture, sampling = SlicePicture(explored), explored.sampling
    (rate,), (share,) = sampling.accelerations, sampling.center_fractions
    wide = {"style": {"description_width": "8em"}, "layout": {"width": "24em"}}
    masked = {**wide, "disabled": explored.undersampled}
    rates = {"min": 1, "max": max(16, rate), "step": 0.5}
    shares = {"min": min(0.01, share), "max": max(0.5, share), "step": 0.01}
    last = explored.volume.slices - 1, explored.volume.coils - 1
    controls = [
        IntSlider(explored.number, 0, last[0], description="slice", **wide),
        IntSlider(0, 0, last[1], description="coil", **wide),
        Dropdown(options=MASKS, value=sampling.mask, description="mask", **masked),
        FloatSlider(rate, **rates, description="acceleration", **masked),
        FloatSlider(share, **shares, description="centre fraction", **masked),
    ]
    shown, message = HTML(picture.draw(explored.number, 0, sampling)), Label()

    def redraw(_: object) -> None:
        number, coil, form, rate, share = (control.value for control in controls)
        try:
            shown.value = picture.draw(number, coil, Sampling(form, (rate,), (share,)))
            message.value = ""
        except ValueError as error:
            message.value = f"Not drawn: {error}"

    for control in controls:
        control.observe(redraw, "value")
    return VBox([HBox(controls, layout={"flex_flow": "row wrap"}), message, shown])
