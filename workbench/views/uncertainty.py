"""Figures of where a reconstruction is not to be trusted, beside its true error if it is known."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from workbench.data.images import cropped
from workbench.data.volume import Volume
from workbench.recon.results import Results
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


def uncertainty_figures(results: Results, masks: int) -> Iterator[Figure]:
    """Show reconstruction, error and uncertainty of the best, median and worst slice.

    Where nothing has a target, of the middle slice of the first volume. All slices' errors have one
    scale, and so have their maps of either kind. The results' weights are loaded, or refused where
    their file was written anew since; ``masks`` are 2 or more.
    """
    import torch

    from workbench.recon.speed import use_tf32
    from workbench.recon.weights import load_made_by

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = load_made_by(results.order).to(device)
    use_tf32(network.tf32)
    middle = ("middle slice", results[0], results[0].volume.slices // 2)
    found: list[tuple[str, Volume, Uncertainty, dict[str, np.ndarray]]] = []
    for title, result, number in extreme_slices(results) or [middle]:
        volume, name = result.volume, result.name
        kspace, target = result.measured(number, neighbours=network.neighbours)
        draws = masks_for(volume, result.order.sampling, masks, kspace)
        if len(draws) < 2:
            print(f"{title}: no map, for only one mask is possible of {name} as it is sampled")
            continue
        own = network.for_acquisition(volume.acquisition)
        maps = map_uncertainty(own, kspace, draws, volume.recon[:2])
        panels = _panels(maps, target, volume.largest)
        text = f"{title}: {name}, slice {number}\n{_words(maps, target)}"
        found.append((text, volume, maps, panels))
    tops: dict[str, float] = {}
    for *_, panels in found:
        tops |= {name: max(tops.get(name, 0), window_of(v)[1]) for name, v in panels.items()}
    for text, volume, maps, panels in found:
        height, width = panels["reconstruction"].shape
        size = 2.75 * len(panels) + 0.6, 2.3 * height / width + 1.3
        figure = new_figure(*size, title=text, synthetic=volume.synthetic)
        names = {
            "reconstruction": "reconstruction",
            "error": "true error\n|image − target|",
            "spread": f"spread over {maps.masks} masks\n(standard deviation)",
            "disagreement": "disagreement with the measured\n"
            f"lines: {100 * maps.overruled:.1f} % of their signal",
        }
        for axes, (kind, values) in zip(
            figure.subplots(1, len(panels)), panels.items(), strict=True
        ):
            colours = "gray" if kind == "reconstruction" else "inferno"
            drawn = show_image(axes, values, (0.0, tops[kind]), names[kind], colours=colours)
            add_colour_bar(figure, drawn, [axes], "% of maximum")
        yield figure


def _panels(
    maps: Uncertainty, target: np.ndarray | None, data_range: float | None
) -> dict[str, np.ndarray]:
    """Return a slice's images by kind, in % of the volume's maximum or its brightest pixel."""
    images = [maps.image, maps.deviation, maps.residual]
    image, spread, residual, *targets = cropped(*images, *([] if target is None else [target]))
    percent = 100 / (data_range or float(np.nan_to_num(image).max()) or 1.0)
    panels = {"reconstruction": image}
    if targets:
        panels["error"] = np.abs(image - targets[0])
    panels |= {"spread": spread, "disagreement": residual}
    return {kind: values * percent for kind, values in panels.items()}


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


def agreement(deviation: np.ndarray, error: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """Return how well deviation and error (h, w) go together: Spearman's rank correlation.

    Both are averaged over neighbourhoods of 5x5 pixels: over the whole slice, and inside the object
    (what is brighter than a tenth of the target's maximum).
    """
    from scipy.ndimage import uniform_filter

    first, second = (uniform_filter(values, NEIGHBOURHOOD) for values in (deviation, error))
    inside = target > _OBJECT * target.max()
    return rank_correlation(first, second), rank_correlation(first[inside], second[inside])
