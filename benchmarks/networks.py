"""The network: reconstruction of a slice, and a step of training."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from unittest.mock import patch

import torch
from fastmri.losses import SSIMLoss
from fastmri.models import VarNet as Reference
from torch import Tensor, nn

from benchmarks.pairs import Pair, Work, milliseconds, require
from benchmarks.sizes import SIZES, Shape, Size
from workbench.data.images import center_crop
from workbench.models import VarNet
from workbench.recon.speed import use_tf32
from workbench.recon.ssim import ssim_loss

Inputs = tuple[Tensor, Tensor, int]  # masked k-space, mask, number of ACS columns

_EXACT = 1e-10  # in float64, outputs and gradients
_SMALL: Shape = (3, 50, 37)  # where float64 is compared: odd, so that padding takes part
_LIKE_FLOAT32 = 1e-4  # of two float32 results at full size; fastMRI's own error is about 1e-5


def device() -> torch.device:
    """Return where networks are measured: the GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def networks(size: Size, **other: int) -> tuple[nn.Module, VarNet]:
    """Return fastMRI's VarNet and ours with the same random weights and DC weights.

    Args:
        size: says the network's arguments.
        **other: arguments that replace some of them.
    """
    use_tf32(False)  # torch's default lets convolutions on a GPU round to it
    arguments = size.network | other
    torch.manual_seed(0)
    reference = Reference(**arguments)
    for cascade in reference.cascades:  # at their start, 1, they would hide a wrong recursion
        nn.init.uniform_(cascade.dc_weight, 0.3, 1.7)
    ours = VarNet(**arguments)
    ours.load_state_dict(reference.state_dict(), strict=True)
    return reference.to(device()), ours.to(device())


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
    return (kspace / away[..., None] * mask).to(device()), mask.to(device()), acs


class TrainingStep:
    """One step of training with SSIM loss and Adam, as fastMRI's module or ours takes it."""

    def __init__(self, network: nn.Module, shape: Shape, crop: int) -> None:
        self.network, self.crop = network, crop
        self.measure(shape)
        ours = isinstance(network, VarNet)
        self.optimizer = torch.optim.Adam(
            network.parameters(),
            lr=1e-6,
            fused=True if ours else None,
            capturable=ours and device().type == "cuda",
        )
        self._loss = ssim_loss if ours else _reference_loss

    def measure(self, shape: Shape, scale: float = 1.0) -> None:
        """Take another slice."""
        kspace, mask, acs = measurement(shape)
        self.inputs = kspace * scale, mask, acs
        size = min(self.crop, shape[1]), min(self.crop, shape[2])
        target = torch.rand(1, *size, generator=torch.Generator().manual_seed(2))
        self.target = target.to(device())
        self.span = self.target.amax((1, 2))

    def loss(self) -> Tensor:
        """Run forward."""
        image = center_crop(self.network(*self.inputs), self.target.shape[-2:])
        return self._loss(image, self.target, self.span)

    def __call__(self) -> None:
        """Run forward, backward and the optimiser."""
        self.optimizer.zero_grad()
        self.loss().backward()
        self.optimizer.step()


_SSIM = SSIMLoss().to(device())


def _reference_loss(image: Tensor, target: Tensor, span: Tensor) -> Tensor:
    return _SSIM(image[:, None], target[:, None], data_range=span)


def distance(found: Tensor, expected: Tensor) -> float:
    """Return the L2 distance relative to what is expected."""
    return float((found - expected).norm() / expected.norm())


def results(network: nn.Module, dtype: torch.dtype, shape: Shape = _SMALL) -> tuple[Tensor, Tensor]:
    """Return image and parameter gradients, computed in ``dtype``, in float64."""
    network = network.to(dtype)
    kspace, mask, acs = measurement(shape)
    network.zero_grad()
    image = network(kspace.to(dtype), mask, acs)
    (image * torch.linspace(0.5, 2, image.shape[-1], dtype=dtype, device=device())).sum().backward()
    gradients = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad()
    return image.detach().double(), gradients.double()


