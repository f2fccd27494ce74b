"""A walk through the slices of a volume as an animated GIF."""

from pathlib import Path

import numpy as np

from workbench.views.export.exported import ReconstructedVolume
from workbench.views.export.geometry import upright
from workbench.views.reconstructions import images_of
from workbench.views.style import SYNTHETIC_NOTE, fitted, window_of

_SMALLEST = 256  # pixels high: smaller images are enlarged by whole factors
_BAR, _GAP = 18, 4


def write_gif(source: ReconstructedVolume, file: Path) -> None:
    """Write a volume's slices as an animation: target where it has one, zero-filled, network.

    They stand side by side in one window, slice after slice, there and back again. What is not
    finite is black, and said so.
    """
    from PIL import Image, ImageDraw

    result = source.result
    slices = zip(*(images_of(result, n) for n in range(len(source.images))), strict=True)
    panes = dict(zip(("zero-filled", result.label, "target"), map(np.stack, slices), strict=False))
    panes = {name: panes[name] for name in ("target", *panes) if name in panes}
    first = next(iter(panes.values()))
    count, height, width = first.shape
    factor = -(-_SMALLEST // height)
    height, width = factor * height, factor * width
    window = window_of(first)[1]
    wide = len(panes) * width + (len(panes) - 1) * _GAP
    caption = result.name + (f", {SYNTHETIC_NOTE}" if source.volume.synthetic else "")
    if broken := sum(int((~np.isfinite(images)).sum()) for images in panes.values()):
        caption += f"; {broken} values are not finite, and black"
    lines = fitted(caption, (wide - 8) / 72, 11).splitlines()
    frames = []
    for number in range(count):
        frame = Image.new("L", (wide, height + (2 + len(lines)) * _BAR), 0)
        pen = ImageDraw.Draw(frame)
        for place, (name, images) in enumerate(panes.items()):
            seen = np.nan_to_num(upright(images[number]) / window, nan=0.0).clip(0, 1)
            grey = np.rint(255 * seen).astype(np.uint8).repeat(factor, 0).repeat(factor, 1)
            left = place * (width + _GAP)
            frame.paste(Image.fromarray(grey), (left, _BAR))
            pen.text((left + 4, 3), name, fill=230, font_size=12)
        for row, line in enumerate([f"slice {number} (0 to {count - 1})", *lines]):
            pen.text((4, height + _BAR * (1 + row) + 3), line, fill=190, font_size=12)
        frames.append(frame)
    frames += frames[-2:0:-1]
    more = {"append_images": frames[1:], "duration": 150, "loop": 0, "optimize": False}
    frames[0].save(file, format="GIF", save_all=True, **more)
