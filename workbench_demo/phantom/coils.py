"""Receive coils: loops of wire around the body, and what each of them hears from every point."""

import numpy as np
from numpy.typing import NDArray

from workbench_demo.phantom.fields import Array, Grid

_SEGMENTS = 24  # of wire in a loop
_COARSE = 24  # knots a side on which the field is evaluated before it is interpolated
_WIRE = 22.0  # mm; keeps the field finite where a slice cuts a loop


class CoilArray:
    """Loops on a cylinder around the body, evenly spread and slightly out of place.

    The receive sensitivity of a loop is the transverse field that a unit current in it would make
    (reciprocity), ``Bx - i By`` with B0 along the cylinder, by the law of Biot and Savart.

    Args:
        random: the source of the places, gains and phases.
        count: number of coils.
        radius: of the cylinder, mm.
        axis: direction of the cylinder and of B0: "slice" (a head seen from above) or "row" (a leg
            seen from the front).
    """

    def __init__(self, random: np.random.Generator, count: int, radius: float, axis: str) -> None:
        self.count = count
        rings = 1 if count <= 6 else 2
        ring = np.arange(count) % rings
        place = np.arange(count) // rings + 0.5 * ring
        angle = 2 * np.pi * place / np.ceil(count / rings) + random.normal(0, 0.06, count)
        angle += random.uniform(0, 2 * np.pi)
        height = (ring - (rings - 1) / 2) * 0.75 * radius + random.normal(0, 0.04 * radius, count)
        size = radius * np.clip(np.pi * rings / count * 1.25, 0.35, 0.8) * np.ones(count)
        gain = np.exp(random.normal(0, 0.12, count) + 1j * random.uniform(0, 2 * np.pi, count))
        self.gain = gain * radius

        around = 2 * np.pi * np.arange(_SEGMENTS) / _SEGMENTS
        outward = np.stack([np.cos(angle), np.sin(angle), np.zeros(count)], -1)[:, None]
        sideways = np.stack([-np.sin(angle), np.cos(angle), np.zeros(count)], -1)[:, None]
        along = np.array([0.0, 0.0, 1.0])
        size = size[:, None, None]
        circle_a, circle_b = np.cos(around)[:, None], np.sin(around)[:, None]
        centre = radius * outward + height[:, None, None] * along
        # (coils, segments, 3) in the cylinder's own axes; x and y are transverse.
        self.wire = centre + size * (circle_a * sideways + circle_b * along)
        self.current = around[1] * size * (circle_a * along - circle_b * sideways)
        self.axis = axis

    def _field(self, points: Array) -> NDArray[np.complex128]:
        """Sensitivity ``(coils, points)`` at positions ``(points, 3)`` in the cylinder's axes."""
        found = np.zeros((self.count, len(points)), np.complex128)
        for segment in range(_SEGMENTS):
            away = points[None] - self.wire[:, segment, None]
            cube = ((away**2).sum(-1) + _WIRE**2) ** 1.5
            current = self.current[:, segment, None]
            b_x = current[..., 1] * away[..., 2] - current[..., 2] * away[..., 1]
            b_y = current[..., 2] * away[..., 0] - current[..., 0] * away[..., 2]
            found += (b_x - 1j * b_y) / cube
        heard: NDArray[np.complex128] = found * self.gain[:, None]
        return heard

    def sensitivities(self, grid: Grid, depth: float) -> NDArray[np.complex64]:
        """Sensitivity maps of one slice.

        Args:
            grid: where, mm from the array's centre.
            depth: of the slice, mm from the array's centre.

        Returns:
            ``(coils, h, w)``.
        """
        from scipy.interpolate import make_interp_spline

        knots, spread = [], []
        for positions in (grid.rows[::-1], grid.columns):
            coarse = np.linspace(positions[0], positions[-1], _COARSE)
            knots.append(coarse)
            spread.append(make_interp_spline(coarse, np.eye(_COARSE))(positions))
        rows, columns = np.meshgrid(*knots, indexing="ij")
        through = np.full_like(rows, depth)
        axes = (columns, rows, through) if self.axis == "slice" else (columns, through, rows)
        points = np.stack([axis.ravel() for axis in axes], -1)
        coarse_field = self._field(points).reshape(self.count, _COARSE, _COARSE)
        down, across = (weights.astype(np.float32) for weights in spread)
        field: NDArray[np.complex64] = np.einsum(
            "hr,crw->chw",
            down[::-1],
            np.einsum("crk,wk->crw", coarse_field.astype(np.complex64), across),
        )
        return field
