"""Figures of scores: their spread over acquisitions, and two runs volume by volume."""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.data.volume import short_names
from workbench.progress import count_of
from workbench.recon.metrics import LEADING, METRICS
from workbench.recon.results import Results
from workbench.views.compared import labels_of, shared_volumes
from workbench.views.ranking import EVERY, PREFIXES, mean_text, score_frame
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


def spread_figure(results: Results) -> Figure:
    """Show how each metric spreads over the volumes of each acquisition, by kind of image.

    A dot is a volume, a box the middle half with the median (from 5 volumes on), a bar the mean.
    There has to be a volume with a target.
    """
    scored = results.scored
    methods = {label: _metrics(scored, kind) for kind, label in results.labels.items()}
    kinds = _acquisitions(scored)
    every, known = ~kinds.isna(), sorted(set(kinds))
    groups = [(kind, kinds == kind) for kind in known] if known != ["unknown"] else []
    groups = groups if len(groups) == 1 else [(EVERY, every), *groups]
    means = ", ".join(
        f"{name} {mean_text(LEADING, part[LEADING.name], len(part), LEADING.short)}"
        for name, part in methods.items()
    )
    title = f"Mean {LEADING.label} of {count_of(len(kinds))}: {means}" + _left_out(methods)
    wide = len(METRICS) * max(3.2, 0.8 + 0.4 * len(groups) * len(methods))
    figure = new_figure(wide, 4.2, title=title, synthetic=results.synthetic)
    colours = dict(zip(methods, (ORANGE, BLUE), strict=True))
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    ticks = [f"{kind}\nn = {members.sum()}" for kind, members in groups]
    for axes, metric in zip(panels, METRICS, strict=True):
        for number, (method, part) in enumerate(methods.items()):
            offset = (number - (len(methods) - 1) / 2) * 0.8 / len(methods)
            for place, (_, members) in enumerate(groups):
                values = part.loc[members, metric.name].to_numpy()
                _strip(axes, place + offset, values, 0.62 / len(methods), colours[method])
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


def _metrics(results: Results, kind: str) -> pandas.DataFrame:
    """Return the metrics of one kind of image, a row a volume, sorted."""
    names = [metric.name for metric in METRICS]
    table = score_frame(results)[[f"{PREFIXES[kind]}{name}" for name in names]]
    return table.set_axis(names, axis=1).sort_index()


def _acquisitions(results: Results) -> pandas.Series:
    """Return the acquisition of each volume, sorted by volume."""
    return score_frame(results)["acquisition"].sort_index().replace("", "unknown")


def against_figure(first: Results, second: Results) -> Figure:
    """Compare two results on the volumes that both have scored: each a dot, alike on the diagonal.

    A pair with a metric that is not finite enters no mean.

    Raises:
        ValueError: they cannot be told apart.
    """
    names = labels_of([first, second])
    both = shared_volumes([first, second])
    remarks = [
        f"{count_of(more)} of {name} alone {'is' if more == 1 else 'are'} left out"
        for name, run in zip(names, (first, second), strict=True)
        if (more := len(run.scored) - len(both))
    ]
    x, y = (_metrics(run.only(both), "reconstruction") for run in (first, second))
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
    said = f"{LEADING.label} {means[LEADING.name]}, n = {pairs[LEADING.name]}"
    title = f"{names[1]} against {names[0]}: {said}\n{'; '.join(remarks)}".strip()
    figure = new_figure(3.5 * len(METRICS), 4.3, title=title, synthetic=second.synthetic)
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    kinds = _acquisitions(second.only(both))
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
