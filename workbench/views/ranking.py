"""Volumes and slices in the order of a metric, the worst first."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from workbench.recon.metrics import LEADING, METRICS, Scores, metrics_of
from workbench.recon.results import Result

if TYPE_CHECKING:
    from pandas import DataFrame


def orders() -> dict[str, tuple[Callable[[Result], Any], bool]]:
    """Return name -> what it takes of a result, and whether a small value is the worse one."""

    def metric(kind: str, name: str) -> Callable[[Result], float]:
        return lambda result: result.scores.get(kind, {}).get(name, math.nan)

    of = {each.name: each.higher_is_better for each in METRICS}
    return {
        **{name: (metric("reconstruction", name), high) for name, high in of.items()},
        "gain": (_gain, True),
        **{f"zero_filled_{name}": (metric("zero_filled", name), high) for name, high in of.items()},
        "acceleration": (lambda result: result.acceleration, False),
        "slices": (lambda result: result.slices, True),
        "acquisition": (lambda result: result.volume.acquisition, True),
        "volume": (lambda result: result.name, True),
    }


def _gain(result: Result) -> float:
    name = LEADING.name
    return result.reconstruction[name] - result.zero_filled[name] if result.scores else math.nan


@dataclass(frozen=True)
class RankedSlice:
    """A slice and its metrics; those that were not asked for are missing.

    Attributes:
        result: its volume's.
        number: slice number, 0 first.
        scores: its metrics, with the volume's largest target value as data range.
    """

    result: Result
    number: int
    scores: Scores


def check_order(sort_by: Any) -> tuple[str, bool]:
    """Read the parameter ``sort_by``: an order's name, with a minus before it for the best first.

    Returns:
        The name, and whether the order is turned round.

    Raises:
        ValueError: there is no such order.
    """
    text = sort_by.strip().lower() if isinstance(sort_by, str) else ""
    name = text.removeprefix("-")
    if name not in orders():
        raise ValueError(
            f"sort_by={sort_by!r}: give one of {', '.join(orders())}; a minus before it, such as "
            "-ssim, puts the best first"
        )
    return name, text.startswith("-")


def rank_volumes(results: Sequence[Result], sort_by: str = LEADING.name) -> list[Result]:
    """Return results in an order, the worst first, what is not finite before all."""
    name, turned = check_order(sort_by)
    of, ascending = orders()[name]
    return _ranked(results, of, ascending != turned)


def rank_slices(results: Sequence[Result], sort_by: str = LEADING.name) -> list[RankedSlice]:
    """Return the slices of scored results in an order, the worst first.

    Metrics other than SSIM are measured here, from images and targets. By an order that only
    volumes have, slices follow their volumes', and their SSIM within.
    """
    name, turned = check_order(sort_by)
    by_slice = name in {metric.name for metric in METRICS}
    metric = next((each for each in METRICS if each.name == name), LEADING)
    chosen = results if by_slice else rank_volumes(results, sort_by)
    groups = [_slices_of(result, measured=metric is not LEADING) for result in chosen]
    if by_slice:
        groups = [[each for group in groups for each in group]]
    ascending = metric.higher_is_better != turned
    return [
        each
        for group in groups
        for each in _ranked(group, lambda one: one.scores[metric.name], ascending)
    ]


def _slices_of(result: Result, *, measured: bool) -> list[RankedSlice]:
    """Return a result's slices with their SSIM, or measured with every metric."""
    targets = result.targets() if measured else None
    if targets is None:
        return [
            RankedSlice(result, number, {LEADING.name: value})
            for number, value in enumerate(result.slice_ssim)
            if not measured
        ]
    import torch

    from workbench.recon.scoring import score_slices

    pair = torch.from_numpy(result.images()), torch.from_numpy(targets)
    slices = score_slices(*pair, result.volume.path, 0, float(targets.max()))
    return [RankedSlice(result, each.slice, metrics_of([each.parts])) for each in slices]


def slice_table(slices: Sequence[RankedSlice], most: int = 20) -> "DataFrame":
    """Tabulate the first slices of a ranking."""
    from pandas import DataFrame

    rows = [
        {
            "volume": each.result.name,
            "slice": each.number,
            "acquisition": each.result.volume.acquisition,
            **{
                metric.heading: f"{each.scores[metric.name]:{metric.form}}"
                for metric in METRICS
                if metric.name in each.scores
            },
        }
        for each in slices[:most]
    ]
    table = DataFrame(rows, index=range(1, len(rows) + 1))
    table.index.name = f"of {len(slices):,}"
    return table


def _ranked(items: Sequence[Any], of: Callable[[Any], Any], ascending: bool) -> list[Any]:
    """Sort, with what is not a number first; equals keep their order."""

    def unknown(item: Any) -> bool:
        value = of(item)
        return isinstance(value, float) and math.isnan(value)

    known = sorted((item for item in items if not unknown(item)), key=of, reverse=not ascending)
    return [*filter(unknown, items), *known]
