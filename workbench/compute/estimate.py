"""How long a job will take on a cluster, and what it will cost, before it is sent."""

from collections.abc import Iterable
from dataclasses import dataclass

from workbench.compute.gpus import Machine
from workbench.compute.jobs import TrainingJob
from workbench.compute.runs import Run

NODES = (1, 2, 4, 8)
VALIDATION = 1 / 3
"""Work of a validation slice over that of a training slice: the backward pass is left out."""

# The 2021 toolbox's table for brain_multicoil, nodes of 4 P40 cards: an epoch of training and
# validation took 255, 133, 66 and 34 minutes on 1, 2, 4 and 8 nodes.
_EPOCH_MINUTES = {1: 255, 2: 133, 4: 66, 8: 34}
_P40_SECONDS = 255 * 60 * 4 / (70748 + 21842 * VALIDATION)


@dataclass(frozen=True)
class Pace:
    """What a card does.

    Attributes:
        seconds: for a training slice on one card.
        source: where the figure is from.
    """

    seconds: float
    source: str


P40_PACE = Pace(
    _P40_SECONDS,
    f"{_P40_SECONDS:.2f} s a slice on a P40 card, from the table of 2021 for the default network; "
    "newer cards are several times as fast",
)


@dataclass(frozen=True)
class Estimate:
    """What a job takes on some number of nodes.

    Attributes:
        nodes: number of machines.
        hours: wall time.
        efficiency: parallel efficiency that it assumes.
        dollars: what that time costs; None where no price is known.
    """

    nodes: int
    hours: float
    efficiency: float
    dollars: float | None


def efficiency(nodes: int) -> float:
    """Return the parallel efficiency that the table of 2021 shows; between its rows the lower."""
    below = max(count for count in _EPOCH_MINUTES if count <= nodes)
    above = min((count for count in _EPOCH_MINUTES if count >= nodes), default=max(_EPOCH_MINUTES))
    return min(_EPOCH_MINUTES[1] / (count * _EPOCH_MINUTES[count]) for count in (below, above))


def estimates(
    pace: Pace,
    machine: Machine,
    *,
    slices: tuple[int, int],
    epochs: int,
    once: int = 0,
    nodes: Iterable[int] = NODES,
    dollars: float | None = None,
) -> list[Estimate]:
    """Estimate time and cost of a job for several numbers of nodes.

    hours = (epochs x (training slices + validation slices / 3) + slices once / 3)
    x seconds a slice / (cards a node x nodes x efficiency)

    Args:
        pace: what a card does.
        machine: a node's GPUs.
        slices: training and validation slices of an epoch.
        epochs: number of epochs.
        once: slices that are reconstructed once, after the training.
        nodes: the numbers of nodes.
        dollars: what a node costs an hour; None where it is unknown.
    """
    done = epochs * (slices[0] + slices[1] * VALIDATION) + once * VALIDATION
    work = done * pace.seconds / 3600
    found = []
    for count in nodes:
        share = efficiency(count)
        hours = work / (max(machine.count, 1) * count * share)
        cost = None if dollars is None else hours * count * dollars
        found.append(Estimate(count, hours, share, cost))
    return found


def measured_pace(
    job: TrainingJob, runs: Iterable[tuple[Run, str, int, tuple[int, int]]], vm_size: str
) -> Pace | None:
    """Return what earlier runs of the same network took on the same machines; None without one.

    Args:
        job: what is to be trained.
        runs: earlier runs, each with its VM size, its ranks, and its training and validation
            slices.
        vm_size: the machines that it is to be trained on.
    """
    for run, size, ranks, (train, val) in runs:
        try:
            seconds = [row["seconds"] for row in run.metrics]
            same = all(
                getattr(run.job, name) == getattr(job, name)
                for name in ("network", "config", "precision")
            )
        except (ValueError, KeyError, OSError):  # a damaged run tells nothing
            continue
        if size == vm_size and same and seconds:
            pace = min(seconds) * ranks / (train + val * VALIDATION)
            return Pace(pace, f"{pace:.3f} s a slice, measured in {run.folder.name} on {vm_size}")
    return None
