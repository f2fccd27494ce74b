"""Figures of scores: their spread over acquisitions, and two runs volume by volume."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.data.volume import short_names
from workbench.progress import count_of
from workbench.recon.metrics import LEADING, METRICS, Scores, of_fewer
from workbench.recon.results import Results
from workbench.views.style import (
    BLUE,
    COLOURS,
    GREY,
    ORANGE,
    SMALL,
    Look,
    add_key,
    frame,
    new_figure,
)

_BOX_FROM = 5
EVERY = "all volumes"
"""Names the summary over acquisitions, whose own names are any text."""


def spread_figure(results: Results) -> Figure:
    """Show how the metrics spread over volumes and acquisitions, zero-filled and reconstructed."""
    return scores_figure(
        {label: results.scores(kind) for kind, label in results.labels.items()},
        results.acquisitions,
        synthetic=results.synthetic,
    )


def scores_figure(
    scores: Mapping[str, Mapping[str, Scores]],
    acquisitions: Mapping[str, str] | None = None,
    *,
    title: str = "",
    synthetic: bool = False,
) -> Figure:
    """Show how each metric spreads over the volumes of each acquisition.

    A dot is a volume, a box the middle half with the median (from 5 volumes on), a bar the mean.

    Args:
        scores: method, such as "zero-filled" -> volume -> its metrics.
        acquisitions: volume -> acquisition; without it all volumes stand together.
        title: the figure's message; the mean SSIM of each method by default.
        synthetic: whether any volume is a phantom.

    Raises:
        ValueError: there is no score, or the methods scored different volumes.
    """
    methods = _same_volumes(scores)
    volumes = next(iter(methods.values())).index
    kinds = volumes.map(lambda volume: (acquisitions or {}).get(volume) or "unknown")
    groups = [(kind, volumes[kinds == kind]) for kind in sorted(set(kinds))]
    if len(groups) > 1 or not acquisitions or groups[0][0] == "unknown":
        groups = [(EVERY, volumes), *(groups if len(groups) > 1 else ())]
    if not title:
        means = ", ".join(f"{name} {_mean(part[LEADING.name])}" for name, part in methods.items())
        title = f"Mean {LEADING.label} of {count_of(len(volumes))}: {means}" + _left_out(methods)
    wide = len(METRICS) * max(3.2, 0.8 + 0.4 * len(groups) * len(scores))
    figure = new_figure(wide, 4.2, title=title, synthetic=synthetic)
    colours = dict(zip(scores, cycle((ORANGE, BLUE, *COLOURS[2:]))))
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    ticks = [f"{kind}\nn = {len(members)}" for kind, members in groups]
    for axes, metric in zip(panels, METRICS, strict=True):
        for number, (method, part) in enumerate(methods.items()):
            offset = (number - (len(scores) - 1) / 2) * 0.8 / len(scores)
            for place, (_, members) in enumerate(groups):
                values = part.loc[members, metric.name].to_numpy()
                _strip(axes, place + offset, values, 0.62 / len(scores), colours[method])
        turn = 0 if len(groups) <= 4 else 30
        axes.set_xticks(range(len(groups)), ticks, rotation=turn, ha="center")
        axes.set_xlim(-0.6, len(groups) - 0.4)
        frame(axes, metric.heading, right=metric.direction)
        if not metric.higher_is_better:  # an error: 0 is perfect
            axes.set_ylim(bottom=0)
    panels[0].set_ylabel("dot: volume, box: quartiles, bar: mean", fontsize=SMALL, color=GREY)
    dots = (panels[0].plot([], [], "o", color=colours[name], label=name) for name in methods)
    add_key(figure, [dot for (dot,) in dots])
    return figure


def _mean(values: pandas.Series) -> str:
    """Write the leading metric's mean, and over how many volumes where not all have it."""
    finite = values[np.isfinite(values)]
    return LEADING.text(finite.mean(), LEADING.short) + of_fewer(len(finite), len(values))


def _strip(axes: Axes, place: float, values: np.ndarray, width: float, colour: str) -> None:
    """Draw one group: its volumes side by side, their box, their mean."""
    values = values[np.isfinite(values)]
    few = values.size <= 60
    # Spread by rank, not by chance: the same scores always make the same figure.
    spread = ((np.arange(values.size) * 0.618) % 1 - 0.5) * width * 0.7 * (values.size > 1)
    look: Look = {"markersize": 4.5, "alpha": 0.75} if few else {"markersize": 2.2, "alpha": 0.35}
    axes.plot(place + spread, values, "o", color=colour, markeredgewidth=0, **look)
    if values.size >= _BOX_FROM:
        line: Look = {"color": colour, "linewidth": 1.2}
        parts: Look = dict.fromkeys(("boxprops", "whiskerprops", "capprops", "medianprops"), line)
        where: Look = {"positions": [place], "widths": width, "manage_ticks": False}
        axes.boxplot(values, showfliers=False, **where, **parts)
    if values.size > 1:
        axes.hlines(values.mean(), place - width / 2, place + width / 2, color="black", linewidth=2)


