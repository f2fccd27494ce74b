"""A walk through the slices of a volume as an animated GIF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.views.export.geometry import upright
from workbench.views.style import SYNTHETIC_NOTE, window_of

if TYPE_CHECKING:
    from PIL.Image import Image

_SMALLEST = 256  # pixels high: smaller images are enlarged by whole factors
_BAR, _GAP = 18, 4


def write_animation(
    file: Path,
    panes: Mapping[str, np.ndarray],
    *,
    milliseconds: int = 150,
    caption: str = "",
    synthetic: bool = False,
) -> None:
    """Write images side by side, slice after slice, there and back again, all in one window.

    Args:
        file: the .gif.
        panes: name -> images (slices, h, w) as stored; all of one shape.
        milliseconds: each slice is shown.
        caption: a line below, such as the volume's name.
        synthetic: whether it is a phantom; it is said in the caption.

    Raises:
        ValueError: the panes differ in shape, or there is none.
    """
    shapes = {images.shape for images in panes.values()}
    if len(shapes) != 1:
        raise ValueError(f"panes of shapes {sorted(shapes)}: give one or more of one shape")
    slices, height, width = shapes.pop()
    factor = -(-_SMALLEST // height)
    window = window_of(next(iter(panes.values())))[1]
    line = ", ".join(filter(None, (caption, SYNTHETIC_NOTE if synthetic else "")))
    frames = []
    for number in range(slices):
        pictures = []
        for images in panes.values():
            seen = np.nan_to_num(upright(images[number]) / window, nan=0.0).clip(0, 1)
            grey = np.rint(255 * seen).astype(np.uint8)
            pictures.append(grey.repeat(factor, axis=0).repeat(factor, axis=1))
        frames.append(_frame(pictures, list(panes), f"{line}  slice {number}", factor * width))
    there_and_back = frames + frames[-2:0:-1]
    there_and_back[0].save(
        file,
        format="GIF",
        save_all=True,
        append_images=there_and_back[1:],
        duration=milliseconds,
        loop=0,
        optimize=False,
    )


def _frame(pictures: Sequence[np.ndarray], names: Sequence[str], line: str, width: int) -> "Image":
    from PIL import Image, ImageDraw

    height = pictures[0].shape[0]
    wide = len(pictures) * width + (len(pictures) - 1) * _GAP
    frame = Image.new("L", (wide, height + 2 * _BAR), 0)
    pen = ImageDraw.Draw(frame)
    for place, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left = place * (width + _GAP)
        frame.paste(Image.fromarray(picture), (left, _BAR))
        pen.text((left + 4, 3), name, fill=230, font_size=12)
    pen.text((4, height + _BAR + 3), line, fill=170, font_size=11)
    return frame
