"""Figures of one explored slice: k-space, coils, oversampling, padding."""

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import (
    center_crop,
    centered_ifft2,
    root_sum_of_squares,
    zero_filled,
)
from workbench.progress import interactive
from workbench.views.annotations import Annotations, draw_boxes, grades_of
from workbench.views.explored import ExploredSlice
from workbench.views.kspace import coils_figure, decibels, show_kspace
from workbench.views.reconstructions import contact_sheet
from workbench.views.style import (
    BLUE,
    GREY,
    LABEL,
    ORANGE,
    SKY,
    SMALL,
    Look,
    add_colour_bar,
    frame,
    new_figure,
    show_image,
    window_of,
)

if TYPE_CHECKING:
    from workbench.views.viewer.viewer import Viewer

_DARKEST = -80.0  # dB, the lowest level of k-space on the colour scale
_MOST_SLICES = 16  # on a sheet
_CENTRE = 0.08  # share of k-space that counts as its centre


def explored_viewer(explored: ExploredSlice) -> "Viewer | Figure":
    """Show the volume in the viewer, with its annotated boxes; outside JupyterLab, as a sheet."""
    if not interactive():
        return slices_figure(explored)
    from workbench.views.viewer.panes import volume_pane
    from workbench.views.viewer.viewer import Viewer

    pane = volume_pane(explored.file, explored.volume)
    size = pane.crop or explored.volume.matrix
    return Viewer(
        [pane],
        title=f"{explored.name}, {explored.volume.acquisition}",
        slice_number=explored.number,
        boxes=explored.findings.boxes(explored.volume, size) if explored.findings else (),
        synthetic=explored.volume.synthetic,
    )


def slices_figure(explored: ExploredSlice) -> Figure:
    """Show the slices of the volume, root sum of squares; of many, some evenly apart."""
    count = explored.volume.slices
    numbers = sorted({round(n) for n in np.linspace(0, count - 1, min(count, _MOST_SLICES))})
    slices = [explored.other(number) for number in numbers]
    grades = grades_of(explored.volume)
    labels = [
        f"slice {each.number}"
        + (f", PI-RADS {grades[each.number]}" if grades else "")
        + ("\nnot all finite" if each.bad else "")
        for each in slices
    ]
    return contact_sheet(
        [zero_filled(each.kspace, explored.crop) for each in slices],
        labels,
        title=f"{explored.name}: {explored.volume.acquisition}, {count} slices",
        synthetic=explored.volume.synthetic,
    )


def annotated_figure(explored: ExploredSlice, findings: Annotations) -> Figure | None:
    """Show annotated slices of the volume with their boxes; None for a volume without a box.

    At most eight evenly spaced slices, and the explored one if it has a box.
    """
    volume = explored.volume
    marked = sorted({each.slice for each in findings.of(volume.path)})
    marked = [number for number in marked if number < volume.slices]
    if not marked:
        return None
    chosen = {marked[round(n)] for n in np.linspace(0, len(marked) - 1, min(8, len(marked)))}
    chosen |= {explored.number} & set(marked)
    slices = [explored.other(number) for number in sorted(chosen)]
    images = [
        zero_filled(each.kspace, each.crop) if each.target is None else each.target
        for each in slices
    ]
    title = f"{explored.name}: fastMRI+'s findings on {len(marked)} of {volume.slices} slices"
    if study := findings.study_labels(volume.path):
        title += f"\nwhole study: {', '.join(study)}"
    labels = [f"slice {each.number}" for each in slices]
    figure = contact_sheet(images, labels, title=title, synthetic=volume.synthetic)
    for axes, image, each in zip(figure.axes, images, slices, strict=False):
        draw_boxes(axes, findings.boxes(volume, image.shape, each.number))
    return figure


