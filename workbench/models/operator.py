r"""The measurement of an undersampled slice as an operator on one coil-combined image.

With S the sensitivity maps, F the centred Fourier transform and M the mask, coils measure M F S x
of an image x. A mask that varies along the phase encode alone commutes with the readout's
transform: then M acts between one-dimensional transforms, and F^H M F is a circular convolution,
which needs no shifts. On CPUs a few coils are worked on at a time, as many as stay in the cache.
"""

from collections.abc import Iterable
from functools import reduce
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# The library that torch takes square roots with chooses its code when it is first called: where two
# threads call it first at the same time, one of them may get fewer digits. So one calls it here.
for _each in (torch.float32, torch.float64):
    torch.ones(64, dtype=_each).sqrt_()

# Bytes that are worked on at a time on a CPU. A larger block is taken from the system page by page,
# and given back, each time that it is needed.
_PART = 4 * 2**20


def center_columns(sampled: Tensor, num_low_frequencies: int | Tensor | None) -> Tensor:
    """Return which columns the sensitivity net sees.

    Args:
        sampled: (batch or 1, 1, 1 or H, W) bool mask.
        num_low_frequencies: as in ``Reconstructor.forward``.

    Returns:
        (batch or 1, 1, 1, W) bool: the ACS columns, centred as fastMRI centres them. Where their
        number is not given it is the widest symmetric run of sampled columns around DC, as
        ``workbench.data.sampling.acs_count`` reads it, and one column at least.
    """
    row = sampled[:, 0, 0]
    width, middle = row.shape[-1], row.shape[-1] // 2
    # A column behind the last one ends a run: fastMRI takes a side that is sampled whole for none.
    left, right = (
        F.pad(side.to(torch.int8), (0, 1)).argmin(dim=1)
        for side in (row[:, :middle].flip(1), row[:, middle:])
    )
    count = (2 * torch.minimum(left, right)).clamp(min=1)
    if num_low_frequencies is not None:
        if isinstance(num_low_frequencies, Tensor):
            given = num_low_frequencies.to(count)
        else:  # filled on the device: a copy would make a GPU's queue wait
            given = torch.full_like(count, num_low_frequencies)
        count = torch.where(given > 0, given, count)
    first = (width - count + 1) // 2
    column = torch.arange(width, device=row.device)
    inside = (column >= first[:, None]) & (column < (first + count)[:, None])
    return inside[:, None, None]


def transform(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Centred, unitary Fourier transform along ``axes``."""
    shifted = torch.fft.ifftshift(values, axes)
    return torch.fft.fftshift(torch.fft.fftn(shifted, dim=axes, norm="ortho"), axes)


def inverse(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Undo ``transform``."""
    shifted = torch.fft.ifftshift(values, axes)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=axes, norm="ortho"), axes)


def zero_filled(kspace: Tensor, centre: Tensor | None, rows: int | None) -> tuple[Tensor, Tensor]:
    """Return the coil images of all columns of k-space, and of those in the centre.

    Args:
        kspace: (batch, coils, H, W) complex.
        centre: the columns that the sensitivity net sees; None for all.
        rows: of the images that are kept; None for all.
    """
    images, low_resolution = [], []
    for part in parts_of(kspace):
        hybrid = inverse(part, (-2,))
        if rows is not None:
            hybrid = central_rows(hybrid, rows)
        images.append(inverse(hybrid, (-1,)))
        if centre is not None:
            low_resolution.append(inverse(hybrid * centre, (-1,)))
    whole = joined(images)
    return whole, joined(low_resolution) if low_resolution else whole


def central_rows(images: Tensor, rows: int) -> Tensor:
    """Crop the readout. An even margin leaves a later crop to the rows alone where it was."""
    height = images.shape[-2]
    first = max(0, (height - rows) // 2)
    return images[..., first : first + rows, :]


def project(images: Tensor, weights: Tensor, axes: tuple[int, ...]) -> Tensor:
    """F^H M F; ``weights`` is the mask with DC first."""
    kspace = torch.fft.fftn(images, dim=axes)
    return torch.fft.ifftn(kspace.mul_(weights), dim=axes)


def combine(maps: Tensor, images: Tensor) -> Tensor:
    """S^H: coil images (batch, coils, H, W) to one image (batch, 1, H, W)."""
    return (maps.conj() * images).sum(dim=1, keepdim=True)


def parts_of(coils: Tensor) -> tuple[Tensor, ...]:
    """Split (batch, coils, H, W) into as many coils as are worked on together."""
    if coils.device.type != "cpu":
        return (coils,)
    return coils.split(max(1, _PART // (coils[:, :1].numel() * coils.element_size())), dim=1)


def joined(parts: Iterable[Tensor]) -> Tensor:
    """Undo ``parts_of``."""
    found = list(parts)
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def total(parts: Iterable[Tensor]) -> Tensor:
    """Add tensors up."""
    return reduce(torch.add, parts)


def power(parts: Iterable[Tensor]) -> Tensor:
    """Sum the squared magnitudes of all coils, given in parts: (batch, H, W)."""
    return total(torch.view_as_real(part).square().sum(-1).sum(1) for part in parts)


def root(values: Tensor, empty: float) -> Tensor:
    """Return the square root, ``empty`` (with no gradient) where the power is zero."""
    nothing = values == 0
    return values.masked_fill(nothing, 1).sqrt().masked_fill(nothing, empty)


class NormalOperator(torch.autograd.Function):
    """A z = S^H F^H M F S z, which keeps S and z alone for its backward.

    A is its own adjoint: grad_z = A g; grad_S = conj(g) P(S z) + conj(z) P(S g), P = F^H M F.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, z: Tensor, weights: Tensor, axes: tuple[int, ...]
    ) -> Tensor:
        """Return A z, (batch, 1, H, W).

        Args:
            ctx: autograd's.
            maps: S, (batch, coils, H, W) complex.
            z: (batch, 1, H, W) complex.
            weights: the mask with DC first.
            axes: along which it varies.
        """
        ctx.save_for_backward(maps, z, weights)
        ctx.axes = axes
        return total(combine(some, project(some * z, weights, axes)) for some in parts_of(maps))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Return the gradients of S, where they are asked for, and z."""
        maps, z, weights = ctx.saved_tensors
        of_maps, of_z = [], []
        for some in parts_of(maps):
            spread = project(some * gradient, weights, ctx.axes)
            of_z.append(combine(some, spread))
            if ctx.needs_input_grad[0]:
                projected = project(some * z, weights, ctx.axes)
                of_maps.append(gradient.conj() * projected + z.conj() * spread)
        return joined(of_maps) if of_maps else None, total(of_z), None, None
