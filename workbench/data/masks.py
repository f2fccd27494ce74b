"""Undersampling masks: fastMRI's own, at any acceleration, each a function of its seed."""

from collections.abc import Iterable

import numpy as np
from fastmri.data.subsample import (
    EquispacedMaskFractionFunc,
    EquiSpacedMaskFunc,
    MagicMaskFractionFunc,
    MagicMaskFunc,
    MaskFunc,
    RandomMaskFunc,
)

from workbench.data.sampling import Sampling, Seed, seed_of_file
from workbench.data.volume import Volume


def _lines(start: int, stop: int, spacing: float) -> np.ndarray:
    """Return (stop,) float32: 1 at every line of a spacing, of fractional ones each rounded."""
    lines = np.rint(np.arange(start, stop, spacing)).astype(int)
    mask = np.zeros(stop, np.float32)
    mask[lines[lines < stop]] = 1
    return mask


class _EquispacedAtAnyRate(EquiSpacedMaskFunc):
    """Equispaced lines."""

    def calculate_acceleration_mask(
        self, num_cols: int, acceleration: float, offset: int | None, num_low_frequencies: int
    ) -> np.ndarray:
        if offset is None:
            offset = self.rng.randint(0, high=round(acceleration))
        return _lines(offset, num_cols, acceleration)


class _MagicAtAnyRate(MagicMaskFunc):
    """Offset sampling of the two halves of k-space (Defazio 2019, arXiv:1912.01101)."""

    def calculate_acceleration_mask(
        self, num_cols: int, acceleration: float, offset: int | None, num_low_frequencies: int
    ) -> np.ndarray:
        if offset is None:
            offset = self.rng.randint(0, high=round(acceleration))
        first = (offset + 1, offset + 2) if offset % 2 == 0 else (offset + 2, offset - 1)
        positive = _lines(first[0], (num_cols + 1) // 2, acceleration)
        negative = _lines(first[1], num_cols // 2, acceleration)
        return np.fft.fftshift(np.concatenate((positive, negative[::-1])))


_FUNCTIONS: dict[str, type[MaskFunc]] = {
    "random": RandomMaskFunc,
    "equispaced": _EquispacedAtAnyRate,
    "equispaced_fraction": EquispacedMaskFractionFunc,
    "magic": _MagicAtAnyRate,
    "magic_fraction": MagicMaskFractionFunc,
}


def check_masks(sampling: Sampling, widths: Iterable[int]) -> None:
    """See to it that masks can be drawn at some widths.

    Raises:
        ValueError: one cannot; the message says at which width, and what to change.
    """
    for width in sorted(set(widths)):
        for rate, fraction in zip(sampling.accelerations, sampling.center_fractions, strict=True):
            one = Sampling(sampling.mask, (rate,), (fraction,))
            try:
                draw_mask(one, width, 0)
            except (ValueError, ZeroDivisionError, IndexError):
                raise ValueError(
                    f"{one} cannot be drawn on {width} columns: the centre takes all lines that "
                    "the acceleration allows; give a smaller center_fraction or acceleration"
                ) from None


def mask_of(
    volume: Volume, sampling: Sampling | None, seed: Seed | None = None
) -> tuple[np.ndarray, int]:
    """Return how a volume is undersampled.

    Args:
        volume: the volume.
        sampling: draws a mask; None takes the file's own.
        seed: of the draw; None takes the one that fastMRI makes of the file's name.

    Returns:
        (phase encode,) bool, and the number of ACS columns around DC; as in fastMRI 0 for a file's
        own mask, to be read off it.

    Raises:
        ValueError: the file has no mask of its own.
    """
    if sampling is None:
        own = volume.own_mask
        if own is None:
            raise ValueError(f"{volume.path} has no mask of its own: give mask and acceleration")
        return own, 0
    seed = seed_of_file(volume.name) if seed is None else seed
    return draw_mask(sampling, volume.matrix[1], seed, volume.acquired)


def as_measured(
    volume: Volume, mask: np.ndarray, low_frequencies: int, kspace: np.ndarray
) -> tuple[np.ndarray, int]:
    """Return what a mask samples of a slice: of a file that is undersampled already, no zeros.

    Args:
        volume: the volume.
        mask: (phase encode,) bool, drawn or the volume's own.
        low_frequencies: number of its ACS columns.
        kspace: of the slice, (..., phase encode); what lies outside the mask is not read.

    Returns:
        As ``mask_of``; of such a file the ACS columns are to be read off.
    """
    own = volume.own_mask
    if own is not None:
        beyond = mask & ~own
        if beyond.any() and not kspace[..., beyond].any():
            return mask & own, 0
    return mask, low_frequencies


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
    function = _FUNCTIONS[sampling.mask](sampling.center_fractions, integral)
    columns, low_frequencies = function((1, width, 1), None, seed)
    mask = columns.numpy().reshape(width) > 0
    if acquired is not None:
        mask[: acquired[0]] = False
        mask[acquired[1] :] = False
    return mask, int(low_frequencies)
