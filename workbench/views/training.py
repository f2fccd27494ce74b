"""What is known of a training before it runs, and what came of it."""

from typing import TYPE_CHECKING, Any

import numpy as np
from IPython.display import display

from workbench.compute.evaluation import evaluated, results_folder, split_sampling
from workbench.compute.gpus import machine_of
from workbench.compute.plan import Cloud, Plan
from workbench.compute.runs import Run
from workbench.data.volume import short_names
from workbench.models import label_of
from workbench.recon.metrics import LEADING, METRICS, mean_scores
from workbench.recon.results import KINDS, read_scores
from workbench.views.curves import best_epoch, learning_curves
from workbench.views.estimates import estimate_figure
from workbench.views.reconstruct import score_formats
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

RESULT = "application/vnd.workbench.result+json"


def show_estimate(plan: Plan) -> None:
    """Show how long a cluster would take on several numbers of nodes, and what it would cost.

    On this machine there is nothing to show.
    """
    if isinstance(plan.where, Cloud) and (estimates := plan.estimates):
        cloud, vm_size = plan.where, plan.where.cluster.vm_size
        machine = machine_of(vm_size)
        display(
            estimate_figure(
                estimates,
                chosen=cloud.job.nodes,
                title=f"{plan.job.epochs - len(plan.run.metrics)} epochs on {vm_size}"
                + (f", {machine.count} x {machine.card} a node" if machine else ""),
                source=cloud.pace.source,
                price=cloud.price.source if cloud.price else "",
                synthetic=plan.cache.synthetic,
            )
        )


def show_run(run: Run) -> None:
    """Show a run's learning curves, and leave its last metrics for programs to read."""
    metrics = run.metrics
    display(learning_curves(metrics, synthetic=run.synthetic))
    best = metrics[best_epoch(metrics) or 0]
    result = {"run": run.job.name, "last": metrics[-1], "best": best}
    said = LEADING.say(best[f"val_{LEADING.name}"])
    text = f"best epoch {best['epoch']:.0f}: validation {said}"
    display({RESULT: result, "text/plain": text}, raw=True)


def volume_table(run: Run) -> "Styler":
    """Return the last validation's metrics of each volume as a table, the worst SSIM first."""
    import pandas

    table = pandas.DataFrame(run.volumes)
    known = [metric for metric in METRICS if metric.name in table]
    table = table.astype({"slices": int, **{metric.name: float for metric in known}})
    table["volume"] = table["volume"].map(short_names(table["volume"]))
    table = table.sort_values(LEADING.name)
    table = table.rename(columns={metric.name: metric.heading for metric in known})
    formats = {metric.heading: f"{{:{metric.form}}}" for metric in known}
    return styled_table(table, formats, index=False)


def evaluation_table(run: Run) -> "Styler | None":
    """Return the means over the volumes of each split that was reconstructed after the training.

    None where there is none, and on all but the first node of a job, which keeps the tables.
    """
    import pandas

    rows = []
    for split in evaluated(run):
        found = read_scores(results_folder(run, split, split_sampling(run.job, split)))
        row: dict[tuple[str, str], Any] = {
            ("", "split"): split,
            ("", "volumes"): len(found),
            ("", "measured"): sum(bool(each[f"{KINDS[0]}_{LEADING.name}"]) for each in found),
            ("", "acceleration"): np.mean([float(each["acceleration"]) for each in found]),
        }
        for kind, label in zip(KINDS, ("zero-filled", label_of(run.job.network)), strict=True):
            names = {metric.name: f"{kind}_{metric.name}" for metric in METRICS}
            means = mean_scores(
                {name: float(each.get(column) or "nan") for name, column in names.items()}
                for each in found
            )
            row |= {(label, metric.heading): means[metric.name] for metric in METRICS}
        rows.append(row)
    if not rows:
        return None
    table = pandas.DataFrame(rows)
    table.columns = pandas.MultiIndex.from_tuples(table.columns)
    centred = {"selector": "th.col_heading.level0", "props": "text-align: center"}
    style = styled_table(table, score_formats(table), index=False, na_rep="no target")
    return style.set_table_styles([centred])
