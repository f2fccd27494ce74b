"""Annotated findings: on the slices that they lie on, and close up in a reconstruction."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.data.images import cropped
from workbench.recon.results import Result
from workbench.views.annotations import Annotation, Annotations, Box, draw_boxes
from workbench.views.reconstructions import slice_scores, ssim_image
from workbench.views.style import add_colour_bar, new_figure, show_image, window_of

if TYPE_CHECKING:
    from pandas import DataFrame

_LEAST = 8.0  # pixels: of a point, what is around it is seen
_MARGIN = 1.0  # of the box's longer side, seen around it close up


def annotated_results(
    results: Sequence[Result], annotations: Annotations
) -> list[tuple[Result, Annotation]]:
    """Return the boxes on reconstructed volumes, those that no slice has left out."""
    return [
        (result, each)
        for result in results
        for each in annotations.of(result.volume.path)
        if not result.slice_ssim or each.slice < len(result.slice_ssim)
    ]


def lesion_ssim(image: np.ndarray, target: np.ndarray, box: Box, data_range: float) -> float:
    """Return the mean SSIM over a box's pixels, of the map that the slice's SSIM is the mean of.

    Args:
        image: (h, w), of the target's size and place.
        target: (h, w), as stored.
        box: the finding's.
        data_range: the volume's largest target value.

    Returns:
        NaN where the 7x7 window around every pixel of the box leaves the image.
    """
    likeness = ssim_image(image, target, data_range)
    part = likeness[box.rows(target.shape[0]), box.columns(target.shape[1])]
    return float(np.nanmean(part)) if np.isfinite(part).any() else float("nan")


def lesion_table(results: Sequence[Result], annotations: Annotations) -> "DataFrame":
    """Tabulate SSIM inside each box beside the whole slice's, the worst box first."""
    from pandas import DataFrame

    rows = []
    for result, each in annotated_results(results, annotations):
        pair = _images(result, each.slice)
        if pair is None or each.box is None:
            continue
        target, filled, image, span = pair
        rows.append(
            {
                "volume": result.name,
                "slice": each.slice,
                "label": each.label,
                "box, pixels": f"{each.box.width:g} × {each.box.height:g}",
                "SSIM in the box": lesion_ssim(image, target, each.box, span),
                "of the slice": slice_scores(image, target, span)["ssim"],
                "zero-filled in the box": lesion_ssim(filled, target, each.box, span),
                "of the slice ": slice_scores(filled, target, span)["ssim"],
            }
        )
    table = DataFrame(rows)
    return table.sort_values("SSIM in the box", ignore_index=True) if rows else table


def lesion_figure(result: Result, annotation: Annotation) -> Figure:
    """Show a finding: the slice with its boxes; target and reconstructions close up.

    Raises:
        ValueError: the volume has no target, or the annotation no box.
    """
    found = _images(result, annotation.slice)
    if found is None or annotation.box is None:
        raise ValueError(f"{result.name}, {annotation.label}: no target, or no box to show")
    target, filled, image, span = found
    volume = result.volume
    percent = 100 / span
    window = (0.0, window_of(target)[1] * percent)
    figure = new_figure(
        11.4,
        3.7,
        title=f"{annotation.label}: {result.name}, slice {annotation.slice}",
        synthetic=volume.synthetic,
    )
    panels = figure.subplots(1, 4)
    show_image(panels[0], target * percent, window, "target, whole slice")
    draw_boxes(panels[0], [annotation], target.shape[0], labels=False)
    texts = {"target": "target"}
    for name, values in (("zero-filled", filled), (result.label, image)):
        inside = lesion_ssim(values, target, annotation.box, span)
        whole = slice_scores(values, target, span)["ssim"]
        texts[name] = f"{name}\nSSIM {inside:.3f} in the box, {whole:.3f} the slice"
    for axes, (name, values) in zip(
        panels[1:],
        {"target": target, "zero-filled": filled, result.label: image}.items(),
        strict=True,
    ):
        drawn = show_image(axes, values * percent, window, texts[name])
        draw_boxes(axes, [annotation], target.shape[0], labels=False)
        _close_up(axes, annotation.box, target.shape)
    add_colour_bar(figure, drawn, list(panels), "signal, % of maximum", extend="max")
    return figure


def lesion_figures(
    results: Sequence[Result],
    annotations: Annotations,
    most: int = 6,
) -> Iterator[Figure]:
    """Show some findings close up: of each kind of label the largest box first, in turn."""
    kinds: dict[str, list[tuple[Result, Annotation]]] = {}
    for result, each in annotated_results(results, annotations):
        if result.volume.target is not None:
            kinds.setdefault(each.label, []).append((result, each))
    for found in kinds.values():
        found.sort(key=lambda pair: -_area(pair[1]))
    turns = max(map(len, kinds.values()), default=0)
    order = [found[turn] for turn in range(turns) for found in kinds.values() if turn < len(found)]
    for result, each in order[:most]:
        yield lesion_figure(result, each)


def _images(result: Result, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float] | None:
    """Return target, zero-filled and reconstructed image at the target's size, and data range.

    Boxes are counted on the target: an image that is smaller is padded with zeros.
    """
    kspace, target = result.measured(number)
    if target is None:
        return None
    filled, image = result.zero_fill(kspace), result.image(number)
    span = result.volume.largest or float(target.max()) or 1.0
    return target, _padded(filled, target), _padded(image, target), span


def _padded(image: np.ndarray, target: np.ndarray) -> np.ndarray:
    image, _ = cropped(image, target)
    missing = [large - small for large, small in zip(target.shape, image.shape, strict=True)]
    return np.pad(image, [(lack // 2, lack - lack // 2) for lack in missing])


def _close_up(axes: Axes, box: Box, shape: tuple[int, ...]) -> None:
    """Zoom in on a box and what is around it; the axes count rows as they are stored."""
    side = max(box.width, box.height, _LEAST) * (1 + 2 * _MARGIN)
    middle = (box.left + box.width / 2, shape[0] - box.top - box.height / 2)
    axes.set_xlim(middle[0] - side / 2, middle[0] + side / 2)
    axes.set_ylim(middle[1] - side / 2, middle[1] + side / 2)


def _area(annotation: Annotation) -> float:
    box = annotation.box
    return box.width * box.height if box else 0.0
