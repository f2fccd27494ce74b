"""Volumes and slices in the order of a metric, the worst first, and tables of their scores.

``score_frame`` is the one table, a row a volume, that orders, tables and comparisons follow from.
"""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pandas

from workbench.recon.metrics import LEADING, METRICS, Metric, Scores, metrics_of, of_fewer
from workbench.recon.results import Result, Results
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

PREFIXES = {"zero_filled": "zero_filled_", "reconstruction": ""}
"""Kind of image -> what its metrics' columns begin with."""
EVERY = "all volumes"
"""Names the summary over acquisitions, whose own names are any text."""


def orders() -> dict[str, bool]:
    """Return the columns of ``score_frame``, and whether a small value is the worse one."""
    high = {metric.name: metric.higher_is_better for metric in METRICS}
    filled = {f"zero_filled_{name}": better for name, better in high.items()}
    known = {"acceleration": False, "slices": True, "acquisition": True, "volume": True}
    return high | {"gain": True} | filled | known


def score_frame(results: Iterable[Result]) -> pandas.DataFrame:
    """Return a row for each result, by its volume's path, with a column for each order.

    The reconstruction's metrics go by their names, "gain" is what the leading one gained over the
    zero-filled image. They are NaN without a target.
    """
    rows = {
        (place, each.volume.path): {
            "acceleration": each.acceleration,
            "slices": each.slices,
            "acquisition": each.volume.acquisition,
            "volume": each.name,
            **{
                f"{prefix}{metric.name}": each.scores.get(kind, {}).get(metric.name, math.nan)
                for kind, prefix in PREFIXES.items()
                for metric in METRICS
            },
        }
        for place, each in enumerate(results)
    }
    table = pandas.DataFrame(list(rows.values()), [path for _, path in rows])
    if rows:
        table["gain"] = table[LEADING.name] - table[f"zero_filled_{LEADING.name}"]
    return table.reindex(columns=list(orders()))


def check_order(sort_by: str) -> tuple[str, bool]:
    """Read the parameter ``sort_by``: an order's name, with a minus before it for the best first.

    Returns the name, and whether values ascend in that order; a ValueError lists the orders.
    """
    text = sort_by.strip().lower()
    name = text.removeprefix("-")
    if name not in orders():
        raise ValueError(
            f"sort_by={sort_by!r}: give one of {', '.join(orders())}; a minus before it, such as "
            "-ssim, puts the best first"
        )
    return name, orders()[name] != text.startswith("-")


def ranked(
    table: pandas.DataFrame, by: str | list[str], ascending: bool | list[bool]
) -> pandas.DataFrame:
    """Sort a table, with what is not a number first; equals keep their order."""
    return table.sort_values(by, ascending=ascending, na_position="first", kind="stable")


def rank_volumes(results: Sequence[Result], sort_by: str = LEADING.name) -> list[Result]:
    """Return results in an order, the worst first, what is not finite before all."""
    table = score_frame(results).reset_index(drop=True)
    return [results[place] for place in ranked(table, *check_order(sort_by)).index]


def rank_slices(results: Sequence[Result], sort_by: str = LEADING.name) -> pandas.DataFrame:
    """Return the slices of scored results, the worst first: "result", "slice" and metrics.

    Metrics other than SSIM are measured here, from images and targets, with the volume's largest
    target value as data range. By an order that only volumes have, slices follow their volumes',
    and their SSIM within.
    """
    name, ascending = check_order(sort_by)
    names = [metric.name for metric in METRICS]
    by_slice, measured = name in names, name in names and name != LEADING.name
    rows: list[dict[str, Any]] = []
    for place, result in enumerate(results if by_slice else rank_volumes(results, sort_by)):
        slices: Iterable[Scores] = ({LEADING.name: value} for value in result.slice_ssim)
        slices = _measured(result) if measured else slices
        rows += [
            {"place": place, "result": result, "slice": number, **scores}
            for number, scores in enumerate(slices)
        ]
    columns = ["place", "result", "slice", *(names if measured else [LEADING.name])]
    table = pandas.DataFrame(rows, columns=columns)
    if by_slice:
        return ranked(table, name, ascending)
    worst_first = not sort_by.strip().startswith("-")
    return ranked(table, ["place", LEADING.name], [True, worst_first])


def _measured(result: Result) -> list[Scores]:
    """Measure every metric of each slice of a volume that has a target."""
    targets = result.targets()
    if targets is None:
        return []
    import torch

    from workbench.recon.scoring import judged_slices

    pair = torch.from_numpy(result.images()), torch.from_numpy(targets)
    slices = judged_slices(*pair, result.volume.path)
    return [metrics_of([each.parts]) for each in slices]


def slice_table(slices: pandas.DataFrame, most: int = 20) -> pandas.DataFrame:
    """Tabulate the first slices of ``rank_slices``."""
    first = slices[:most]
    table = pandas.DataFrame(
        {
            "volume": [each.name for each in first["result"]],
            "slice": list(first["slice"]),
            "acquisition": [each.volume.acquisition for each in first["result"]],
            **{
                metric.heading: [metric.text(value) for value in first[metric.name]]
                for metric in METRICS
                if metric.name in first
            },
        },
        range(1, len(first) + 1),
    )
    table.index.name = f"of {len(slices):,}"
    return table


def score_table(results: Results, by: str = "volume", sort_by: str = LEADING.name) -> "Styler":
    """Return the metrics of zero-filled and reconstructed images as a table, the worst first.

    Volumes without a target come last, with "–" in place of metrics. By "acquisition" these are
    means, as ``mean_text`` writes them: "measured" says over how many of the volumes.
    """
    named = {("", name): name for name in ("volume", "acquisition", "slices", "acceleration")}
    for kind, label in results.labels.items():
        named |= {(label, each.heading): f"{PREFIXES[kind]}{each.name}" for each in METRICS}
    rest = [each for each in results if not each.scores]
    table = score_frame([*rank_volumes(results.scored, sort_by), *rest])[list(named.values())]
    table.columns = pandas.MultiIndex.from_tuples(named)
    forms = {each.heading: each.text for each in METRICS} | {"acceleration": "{:.2f}".format}
    forms = {column: forms[column[1]] for column in table if column[1] in forms}
    if by == "volume":
        return styled_table(table, forms, index=False)
    kinds = table["", "acquisition"]
    groups = [(kind, table[kinds == kind]) for kind in sorted(set(kinds))] + [(EVERY, table)]
    rows: list[dict[tuple[str, str], Any]] = []
    for _, part in groups:
        measured = int(part.index.isin(results.scored.acquisitions).sum())
        rate = f"{part['', 'acceleration'].mean():.2f}"
        counts = {("", "volumes"): len(part), ("", "measured"): measured}
        rows.append(counts | {("", "acceleration"): rate})
        for label in results.labels.values():
            for metric in METRICS:
                column = label, metric.heading
                rows[-1][column] = mean_text(metric, part[column], measured)
    shown = pandas.DataFrame(rows, pandas.Index([kind for kind, _ in groups], name="acquisition"))
    shown.columns = pandas.MultiIndex.from_tuples(list(shown.columns))
    return styled_table(shown)


def mean_text(
    metric: Metric, values: Iterable[float], measured: int, form: str | None = None
) -> str:
    """Write a metric's mean over volumes; of fewer than were measured with their number.

    A value that is not finite is in no mean.
    """
    finite = [value for value in values if math.isfinite(value)]
    mean = math.fsum(finite) / len(finite) if finite else math.nan
    return metric.text(mean, form) + of_fewer(len(finite), measured)
