"""Runs, accelerations and masks side by side: any folders of results, by their names."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.compute.evaluation import FOLDER, ORDER
from workbench.compute.jobs import run_folder
from workbench.recon.metrics import METRICS
from workbench.recon.results import KINDS, Results
from workbench.views.ranking import check_order
from workbench.views.style import COLOURS, GREY, LABEL, SMALL, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

Means = dict[tuple[str, str], tuple[float, int]]
"""(kind, metric) -> the mean, and over how many volumes."""


def labels_of(sets: Sequence[Results]) -> list[str]:
    """Return a label for each set: its run, and what else tells it from the others.

    The rest is whichever differs of mask, acceleration and centre fraction, and the weights where
    sets of one run were made with several. No two labels are alike.
    """
    several = _runs_with_several_weights(sets)
    parts = []
    for each in sets:
        sampling = each.order.sampling
        mask, rates, centres = "own masks", "", ""
        if sampling:
            mask, rates = sampling.mask, ", ".join(f"{r:g}x" for r in sampling.accelerations)
            centres = "centre " + ", ".join(f"{f:g}" for f in sampling.center_fractions)
        weights = f"weights {each.weights}" if each.run in several else ""
        parts.append((each.run, each.order.split, mask, rates, centres, weights))
    differ = [0, *(n for n in range(1, 6) if len({part[n] for part in parts}) > 1)]
    labels = [", ".join(part[n] for n in differ if part[n]) for part in parts]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{each.name}, {each.weights}" if each.run in several else each.name for each in sets]


def _runs_with_several_weights(sets: Sequence[Results]) -> set[str]:
    made = {(each.run, each.order.weights_sha256) for each in sets}
    runs = [run for run, _ in made]
    return {run for run in runs if runs.count(run) > 1}


def results_of_run(run: str) -> list[Path]:
    """Return the folders of a run's results, sorted by name."""
    found = (run_folder(run, "compare") / FOLDER).glob(f"*/{ORDER}")
    return sorted(path.parent for path in found)


def find_compared(compare: str | None, folder: Path) -> list[Results]:
    """Read the parameter ``compare``: results to set beside others.

    Each part, with commas between them, is a run's name, ``RUN``, for its results of the same split
    and mask; or ``RUN@WHAT``, where WHAT picks others by what their folder's name holds:
    ``knee@8x``, ``knee@random``, ``knee@random-8x``. All that fit are taken.

    Args:
        compare: the parameter.
        folder: of the results that they are set beside, whose name begins with the split.

    Raises:
        ValueError: it is no text.
        FileNotFoundError: there is nothing that fits; the message says what there is.
    """
    if compare is None:
        return []
    if not isinstance(compare, str) or not compare.strip(" ,"):
        raise ValueError(f"compare={compare!r}: give runs, such as other_run or knee@8x")
    parts = filter(None, (part.strip() for part in compare.split(",")))
    found = dict.fromkeys(each for part in parts for each in _folders(part, folder.name))
    found.pop(folder, None)
    return [Results(each) for each in found]


def _folders(part: str, own: str) -> list[Path]:
    run, _, what = part.partition("@")
    there, split = results_of_run(run), own.split("-")[0]
    if not what:
        found = [folder for folder in there if folder.name == own]
    else:
        wanted = set(re.split(r"[-@]", what))
        of_split = [folder for folder in there if folder.name.split("-")[0] == split]
        found = [f for f in of_split if f.name == what or wanted <= set(f.name.split("-"))]
    if not found:
        names = ", ".join(f"{run}@{folder.name}" for folder in there)
        advice = f"it has {names}" if names else f"{run} has no results"
        raise FileNotFoundError(
            f"compare={part!r}: nothing of split {split} fits; {advice}. "
            "Run this notebook for what is missing"
        )
    return found


def common_volumes(sets: Sequence[Results]) -> list[Results]:
    """Cut sets down to the volumes that all of them have scored.

    Raises:
        ValueError: there is none.
    """
    every = [set(each.scored.acquisitions) for each in sets]
    common = set.intersection(*every) if every else set()
    if not common:
        raise ValueError(
            f"the results have no volume with a target in common: {', '.join(labels_of(sets))}"
        )
    return [each.only(common) for each in sets]


def left_out_of_comparison(sets: Sequence[Results]) -> str:
    """Say which sets have scored more volumes than those that all have; "" where none has.

    Raises:
        ValueError: there is no volume that all have scored.
    """
    count = len(common_volumes(sets)[0])
    more = [
        f"{label} has {len(each.scored)}"
        for label, each in zip(labels_of(sets), sets, strict=True)
        if len(each.scored) > count
    ]
    only = "the 1 volume" if count == 1 else f"the {count} volumes"
    return f"Compared on {only} that all have scored: {', '.join(more)}." if more else ""


def _means(sets: Sequence[Results]) -> list[Means]:
    """Form means of sets of the same volumes.

    A volume whose metric is not finite in one set is left out of that metric's mean in all of them.
    """
    means: list[Means] = [{} for _ in sets]
    for kind in KINDS:
        scores = [each.scores(kind) for each in sets]
        for metric in METRICS:
            values = np.array(
                [[each[volume][metric.name] for volume in sorted(each)] for each in scores]
            )
            known = values[:, np.isfinite(values).all(axis=0)]
            for row, mean in zip(known, means, strict=True):
                count = len(row)
                mean[kind, metric.name] = math.fsum(row) / count if count else math.nan, count
    return means