@contextmanager
def straight(reference: nn.Module) -> Iterator[None]:
    """Let both networks' leaky ReLUs pass everything on, within a ``with`` block.

    Where rounding changes the sign of one's input, a gradient jumps by far more than by rounding:
    without the kink two precisions can be compared.
    """
    kinks = [module for module in reference.modules() if isinstance(module, nn.LeakyReLU)]
    slopes = [kink.negative_slope for kink in kinks]
    with patch("workbench.models.unet._SLOPE", 1.0):
        for kink in kinks:
            kink.negative_slope = 1.0
        try:
            yield
        finally:
            for kink, slope in zip(kinks, slopes, strict=True):
                kink.negative_slope = slope


Distances = tuple[float, float]  # of images and of gradients


def distances(found: tuple[Tensor, Tensor], exact: tuple[Tensor, Tensor]) -> Distances:
    """Return the distances of images and of gradients."""
    return distance(found[0], exact[0]), distance(found[1], exact[1])


def rounding(
    networks: tuple[nn.Module, VarNet], shape: Shape = _SMALL
) -> tuple[Distances, Distances]:
    """Return how far float32 is from fastMRI's float64: fastMRI's and ours, gradients unkinked."""

    def both(what: int) -> list[float]:
        exact = results(networks[0], torch.float64, shape)[what]
        return [distance(results(n, torch.float32, shape)[what], exact) for n in networks]

    images = both(0)
    with straight(networks[0]):
        gradients = both(1)
    return (images[0], gradients[0]), (images[1], gradients[1])


@cache
def check_exact(size: str) -> None:
    """Hold ours to fastMRI's: equal in float64, in float32 no further off than twice fastMRI's.

    Raises:
        DiffersError: it is not.
    """
    reference, ours = networks(SIZES[size])
    exact = results(reference, torch.float64)
    found = results(ours, torch.float64)
    ours.low_memory = True
    low = results(ours, torch.float64)
    ours.low_memory = False
    rough = rounding((reference, ours))
    for what, name in enumerate(("network, images", "network, gradients")):
        require(f"{name} in float64", distance(found[what], exact[what]), _EXACT)
        require(f"{name} in low memory", distance(low[what], exact[what]), _EXACT)
        require(f"{name} in float32", rough[1][what], 2 * rough[0][what])


def inference_pairs(size: Size) -> Iterator[Pair]:
    """Yield the reconstruction of a slice of each kind."""
    reference, ours = networks(size)

    for place, shape in size.inference.items():
        inputs = measurement(shape)
        yield Pair(
            f"inference/{place}",
            f"reconstruct a slice {shown(shape)}, {len(ours.cascades)} cascades",
            partial(infer, reference, inputs),
            partial(infer, ours, inputs),
            partial(_check_inference, place, size, (reference, ours), inputs),
            size.repeats,
            figure=device_milliseconds,
            flops=True,
        )


def training_pairs(size: Size) -> Iterator[Pair]:
    """Yield a step of training."""
    for name, low_memory in (("train_step/knee", False), ("train_step/knee/low", True)):
        one, other = networks(size)
        other.low_memory = low_memory
        steps = [TrainingStep(network, size.training, size.crop) for network in (one, other)]
        yield Pair(
            name,
            f"forward, SSIM loss, backward, Adam on a slice {shown(size.training)}"
            + (", low_memory" if low_memory else ""),
            steps[0],
            steps[1],
            partial(_check_steps, name, steps),
            size.repeats,
            figure=device_milliseconds,
            flops=True,
        )


def _check_steps(name: str, steps: list[TrainingStep]) -> None:
    losses = []
    for step in steps:
        losses.append(step.loss().detach())
        step()  # the optimiser's state is made in the first step
    require(name, float((losses[1] - losses[0]).abs()), _LIKE_FLOAT32)


def infer(network: nn.Module, inputs: Inputs) -> Tensor:
    """Reconstruct without a gradient."""
    with torch.inference_mode():
        return network(*inputs)


def _check_inference(
    place: str, size: Size, both: tuple[nn.Module, nn.Module], inputs: Inputs
) -> None:
    expected, found = (infer(network, inputs) for network in both)
    require(f"inference/{place}", distance(found, expected), _LIKE_FLOAT32)
    check_exact(size.name)


def device_milliseconds(work: Work) -> float:
    """Return the time of one call: on a GPU between two events of its own, else on the wall."""
    if device().type == "cpu":
        return milliseconds(work)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def shown(shape: Shape) -> str:
    """Return a shape as people write it, such as 15x640x368."""
    return "x".join(map(str, shape))
