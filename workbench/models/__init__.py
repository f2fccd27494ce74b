"""The end-to-end VarNet: network, training, metrics, reconstruction."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.models.varnet import VarNet

__all__ = ["VarNet"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: only those who ask for the network wait for it.
    if name != "VarNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workbench.models.varnet import VarNet

    return VarNet
