"""Runs, accelerations and masks side by side: any folders of results, by their names."""

import re
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas

from workbench.compute.evaluation import FOLDER, ORDER, results_folder
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
from workbench.data.images import cropped
from workbench.models import NETWORKS, label_of, trains
from workbench.progress import count_of
from workbench.recon.metrics import LEADING, METRICS, of_fewer
from workbench.recon.results import Order, Result, Results, is_current, read_order
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


def _made(sets: Sequence[Results]) -> pandas.DataFrame:
    """Return how each set was made, as text; weights only where a run's sets have several.

    "method" is the network of those that have no weights, with options that are not the usual ones.
    """
    rows = []
    for each in sets:
        sampling, known = each.order.sampling, ("own masks", "", "")
        if sampling:
            rates = ", ".join(f"{rate:g}x" for rate in sampling.accelerations)
            centres = "centre " + ", ".join(f"{share:g}" for share in sampling.center_fractions)
            known = (sampling.mask, rates, centres)
        method = "" if each.order.weights else each.labels["reconstruction"] or _planned(each.order)
        sha256 = each.order.weights_sha256 or None
        rows.append((each.run, method, each.order.split, *known, each.weights, sha256))
    names = ["run", "method", "split", "mask", "rates", "centres", "weights", "sha256"]
    made = pandas.DataFrame(rows, columns=names)
    several = made.groupby("run")["sha256"].transform("nunique") > 1
    return made.assign(weights=made["weights"].where(several, "")).drop(columns="sha256")


def _planned(order: Order) -> str:
    """Return a label for results that are not there yet, with all options."""
    return label_of(order.network or "", order.network_options or "")


def labels_of(sets: Sequence[Results]) -> list[str]:
    """Return a label for each set: its run, and what else tells it from the others.

    The rest is whichever differs of split, mask, acceleration and centre fraction, and the weights
    where sets of one run were made with several.

    Raises:
        ValueError: two sets cannot be told apart.
    """
    made = _made(sets)
    said = made.assign(weights=made["weights"].map(lambda name: name and f"weights {name}"))
    differ = [name for name in made if name == "run" or made[name].nunique() > 1]
    labels = [", ".join(filter(None, row)) for row in said[differ].itertuples(index=False)]
    if len(set(labels)) == len(labels):
        return labels
    pairs = zip((each.name for each in sets), made["weights"], strict=True)
    labels = [", ".join(filter(None, pair)) for pair in pairs]
    if again := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"{again[0]} is there twice: compare results of different folders")
    return labels


def results_of_run(run: str) -> list[Path]:
    """Return the folders of a run's results, sorted by name."""
    found = (run_folder(run, "compare") / FOLDER).glob(f"*/{ORDER}")
    return sorted(path.parent for path in found)


def find_compared(compare: str | None, folder: Path, order: Order) -> list[Results]:
    """Read the parameter ``compare``: results to set beside those that an order made in a folder.

    Each part, with commas between them, is a run's name, ``RUN``, for its results of the same split
    and mask; or ``RUN@WHAT``, where WHAT picks others by what their folder's name holds:
    ``knee@8x``, ``knee@random``, ``knee@random-8x``. All that fit are taken. A network that learns
    nothing, such as ``wavelet`` or ``wavelet@8x``, stands for its results beside those of the run,
    with its usual options; ``wavelet@regularisation=0.01`` for those with another.

    Raises:
        ValueError: it names nothing, or nothing but the results themselves.
        FileNotFoundError: there is nothing that fits; the message says what there is.
    """
    if compare is None:
        return []
    if not parts_of(compare):
        raise ValueError(f"compare={compare!r}: give runs, such as other_run or knee@8x")
    chosen: dict[Path, None] = {}
    split = folder.name.split("-")[0]
    for part in parts_of(compare):
        found = results_that_fit(part, folder, order)
        if not found:
            run = part.partition("@")[0]
            names = ", ".join(f"{run}@{each.name}" for each in results_of_run(run))
            advice = f"it has {names}" if names else f"{run} has no results"
            if _folders_that_fit(part, folder, order):
                advice += ", made with weights that their file holds no more"
            raise FileNotFoundError(
                f"compare={part!r}: nothing of split {split} fits; {advice}. "
                "make_missing=True reconstructs what is missing"
            )
        chosen |= dict.fromkeys(found)
    chosen.pop(folder, None)
    if not chosen:
        raise ValueError(
            f"compare={compare!r}: these are the results themselves; give another run, or others "
            "of its results, such as knee@8x"
        )
    return [Results(each) for each in chosen]


