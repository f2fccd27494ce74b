"""Figures of scores: their spread over acquisitions, and two runs volume by volume."""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workbench.data.volume import short_names
from workbench.recon.metrics import VolumeScore, mean_score
from workbench.views.style import BLUE, COLOURS, GREY, LABEL, ORANGE, SMALL, new_figure, tidy

_FIGURES = (("ssim", "SSIM", 1, ".4f"), ("psnr", "PSNR, dB", 1, ".2f"), ("nmse", "NMSE", -1, ".4f"))
_BOX_FROM = 5


def scores_figure(
    scores: Mapping[str, Sequence[VolumeScore]],
    acquisitions: Mapping[str, str] | None = None,
    *,
    title: str = "",
    synthetic: bool = False,
) -> Figure:
    """Show how SSIM, PSNR and NMSE spread over the volumes of each acquisition.

    A dot is a volume, a box the middle half with the median (from 5 volumes on), a bar the mean.

    Args:
        scores: method -> its volumes, such as {"zero-filled": [...], "VarNet": [...]}.
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
        means = (f"{name} {mean_score(part)['ssim']:.3f}" for name, part in scores.items())
        count = "1 volume" if len(names) == 1 else f"{len(names)} volumes"
        title = f"Mean SSIM of {count}: {', '.join(means)}" + _left_out(scores)
    figure = new_figure(
        max(9.6, 3 * (0.8 + 0.4 * len(groups) * len(scores))), 4.2, title=title, synthetic=synthetic
    )
    colours = dict(zip(scores, cycle((ORANGE, BLUE, *COLOURS[2:]))))
    panels = figure.subplots(1, 3)
    for axes, (key, label, better, _) in zip(panels, _FIGURES, strict=True):
        for method_number, (method, part) in enumerate(scores.items()):
            values = {score.volume: getattr(score, key) for score in part}
            offset = (method_number - (len(scores) - 1) / 2) * 0.8 / len(scores)
            for place, members in enumerate(groups.values()):
                _strip(
                    axes,
                    place + offset,
                    np.array([values[name] for name in members]),
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
        axes.set_title(label, fontsize=LABEL, loc="left")
        axes.set_title(_direction(better), fontsize=SMALL, loc="right", color=GREY)
        tidy(axes)
        if key == "nmse":
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
    first: Sequence[VolumeScore],
    second: Sequence[VolumeScore],
    *,
    names: tuple[str, str],
    acquisitions: Mapping[str, str] | None = None,
    title: str = "",
    common: bool = False,
    synthetic: bool = False,
) -> Figure:
    """Compare two runs on the same volumes: each dot a volume, the diagonal no difference.

    A pair with a figure that is not finite enters no mean.

    Args:
        first: the volumes of one run.
        second: the same volumes of the other; with ``common``, others too.
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
        both = {score.volume for score in first} & {score.volume for score in second}
        for name, run in zip(names, (first, second), strict=True):
            if more := len(run) - len(both):
                which = "1 volume" if more == 1 else f"{more} volumes"
                are = "is" if more == 1 else "are"
                remarks.append(f"{which} of {name} alone {are} left out")
        first, second = ([s for s in run if s.volume in both] for run in (first, second))
    volumes = _same_volumes(dict(zip(("first", "second"), (first, second), strict=True)), names)
    pairs = [{score.volume: score for score in run} for run in (first, second)]
    kinds = [(acquisitions or {}).get(volume) or "unknown" for volume in volumes]
    colours = dict(zip(sorted(set(kinds)), cycle(COLOURS)))
    panels = []
    for key, label, better, form in _FIGURES:
        x, y = (np.array([getattr(run[volume], key) for volume in volumes]) for run in pairs)
        wins = int((better * y > better * x).sum())
        text = f"{label}: {_signed(x, y, form)} on average"
        text += f"\n{names[1]} better in {wins} of {len(volumes)}"
        panels.append((x, y, text, better))
        finite = int((np.isfinite(x) & np.isfinite(y)).sum())
        if key != "ssim" and finite < len(volumes):
            remarks.append(f"{label.split(',')[0]}: mean of {_of(finite, len(volumes))} pairs")
    if not title:
        x, y = panels[0][:2]
        count = _of(int((np.isfinite(x) & np.isfinite(y)).sum()), len(volumes))
        title = (
            f"{names[1]} against {names[0]}: SSIM {_signed(x, y, '.4f')} on average, n = {count}"
        )
    if remarks:
        title += "\n" + "; ".join(remarks)
    figure = new_figure(10.5, 4.3, title=title, synthetic=synthetic)
    for axes, (x, y, text, better) in zip(figure.subplots(1, 3), panels, strict=True):
        _scatter(axes, x, y, kinds, colours)
        axes.set_title(text, fontsize=LABEL, loc="left")
        axes.set_xlabel(names[0], fontsize=LABEL)
        axes.set_ylabel(names[1], fontsize=LABEL)
        axes.text(
            *((0.04, 0.96) if better > 0 else (0.96, 0.04)),
            f"{names[1]} better",
            ha="left" if better > 0 else "right",
            va="top" if better > 0 else "bottom",
            transform=axes.transAxes,
            fontsize=SMALL,
            color=GREY,
        )
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


def _left_out(scores: Mapping[str, Sequence[VolumeScore]]) -> str:
    """Name the volumes that some method has no finite figure of, on lines of their own."""
    names = short_names(score.volume for part in scores.values() for score in part)
    lines = []
    for method, part in scores.items():
        no_ssim = {score.volume for score in part if not np.isfinite(score.ssim)}
        for key, label, *_ in _FIGURES:
            broken = [names[s.volume] for s in part if not np.isfinite(getattr(s, key))]
            if not broken or (key != "ssim" and len(broken) == len(no_ssim)):
                continue  # a volume without an SSIM is named once
            which = "not finite" if key == "ssim" else f"{label.split(',')[0]} not finite"
            more = f" and {len(broken) - 3} more" if len(broken) > 3 else ""
            lines.append(f"\n{which}, left out of {method}: {', '.join(broken[:3])}{more}")
    return "".join(lines)


def _direction(better: int) -> str:
    return "higher is better ↑" if better > 0 else "lower is better ↓"


def _same_volumes(
    scores: Mapping[str, Sequence[VolumeScore]], names: Sequence[str] | None = None
) -> list[str]:
    """Return the volumes that all methods scored, sorted; refuse where they differ."""
    shown = names or list(scores)
    sets = [{score.volume for score in part} for part in scores.values()]
    if not sets or not any(sets):
        raise ValueError("there are no scores: give at least one volume")
    for name, volumes in zip(shown[1:], sets[1:], strict=True):
        if odd := sorted(sets[0] ^ volumes):
            raise ValueError(
                f"{shown[0]} and {name} scored different volumes, such as {', '.join(odd[:3])}: "
                "compare the same ones"
            )
    return sorted(sets[0])
