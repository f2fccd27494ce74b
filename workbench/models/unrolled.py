r"""Unrolled networks: cascades of data consistency and a U-Net, with less work a cascade.

The usual form, as fastMRI writes it, keeps multi-coil k-space and transforms every coil four times
a cascade. Here the state is two coil-combined images v and w. With k\ :sub:`0` the masked k-space,
M the mask, F the centred Fourier transform, S the sensitivity maps (normalised: S\ :sup:`H` S = 1),
λ a cascade's DC weight and u the output of its U-Net, that k-space is

    k = k_0 - M F S v - (1 - M) F S w,

so that with x_0 = S^H F^H k_0, z = w - v and A = S^H F^H M F S one cascade is

    u = UNet(x_0 - w + A z),    v <- (1 - λ) v + u,    w <- w + u,

and the result is the root sum of squares over coils of y_0 - S w + F^H M F S z, y_0 = F^H k_0.
All of it holds for any k_0 that has the measured lines: the cascades may begin with another
reconstruction's k-space where the published networks begin with zeros.
Where a network sees neighbouring slices, all of this holds for each of them, and the U-Net alone
sees them together.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

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
from workbench.models.unet import Normalised

_COILS = 8  # whose maps are estimated at a time
# Bytes of an activation on a CPU: a larger one is taken from the system page by page, and given
# back, each time that it is needed.
_ACTIVATION = 16 * 2**20


class SensitivityNet(nn.Module):
    """Estimates coil sensitivity maps from the fully sampled centre of k-space.

    Args:
        network: maps coil images (coils, H, W) complex, each alone, to the same.
        chans: channels of its widest activation.
        mask_center: whether it sees the sampled centre of k-space alone.
    """

    def __init__(self, network: nn.Module, chans: int, mask_center: bool = True) -> None:
        super().__init__()
        self.mask_center, self._chans = mask_center, chans
        self.norm_unet = network

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
        return maps / root(power(parts_of(maps)), empty=1.0).unsqueeze(1)

    def _coils(self, images: Tensor) -> int:
        """Return how many coils' maps are to be estimated at a time."""
        if images.device.type != "cpu":
            return _COILS
        activation = self._chans * images[0].numel() * images.real.element_size()
        return min(_COILS, max(1, _ACTIVATION // activation))


class Cascade(nn.Module):
    """The parameters of one cascade: its U-Net and its data consistency weight λ."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.dc_weight = nn.Parameter(torch.ones(1))


class Unrolled(Reconstructor):
    """Base of the unrolled networks.

    ``low_memory`` runs the forward of each cascade, and of each coil's map, a second time for the
    backward pass. Under ``bf16`` transforms, combination of coils and data consistency stay in
    float32.

    Args:
        sens_net: estimates the maps, those of each slice alone.
        models: a U-Net a cascade, complex images to the same: (batch, H, W), or (batch,
            neighbours, H, W) where the network sees several slices.
    """

    def __init__(self, sens_net: SensitivityNet, models: Iterable[nn.Module]) -> None:
        super().__init__()
        self.sens_net = sens_net
        self.cascades = nn.ModuleList(map(Cascade, models))
        self.first: Reconstructor | None = None
        self._seen: list[tuple[Any, Tensor, Tensor]] = []  # how, measured centre, maps of slices

    @property
    def begins_with(self) -> str:
        """Name of the classical reconstruction that it begins with; "" for none."""
        return self.first.name if self.first else ""

    def begin_with(self, first: Reconstructor | None) -> None:
        """Choose the reconstruction that it begins with, one that forms images of single coils."""
        self.first = first

    def start_at_zero_filled(self) -> None:
        """Set the last layer of each U-Net to zero: of an image it returns the mean alone.

        A map is then a number, and a cascade's image as well: k-space has it in its centre, which
        was measured. So the network returns what it begins with.
        """
        cascades = cast(Iterable[Cascade], self.cascades)
        for model in (self.sens_net.norm_unet, *(cascade.model for cascade in cascades)):
            for weights in cast(Normalised, model).unet.last.parameters():
                nn.init.zeros_(weights)

    def train(self, mode: bool = True) -> Self:
        """Choose training or evaluation, as in torch."""
        self._seen = []
        return super().train(mode)

    def coil_images(
        self,
        masked_kspace: Tensor,
        mask: Tensor,
        num_low_frequencies: int | Tensor | None = None,
        rows: int | None = None,
    ) -> Tensor:
        """Reconstruct what each coil would have seen, (batch, coils, H, W) complex.

        Raises:
            ValueError: the readout is to be cropped and the mask varies along it, or the coils
                are not those of as many slices as the network sees.
        """
        sampled = mask[..., 0]
        axes = (-1,) if sampled.shape[-2] == 1 else (-2, -1)
        crops = self.crop_readout and rows is not None
        if crops and len(axes) == 2:
            raise ValueError("crop_readout: the mask varies along the readout; turn it off")
        centre = center_columns(sampled, num_low_frequencies) if self.sens_net.mask_center else None
        wanted = cast(int, rows) + 2 * self.readout_margin if crops else None
        kspace = self._slice_by_slice(torch.view_as_complex(masked_kspace.contiguous()))
        sampled = self._for_each_slice(sampled)
        centre = None if centre is None else self._for_each_slice(centre)
        y0, low_resolution = zero_filled(kspace, centre, wanted)
        if self.first is not None:
            y0 = self._first_estimate(kspace, sampled, num_low_frequencies, rows if crops else None)
        weights = torch.fft.ifftshift(sampled, axes).to(kspace.real.dtype)
        # Its convolutions are all that such a network has which autocast would touch.
        half = torch.autocast(kspace.device.type, torch.bfloat16) if self.bf16 else nullcontext()
        with half:
            maps = self._maps(kspace, centre, low_resolution)
            del low_resolution
            w, z = self._cascade(y0, maps, weights, axes)
        y0, maps, w, z, weights = (self._middle(each) for each in (y0, maps, w, z, weights))
        return joined(
            part - some * w + project(some * z, weights, axes)
            for part, some in zip(parts_of(y0), parts_of(maps), strict=True)
        )

    def _first_estimate(
        self,
        kspace: Tensor,
        sampled: Tensor,
        num_low_frequencies: int | Tensor | None,
        rows: int | None,
    ) -> Tensor:
        """Return the coil images that the cascades begin with, for y_0."""
        first = cast(Reconstructor, self.first)
        first.readout_margin = self.readout_margin
        if isinstance(num_low_frequencies, Tensor) and num_low_frequencies.ndim:
            num_low_frequencies = self._for_each_slice(num_low_frequencies)
        values = torch.view_as_real(kspace)
        return first.coil_images(values, sampled.unsqueeze(-1), num_low_frequencies, rows)

    @property
    def _low(self) -> bool:
        return self.low_memory and torch.is_grad_enabled()

    def _maps(self, kspace: Tensor, centre: Tensor | None, low_resolution: Tensor) -> Tensor:
        """Estimate the maps of all slices.

        Where one stack of neighbours after another is reconstructed, as of a volume in order, most
        of their slices were seen in the call before: their maps are kept from there.
        """
        single = self.neighbours > 1 and len(kspace) == self.neighbours
        if not single or self.training or torch.is_grad_enabled():
            return self.sens_net(low_resolution, self._low)
        columns = list(range(kspace.shape[-1]))
        if centre is not None:
            columns = centre.flatten().nonzero()[:, 0].tolist()
        weights = [(id(p), p.is_inference() or p._version) for p in self.sens_net.parameters()]
        how = columns, low_resolution.shape, low_resolution.dtype, kspace.device, self.bf16, weights
        seen: list[tuple[Any, Tensor, Tensor]] = []
        for measured, images in zip(kspace.split(1), low_resolution.split(1), strict=True):
            own = measured[..., columns]
            for known in (*seen, *self._seen):
                if known[0] == how and torch.equal(known[1], own):
                    maps = known[2]
                    break
            else:
                maps = self.sens_net(images)
            seen.append((how, own, maps))
        self._seen = seen
        return torch.cat([maps for *_, maps in seen])

    def _slice_by_slice(self, kspace: Tensor) -> Tensor:
        """Turn (batch, neighbours x coils, H, W) into (batch x neighbours, coils, H, W)."""
        stacked = kspace.shape[1]
        if stacked % self.neighbours:
            raise ValueError(
                f"masked_kspace has {stacked} coils, and the network sees {self.neighbours} "
                "slices: stack the coils of so many, as SliceDataset(..., neighbours="
                f"{self.neighbours}) does"
            )
        return kspace.unflatten(1, (self.neighbours, -1)).flatten(0, 1)

    def _for_each_slice(self, of_samples: Tensor) -> Tensor:
        """Repeat what a sample has once for each of its slices."""
        if self.neighbours == 1 or len(of_samples) == 1:
            return of_samples
        return of_samples.repeat_interleave(self.neighbours, 0)

    def _middle(self, of_slices: Tensor) -> Tensor:
        """Return what is of the middle slices, those that are reconstructed."""
        return (
            of_slices if len(of_slices) == 1 else of_slices[self.neighbours // 2 :: self.neighbours]
        )

    def _cascade(
        self, y0: Tensor, maps: Tensor, weights: Tensor, axes: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        """Run the cascades; return w and z, (batch x neighbours, 1, H, W)."""
        x0 = total(map(combine, parts_of(maps), parts_of(y0)))
        v = w = z = torch.zeros_like(x0)
        for number, cascade in enumerate(cast(Iterable[Cascade], self.cascades)):
            residual = x0 - w
            if number > 1:  # z is zero until the second cascade has weighed v
                residual = residual + NormalOperator.apply(maps, z, weights, axes)
            image = residual[:, 0]
            if self.neighbours > 1:
                image = image.unflatten(0, (-1, self.neighbours))
            update = _run_again(cascade.model, image) if self._low else cascade.model(image)
            update = update.reshape(residual.shape)
            # The first cascade's λ weighs a zero; it stays in the graph for DDP's sake.
            z = z + cascade.dc_weight * v
            v = (1 - cascade.dc_weight) * v + update
            w = w + update
        return w, z


def _run_again(network: nn.Module, image: Tensor) -> Tensor:
    """Run a network that draws no random numbers, keeping its input alone for the backward."""
    return checkpoint(network, image, use_reentrant=False, preserve_rng_state=False)
