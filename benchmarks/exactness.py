"""How exact the network is: ``python -m benchmarks.exactness`` prints the table of ``bench.md``.

In float64 ours is held against fastMRI's. In float32 each is held against fastMRI's float64
result, which says how far rounding alone carries either.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from benchmarks.networks import Distances, distances, networks, results, rounding
from benchmarks.sizes import SIZES, Shape, Size

_SHAPES: dict[str, Shape] = {
    "knee": (4, 640, 368),
    "brain": (4, 640, 320),
    "odd": (3, 213, 107),
}
_TOY: dict[str, Shape] = {"knee": (3, 64, 36), "brain": (2, 64, 32), "odd": (2, 51, 37)}


@dataclass(frozen=True)
class Exactness:
    """Distances (L2, relative) of an image and of all gradients together.

    Attributes:
        name: of the shape.
        shape: coils, readout, phase encode.
        float64: ours against fastMRI's, image and gradients.
        float32: ours against fastMRI's float64.
        reference: fastMRI's float32 against its float64.
    """

    name: str
    shape: Shape
    float64: Distances
    float32: Distances
    reference: Distances


def exactness(size: Size) -> Iterator[Exactness]:
    """Yield the distances for each shape; two cascades, so that it takes seconds."""
    for name, shape in (_TOY if size.name == "toy" else _SHAPES).items():
        reference, ours = networks(size, num_cascades=2)
        found, exact = (results(one, torch.float64, shape) for one in (ours, reference))
        rough = rounding((reference, ours), shape)
        yield Exactness(name, shape, distances(found, exact), rough[1], rough[0])


def exactness_table(size: Size) -> str:
    """Return the distances as a Markdown table."""
    lines = [
        "Distances from fastMRI's float64 result (L2, relative), of the image and of the gradients "
        "of all parameters; random weights, random DC weights, two cascades. For the gradients in "
        "float32 the leaky ReLUs have slope 1: at a kink they jump where rounding flips a sign.",
        "",
        "| | slice | float64, ours | float32, ours | float32, fastMRI's own |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in exactness(size):
        figures = " | ".join(
            f"{image:.1e}, {gradient:.1e}"
            for image, gradient in (row.float64, row.float32, row.reference)
        )
        lines.append(f"| {row.name} | {'x'.join(map(str, row.shape))} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.manual_seed(0)
    print(exactness_table(SIZES["toy" if "--toy" in sys.argv else "quick"]))
