"""Classical reconstructions, which learn nothing: their entries in the registry, their configs.

They need no training and no weights, and say what a network has to beat. The mathematics is in
``network`` (the entries' modules), ``solvers``, ``wavelets`` and ``maps``.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.models.entry import Network, check_whole

if TYPE_CHECKING:
    from torch import Tensor

MAPS = ("auto", "centre", "espirit")
"""How sensitivity maps are estimated, see ``maps``; "auto": ESPIRiT where the centre is wide."""
_LONGEST = 10  # Daubechies wavelets have 2 to 20 coefficients
WAVELETS = ("haar", *(f"db{number}" for number in range(2, _LONGEST + 1)))


@dataclass(frozen=True)
class SenseConfig:
    """The numbers of CG-SENSE; k-space is scaled so that the zero-filled image's maximum is 1."""

    regularisation: float = 0.01
    iterations: int = 20
    maps: str = "centre"

    def __post_init__(self) -> None:
        value = self.regularisation
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
            raise ValueError(f"regularisation={value!r}: give a number, 0 or more and below 1")
        check_whole("iterations", self.iterations, 1)
        check_choice("maps", self.maps, MAPS)

    def __str__(self) -> str:
        return f"regularisation {self.regularisation:g}, {self._rest}"

    @property
    def _rest(self) -> str:
        return f"{self.iterations} iterations, maps: {self.maps}"


@dataclass(frozen=True)
class WaveletConfig(SenseConfig):
    """The numbers of the L1-wavelet reconstruction."""

    regularisation: float = 0.005
    iterations: int = 60
    maps: str = "auto"
    wavelet: str = "db4"
    shifts: bool = True  # the wavelets' grid moves at random from iteration to iteration
    seed: int = 0  # of these shifts

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("wavelet", self.wavelet, WAVELETS)
        if not isinstance(self.shifts, bool):
            raise ValueError(f"shifts={self.shifts!r}: give True or False")
        check_whole("seed", self.seed, 0)

    def __str__(self) -> str:
        shifts = "random shifts" if self.shifts else "no shifts"
        return f"{self.wavelet}, {shifts}, {super().__str__()}"


@dataclass(frozen=True)
class TotalVariationConfig(SenseConfig):
    """The numbers of total variation; without a regularisation, fastMRI's by acquisition."""

    regularisation: float | None = None  # type: ignore[assignment]
    iterations: int = 60
    maps: str = "auto"

    def __post_init__(self) -> None:
        if self.regularisation is not None:
            super().__post_init__()
        SenseConfig(0, self.iterations, self.maps)

    def __str__(self) -> str:
        if self.regularisation is not None:
            return super().__str__()
        return f"regularisation as fastMRI's by acquisition, {self._rest}"


def check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check one of a few words; ValueError lists them."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: give one of {', '.join(choices)}")


def _no_weights(_: "Mapping[str, Tensor]") -> Any:
    raise ValueError("a classical reconstruction has no weights")


def _entry(name: str, label: str, config: type[Any], phantom: Mapping[str, Any]) -> Network:
    def build(numbers: Any) -> Any:
        from workbench.models.classical import network

        return network.METHODS[name](numbers)

    return Network(
        name=name,
        label=label,
        config=config,
        build=build,
        weights="",
        config_of=_no_weights,
        phantom=phantom,
        trains=False,
    )


# The phantom's regularisation: the best of ``python -m benchmarks.regularisation``, which looks at
# training volumes alone.
SENSE = _entry("sense", "CG-SENSE", SenseConfig, {})
WAVELET = _entry(
    "wavelet", "L1-wavelet", WaveletConfig, {"regularisation": 0.002, "wavelet": "haar"}
)
TV = _entry("tv", "TV", TotalVariationConfig, {"regularisation": 0.002})
