"""The U-Net baseline beside fastMRI's transform, network and loss."""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from fastmri.data.transforms import UnetDataTransform, UnetSample
from fastmri.models import Unet
from torch import Tensor, nn

from benchmarks.networks import device, device_milliseconds, distance, measurement
from benchmarks.pairs import Pair, require
from benchmarks.sizes import Shape, Size
from workbench.models.unet_baseline.network import UNetBaseline
from workbench.recon.speed import use_tf32

_NUMBERS = {"toy": (4, 2)}  # channels and poolings; of other sizes the defaults
_LIKE_FLOAT32 = 1e-4  # of two float32 results


class _Reference:
    """A slice's way through fastMRI: its transform, the network, the transform undone."""

    def __init__(
        self, network: nn.Module, kspace: Tensor, target: Tensor, crop: tuple[int, int]
    ) -> None:
        self.network = network
        self._kspace = torch.view_as_complex(kspace)[0].cpu().numpy()
        self._target = np.asarray(target[0].cpu())
        self._attributes = {"recon_size": (*crop, 1), "max": 1.0}

    def sample(self) -> UnetSample:
        transform = UnetDataTransform("multicoil")
        return transform(self._kspace, None, self._target, self._attributes, "a.h5", 0)

    def image(self) -> Tensor:
        sample = self.sample()
        with torch.inference_mode():
            output = self.network(sample.image[None, None].to(device()))[0]
        return output * sample.std.to(device()) + sample.mean.to(device())

    def loss(self) -> Tensor:
        sample = self.sample()
        output = self.network(sample.image[None, None].to(device()))[:, 0]
        return F.l1_loss(output, sample.target[None].to(device()))


class _Ours:
    """The same of the workbench's network."""

    def __init__(
        self, network: UNetBaseline, kspace: Tensor, target: Tensor, crop: tuple[int, int]
    ) -> None:
        self.network, self._kspace, self._target, self._crop = network, kspace, target, crop
        self._mask = torch.ones(1, 1, 1, kspace.shape[-2], 1, dtype=torch.bool, device=device())

    def image(self) -> Tensor:
        with torch.inference_mode():
            return self.network.central_image(self._kspace, self._mask, None, self._crop)

    def loss(self) -> Tensor:
        return self.network.own_loss(self._kspace, self._mask, None, self._crop, self._target)


def _step(side: "_Reference | _Ours", optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    side.loss().backward()
    optimizer.step()


def _sides(size: Size, shape: Shape) -> tuple[_Reference, _Ours]:
    """Return both, with the same random weights and the same slice."""
    use_tf32(False)
    torch.manual_seed(0)
    chans, pools = _NUMBERS.get(size.name, (32, 4))
    reference, ours = Unet(1, 1, chans, pools), UNetBaseline(chans, pools)
    ours.unet.load_state_dict(reference.state_dict(), strict=True)
    kspace, _, _ = measurement(shape)
    crop = min(size.crop, shape[1]), min(size.crop, shape[2])
    target = torch.rand(1, *crop, generator=torch.Generator().manual_seed(2)).to(device())
    slices = kspace, target, crop
    return _Reference(reference.to(device()), *slices), _Ours(ours.to(device()), *slices)


def unet_pairs(size: Size) -> Iterator[Pair]:
    """Yield the reconstruction of a slice, and a step of training."""
    shape = size.training
    reference, ours = _sides(size, shape)
    slice_of = f"a slice {'x'.join(map(str, shape))} from k-space, U-Net baseline"
    yield Pair(
        "unet/slice",
        f"reconstruct {slice_of}",
        reference.image,
        ours.image,
        lambda: require("unet/slice", distance(ours.image(), reference.image()), _LIKE_FLOAT32),
        size.short_repeats,
        figure=device_milliseconds,
    )
    one, other = _sides(size, shape)
    steps = [
        partial(_step, side, torch.optim.RMSprop(side.network.parameters(), lr=1e-6))
        for side in (one, other)
    ]

    def same_loss() -> None:
        losses = [side.loss().detach() for side in (one, other)]
        require("unet/step", float((losses[1] - losses[0]).abs() / losses[0]), _LIKE_FLOAT32)

    yield Pair(
        "unet/step",
        f"forward, L1, backward, RMSprop on {slice_of}",
        *steps,
        same_loss,
        size.repeats,
        figure=device_milliseconds,
    )
