"""How the cost of training and of the dataset cache grows, as formulas.

A step of training on one slice of P k-space columns times rows, C coils and K cascades:

    seconds = fixed + P (K per_cascade + C (per_coil + K per_coil_and_cascade))

``per_cascade`` is the U-Net of a cascade on the coil-combined image, ``per_coil`` the sensitivity
net and what is done once to each coil, the last the data consistency of each cascade; ``fixed`` the
optimiser and what does not depend on the slice.

On N ranks a step takes as long as its dearest slice, and what remains visible of the exchange of
gradients: ring all-reduce moves 2 (N - 1) / N of their bytes over each link, hidden behind the
backward pass, two thirds of a step, but for the last bucket, which is complete only at its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

BACKWARD = 2 / 3
BUCKET_BYTES = 25e6
"""PyTorch's size of a bucket of gradients (``torch.nn.parallel.DistributedDataParallel``)."""


@dataclass(frozen=True)
class Step:
    """A step of training on one slice.

    Attributes:
        coils: number of coils.
        pixels: readout times phase encode.
        cascades: of the VarNet.
    """

    coils: int
    pixels: int
    cascades: int

    @property
    def terms(self) -> tuple[float, float, float, float]:
        """What each coefficient is multiplied by."""
        each = self.pixels * 1e-6
        of_coils = each * self.coils
        return 1.0, each * self.cascades, of_coils, of_coils * self.cascades


@dataclass(frozen=True)
class StepCost:
    """The coefficients, in seconds; all but ``fixed`` a million pixels."""

    fixed: float
    per_cascade: float
    per_coil: float
    per_coil_and_cascade: float

    def seconds(self, step: Step) -> float:
        """Return what a step takes."""
        coefficients = (
            *(self.fixed, self.per_cascade),
            *(self.per_coil, self.per_coil_and_cascade),
        )
        return float(np.dot(coefficients, step.terms))


def fit_steps(measured: Sequence[tuple[Step, float]]) -> StepCost:
    """Fit the coefficients, none below zero, to measured seconds, each by its relative error.

    Raises:
        ValueError: fewer than four different steps were measured.
    """
    from scipy.optimize import nnls

    if len({step for step, _ in measured}) < 4:
        raise ValueError("four coefficients need four different steps at least")
    seconds = np.array([each for _, each in measured])
    terms = np.array([step.terms for step, _ in measured])
    return StepCost(*map(float, nnls(terms / seconds[:, None], np.ones(len(seconds)))[0]))


def exchange(ranks: int, gradient_bytes: float, bytes_a_second: float) -> float:
    """Return the seconds of a ring all-reduce."""
    return 2 * (ranks - 1) / ranks * gradient_bytes / bytes_a_second


def visible_exchange(
    ranks: int, step: float, gradient_bytes: float, bytes_a_second: float
) -> float:
    """Return the seconds of an exchange that the backward pass does not hide."""
    whole = exchange(ranks, gradient_bytes, bytes_a_second)
    return max(whole - BACKWARD * step, whole * min(1.0, BUCKET_BYTES / gradient_bytes))


def waiting(costs: Sequence[float], ranks: int, *, balanced: bool, seed: int = 0) -> float:
    """Return how much longer than its mean slice a step takes, for its dearest one.

    Args:
        costs: of the slices of an epoch.
        ranks: slices in a step.
        balanced: slices of like cost share a step; else they come as shuffled.
        seed: of the shuffle.
    """
    shuffled = np.random.default_rng(seed).permutation(np.asarray(costs, float))
    steps = (np.sort(shuffled) if balanced else shuffled)[: len(shuffled) // ranks * ranks]
    return float(steps.reshape(-1, ranks).max(axis=1).sum() * ranks / steps.sum())


def efficiency(
    ranks: int, step: float, gradient_bytes: float, bytes_a_second: float, waits: float = 1.0
) -> float:
    """Return the share of ``ranks`` times one rank's speed that ``ranks`` ranks reach."""
    if ranks == 1:
        return 1.0
    return step / (step * waits + visible_exchange(ranks, step, gradient_bytes, bytes_a_second))


def cache_seconds(
    volumes: int, latency: float, work: float, *, requests: int = 2, at_a_time: int = 64
) -> float:
    """Return the seconds in which a dataset is indexed: waves of requests, and the work on them.

    Args:
        volumes: number of volumes.
        latency: seconds a request.
        work: seconds of a processor a volume.
        requests: a volume, one after the other.
        at_a_time: requests under way.
    """
    return -(-volumes // at_a_time) * requests * latency + volumes * work
