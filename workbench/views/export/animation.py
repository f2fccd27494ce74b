"""A walk through the slices of a volume as an animated GIF."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from workbench.views.export.exported import ReconstructedVolume
from workbench.views.export.geometry import upright
from workbench.views.reconstructions import images_of
from workbench.views.style import SYNTHETIC_NOTE, fitted, window_of

_SMALLEST = 256  # pixels high: smaller images are enlarged by whole factors
_BAR, _GAP = 18, 4


def write_gif(source: ReconstructedVolume, file: Path) -> None:
    """Write a volume's slices as an animation: target where it has one, zero-filled, network."""
    result = source.result
    slices = zip(*(images_of(result, n) for n in range(len(source.images))), strict=True)
    panes = dict(zip(("zero-filled", result.label, "target"), map(np.stack, slices), strict=False))
    panes = {name: panes[name] for name in ("target", *panes) if name in panes}
    write_animation(file, panes, caption=result.name, synthetic=source.volume.synthetic)


def write_animation(
    file: Path,
    panes: Mapping[str, np.ndarray],
    *,
    milliseconds: int = 150,
    caption: str = "",
    synthetic: bool = False,
) -> None:
    """Write images side by side, slice after slice, there and back again, all in one window.

    ``panes`` are images (slices, h, w) as stored, by their names; ``caption`` is a line below.

    Raises:
        ValueError: the panes differ in shape, or there is none.
    """
    from PIL import Image, ImageDraw

    shapes = {images.shape for images in panes.values()}
    if len(shapes) != 1:
        raise ValueError(f"panes of shapes {sorted(shapes)}: give one or more of one shape")
    slices, height, width = shapes.pop()
    factor = -(-_SMALLEST // height)
    height, width = factor * height, factor * width
    window = window_of(next(iter(panes.values())))[1]
    wide = len(panes) * width + (len(panes) - 1) * _GAP
    note = SYNTHETIC_NOTE if synthetic else ""
    lines = fitted(", ".join(filter(None, (caption, note))), (wide - 8) / 72, 11).splitlines()
    frames = []
    for number in range(slices):
        frame = Image.new("L", (wide, height + (2 + len(lines)) * _BAR), 0)
        pen = ImageDraw.Draw(frame)
        for place, (name, images) in enumerate(panes.items()):
            seen = np.nan_to_num(upright(images[number]) / window, nan=0.0).clip(0, 1)
            grey = np.rint(255 * seen).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
            left = place * (width + _GAP)
            frame.paste(Image.fromarray(grey), (left, _BAR))
            pen.text((left + 4, 3), name, fill=230, font_size=12)
        for row, line in enumerate([f"slice {number} (0 to {slices - 1})", *lines]):
            pen.text((4, height + _BAR * (1 + row) + 3), line, fill=190, font_size=12)
        frames.append(frame)
    frames += frames[-2:0:-1]
    more = {"append_images": frames[1:], "duration": milliseconds, "loop": 0, "optimize": False}
    frames[0].save(file, format="GIF", save_all=True, **more)