def kspace_and_image_figure(explored: ExploredSlice) -> Figure:
    """Show a slice as it was measured, and its Fourier transform.

    DC belongs at the marked place. K-space whose largest value is elsewhere was put there wrongly,
    and masks would miss its centre.
    """
    image = zero_filled(explored.kspace, explored.crop)
    image = image * _percent(explored, image)
    title = "The same slice twice: as it is measured, and its Fourier transform"
    figure = _figure(explored, 8.6, 4.3, f"{title}\n{explored.title}")
    left, right = figure.subplots(1, 2)
    name = "k-space, all coils; DC at the cross"
    drawn = show_kspace(left, decibels(explored.kspace), (_DARKEST, 0.0), name)
    height, width = explored.volume.matrix
    left.plot(width // 2, height // 2, "+", color=SKY, markersize=12)
    left.set_ylabel("readout, sample", fontsize=LABEL)
    add_colour_bar(figure, drawn, [left], "dB of the maximum", extend="min")
    add_colour_bar(figure, show_image(right, image, window_of(image), "image"), [right])
    return figure


def profiles_figure(explored: ExploredSlice) -> Figure:
    """Plot how the signal falls from the centre of k-space, along readout and phase encode."""
    power = np.square(root_sum_of_squares(explored.kspace).astype(np.float64))
    width = power.shape[1]
    left, right = explored.volume.acquired
    count = max(1, round((right - left) * _CENTRE))
    start = (width - count + 1) // 2
    share = 100 * power[:, start : start + count].sum() / (power.sum() or 1.0)
    title = f"The central {count} of {right - left} lines hold {share:.1f} % of the energy"
    if share > 50:
        title = "Most of the signal is in the centre: that is why its lines are always measured"
    figure = _figure(explored, 9.6, 3.3, title)
    readout, phase = figure.subplots(1, 2, sharey=True)
    for axes, axis, name, y in (
        (readout, 1, "readout, sample", "energy, dB of the maximum"),
        (phase, 0, "phase encode, line", ""),
    ):
        level = decibels(np.sqrt(power.sum(axis))[None])[0]
        axes.plot(np.arange(len(level)), level, BLUE, linewidth=1.2)
        axes.set_xticks([0, len(level) // 2, len(level) - 1])
        frame(axes, x=name, y=y)
    phase.axvspan(start - 0.5, start + count - 0.5, color=ORANGE, alpha=0.3, linewidth=0)
    text = f"the central {count} of {right - left} lines hold {share:.1f} % of the energy"
    phase.set_title(text, fontsize=SMALL, loc="left")
    for first, last in ((0, left), (right, width)):
        if last > first:
            phase.axvspan(first - 0.5, last - 0.5, color="0.85", linewidth=0)
            place = ((first + last) / 2, 0.97)
            style: Look = {"ha": "center", "va": "top", "rotation": 90, "fontsize": SMALL}
            style |= {"color": GREY, "xycoords": ("data", "axes fraction")}
            phase.annotate("padding", place, **style)
    return figure


def frequencies_figure(explored: ExploredSlice) -> Figure:
    """Show the images of k-space's centre and of the rest: contrast in one, edges in the other."""
    height, width = explored.volume.matrix
    rows, columns = max(1, round(height * _CENTRE)), max(1, round(width * _CENTRE))
    centre = np.zeros((height, width), bool)
    top, left = (height - rows + 1) // 2, (width - columns + 1) // 2
    centre[top : top + rows, left : left + columns] = True
    parts = {
        "all of k-space": np.ones_like(centre),
        f"the central {rows} × {columns} only": centre,
        "all but the centre": ~centre,
    }
    images = {
        name: zero_filled(explored.kspace * part, explored.crop) for name, part in parts.items()
    }
    title = f"The centre of k-space holds contrast, the rest holds edges\n{explored.title}"
    return _row(explored, images, title, "all of k-space")


def coil_images_figure(explored: ExploredSlice) -> Figure:
    """Show what each coil received, magnitude above and phase below."""
    several = explored.volume.coils > 1
    message = "Each coil hears best what is near it" if several else "What the one coil received"
    return coils_figure(
        center_crop(centered_ifft2(explored.kspace), explored.crop),
        title=f"{message}\n{explored.title}",
        synthetic=explored.volume.synthetic,
    )


def combination_figure(explored: ExploredSlice) -> Figure:
    """Show the root sum of squares of the coil images beside the target, and their difference."""
    combined = zero_filled(explored.kspace, explored.crop)
    if explored.target is None:
        title, synthetic = f"{explored.title} has no target", explored.volume.synthetic
        return contact_sheet([combined], ["root sum of squares"], title=title, synthetic=synthetic)
    target = center_crop(explored.target, explored.crop)
    percent = 100 / explored.data_range
    difference = np.abs(combined - target) * percent
    largest = float(difference.max())
    title = "The root sum of squares of the coil images is the target, to the last bit"
    if largest:
        title = f"The root sum of squares differs from the target by at most {largest:.2g} %"
    figure = _figure(explored, 9.6, 3.0 * explored.crop[0] / explored.crop[1] + 0.7, title)
    panels = figure.subplots(1, 3)
    window = (0.0, window_of(target)[1] * percent)
    show_image(panels[0], combined * percent, window, "root sum of squares of the coil images")
    name = f"target ({explored.volume.target_name})"
    drawn = show_image(panels[1], target * percent, window, name)
    error = show_image(panels[2], difference, (0, largest or 1.0), "difference", colours="inferno")
    add_colour_bar(figure, drawn, panels[:2])
    add_colour_bar(figure, error, panels[2:], "% of maximum", extend="neither")
    return figure


def oversampling_figure(explored: ExploredSlice) -> Figure:
    """Show what the readout's oversampling is for: the whole image, cropped, and without it."""
    crop = explored.crop
    whole = root_sum_of_squares(centered_ifft2(explored.kspace))
    cut = center_crop(whole, crop)
    # Every second sample of the readout: the field of view halves, and what is outside folds in.
    half = explored.kspace[:, explored.kspace.shape[1] // 2 % 2 :: 2]
    folded = root_sum_of_squares(centered_ifft2(half))
    folded = center_crop(folded, (min(crop[0], folded.shape[0]), min(crop[1], folded.shape[1])))
    cropped = f"cropped, {cut.shape[0]} × {cut.shape[1]}"
    images = {
        f"all samples, {whole.shape[0]} × {whole.shape[1]}": whole,
        cropped: cut,
        "every second sample only": folded * np.sqrt(whole.shape[0] / half.shape[1]),
    }
    denser = whole.shape[0] / crop[0]
    title = f"The readout is sampled {denser:.2g} times as densely as the image needs"
    title += ": with half of the samples, what lies outside folds in"
    figure = _row(explored, images, title, cropped)
    bottom, left = ((a - b) / 2 for a, b in zip(whole.shape, cut.shape, strict=True))
    top, right = bottom + cut.shape[0], left + cut.shape[1]
    corners = [left, right, right, left, left], [bottom, bottom, top, top, bottom]
    figure.axes[0].plot(*corners, color=ORANGE, linewidth=1.2)
    return figure


def padding_figure(explored: ExploredSlice) -> Figure:
    """Show what zero padding does: the acquired lines only, padded as stored, and with more.

    Padding adds no detail to an image: it draws the same one with smaller pixels.
    """
    left, right = explored.volume.acquired
    (rows, shown), width = explored.crop, explored.volume.matrix[1]
    middle = width // 2
    reach = min(middle - left, right - middle)  # symmetric about the centre of k-space
    stored = f"as stored, {width} lines"
    more = np.pad(explored.kspace, [(0, 0), (0, 0), (middle, width - middle)])
    measured = {
        f"only the {2 * reach} lines about the centre": explored.kspace[
            ..., middle - reach : middle + reach
        ],
        stored: explored.kspace,
        f"padded to {more.shape[-1]} lines": more,
    }
    images = {}
    for name, kspace in measured.items():
        # One field of view, whatever the number of lines: columns shrink, the object stays.
        image = root_sum_of_squares(centered_ifft2(kspace))
        columns = max(1, round(shown * kspace.shape[-1] / width))
        image = center_crop(image, (rows, min(columns, image.shape[1])))
        images[name] = image * np.sqrt(kspace.shape[-1] / width)
    title = "Nothing is padded here: more zeros would only interpolate"
    if padded := width - (right - left):
        zeros = f"{padded} of {width} lines were never measured but are zeros"
        title = f"{zeros}: padding only interpolates"
    figure = _row(explored, images, title, stored)
    for axes, image in zip(figure.axes, images.values(), strict=False):
        columns = image.shape[1]
        axes.set_aspect(columns / shown)
        axes.set_xlim(0.3 * columns, 0.6 * columns)
        axes.set_ylim(0.4 * rows, 0.4 * rows + 0.3 * shown)
    return figure


def _figure(explored: ExploredSlice, width: float, height: float, title: str) -> Figure:
    return new_figure(width, height, title=title, synthetic=explored.volume.synthetic)


def _row(
    explored: ExploredSlice, images: dict[str, np.ndarray], title: str, reference: str
) -> Figure:
    """Show images in one row and one window, that of the reference image."""
    percent = _percent(explored, images[reference])
    return contact_sheet(
        [image * percent for image in images.values()],
        list(images),
        title=title,
        columns=len(images),
        window=window_of(images[reference] * percent),
        panel=(2.9, 2.9 * explored.crop[0] / explored.crop[1]),
        synthetic=explored.volume.synthetic,
    )


def _percent(explored: ExploredSlice, image: np.ndarray) -> float:
    """Return 1 % of the colour scale: of the volume's maximum; without target, of the image's."""
    largest = explored.data_range if explored.target is not None else float(image.max())
    return 100 / (largest or 1.0)
