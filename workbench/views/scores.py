"""Figures of scores: their spread over acquisitions, and two runs volume by volume."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.data.volume import short_names
from workbench.recon.metrics import LEADING, METRICS, Metric, Scores, mean_scores
from workbench.views.style import BLUE, COLOURS, GREY, LABEL, ORANGE, SMALL, new_figure, tidy

_BOX_FROM = 5


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
    names = _same_volumes(scores)
    kinds = acquisitions or {}
    groups: dict[str, list[str]] = {"all": names}
    found = sorted({kinds.get(name) or "unknown" for name in names})
    if len(found) > 1 or (acquisitions and found != ["unknown"]):
        split = {
            kind: [name for name in names if (kinds.get(name) or "unknown") == kind]
            for kind in found
        }
        groups = split if len(split) == 1 else groups | split
    if not title:
        leading = {name: mean_scores(part.values())[LEADING.name] for name, part in scores.items()}
        means = ", ".join(f"{name} {mean:{LEADING.short}}" for name, mean in leading.items())
        title = f"Mean {LEADING.label} of {_volumes(len(names))}: {means}" + _left_out(scores)
    figure = new_figure(
        len(METRICS) * max(3.2, 0.8 + 0.4 * len(groups) * len(scores)),
        4.2,
        title=title,
        synthetic=synthetic,
    )
    colours = dict(zip(scores, cycle((ORANGE, BLUE, *COLOURS[2:]))))
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    for axes, metric in zip(panels, METRICS, strict=True):
        for method_number, (method, part) in enumerate(scores.items()):
            offset = (method_number - (len(scores) - 1) / 2) * 0.8 / len(scores)
            for place, members in enumerate(groups.values()):
                _strip(
                    axes,
                    place + offset,
                    np.array([part[name][metric.name] for name in members]),
                    0.62 / len(scores),
                    colours[method],
                )
        axes.set_xticks(
            range(len(groups)),
            [f"{kind}\nn = {len(members)}" for kind, members in groups.items()],
            rotation=0 if len(groups) <= 4 else 30,
            ha="center",
        )
        axes.set_xlim(-0.6, len(groups) - 0.4)
        axes.set_title(metric.heading, fontsize=LABEL, loc="left")
        axes.set_title(metric.direction, fontsize=SMALL, loc="right", color=GREY)
        tidy(axes)
        if not metric.higher_is_better:  # an error: 0 is perfect
            axes.set_ylim(bottom=0)
    handles = [
        panels[0].plot([], [], "o", color=colour, label=method)[0]
        for method, colour in colours.items()
    ]
    figure.legend(
        handles=handles, loc="outside lower left", ncols=6, frameon=False, fontsize=SMALL + 0.5
    )
    panels[0].set_ylabel("dot: volume, box: quartiles, bar: mean", fontsize=SMALL, color=GREY)
    return figure


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
        names: of the two runs.
        acquisitions: volume -> acquisition, told apart by colour.
        title: the figure's message; the mean difference in SSIM by default.
        common: leave out volumes that only one run holds, and say so in the title.
        synthetic: whether any volume is a phantom.

    Raises:
        ValueError: there is no score, or the runs hold different volumes.
    """
    remarks = []
    if common:
        both = first.keys() & second.keys()
        for name, run in zip(names, (first, second), strict=True):
            if more := len(run) - len(both):
                are = "is" if more == 1 else "are"
                remarks.append(f"{_volumes(more)} of {name} alone {are} left out")
        first, second = ({v: run[v] for v in both} for run in (first, second))
    volumes = _same_volumes({"first": first, "second": second}, names)
    kinds = [(acquisitions or {}).get(volume) or "unknown" for volume in volumes]
    colours = dict(zip(sorted(set(kinds)), cycle(COLOURS)))
    pairs = {
        metric.name: [
            np.array([run[volume][metric.name] for volume in volumes]) for run in (first, second)
        ]
        for metric in METRICS
    }
    counts = {name: int((np.isfinite(x) & np.isfinite(y)).sum()) for name, (x, y) in pairs.items()}
    for metric in METRICS:
        if metric is not LEADING and counts[metric.name] < len(volumes):
            of = _of(counts[metric.name], len(volumes))
            remarks.append(f"{metric.label}: mean of {of} pairs")
    if not title:
        x, y = pairs[LEADING.name]
        change = _signed(x, y, LEADING.form)
        title = (
            f"{names[1]} against {names[0]}: {LEADING.label} {change} on average, "
            f"n = {_of(counts[LEADING.name], len(volumes))}"
        )
    if remarks:
        title += "\n" + "; ".join(remarks)
    figure = new_figure(3.5 * len(METRICS), 4.3, title=title, synthetic=synthetic)
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    for axes, metric in zip(panels, METRICS, strict=True):
        x, y = pairs[metric.name]
        _scatter(axes, x, y, kinds, colours)
        _name_pairs(axes, metric, x, y, names)
    if len(colours) > 1:
        _, *kinds_drawn = figure.axes[0].get_lines()  # behind the diagonal
        figure.legend(
            handles=kinds_drawn,
            loc="outside lower left",
            ncols=6,
            frameon=False,
            fontsize=SMALL + 0.5,
        )
    return figure