def comparison_table(sets: Sequence[Results], sort_by: str = "ssim") -> "DataFrame":
    """Tabulate sets of results by run and acceleration: means over the volumes that all have.

    A mean over fewer volumes than the column "volumes" says, because a metric is not finite, has
    their number beside it.

    Raises:
        ValueError: there is no such order, or no volume that all have.
    """
    from pandas import DataFrame, MultiIndex

    name, _ = check_order(sort_by)
    sets = sorted(common_volumes(sets), key=lambda one: (one.acceleration, one.name))
    means, several = _means(sets), _runs_with_several_weights(sets)
    if ("reconstruction", name) in means[0]:
        by = [np.nan_to_num(mean["reconstruction", name][0]) for mean in means]
        order = sorted(range(len(sets)), key=by.__getitem__)
        sets, means = [sets[n] for n in order], [means[n] for n in order]
    alike = len({(each.run, str(each.order), each.weights) for each in sets}) < len(sets)
    rows = []
    for each, mean in zip(sets, means, strict=True):
        total = len(each)
        row: dict[tuple[str, str], object] = {
            ("", "run"): each.name if alike else each.run,
            **({("", "weights"): each.weights} if several else {}),
            ("", "sampling"): str(each.order),
            ("", "true acceleration"): f"{each.acceleration:.2f}",
            ("", "volumes"): total,
        }
        for kind, label in _labels(sets).items():
            for metric in METRICS:
                value, count = mean[kind, metric.name]
                only = "" if count == total else f" (of {count})"
                row[label, metric.heading] = f"{value:{metric.form}}{only}"
        rows.append(row)
    table = DataFrame(rows)
    table.columns = MultiIndex.from_tuples(table.columns)
    return table


def _labels(sets: Sequence[Results]) -> dict[str, str]:
    """Return what to call each kind in a table of several networks."""
    if len({each.labels["reconstruction"] for each in sets}) == 1:
        return sets[0].labels
    return sets[0].labels | {"reconstruction": "reconstruction"}


def acceleration_figure(sets: Sequence[Results]) -> "Figure":
    """Plot each mean metric over the true acceleration, a line a run, zero-filled dashed.

    Raises:
        ValueError: there is no volume that all have.
    """
    left_out = left_out_of_comparison(sets)
    sets = common_volumes(sets)
    means, count = _means(sets), len(sets[0])
    volumes = "1 volume" if count == 1 else f"{count} volumes"
    title = f"The faster the scan, the less is left: {len(sets)} results on the same {volumes}"
    notes = [left_out] if left_out else []
    for metric in METRICS:
        least = min(means[0][kind, metric.name][1] for kind in KINDS)
        if least < count:
            notes.append(f"{metric.heading}: mean of {least}, the rest is not finite")
    figure = new_figure(
        3.5 * len(METRICS),
        4.1,
        title="\n".join((title, *notes)),
        synthetic=any(each.synthetic for each in sets),
    )
    panels = figure.subplots(1, len(METRICS), squeeze=False)[0]
    lines = _lines_of(sets)
    for axes, metric in zip(panels, METRICS, strict=True):
        for number, (line, members) in enumerate(lines.items()):
            colour = COLOURS[(number + 1) % len(COLOURS)] if number else COLOURS[0]
            for kind, style, alpha, fill in (
                ("reconstruction", "o-", 1.0, colour),
                ("zero_filled", "o--", 0.5, "none"),
            ):
                axes.plot(
                    [sets[n].acceleration for n in members],
                    [means[n][kind, metric.name][0] for n in members],
                    style,
                    color=colour,
                    alpha=alpha,
                    markersize=6,
                    mfc=fill,
                    label=f"{line}, {sets[members[0]].labels[kind]}",
                )
        axes.set_title(metric.heading, fontsize=LABEL, loc="left")
        axes.set_title(metric.direction, fontsize=SMALL, loc="right", color=GREY)
        axes.set_xlabel("true acceleration", fontsize=LABEL)
        axes.margins(x=0.15, y=0.12)
        tidy(axes)
    # The lines themselves: matplotlib's own search passes over names that begin with "_".
    figure.legend(
        handles=panels[0].get_lines(),
        loc="outside lower left",
        ncols=3,
        frameon=False,
        fontsize=SMALL,
    )
    return figure


def _lines_of(sets: Sequence[Results]) -> dict[str, list[int]]:
    """Return run and form of mask -> the sets that make up its line, by acceleration."""
    several = _runs_with_several_weights(sets)
    lines: dict[str, list[int]] = {}
    for number, each in enumerate(sets):
        mask = each.order.sampling.mask if each.order.sampling else "own masks"
        weights = f", {each.weights}" if each.run in several else ""
        lines.setdefault(f"{each.run}, {mask}{weights}", []).append(number)
    for members in lines.values():
        members.sort(key=lambda n: sets[n].acceleration)
    return lines
