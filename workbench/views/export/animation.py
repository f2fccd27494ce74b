"""A walk through the slices of a volume as an animated GIF."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from workbench.data.images import cropped
from workbench.views.export.exported import ReconstructedVolume
from workbench.views.export.geometry import upright
from workbench.views.style import SYNTHETIC_NOTE, window_of

_SMALLEST = 256  # pixels high: smaller images are enlarged by whole factors
_BAR, _GAP = 18, 4


def write_gif(source: ReconstructedVolume, file: Path) -> None:
    """Write a volume's slices as an animation, beside its target where it has one."""
    result, targets = source.result, source.result.targets()
    panes = {result.label: source.images}
    if targets is not None:
        target, images = cropped(targets, source.images)
        panes = {"target": target, result.label: images}
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
    line = ", ".join(filter(None, (caption, SYNTHETIC_NOTE if synthetic else "")))
    frames = []
    for number in range(slices):
        wide = len(panes) * width + (len(panes) - 1) * _GAP
        frame = Image.new("L", (wide, height + 2 * _BAR), 0)
        pen = ImageDraw.Draw(frame)
        for place, (name, images) in enumerate(panes.items()):
            seen = np.nan_to_num(upright(images[number]) / window, nan=0.0).clip(0, 1)
            grey = np.rint(255 * seen).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
            left = place * (width + _GAP)
            frame.paste(Image.fromarray(grey), (left, _BAR))
            pen.text((left + 4, 3), name, fill=230, font_size=12)
        pen.text((4, height + _BAR + 3), f"{line}  slice {number}", fill=170, font_size=11)
        frames.append(frame)
    frames += frames[-2:0:-1]
    more = {"append_images": frames[1:], "duration": milliseconds, "loop": 0, "optimize": False}
    frames[0].save(file, format="GIF", save_all=True, **more)
