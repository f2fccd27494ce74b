"""Networks and losses of your own, named as ``package.module:Name``; docs/own-code.md shows both.

A module is looked for where Python looks, and in the project's folder. What a name stands for is
imported where it is built or checked. Files of runs and results are read without it.
"""

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, make_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from workbench.models.entry import WITHOUT_HELP, Network
from workbench.settings import project_root

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.reconstructor import Reconstructor

    Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SIDE = 64  # of the image that a network is tried on
_EXTEND = "or have it extend workbench.models.reconstructor.Reconstructor"


def is_own(name: Any) -> bool:
    """Say whether a name is of somebody's own code, not of the registry."""
    return isinstance(name, str) and ":" in name


def check_form(parameter: str, name: str) -> str:
    """Check that a name has the form of one, and return it; nothing is imported.

    Raises:
        ValueError: it has another form, or is of code in a notebook.
    """
    if not _FORM.fullmatch(name):
        raise ValueError(f"{parameter}={name!r}: give package.module:Name, such as my_code:MyName")
    if name.startswith("__main__:"):
        raise ValueError(
            f"{parameter}={name!r} lives in a notebook, where the training's processes cannot "
            "import it: write it to a file such as my_code.py in the project's folder"
        )
    return name


def check_there(parameter: str, name: str) -> str:
    """Check a name's form, and that its outermost package or module exists; nothing is imported.

    Raises:
        ValueError: it is of another form, or missing.
    """
    top = check_form(parameter, name).partition(":")[0].partition(".")[0]
    see_project()
    if top not in sys.modules and importlib.util.find_spec(top) is None:
        raise ValueError(_missing(parameter, name, top))
    return name


def see_project() -> None:
    """Have Python look for modules in the project's folder too, after all other places."""
    if (root := str(project_root())) not in sys.path:
        sys.path.append(root)
    importlib.invalidate_caches()


def bring(parameter: str, name: str) -> Any:
    """Import what a name stands for.

    Raises:
        ValueError: there is no such module or name, or its import fails.
    """
    module, _, attributes = check_form(parameter, name).partition(":")
    see_project()
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ValueError(_missing(parameter, name, error.name)) from None
        raise ValueError(
            f"{parameter}={name!r}: {module} imports {error.name}, which is not installed"
        ) from error
    except Exception as error:
        raise ValueError(
            f"{parameter}={name!r}: importing {module} fails: {type(error).__name__}: {error}"
        ) from error
    for attribute in attributes.split("."):
        if not hasattr(found, attribute):
            raise ValueError(f"{parameter}={name!r}: {module} has no {attributes}")
        found = getattr(found, attribute)
    return found


def _missing(parameter: str, name: str, module: str) -> str:
    return (
        f"{parameter}={name!r}: no module is called {module}: put its file or package into the "
        f"project's folder {project_root()}, or install it"
    )


# ---- networks ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class OwnConfig:
    """Base of the configs that are made from the arguments of a network's constructor."""

    network: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for each in fields(self):
            value, wanted = getattr(self, each.name), type(each.default)
            known = (int, float) if wanted is float else (wanted, type(None))
            if each.default is not None and type(value) not in known:
                raise ValueError(f"{each.name}={value!r}: give {wanted.__name__}")

    def __reduce__(self) -> tuple[Any, ...]:  # its class is made, and found under no name
        return read_config, (self.network, asdict(self))

    def __str__(self) -> str:
        values = ", ".join(f"{name}={value!r}" for name, value in asdict(self).items())
        return f"{self.network}({values})"

    def __eq__(self, other: object) -> bool:
        # The same config is read from a file without the module, and made with it.
        same = isinstance(other, OwnConfig) and other.network == self.network
        return same and asdict(self) == asdict(other)  # type: ignore[call-overload]

    def __hash__(self) -> int:
        return hash(str(self))


def _config_class(name: str, defaults: Mapping[str, Any]) -> type[Any]:
    each = [(key, Any, field(default=value)) for key, value in defaults.items()]
    return make_dataclass(
        f"{label_of_own(name)}Config", each, bases=(OwnConfig,), namespace={"network": name},
        frozen=True, eq=False,
    )  # fmt: skip


def read_config(name: str, values: Mapping[str, Any]) -> Any:
    """Return the config of a network as a file has it, without importing the network."""
    return _config_class(name, values)()


def label_of_own(name: str) -> str:
    """Return what people call a network: its class."""
    return name.rpartition(":")[2]


