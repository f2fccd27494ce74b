"""Learning curves: how training went, epoch by epoch."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from workbench.compute.jobs import TrainingJob
from workbench.models import NETWORKS
from workbench.models.entry import USUAL_LOSS
from workbench.recon.metrics import HELD_OUT, LEADING, METRICS, say_held_out
from workbench.views.style import BLUE, GREY, ORANGE, SMALL, frame, new_figure

_HELD_OUT = f"val_{HELD_OUT}"


def best_epoch(rows: Sequence[Mapping[str, float]]) -> int | None:
    """Return the position of the row with the best validation; None where none has one.

    It is the highest SSIM; without targets the least error on held-out lines.
    """
    for name, sign in ((f"val_{LEADING.name}", 1), (_HELD_OUT, -1)):
        values = sign * np.array([row.get(name, np.nan) for row in rows], float)
        if not np.isnan(values).all():
            return int(np.nanargmax(values))
    return None


def best_row(rows: Sequence[Mapping[str, float]]) -> Mapping[str, float]:
    """Return the row of the best epoch; the first where no validation is known."""
    return rows[best_epoch(rows) or 0]


def say_standing(row: Mapping[str, float]) -> str:
    """Write what chooses the best epoch of a row of metrics."""
    if _HELD_OUT in row:
        return say_held_out(row[_HELD_OUT])
    return LEADING.say(row[f"val_{LEADING.name}"])


def loss_in_words(job: TrainingJob) -> str:
    """Return what a job's training loss is, as the axis of its curve says it."""
    if job.learning == "self-supervised":
        return "error of k-space"
    if job.loss is None:
        return NETWORKS[job.network].loss if job.network in NETWORKS else "loss"
    return USUAL_LOSS if job.loss == "ssim" else job.loss


def learning_curves(
    rows: Sequence[Mapping[str, float]], *, loss: str = "loss", synthetic: bool = False
) -> Figure:
    """Plot training loss and validation metrics over epochs, the best epoch marked.

    A row is an epoch, with ``epoch``, ``train_loss``, ``val_ssim`` and so on for every metric; a
    value that is missing or NaN leaves a gap. ``loss`` says what is trained on, see
    ``loss_in_words``.
    """
    best, epochs = best_epoch(rows), np.array([row["epoch"] for row in rows])
    title = ""
    if best is not None:
        title = f"Best validation {say_standing(rows[best])} after epoch {epochs[best]:.0f}"
    panels = [("train_loss", "training loss", loss, ORANGE, ".3f")]
    if _HELD_OUT in rows[-1]:
        name = "validation error on held-out lines"
        panels += [(_HELD_OUT, name, "error of k-space", BLUE, ".4f")]
    else:
        panels += [
            (
                f"val_{each.name}",
                f"validation {each.label}",
                each.unit or each.label,
                BLUE,
                each.form,
            )
            for each in METRICS
        ]
    lines = -(-len(panels) // 2)
    figure = new_figure(9.6, 2.8 * lines, title=title, synthetic=synthetic)
    grid = figure.subplots(lines, 2, sharex=True).flat
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    marker = "o" if len(rows) <= 30 else ""
    room = max(0.5, 0.03 * (epochs[-1] - epochs[0]))  # one epoch has some beside it, too
    for axes, (key, name, unit, colour, form) in zip(grid, panels, strict=False):
        values = np.array([row.get(key, np.nan) for row in rows], float)
        axes.plot(epochs, values, color=colour, marker=marker, markersize=4, linewidth=1.8)
        if best is not None and np.isfinite(values[best]):
            axes.axvline(epochs[best], color=GREY, linewidth=1, linestyle=(0, (3, 3)))
            axes.plot(epochs[best], values[best], "o", markersize=8, mfc="none", mec="k", mew=1.3)
            name += f": {values[best]:{form}} at the best epoch"
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.margins(x=0.04, y=0.12)
        axes.set_xlim(epochs[0] - room, epochs[-1] + room)
        frame(axes, name, y=unit, x="epoch" if axes in figure.axes[-2:] else "")
    if best is not None:
        side = "right" if 2 * epochs[best] > epochs[0] + epochs[-1] else "left"
        figure.axes[1].annotate(
            f"  best: epoch {epochs[best]:.0f}  ",
            (epochs[best], 0.02),
            xycoords=("data", "axes fraction"),
            fontsize=SMALL,
            color=GREY,
            ha=side,
        )
    return figure
