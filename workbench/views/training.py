"""What is known of a training before it runs, and what came of it."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from textwrap import fill
from typing import TYPE_CHECKING, Any

import pandas
from matplotlib.figure import Figure

from workbench.compute.evaluation import evaluated, results_folder, split_sampling
from workbench.compute.gpus import machine_of
from workbench.compute.plan import Cloud, Plan
from workbench.compute.runs import Run
from workbench.data.volume import short_names
from workbench.models import label_of
from workbench.recon.metrics import HELD_OUT, LEADING, METRICS
from workbench.recon.results import KINDS
from workbench.recon.tables import read_scores
from workbench.views.curves import best_row, learning_curves, loss_in_words, say_standing
from workbench.views.ranking import mean_text, ranked
from workbench.views.style import BLUE, GREY, ORANGE, SMALL, frame, new_figure
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

RESULT = "application/vnd.workbench.result+json"


def estimate_figure(plan: Plan) -> Figure | None:
    """Plot hours over nodes, with cost and the parallel efficiency that is assumed at each.

    None on this machine, or where nothing is known.
    """
    estimates, cloud = plan.estimates, plan.where
    if not isinstance(cloud, Cloud) or not estimates:
        return None
    machine = machine_of(cloud.cluster.vm_size)
    title = f"{plan.job.epochs - len(plan.run.metrics)} epochs on {cloud.cluster.vm_size}"
    title += f", {machine.count} x {machine.card} a node" if machine else ""
    figure = new_figure(7.2, 3.4, title=title, synthetic=plan.cache.synthetic)
    axes = figure.subplots()
    days = max(each.hours for each in estimates) > 72
    unit, scale = ("days", 24) if days else ("hours", 1)
    heights = [each.hours / scale for each in estimates]
    colours = [ORANGE if each.nodes == cloud.job.nodes else BLUE for each in estimates]
    bars = axes.bar([str(each.nodes) for each in estimates], heights, color=colours, width=0.6)
    texts = [
        f"{each.hours / scale:.3g} {unit}"
        + ("" if each.dollars is None else f"\n${each.dollars:,.0f}")
        + f"\nefficiency {each.efficiency:.0%}"
        for each in estimates
    ]
    axes.bar_label(bars, texts, padding=3, fontsize=SMALL)
    axes.set_ylim(0, 1.45 * max(heights) or 1)
    frame(axes, x="nodes (orange: this job)", y=f"time ({unit})")
    note = f"Pace: {cloud.pace.source if cloud.pace else ''}."
    note += f" Cost: {cloud.price.source}." if cloud.price else ""
    axes.set_title(fill(note, 110), fontsize=SMALL, color=GREY, loc="left")
    return figure


def show_run(run: Run) -> Iterator[Any]:
    """Show a run's learning curves, and leave its last metrics for programs to read."""
    metrics = run.metrics
    yield learning_curves(metrics, loss=loss_in_words(run.job), synthetic=run.synthetic)
    best = best_row(metrics)
    result = {"run": run.job.name, "last": metrics[-1], "best": best}
    text = f"best epoch {best['epoch']:.0f}: validation {say_standing(best)}"
    yield {RESULT: result, "text/plain": text}


def seeds_table(runs: Sequence[Run]) -> pandas.DataFrame:
    """Tabulate the best epoch of runs that differ in their seed alone, and how the seeds spread.

    The last rows are mean and sample standard deviation over the seeds.
    """
    names = [f"val_{metric.name}" for metric in METRICS]
    rows = [best_row(run.metrics) for run in runs]
    if f"val_{HELD_OUT}" in rows[0]:
        names = [f"val_{HELD_OUT}"]
    table = pandas.DataFrame(rows, index=[f"seed {run.job.seed}" for run in runs])[names]
    spread = pandas.DataFrame({"mean": table.mean(), "standard deviation": table.std()}).T
    headings = {f"val_{metric.name}": metric.heading for metric in METRICS}
    return pandas.concat([table, spread]).rename(columns=headings)


def volume_table(run: Run) -> "Styler":
    """Return the last validation's metrics of each volume as a table, the worst SSIM first."""
    table = pandas.DataFrame(run.volumes)
    known = {metric.name: metric for metric in METRICS if metric.name in table}
    table = table.astype({"slices": int, **dict.fromkeys(known, float)})
    table["volume"] = table["volume"].map(short_names(table["volume"]))
    table = ranked(table, LEADING.name, LEADING.higher_is_better)
    table = table.rename(columns={name: metric.heading for name, metric in known.items()})
    formats = {metric.heading: metric.text for metric in known.values()}
    last, best = run.metrics[-1]["epoch"], best_row(run.metrics)["epoch"]
    said = f"Validation after epoch {last:.0f}, the last one"
    if best != last:
        said += f"; the best is epoch {best:.0f}, whose weights reconstruct"
    return styled_table(table, formats, index=False).set_caption(said)


def evaluation_table(run: Run) -> "Styler | None":
    """Return the means over the volumes of each split that was reconstructed after the training.

    "measured" says over how many of the volumes, see ``mean_text``. None where there is no such
    split, and on all but the first node of a job, which keeps the tables.
    """
    rows = []
    kinds = dict(zip(KINDS, ("zero-filled", label_of(run.job.network)), strict=True))
    for split in evaluated(run):
        folder = results_folder(run, split, split_sampling(run.job, split))
        found = read_scores(folder)
        measured = sum(bool(each.get(f"{KINDS[0]}_{LEADING.name}")) for each in found)
        row: dict[tuple[str, str], Any] = {
            ("", "split"): split,
            ("", "volumes"): len(found),
            ("", "measured"): measured,
            ("", "acceleration"): f"{fmean(float(each['acceleration']) for each in found):.2f}",
        }
        for kind, label in kinds.items():
            for metric in METRICS:
                values = [float(each.get(f"{kind}_{metric.name}") or "nan") for each in found]
                row[label, metric.heading] = mean_text(metric, values, measured)
        rows.append(row)
    if not rows:
        return None
    table = pandas.DataFrame(rows)
    table.columns = pandas.MultiIndex.from_tuples(table.columns)
    centred = {"selector": "th.col_heading.level0", "props": "text-align: center"}
    shown = styled_table(table, index=False).set_table_styles([centred], overwrite=False)
    return shown.set_caption("The best epoch's weights, measured as fastMRI's leaderboard measures")
