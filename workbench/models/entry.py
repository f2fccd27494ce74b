"""What the workbench has to know of a network; nothing here needs torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.reconstructor import Reconstructor


@dataclass(frozen=True)
class Network:
    """A network's entry in the registry."""

    name: str  # in files and parameters
    label: str  # for people
    # Frozen dataclass with a default for every number; it checks its values, and its text describes
    # the network in one line.
    config: type[Any]
    build: "Callable[[Any], Reconstructor]"  # from a config
    weights: str  # regular expression of what the names of its weights begin with
    # Reads the config off the names and shapes of a state dict; raises ValueError.
    config_of: "Callable[[Mapping[str, Tensor]], Any]"
    # Fields of ``TrainingJob`` that this network trains with instead of the job's defaults.
    recipe: Mapping[str, Any] = field(default_factory=dict)
    # What a small network for the synthetic phantom has instead of the defaults: numbers of its
    # config, and fields of ``TrainingJob``.
    phantom: Mapping[str, Any] = field(default_factory=dict)
    released: dict[str, str] = field(default_factory=dict)  # name -> address of its weights
    kinds: tuple[str, ...] = ("multicoil", "singlecoil")  # datasets that it can be trained on
    inside: str = ""  # what its own state dict has before the names that ``weights`` begins with
    # Fields of ``TrainingJob`` whose help it cannot have, and what to do instead: of low_memory,
    # crop_readout, precision (bf16), compile and zero_start.
    lacks: Mapping[str, str] = field(default_factory=dict)
    # Whether it learns. What does not has no weights, and reconstructs from its config alone.
    trains: bool = True

    def configured(self, options: Mapping[str, Any]) -> Any:
        """Return its config with some values of its own.

        Raises:
            ValueError: it has no such argument, or a value is outside what is allowed.
        """
        names = [each.name for each in fields(self.config)]
        if unknown := [name for name in options if name not in names]:
            raise ValueError(
                f"network_options: {self.label} has no argument {unknown[0]}; it has "
                f"{', '.join(names) or 'none'}"
            )
        return self.config(**options)


def check_whole(name: str, value: Any, least: int) -> None:
    """Check a whole number.

    Raises:
        ValueError: it is something else, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number, {least} or more")
