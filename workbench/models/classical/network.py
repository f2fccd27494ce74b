"""Classical reconstructions as networks without weights: SENSE, L1-wavelet, total variation.

The measured lines are put back as they were measured, and coils are combined by their root sum of
squares, as the target's are: so the background has noise as the target's has.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from workbench.models.classical.maps import best_maps, centre_maps, espirit_maps
from workbench.models.classical.solvers import TotalVariation, conjugate_gradient, fista
from workbench.models.classical.wavelets import WaveletThreshold
from workbench.models.operator import (
    NormalOperator,
    center_columns,
    combine,
    joined,
    parts_of,
    power,
    project,
    root,
    total,
    zero_filled,
)
from workbench.models.reconstructor import Reconstructor

_MAPS: dict[str, Callable[[Tensor, Tensor, int | None], Tensor]] = {
    "auto": best_maps,
    "centre": centre_maps,
    "espirit": espirit_maps,
}
# Total variation's weights that fastMRI published with its baseline (fastmri_examples/cs), by
# acquisition, at 4x and 8x; all others have 0.01.
_PUBLISHED = {
    "CORPDFS_FBK": (0.001, 0.01),
    "AXT1": (0.001, 0.01),
    "AXT1PRE": (0.001, 0.01),
    "AXFLAIR": (0.01, 0.001),
}
_USUAL = (0.01, 0.01)
# Columns a sampled line beside the centre that tell 4x from 8x: masks that make up for their centre
# have 5 to 6 at 4x, others 8 at 8x.
_BETWEEN = 7.0


@dataclass(frozen=True)
class Problem:
    """The data term of some slices: 1/2 ||M F S x - y||^2 for images x (batch, 1, H, W)."""

    measured: Tensor  # F^H y, the zero-filled coil images (batch, coils, H, W), scaled
    maps: Tensor  # S, (batch, coils, H, W)
    weights: Tensor  # M with DC first
    axes: tuple[int, ...]  # along which M varies
    scale: Tensor  # (batch, 1, 1, 1), by which k-space was divided

    def operator(self, image: Tensor) -> Tensor:
        """A x = S^H F^H M F S x."""
        return NormalOperator.apply(self.maps, image, self.weights, self.axes)

    @property
    def right(self) -> Tensor:
        """A^H y, the zero-filled coil images combined."""
        return total(map(combine, parts_of(self.maps), parts_of(self.measured)))

    def coils(self, image: Tensor) -> Tensor:
        """Return an image as each coil sees it, the measured lines as they were measured."""
        parts = zip(parts_of(self.measured), parts_of(self.maps), strict=True)
        return joined(
            self.scale * (measured + some * image - project(some * image, self.weights, self.axes))
            for measured, some in parts
        )


class Classical(Reconstructor):
    """Base of the classical reconstructions: one image from all coils, without training.

    K-space is scaled by the zero-filled image's maximum before it is reconstructed, and back after
    it. The readout is cropped always: its rows are independent of each other where the mask varies
    along the phase encode alone.
    """

    crop_readout = True
    acquisition = ""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("place", torch.empty(0), persistent=False)  # says on which device

    def solve(self, problem: Problem, weight: Tensor) -> Tensor:
        """Reconstruct images (batch, 1, H, W); ``weight`` (batch, 1, 1, 1) is the prior's."""
        raise NotImplementedError

    def weight(self, sampled: Tensor) -> Tensor:
        """Return the prior's weight for each slice of a mask (batch or 1, 1, 1 or H, W)."""
        return torch.full((len(sampled), 1, 1, 1), self.config.regularisation, device=self.device)

    @torch.no_grad()
    def coil_images(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct what each coil would have seen, (batch, coils, H, W) complex.

        In single precision also where a caller computes in less: an iteration's error goes into all
        that follow.
        """
        with torch.autocast(masked_kspace.device.type, enabled=False):
            problem = self.problem(masked_kspace, mask, num_low_frequencies, rows)
            weight = self.weight(mask[..., 0]).to(problem.scale)
            return problem.coils(self.solve(problem, weight))

    def problem(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Problem:
        """Scale k-space, estimate the maps, and crop; the arguments are those of ``forward``."""
        kspace = torch.view_as_complex(masked_kspace.contiguous())
        sampled = mask[..., 0]
        axes = (-1,) if sampled.shape[-2] == 1 else (-2, -1)
        wanted = None
        if self.crop_readout and rows is not None and axes == (-1,):
            wanted = rows + 2 * self.readout_margin
        images, _ = zero_filled(kspace, None, wanted)
        brightest = root(power(parts_of(images)), empty=0.0).amax((-2, -1))[:, None, None, None]
        scale = brightest.masked_fill(brightest == 0, 1)
        centre = center_columns(sampled, num_low_frequencies)
        maps = _MAPS[self.config.maps](kspace, centre, wanted)
        weights = torch.fft.ifftshift(sampled, axes).to(scale)
        return Problem(images / scale, maps, weights, axes, scale)


class Sense(Classical):
    """CG-SENSE: min 1/2 ||M F S x - y||^2 + weight/2 ||x||^2 (Pruessmann et al. 2001)."""

    def solve(self, problem: Problem, weight: Tensor) -> Tensor:
        """Solve (A + weight) x = A^H y by conjugate gradients."""

        def operator(image: Tensor) -> Tensor:
            return problem.operator(image) + weight * image

        return conjugate_gradient(operator, problem.right, self.config.iterations)


class Wavelet(Classical):
    """L1-wavelet: min 1/2 ||M F S x - y||^2 + weight ||W x||_1 (Lustig et al. 2007).

    FISTA, with the wavelets at another random place in each iteration.
    """

    def solve(self, problem: Problem, weight: Tensor) -> Tensor:
        """Run FISTA with soft thresholding in wavelets."""
        config, right = self.config, problem.right
        shifts = config.seed if config.shifts else None
        proximal = WaveletThreshold(config.wavelet, right, weight, shifts)
        return fista(problem.operator, right, proximal, config.iterations)


class TotalVariationSense(Classical):
    """Total variation: min 1/2 ||M F S x - y||^2 + weight TV(x) (Block et al. 2007)."""

    def for_acquisition(self, acquisition: str) -> Self:
        """Return the same, with fastMRI's weight for a sequence where the config gives none."""
        same = copy(self)
        same.acquisition = acquisition
        return same

    def solve(self, problem: Problem, weight: Tensor) -> Tensor:
        """Run FISTA with total variation's proximal operator."""
        proximal = TotalVariation(weight)
        return fista(problem.operator, problem.right, proximal, self.config.iterations)

    def weight(self, sampled: Tensor) -> Tensor:
        """Return fastMRI's weight by acquisition and acceleration where the config has none."""
        if self.config.regularisation is not None:
            return super().weight(sampled)
        four, eight = _PUBLISHED.get(self.acquisition, _USUAL)
        return torch.where(_spacing(sampled) > _BETWEEN, eight, four)[:, None, None, None]


def _spacing(sampled: Tensor) -> Tensor:
    """Return how many columns there are to a sampled line beside the centre, (batch,).

    Counted from the first sampled line to the last: what a scanner left out beyond them, and what
    is padding, makes no acceleration. Of a mask (batch or 1, 1, 1 or H, W).
    """
    lines = sampled.flatten(1, 2).any(1)
    width = lines.shape[-1]
    first = lines.float().argmax(1)
    extent = width - first - lines.flip(1).float().argmax(1)
    centre = center_columns(sampled, None).flatten(1).sum(1)
    return (extent - centre) / (lines.sum(1) - centre).clamp(min=1)


METHODS: dict[str, type[Classical]] = {
    "sense": Sense,
    "wavelet": Wavelet,
    "tv": TotalVariationSense,
}
