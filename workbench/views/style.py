"""What all figures share: size, letters, colours, and the note that says what is synthetic.

Figures are made without pyplot: none is registered anywhere, so none has to be closed.
"""

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text

from workbench.progress import interactive

DPI = 110
TITLE, LABEL, SMALL = 12, 10, 8.5

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color), told apart with any colour vision.
BLUE, ORANGE, GREEN, PINK = "#0072B2", "#E69F00", "#009E73", "#CC79A7"
SKY, RED, YELLOW = "#56B4E9", "#D55E00", "#F0E442"
COLOURS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW)
GREY = "#5f5f5f"

Look = dict[str, Any]
"""How something is drawn, as matplotlib's arguments."""

SYNTHETIC_NOTE = "synthetic phantom, not patient data"


class NotebookFigure(Figure):
    """A figure that a notebook shows as it is, whether or not pyplot was ever imported.

    Texts are drawn as they are: names of files and runs come from outside, and a "$" in them must
    neither become a formula nor fail as one.
    """

    def draw(self, renderer: RendererBase) -> None:
        """Draw all of it; called whenever the figure is shown or saved."""
        with rc_context({"text.parse_math": False, "text.usetex": False}):  # ticks are made here
            for text in self.findobj(Text):
                text.set_parse_math(False)
                text.set_usetex(False)
            super().draw(renderer)

    @property
    def alt(self) -> str:
        """What the figure shows, for those who do not see it: its titles."""
        titles = [self.get_suptitle(), *(axes.get_title() for axes in self.axes)]
        titles += [axes.get_title(loc="left") for axes in self.axes]
        return "; ".join(" ".join(each.split()) for each in dict.fromkeys(titles) if each)

    def _repr_png_(self) -> bytes | None:
        return None if interactive() else png(self)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the picture with its size and what it shows.

        JupyterLab calls every picture "Image": there it is HTML, which says more. The class tells
        a form's style whether dark themes may turn its colours round.
        """
        width, height = (round(inches * DPI) for inches in self.get_size_inches())
        kind = "wb-image" if any(axes.images for axes in self.axes) else "wb-plot"
        told = {"alt": self.alt, "width": width, "height": height, "kind": kind}
        picture = png(self)
        if not interactive():
            return {"image/png": picture}, {"image/png": told}
        return {"text/html": html_of(base64.b64encode(picture).decode(), **told)}, {}


def html_of(picture: str, *, alt: str, width: int, height: int, kind: str) -> str:
    """Write a PNG file (base64) as HTML with its size, so that the page does not jump."""
    return (
        f'<img class="{kind}" src="data:image/png;base64,{picture}" alt="{escape(alt)}" '
        f'width="{width}" height="{height}" style="max-width: 100%; height: auto">'
    )


def new_figure(
    width: float, height: float, *, title: str = "", synthetic: bool = False
) -> NotebookFigure:
    """Make an empty figure (inches), with its message on top and the note on synthetic data."""
    # A long title is set a little smaller, then wrapped, never cut off.
    lines = fitted(title, width, LABEL, bold=True).splitlines()
    longest = max(map(len, lines), default=1)
    height += 0.19 * (len(lines) - len(title.splitlines()))
    figure = NotebookFigure(figsize=(width, height), dpi=DPI, layout="constrained")
    if title:
        size = min(TITLE, 72 * width / (0.65 * longest))
        figure.suptitle("\n".join(lines), fontsize=size, fontweight="bold")
    if synthetic:
        figure.supxlabel(SYNTHETIC_NOTE, x=0.995, ha="right", fontsize=SMALL, color=GREY)
    return figure


def fitted(text: str, inches: float, size: float, *, bold: bool = False) -> str:
    """Wrap a text's lines to a width, so that it is neither cut off nor covers what is beside it.

    ``size`` is that of its letters, in points. A word that is longer than a line, such as a file's
    name, is broken.
    """
    room = max(8, int(72 * inches / ((0.65 if bold else 0.57) * size)))
    return "\n".join(part for line in text.splitlines() for part in wrap(line, room) or [line])


def _room(axes: Axes) -> tuple[float, float]:
    """Return the width and height, inches, that a panel has in its figure before it is laid out."""
    figure, spec = axes.get_figure(root=True), axes.get_subplotspec()
    assert isinstance(figure, Figure)
    width, height = figure.get_size_inches()
    if spec is None:
        return width, height
    grid = spec.get_gridspec()
    across = len(spec.colspan) / grid.ncols, len(spec.rowspan) / grid.nrows
    return 0.94 * width * across[0], 0.9 * height * across[1]


def png(figure: Figure, dpi: float | None = None, *, quick: bool = False) -> bytes:
    """Draw a figure as a PNG file; a quick one is larger."""
    buffer = BytesIO()
    level = {"compress_level": 1} if quick else {}
    figure.savefig(buffer, format="png", dpi=dpi or figure.dpi, pil_kwargs=level)
    return buffer.getvalue()


def show_image(
    axes: Axes,
    image: np.ndarray,
    window: tuple[float, float],
    title: str = "",
    *,
    colours: str | Colormap = "gray",
    alpha: np.ndarray | None = None,
    undefined: str | None = None,
) -> AxesImage:
    """Show an image (H, W) with square pixels, without axes, between two values.

    It is shown upright: fastMRI stores images upside down (``workbench.views.export.geometry``), so
    that row 0 is drawn at the bottom. Whatever is drawn over it counts rows as they are stored.
    ``undefined`` is the colour of values that are not finite; by default they are left blank.
    """
    axes.set_axis_off()
    if title:
        size = LABEL if "\n" not in title else SMALL + 0.5
        axes.set_title(fitted(title, _room(axes)[0], size), fontsize=size)
    if undefined:
        image = np.ma.masked_invalid(image)
        colours = colormaps.get_cmap(colours).with_extremes(bad=undefined)
    return axes.imshow(
        image, cmap=colours, vmin=window[0], vmax=window[1], alpha=alpha, origin="lower"
    )


def add_colour_bar(
    figure: Figure,
    image: AxesImage,
    axes: Sequence[Axes],
    label: str = "signal, % of maximum",
    *,
    rows: int = 1,
    extend: str = "max",
    side: str = "right",
) -> Colorbar:
    """Put a thin colour bar with its unit at a side of some rows of panels."""
    place: Look = {"ax": list(axes), "location": side, "aspect": 28 * rows, "pad": 0.01}
    bar = figure.colorbar(image, label=label, extend=extend, **place)
    bar.ax.tick_params(labelsize=SMALL)
    (bar.ax.yaxis if side == "right" else bar.ax.xaxis).label.set_fontsize(SMALL + 0.5)
    bar.outline.set_linewidth(0.4)
    return bar


def add_key(figure: Figure, handles: Sequence[Artist], columns: int = 6) -> None:
    """Name what is drawn below the panels; as handles, names that begin with "_" are kept.

    There are so many ``columns`` as fit, and long names are wrapped.
    """
    size, width = SMALL + 0.5, figure.get_figwidth() - 0.8
    names = [fitted(str(handle.get_label()), width, size) for handle in handles]
    longest = max((len(line) for name in names for line in name.splitlines()), default=1)
    fit = int(width / (0.57 * size * longest / 72 + 0.6))
    place: Look = {"loc": "outside lower left", "ncols": max(1, min(columns, fit))}
    figure.legend(handles, names, fontsize=size, frameon=False, **place)


def window_of(image: np.ndarray) -> tuple[float, float]:
    """Return a window from 0 to just under the brightest pixels, so that few vessels burn out."""
    finite = image[np.isfinite(image)]
    top = float(np.percentile(finite, 99.7)) if finite.size else 0.0
    return 0.0, top or 1.0


def tidy(axes: Axes) -> None:
    """Leave of a plot's frame what is read: the left and the lower axis, and a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=SMALL)
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)


def frame(axes: Axes, title: str = "", *, x: str = "", y: str = "", right: str = "") -> None:
    """Give a plot its titles, labels, a light grid, and of its frame the two axes only.

    Texts are wrapped to the plot's size; ``right`` stands in the title's last line.
    """
    tidy(axes)
    width, height = (inches - 0.5 for inches in _room(axes))
    beside = 0.57 * SMALL * len(right) / 72
    axes.set_title(fitted(title, width - beside, LABEL), fontsize=LABEL, loc="left")
    axes.set_title(right, fontsize=SMALL, loc="right", color=GREY)
    axes.set_xlabel(fitted(x, width, LABEL), fontsize=LABEL)
    axes.set_ylabel(fitted(y, height, LABEL), fontsize=LABEL)
