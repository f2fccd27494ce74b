"""The U-Net baseline's entry in the registry, and its config; the network is in ``network``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from workbench.models.entry import Network, built_by, check_whole, unet_size

if TYPE_CHECKING:
    from torch import Tensor

_RELEASED = "https://dl.fbaipublicfiles.com/fastMRI/trained_models/unet/"
_INSIDE = "unet."  # where the network has what fastMRI's files hold


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net's numbers; fastMRI's released ones have 256 channels."""

    chans: int = 32  # channels after the first convolution, doubled by each pooling
    pools: int = 4  # poolings

    def __post_init__(self) -> None:
        for each in fields(self):
            check_whole(each.name, getattr(self, each.name), 1)

    def __str__(self) -> str:
        return f"U-Net of {self.chans} channels, {self.pools} pools"


def config_of(state: "Mapping[str, Tensor]") -> UNetConfig:
    """Read the config off the names and shapes of weights.

    Raises:
        ValueError: there is no U-Net in them.
    """
    return UNetConfig(*unet_size(state, _INSIDE))


UNET = Network(
    name="unet",
    label="U-Net",
    config=UNetConfig,
    build=built_by("workbench.models.unet_baseline.network:UNetBaseline"),
    weights=r"(?:down_sample_layers|up_transpose_conv|up_conv|conv\.layers)\.",
    inside=_INSIDE,
    config_of=config_of,
    loss="L1, input normalised",
    recipe={"optimizer": "rmsprop", "lr": 1e-3},
    phantom={"chans": 16, "pools": 4},
    # As the repository's inference script names them.
    released={
        "fastmri-unet-knee": f"{_RELEASED}knee_mc_leaderboard_state_dict.pt",
        "fastmri-unet-knee-singlecoil": f"{_RELEASED}knee_sc_leaderboard_state_dict.pt",
        "fastmri-unet-brain": f"{_RELEASED}brain_leaderboard_state_dict.pt",
    },
    lacks={
        "low_memory": "it has one U-Net alone; give auto or False",
        "crop_readout": "it sees the cropped image alone; give False",
        "first_estimate": "it has no image to begin with; leave it out",
    },
)
