"""A network's numbers, read off the names and shapes of its weights."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def count_parts(state: "Mapping[str, Tensor]", prefix: str) -> int:
    """Count a network's parts of one kind, such as its cascades.

    Args:
        state: a state dict.
        prefix: what their names begin with, before 0, 1 and so on.

    Raises:
        ValueError: one of them is missing between the others.
    """
    found = {name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)}
    missing = {str(number) for number in range(len(found))} - found
    if missing:
        raise ValueError(f"{prefix}{min(missing)} is missing, of {len(found) + 1} or more")
    return len(found)


def unet_size(state: "Mapping[str, Tensor]", prefix: str) -> tuple[int, int]:
    """Return the channels and poolings of a U-Net.

    Args:
        state: a state dict.
        prefix: what the names of the U-Net's weights begin with.

    Raises:
        ValueError: its first layer is missing.
    """
    chans, *_ = shape_of(state, f"{prefix}down_sample_layers.0.layers.0.weight")
    return chans, count_parts(state, f"{prefix}down_sample_layers.")


def shape_of(state: "Mapping[str, Tensor]", name: str) -> tuple[int, ...]:
    """Return the shape of a convolution's weights, channels out and in first.

    Raises:
        ValueError: they are missing.
    """
    found = state.get(name)
    if found is None or found.ndim != 4:
        raise ValueError(f"{name} is missing")
    return tuple(found.shape)
