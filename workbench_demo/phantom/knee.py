"""Coronal knees from formulas: bones, cartilage, menisci, ligaments, muscle and fat.

Each part is a signed distance (mm, negative inside) in axes x to the right, y up, z forward, with
the joint at the origin; parts are painted from the skin inwards.
"""

from typing import Any

import numpy as np

from workbench_demo.phantom.fields import Array, Canvas, Grid, SmoothField, noise

Point = tuple[float, float, float]


def _ellipsoid(at: list[Array], centre: Point, radii: Point) -> Array:
    """Distance from an ellipsoid, exact to first order at its surface."""
    scaled = [(p - c) / r for p, c, r in zip(at, centre, radii, strict=True)]
    size = np.sqrt(sum(s**2 for s in scaled)) + 1e-6
    slope = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii, strict=True))) + 1e-6
    return size * (size - 1) / slope


def _capsule(at: list[Array], start: Point, end: Point, radius: Array | float) -> Array:
    """Distance from a rod with round ends."""
    direction = np.subtract(end, start)
    along = sum((p - s) * d for p, s, d in zip(at, start, direction, strict=True))
    part = np.clip(along / (direction @ direction), 0, 1)
    away = [p - s - part * d for p, s, d in zip(at, start, direction, strict=True)]
    return np.sqrt(sum(a**2 for a in away)) - radius


def _box(at: list[Array], centre: Point, half: Point, rounding: float) -> Array:
    """Distance from a box with rounded edges."""
    out = [np.abs(p - c) - h + rounding for p, c, h in zip(at, centre, half, strict=True)]
    outside = np.sqrt(sum(np.clip(o, 0, None) ** 2 for o in out))
    return outside + np.minimum(np.maximum.reduce(out), 0) - rounding


def _joined(first: Array, second: Array, blend: float) -> Array:
    """Distance from the union of two parts with a rounded seam (mm)."""
    mix = np.clip(0.5 + 0.5 * (second - first) / blend, 0, 1)
    return second + (first - second) * mix - blend * mix * (1 - mix)


