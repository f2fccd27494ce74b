"""Whether training grows: ``python -m benchmarks.soak [STEPS]``, 2,000 steps on varied shapes.

A small network trains on random slices of many widths and coil counts, and reads a file each step
as a dataset does. Memory and open files are sampled; the command ends with 1 where, after the
first half has met every shape, memory grows by more than 2 % or files stay open.
"""

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

ALLOWED = 0.02
_WIDTHS = tuple(range(32, 72, 4))
_COILS = (1, 2, 3, 4, 5, 6, 8, 10)


@dataclass(frozen=True)
class Sample:
    """What the process holds after a step: resident memory in MB, and open files."""

    step: int
    memory: float
    files: int


def soak(steps: int, samples: int = 20) -> list[Sample]:
    """Train, and sample as it goes."""
    import h5py
    import torch

    from benchmarks.memory import give_back, resident
    from benchmarks.networks import TrainingStep, device
    from workbench.models import VarNet

    torch.manual_seed(0)
    network = VarNet(num_cascades=2, chans=4, pools=3, sens_chans=4, sens_pools=3)
    network.to(device())
    random, found = Random(0), []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "slices.h5")
        with h5py.File(path, "w") as file:
            file["scale"] = [1.0] * 8
        step = TrainingStep(network, (4, 48, 48), 24)
        for number in range(1, steps + 1):
            shape = random.choice(_COILS), random.choice((48, 64, 80)), random.choice(_WIDTHS)
            with h5py.File(path) as file:
                scale = float(file["scale"][number % 8])
            network.low_memory = number % 4 == 0
            step.measure(shape, scale)
            step()
            if number % max(1, steps // samples) == 0:
                give_back()
                found.append(Sample(number, resident(), _open_files()))
                print(_row(found[-1]), flush=True)
    return found


def growth(samples: Sequence[Sample]) -> tuple[float, int]:
    """Return how memory (a share) and open files have grown since the first half.

    The least of the last quarter is held against the most of the second: an allocator's ups and
    downs are no growth, a leak lifts the floor above the old ceiling.
    """
    quarter = max(1, len(samples) // 4)
    before, after = samples[quarter : 2 * quarter], samples[-quarter:]
    memory = min(s.memory for s in after) / max(s.memory for s in before) - 1
    return memory, min(s.files for s in after) - max(s.files for s in before)


def _row(sample: Sample) -> str:
    return f"| {sample.step} | {sample.memory:.1f} MB | {sample.files} |"


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def main() -> int:
    """Print the table; return 1 where it grows."""
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    if steps < 8:
        print(f"{steps} steps: give 8 or more", file=sys.stderr)
        return 2
    print("| step | resident | open files |\n| ---: | ---: | ---: |")
    memory, files = growth(soak(steps))
    grows = memory > ALLOWED or files > 0
    print(f"\nmemory {memory:+.2%}, open files {files:+d}: {'it GROWS' if grows else 'flat'}")
    return int(grows)


if __name__ == "__main__":
    sys.exit(main())
