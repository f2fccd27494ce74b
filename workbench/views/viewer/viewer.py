"""Look through volumes: a viewer in JupyterLab, the same views as a contact sheet elsewhere.

The viewer answers to the wheel, to dragging and to keys; "?" shows which. What it shows is drawn by
``viewer.js`` from arrays as they are: float32 and complex64, sent once, slice by slice. Pixel
values under the cursor are therefore those of the arrays, to the last bit of single precision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from workbench.data.images import center_crop
from workbench.progress import interactive
from workbench.views.style import (
    LABEL,
    SMALL,
    YELLOW,
    add_colour_bar,
    new_figure,
    show_image,
    window_of,
)
from workbench.views.viewer.panes import Pane

if TYPE_CHECKING:
    from workbench.views.viewer.widget import Viewer

_ALONE, _BESIDE_OTHERS = 10, 4  # slices on a contact sheet, of one pane and of each of several


@dataclass(frozen=True)
class Box:
    """A labelled rectangle on a slice.

    Attributes:
        slice: its number, 0 first.
        x: its first column.
        y: its first row, counted as the image is stored.
        width: columns.
        height: rows.
        label: what is there.
    """

    slice: int
    x: float
    y: float
    width: float
    height: float
    label: str = ""


def viewer(
    panes: Sequence[Pane],
    *,
    title: str = "",
    slice_number: int | None = None,
    boxes: Sequence[Box] = (),
    synthetic: bool = False,
) -> "Viewer | Figure":
    """Show panes side by side, linked: one slice, zoom and cursor for all, a window for each scale.

    Args:
        panes: one or more, of the same number of slices.
        title: what is shown.
        slice_number: where to begin; the middle by default.
        boxes: drawn over the images of their slices, as ``crop`` leaves them.
        synthetic: whether it is a phantom.

    Returns:
        A widget in JupyterLab, a figure of some of the slices elsewhere.

    Raises:
        ValueError: there is no pane, slices do not match, or there is no such slice.
    """
    if not panes:
        raise ValueError("panes is empty: give one or more")
    slices = panes[0].slices
    for pane in panes[1:]:
        if pane.slices != slices:
            raise ValueError(
                f"{panes[0].name} has {slices} slices, {pane.name} {pane.slices}: show panes of "
                "one volume"
            )
    number = slices // 2 if slice_number is None else slice_number
    if not 0 <= number < slices:
        raise ValueError(f"slice_number={number}: there are slices 0 to {slices - 1}")
    if not interactive():
        return viewer_figure(
            panes, title=title, slice_number=number, boxes=boxes, synthetic=synthetic
        )
    from workbench.views.viewer.widget import Viewer

    return Viewer(panes, title=title, slice_number=number, boxes=boxes, synthetic=synthetic)


def viewer_figure(
    panes: Sequence[Pane],
    *,
    title: str = "",
    slice_number: int = 0,
    boxes: Sequence[Box] = (),
    synthetic: bool = False,
) -> Figure:
    """Show some slices of each pane, evenly apart, ``slice_number`` among them.

    Args:
        panes: one row each; a single one fills several.
        title: what is shown.
        slice_number: a slice that must be there.
        boxes: drawn over their slices.
        synthetic: whether it is a phantom.
    """
    most = _ALONE if len(panes) == 1 else _BESIDE_OTHERS
    numbers = _chosen(panes[0].slices, slice_number, most)
    rows = len(panes) if len(panes) > 1 else -(-len(numbers) // 5)
    columns = len(numbers) if len(panes) > 1 else -(-len(numbers) // rows)
    stacks = [[_image(pane, number) for number in numbers] for pane in panes]
    windows = _windows(panes, stacks)
    tall = stacks[0][0].shape[0] / stacks[0][0].shape[1]
    figure = new_figure(
        2.0 * columns + 0.9, rows * (2.0 * tall + 0.25) + 0.5, title=title, synthetic=synthetic
    )
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row, (pane, images) in enumerate(zip(panes, stacks, strict=True)):
        places = list(grid.flat) if len(panes) == 1 else list(grid[row])
        for axes, number, image in zip(places, numbers, images, strict=False):
            name = f"slice {number}" if len(panes) == 1 else f"{pane.name}, slice {number}"
            drawn = show_image(axes, image, windows[pane.scale], colours=pane.colours)
            axes.set_title(name, fontsize=SMALL if len(name) > 24 else LABEL)
            for box in boxes:
                if box.slice == number:
                    _draw_box(axes, box)
        add_colour_bar(figure, drawn, places, pane.name, extend="max")
    return figure


def _chosen(slices: int, wanted: int, most: int) -> list[int]:
    """Return at most ``most`` slice numbers, evenly apart but for the one that is wanted."""
    numbers = [round(n) for n in np.linspace(0, slices - 1, min(slices, most))]
    if wanted not in numbers:
        nearest = min(range(len(numbers)), key=lambda place: abs(numbers[place] - wanted))
        numbers[nearest] = wanted
    return sorted(set(numbers))


def _image(pane: Pane, number: int) -> np.ndarray:
    values = pane.read("image", number)
    values = np.abs(values) if np.iscomplexobj(values) else values
    return center_crop(values, pane.crop) if pane.crop else values


def _windows(
    panes: Sequence[Pane], stacks: Sequence[Sequence[np.ndarray]]
) -> dict[str, tuple[float, float]]:
    windows: dict[str, tuple[float, float]] = {}
    for pane, images in zip(panes, stacks, strict=True):
        if pane.scale not in windows:
            highest = max(window_of(image)[1] for image in images)
            windows[pane.scale] = pane.window or (0.0, highest)
    return windows


def _draw_box(axes: object, box: Box) -> None:
    corner = (box.x - 0.5, box.y - 0.5)
    axes.add_patch(  # type: ignore[attr-defined]
        Rectangle(corner, box.width, box.height, fill=False, edgecolor=YELLOW, linewidth=1)
    )
    axes.annotate(  # type: ignore[attr-defined]
        box.label, (box.x, box.y + box.height), color=YELLOW, fontsize=6, va="bottom"
    )
