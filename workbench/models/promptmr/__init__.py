"""PromptMR's entry in the registry, and its config; the network is in ``network``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench.data.volume import check_neighbours
from workbench.models.entry import Network, built_by, check_whole, count_parts, shape_of

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class PromptMRConfig:
    """PromptMR's numbers; the defaults are those of the authors' network for knees."""

    cascades: int = 12
    neighbours: int = 3  # slices that it sees
    chans: int = 48  # channels of a cascade's first level
    sens_chans: int = 24  # and of the sensitivity net's
    attention: bool = False  # whether blocks weigh their channels

    def __post_init__(self) -> None:
        check_whole("cascades", self.cascades, 1)
        check_neighbours(self.neighbours)
        for name in ("chans", "sens_chans"):
            value = getattr(self, name)
            check_whole(name, value, 4)
            if value % 2:
                raise ValueError(f"{name}={value}: give an even number; levels have 3/2 and 5/2")
        if not isinstance(self.attention, bool):
            raise ValueError(f"attention={self.attention!r}: give True or False")

    def __str__(self) -> str:
        attention = " and channel attention" if self.attention else ""
        return (
            f"PromptMR of {self.cascades} cascades on {self.neighbours} slices, {self.chans} "
            f"channels{attention}; sensitivity net of {self.sens_chans} channels"
        )


def config_of(state: "Mapping[str, Tensor]") -> PromptMRConfig:
    """Read the config off the names and shapes of weights.

    Raises:
        ValueError: there is neither a cascade nor a sensitivity net in them, or of no such size.
    """
    chans, channels_in, *_ = shape_of(state, "cascades.0.model.unet.feat_extract.weight")
    sens_chans, *_ = shape_of(state, "sens_net.norm_unet.unet.feat_extract.weight")
    attention = any(".CA." in name for name in state)
    cascades = count_parts(state, "cascades.")
    return PromptMRConfig(cascades, channels_in // 2, chans, sens_chans, attention)


PROMPTMR = Network(
    name="promptmr",
    label="PromptMR",
    config=PromptMRConfig,
    build=built_by("workbench.models.promptmr.network:PromptMR"),
    weights=r"(?:sens_net|cascades)\.",
    config_of=config_of,
    lacks={},
    # As the authors trained on fastMRI's knees.
    recipe={
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 1e-2,
        "epochs": 45,
        "lr_step": 35,
        "clip": 0.01,
    },
    phantom={"cascades": 4, "chans": 16, "sens_chans": 8},
)
