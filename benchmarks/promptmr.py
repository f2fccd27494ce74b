"""PromptMR beside its authors' own code, which is not part of this project.

``PROMPTMR_UPSTREAM`` names a checkout of https://github.com/hellopipu/PromptMR (MIT); without it
there are no rows. Run as ``python -m benchmarks.promptmr SIZE reference|ours`` it prints the peak
of memory of a reconstruction.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from benchmarks.memory import resident
from benchmarks.networks import device, device_milliseconds, distance, infer, measurement
from benchmarks.pairs import Pair, require, returned
from benchmarks.sizes import SIZES, Shape, Size
from workbench.models.promptmr.network import PromptMR
from workbench.recon.speed import use_tf32

UPSTREAM = "PROMPTMR_UPSTREAM"  # path of a checkout

_NUMBERS = {"toy": (2, 4, 4), "quick": (4, 48, 24), "full": (12, 48, 24)}  # cascades and widths
_SLICES = 3
_EXACT = 1e-10  # in float64
_LIKE_FLOAT32 = 1e-4  # of two float32 results at full size
_SMALL: Shape = (3, 50, 37)  # where float64 is compared
_IN_ORDER = 4  # slices of a volume, of which one is measured


def upstream() -> ModuleType | None:
    """Load the authors' network; None where no checkout is named.

    All networks of one loaded module share a slope, so that changing the type of one changes
    another's: each wants a module of its own.
    """
    if not (folder := os.environ.get(UPSTREAM)):
        return None
    path = Path(folder) / "models/promptmr.py"
    spec = importlib.util.spec_from_file_location("promptmr_upstream", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SystemExit(f"{UPSTREAM}={folder}: no models/promptmr.py there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def networks(size: str) -> tuple[nn.Module, PromptMR]:
    """Return the authors' network and ours with the same random weights and DC weights."""
    module = upstream()
    assert module is not None
    use_tf32(False)
    cascades, chans, sens_chans = _NUMBERS[size]

    def levels(prefix: str, width: int) -> dict[str, list[int] | int]:
        return {
            f"{prefix}n_feat0": width,
            f"{prefix}feature_dim": [width * 3 // 2, width * 2, width * 5 // 2],
            f"{prefix}prompt_dim": [width // 2, width, width * 3 // 2],
        }

    torch.manual_seed(0)
    reference = module.PromptMR(
        num_cascades=cascades,
        num_adj_slices=_SLICES,
        no_use_ca=True,
        **levels("", chans),
        **levels("sens_", sens_chans),
    )
    for cascade in reference.cascades:
        nn.init.uniform_(cascade.dc_weight, 0.3, 1.7)
    ours = PromptMR(cascades, _SLICES, chans, sens_chans)
    ours.load_state_dict(reference.state_dict(), strict=True)
    return reference.eval().to(device()), ours.eval().to(device())


def stacks(shape: Shape) -> list[tuple[Tensor, Tensor, int]]:
    """Return inputs of the network for adjacent slices of a volume."""
    coils, height, width = shape
    several = _IN_ORDER + _SLICES - 1
    kspace, mask, acs = measurement((several * coils, height, width))
    slices = kspace.unflatten(1, (several, coils))
    return [
        (slices[:, first : first + _SLICES].flatten(1, 2), mask, acs) for first in range(_IN_ORDER)
    ]


def promptmr_pairs(size: Size) -> Iterator[Pair]:
    """Yield memory and time of a reconstruction, where the authors' code is at hand."""
    if upstream() is None:
        print(f"promptmr/*: left out, {UPSTREAM} names no checkout of PromptMR", flush=True)
        return
    shape = size.inference["knee"]
    cascades = _NUMBERS[size.name][0]
    what = f"a slice {'x'.join(map(str, shape))} of {_SLICES}, PromptMR of {cascades} cascades"
    yield Pair(
        "promptmr/memory",
        f"growth by reconstructing {what} (peak RSS of the process)",
        partial(_peak_of, size.name, "reference"),
        partial(_peak_of, size.name, "ours"),
        lambda: None,
        1,
        "MB",
        returned,
    )
    reference, ours = networks(size.name)
    several = stacks(shape)
    check = partial(_check, size.name, reference, ours, several[0])

    def forget() -> None:
        ours.train().eval()

    yield Pair(
        "promptmr/slice",
        f"reconstruct {what}",
        partial(infer, reference, several[0]),
        partial(infer, ours, several[0]),
        check,
        size.repeats,
        figure=device_milliseconds,
        before=forget,
        flops=True,
    )
    turns: dict[int, Callable[[], tuple[Tensor, Tensor, int]]] = {
        id(net): partial(next, _again(several)) for net in (reference, ours)
    }
    yield Pair(
        "promptmr/volume",
        f"reconstruct the next slice of a volume: {what}",
        lambda: infer(reference, turns[id(reference)]()),
        lambda: infer(ours, turns[id(ours)]()),
        check,
        max(size.repeats, _IN_ORDER),
        figure=device_milliseconds,
    )


def _again(several: list[tuple[Tensor, Tensor, int]]) -> Iterator[tuple[Tensor, Tensor, int]]:
    while True:
        yield from several
        yield from several[-2:0:-1]  # back again: each is beside the one before


def _check(
    size: str,
    reference: nn.Module,
    ours: nn.Module,
    inputs: tuple[Tensor, Tensor, int],
) -> None:
    expected, found = (infer(network, inputs) for network in (reference, ours))
    require("promptmr in float32", distance(found, expected), _LIKE_FLOAT32)
    kspace, mask, acs = stacks(_SMALL)[0]
    exact = [infer(n.double(), (kspace.double(), mask, acs)) for n in networks(size)]
    require("promptmr in float64", distance(exact[1], exact[0]), _EXACT)


def _peak_of(size: str, side: str) -> float:
    """Measure in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.promptmr", size, side]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout.splitlines()[-1])


def _peak(size: Size, side: str) -> float:
    """Return by how much a reconstruction raises the peak of this process's memory, MB."""
    reference, ours = networks(size.name)
    network = reference if side == "reference" else ours
    inputs = stacks(size.inference["knee"])[0]
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    infer(network, inputs)
    return max(resident("VmHWM") - before, 1e-3)


if __name__ == "__main__":
    print(_peak(SIZES[sys.argv[1]], sys.argv[2]))
