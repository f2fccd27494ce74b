"""Orthonormal Daubechies wavelets of images, and soft thresholding in them.

A level is a product with a small orthogonal matrix from either side: fast on CPUs and GPUs, and the
same for every wavelet. At the edges images go round.
"""

from functools import cache
from math import comb, log2

import numpy as np
import torch
from torch import Tensor

_COARSEST = 16  # rows and columns that the last level leaves at least


@cache
def low_pass(name: str) -> tuple[float, ...]:
    """Return a wavelet's scaling filter, "haar" or "db2" to "db10" (Daubechies 1988).

    It is the spectral factor with all roots inside the unit circle; its sum is sqrt(2).
    """
    moments = 1 if name == "haar" else int(name.removeprefix("db"))
    in_y = np.roots([comb(moments - 1 + k, k) for k in reversed(range(moments))])
    roots = [min(np.roots([1, 4 * y - 2, 1]), key=abs) for y in in_y]
    taps = np.poly([-1] * moments + roots).real
    return tuple(taps * np.sqrt(2) / taps.sum())


def level_matrix(name: str, size: int) -> np.ndarray:
    """Return one level of a periodic wavelet transform, (size, size) orthogonal; size is even."""
    low = np.array(low_pass(name))
    high = low[::-1] * (-1.0) ** np.arange(len(low))
    matrix = np.zeros((size, size))
    for row in range(size // 2):
        for tap in range(len(low)):
            column = (2 * row + tap) % size
            matrix[row, column] += low[tap]
            matrix[size // 2 + row, column] += high[tap]
    return matrix


class WaveletThreshold:
    """Proximal operator of weight x the L1 norm of an image's wavelet coefficients.

    The coarsest level, which is no detail, is left alone. With shifts each call sees the image
    moved round by another random distance, as though the wavelets had no grid (Figueiredo, Nowak
    2003); which one depends on the seed and the number of the call alone.

    Args:
        name: of ``low_pass``.
        image: (batch, 1, H, W), of the size that will be given.
        weight: (batch, 1, 1, 1).
        shifts: seed of the shifts; None for none.
    """

    def __init__(self, name: str, image: Tensor, weight: Tensor, shifts: int | None) -> None:
        height, width = image.shape[-2:]
        levels = max(1, int(log2(max(2, min(height, width) / _COARSEST))))
        block = 2**levels
        self._size = -(-height // block) * block, -(-width // block) * block
        self._weight, self._seed = weight, shifts
        self._matrices = [
            tuple(
                torch.as_tensor(level_matrix(name, side >> level)).to(image.real)
                for side in self._size
            )
            for level in range(levels)
        ]

    def __call__(self, image: Tensor, number: int) -> Tensor:
        """Return the proximal point of an image (batch, 1, H, W); the number is of the call."""
        height, width = image.shape[-2:]
        below, beside = self._size[0] - height, self._size[1] - width
        moved = torch.nn.functional.pad(image, (0, beside, 0, below))
        away = self._shift(number)
        parts = torch.view_as_real(moved.roll(away, (-2, -1))).movedim(-1, 0).contiguous()
        self._analyse(parts)
        coarse = tuple(len(each) // 2 for each in self._matrices[-1])
        kept = parts[..., : coarse[0], : coarse[1]].clone()
        length = parts.square().sum(0).sqrt()
        parts *= (1 - self._weight / length.clamp(min=1e-30)).clamp(min=0)
        parts[..., : coarse[0], : coarse[1]] = kept
        self._synthesise(parts)
        back = torch.view_as_complex(parts.movedim(0, -1).contiguous())
        return back.roll((-away[0], -away[1]), (-2, -1))[..., :height, :width]

    def _shift(self, number: int) -> tuple[int, int]:
        if self._seed is None:
            return 0, 0
        drawn = np.random.default_rng((self._seed, number)).integers(0, self._size)
        return int(drawn[0]), int(drawn[1])

    def _analyse(self, parts: Tensor) -> None:
        for down, across in self._matrices:
            block = parts[..., : len(down), : len(across)]
            block.copy_(down @ block @ across.T)

    def _synthesise(self, parts: Tensor) -> None:
        for down, across in reversed(self._matrices):
            block = parts[..., : len(down), : len(across)]
            block.copy_(down.T @ block @ across)
