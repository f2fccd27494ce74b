"""What is known of a training before it runs, and what came of it."""

from typing import TYPE_CHECKING

import numpy as np
from IPython.display import display

from workbench.compute.evaluation import (
    evaluated,
    read_scores,
    results_folder,
    split_sampling,
)
from workbench.compute.gpus import machine_of
from workbench.compute.runs import Run
from workbench.compute.training import TrainingPlan
from workbench.data.volume import short_names
from workbench.views.curves import best_epoch, learning_curves
from workbench.views.estimates import estimate_figure
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from pandas.io.formats.style import Styler

    from workbench.compute.cluster_plan import ClusterPlan

RESULT = "application/vnd.workbench.result+json"


def show_estimate(plan: "TrainingPlan | ClusterPlan") -> None:
    """Show how long a cluster would take on several numbers of nodes, and what it would cost.

    On this machine there is nothing to show.
    """
    if isinstance(plan, TrainingPlan):
        return
    estimates = plan.estimates
    if estimates:
        machine = machine_of(plan.cluster.vm_size)
        display(
            estimate_figure(
                estimates,
                chosen=plan.cluster_job.nodes,
                title=f"{plan.job.epochs - len(plan.run.metrics)} epochs on {plan.cluster.vm_size}"
                + (f", {machine.count} x {machine.card} a node" if machine else ""),
                source=plan.pace.source,
                price=plan.price.source if plan.price else "",
                synthetic=plan.cache.synthetic,
            )
        )


def show_run(run: Run) -> None:
    """Show a run's learning curves, and leave its last metrics for programs to read."""
    metrics = run.metrics
    display(learning_curves(metrics, synthetic=run.synthetic))
    best = metrics[best_epoch(metrics) or 0]
    result = {"run": run.job.name, "last": metrics[-1], "best": best}
    text = f"best epoch {best['epoch']:.0f}: validation SSIM {best['val_ssim']:.4f}"
    display({RESULT: result, "text/plain": text}, raw=True)


def volume_table(run: Run) -> "Styler":
    """Return the last validation's figures of each volume as a table, the worst SSIM first."""
    import pandas

    table = pandas.DataFrame(run.volumes).astype(
        {"slices": int, "ssim": float, "psnr": float, "nmse": float}
    )
    table["volume"] = table["volume"].map(short_names(table["volume"]))
    names = {"ssim": "SSIM", "psnr": "PSNR (dB)", "nmse": "NMSE"}
    table = table.sort_values("ssim").rename(columns=names)
    formats = {"SSIM": "{:.4f}", "PSNR (dB)": "{:.2f}", "NMSE": "{:.4f}"}
    return styled_table(table, formats, index=False)


def evaluation_table(run: Run) -> "Styler | None":
    """Return the means over the volumes of each split that was reconstructed after the training.

    None where there is none, and on all but the first node of a job, which keeps the tables.
    """
    import pandas

    rows = []
    for split in evaluated(run):
        found = read_scores(results_folder(run, split, split_sampling(run.job, split)))
        table = pandas.DataFrame(found).replace("", None)
        row = {
            ("", "split"): split,
            ("", "volumes"): len(table),
            ("", "measured"): int(table["varnet_ssim"].notna().sum()),
            ("", "acceleration"): table["acceleration"].astype(float).mean(),
        }
        for kind, shown in (("zero_filled", "zero-filled"), ("varnet", "VarNet")):
            for name, label in (("ssim", "SSIM"), ("psnr", "PSNR (dB)"), ("nmse", "NMSE")):
                values = table[f"{kind}_{name}"].astype(float)
                row[shown, label] = values[np.isfinite(values)].mean()
        rows.append(row)
    if not rows:
        return None
    means = pandas.DataFrame(rows)
    means.columns = pandas.MultiIndex.from_tuples(means.columns)
    formats = {"SSIM": "{:.4f}", "PSNR (dB)": "{:.2f}", "NMSE": "{:.4f}", "acceleration": "{:.2f}"}
    by_column = {column: formats[column[1]] for column in means if column[1] in formats}
    centred = {"selector": "th.col_heading.level0", "props": "text-align: center"}
    table = styled_table(means, by_column, index=False, na_rep="no target")
    return table.set_table_styles([centred])
