"""Sliders over a volume: slice, coil and mask, and at once what they do. For JupyterLab only.

Below the images, the point spread function: where the mask sends the signal of one bright pixel.
"""

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from workbench.data.images import center_crop, centered_ifft2, root_sum_of_squares
from workbench.data.sampling import MASKS, Sampling
from workbench.data.slices import keep_columns
from workbench.views.explore import ExploredSlice
from workbench.views.kspace import decibels, point_spread
from workbench.views.reconstructions import metrics_text
from workbench.views.style import BLUE, SMALL, new_figure, png, show_image, tidy, window_of

if TYPE_CHECKING:
    import ipywidgets

_DPI = 88
_FLOOR = -70.0  # dB
_ERROR = 20.0  # % of the maximum


class SlicePicture:
    """Five panels of one volume that are drawn again and again: only what changes is changed.

    Args:
        look: any slice of the volume.
    """

    def __init__(self, look: ExploredSlice) -> None:
        self._look = look
        self._percent = 100 / look.data_range
        self._figure = new_figure(13, 5.2, synthetic=look.volume.synthetic)
        self._figure.suptitle(" ", fontsize=11, fontweight="bold")
        height, width = look.volume.matrix
        blank = np.zeros(look.crop, np.float32)
        windows = ((_FLOOR, 0.0), (0.0, 1.0), (0.0, 1.0), (0.0, _ERROR))
        colours = ("gray", "gray", "gray", "inferno")
        starts = (np.zeros((height, width), np.float32), blank, blank, blank)
        grid = self._figure.add_gridspec(2, 4, height_ratios=(3, 1))
        panels = [self._figure.add_subplot(grid[0, column]) for column in range(4)]
        self._images = [
            show_image(axes, start, window, " ", colours=name)
            for axes, start, window, name in zip(panels, starts, windows, colours, strict=True)
        ]
        self._images[0].axes.set_aspect(width / height)
        self._images[0].axes.invert_yaxis()  # k-space is shown as stored
        self._below = self._figure.add_subplot(grid[1, :])
        self._spread = self._point_spread(self._below, width)
        self._slice = lru_cache(maxsize=4)(look.other)
        png(self._figure, _DPI, quick=True)
        # Places stay as they are from here on: laying out anew would take most of the time.
        self._figure.set_layout_engine("none")

    def draw(self, number: int, coil: int, sampling: Sampling) -> bytes:
        """Draw slice, coil and mask; return a PNG file."""
        look = self._slice(number)
        mask, _ = look.mask(sampling)
        kspace = keep_columns(look.kspace, mask)
        coils = center_crop(centered_ifft2(kspace), look.crop)
        image = root_sum_of_squares(coils).astype(np.float32)
        left, right = look.acquired
        rate = (right - left) / max(1, int(mask[left:right].sum()))
        one = np.abs(coils[coil]) * self._percent
        spread = 100 * point_spread(mask)
        self._spread.set_ydata(spread)
        self._below.set_title(self._said_of_spread(spread), fontsize=10, loc="left")
        self._set(
            0,
            np.nan_to_num(decibels(kspace), nan=_FLOOR),
            f"masked k-space, true {rate:.2f}×",
            None,
        )
        self._set(1, one, f"coil {coil}, zero-filled", window_of(one))
        if look.target is None:
            self._set(2, image * self._percent, "zero-filled", window_of(image * self._percent))
            self._set(3, np.zeros_like(image), "no target, no error", None)
        else:
            target = center_crop(look.target, look.crop)
            # The target's window, so that brightness can be compared from mask to mask.
            window = (0.0, window_of(target)[1] * self._percent)
            text = f"zero-filled: {metrics_text(image, target, look.data_range)}"
            self._set(2, image * self._percent, text, window)
            error = np.abs(image - target) * self._percent
            self._set(3, error, f"error ×{100 / _ERROR:.0f}: 0 to {_ERROR:.0f} % of max.", None)
        said = "its own mask" if look.undersampled else str(sampling)
        self._figure.suptitle(f"{look.title}: {said}", fontsize=11, fontweight="bold")
        return png(self._figure, _DPI, quick=True)

    @staticmethod
    def _point_spread(axes: Axes, width: int) -> Line2D:
        shift = np.arange(width) - width // 2
        (line,) = axes.plot(shift, np.zeros(width), color=BLUE, linewidth=1.2)
        axes.set(xlim=(shift[0], shift[-1]), ylim=(0, 105), title=" ")
        axes.set_xlabel("distance along phase encode, pixels", fontsize=SMALL + 0.5)
        axes.set_ylabel("signal, %", fontsize=SMALL + 0.5)
        tidy(axes)
        return line

    @staticmethod
    def _said_of_spread(spread: np.ndarray) -> str:
        middle = len(spread) // 2
        away = np.abs(np.arange(len(spread)) - middle)
        beyond = np.where(away > len(spread) / 24, spread, 0)
        at, level = int(beyond.argmax()), float(beyond.max())
        return (
            f"point spread function: the strongest copy has {level:.0f} % of the signal, "
            f"{abs(at - middle)} pixels away"
        )

    def _set(
        self, panel: int, values: np.ndarray, title: str, window: tuple[float, float] | None
    ) -> None:
        image = self._images[panel]
        image.set_data(values)
        if window is not None:
            image.set_clim(*window)
        image.axes.set_title(title, fontsize=10)


def explorer(look: ExploredSlice, sampling: Sampling) -> "ipywidgets.VBox":
    """Make sliders for slice, coil, acceleration, centre fraction and form of the mask.

    Args:
        look: the slice to begin with.
        sampling: the mask to begin with.
    """
    import ipywidgets

    picture = SlicePicture(look)
    volume = look.volume
    wide = {"style": {"description_width": "8em"}, "layout": {"width": "24em"}}
    number = ipywidgets.IntSlider(look.number, 0, volume.slices - 1, description="slice", **wide)
    coil = ipywidgets.IntSlider(0, 0, volume.coils - 1, description="coil", **wide)
    form = ipywidgets.Dropdown(options=MASKS, value=sampling.mask, description="mask", **wide)
    rate = ipywidgets.FloatSlider(
        sampling.accelerations[0],
        min=1,
        max=max(16, sampling.accelerations[0]),
        step=0.5,
        description="acceleration",
        **wide,
    )
    centre = ipywidgets.FloatSlider(
        sampling.center_fractions[0],
        min=min(0.01, sampling.center_fractions[0]),
        max=max(0.5, sampling.center_fractions[0]),
        step=0.01,
        description="centre fraction",
        **wide,
    )
    shown = ipywidgets.Image(
        format="png", value=picture.draw(look.number, 0, sampling), layout={"width": "100%"}
    )
    message = ipywidgets.Label()
    for mask_slider in (form, rate, centre):
        mask_slider.disabled = look.undersampled

    def redraw(_: object) -> None:
        try:
            chosen = Sampling(form.value, (rate.value,), (centre.value,))
        except ValueError as error:
            message.value = f"Not drawn: {error}"
            return
        message.value = ""
        shown.value = picture.draw(number.value, coil.value, chosen)

    sliders = [number, coil, form, rate, centre]
    for slider in sliders:
        slider.observe(redraw, "value")
    return ipywidgets.VBox(
        [ipywidgets.HBox(sliders, layout={"flex_flow": "row wrap"}), message, shown]
    )
