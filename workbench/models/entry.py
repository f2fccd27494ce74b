"""What the workbench has to know of a network; nothing here needs torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.reconstructor import Reconstructor


@dataclass(frozen=True)
class Network:
    """A network's entry in the registry.

    Attributes:
        name: in files and parameters.
        label: for people.
        config: frozen dataclass with a default for every number; it checks its values, and its
            text describes the network in one line.
        build: constructs the network from a config.
        weights: regular expression of what the names of its weights begin with.
        config_of: reads the config off the names and shapes of a state dict; raises ValueError.
        phantom: what a small network for the synthetic phantom has instead of the defaults.
        released: name -> address of weights that are published.
        kinds: of ``catalog.Dataset.kind``, what it can be trained on.
    """

    name: str
    label: str
    config: type[Any]
    build: "Callable[[Any], Reconstructor]"
    weights: str
    config_of: "Callable[[Mapping[str, Tensor]], Any]"
    phantom: Mapping[str, Any] = field(default_factory=dict)
    released: dict[str, str] = field(default_factory=dict)
    kinds: tuple[str, ...] = ("multicoil", "singlecoil")


def check_whole(name: str, value: Any, least: int) -> None:
    """Check a whole number.

    Raises:
        ValueError: it is something else, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number, {least} or more")
