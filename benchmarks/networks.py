"""The network: reconstruction of a slice, and a step of training."""

from collections.abc import Iterator
from functools import cache, partial

import torch
from fastmri.losses import SSIMLoss
from fastmri.models import VarNet as Reference
from torch import Tensor, nn

from benchmarks.pairs import Pair, require
from benchmarks.sizes import SIZES, Shape, Size
from workbench.varnet.metrics import center_crop
from workbench.varnet.network import VarNet
from workbench.varnet.ssim import ssim_loss

Inputs = tuple[Tensor, Tensor, int]  # masked k-space, mask, number of ACS columns

_EXACT = 1e-10  # in float64, outputs and gradients
_SMALL: Shape = (3, 50, 37)  # where float64 is compared: odd, so that padding takes part
_LIKE_FLOAT32 = 1e-4  # of two float32 results at full size; fastMRI's own error is about 1e-5


def networks(size: Size) -> tuple[nn.Module, VarNet]:
    """Return fastMRI's VarNet and ours with the same random weights and DC weights."""
    torch.manual_seed(0)
    reference = Reference(**size.network)
    for cascade in reference.cascades:  # at their start, 1, they would hide a wrong recursion
        nn.init.uniform_(cascade.dc_weight, 0.3, 1.7)
    ours = VarNet(**size.network)
    ours.load_state_dict(reference.state_dict(), strict=True)
    return reference, ours


def measurement(shape: Shape) -> Inputs:
    """Return masked k-space (1, coils, H, W, 2), its mask and the number of ACS columns.

    The k-space is random with the decay of a real one, sampled at 4x with 8 % ACS.
    """
    coils, height, width = shape
    generator = torch.Generator().manual_seed(1)
    kspace = torch.randn(1, coils, height, width, 2, generator=generator)
    away = torch.hypot(
        torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    ).clamp(min=1 / width)
    mask = torch.zeros(1, 1, 1, width, 1, dtype=torch.bool)
    acs = max(2, round(0.08 * width))
    first = (width - acs + 1) // 2
    mask[..., ::4, :] = True
    mask[..., first : first + acs, :] = True
    return kspace / away[..., None] * mask, mask, acs


class TrainingStep:
    """One step of training with SSIM loss and Adam, as fastMRI's module or ours takes it."""

    def __init__(self, network: nn.Module, shape: Shape, crop: int) -> None:
        self.network = network
        self.inputs = measurement(shape)
        size = min(crop, shape[1]), min(crop, shape[2])
        self.target = torch.rand(1, *size, generator=torch.Generator().manual_seed(2))
        self.span = self.target.amax((1, 2))
        ours = isinstance(network, VarNet)
        self.optimizer = torch.optim.Adam(
            network.parameters(), lr=1e-6, fused=True if ours else None
        )
        self._loss = ssim_loss if ours else _reference_loss

    def loss(self) -> Tensor:
        """Run forward."""
        image = center_crop(self.network(*self.inputs), *self.target.shape[-2:])
        return self._loss(image, self.target, self.span)

    def __call__(self) -> None:
        """Run forward, backward and the optimiser."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


_SSIM = SSIMLoss()


def _reference_loss(image: Tensor, target: Tensor, span: Tensor) -> Tensor:
    return _SSIM(image[:, None], target[:, None], data_range=span)


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _results(network: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return image and parameter gradients at the small size, in float64."""
    network = network.to(dtype)
    kspace, mask, acs = measurement(_SMALL)
    network.zero_grad()
    image = network(kspace.to(dtype), mask, acs)
    (image * torch.linspace(0.5, 2, image.shape[-1], dtype=dtype)).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    return image.detach().double(), gradients.double()


@cache
def check_exact(size: str) -> None:
    """Hold ours to fastMRI's: equal in float64, in float32 no further off than twice fastMRI's.

    Raises:
        DiffersError: it is not.
    """
    reference, ours = networks(SIZES[size])
    rough = [_results(network, torch.float32) for network in (reference, ours)]
    exact = [_results(network, torch.float64) for network in (reference, ours)]
    ours.low_memory = True
    low = _results(ours, torch.float64)
    for what in (0, 1):
        name = "network, " + ("gradients" if what else "images")
        require(f"{name} in float64", _distance(exact[1][what], exact[0][what]), _EXACT)
        require(f"{name} in low memory", _distance(low[what], exact[0][what]), _EXACT)
        own = _distance(rough[0][what], exact[0][what])
        require(f"{name} in float32", _distance(rough[1][what], exact[0][what]), 2 * own)


def network_pairs(size: Size) -> Iterator[Pair]:
    """Yield inference and training."""
    reference, ours = networks(size)

    for place, shape in size.inference.items():
        inputs = measurement(shape)
        yield Pair(
            f"inference/{place}",
            f"reconstruct a slice {_shown(shape)}, {len(ours.cascades)} cascades",
            partial(_infer, reference, inputs),
            partial(_infer, ours, inputs),
            partial(_check_inference, place, size, (reference, ours), inputs),
            size.repeats,
        )

    for name, low_memory in (("train_step/knee", False), ("train_step/knee/low", True)):
        one, other = networks(size)
        other.low_memory = low_memory
        steps = [TrainingStep(network, size.training, size.crop) for network in (one, other)]
        yield Pair(
            name,
            f"forward, SSIM loss, backward, Adam on a slice {_shown(size.training)}"
            + (", low_memory" if low_memory else ""),
            steps[0],
            steps[1],
            partial(_check_steps, name, steps),
            size.repeats,
        )


def _check_steps(name: str, steps: list[TrainingStep]) -> None:
    losses = []
    for step in steps:
        losses.append(step.loss().detach())
        step()  # the optimiser's state is made in the first step
    require(name, float((losses[1] - losses[0]).abs()), _LIKE_FLOAT32)


def _infer(network: nn.Module, inputs: Inputs) -> Tensor:
    with torch.inference_mode():
        return network(*inputs)


def _check_inference(
    place: str, size: Size, both: tuple[nn.Module, nn.Module], inputs: Inputs
) -> None:
    expected, found = (_infer(network, inputs) for network in both)
    require(f"inference/{place}", _distance(found, expected), _LIKE_FLOAT32)
    check_exact(size.name)


def _shown(shape: Shape) -> str:
    return "x".join(map(str, shape))
