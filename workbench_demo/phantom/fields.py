"""Grids in millimetres, random smooth fields on them, and the canvas for tissues."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating]


@dataclass(frozen=True)
class Grid:
    """Sample positions of one slice, in mm from the centre of the field of view.

    Attributes:
        rows: ``(h,)``, upwards, so decreasing.
        columns: ``(w,)``, to the right.
        pixel: spacing, mm.
    """

    rows: Array
    columns: Array
    pixel: float

    @classmethod
    def centred(cls, height: int, width: int, pixel: float) -> "Grid":
        """Lay a grid with 0 at ``(height // 2, width // 2)``, as a centred FFT does."""
        rows = (height // 2 - np.arange(height)) * pixel
        columns = (np.arange(width) - width // 2) * pixel
        return cls(rows, columns, pixel)

    def finer(self, factor: int) -> "Grid":
        """Split each pixel into ``factor`` by ``factor``."""
        offsets = ((np.arange(factor) + 0.5) / factor - 0.5) * self.pixel
        rows = (self.rows[:, None] - offsets).ravel()
        columns = (self.columns[:, None] + offsets).ravel()
        return Grid(rows, columns, self.pixel / factor)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return len(self.rows), len(self.columns)


def averaged(image: Array, factor: int) -> Array:
    """Average blocks of ``factor`` by ``factor``: back from a finer grid."""
    height, width = image.shape
    return image.reshape(height // factor, factor, width // factor, factor).mean(axis=(1, 3))


def noise(
    random: np.random.Generator, grid: Grid, scale: float, stretch: float = 1.0
) -> NDArray[np.float32]:
    """Draw white noise smoothed by a Gaussian, of mean 0 and standard deviation 1.

    Args:
        random: the source.
        grid: where.
        scale: standard deviation of the Gaussian, mm.
        stretch: factor by which it is longer along rows' direction (up and down).
    """
    from scipy import fft

    height, width = grid.shape
    spectrum = fft.rfft2(random.standard_normal(grid.shape, dtype=np.float32))
    up = np.exp(-2 * (np.pi * scale * stretch / grid.pixel * fft.fftfreq(height)) ** 2)
    across = np.exp(-2 * (np.pi * scale / grid.pixel * fft.rfftfreq(width)) ** 2)
    spectrum *= (up[:, None] * across).astype(np.float32)
    spectrum[0, 0] = 0
    field: NDArray[np.float32] = fft.irfft2(spectrum, s=grid.shape)
    return field / field.std()


def _spline(positions: Array, count: int, spacing: float) -> NDArray[np.float32]:
    """Weights ``(positions, count)`` of a uniform cubic B-spline whose knots are centred on 0."""
    knots = (np.arange(count) - (count - 1) / 2) * spacing
    distance = np.abs(np.asarray(positions)[..., None] - knots) / spacing
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = np.clip(2 - distance, 0, None) ** 3 / 6
    return np.where(distance < 1, near, far).astype(np.float32)


class SmoothField:
    """A smooth random function of the position in space, of standard deviation about 1.

    Args:
        random: the source.
        spacing: distance between the knots of the cubic B-spline, mm.
        extent: half the width of the cube that it covers, mm; it falls to 0 outside.
    """

    def __init__(self, random: np.random.Generator, spacing: float, extent: float = 150.0) -> None:
        self.spacing = spacing
        self.count = 2 * int(np.ceil(extent / spacing)) + 3
        # A cubic B-spline of unit-variance knots has a standard deviation near 0.69 an axis.
        self.knots = random.standard_normal((self.count,) * 3).astype(np.float32) / 0.69**3

    def at(self, grid: Grid, depth: float) -> NDArray[np.float32]:
        """Evaluate on a slice at a depth (mm)."""
        through = _spline(np.array([depth]), self.count, self.spacing)[0]
        # einsum, not BLAS, whose idle threads would spin on the cores of the other workers.
        knots = np.einsum("z,zrc->rc", through, self.knots)
        rows = _spline(grid.rows, self.count, self.spacing)
        columns = _spline(grid.columns, self.count, self.spacing)
        across = np.einsum("rc,wc->rw", knots, columns)
        field: NDArray[np.float32] = np.einsum("hr,rw->hw", rows, across)
        return field


class Canvas:
    """A slice under the brush: later tissues cover earlier ones.

    Args:
        grid: where.
        signals: brightness of each tissue, by name.
    """

    def __init__(self, grid: Grid, signals: dict[str, float]) -> None:
        self.grid, self.signals = grid, signals
        self.image = np.zeros(grid.shape, np.float32)

    def paint(self, tissue: str, coverage: Array, texture: Array | float = 1.0) -> None:
        """Cover the fraction ``coverage`` (0 to 1) with a tissue, its brightness times texture."""
        self.image += coverage * (self.signals[tissue] * texture - self.image)

    def inside(self, distance: Array) -> Array:
        """Turn a signed distance (mm, negative inside) into a coverage with an edge of a pixel."""
        return np.clip(0.5 - distance / max(self.grid.pixel, 0.35), 0, 1)
