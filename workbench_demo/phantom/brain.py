"""Axial brains: the atlas's tissue maps, made an individual and given a skull and scalp.

The maps are bent by random smooth displacements, sharpened, and surrounded with fluid, dura, bone,
marrow, fat and skin by their distance from the brain.
"""

import numpy as np
from numpy.typing import NDArray

from workbench_demo.phantom.atlas import COARSE, atlas
from workbench_demo.phantom.fields import Array, Canvas, Grid, SmoothField, noise

_LOWEST = -14.0  # mm, MNI; below lie the orbits, which this phantom does not draw
_CENTRE = (0.0, -20.0, 0.0)  # of the head, MNI mm: x to the right, y forward, z up


class Brain:
    """One synthetic person's head.

    Args:
        random: the source of everything that makes it an individual.
    """

    coverage = 78.0  # mm from the lowest slice to the highest
    axis = "slice"  # of the receive array: the head lies along the slice direction
    reach = 122.0  # mm, forwards and backwards

    def __init__(self, random: np.random.Generator) -> None:
        self.atlas = atlas()
        self.size = random.normal(1.0, 0.03, 3) * 0.97
        self.tilts = np.deg2rad(random.normal(0, [3.0, 2.0, 5.0]))
        self.shift = random.normal(0, [2.5, 3.0, 2.5])
        self.bends = [(SmoothField(random, 50), 2.2), (SmoothField(random, 16), 1.1)]
        self.bends_y = [(SmoothField(random, 50), 2.2), (SmoothField(random, 16), 1.1)]
        self.bends_z = [(SmoothField(random, 45), 2.0), (SmoothField(random, 16), 0.8)]
        self.atrophy = float(np.exp(random.normal(0, 0.3)))
        self.skull = SmoothField(random, 60)
        self.scalp = float(np.clip(random.normal(3.6, 1.0), 1.8, 6.5))
        self.lesions = self._place_lesions(random)

    def _place_lesions(self, random: np.random.Generator) -> list[tuple[Array, float]]:
        """Choose centres and radii (mm) of white matter lesions; a third of heads have none."""
        count = 0 if random.random() < 0.34 else int(random.integers(2, 14))
        side = random.choice([-1.0, 1.0], count)
        across, along = random.uniform(14, 36, count), random.uniform(-60, 45, count)
        up = random.uniform(8, 42, count)
        radius = np.clip(random.lognormal(0.9, 0.45, count), 1.2, 6.5)
        return [
            (np.array([s * x, y, z]), float(r))
            for s, x, y, z, r in zip(side, across, along, up, radius, strict=True)
        ]

    def _positions(self, grid: Grid, depth: float) -> list[Array]:
        """MNI coordinates x, y, z (mm) of a slice's samples in the atlas."""
        pitch, roll, yaw = self.tilts
        x, y = np.meshgrid(grid.columns, grid.rows)
        x, y = x - self.shift[0], y - self.shift[1]
        x, y = x * np.cos(yaw) + y * np.sin(yaw), y * np.cos(yaw) - x * np.sin(yaw)
        z = depth + self.shift[2] + pitch * y + roll * x
        moved = []
        for axis, (values, bends) in enumerate(
            zip((x, y, z), (self.bends, self.bends_y, self.bends_z), strict=True)
        ):
            bent = sum(amplitude * field.at(grid, depth) for field, amplitude in bends)
            moved.append((values / self.size[axis] + bent + _CENTRE[axis]).astype(np.float32))
        return moved

    def draw(self, canvas: Canvas, depth: float, random: np.random.Generator) -> None:
        """Paint the slice at a depth (mm above the lowest slice)."""
        from scipy import ndimage

        grid = canvas.grid
        position = self._positions(grid, _LOWEST + depth)
        place = np.stack(position)
        sample = (place - self.atlas.hull_corner[:, None, None]) / (COARSE / 2)
        distance = ndimage.map_coordinates(self.atlas.hull, sample, order=1, mode="nearest")
        self._draw_head(canvas, distance, position, depth, random)

        inside = distance < 2.5
        voxel = place[:, inside] - self.atlas.corner[:, None]
        grey, white = np.zeros_like(distance), np.zeros_like(distance)
        for tissue, found in ((self.atlas.grey, grey), (self.atlas.white, white)):
            found[inside] = ndimage.map_coordinates(tissue, voxel, order=3, prefilter=False)
        self._draw_brain(
            canvas, np.clip(grey, 0, 1), np.clip(white, 0, 1), position, inside, random
        )

    def _draw_head(
        self,
        canvas: Canvas,
        distance: Array,
        position: list[Array],
        depth: float,
        random: np.random.Generator,
    ) -> None:
        """Paint from the skin inwards to the fluid around the brain."""
        grid = canvas.grid
        x, y, z = position
        uneven = self.skull.at(grid, depth)
        inner = 2.2 + 0.4 * uneven  # mm from the hull to the skull
        bone = 6.2 + 0.7 * uneven
        temporal = np.exp(
            -(((np.abs(x) - 62) / 16) ** 2) - ((y - 12) / 26) ** 2 - ((z + 12) / 30) ** 2
        )
        muscle = 9.0 * temporal + 0.4
        fat = self.scalp * (1 - 0.35 * temporal) - 0.5 * uneven
        outer = inner + np.clip(bone, 4.0, None) * (1 - 0.35 * temporal)
        surface = outer + muscle + np.clip(fat, 1.5, None)
        strands = 1 - 0.45 * np.exp(-((noise(random, grid, 1.6) / 0.22) ** 2))
        canvas.paint("skin", canvas.inside(distance - surface - 1.6))
        canvas.paint("fat", canvas.inside(distance - surface), strands)
        fibres = 1 + 0.16 * noise(random, grid, 1.0)
        canvas.paint("muscle", canvas.inside(distance - outer - muscle), fibres)
        canvas.paint("bone", canvas.inside(distance - outer))
        middle, half = (inner + outer) / 2, (outer - inner) / 2 - 1.5
        speckle = np.clip(0.8 + 0.25 * noise(random, grid, 0.9), 0.2, None)
        canvas.paint("marrow", canvas.inside(np.abs(distance - middle) - half), speckle)
        canvas.paint("dura", canvas.inside(distance - inner))
        canvas.paint("fluid", canvas.inside(distance - inner + 0.9))
        # The sagittal sinus, on the midline under the skull, in front small and behind large.
        behind = np.where(y < 0, 4.2, 2.2)
        sinus = np.abs(x) + 0.8 * np.abs(distance - inner + 2.5) - behind
        canvas.paint("vessel", canvas.inside(sinus) * (np.abs(x) < 8))

    def _draw_brain(
        self,
        canvas: Canvas,
        grey: Array,
        white: Array,
        position: list[Array],
        inside: NDArray[np.bool_],
        random: np.random.Generator,
    ) -> None:
        """Paint grey and white matter, vessels and lesions over the fluid."""
        grid = canvas.grid
        # An average of 152 brains is blurred. Competing powers of the three maps, jittered by
        # noise as fine as a sulcus, give back the edges that one brain has.
        wobble = [0.30 * noise(random, grid, 1.3) + 0.22 * noise(random, grid, 3.0) for _ in "gw"]
        powers = [grey**2.6 * np.exp(wobble[0]), white**2.6 * np.exp(wobble[1])]
        fluid = self.atrophy * np.clip(1 - grey - white, 0, 1) ** 2.0
        total = powers[0] + powers[1] + fluid + 1e-6
        grey, white = powers[0] / total, powers[1] / total

        folds = noise(random, grid, 2.2)
        threads = np.exp(-((folds / 0.10) ** 2)) * (noise(random, grid, 6.0) > 0.35)
        canvas.paint("vessel", np.clip(threads * fluid / total * inside, 0, 0.7))
        grain = 1 + 0.035 * noise(random, grid, 0.7) + 0.025 * noise(random, grid, 2.5)
        both = grey + white
        share = np.divide(white, both, out=np.zeros_like(white), where=both > 1e-3)
        levels = (
            canvas.signals["grey matter"] * (1 - share) + canvas.signals["white matter"] * share
        )
        canvas.paint("grey matter", both, grain * levels / canvas.signals["grey matter"])
        dots = (noise(random, grid, 0.8) > 3.1) * np.clip(both, 0, 1)
        canvas.paint("vessel", 0.8 * dots)

        x, y, z = position
        ragged = 1.0 + 0.22 * noise(random, grid, 2.0)
        for centre, radius in self.lesions:
            away = np.sqrt((x - centre[0]) ** 2 + 0.6 * (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
            coverage = np.clip(1.25 - away / radius * ragged, 0, 1) * np.clip(2.5 * white, 0, 1)
            canvas.paint("lesion", 0.9 * coverage)
