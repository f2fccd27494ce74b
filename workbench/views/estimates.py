"""Time and cost of a job on several numbers of nodes, as a small plot."""

from collections.abc import Sequence
from textwrap import fill

from matplotlib.figure import Figure

from workbench.compute.estimate import Estimate
from workbench.views.style import BLUE, GREY, LABEL, ORANGE, SMALL, new_figure, tidy


def estimate_figure(
    estimates: Sequence[Estimate],
    *,
    chosen: int,
    title: str,
    source: str,
    price: str = "",
    synthetic: bool = False,
) -> Figure:
    """Plot hours over nodes, with cost and the parallel efficiency that is assumed at each.

    Args:
        estimates: one for each number of nodes.
        chosen: the number of nodes that the job takes.
        title: what is estimated.
        source: where the pace is from.
        price: where the cost is from.
        synthetic: whether it is trained on phantoms.
    """
    figure = new_figure(7.2, 3.4, title=title, synthetic=synthetic)
    axes = figure.subplots()
    days = max(each.hours for each in estimates) > 72
    unit, scale = ("days", 24) if days else ("hours", 1)
    heights = [each.hours / scale for each in estimates]
    colours = [ORANGE if each.nodes == chosen else BLUE for each in estimates]
    places = range(len(estimates))
    axes.bar(places, heights, color=colours, width=0.6)
    for place, each in zip(places, estimates, strict=True):
        cost = "" if each.dollars is None else f"\n${each.dollars:,.0f}"
        axes.annotate(
            f"{each.hours / scale:.3g} {unit}{cost}\nefficiency {each.efficiency:.0%}",
            (place, heights[place]),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=SMALL,
        )
    axes.set_xticks(list(places), [str(each.nodes) for each in estimates])
    axes.set_xlabel("nodes (orange: this job)", fontsize=LABEL)
    axes.set_ylabel(f"time ({unit})", fontsize=LABEL)
    axes.set_ylim(0, 1.45 * max(heights) or 1)
    note = f"Pace: {source}." + (f" Cost: {price}." if price else "")
    axes.set_title(fill(note, 110), fontsize=SMALL, color=GREY, loc="left")
    tidy(axes)
    return figure
