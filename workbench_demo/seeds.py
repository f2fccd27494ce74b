"""The demo's trainings again, from other seeds: how far do its figures follow the seed?

A training's seed decides on its first weights, the order of its slices and their masks. The volumes
and the masks of their validation stay.
"""

from dataclasses import replace

from workbench_demo.stages import Demo

FIRST = 42
"""The seed of a training that names none."""


def other_seeds(demo: Demo, count: int) -> Demo:
    """Return a demo of the trainings from so many seeds, the first one aside."""
    parts = [
        replace(
            part,
            training={**part.training, "seed": seed},
            pages=("train", "reconstruct"),
            compare="",
        )
        for part in demo.size.parts
        for seed in range(FIRST + 1, FIRST + count)
    ]
    return Demo(replace(demo.size, parts=tuple(parts), scans=0))
