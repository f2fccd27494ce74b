"""The kernels' convolution beside torch's: ``python -m benchmarks.convolution``.

At the levels of the VarNet's U-Net on a knee slice, on one core, by the processor's time. Rates
count the products of a direct convolution, whatever is really multiplied.
"""

import sys
import time
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.networks import distance
from workbench_kernels import functions as kernels

LEVELS = ((18, 640, 368), (36, 320, 184), (72, 160, 92), (144, 80, 46), (288, 40, 23))
"""Channels, rows and columns."""

_TIMES = 12
_PASSES = ("forward", "gradient of the input", "gradient of the weights")
Convolve = Callable[[Tensor, Tensor], Tensor]


def results(convolve: Convolve, image: Tensor, weight: Tensor) -> list[Callable[[], Tensor]]:
    """Return what computes each pass anew."""

    def gradient(of_image: bool) -> Callable[[], Tensor]:
        inputs = (
            image.detach().requires_grad_(of_image),
            weight.detach().requires_grad_(not of_image),
        )
        output = convolve(*inputs)
        given = torch.ones_like(output) * torch.arange(output.shape[1])[:, None, None]
        asked = inputs[0 if of_image else 1]
        return lambda: torch.autograd.grad(output, asked, given, retain_graph=True)[0]

    return [lambda: convolve(image, weight), gradient(True), gradient(False)]


def seconds(work: Callable[[], object]) -> float:
    """Return the processor's time of the fastest of some calls."""
    found = []
    for _ in range(_TIMES):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def by_torch(image: Tensor, weight: Tensor) -> Tensor:
    """Convolve as torch does."""
    return F.conv2d(image, weight, padding=1)


def lines(levels: Sequence[tuple[int, int, int]] = LEVELS) -> list[str]:
    """Return the table: rates, and distances (L2, relative) from the result in float64."""
    found = [
        "| channels, size | pass | torch, GFLOP/s | kernels | torch's distance | kernels' |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for channels, height, width in levels:
        torch.manual_seed(0)
        image = torch.randn(1, channels, height, width)
        weight = torch.randn(channels, channels, 3, 3) / (9 * channels) ** 0.5
        work = 18e-9 * channels**2 * height * width
        last = image.contiguous(memory_format=torch.channels_last)  # as torch is fastest
        theirs = results(by_torch, last, weight)
        ours = results(lambda image, weight: kernels.convolve(image, None, weight), image, weight)
        exact = results(by_torch, image.double(), weight.double())
        for name, their, our, truth in zip(_PASSES, theirs, ours, exact, strict=True):
            true = truth()
            far = [distance(each().double(), true) for each in (their, our)]
            rates = [work / seconds(each) for each in (their, our)]
            found.append(
                f"| {channels}, {height}x{width} | {name} | {rates[0]:.0f} | {rates[1]:.0f} "
                f"| {far[0]:.1e} | {far[1]:.1e} |"
            )
    return found


def main() -> int:
    """Print the table."""
    torch.set_num_threads(1)
    print("\n".join(lines()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
