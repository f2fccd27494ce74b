r"""The end-to-end VarNet (Sriram et al. 2020, arXiv:2004.06688) with less work a cascade.

Weights, constructor and forward are those of ``fastmri.models.VarNet``. The network that fastMRI
writes keeps multi-coil k-space and transforms every coil four times a cascade. Here the state is
two coil-combined images v and w. With k\ :sub:`0` the masked k-space, M the mask, F the centred
Fourier transform, S the sensitivity maps (normalised: S\ :sup:`H` S = 1), λ a cascade's DC weight
and u the output of its U-Net, fastMRI's k-space is

    k = k_0 - M F S v - (1 - M) F S w,

so that with x_0 = S^H F^H k_0, z = w - v and A = S^H F^H M F S one cascade is

    u = UNet(x_0 - w + A z),    v <- (1 - λ) v + u,    w <- w + u,

and the result is the root sum of squares over coils of y_0 - S w + F^H M F S z, y_0 = F^H k_0.
A mask that varies along the phase encode alone commutes with the readout's transform: then M acts
between one-dimensional transforms, and F^H M F is a circular convolution, which needs no shifts.
"""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from functools import reduce
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from workbench.models.reconstructor import Reconstructor
from workbench.models.unet import NormUNet

_COILS = 8  # whose maps are estimated at a time
# Bytes that are worked on at a time on a CPU. A larger block is taken from the system page by page,
# and given back, each time that it is needed.
_ACTIVATION = 16 * 2**20
_PART = 4 * 2**20


