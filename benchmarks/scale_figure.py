"""The figure of the page on scale: what was measured as points, the model as lines."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.scale_model import Step, StepCost, cache_seconds, efficiency, waiting
from workbench.models import VarNet
from workbench.views.style import COLOURS, GREY, LABEL, SMALL, new_figure, tidy

GPUS = 32
LINKS = ((10, "10 Gb/s"), (25, "25 Gb/s"), (100, "100 Gb/s"))
BASE = Step(4, 320 * 160, 4)

# The 2021 toolbox's times of an epoch of brain on 4, 8, 16 and 32 P40 cards, in minutes.
TABLE_OF_2021 = {4: 255, 8: 133, 16: 66, 32: 34}

# An assumption, not fastMRI's own distribution: coil counts from 4 to 20, two widths.
MIXTURE = tuple(
    Step(coils, 640 * width, 12) for coils in (4, 8, 12, 16, 20) for width in (320, 396)
)


def gradient_bytes() -> float:
    """Return the bytes of the default network's gradients, float32."""
    return 4.0 * sum(p.numel() for p in VarNet().parameters())


def waits(cost: StepCost, ranks: int, *, balanced: bool) -> float:
    """Return how much longer a step takes for its dearest slice, on the assumed mixture."""
    costs = [cost.seconds(step) for step in MIXTURE for _ in range(400)]
    return waiting(costs, ranks, balanced=balanced)


def scale_figure(found: dict[str, Any]) -> Figure:
    """Draw what ``benchmarks.scale`` found, in six panels."""
    figure = new_figure(11, 6.6, title="How cost grows: measured (points) and modelled (lines)")
    cost = StepCost(**found["cost"])
    panels = figure.subplots(2, 3).ravel()
    measured = [
        (Step(**{k: v for k, v in row.items() if k != "seconds"}), row["seconds"])
        for row in found["steps"]
    ]
    _step_panel(panels[0], cost, measured, "coils", "coils")
    _step_panel(panels[1], cost, measured, "pixels", "thousand pixels")
    _step_panel(panels[2], cost, measured, "cascades", "cascades")
    _cache_panel(panels[3], found["caches"])
    _link_panel(panels[4])
    _rank_panel(panels[5], cost, found["epochs"])
    return figure


def _step_panel(
    axes: Axes, cost: StepCost, measured: list[tuple[Step, float]], name: str, label: str
) -> None:
    scale = 1e3 if name == "pixels" else 1
    others = {"coils", "pixels", "cascades"} - {name}
    along = sorted(
        (getattr(step, name), seconds)
        for step, seconds in measured
        if all(getattr(step, other) == getattr(BASE, other) for other in others)
    )
    values = np.array([value for value, _ in along])
    axes.plot(values / scale, [seconds for _, seconds in along], "o", color=COLOURS[0])
    line = np.linspace(0, values.max(), 50)
    given = {other: getattr(BASE, other) for other in others}
    model = [cost.seconds(Step(**given | {name: value})) for value in line]
    axes.plot(line / scale, model, color=COLOURS[0])
    _named(axes, f"A step against {name}", label, "seconds")
    axes.set_ylim(bottom=0)


def _cache_panel(axes: Axes, caches: list[tuple[int, float, float]]) -> None:
    # What the smallest latency leaves is work.
    volumes, latency, seconds = max(caches, key=lambda row: (-row[1], row[0]))
    work = (seconds - cache_seconds(volumes, latency, 0.0)) / volumes
    counts = np.geomspace(10, 6000, 60).astype(int)
    for colour, latency in zip(COLOURS, sorted({row[1] for row in caches}), strict=False):
        points = [(count, seconds) for count, each, seconds in caches if each == latency]
        axes.loglog(*zip(*points, strict=True), "o", color=colour)
        model = [cache_seconds(int(count), latency, work) for count in counts]
        axes.loglog(counts, model, color=colour, label=f"{1000 * latency:.0f} ms a request")
    _named(axes, "The dataset cache", "volumes", "seconds")
    axes.legend(fontsize=SMALL, frameon=False)


def _link_panel(axes: Axes) -> None:
    steps, gradients = np.geomspace(0.02, 2, 100), gradient_bytes()
    for colour, (gigabits, label) in zip(COLOURS, LINKS, strict=False):
        rate = gigabits * 1e9 / 8
        share = [100 * efficiency(GPUS, step, gradients, rate) for step in steps]
        axes.semilogx(steps, share, color=colour, label=label)
    axes.axhline(95, color=GREY, linewidth=0.8, linestyle="--")
    _named(axes, f"{GPUS} GPUs of equal work", "seconds a step on one GPU", "efficiency, %")
    axes.set_ylim(0, 102)
    axes.legend(fontsize=SMALL, frameon=False, title="link", title_fontsize=SMALL)


def _rank_panel(axes: Axes, cost: StepCost, epochs: dict[str, float]) -> None:
    ranks = [1, 2, 4, 8, 16, 32]
    for balanced, style in ((True, "-"), (False, "--")):
        share = [100 / waits(cost, count, balanced=balanced) for count in ranks]
        label = "like slices share a step" if balanced else "slices as shuffled"
        axes.semilogx(ranks, share, style, color=COLOURS[0], base=2, label=label)
    few, *_ = TABLE_OF_2021.values()
    axes.semilogx(
        list(TABLE_OF_2021),
        [100 * few * 4 / (ranks * minutes) for ranks, minutes in TABLE_OF_2021.items()],
        "s",
        color=COLOURS[1],
        base=2,
        label="2021, P40 cards",
    )
    axes.semilogx(
        [int(count) for count in epochs],
        [100 * epochs["1"] / seconds / int(count) for count, seconds in epochs.items()],
        "o",
        color=COLOURS[2],
        base=2,
        label="here, CPU cores",
    )
    axes.set_xticks(ranks, [str(count) for count in ranks])
    _named(axes, "Waiting for the dearest slice", "ranks", "efficiency, %")
    axes.set_ylim(0, 108)
    axes.legend(fontsize=SMALL, frameon=False, loc="lower left")


def _named(axes: Axes, title: str, across: str, up: str) -> None:
    axes.set_title(title, fontsize=LABEL)
    axes.set_xlabel(across, fontsize=SMALL + 0.5)
    axes.set_ylabel(up, fontsize=SMALL + 0.5)
    tidy(axes)
