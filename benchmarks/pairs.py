"""A figure and its reference: checked for equality, then measured in turn."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

Work = Callable[[], Any]


class DiffersError(Exception):
    """What is measured does not give what fastMRI gives, so that its cost says nothing."""


def milliseconds(work: Work) -> float:
    """Return the wall time of one call."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def returned(work: Work) -> float:
    """Return the figure that the call itself measures."""
    return float(work())


@dataclass(frozen=True)
class Pair:
    """One thing done fastMRI's way and ours.

    Attributes:
        name: of the row, such as "inference/knee".
        measured: what is measured, with sizes, for people.
        reference: does it once with the ``fastmri`` package.
        ours: does it once with the workbench.
        check: raises ``DiffersError`` unless both give the same.
        repeats: how many times each is measured.
        unit: of the figure; less of it is better.
        figure: turns a call into its figure.
        flops: whether its floating-point operations are to be counted.
        before: comes before each call and is not measured.
    """

    name: str
    measured: str
    reference: Work
    ours: Work
    check: Work
    repeats: int
    unit: str = "ms"
    figure: Callable[[Work], float] = milliseconds
    flops: bool = False
    before: Work = lambda: None

    def measured_once(self, work: Work) -> float:
        """Return the figure of one call."""
        self.before()
        return self.figure(work)


@dataclass(frozen=True)
class Row:
    """The medians of a pair; a ratio above 1 means better than the reference.

    ``roofline`` is the share that ours reaches of the rate at which the device multiplies large
    float32 matrices, convolutions alone being counted; None where they are not.
    """

    name: str
    measured: str
    reference: float
    ours: float
    ratio: float
    unit: str
    n: int
    roofline: float | None = None


def measure(pair: Pair) -> Row:
    """Measure reference and ours in turn, so that a noisy machine disturbs both alike."""
    figures = [
        (pair.measured_once(pair.reference), pair.measured_once(pair.ours))
        for _ in range(pair.repeats)
    ]
    reference, ours = (statistics.median(side) for side in zip(*figures, strict=True))
    # Our own kernels are not counted; the reference's convolutions are the same in number and size.
    share = operations(pair.reference) / (ours / 1000) / peak_rate() if pair.flops else None
    ratio = reference / ours
    return Row(pair.name, pair.measured, reference, ours, ratio, pair.unit, pair.repeats, share)


def operations(work: Work) -> int:
    """Count the floating-point operations of one call, those of convolutions and products."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


@cache
def peak_rate(dtype: "torch.dtype | None" = None, tf32: bool = False) -> float:
    """Measure how many operations a second the device does in a product of large matrices.

    Args:
        dtype: of the matrices; None for float32.
        tf32: whether an NVIDIA GPU may round float32 factors to TF32.
    """
    import torch

    size, on = (8192, "cuda") if torch.cuda.is_available() else (2048, "cpu")
    one = torch.ones(size, size, device=on, dtype=dtype)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32

    def multiply() -> None:
        _ = one @ one
        if on == "cuda":
            torch.cuda.synchronize()

    multiply()
    best = min(milliseconds(multiply) for _ in range(5))
    torch.backends.cuda.matmul.allow_tf32 = before
    return 2 * size**3 / (best / 1000)


def require(name: str, found: float, allowed: float) -> None:
    """Raise unless a difference is small enough; NaN is not.

    Raises:
        DiffersError: it is not.
    """
    if not found <= allowed:
        raise DiffersError(
            f"{name}: differs from the reference by {found:.2g}, allowed {allowed:.2g}"
        )