class Knee:
    """One synthetic person's knee.

    Args:
        random: the source of everything that makes it an individual.
    """

    coverage = 84.0  # mm from the rearmost slice to the foremost
    axis = "row"  # of the receive array: the leg lies along the readout
    reach = 1000.0  # the leg goes on beyond the field of view

    def __init__(self, random: np.random.Generator) -> None:
        self.side = float(random.choice([-1.0, 1.0]))
        self.size = random.normal(1.0, 0.04, 3)
        self.tilts = np.deg2rad(random.normal(0, [4.0, 3.0, 3.0]))
        self.shift = random.normal(0, [3.0, 5.0, 2.0])
        self.bends = [
            [(SmoothField(random, 40), 2.0), (SmoothField(random, 14), 0.6)] for _ in "xyz"
        ]
        self.outline, self.septa = SmoothField(random, 45), SmoothField(random, 12)
        self.fat = float(np.clip(random.normal(7, 2.0), 3.5, 11))
        self.growth = random.normal([36, -26], 2.0)  # heights of the growth plates' scars, mm
        self.effusion = float(np.clip(random.normal(0.6, 0.6), 0.1, 2.2))
        self.worn = float(np.clip(random.normal(1.0, 0.2), 0.5, 1.3))
        self.bruise: tuple[Any, Any] | None = None  # centre and radii, mm
        if random.random() < 0.35:
            self.bruise = (
                (random.choice([-1.0, 1.0]) * 22, random.choice([14.0, -16.0]), 0.0),
                tuple(random.uniform(6, 12, 3)),
            )

    def _positions(self, grid: Grid, depth: float) -> list[Array]:
        """Coordinates x, y, z (mm) of a slice's samples in the knee."""
        bow, roll, twist = self.tilts
        x, y = np.meshgrid(grid.columns, grid.rows)
        x, y = x - self.shift[0], y - self.shift[1]
        x, y = x * np.cos(roll) + y * np.sin(roll), y * np.cos(roll) - x * np.sin(roll)
        z = depth + self.shift[2] + bow * y + twist * x
        x = self.side * x
        moved = []
        for values, size, bends in zip((x, y, z), self.size, self.bends, strict=True):
            bent = sum(amplitude * field.at(grid, depth) for field, amplitude in bends)
            moved.append((values / size + bent).astype(np.float32))
        return moved

    @staticmethod
    def _bones(at: list[Array]) -> dict[str, Array]:
        """Distances from the four bones' surfaces."""
        _, y, _ = at
        flare = 14 + 17 * np.exp(-(((y - 22) / 24) ** 2)) * (y < 60)
        femur = _capsule(at, (0, 26, 1), (0, 260, 9), np.maximum(flare * 0.9, 14))
        condyles = np.minimum(
            _box(at, (-22, 19.5, -6), (18.5, 19.5, 32), 17),
            _box(at, (22, 19.5, -6), (17.5, 19, 31), 16),
        )
        femur = _joined(femur, condyles, 9)
        trochlea = _ellipsoid(at, (0, 25, 18), (24, 17, 14))
        femur = _joined(femur, trochlea, 8)
        notch = _ellipsoid(at, (0, 0, -20), (10, 21, 30))
        femur = -_joined(-femur, notch, 4)
        plateau = _box(at, (0, -19, -3), (38, 13.5, 25), 10)
        shaft = 12.5 + 19 * np.exp(-(((y + 20) / 20) ** 2))
        tibia = _joined(plateau, _capsule(at, (0, -24, -3), (-3, -260, -6), shaft * 0.9), 14)
        spines = np.minimum(
            _ellipsoid(at, (-5, -6, -4), (3.5, 5, 8)), _ellipsoid(at, (5, -6, -3), (3.5, 4, 8))
        )
        tibia = _joined(np.maximum(tibia, y + 5.0), spines, 4)
        fibula = _joined(
            _ellipsoid(at, (36, -30, -20), (9, 10, 10)),
            _capsule(at, (36, -36, -20), (38, -260, -16), 6.5),
            5,
        )
        patella = _ellipsoid(at, (1, 28, 40), (21, 21, 10))
        return {"femur": femur, "tibia": tibia, "fibula": fibula, "patella": patella}

    def draw(self, canvas: Canvas, depth: float, random: np.random.Generator) -> None:
        """Paint the slice at a depth (mm in front of the rearmost slice)."""
        at = self._positions(canvas.grid, depth - self.coverage / 2 - 4)
        bones = self._bones(at)
        bone = np.minimum.reduce(list(bones.values()))
        self._draw_soft(canvas, at, bone, depth, random)
        self._draw_joint(canvas, at, bones, random)
        self._draw_bones(canvas, at, bone, random)

    def _draw_soft(
        self,
        canvas: Canvas,
        at: list[Array],
        bone: Array,
        depth: float,
        random: np.random.Generator,
    ) -> None:
        """Paint skin, subcutaneous fat, muscles and vessels."""
        grid = canvas.grid
        x, y, z = at
        # The leg: an ellipse across, wider at the thigh and the calf than at the joint.
        wide = 62 + 0.10 * np.clip(y - 20, 0, None) - 4 * np.exp(-(((y + 45) / 30) ** 2))
        deep = 60 + 0.12 * np.clip(y - 20, 0, None)
        across = np.sqrt((x / wide) ** 2 + ((z + 4) / deep) ** 2) + 1e-6
        outline = (across - 1) * wide * 0.8 + 1.5 * self.outline.at(grid, depth)
        threads = np.exp(-((noise(random, grid, 2.6, 1.8) / 0.13) ** 2))
        strands = 1 - 0.35 * threads * (noise(random, grid, 4.0) > 0)
        canvas.paint("skin", canvas.inside(outline))
        canvas.paint("fat", canvas.inside(outline + 1.7), strands)

        # Muscles lie under the fat: around the femur, tapering towards the joint, in the calf, and
        # beside the tibia. Behind the joint they leave a diamond of fat with the vessels in it.
        wavy = 5 * self.outline.at(grid, depth + 40)
        under = outline + self.fat * (1 + 0.3 * np.exp(-(((y + 5) / 45) ** 2)))
        under = under + 2.0 * self.septa.at(grid, depth)
        thigh = 0.8 * (46 - y + wavy - 0.012 * (x + 18) ** 2 + 0.2 * z)
        calf = 0.8 * np.maximum(y + 18 - wavy, z + 6 + 0.15 * y)
        behind = np.maximum(z + 24 - 0.2 * wavy, 12 - np.abs(x) - 0.3 * np.abs(y - 5))
        front = np.maximum(0.8 * (y + 26 + wavy + 0.7 * (x - 14)), 14 - x)
        muscle = np.minimum(np.minimum(thigh, calf), np.minimum(behind, front))
        muscle = np.maximum(np.maximum(under, muscle), 0.7 - bone)
        fibres = 1 + 0.09 * noise(random, grid, 0.7, 6.0) + 0.05 * noise(random, grid, 3.0, 3.0)
        canvas.paint("muscle", canvas.inside(muscle), fibres)
        sheets = np.exp(-((noise(random, grid, 5.0, 5.0) / 0.07) ** 2))
        canvas.paint("fat", 0.7 * sheets * canvas.inside(muscle + 1))
        for start, end, radius in (
            ((6, -160, -36), (4, 160, -34), 4.2),
            ((-3, -160, -38), (-6, 160, -36), 3.4),
        ):
            vessel = _capsule(at, start, end, radius)
            canvas.paint("muscle", canvas.inside(vessel))
            canvas.paint("vessel", canvas.inside(vessel + 1.1))
        canvas.paint("vessel", 0.7 * (noise(random, grid, 0.9) > 2.9) * canvas.inside(outline + 4))

    def _draw_joint(
        self, canvas: Canvas, at: list[Array], bones: dict[str, Array], random: np.random.Generator
    ) -> None:
        """Paint what lies between the bones: fluid, ligaments, menisci, cartilage."""
        x, y, z = at
        femur, tibia, patella = bones["femur"], bones["tibia"], bones["patella"]
        capsule = _ellipsoid(at, (0, 6, 0), (43, 17, 36))
        film = np.maximum(np.minimum(femur, patella) - 2.6 - self.effusion, capsule)
        canvas.paint("fluid", canvas.inside(np.maximum(film, y - 30)))
        pouch = _ellipsoid(at, (0, 52, 30), (18, 12, 0.8 + 1.2 * self.effusion))
        canvas.paint("fluid", canvas.inside(pouch))

        grain = 1 + 0.25 * noise(random, canvas.grid, 0.8, 3.0)
        ligaments = [
            _capsule(at, (-43, 26, -4), (-34, -48, 0), 1.6),  # medial collateral
            _capsule(at, (43, 24, -8), (37, -24, -18), 1.8),  # lateral collateral
            _capsule(at, (8, 16, -16), (-4, -5, 8), 3.4),  # anterior cruciate
            _capsule(at, (-7, 14, -8), (1, -10, -24), 4.2),  # posterior cruciate
            _capsule(at, (1, 14, 46), (3, -42, 34), 4.0),  # patellar tendon
            _capsule(at, (1, 48, 42), (0, 200, 40), 5.0),  # quadriceps tendon
            _capsule(at, (52, 160, -4), (38, -36, 10), 1.4),  # iliotibial tract
        ]
        canvas.paint("ligament", canvas.inside(np.minimum.reduce(ligaments)), grain)

        for side in (-1, 1):
            ring = np.sqrt((x - 22 * side) ** 2 + (0.72 * (z + 3)) ** 2)
            # Wedges, thick outside and sharp inside, on the plateau below each condyle.
            wedge = np.maximum(np.abs(y + 1.5) - 0.42 * np.clip(ring - 8, 0, None), ring - 20)
            wedge = np.maximum(wedge, 7.5 - ring)
            canvas.paint(
                "ligament", canvas.inside(np.maximum(wedge, 1.0 - np.minimum(femur, tibia)))
            )
        thick = 2.4 * self.worn
        facing = np.maximum(y - 26, np.abs(x) - 41)
        for surface, limit in (
            (femur, np.maximum(facing, 5 - y - 0.9 * np.abs(x))),
            (tibia, np.maximum(np.maximum(np.abs(x) - 36, -9 - y), np.abs(z + 2) - 25)),
            (patella, np.maximum(z - 36, np.abs(y - 28) - 18)),
        ):
            layer = np.maximum(surface - thick, limit)
            canvas.paint("cartilage", canvas.inside(layer), 1 + 0.06 * grain)

    def _draw_bones(
        self, canvas: Canvas, at: list[Array], bone: Array, random: np.random.Generator
    ) -> None:
        """Paint cortex, marrow with its trabeculae, growth scars and a bruise."""
        grid = canvas.grid
        x, y, _ = at
        # The cortex is thick along the shafts and thin at the joint.
        cortex = 0.9 + 2.4 * np.clip((np.abs(y - 2) - 38) / 60, 0, 1)
        canvas.paint("bone", canvas.inside(bone))
        struts = 0.5 * noise(random, grid, 0.42, 3.0) + 0.3 * noise(random, grid, 0.5)
        near = np.exp(-((np.clip(np.abs(y - 2) - 8, 0, None) / 40) ** 2))
        marrow = 1 - 0.19 * near * struts + 0.05 * noise(random, grid, 4.0)
        canvas.paint("marrow", canvas.inside(bone + cortex), np.clip(marrow, 0.2, None))
        for height in self.growth:
            wave = y - height - 0.006 * x**2 * np.sign(height) * -1 - 1.2 * np.sin(x / 6)
            scar = np.exp(-((wave / 0.7) ** 2)) * canvas.inside(bone + cortex + 1)
            canvas.paint("bone", 0.5 * scar)
        if self.bruise is not None:
            centre, radii = self.bruise
            edge = np.clip(0.5 - _ellipsoid(at, centre, radii) / 8, 0, 1)
            mottled = np.clip(0.5 + 0.2 * noise(random, grid, 1.5), 0, 1)
            canvas.paint("lesion", edge * mottled * canvas.inside(bone + cortex))
