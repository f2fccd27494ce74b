"""What was made of other raw data: a table of the volumes, and a look at a slice of each."""

from typing import TYPE_CHECKING

import pandas
from matplotlib.figure import Figure

from workbench.data.cache import DatasetCache
from workbench.data.images import center_crop, centered_ifft2, crop_size, root_sum_of_squares
from workbench.data.volume import Volume
from workbench.views.kspace import decibels, show_kspace
from workbench.views.style import LABEL, SKY, add_colour_bar, new_figure, show_image, window_of
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler


def volume_table(cache: DatasetCache) -> "Styler":
    """Tabulate a dataset's volumes: size, what is in them, and what was done to make them."""
    rows = [
        {
            "volume": volume.path,
            "acquisition": volume.acquisition,
            "slices": volume.slices,
            "coils": volume.coils,
            "k-space": f"{volume.matrix[0]}x{volume.matrix[1]}",
            "image": f"{volume.recon[0]}x{volume.recon[1]}",
            "target": "yes" if volume.target else "no",
            "remarks": str(volume.attributes.get("remarks", "")).replace("\n", "; "),
        }
        for volume in cache
    ]
    return styled_table(pandas.DataFrame(rows), index=False, left=True)


def slice_figure(cache: DatasetCache, volume: Volume, number: int | None = None) -> Figure:
    """Draw a slice's k-space and image, the middle one's where none is named.

    DC belongs at the marked place. K-space whose largest value is elsewhere was put there wrongly,
    and masks would miss its centre.
    """
    number = volume.slices // 2 if number is None else number
    kspace, _ = cache.read(volume, number)
    coils = kspace if kspace.ndim == 3 else kspace[None]
    size = crop_size(volume.matrix, volume.recon[:2])
    image = center_crop(root_sum_of_squares(centered_ifft2(coils)), size)
    height, width = volume.matrix
    title = f"{volume.path}, slice {number}"
    figure = new_figure(8.0, 4.7, title=title, synthetic=volume.synthetic)
    left, right = figure.subplots(1, 2)
    drawn = show_kspace(left, decibels(coils), (-80.0, 0.0), "k-space; DC belongs at the cross")
    left.set_ylabel("readout, sample", fontsize=LABEL)
    left.plot(width // 2, height // 2, "+", color=SKY, markersize=12)
    add_colour_bar(figure, drawn, [left], "dB of the maximum", extend="min")
    kind = "the target" if volume.target else "zero-filled: no target"
    words = f"image {size[0]}x{size[1]}, {kind}"
    show_image(right, image / (image.max() or 1), window_of(image / (image.max() or 1)), words)
    return figure
