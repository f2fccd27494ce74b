"""The networks that can be trained and reconstruct: one entry each in ``NETWORKS``.

A new network is a folder and a line here: config and entry in its ``__init__``, which must not
import torch, as commands start without it; its code beside them, imported where it is built. Or it
stays outside, and is named as ``package.module:MyNetwork``. Training, reconstruction, exports,
figures and estimates ask the entry and know no network by name.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from workbench.models.classical import SENSE, TV, WAVELET
from workbench.models.entry import Network, read_options
from workbench.models.own import check_form, is_own, label_of_own, network_of
from workbench.models.promptmr import PROMPTMR
from workbench.models.unet_baseline import UNET
from workbench.models.varnet import VARNET

if TYPE_CHECKING:
    from workbench.models.reconstructor import Reconstructor
    from workbench.models.varnet.network import VarNet

__all__ = [
    "AS_PUBLISHED",
    "DEFAULT",
    "FIRST_ESTIMATES",
    "NETWORKS",
    "ZERO_FILLED",
    "VarNet",
    "build",
    "check_network_name",
    "find_network",
    "first_estimate",
    "label_of",
    "read_first_estimate",
    "released",
    "trains",
    "unusual_options",
]

_ENTRIES = (VARNET, PROMPTMR, UNET, SENSE, WAVELET, TV)
NETWORKS: dict[str, Network] = {entry.name: entry for entry in _ENTRIES}
"""Name of each network, as ``network=`` takes it, and its entry."""
ZERO_FILLED = "zero-filled"
AS_PUBLISHED = "published"
FIRST_ESTIMATES = (
    *(AS_PUBLISHED, ZERO_FILLED),
    *(entry.name for entry in _ENTRIES if not entry.trains),
)
"""What an unrolled network can begin with: as published, zero-filled with random weights."""
DEFAULT = VARNET.name
"""The network where none is named, as in files of runs and results of earlier versions."""


def find_network(name: str) -> Network:
    """Look up a network; one of somebody's own is imported.

    Raises:
        ValueError: there is no network of that name.
    """
    check_network_name(name)
    return network_of(name) if is_own(name) else NETWORKS[name]


def check_network_name(name: str) -> str:
    """Check that a name is of the registry, or has the form of one of somebody's own."""
    if is_own(name):
        return check_form("network", name)
    if name not in NETWORKS:
        names = ", ".join(NETWORKS)
        raise ValueError(f"network={name!r}: give one of {names}, or package.module:MyNetwork")
    return name


def build(name: str, config: Any) -> "Reconstructor":
    """Construct a network with random weights.

    Args:
        name: of ``NETWORKS``, or of somebody's own.
        config: an object of the entry's config class, or one with the same values.
    """
    entry = find_network(name)
    if not isinstance(config, entry.config):  # read from a file, without the network's code
        config = entry.config(**asdict(config))
    network = entry.build(config)
    network.name, network.config = name, config
    return network


def first_estimate(text: str | None) -> "Reconstructor | None":
    """Build what an unrolled network begins with, as ``read_first_estimate`` reads it."""
    found = read_first_estimate(text)
    return found and build(*found)


def read_first_estimate(text: str | None) -> tuple[str, Any] | None:
    """Read what an unrolled network begins with: a classical reconstruction and its config.

    None where that is the zero-filled image.

    Args:
        text: "zero-filled", "published", or the name of a classical reconstruction, perhaps with
            its numbers: "tv, regularisation=0.002".

    Raises:
        ValueError: it is something else, or has no such numbers.
    """
    name, _, options = (text or AS_PUBLISHED).partition(",")
    name = name.strip()
    if name in (AS_PUBLISHED, ZERO_FILLED) and not options:
        return None
    try:
        if name not in NETWORKS or trains(name):
            raise ValueError(f"give one of {', '.join(FIRST_ESTIMATES)}")
        return name, NETWORKS[name].configured(read_options(options))
    except ValueError as error:
        raise ValueError(f"first_estimate={text!r}: {error}") from None


def label_of(name: str, unusual: str = "") -> str:
    """Return what people call a network, with options that are not the usual ones."""
    label = NETWORKS[name].label if name in NETWORKS else label_of_own(name)
    return f"{label} ({unusual})" if unusual else label


def unusual_options(name: str, options: str | None, *, synthetic: bool) -> str:
    """Say with which options, not the usual ones, a network that learns nothing was run.

    ``options`` is text as ``entry.read_options`` reads it, "" and None for none. All of it is
    returned where it is damaged, and of somebody's own network, which is not imported for it.
    """
    if not options or (name in NETWORKS and trains(name)):  # of these the weights tell
        return ""
    try:
        return ", ".join(NETWORKS[name].unusual(read_options(options), synthetic=synthetic))
    except (KeyError, ValueError):
        return options


def trains(name: str) -> bool:
    """Say whether a network learns; one of somebody's own is not imported for it, and does."""
    return name not in NETWORKS or NETWORKS[name].trains


def released() -> dict[str, str]:
    """Return name -> address of the weights that are released, of all networks."""
    return {name: url for entry in NETWORKS.values() for name, url in entry.released.items()}


def __getattr__(name: str) -> Any:
    # torch takes seconds to import: only those who ask for the network wait for it.
    if name != "VarNet":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from workbench.models.varnet.network import VarNet

    return VarNet
