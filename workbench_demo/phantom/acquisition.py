"""The scan: from a body to noisy multi-coil k-space, and the reconstruction that fastMRI ships."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from workbench.data.images import (
    center_crop,
    centered_fft2,
    centered_ifft2,
    root_sum_of_squares,
)
from workbench_demo.phantom.coils import CoilArray
from workbench_demo.phantom.fields import Canvas, Grid, SmoothField, averaged
from workbench_demo.phantom.tissue import signals

_FINEST = 0.9  # mm; coarser pixels are averaged from finer samples, so that edges are no staircase


class Body(Protocol):
    """What can be scanned.

    Attributes:
        coverage: from the first slice to the last, mm.
        axis: of the receive array around it, "slice" or "row".
        reach: half its length along the readout, mm.
    """

    coverage: float
    axis: str
    reach: float

    def draw(self, canvas: Canvas, depth: float, random: np.random.Generator) -> None:
        """Paint the slice at a depth (mm from the first slice)."""


@dataclass(frozen=True)
class Scan:
    """How a volume is scanned.

    Attributes:
        acquisition: one of ``tissue.SEQUENCES``.
        slices: number of slices, spread over what the body covers.
        recon: reconstructed matrix (x, y), as the header says.
        width: phase-encode columns of k-space, zero padding included.
        acquired: first acquired column and the one after the last.
        coils: number of receive coils; 0 for single-coil data.
        field_of_view: of ``recon[0]`` pixels, mm.
        snr: brightest percent of the image over the noise's standard deviation in one coil.
    """

    acquisition: str
    slices: int
    recon: tuple[int, int]
    width: int
    acquired: tuple[int, int]
    coils: int
    field_of_view: float
    snr: float

    @property
    def matrix(self) -> tuple[int, int]:
        """K-space size (readout, phase encode); the readout is sampled twice as densely."""
        return 2 * self.recon[0], self.width

    @property
    def target_size(self) -> tuple[int, int]:
        """Size of the target; where k-space is narrower than the matrix, W x W as in fastMRI."""
        if self.width < self.recon[1]:
            return self.width, self.width
        return self.recon


def scan(
    body: Body, how: Scan, random: np.random.Generator
) -> tuple[NDArray[np.complex64], NDArray[np.float32]]:
    """Scan a body.

    Args:
        body: what lies in the scanner.
        how: sequence, matrix, coils, noise.
        random: the source of coils, phase, noise.

    Returns:
        ``kspace`` ``(slices, coils, H, W)``, or ``(slices, H, W)`` for single-coil, with zeros
        outside the acquired columns; ``target`` ``(slices, h, w)``, the root sum of squares of the
        coil images of that very k-space, centre-cropped.
    """
    height, width = how.matrix
    pixel = how.field_of_view / how.recon[0]
    grid = Grid.centred(height, width, pixel)
    factor = max(1, round(pixel / _FINEST))
    levels = signals(how.acquisition)
    # A single-coil volume is what an array hears together: one coil that hears evenly.
    array = CoilArray(random, how.coils, 0.68 * how.field_of_view, body.axis) if how.coils else None
    phase, shading = SmoothField(random, 70), SmoothField(random, 90)
    offset = random.uniform(0, 2 * np.pi)

    kspace = np.zeros((how.slices, max(how.coils, 1), height, width), np.complex64)
    left, right = how.acquired
    reached = np.abs(grid.rows) <= body.reach
    seen = Grid(grid.rows[reached], grid.columns, pixel)
    for number in range(how.slices):
        depth = body.coverage * (number + 0.5) / how.slices
        middle = depth - body.coverage / 2
        canvas = Canvas(seen.finer(factor), levels)
        body.draw(canvas, depth, random)
        image = averaged(canvas.image, factor) * (1 + 0.12 * shading.at(seen, middle))
        spun = (image * np.exp(1j * (offset + 0.8 * phase.at(seen, middle)))).astype(np.complex64)
        heard = np.zeros(kspace.shape[1:], np.complex64)
        heard[:, reached] = spun if array is None else spun * array.sensitivities(seen, middle)
        # fastMRI's images are stored upside down.
        kspace[number, ..., left:right] = centered_fft2(heard[:, ::-1])[..., left:right]

    reached = reached[::-1]
    central = root_sum_of_squares(centered_ifft2(kspace[how.slices // 2]))
    scale = np.float32(random.uniform(2e-4, 6e-4) / np.percentile(central[reached], 99))
    noise_level = np.float32(np.percentile(central[reached], 99) * scale / how.snr / np.sqrt(2))
    target = np.zeros((how.slices, *how.target_size), np.float32)
    for number in range(how.slices):
        columns = kspace[number, ..., left:right]
        columns *= scale
        for part in (columns.real, columns.imag):
            part += noise_level * random.standard_normal(columns.shape, dtype=np.float32)
        images = center_crop(centered_ifft2(kspace[number]), how.target_size)
        target[number] = root_sum_of_squares(images)
    return (kspace if how.coils else kspace[:, 0]), target
