"""The end-to-end VarNet's entry in the registry, and its config; the network is in ``network``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from workbench.models.entry import Network, built_by, check_whole, count_parts, unet_size

if TYPE_CHECKING:
    from torch import Tensor

_MOST_POOLS = 4  # images are padded to multiples of 16
_RELEASED = "https://dl.fbaipublicfiles.com/fastMRI/trained_models/varnet/"


@dataclass(frozen=True)
class VarNetConfig:
    """The VarNet's numbers, of a cascade's U-Net and of the sensitivity net's."""

    cascades: int = 12
    chans: int = 18  # channels
    pools: int = 4  # poolings
    sens_chans: int = 8
    sens_pools: int = 4

    def __post_init__(self) -> None:
        for each in fields(self):
            check_whole(each.name, getattr(self, each.name), 1)
        for name in ("pools", "sens_pools"):
            if getattr(self, name) > _MOST_POOLS:
                raise ValueError(
                    f"{name}={getattr(self, name)}: images are padded to multiples of 16, so at "
                    f"most {_MOST_POOLS}"
                )

    def __str__(self) -> str:
        return (
            f"VarNet of {self.cascades} cascades, {self.chans} channels, {self.pools} pools; "
            f"sensitivity net of {self.sens_chans} channels, {self.sens_pools} pools"
        )


def config_of(state: "Mapping[str, Tensor]") -> VarNetConfig:
    """Read the config off the names and shapes of weights.

    Raises:
        ValueError: there is neither a cascade nor a sensitivity net in them.
    """
    of_cascade = unet_size(state, "cascades.0.model.unet.")
    of_sens_net = unet_size(state, "sens_net.norm_unet.unet.")
    return VarNetConfig(count_parts(state, "cascades."), *of_cascade, *of_sens_net)


VARNET = Network(
    name="varnet",
    label="VarNet",
    config=VarNetConfig,
    build=built_by("workbench.models.varnet.network:VarNet", cascades="num_cascades"),
    weights=r"(?:sens_net|cascades)\.",
    config_of=config_of,
    lacks={},
    phantom={
        "cascades": 6,
        "chans": 6,
        "sens_chans": 4,
        "first_estimate": "tv, regularisation=0.002",
        "schedule": "cosine",
        "lr": 3e-3,
    },
    # The weights of fastMRI's leaderboard entries, as its repository's inference script names them.
    released={
        "fastmri-knee": f"{_RELEASED}knee_leaderboard_state_dict.pt",
        "fastmri-brain": f"{_RELEASED}brain_leaderboard_state_dict.pt",
    },
)
