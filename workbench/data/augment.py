"""Augmentation of training slices: other k-space of the same anatomy, before the mask.

What a camera's picture can stand, k-space cannot: a transformed image is no measurement of its
coils. So the coil images of fully sampled k-space are transformed, all alike, and transformed back;
the target is formed anew from them, as fastMRI forms it (MRAugment; Fabian et al. 2021,
arXiv:2106.14947, whose ranges and schedule these are).

``flips`` mirrors the readout and the phase encode, without any interpolation. ``full`` also shifts,
and with bilinear interpolation rotates, shears and scales: anatomy of other sizes and directions,
for small datasets. How often grows from epoch to epoch.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn.functional import affine_grid, grid_sample

from workbench.data.images import (
    center_crop,
    centered_fft2,
    centered_ifft2,
    crop_size,
    root_sum_of_squares,
)
from workbench.data.volume import Volume

if TYPE_CHECKING:
    from workbench.data.cache import DatasetCache

MOST = 0.55
"""The probability of a transform at the end, as MRAugment has it for a tenth of the knees."""
_GROWTH = 5.0
_KIND = 0x6175676D  # apart from the draws of masks
_SHIFT, _DEGREES, _SHEAR, _SCALE = 0.125, 180.0, 15.0, 0.25
_MOST_APART = 0.05  # of the norm of a target


@dataclass(frozen=True)
class Transform:
    """What is done to a slice's coil images.

    Attributes:
        rows, columns: whether the readout, and the phase encode, are mirrored.
        shift: pixels along both.
        affine: (2, 2), takes places in the new image to places in the old one; None for none.
    """

    rows: bool = False
    columns: bool = False
    shift: tuple[int, int] = (0, 0)
    affine: tuple[tuple[float, float], tuple[float, float]] | None = None

    def images(self, images: np.ndarray) -> np.ndarray:
        """Transform images (coils, H, W), complex64."""
        flipped = tuple(axis for axis, on in ((-2, self.rows), (-1, self.columns)) if on)
        images = np.flip(images, flipped)
        if any(self.shift):
            images = _shifted(images, self.shift)
        return images if self.affine is None else _warped(images, self.affine)

    def apply(
        self, kspace: np.ndarray, recon: tuple[int, int], *, target: bool = True
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Transform fully sampled k-space (slices, [coils,] H, W), complex64.

        Args:
            kspace: of a slice, alone or in the middle of its neighbours.
            recon: the reconstruction matrix that the target is cropped to.
            target: whether one is wanted.

        Returns:
            K-space of the same shape, and the middle slice's target (h, w) float32 or None.
        """
        images = self.images(centered_ifft2(kspace.reshape(-1, *kspace.shape[-2:])))
        image = None
        if target:
            size = crop_size((images.shape[-2], images.shape[-1]), recon)
            middle = np.split(images, len(kspace))[len(kspace) // 2]
            image = root_sum_of_squares(center_crop(middle, size)).astype(np.float32, copy=False)
        back = centered_fft2(images).astype(np.complex64, copy=False)
        return back.reshape(kspace.shape), image

    def volume(self, volume: Volume) -> Volume:
        """Return a volume with the acquired columns where they are in mirrored k-space."""
        if not self.columns:
            return volume
        left, right = volume.acquired
        first = 2 * (volume.matrix[1] // 2) + 1
        # Of an even number of columns the first one, the highest frequency, stays where it is: it
        # is left out where it then lies apart from the others.
        whole = (left, right) == (0, volume.matrix[1])
        left, right = 0 if whole else first - right, first - left
        return replace(volume, padding_left=left, padding_right=right)


@dataclass(frozen=True)
class Augmentation:
    """Draws a transform for each slice and epoch; the same arguments always give the same.

    Attributes:
        kind: "flips" or "full".
        epochs: of the training, over which the probability grows.
        seed: of the training.
    """

    kind: str
    epochs: int
    seed: int

    def probability(self, epoch: int) -> float:
        """Return how likely each transform is in an epoch, 0 first."""
        part = min(1.0, epoch / max(1, self.epochs))
        return MOST * (1 - math.exp(-_GROWTH * part)) / (1 - math.exp(-_GROWTH))

    def draw(self, epoch: int, index: int, matrix: tuple[int, int]) -> Transform | None:
        """Draw the transform of a slice; None where nothing is done to it.

        Args:
            epoch: of the training, 0 first.
            index: of the slice in its dataset.
            matrix: size of its k-space.
        """
        rng = np.random.default_rng((self.seed, epoch, index, _KIND))
        p = self.probability(epoch)
        # Each number is drawn, wanted or not: what one transform does says nothing of the next.
        chance, value = rng.random(7), rng.uniform(-1, 1, 7)
        on = chance < p * np.array([0.5, 0.5, 1, 1, 0.5, 1, 1])
        rows, columns = bool(on[0]), bool(on[1])
        if self.kind == "flips":
            return Transform(rows, columns) if rows or columns else None
        shift = tuple(
            int(on[n] * round(_SHIFT * value[n] * size))
            for n, size in zip((2, 3), matrix, strict=True)
        )
        angle = math.radians(_DEGREES * value[4]) * on[4]
        shear = math.tan(math.radians(_SHEAR * value[5])) * on[5]
        scale = 1 / (1 + _SCALE * value[6] * on[6])
        affine = None
        if on[4:].any():
            turn = np.array(
                [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
            )
            affine = tuple(map(tuple, (scale * turn @ np.array([[1, shear], [0, 1]])).tolist()))
        found = Transform(rows, columns, shift, affine)  # type: ignore[arg-type]
        return None if found == Transform() else found


def check_targets(part: "DatasetCache") -> None:
    """See to it that a file's targets are images as a transformed slice's target is formed.

    Otherwise a network would learn from images of two kinds. It is seen in the middle slice of the
    first volume of each acquisition.

    Raises:
        ValueError: one is another image.
        OSError: a file cannot be read.
    """
    for volume in {volume.acquisition: volume for volume in reversed(part.volumes)}.values():
        number = volume.slices // 2
        kspace, target = part.read(volume, number)
        if target is None:
            continue
        _, formed = Transform().apply(kspace[None], volume.recon[:2])
        assert formed is not None
        most = _MOST_APART * np.linalg.norm(target)
        if formed.shape != target.shape or not np.linalg.norm(formed - target) <= most:
            raise ValueError(
                f"the target of slice {number} of {volume.path} is not the root sum of squares of "
                "its coil images, cropped as fastMRI crops it, which is what a transformed slice "
                "gets for its target: leave augment out, or write such targets"
            )


def _shifted(images: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """Move images by whole pixels; what comes in mirrors the edge."""
    for axis, by in zip((-2, -1), shift, strict=True):
        size = images.shape[axis]
        places = np.pad(np.arange(size), abs(by), mode="symmetric")
        first = abs(by) - by
        images = np.take(images, places[first : first + size], axis=axis)
    return images


def _warped(images: np.ndarray, affine: tuple[tuple[float, float], ...]) -> np.ndarray:
    """Rotate, shear and scale images about their centre; what comes in mirrors the edge."""
    coils, height, width = images.shape
    parts = np.stack([images.real, images.imag]).reshape(1, 2 * coils, height, width)
    (a, b), (c, d) = affine  # rows and columns; torch's order is columns and rows, from -1 to 1
    theta = torch.tensor([[[d, c * height / width, 0], [b * width / height, a, 0]]])
    grid = affine_grid(theta.float(), list(parts.shape), align_corners=False)
    moved = grid_sample(
        torch.from_numpy(parts), grid, padding_mode="reflection", align_corners=False
    )
    real, imaginary = moved.numpy().reshape(2, coils, height, width)
    return real + np.complex64(1j) * imaginary