def _left_out(methods: Mapping[str, pandas.DataFrame]) -> str:
    """Name the volumes that some method has no finite metric of, on lines of their own."""
    lines = ""
    for method, part in methods.items():
        names = short_names(part.index)
        unscored = int((~np.isfinite(part[LEADING.name])).sum())
        for metric in METRICS:
            broken = [names[volume] for volume in part.index[~np.isfinite(part[metric.name])]]
            if not broken or (metric is not LEADING and len(broken) == unscored):
                continue  # a volume without any metric is named once
            which = "not finite" if metric is LEADING else f"{metric.label} not finite"
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            lines += f"\n{which}, left out of {method}: {', '.join(broken[:3])}{more}"
    return lines


def _same_volumes(scores: Mapping[str, Mapping[str, Scores]]) -> dict[str, pandas.DataFrame]:
    """Return each method's scores with a row a volume, sorted; a ValueError if volumes differ."""
    if not any(scores.values()):
        raise ValueError("there are no scores: give at least one volume")
    names = [metric.name for metric in METRICS]
    tables = {
        method: pandas.DataFrame.from_dict(part, "index").reindex(columns=names).sort_index()
        for method, part in scores.items()
    }
    (first, known), *others = tables.items()
    for method, table in others:
        if odd := sorted(known.index.symmetric_difference(table.index)):
            raise ValueError(
                f"{first} and {method} scored different volumes, such as {', '.join(odd[:3])}: "
                "compare the same ones"
            )
    return tables


def against_figure(results: Results, others: Results, names: tuple[str, str]) -> Figure:
    """Compare with another run's results, named first, on the volumes that both have scored."""
    return comparison_figure(
        others.scores("reconstruction"),
        results.scores("reconstruction"),
        names=names,
        acquisitions=results.acquisitions,
        common=True,
        synthetic=results.synthetic,
    )


def comparison_figure(
    first: Mapping[str, Scores],
    second: Mapping[str, Scores],
    *,
    names: tuple[str, str],
    acquisitions: Mapping[str, str] | None = None,
    title: str = "",
    common: bool = False,
    synthetic: bool = False,
) -> Figure:
    """Compare two runs on the same volumes: each dot a volume, the diagonal no difference.

    A pair with a metric that is not finite enters no mean.

    Args:
        first: volume -> its metrics, of one run.
        second: of the other, the same volumes; with ``common``, others too.
        names: of the two runs, not alike.
        acquisitions: volume -> acquisition, told apart by colour.
        title: the figure's message; the mean difference in SSIM by default.
        common: leave out volumes that only one run holds, and say so in the title.
        synthetic: whether any volume is a phantom.

    Raises:
        ValueError: there is no score, the runs hold different volumes, or have one name.
    """
    if names[0] == names[1]:
        raise ValueError(f"both runs are called {names[0]!r}: give names that tell them apart")
    runs, remarks = dict(zip(names, (first, second), strict=True)), []
    if common:
        both = first.keys() & second.keys()
        for name, run in runs.items():
            if more := len(run) - len(both):
                are = "is" if more == 1 else "are"
                remarks.append(f"{count_of(more)} of {name} alone {are} left out")
            runs[name] = {volume: run[volume] for volume in both}
    x, y = _same_volumes(runs).values()
    change = (y - x).where(np.isfinite(x) & np.isfinite(y))
    means = {
        metric.name: f"{change[metric.name].mean():+{metric.form}} on average".replace("-", "−")
        if change[metric.name].notna().any()
        else "no finite difference"
        for metric in METRICS
    }
    total, counts = len(x), change.count()
    pairs = {name: f"{n}" if n == total else f"{n} of {total}" for name, n in counts.items()}
    remarks += [
        f"{metric.label}: mean of {pairs[metric.name]} pairs"
        for metric in METRICS
        if metric is not LEADING and counts[metric.name] < total
    ]
    if not title:
        said = f"{LEADING.label} {means[LEADING.name]}, n = {pairs[LEADING.name]}"
        title = f"{names[1]} against {names[0]}: {said}"
    title = "\n".join(filter(None, (title, "; ".join(remarks))))
    figure = new_figure(3.5 * len(METRICS), 4.3, title=title, synthetic=synthetic)
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    kinds = x.index.map(lambda volume: (acquisitions or {}).get(volume) or "unknown")
    colours = dict(zip(sorted(set(kinds)), cycle(COLOURS)))
    for axes, metric in zip(panels, METRICS, strict=True):
        both_values = pandas.concat([x[metric.name], y[metric.name]])
        known = both_values[np.isfinite(both_values)]
        low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
        room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
        limits = (low - room, high + room)
        axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
        for kind, colour in colours.items():
            places = (table.loc[kinds == kind, metric.name] for table in (x, y))
            dots: Look = {"color": colour, "markersize": 5, "alpha": 0.8, "mew": 0, "label": kind}
            axes.plot(*places, "o", **dots)
        axes.set(xlim=limits, ylim=limits, aspect="equal")
        axes.locator_params(nbins=5)
        up = metric.higher_is_better
        wins = (y > x if up else y < x)[metric.name].sum()
        known_pairs = (x.notna() & y.notna())[metric.name].sum()
        side = "above" if up else "below"
        text = f"{metric.heading}: {means[metric.name]}\nbetter ({side} the line) in {wins} of "
        frame(axes, f"{text}{known_pairs}", x=names[0], y=names[1])
    if len(colours) > 1:
        add_key(figure, panels[0].get_lines()[1:])  # behind the diagonal
    return figure
