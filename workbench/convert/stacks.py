"""Slices in their order in space: of each stack, whatever their counters say."""

import numpy as np
from numpy.typing import NDArray

from workbench.convert.scan import RefusedError
from workbench.data.images import finite

_SAME_DIRECTION = 0.9998  # cosine of a bit more than a degree
_SAME_PLACE_MM = 0.01


def find_stacks(table: NDArray[np.void]) -> list[tuple[NDArray[np.uint16], tuple[str, ...]]]:
    """Part the slices of some lines into stacks of one direction each.

    Args:
        table: image lines of one volume, as ``lines.LINE``.

    Returns:
        Of each stack the counters of its slices in the order of space, and remarks.

    Raises:
        RefusedError: two slices of a stack have the same place.
    """
    counters, first = np.unique(table["slice"], return_index=True)
    directions = finite(table["slice_dir"][first].astype(float))
    positions = finite(table["position"][first].astype(float))
    stacks: list[list[int]] = []
    for number, direction in enumerate(directions):
        for stack in stacks:
            of_stack = directions[stack[0]]
            if direction @ of_stack >= _SAME_DIRECTION or not (direction.any() or of_stack.any()):
                stack.append(number)
                break
        else:
            stacks.append([number])
    found = []
    for stack in stacks:
        order, remarks = _in_space(positions[stack], directions[stack[0]])
        found.append((counters[stack][order], remarks))
    return found


def _in_space(
    positions: NDArray[np.float64], direction: NDArray[np.float64]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the order of slices along their common direction."""
    count = len(positions)
    if count > 1 and not (direction.any() and positions.any()):
        said = f"the {count} slices have no positions: they stand in the order of their counter"
        return np.arange(count), (said,)
    places = positions @ direction
    order = np.argsort(places, kind="stable")
    if count > 1 and np.diff(places[order]).min() < _SAME_PLACE_MM:
        raise RefusedError(
            f"has slices at one place of {count}: several stacks, or one slice many times; part "
            "them into files of their own"
        )
    return order, ()
