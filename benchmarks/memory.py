"""Memory of a training step, each network's in a process of its own.

Run as ``python -m benchmarks.memory SIZE reference|ours|low``; it prints the figures as JSON.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from benchmarks.pairs import Pair, returned
from benchmarks.sizes import SIZES, Size

_MB = 1e6
_HELD = "what the forward pass leaves for the backward pass"
_PEAK = "growth by a training step (peak RSS of the process, of the allocator on a GPU)"
_PAGE = 4096 / _MB


@cache
def figures(size: str, side: str) -> dict[str, float]:
    """Measure in a process of its own: {"held", "peak"}, MB."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", size, side],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "KINETO_LOG_LEVEL": "99"},  # else the profiler says that it starts
    )
    return json.loads(done.stdout.splitlines()[-1])


def give_back() -> None:
    """Return to the system what the C library keeps for later, in ever other pieces."""
    with suppress(AttributeError):  # of another C library than GNU's
        ctypes.CDLL(None).malloc_trim(0)


def resident(field: str = "VmRSS") -> float:
    """Return VmRSS (now) or VmHWM (the peak) of this process, MB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) * 1024 / _MB  # type: ignore[index]


def _figure(size: str, side: str, key: str) -> float:
    return figures(size, side)[key]


def memory_pairs(size: Size) -> Iterator[Pair]:
    """Yield what a training step holds for its backward pass, and its peak."""
    for name, side, key, measured in (
        ("train_memory/knee", "ours", "held", _HELD),
        ("train_memory/knee/peak", "ours", "peak", _PEAK),
        ("train_memory/knee/low", "low", "held", f"{_HELD}, low_memory"),
        ("train_memory/knee/low/peak", "low", "peak", f"{_PEAK}, low_memory"),
    ):
        yield Pair(
            name,
            f"{measured}, a slice {'x'.join(map(str, size.training))}",
            partial(_figure, size.name, "reference", key),
            partial(_figure, size.name, side, key),
            lambda: None,  # train_step/knee checks the same step
            1,
            "MB",
            returned,
        )


def _on_gpu(size: Size, side: str) -> dict[str, float]:
    """Ask the allocator of a GPU."""
    import torch

    from benchmarks.networks import TrainingStep, networks

    reference, ours = networks(size)
    ours.low_memory = side == "low"
    step = TrainingStep(reference if side == "reference" else ours, size.training, size.crop)
    step()  # gradients and the optimiser's state are not the step's memory
    step.optimizer.zero_grad(set_to_none=False)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    loss = step.loss()
    held = torch.cuda.memory_allocated() - before
    loss.backward()
    torch.cuda.synchronize()
    return {"held": held / _MB, "peak": (torch.cuda.max_memory_allocated() - before) / _MB}


def _measure(size: Size, side: str) -> dict[str, float]:
    import torch

    if torch.cuda.is_available():
        return _on_gpu(size, side)
    from torch.profiler import ProfilerActivity, profile

    from benchmarks.networks import TrainingStep, networks

    reference, ours = networks(size)
    ours.low_memory = side == "low"
    step = TrainingStep(reference if side == "reference" else ours, size.training, size.crop)
    for parameter in step.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    step.optimizer.step()  # its state is not the step's memory
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    step()
    peak = max(resident("VmHWM") - before, _PAGE)
    # The allocator reports every allocation and release: their sum is what is left.
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss = step.loss()
    results = profiler.profiler.kineto_results
    held = sum(event.nbytes() for event in results.events() if event.name() == "[memory]")
    loss.backward()
    return {"held": held / _MB, "peak": peak}


if __name__ == "__main__":
    print(json.dumps(_measure(SIZES[sys.argv[1]], sys.argv[2])))
