"""Annotated findings in reconstructions: their SSIM, and close-ups."""

from collections.abc import Iterator, Sequence
from itertools import zip_longest

import numpy as np
import pandas
from matplotlib.figure import Figure

from workbench.data.images import cropped
from workbench.recon.results import Result
from workbench.views.annotations import Annotation, Annotations, Box, draw_boxes
from workbench.views.ranking import ranked
from workbench.views.reconstructions import data_range_of, slice_scores, ssim_image
from workbench.views.style import add_colour_bar, new_figure, show_image, window_of

_MOST = 6  # close-ups
_SMALLEST = 8.0  # pixels of a close-up's box, so that the surroundings of a point are seen
_MARGIN = 1.0  # around the box close up, as a share of its longer side


def lesion_ssim(image: np.ndarray, target: np.ndarray, box: Box, data_range: float) -> float:
    """Return the mean over a box's pixels of the SSIM map; both images (h, w) as stored.

    NaN where the 7x7 window around every pixel of the box leaves the image, or one of those around
    some holds what is not finite.
    """
    from workbench.recon.ssim import WINDOW

    edge = WINDOW // 2
    known = np.pad(np.ones(np.subtract(target.shape, 2 * edge), bool), edge)
    place = box.inside(target.shape)
    part = ssim_image(image, target, data_range)[place][known[place]]
    return float(part.mean()) if part.size else float("nan")


def lesion_table(results: Sequence[Result], annotations: Annotations) -> pandas.DataFrame:
    """Tabulate SSIM inside each box beside the whole slice's: not finite ones, then the worst."""
    rows = []
    for result, each, box in _found(results, annotations):
        target, filled, image, span = _images(result, each.slice)
        rows.append(
            {
                "volume": result.name,
                "slice": each.slice,
                "label": each.label,
                "box, pixels": f"{box.width:g} × {box.height:g}",
                "SSIM in the box": lesion_ssim(image, target, box, span),
                "of the slice": slice_scores(image, target, span)["ssim"],
                "zero-filled in the box": lesion_ssim(filled, target, box, span),
                "of the slice ": slice_scores(filled, target, span)["ssim"],
            }
        )
    table = pandas.DataFrame(rows)
    return ranked(table, "SSIM in the box", True).reset_index(drop=True) if rows else table


def lesion_figures(results: Sequence[Result], annotations: Annotations) -> Iterator[Figure]:
    """Show some findings close up: in turn of each label the largest box, then the next."""
    kinds: dict[str, list[tuple[Result, Annotation, Box]]] = {}
    for found in _found(results, annotations):
        kinds.setdefault(found[1].label, []).append(found)
    for same in kinds.values():
        same.sort(key=lambda found: -found[2].width * found[2].height)
    turns = (found for turn in zip_longest(*kinds.values()) for found in turn if found)
    for (result, annotation, box), _ in zip(turns, range(_MOST), strict=False):
        yield lesion_figure(result, annotation, box)


def lesion_figure(result: Result, annotation: Annotation, box: Box) -> Figure:
    """Show a finding: the whole slice with its box; target and reconstructions close up."""
    target, filled, image, span = _images(result, annotation.slice)
    height, percent = target.shape[0], 100 / span
    images = {"target, whole slice": target, "target": target}
    for name, values in (("zero-filled", filled), (result.label, image)):
        inside = lesion_ssim(values, target, box, span)
        whole = slice_scores(values, target, span)["ssim"]
        images[f"{name}\nSSIM {inside:.3f} in the box, {whole:.3f} the slice"] = values
    title = f"{annotation.label}: {result.name}, slice {annotation.slice}"
    figure = new_figure(11.4, 3.7, title=title, synthetic=result.volume.synthetic)
    panels = figure.subplots(1, 4)
    window = (0.0, window_of(target)[1] * percent)
    for axes, (text, values) in zip(panels, images.items(), strict=True):
        drawn = show_image(axes, values * percent, window, text)
        draw_boxes(axes, [annotation.stored(target.shape, target.shape)], labels=False)
    reach = max(box.width, box.height, _SMALLEST) * (0.5 + _MARGIN)
    column, row = box.x + box.width / 2, height - box.y - box.height / 2
    for axes in panels[1:]:
        axes.set(xlim=(column - reach, column + reach), ylim=(row - reach, row + reach))
    add_colour_bar(figure, drawn, panels)
    return figure


def _found(
    results: Sequence[Result], annotations: Annotations
) -> Iterator[tuple[Result, Annotation, Box]]:
    """Yield the boxes on reconstructed slices of volumes with a target."""
    for result in results:
        for each in annotations.of(result.volume.path):
            count = len(result.slice_ssim) or result.slices
            if each.box and result.volume.target is not None and each.slice < count:
                yield result, each, each.box


def _images(result: Result, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return target, zero-filled and reconstructed image at the target's size, and data range.

    Boxes are counted on the target: a smaller image is padded with zeros.
    """
    kspace, target = result.measured(number)
    assert target is not None
    padded: list[np.ndarray] = []
    for image in (result.zero_fill(kspace), result.image(number)):
        part, _ = cropped(image, target)
        lacks = np.subtract(target.shape, part.shape)
        padded.append(np.pad(part, [(lack // 2, lack - lack // 2) for lack in lacks]))
    return target, padded[0], padded[1], data_range_of(result, target)
