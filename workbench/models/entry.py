"""What the workbench has to know of a network; nothing here needs torch."""

import ast
import importlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.reconstructor import Reconstructor


# What a network that has its forward alone cannot do, and what to give instead.
WITHOUT_HELP = {
    "low_memory": "give auto or False",
    "crop_readout": "give False",
    "precision": "give 32 or 16",
    "compile": "give auto or off",
    "first_estimate": "leave it out",
}


USUAL_LOSS = "1 − SSIM"
"""What most networks are trained on where a job names no loss, for people."""


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
    # Fields of ``TrainingJob`` that it cannot heed, and what to give instead. It is believed: an
    # entry that says nothing can heed none of them.
    lacks: Mapping[str, str] = field(default_factory=WITHOUT_HELP.copy)
    loss: str = USUAL_LOSS  # its ``own_loss`` for people, where it has one
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
                f"{self.label} has no argument {unknown[0]}; it has {', '.join(names) or 'none'}"
            )
        return self.config(**options)

    def usual(self, *, synthetic: bool) -> dict[str, Any]:
        """Return the numbers of its config where nobody asks for others, by name."""
        numbers = asdict(self.config())
        small = self.phantom if synthetic else {}
        return numbers | {name: small[name] for name in numbers if name in small}

    def unusual(self, options: Mapping[str, Any], *, synthetic: bool) -> list[str]:
        """Write as NAME=VALUE those of some options that are not the usual ones."""
        usual = self.usual(synthetic=synthetic)
        return [
            f"{name}={value}"
            for name, value in options.items()
            if name not in usual or value != usual[name]
        ]


def built_by(name: str, **renamed: str) -> "Callable[[Any], Reconstructor]":
    """Return what builds a network from its config: its class is imported then, and torch with it.

    Args:
        name: of the class, "package.module:Name".
        renamed: what its constructor calls numbers of the config that have another name there.
    """

    def build(config: Any) -> "Reconstructor":
        module, _, kind = name.partition(":")
        numbers = {renamed.get(key, key): value for key, value in asdict(config).items()}
        return getattr(importlib.import_module(module), kind)(**numbers)

    return build


def check_whole(name: str, value: Any, least: int) -> None:
    """Check a whole number.

    Raises:
        ValueError: it is something else, or too small.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name}={value!r}: give a whole number, {least} or more")


def read_options(options: Any) -> dict[str, Any]:
    """Read arguments of a network: a mapping, or a text such as "depth=5, norm=batch".

    Raises:
        ValueError: a part of the text is no NAME=VALUE.
    """
    if options is None or isinstance(options, Mapping):
        return dict(options or {})
    found = {}
    for part in filter(None, (part.strip() for part in str(options).split(","))):
        name, sign, value = (each.strip() for each in part.partition("="))
        if not (name.isidentifier() and sign):
            raise ValueError(f"options {options!r}: give NAME=VALUE, such as depth=5")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            found[name] = value  # a text without quotes
    return found


def write_options(values: Mapping[str, Any]) -> str:
    """Write arguments of a network as ``read_options`` reads them."""
    return ", ".join(f"{name}={value!r}" for name, value in values.items())


# ---- a network's numbers, read off the names and shapes of its weights -------------------------


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