def _name_pairs(
    axes: Axes, metric: Metric, x: np.ndarray, y: np.ndarray, names: tuple[str, str]
) -> None:
    """Write a panel's message, its axes, and on which side of the diagonal the second is better."""
    wins = int((y > x).sum() if metric.higher_is_better else (y < x).sum())
    text = f"{metric.heading}: {_signed(x, y, metric.form)} on average"
    axes.set_title(f"{text}\n{names[1]} better in {wins} of {len(x)}", fontsize=LABEL, loc="left")
    axes.set_xlabel(names[0], fontsize=LABEL)
    axes.set_ylabel(names[1], fontsize=LABEL)
    high = metric.higher_is_better
    axes.text(
        *((0.04, 0.96) if high else (0.96, 0.04)),
        f"{names[1]} better",
        ha="left" if high else "right",
        va="top" if high else "bottom",
        transform=axes.transAxes,
        fontsize=SMALL,
        color=GREY,
    )


def _volumes(count: int) -> str:
    return "1 volume" if count == 1 else f"{count} volumes"


def _strip(axes: Axes, place: float, values: np.ndarray, width: float, colour: str) -> None:
    """Draw one group: its volumes side by side, their box, their mean."""
    values = values[np.isfinite(values)]
    if not values.size:
        return
    # Spread by rank, not by chance: the same scores always make the same figure.
    spread = (
        np.zeros(1)
        if values.size == 1
        else ((np.arange(values.size) * 0.618) % 1 - 0.5) * width * 0.7
    )
    axes.plot(
        place + spread,
        values,
        "o",
        color=colour,
        markersize=4.5 if values.size <= 60 else 2.2,
        alpha=0.75 if values.size <= 60 else 0.35,
        markeredgewidth=0,
    )
    if values.size >= _BOX_FROM:
        line = {"color": colour, "linewidth": 1.2}
        axes.boxplot(
            values,
            positions=[place],
            widths=width,
            showfliers=False,
            manage_ticks=False,
            boxprops=line,
            whiskerprops=line,
            capprops=line,
            medianprops=line,
        )
    if values.size > 1:
        axes.hlines(values.mean(), place - width / 2, place + width / 2, color="black", linewidth=2)


def _scatter(
    axes: Axes, x: np.ndarray, y: np.ndarray, kinds: Sequence[str], colours: Mapping[str, str]
) -> None:
    both = np.concatenate([x, y])
    both = both[np.isfinite(both)]
    low, high = (float(both.min()), float(both.max())) if both.size else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    limits = (low - room, high + room)
    axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=(0, (4, 3)))
    for kind, colour in colours.items():
        chosen = np.array([other == kind for other in kinds])
        axes.plot(
            x[chosen], y[chosen], "o", color=colour, markersize=5, alpha=0.8, mew=0, label=kind
        )
    axes.set(xlim=limits, ylim=limits, aspect="equal")
    axes.locator_params(nbins=5)
    tidy(axes)


def _signed(first: np.ndarray, second: np.ndarray, form: str) -> str:
    """Write the mean difference of the pairs that are finite, with a proper minus."""
    finite = np.isfinite(first) & np.isfinite(second)
    if not finite.any():
        return "no finite difference"
    return f"{np.mean(second[finite] - first[finite]):+{form}}".replace("-", "−")


def _of(finite: int, total: int) -> str:
    return f"{total}" if finite == total else f"{finite} of {total}"


def _left_out(scores: Mapping[str, Mapping[str, Scores]]) -> str:
    """Name the volumes that some method has no finite metric of, on lines of their own."""
    names = short_names(volume for part in scores.values() for volume in part)
    lines = []
    for method, part in scores.items():
        unscored = sum(not np.isfinite(each[LEADING.name]) for each in part.values())
        for metric in METRICS:
            broken = [names[v] for v, each in part.items() if not np.isfinite(each[metric.name])]
            if not broken or (metric is not LEADING and len(broken) == unscored):
                continue  # a volume without any metric is named once
            which = "not finite" if metric is LEADING else f"{metric.label} not finite"
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            lines.append(f"\n{which}, left out of {method}: {', '.join(broken[:3])}{more}")
    return "".join(lines)


def _same_volumes(
    scores: Mapping[str, Mapping[str, Scores]], names: Sequence[str] | None = None
) -> list[str]:
    """Return the volumes that all methods scored, sorted; refuse where they differ."""
    shown = names or list(scores)
    sets = [set(part) for part in scores.values()]
    if not sets or not any(sets):
        raise ValueError("there are no scores: give at least one volume")
    for name, volumes in zip(shown[1:], sets[1:], strict=True):
        if odd := sorted(sets[0] ^ volumes):
            raise ValueError(
                f"{shown[0]} and {name} scored different volumes, such as {', '.join(odd[:3])}: "
                "compare the same ones"
            )
    return sorted(sets[0])