def network_of(name: str) -> Network:
    """Import a network, and return its entry.

    Args:
        name: of a class of ``torch.nn.Module`` with fastMRI's forward, ``(masked_kspace, mask,
            num_low_frequencies) -> image``, or of an entry ``workbench.models.entry.Network``.

    Raises:
        ValueError: there is no such thing, or its constructor has an argument without a default.
    """
    from torch import nn

    found, label = bring("network", name), label_of_own(name)
    if isinstance(found, Network):
        return replace(found, name=name, label=label)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        what = found.__name__ if isinstance(found, type) else type(found).__name__
        raise ValueError(
            f"network={name!r} is {what}: give a class of torch.nn.Module, or an entry "
            "workbench.models.entry.Network"
        )
    from workbench.models.reconstructor import Reconstructor, as_reconstructor

    config = _config_class(name, _arguments(name, found))
    plain = not issubclass(found, Reconstructor)  # it has fastMRI's forward, and no more
    return Network(
        name=name,
        label=label,
        config=config,
        build=lambda chosen: as_reconstructor(found(**asdict(chosen))),
        weights="",
        config_of=lambda _: config(),
        inside="own." if plain else "",
        lacks={name: f"{advice}, {_EXTEND}" for name, advice in WITHOUT_HELP.items()}
        if plain
        else {},
    )


def _arguments(name: str, kind: type) -> dict[str, Any]:
    """Return the constructor's arguments that have a plain default, with those defaults."""
    found = {}
    for each in inspect.signature(kind).parameters.values():
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if each.default is each.empty:
            raise ValueError(
                f"network={name!r}: its constructor's argument {each.name} has no default: give "
                "it one, so that the network can be made from its name"
            )
        if each.kind is not each.POSITIONAL_ONLY and isinstance(
            each.default, bool | int | float | str | None
        ):
            found[each.name] = each.default
    return found


def try_network(name: str, make: "Callable[[], Reconstructor]") -> None:
    """Make a network and run it on a tiny slice, before anything slow starts.

    Raises:
        ValueError: it cannot be made or run, or does not return a real image (batch, H, W) through
            which a gradient reaches its weights.
    """
    import torch

    kspace, mask = torch.zeros(1, 3, _SIDE, _SIDE, 2), torch.zeros(1, 1, 1, _SIDE, 1).bool()
    mask[..., ::4, :] = mask[..., _SIDE // 2 - 4 : _SIDE // 2 + 4, :] = True
    with torch.random.fork_rng(devices=[]):
        kspace.normal_()
        try:
            network = make().train()
            kspace = kspace.repeat(1, network.neighbours, 1, 1, 1)
            image = network(kspace * mask, mask, torch.tensor([8]))
        except Exception as error:
            raise ValueError(
                f"network={name!r} fails on masked_kspace {tuple(kspace.shape)}, mask "
                f"{tuple(mask.shape)}, num_low_frequencies (1,): {type(error).__name__}: {error}"
            ) from error
    wanted = f"a real image (batch, H, W), here (1, {_SIDE}, {_SIDE})"
    if not isinstance(image, torch.Tensor) or image.shape != (1, _SIDE, _SIDE):
        shape = tuple(image.shape) if isinstance(image, torch.Tensor) else type(image).__name__
        raise ValueError(f"network={name!r} returns {shape}: return {wanted}")
    if not image.is_floating_point():
        raise ValueError(f"network={name!r} returns {image.dtype}: return {wanted}")
    if not image.requires_grad:
        raise ValueError(f"network={name!r}: no gradient reaches its weights, or it has none")


# ---- losses ------------------------------------------------------------------------------


def find_loss(name: str) -> "Loss":
    """Import a loss: a function, or a class whose objects are called, such as an ``nn.Module``.

    Raises:
        ValueError: there is no such thing, or it cannot be called.
    """
    found = bring("loss", name)
    try:
        loss = found() if isinstance(found, type) else found
    except Exception as error:
        raise ValueError(
            f"loss={name!r}: {label_of_own(name)}() fails: {type(error).__name__}: {error}"
        ) from error
    if not callable(loss):
        raise ValueError(f"loss={name!r} is {type(loss).__name__}: give a function")
    return loss


def try_loss(name: str) -> None:
    """Call a loss on two tiny images, before anything slow starts.

    Raises:
        ValueError: it fails, or returns anything but one number with a gradient.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        output, target = torch.rand(2, 2, _SIDE, _SIDE)
    loss = find_loss(name)
    try:
        value = loss(output.requires_grad_(), target, torch.ones(2))
    except Exception as error:
        raise ValueError(
            f"loss={name!r} fails on output {tuple(output.shape)}, target {tuple(target.shape)}, "
            f"max_value (2,): {type(error).__name__}: {error}"
        ) from error
    if not isinstance(value, torch.Tensor) or value.shape != ():
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ValueError(f"loss={name!r} returns {shape}: return one number, a tensor of shape ()")
    if not value.requires_grad:
        raise ValueError(f"loss={name!r}: no gradient reaches the output through it")
