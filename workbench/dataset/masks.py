"""Undersampling masks: fastMRI's own, at any acceleration, each draw a function of its seed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from fastmri.data.subsample import (
    EquispacedMaskFractionFunc,
    EquiSpacedMaskFunc,
    MagicMaskFractionFunc,
    MagicMaskFunc,
    MaskFunc,
    RandomMaskFunc,
)

Seed = int | tuple[int, ...]


class _EquispacedAtAnyRate(EquiSpacedMaskFunc):
    """Equispaced lines; a fractional acceleration rounds each line's position."""

    def calculate_acceleration_mask(
        self, num_cols: int, acceleration: float, offset: int | None, num_low_frequencies: int
    ) -> np.ndarray:
        if offset is None:
            offset = self.rng.randint(0, high=round(acceleration))
        mask = np.zeros(num_cols, dtype=np.float32)
        mask[_lines(offset, num_cols, acceleration)] = 1
        return mask


class _MagicAtAnyRate(MagicMaskFunc):
    """Offset sampling of the two halves of k-space (Defazio 2019, arXiv:1912.01101)."""

    def calculate_acceleration_mask(
        self, num_cols: int, acceleration: float, offset: int | None, num_low_frequencies: int
    ) -> np.ndarray:
        if offset is None:
            offset = self.rng.randint(0, high=round(acceleration))
        first = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
        halves = [np.zeros((num_cols + 1) // 2, np.float32), np.zeros(num_cols // 2, np.float32)]
        for half, start in zip(halves, first, strict=True):
            half[_lines(start, len(half), acceleration)] = 1
        return np.fft.fftshift(np.concatenate((halves[0], halves[1][::-1])))


def _lines(start: int, stop: int, spacing: float) -> np.ndarray:
    lines = np.rint(np.arange(start, stop, spacing)).astype(int)
    return lines[lines < stop]


MASKS: dict[str, type[MaskFunc]] = {
    "random": RandomMaskFunc,
    "equispaced": _EquispacedAtAnyRate,
    "equispaced_fraction": EquispacedMaskFractionFunc,
    "magic": _MagicAtAnyRate,
    "magic_fraction": MagicMaskFractionFunc,
}


@dataclass(frozen=True)
class Sampling:
    """How k-space is undersampled.

    Attributes:
        mask: one of ``MASKS``.
        accelerations: each at least 1; a draw picks one of them.
        center_fractions: share of the columns around DC that are always sampled (ACS), in
            (0, 1); one for each acceleration.

    Raises:
        ValueError: a value is outside what is allowed.
    """

    mask: str = "equispaced"
    accelerations: tuple[float, ...] = (4,)
    center_fractions: tuple[float, ...] = (0.08,)

    def __post_init__(self) -> None:
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

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}x" for rate in self.accelerations)
        centres = ", ".join(f"{fraction:g}" for fraction in self.center_fractions)
        return f"{self.mask} {rates}, centre fraction {centres}"


def draw_mask(
    sampling: Sampling, width: int, seed: Seed, acquired: tuple[int, int] | None = None
) -> tuple[np.ndarray, int]:
    """Draw one mask; the same arguments always give the same mask.

    Args:
        sampling: the kind of mask.
        width: number of phase-encode columns.
        seed: what fastMRI seeds its ``RandomState`` with.
        acquired: (first, one past last) column that was acquired; the mask is zero outside.

    Returns:
        The mask, (width,) bool, and the number of ACS columns around DC.
    """
    # The generator that a mask function holds must not be shared: each draw has its own.
    integral = tuple(int(rate) if rate == int(rate) else rate for rate in sampling.accelerations)
    function = MASKS[sampling.mask](sampling.center_fractions, integral)
    columns, low_frequencies = function((1, width, 1), None, seed)
    mask = columns.numpy().reshape(width) > 0
    if acquired is not None:
        mask[: acquired[0]] = False
        mask[acquired[1] :] = False
    return mask, int(low_frequencies)


def seed_of_file(name: str) -> tuple[int, ...]:
    """Return fastMRI's seed of a file: its name's code points, so that all slices share a mask."""
    return tuple(map(ord, name))


def seed_of_draw(seed: int, epoch: int, index: int) -> tuple[int, ...]:
    """Return the seed of a training mask: new at every epoch, the same after a restart."""
    return (seed & 0xFFFFFFFF, epoch, index)


def numbers(text: str | float | Sequence[float]) -> tuple[float, ...]:
    """Read one number or several ("4", 4, "4,8", [4, 8]) as a tuple.

    Raises:
        ValueError: a part is not a number.
    """
    if isinstance(text, int | float):
        return (float(text),)
    parts = text.split(",") if isinstance(text, str) else text
    try:
        return tuple(float(part) for part in parts)
    except ValueError:
        raise ValueError(f"{text!r}: give numbers separated by commas, such as 4,8") from None
