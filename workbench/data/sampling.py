"""How k-space is undersampled, and what a mask's draw is seeded with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

MASKS = ("random", "equispaced", "equispaced_fraction", "magic", "magic_fraction")
Seed = int | tuple[int, ...]


@dataclass(frozen=True)
class Sampling:
    """How k-space is undersampled: ``Sampling("equispaced", 4, 0.08)``.

    Attributes:
        mask: one of ``MASKS``.
        accelerations: each at least 1; a draw picks one of them. One number stands for itself
            alone.
        center_fractions: share of the columns around DC that are always sampled (ACS), in
            (0, 1); one for each acceleration.

    Raises:
        ValueError: a value is outside what is allowed.
    """

    mask: str = "equispaced"
    accelerations: tuple[float, ...] = (4,)
    center_fractions: tuple[float, ...] = (0.08,)

    if TYPE_CHECKING:

        def __init__(
            self,
            mask: str = "equispaced",
            accelerations: float | Sequence[float] = (4,),
            center_fractions: float | Sequence[float] = (0.08,),
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("accelerations", "center_fractions"):
            value: Any = getattr(self, name)
            several = tuple(value) if isinstance(value, list | tuple) else (value,)
            # 4.0 is written as 4, wherever the number is from: results are known by it.
            whole = tuple(int(each) if float(each).is_integer() else each for each in several)
            object.__setattr__(self, name, whole)
        if self.mask not in MASKS:
            raise ValueError(f"mask={self.mask!r}: give one of {', '.join(MASKS)}")
        if len(self.accelerations) != len(self.center_fractions) or not self.accelerations:
            raise ValueError(
                f"{len(self.accelerations)} accelerations and {len(self.center_fractions)} centre "
                "fractions: give one centre fraction for each acceleration"
            )
        for acceleration, fraction in zip(self.accelerations, self.center_fractions, strict=True):
            if not 1 <= acceleration < 100:
                raise ValueError(f"acceleration={acceleration:g}: give 1 or more (below 100)")
            if not 0 < fraction < 1:
                raise ValueError(f"center_fraction={fraction:g}: give a number between 0 and 1")
            if self.mask in ("random", "equispaced_fraction") and acceleration * fraction >= 1:
                if acceleration == 1:
                    continue
                raise ValueError(
                    f"center_fraction={fraction:g} alone exceeds the 1/{acceleration:g} of k-space "
                    f"that {self.mask} samples at acceleration {acceleration:g}: "
                    f"give less than {1 / acceleration:.3g}"
                )

    @property
    def always_possible(self) -> bool:
        """Whether a mask can be drawn at every width: fractions can leave nothing to draw from."""
        return not self.mask.endswith("_fraction")

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}x" for rate in self.accelerations)
        centres = ", ".join(f"{fraction:g}" for fraction in self.center_fractions)
        return f"{self.mask} {rates}, centre fraction {centres}"


def seed_of_file(name: str) -> tuple[int, ...]:
    """Return fastMRI's seed of a file: its name's code points, so that all slices share a mask."""
    return tuple(map(ord, name))


def seed_of_draw(seed: int, epoch: int, index: int) -> tuple[int, ...]:
    """Return the seed of a training mask: new at every epoch, the same after a restart."""
    return (seed & 0xFFFFFFFF, epoch, index)


def acs_count(mask: np.ndarray) -> int:
    """Return how many ACS columns networks read off a mask (W,): its widest symmetric run at DC."""
    middle = len(mask) // 2
    sides = mask[:middle][::-1], mask[middle:]
    return 2 * min(int(np.argmin(np.append(side, False))) for side in sides)


def numbers(field: str, value: Any) -> tuple[float, ...]:
    """Read a parameter that is one number or several (4, "4", "4,8", [4, 8]) as a tuple.

    Raises:
        ValueError: a part is not a number; True and False do not count as numbers.
    """
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        parts = [parts]
    try:
        if not any(isinstance(part, bool) for part in parts):
            return tuple(float(part) for part in parts)
    except (TypeError, ValueError, OverflowError):
        pass
    raise ValueError(f"{field}={value!r}: give a number, or several such as 4,8")
