"""Runs, accelerations and masks side by side: tables and figures of several sets of results."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from workbench.data.images import cropped
from workbench.progress import count_of
from workbench.recon.metrics import LEADING, METRICS, of_fewer
from workbench.recon.results import Results
from workbench.views.compared import (
    common_volumes,
    labels_of,
    left_out_of_comparison,
    made_table,
    shared_volumes,
)
from workbench.views.ranking import PREFIXES, check_order, ranked, score_frame
from workbench.views.reconstructions import (
    data_range_of,
    extreme_slices,
    images_of,
    reconstruction_figure,
)
from workbench.views.style import (
    BLUE,
    COLOURS,
    ORANGE,
    SMALL,
    Look,
    add_key,
    fitted,
    frame,
    new_figure,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def _means(sets: Sequence[Results]) -> tuple[pandas.DataFrame, pandas.Series]:
    """Form means, and the number of volumes in each, of sets of the same volumes.

    A volume whose metric is not finite in one set is left out of that metric's mean in all of them.
    """
    names = [f"{prefix}{metric.name}" for prefix in PREFIXES.values() for metric in METRICS]
    tables = [score_frame(each).sort_index()[names] for each in sets]
    finite = np.logical_and.reduce([np.isfinite(table) for table in tables])
    means = pandas.DataFrame([table.where(finite).mean() for table in tables])
    return means, pandas.Series(finite.sum(axis=0), names)


def comparison_table(sets: Sequence[Results], sort_by: str = "ssim") -> pandas.DataFrame:
    """Tabulate sets of results by run and acceleration: means over the volumes that all have.

    A mean over fewer volumes than the column "volumes" says, because a metric is not finite, has
    their number beside it. Sets are sorted by a metric's mean, or by acceleration.

    Raises:
        ValueError: there is no such order, or no volume that all have.
    """
    name, ascending = check_order(sort_by)
    sets = sorted(common_volumes(sets), key=lambda one: (one.acceleration, one.name))
    means, counts = _means(sets)
    if name in {metric.name for metric in METRICS}:
        means = ranked(means.reset_index(drop=True), name, ascending)
        sets = [sets[place] for place in means.index]
    names = [each.labels["reconstruction"] for each in sets]
    told = zip(names, ((each.run, str(each.order), each.weights) for each in sets), strict=True)
    alike = len(set(told)) < len(sets)
    networks, labels = set(names), sets[0].labels
    if len(networks) > 1:
        labels = labels | {"reconstruction": "reconstruction"}
    total = len(sets[0])
    table: dict[tuple[str, str], list[Any]] = {
        ("", "run"): [each.name if alike else each.run for each in sets]
    }
    if len(networks) > 1:
        table["", "network"] = names
    if made_table(sets)["weights"].any():
        table["", "weights"] = [each.weights for each in sets]
    table |= {
        ("", "sampling"): [str(each.order) for each in sets],
        ("", "true acceleration"): [f"{each.acceleration:.2f}" for each in sets],
        ("", "volumes"): [total for _ in sets],
    }
    for kind, prefix in PREFIXES.items():
        for metric in METRICS:
            count = counts[column := f"{prefix}{metric.name}"]
            table[labels[kind], metric.heading] = [
                metric.text(v) + of_fewer(count, total) for v in means[column]
            ]
    return pandas.DataFrame(table)


def comparing_figure(sets: Sequence[Results]) -> "Figure":
    """Plot each mean metric over the true acceleration, or by result where there is only one.

    Results of one run and mask at different accelerations are joined by a line; others have no
    order that a line could follow.

    Raises:
        ValueError: there is no volume that all have scored, or two sets cannot be told apart.
    """
    labels, left_out = labels_of(sets), left_out_of_comparison(sets)
    sets = common_volumes(sets)
    means, counts = _means(sets)
    rates = [each.acceleration for each in sets]
    networks = [each.labels["reconstruction"] for each in sets]
    table = made_table(sets).assign(label=labels, rate=rates, network=networks)
    table = table.join(means.set_index(table.index))
    lines = _lines(table) if table["rates"].nunique() > 1 else {}
    total = len(sets[0])
    notes = [_message(table, lines), f"Means over the same {count_of(total)}", left_out]
    for metric in METRICS:
        least = min(counts[f"{prefix}{metric.name}"] for prefix in PREFIXES.values())
        if least < total:
            notes.append(f"{metric.heading}: mean of {least}, the rest is not finite")
    figure = new_figure(
        3.5 * len(METRICS),
        4.1 if lines else 1.7 + 0.5 * len(sets),
        title="\n".join(filter(None, notes)),
        synthetic=any(each.synthetic for each in sets),
    )
    panels = figure.subplots(1, len(METRICS), squeeze=False, sharey=not lines)[0]
    if lines:
        _draw_by_acceleration(panels, lines)
        add_key(figure, panels[0].get_lines(), 3)
    else:
        _draw_by_result(panels, table)
        add_key(figure, panels[0].get_lines())
    return figure


def methods_figure(sets: Sequence[Results]) -> "Figure | None":
    """Show one slice by every method: the first set's median one, which comes last.

    None where no other set has the same volume, sampled alike, or the dataset is not here.
    """
    own = sets[0].scored
    median = next((each for each in extreme_slices(own) if each[0].startswith("median")), None)
    if median is None or not own.dataset_is_here:
        return None
    title, result, number = median
    alike = [each for each in sets[1:] if each.order.sampling == own.order.sampling]
    alike = [each for each in alike if result.volume.path in shared_volumes([own, each])]
    if not alike:
        return None
    shown = [*alike, own]
    names = [each.labels["reconstruction"] for each in shown]
    names = names if len(set(names)) == len(names) else labels_of(shown)
    images = [each.only([result.volume.path])[0].image(number) for each in shown]
    filled, _, target = images_of(result, number)
    target, filled, *images = cropped(target, filled, *images)
    return reconstruction_figure(
        target,
        filled,
        dict(zip(names, images, strict=True)),
        title=f"{title}: {result.name}, slice {number}, {result.volume.acquisition}",
        data_range=data_range_of(result, target),
        synthetic=result.volume.synthetic,
    )


def _lines(table: pandas.DataFrame) -> dict[str, pandas.DataFrame]:
    """Group sets that a line may join, by what they have in common: run, mask and weights.

    Where such a group has two sets of one nominal acceleration, it is the centre fraction, too.
    """
    lines: dict[str, pandas.DataFrame] = {}
    for _, group in table.groupby(["run", "method", "mask", "weights"], sort=False):
        common = ["run", "method", "mask", "weights"]
        common += ["centres"] if group["rates"].duplicated().any() else []
        for key, members in group.groupby(common, sort=False):
            lines[", ".join(filter(None, key))] = members.sort_values("rate", kind="stable")
    return lines


def _message(table: pandas.DataFrame, lines: Mapping[str, pandas.DataFrame]) -> str:
    """Say what the leading metric shows."""
    name, values = LEADING.label, table[LEADING.name]
    if lines:
        joined = [part[LEADING.name].diff()[1:] for part in lines.values() if len(part) > 1]
        falls = joined and all((steps < 0).all() for steps in joined)
        return f"{name} falls as the acceleration grows" if falls else f"{name} by acceleration"
    texts = values.map(LEADING.text)
    if (
        values.isna().any()
        or texts[values.idxmax()] == texts[values.drop(values.idxmax()).idxmax()]
    ):
        return f"{name} of {len(table)} results at one acceleration"
    return f"The highest mean {name}, {texts[values.idxmax()]}: {table['label'][values.idxmax()]}"


def _draw_by_acceleration(panels: Sequence["Axes"], lines: Mapping[str, pandas.DataFrame]) -> None:
    for (line, members), colour in zip(lines.items(), cycle(COLOURS)):
        names = {"reconstruction": members["network"].iloc[0], "zero_filled": "zero-filled"}
        for kind, style, alpha, fill in (
            ("reconstruction", "o-", 1.0, colour),
            ("zero_filled", "o--", 0.5, "none"),
        ):
            look: Look = {"color": colour, "alpha": alpha, "markersize": 6, "mfc": fill}
            look["label"] = f"{line}, {names[kind]}"
            for axes, metric in zip(panels, METRICS, strict=True):
                axes.plot(members["rate"], members[f"{PREFIXES[kind]}{metric.name}"], style, **look)
    for axes, metric in zip(panels, METRICS, strict=True):
        frame(axes, metric.heading, right=metric.direction, x="true acceleration")
        axes.margins(x=0.15, y=0.12)


def _draw_by_result(panels: Sequence["Axes"], table: pandas.DataFrame) -> None:
    """Draw a row a result, the first on top: filled the reconstruction, hollow the zero-filled."""
    rows = range(len(table))
    network = ", ".join(dict.fromkeys(table["network"]))
    for axes, metric in zip(panels, METRICS, strict=True):
        look: Look = {"markersize": 7, "linestyle": "none", "marker": "o"}
        values = table[metric.name]
        axes.plot(table[f"zero_filled_{metric.name}"], rows, color=ORANGE, mfc="none", **look)
        axes.plot(values, rows, color=BLUE, **look)
        for row, value in zip(rows, values, strict=True):
            if np.isfinite(value):
                said = metric.text(value, metric.short)
                place: Look = {"xytext": (0, 6), "textcoords": "offset points", "ha": "center"}
                axes.annotate(said, (value, row), fontsize=SMALL, **place)
        frame(axes, right=metric.direction, x=f"mean {metric.heading}")
        axes.set_ylim(len(table) - 0.5, -0.7)
        axes.margins(x=0.2)
    panels[0].set_yticks(rows, [fitted(label, 1.9, SMALL) for label in table["label"]])
    for line, name in zip(panels[0].get_lines(), ("zero-filled", network), strict=True):
        line.set_label(name)
