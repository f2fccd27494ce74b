"""Figures of where a reconstruction is not to be trusted, beside its true error if it is known."""

from collections.abc import Iterator, Mapping, Sequence

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

_KINDS = ("reconstruction", "spread", "disagreement")
NEIGHBOURHOOD = 5
"""Pixels across; maps are compared by their means over such squares: single pixels are noise."""
_OBJECT = 0.1  # of the brightest pixel: what is darker counts as air


def uncertainty_figures(
    results: Results,
    masks: int,
    slices: Sequence[tuple[str, Result, int]] | None = None,
) -> Iterator[Figure]:
    """Show reconstruction, error and uncertainty of (title, result, number of a slice).

    All slices' errors have one scale, and so have their maps of either kind.
    By default these are the best, median and worst slice, or the middle one of the first volume
    where nothing has a target. The results' weights are loaded; ``masks`` are 2 or more.
    """
    import torch

    from workbench.recon.speed import use_tf32
    from workbench.recon.weights import load_ordered

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_ordered(results.order).to(device)
    use_tf32(network.tf32)
    if slices is None:
        middle = ("middle slice", results[0], results[0].volume.slices // 2)
        slices = extreme_slices(results) or [middle]
    found = []
    for title, result, number in slices:
        volume, name = result.volume, result.name
        kspace, target = result.measured(number, neighbours=network.neighbours)
        drawn = masks_for(volume, result.order.sampling, masks)
        if len(drawn) < 2:
            print(f"{title}: no map, for only one mask is possible of {name} as it is sampled")
            continue
        own = network.for_acquisition(volume.acquisition)
        maps = map_uncertainty(own, kspace, drawn, volume.recon[:2])
        panels = _panels(maps, target, volume.largest)
        text = f"{title}: {name}, slice {number}\n{_words(maps, target)}"
        found.append((panels, maps, text, volume.synthetic))
    tops: dict[str, float] = {}
    for panels, *_ in found:
        tops |= {name: max(tops.get(name, 0), window_of(v)[1]) for name, v in panels.items()}
    for panels, maps, text, synthetic in found:
        yield uncertainty_figure(panels, maps, tops, title=text, synthetic=synthetic)


def _panels(
    maps: Uncertainty, target: np.ndarray | None, data_range: float | None
) -> dict[str, np.ndarray]:
    """Return a slice's images by kind, in % of the volume's maximum or its brightest pixel."""
    images = [maps.image, maps.deviation, maps.residual]
    if target is not None:
        *images, target = cropped(*images, target)
    percent = 100 / (data_range or float(np.nan_to_num(images[0]).max()) or 1.0)
    panels = dict(zip(_KINDS, (image * percent for image in images), strict=True))
    if target is not None:
        panels["error"] = np.abs(panels["reconstruction"] - target * percent)
    return panels


def _words(maps: Uncertainty, target: np.ndarray | None) -> str:
    """Say what the maps tell, or how well the spread tells the error."""
    if target is None:
        return "Bright: what differs from mask to mask, or disagrees with the measured lines"
    image, spread, target = cropped(maps.image, maps.deviation, target)
    together, inside = agreement(spread, np.abs(image - target), target)
    return (
        f"Spread over masks and true error: rank correlation {together:.2f}, inside the object "
        f"{inside:.2f} (1: in the same places, 0: unrelated)"
    )


def uncertainty_figure(
    panels: Mapping[str, np.ndarray],
    maps: Uncertainty,
    tops: Mapping[str, float],
    *,
    title: str = "",
    synthetic: bool = False,
) -> Figure:
    """Show a reconstruction, its error where there is a target, and its uncertainty.

    ``panels`` are images (h, w) in % by kind, ``tops`` the largest value on each kind's scale.
    """
    names = {
        "reconstruction": "reconstruction",
        "error": "true error\n|image − target|",
        "spread": f"spread over {maps.masks} masks\n(standard deviation)",
        "disagreement": "disagreement with the measured\n"
        f"lines: {100 * maps.overruled:.1f} % of their signal",
    }
    shown = {kind: panels[kind] for kind in names if kind in panels}
    height, width = panels["reconstruction"].shape
    size = 2.75 * len(shown) + 0.6, 2.3 * height / width + 1.3
    figure = new_figure(*size, title=title, synthetic=synthetic)
    axes = figure.subplots(1, len(shown))
    for place, (kind, values) in zip(axes, shown.items(), strict=True):
        colours = "gray" if kind == "reconstruction" else "inferno"
        drawn = show_image(place, values, (0.0, tops[kind]), names[kind], colours=colours)
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