class SensitivityNet(nn.Module):
    """Estimates coil sensitivity maps from the fully sampled centre of k-space."""

    def __init__(self, chans: int, pools: int, mask_center: bool = True) -> None:
        super().__init__()
        self.mask_center, self._chans = mask_center, chans
        self.norm_unet = NormUNet(chans, pools)

    def forward(self, coil_images: Tensor, low_memory: bool = False) -> Tensor:
        """Map low-resolution coil images to normalised maps, both (batch, coils, H, W) complex."""
        images = coil_images.flatten(0, 1)
        if low_memory:
            parts = [_run_again(self.norm_unet, image) for image in images.split(1)]
        else:
            # Of about one size, so that none has a single coil, which torch compiles anew.
            pieces = min(-(-len(images) // self._coils(images)), max(1, len(images) // 2))
            parts = [self.norm_unet(some) for some in images.tensor_split(pieces)]
        maps = torch.cat(parts).view(coil_images.shape)
        return maps / _root(_power(_parts(maps)), empty=1.0).unsqueeze(1)

    def _coils(self, images: Tensor) -> int:
        """Return how many coils' maps are to be estimated at a time."""
        if images.device.type != "cpu":
            return _COILS
        activation = self._chans * images[0].numel() * images.real.element_size()
        return min(_COILS, max(1, _ACTIVATION // activation))


class Cascade(nn.Module):
    """The parameters of one cascade: its U-Net and its data consistency weight λ."""

    def __init__(self, model: NormUNet) -> None:
        super().__init__()
        self.model = model
        self.dc_weight = nn.Parameter(torch.ones(1))


class VarNet(Reconstructor):
    """End-to-end VarNet; loads the weights of ``fastmri.models.VarNet`` and equals its output.

    ``low_memory`` runs the forward of each cascade, and of each coil's map, a second time for the
    backward pass. Under ``bf16`` transforms, combination of coils and data consistency stay in
    float32. With ``mask_center`` the sensitivity net sees the sampled centre of k-space alone.
    """

    def __init__(
        self,
        num_cascades: int = 12,
        sens_chans: int = 8,
        sens_pools: int = 4,
        chans: int = 18,
        pools: int = 4,
        mask_center: bool = True,
    ) -> None:
        super().__init__()
        self.sens_net = SensitivityNet(sens_chans, sens_pools, mask_center)
        self.cascades = nn.ModuleList(Cascade(NormUNet(chans, pools)) for _ in range(num_cascades))

    def forward(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct, as ``Reconstructor`` says.

        Raises:
            ValueError: the readout is to be cropped and the mask varies along it.
        """
        coils = self._reconstruct(masked_kspace, mask, num_low_frequencies, rows)
        return _root(_power(coils), empty=0.0)

    def coil_images(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct what each coil would have seen, (batch, coils, H, W) complex."""
        return _joined(self._reconstruct(masked_kspace, mask, num_low_frequencies, rows))

    def _reconstruct(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None,
        rows: int | None,
    ) -> Iterator[Tensor]:
        """Yield what ``coil_images`` returns, some coils at a time."""
        kspace = torch.view_as_complex(masked_kspace.contiguous())
        sampled = mask[..., 0]
        axes = (-1,) if sampled.shape[-2] == 1 else (-2, -1)
        crops = self.crop_readout and rows is not None
        if crops and len(axes) == 2:
            raise ValueError("crop_readout: the mask varies along the readout; turn it off")
        centre = center_columns(sampled, num_low_frequencies) if self.sens_net.mask_center else None
        wanted = cast(int, rows) + 2 * self.readout_margin if crops else None
        y0, low_resolution = _zero_filled(kspace, centre, wanted)
        weights = torch.fft.ifftshift(sampled, axes).to(kspace.real.dtype)
        # Its convolutions are all that a VarNet has which autocast would touch.
        half = torch.autocast(kspace.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with half:
            maps = self.sens_net(low_resolution, self._low)
            del low_resolution
            w, z = self._cascade(y0, maps, weights, axes)
        for part, some in zip(_parts(y0), _parts(maps), strict=True):
            yield part - some * w + _project(some * z, weights, axes)

    @property
    def _low(self) -> bool:
        return self.low_memory and torch.is_grad_enabled()

    def _cascade(
        self, y0: Tensor, maps: Tensor, weights: Tensor, axes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Run the cascades; return w and z, (batch, 1, H, W)."""
        x0 = _sum(map(_combine, _parts(maps), _parts(y0)))
        v = w = z = torch.zeros_like(x0)
        for number, cascade in enumerate(cast(Iterable[Cascade], self.cascades)):
            residual = x0 - w
            if number > 1:  # z is zero until the second cascade has weighed v
                residual = residual + _NormalOperator.apply(maps, z, weights, axes)
            image = residual[:, 0]
            update = _run_again(cascade.model, image) if self._low else cascade.model(image)
            update = update.unsqueeze(1)
            # The first cascade's λ weighs a zero; it stays in the graph for DDP's sake.
            z = z + cascade.dc_weight * v
            v = (1 - cascade.dc_weight) * v + update
            w = w + update
        return w, z


def _run_again(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network that draws no random numbers, keeping its input alone for the backward."""
    return checkpoint(network, image, use_reentrant=False, preserve_rng_state=False)


def center_columns(sampled: Tensor, num_low_frequencies: int | Tensor | None) -> Tensor:
    """Return which columns the sensitivity net sees.

    Args:
        sampled: (batch or 1, 1, 1 or H, W) bool mask.
        num_low_frequencies: as in ``VarNet.forward``.

    Returns:
        (batch or 1, 1, 1, W) bool: the ACS columns, centred as fastMRI centres them. Where their
        number is not given it is the widest symmetric run of sampled columns around DC.
    """
    row = sampled[:, 0, 0]
    width, middle = row.shape[-1], row.shape[-1] // 2
    left = row[:, :middle].flip(1).to(torch.int8).argmin(dim=1)
    right = row[:, middle:].to(torch.int8).argmin(dim=1)
    count = (2 * torch.minimum(left, right)).clamp(min=1)
    if num_low_frequencies is not None:
        given = torch.as_tensor(num_low_frequencies, device=row.device, dtype=count.dtype)
        count = torch.where(given > 0, given, count)
    first = (width - count + 1) // 2
    column = torch.arange(width, device=row.device)
    inside = (column >= first[:, None]) & (column < (first + count)[:, None])
    return inside[:, None, None]


def _inverse(values: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Centred, unitary inverse Fourier transform along ``axes``."""
    shifted = torch.fft.ifftshift(values, axes)
    return torch.fft.fftshift(torch.fft.ifftn(shifted, dim=axes, norm="ortho"), axes)


def _zero_filled(kspace: Tensor, centre: Tensor | None, rows: int | None) -> tuple[Tensor, Tensor]:
    """Return the coil images of all columns of k-space, and of those in the centre.

    Args:
        kspace: (batch, coils, H, W) complex.
        centre: the columns that the sensitivity net sees; None for all.
        rows: of the images that are kept; None for all.
    """
    images, low_resolution = [], []
    for part in _parts(kspace):
        hybrid = _inverse(part, (-2,))
        if rows is not None:
            hybrid = _central_rows(hybrid, rows)
        images.append(_inverse(hybrid, (-1,)))
        if centre is not None:
            low_resolution.append(_inverse(hybrid * centre, (-1,)))
    whole = _joined(images)
    return whole, _joined(low_resolution) if low_resolution else whole


def _central_rows(images: Tensor, rows: int) -> Tensor:
    """Crop the readout. An even margin leaves a later crop to the rows alone where it was."""
    height = images.shape[-2]
    first = max(0, (height - rows) // 2)
    return images[..., first : first + rows, :]


def _project(images: Tensor, weights: Tensor, axes: tuple[int, ...]) -> Tensor:
    """F^H M F; ``weights`` is the mask with DC first."""
    kspace = torch.fft.fftn(images, dim=axes)
    return torch.fft.ifftn(kspace.mul_(weights), dim=axes)


def _combine(maps: Tensor, images: Tensor) -> Tensor:
    """S^H: coil images (batch, coils, H, W) to one image (batch, 1, H, W)."""
    return (maps.conj() * images).sum(dim=1, keepdim=True)


def _parts(coils: Tensor) -> tuple[Tensor, ...]:
    """Split (batch, coils, H, W) into as many coils as are worked on together."""
    if coils.device.type != "cpu":
        return (coils,)
    return coils.split(max(1, _PART // (coils[:, :1].numel() * coils.element_size())), dim=1)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Undo ``_parts``."""
    found = list(parts)
    return found[0] if len(found) == 1 else torch.cat(found, dim=1)


def _sum(parts: Iterable[Tensor]) -> Tensor:
    return reduce(torch.add, parts)


def _power(parts: Iterable[Tensor]) -> Tensor:
    """Sum the squared magnitudes of all coils, given in parts: (batch, H, W)."""
    return _sum(torch.view_as_real(part).square().sum(-1).sum(1) for part in parts)


def _root(power: Tensor, empty: float) -> Tensor:
    """Return the square root, ``empty`` (with no gradient) where the power is zero."""
    nothing = power == 0
    # A power: torch's sqrt asks a library that, where two threads call it first at the same time,
    # may give one of them fewer digits.
    return power.masked_fill(nothing, 1).pow(0.5).masked_fill(nothing, empty)


class _NormalOperator(torch.autograd.Function):
    """A z = S^H F^H M F S z, which keeps S and z alone for its backward.

    A is its own adjoint: grad_z = A g; grad_S = conj(g) P(S z) + conj(z) P(S g), P = F^H M F.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, z: Tensor, weights: Tensor, axes: tuple[int, ...]
    ) -> Tensor:
        ctx.save_for_backward(maps, z, weights)
        ctx.axes = axes
        return _sum(_combine(some, _project(some * z, weights, axes)) for some in _parts(maps))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        maps, z, weights = ctx.saved_tensors
        of_maps, of_z = [], []
        for some in _parts(maps):
            spread = _project(some * gradient, weights, ctx.axes)
            of_z.append(_combine(some, spread))
            if ctx.needs_input_grad[0]:
                projected = _project(some * z, weights, ctx.axes)
                of_maps.append(gradient.conj() * projected + z.conj() * spread)
        return _joined(of_maps) if of_maps else None, _sum(of_z), None, None