def parts_of(text: str | None) -> list[str]:
    """Return the parts of a parameter, with commas between them."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def words_of(name: str) -> list[str]:
    """Split the name of a folder of results, or a part of one, such as "random-8x"."""
    return [word for word in re.split(r"(?<!\de)-|@", name) if word]  # not in 1e-05


def results_that_fit(part: str, folder: Path, order: Order) -> list[Path]:
    """Return the folders of results that one part of ``compare`` names, beside an order's.

    A run that has trained on since has none until it is reconstructed again.
    """
    found = _folders_that_fit(part, folder, order)
    return [each for each in found if is_current(read_order(each))]


def _folders_that_fit(part: str, folder: Path, order: Order) -> list[Path]:
    run, _, what = part.partition("@")
    own = Run(folder.parent.parent)
    same = results_folder(own, order.split, order.sampling).name
    wanted = {order.split, *words_of(what)}
    if trains(run):
        same = folder.name if order.weights else same
    elif order.weights or own.name != order.network:  # beside the run's
        same, wanted, run = f"{same}-{run}", wanted | {run}, own.name
    methods = {name for name in NETWORKS if not trains(name)}

    def fits(name: str) -> bool:
        words = set(words_of(name))
        telling = {word for word in words if word in methods or "=" in word}
        return name == (what or same) or bool(what and telling <= wanted <= words)

    return [each for each in results_of_run(run) if fits(each.name)]


def shared_volumes(sets: Sequence[Results]) -> set[str]:
    """Return the paths of the volumes that all sets have scored: of one k-space and one target.

    Datasets of several sites, or one that was converted anew, have other volumes of the same path.
    """
    known = [{each.volume.path: each for each in results.scored} for results in sets]
    common = set.intersection(*map(set, known)) if known else set()
    return {path for path in common if _are_of_one([results[path] for results in known])}


def _are_of_one(results: Sequence[Result]) -> bool:
    """Say whether results of one path are of one volume; earlier ones do not name their k-space."""
    volumes = [each.volume for each in results]
    targets = {
        repr((v.target and v.target.shape, v.largest, v.attributes.get("norm"))) for v in volumes
    }
    return len(targets) == 1 and len({each.fingerprint for each in results} - {""}) <= 1


def common_volumes(sets: Sequence[Results]) -> list[Results]:
    """Cut sets down to the volumes that all of them have scored; a ValueError if there is none."""
    common = shared_volumes(sets)
    if not common:
        raise ValueError(
            f"the results have no volume with a target in common: {', '.join(labels_of(sets))}"
        )
    return [each.only(common) for each in sets]


def left_out_of_comparison(sets: Sequence[Results]) -> str:
    """Say which sets have scored more volumes than those that all have; "" where none has."""
    count = len(common_volumes(sets)[0])
    more = [
        f"{label} has {len(each.scored)}"
        for label, each in zip(labels_of(sets), sets, strict=True)
        if len(each.scored) > count
    ]
    return f"Compared on the {count_of(count)} that all have scored: {', '.join(more)}." * bool(
        more
    )


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
    if _made(sets)["weights"].any():
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
    table = _made(sets).assign(label=labels, rate=rates, network=networks)
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
