"""Figures of where a reconstruction is not to be trusted, beside its true error if it is known."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import cropped
from workbench.recon.results import Result, Results
from workbench.recon.uncertainty import (
    Uncertainty,
    map_uncertainty,
    masks_for,
    rank_correlation,
)
from workbench.views.reconstructions import extreme_slices
from workbench.views.style import add_colour_bar, new_figure, show_image, window_of

NEIGHBOURHOOD = 5
"""Pixels across; maps are compared by their means over such squares: single pixels are noise."""
_OBJECT = 0.1  # of the brightest pixel: what is darker counts as air


def uncertainty_figures(
    results: Results,
    masks: int,
    slices: Sequence[tuple[str, Result, int]] | None = None,
) -> Iterator[Figure]:
    """Show reconstruction, error and uncertainty of (title, result, number of a slice).

    By default these are the best, median and worst slice, or the middle one of the first volume
    where nothing has a target. The results' weights are loaded; ``masks`` are 2 or more.
    """
    import torch

    from workbench.recon.speed import use_tf32
    from workbench.recon.weights import load_network

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_network(Path(results.order.weights)).to(device)
    use_tf32(network.tf32)
    if slices is None:
        middle = ("middle slice", results[0], results[0].volume.slices // 2)
        slices = extreme_slices(results) or [middle]
    for title, result, number in slices:
        volume, name = result.volume, result.name
        kspace, target = result.measured(number)
        drawn = masks_for(volume, result.order.sampling, masks)
        if len(drawn) < 2:
            print(f"{title}: no map, for only one mask is possible of {name} as it is sampled")
            continue
        yield uncertainty_figure(
            map_uncertainty(network, kspace, drawn, volume.recon[:2]),
            target,
            title=f"{title}: {name}, slice {number}",
            data_range=volume.largest or None,
            synthetic=volume.synthetic,
        )


def uncertainty_figure(
    found: Uncertainty,
    target: np.ndarray | None,
    *,
    title: str = "",
    data_range: float | None = None,
    synthetic: bool = False,
) -> Figure:
    """Show a reconstruction, its error where there is a target (h, w), and its uncertainty.

    That is its deviation over masks, and what it overruled. ``data_range`` is 100 %, by default the
    brightest pixel.
    """
    maps = [found.image, found.deviation, found.residual]
    if target is not None:
        *maps, target = cropped(*maps, target)
    image, deviation, residual = maps
    percent = 100 / (data_range or float(np.nan_to_num(image).max()) or 1.0)
    panels = {
        "reconstruction": image,
        "true error": None if target is None else np.abs(image - target),
        f"deviation over {found.masks} masks": deviation,
        f"data overruled, {100 * found.overruled:.1f} % of it": residual,
    }
    shown = {name: values * percent for name, values in panels.items() if values is not None}
    said = "Bright: what the network made up differs from mask to mask, or contradicts the data"
    if target is not None:
        together, inside = agreement(deviation, np.abs(image - target), target)
        said = (
            f"Deviation and true error: rank correlation {together:.2f}, "
            f"{inside:.2f} inside the object"
        )
    size = 2.75 * len(shown) + 0.6, 2.3 * image.shape[0] / image.shape[1] + 1.1
    figure = new_figure(*size, title=f"{title}\n{said}".strip(), synthetic=synthetic)
    axes = figure.subplots(1, len(shown))
    for place, (name, values) in zip(axes, shown.items(), strict=True):
        colours = "gray" if name == "reconstruction" else "inferno"
        drawn = show_image(place, values, window_of(values), name, colours=colours)
        add_colour_bar(figure, drawn, [place], "% of maximum")
    return figure


def agreement(deviation: np.ndarray, error: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Return how well deviation and error (h, w) go together: Spearman's rank correlation.

    Both are averaged over neighbourhoods of 5x5 pixels: over the whole slice, and inside the object
    (what is brighter than a tenth of the target's maximum).
    """
    from scipy.ndimage import uniform_filter

    first, second = (uniform_filter(values, NEIGHBOURHOOD) for values in (deviation, error))
    inside = target > _OBJECT * target.max()
    return rank_correlation(first, second), rank_correlation(first[inside], second[inside])
