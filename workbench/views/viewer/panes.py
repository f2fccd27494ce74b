"""The viewer's panes: stacks of slices that are read when they are looked at."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.images import (
    centered_fft2,
    centered_ifft2,
    crop_size,
    finite,
    root_sum_of_squares,
)
from workbench.data.reading import read_kspace
from workbench.data.volume import Volume

# Slice number and coil number, None for all coils combined, to an array (H, W).
Reader = Callable[[int, int | None], np.ndarray]


@dataclass(frozen=True)
class Pane:
    """One picture of a viewer.

    Attributes:
        name: its caption, such as "target".
        slices: number of slices.
        image: reads the image (H, W) of a slice, as stored: complex for one coil, real for all
            combined.
        coils: number of coils to look at one by one; 0 if there is only the combined image.
        kspace: reads k-space (H, W) likewise; None takes the Fourier transform of the image.
        scale: panes of one scale share one window; "error" is for values of another range.
        colours: matplotlib's name of a colour map.
        window: lowest and highest value of the combined image; by default 0 and the 99.7th
            percentile of the first pane.
        crop: the centre (h, w) of the image that is shown until a person asks for all.
    """

    name: str
    slices: int
    image: Reader
    coils: int = 0
    kspace: Reader | None = None
    scale: str = "image"
    colours: str = "gray"
    window: tuple[float, float] | None = None
    crop: tuple[int, int] | None = None

    def read(self, domain: str, number: int, coil: int | None = None) -> np.ndarray:
        """Read a slice of the "image" or of "kspace": (H, W) float32 or complex64, C order."""
        if domain not in ("image", "kspace"):
            raise ValueError(f"domain={domain!r}: give image or kspace")
        if not 0 <= number < self.slices:
            raise ValueError(f"slice {number}: {self.name} has slices 0 to {self.slices - 1}")
        if coil is not None and not 0 <= coil < self.coils:
            raise ValueError(f"coil {coil}: {self.name} has {self.coils} coils")
        if domain == "kspace" and self.kspace is not None:
            values = self.kspace(number, coil)
        else:
            values = self.image(number, coil)
            if domain == "kspace":
                values = centered_fft2(values.astype(np.complex64))
        kind = np.complex64 if np.iscomplexobj(values) else np.float32
        return np.ascontiguousarray(values, kind)


def image_pane(
    name: str, images: Callable[[int], np.ndarray], slices: int, **appearance: Any
) -> Pane:
    """Make a pane of images (h, w) without coils, which a function reads by the slice's number.

    Scale, colours and window are as for ``Pane``.
    """
    read = lru_cache(maxsize=64)(images)
    return Pane(name, slices, lambda number, _: read(number), **appearance)


def error_pane(first: Pane, second: Pane, name: str = "error") -> Pane:
    """Make a pane of |first - second|, with a window of its own."""

    def image(number: int) -> np.ndarray:
        return np.abs(first.read("image", number) - second.read("image", number))

    return image_pane(name, image, first.slices, scale="error", colours="inferno")


def volume_pane(file: Path, volume: Volume) -> Pane:
    """Make a pane of a volume as measured: image and k-space of each coil, and their RSS.

    K-space is shown as it is. Images are computed with 0 in place of NaN and infinities, which
    would otherwise spread over the whole image. Only what is looked at is read: one coil of a
    slice, or all of them for the RSS.
    """

    def kspace(number: int, coil: int | None) -> np.ndarray:
        values = read_kspace(file, volume, number, coil)
        return values if coil is not None else root_sum_of_squares(values)

    @lru_cache(maxsize=64)
    def combined(number: int) -> np.ndarray:
        values = read_kspace(file, volume, number)
        image = root_sum_of_squares(centered_ifft2(values))
        if np.isfinite(image).all():
            return image
        return root_sum_of_squares(centered_ifft2(finite(values)))

    def image(number: int, coil: int | None) -> np.ndarray:
        return combined(number) if coil is None else centered_ifft2(finite(kspace(number, coil)))

    crop = crop_size(volume.matrix, volume.recon[:2])
    return Pane(volume.name, volume.slices, image, volume.coils, kspace, crop=crop)
