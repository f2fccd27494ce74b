"""The end-to-end VarNet's entry in the registry, and its config; the network is in ``network``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from workbench.models.entry import Network, check_whole

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.models.varnet.network import VarNet

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

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of ``VarNet``, which are those of ``fastmri.models.VarNet``."""
        return {
            "num_cascades": self.cascades,
            "sens_chans": self.sens_chans,
            "sens_pools": self.sens_pools,
            "chans": self.chans,
            "pools": self.pools,
        }


def config_of(state: "Mapping[str, Tensor]") -> VarNetConfig:
    """Read the config off the names and shapes of weights.

    Raises:
        ValueError: there is neither a cascade nor a sensitivity net in them.
    """

    def unet(prefix: str) -> tuple[int, int]:
        name = f"{prefix}unet.down_sample_layers.0.layers.0.weight"
        first = state.get(name)
        if first is None or first.ndim != 4:
            raise ValueError(f"{name} is missing")
        return first.shape[0], count(f"{prefix}unet.down_sample_layers.")

    def count(prefix: str) -> int:
        found = {
            name.removeprefix(prefix).split(".")[0] for name in state if name.startswith(prefix)
        }
        missing = {str(number) for number in range(len(found))} - found
        if missing:
            raise ValueError(f"{prefix}{min(missing)} is missing, of {len(found) + 1} or more")
        return len(found)

    chans, pools = unet("cascades.0.model.")
    sens_chans, sens_pools = unet("sens_net.norm_unet.")
    return VarNetConfig(count("cascades."), chans, pools, sens_chans, sens_pools)


def _build(config: VarNetConfig) -> "VarNet":
    from workbench.models.varnet.network import VarNet

    return VarNet(**config.arguments)


VARNET = Network(
    name="varnet",
    label="VarNet",
    config=VarNetConfig,
    build=_build,
    weights=r"(?:sens_net|cascades)\.",
    config_of=config_of,
    phantom={"cascades": 4, "chans": 8, "sens_chans": 4},
    # The weights of fastMRI's leaderboard entries, as its repository's inference script names them.
    released={
        "fastmri-knee": f"{_RELEASED}knee_leaderboard_state_dict.pt",
        "fastmri-brain": f"{_RELEASED}brain_leaderboard_state_dict.pt",
    },
)
