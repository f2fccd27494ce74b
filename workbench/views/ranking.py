"""Volumes and slices in the order of a metric, the worst first, and tables of their scores.

``score_frame`` is the one table, a row a volume, that orders, tables and comparisons follow from.
"""

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from workbench.recon.metrics import LEADING, METRICS, Scores, metrics_of
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

    from workbench.recon.scoring import score_slices

    pair = torch.from_numpy(result.images()), torch.from_numpy(targets)
    slices = score_slices(*pair, result.volume.path, 0, float(targets.max()))
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
    means: "measured" says over how many of the volumes, and a mean over fewer of them, because a
    metric is not finite, is named below.
    """
    named = {("", name): name for name in ("volume", "acquisition", "slices", "acceleration")}
    for kind, label in results.labels.items():
        named |= {(label, each.heading): f"{PREFIXES[kind]}{each.name}" for each in METRICS}
    rest = [each for each in results if not each.scores]
    table = score_frame([*rank_volumes(results.scored, sort_by), *rest])[list(named.values())]
    table.columns = pandas.MultiIndex.from_tuples(named)
    if by == "volume":
        return styled_table(table, score_formats(table), index=False)
    kinds = table["", "acquisition"]
    groups = [(kind, table[kinds == kind]) for kind in sorted(set(kinds))] + [(EVERY, table)]
    rows, remarks = [], []
    for kind, part in groups:
        metrics = part.drop(columns=[("", name) for name in ("volume", "acquisition", "slices")])
        finite = metrics.replace([np.inf, -np.inf], np.nan)
        measured = int(part.index.isin(results.scored.acquisitions).sum())
        counts = {("", "volumes"): len(part), ("", "measured"): measured}
        rows.append(counts | finite.mean().to_dict())
        remarks += [
            f"{' '.join(column)}, {kind}: mean of {count} of {measured} volumes, the rest is not "
            "finite"
            for column, count in finite.count().items()
            if column[0] and count < measured
        ]
    shown = pandas.DataFrame(rows, pandas.Index([kind for kind, _ in groups], name="acquisition"))
    shown.columns = pandas.MultiIndex.from_tuples(list(shown.columns))
    style = styled_table(shown, score_formats(shown))
    return style.set_caption(escape("; ".join(remarks))) if remarks else style


def score_formats(table: pandas.DataFrame) -> dict[tuple[str, str], Any]:
    """Return the formats of a table's columns (kind, metric) and of its acceleration."""
    forms = {each.heading: each.text for each in METRICS} | {"acceleration": "{:.2f}".format}
    return {column: forms[column[1]] for column in table if column[1] in forms}
