"""Whether two results differ by more than their spread over volumes: compared volume by volume."""

import math
from collections.abc import Sequence

import numpy as np
import pandas

from workbench.recon.metrics import METRICS
from workbench.recon.results import Results
from workbench.views.compared import common_volumes, labels_of

FEWEST = 6
"""Of fewer volumes the signed-rank test cannot say anything at the 5 % level, whatever they are."""
METHOD = (
    "Paired by volume: mean difference with its 95 % t-interval, and the p of Wilcoxon's "
    "signed-rank test, by Holm's method for all rows of a metric. Volumes count as independent; "
    "another seed of the training may differ by more."
)
_LEVEL = 0.05


def difference_table(sets: Sequence[Results]) -> pandas.DataFrame:
    """Compare the first of some results with each of the others, on the volumes that all have.

    Returns:
        A row for each of the others and each metric: "difference" (first minus other), "mean",
        "95 % interval", "p", "volumes" (with a finite value in both) and "says".
    """
    labels = labels_of(sets)
    first, *others = (each.scores("reconstruction") for each in common_volumes(sets))
    rows = []
    for metric in METRICS:
        found = []
        for other in others:
            pairs = [(first[name][metric.name], other[name][metric.name]) for name in first]
            found.append(np.array([a - b for a, b in pairs if math.isfinite(a - b)]))
        for label, differences, p in zip(
            labels[1:], found, _holm(list(map(_p, found))), strict=True
        ):
            mean, half = _interval(differences)
            rows.append(
                {
                    "difference": f"{labels[0]} − {label}",
                    "metric": metric.heading,
                    "mean": _signed(mean, metric.form),
                    "95 % interval": f"{_signed(mean - half, metric.form)} to "
                    f"{_signed(mean + half, metric.form)}",
                    "p": "–" if math.isnan(p) else f"{p:.3f}" if p >= 0.001 else "< 0.001",
                    "volumes": len(differences),
                    "says": _verdict(mean, half, p, len(differences), metric.higher_is_better),
                }
            )
    return pandas.DataFrame(rows)


def _verdict(mean: float, half: float, p: float, count: int, higher_is_better: bool) -> str:
    if count < FEWEST:
        return f"{count} volume{'s are' if count != 1 else ' is'} too few to tell"
    if p < _LEVEL and abs(mean) > half:
        better = (mean > 0) == higher_is_better
        return f"the first is {'better' if better else 'worse'}, beyond the spread over volumes"
    return "within the spread over volumes"


def _p(differences: np.ndarray) -> float:
    """Return the p of the signed-rank test; NaN of too few volumes."""
    from scipy.stats import wilcoxon

    if len(differences) < FEWEST:
        return math.nan
    return float(wilcoxon(differences).pvalue) if differences.any() else 1.0


def _holm(values: list[float]) -> list[float]:
    """Correct the p of several tests (Holm 1979): the smallest counts as often as there are."""
    adjusted, least = list(values), 0.0
    known = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    for rank, (p, place) in enumerate(known):
        least = adjusted[place] = max(least, min(1.0, p * (len(known) - rank)))
    return adjusted


def _interval(differences: np.ndarray) -> tuple[float, float]:
    """Return the mean, and half the width of its 95 % t-interval; NaN where there is none."""
    from scipy.stats import t

    count = len(differences)
    mean = float(differences.mean()) if count else math.nan
    if count < 2:
        return mean, math.nan
    return mean, float(t.ppf(0.975, count - 1) * differences.std(ddof=1) / math.sqrt(count))


def _signed(value: float, form: str) -> str:
    return "–" if math.isnan(value) else f"{value:+{form}}"
