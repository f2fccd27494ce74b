"""What a reconstruction of a split looks like: tables, distributions, best and worst slices."""

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.data.images import cropped
from workbench.recon.metrics import LEADING, METRICS
from workbench.recon.results import Result, Results
from workbench.views.kspace import kspace_and_mask_figure
from workbench.views.ranking import rank_volumes
from workbench.views.reconstructions import contact_sheet, reconstruction_figure
from workbench.views.scores import comparison_figure, scores_figure
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame
    from pandas.io.formats.style import Styler


def score_table(results: Results, by: str = "volume", sort_by: str = LEADING.name) -> "Styler":
    """Return the metrics of zero-filled and reconstructed images as a table, the worst first.

    Args:
        results: those with a target count.
        by: "volume", or "acquisition" for the means over volumes.
        sort_by: the order, see ``workbench.views.ranking``.

    Raises:
        ValueError: there is no such order.
    """
    import pandas

    rows = []
    for result in rank_volumes(results.scored, sort_by):
        row: dict[tuple[str, str], object] = {
            ("", "volume"): result.name,
            ("", "acquisition"): result.volume.acquisition,
            ("", "slices"): result.slices,
            ("", "acceleration"): result.acceleration,
        }
        for kind, label in results.labels.items():
            row |= {(label, each.heading): result.scores[kind][each.name] for each in METRICS}
        rows.append(row)
    table = pandas.DataFrame(rows)
    table.columns = pandas.MultiIndex.from_tuples(table.columns)
    remarks: list[str] = []
    if by == "acquisition":
        table, remarks = _means_by_acquisition(table)
    style = styled_table(table, score_formats(table), index=by == "acquisition")
    return style.set_caption(escape("; ".join(remarks))) if remarks else style


def score_formats(table: "DataFrame") -> dict[tuple[str, str], str]:
    """Return the formats of a table's columns (kind, metric) and of its acceleration."""
    forms = {each.heading: f"{{:{each.form}}}" for each in METRICS} | {"acceleration": "{:.2f}"}
    return {column: forms[column[1]] for column in table if column[1] in forms}


def _means_by_acquisition(table: "DataFrame") -> tuple["DataFrame", list[str]]:
    """Form means over volumes; say which are over fewer, because a metric is not finite."""
    finite = table.where(~table.isin([math.inf, -math.inf]))  # NaN enters no mean
    group = finite.groupby([("", "acquisition")])
    means = group.mean(numeric_only=True).drop(columns=[("", "slices")])
    means.insert(0, ("", "volumes"), group.size())
    means.loc["all"] = finite.mean(numeric_only=True)
    means.loc["all", ("", "volumes")] = len(table)
    counts = group.count()
    counts.loc["all"] = finite.count()
    remarks = [
        f"{' '.join(column)}, {kind}: mean of {counts.loc[kind, column]} of "
        f"{means.loc[kind, ('', 'volumes')]:.0f} volumes, the rest is not finite"
        for column in means
        if column[0]
        for kind in means.index
        if counts.loc[kind, column] < means.loc[kind, ("", "volumes")]
    ]
    means = means.astype({("", "volumes"): int})
    means.index.name = "acquisition"
    return means, remarks


def spread_figure(results: Results) -> "Figure":
    """Show how the metrics spread over volumes and acquisitions, zero-filled and reconstructed."""
    return scores_figure(
        {label: results.scores(kind) for kind, label in results.labels.items()},
        results.acquisitions,
        synthetic=results.synthetic,
    )


def against_figure(results: Results, others: Results, names: tuple[str, str]) -> "Figure":
    """Compare with another run's results on the volumes that both have scored.

    Args:
        results: the results.
        others: the other run's.
        names: of the other and of this one.

    Raises:
        ValueError: there is no volume that both have scored.
    """
    return comparison_figure(
        others.scores("reconstruction"),
        results.scores("reconstruction"),
        names=names,
        acquisitions=results.acquisitions,
        common=True,
        synthetic=results.synthetic,
    )


def extreme_slices(results: Sequence[Result]) -> list[tuple[str, Result, int]]:
    """Return the best, the middle and the worst slice by SSIM, each with its volume.

    A slice that has no SSIM because it is not finite comes before them, the first of each volume.
    """
    every = [
        (ssim, result.volume.path, number, result)
        for result in results
        for number, ssim in enumerate(result.slice_ssim)
    ]
    ranked = sorted((each for each in every if math.isfinite(each[0])), key=lambda each: each[:3])
    broken: dict[Path, tuple[str, Result, int]] = {}
    for ssim, _, number, result in every:
        if not math.isfinite(ssim):
            broken.setdefault(result.path, ("not finite: first such slice", result, number))
    places = {"best": -1, "median": len(ranked) // 2, "worst": 0} if ranked else {}
    chosen = [(f"{kind} slice", ranked[at][3], ranked[at][2]) for kind, at in places.items()]
    return [*broken.values(), *chosen]


def slice_views(result: Result, number: int, title: str) -> Iterator["Figure"]:
    """Show a slice beside its target, and its k-space and mask.

    Yields:
        Images with errors and SSIM maps, then k-space and mask.
    """
    volume = result.volume
    title = f"{title}: {result.name}, slice {number}, {volume.acquisition}"
    kspace, target = result.measured(number)
    filled, image = cropped(result.zero_fill(kspace), result.image(number))
    if target is None:
        labels = ["zero-filled", result.label]
        yield contact_sheet([filled, image], labels, title=title, synthetic=volume.synthetic)
    else:
        target, filled, image = cropped(target, filled, image)
        yield reconstruction_figure(
            target,
            filled,
            {result.label: image},
            title=title,
            data_range=volume.largest or None,
            synthetic=volume.synthetic,
        )
    mask, low = result.mask()
    yield kspace_and_mask_figure(
        kspace, mask, low_frequencies=low, acquired=volume.acquired, synthetic=volume.synthetic
    )


def sheet_figure(result: Result) -> "Figure":
    """Show every slice of a reconstructed volume."""
    images = result.images()
    ssim = [f": {LEADING.label} {value:{LEADING.short}}" for value in result.slice_ssim]
    labels = [f"{number}{text}" for number, text in enumerate(ssim or [""] * len(images))]
    title = f"{result.name}, {result.volume.acquisition}: every slice"
    return contact_sheet(images, labels, title=title, synthetic=result.volume.synthetic)
