"""Runs, accelerations and masks side by side: any folders of results, by their names."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.compute.here import ranks_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
from workbench.data.cache import DatasetCache, load_cache
from workbench.recon.metrics import VolumeScore
from workbench.recon.reconstruction_plan import (
    Reconstruction,
    ReconstructionJob,
    ReconstructionPlan,
    find_result,
    read_results,
)
from workbench.settings import shown
from workbench.views.ranking import check_order
from workbench.views.style import COLOURS, GREY, LABEL, SMALL, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

ORDER = "reconstruction.json"
_KINDS = ("varnet", "zero_filled")
_FIGURES = (("ssim", "SSIM"), ("psnr", "PSNR, dB"), ("nmse", "NMSE"))


@dataclass(frozen=True)
class ResultSet:
    """The results in one folder.

    Attributes:
        run: name of the run or weights.
        plan: what was reconstructed.
        results: one a volume.
    """

    run: str
    plan: ReconstructionPlan
    results: tuple[Reconstruction, ...]

    @property
    def name(self) -> str:
        """Run and folder, which tell it from all others."""
        return f"{self.run}@{self.plan.folder.name}"

    @property
    def weights(self) -> str:
        """File of the weights, and the first digits of its SHA256."""
        return f"{Path(self.plan.job.weights).name} {self.plan.job.weights_sha256[:8]}"

    @property
    def sampling(self) -> str:
        """How k-space was undersampled, for people."""
        return str(self.plan.job.sampling or "each file's own mask")

    @property
    def acceleration(self) -> float:
        """True acceleration, the mean over volumes."""
        return float(np.mean([result.acceleration for result in self.results]))

    def only(self, volumes: Sequence[str]) -> "ResultSet":
        """Return the results of some volumes."""
        kept = tuple(result for result in self.results if result.volume in set(volumes))
        return replace(self, results=kept)

    def scores(self, kind: str) -> list[VolumeScore]:
        """Return the volumes' figures, ``kind`` being "varnet" or "zero_filled"."""
        return [score for result in self.results if (score := getattr(result, kind))]


def open_results(folder: Path) -> ResultSet:
    """Open a folder of results that was reconstructed earlier.

    Raises:
        FileNotFoundError: it holds none.
        ValueError: what it says of itself is damaged.
    """
    try:
        job = ReconstructionJob.from_json((folder / ORDER).read_text())
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{shown(folder / ORDER)} is damaged: {error}") from None
    cache = load_cache(folder, earlier=True) or DatasetCache(folder, ())
    there = replace(
        cache,
        root=Path(job.dataset),
        volumes=tuple(volume for volume in cache if find_result(folder, volume)),
    )
    if not there.volumes:
        raise FileNotFoundError(f"{shown(folder)} holds no results: run reconstruct.ipynb for it")
    plan = ReconstructionPlan(job, there, folder, ranks_here(1), Run(folder))
    return ResultSet(
        Run(folder.parent.parent).name,
        plan,
        tuple(read_results(folder, there)),
    )


def own_results(plan: ReconstructionPlan, results: Sequence[Reconstruction]) -> ResultSet:
    """Return a plan's results as a set to compare with others."""
    return ResultSet(Run(plan.folder.parent.parent).name, plan, tuple(results))


def labels_of(sets: Sequence[ResultSet]) -> list[str]:
    """Return a label for each set: its run, and what else tells it from the others.

    The rest is whichever differs of mask, acceleration and centre fraction, and the weights where
    sets of one run were made with several. No two labels are alike.
    """
    several = _runs_with_several_weights(sets)
    parts = []
    for each in sets:
        sampling = each.plan.job.sampling
        mask, rates, centres = "own masks", "", ""
        if sampling:
            mask, rates = sampling.mask, ", ".join(f"{r:g}x" for r in sampling.accelerations)
            centres = "centre " + ", ".join(f"{f:g}" for f in sampling.center_fractions)
        weights = f"weights {each.weights}" if each.run in several else ""
        parts.append((each.run, each.plan.job.split, mask, rates, centres, weights))
    differ = [0, *(n for n in range(1, 6) if len({part[n] for part in parts}) > 1)]
    labels = [", ".join(part[n] for n in differ if part[n]) for part in parts]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{each.name}, {each.weights}" if each.run in several else each.name for each in sets]


def _runs_with_several_weights(sets: Sequence[ResultSet]) -> set[str]:
    made = {(each.run, each.plan.job.weights_sha256) for each in sets}
    runs = [run for run, _ in made]
    return {run for run in runs if runs.count(run) > 1}


def results_of_run(run: str) -> list[Path]:
    """Return the folders of a run's results, sorted by name."""
    found = (run_folder(run, "compare") / "reconstructions").glob(f"*/{ORDER}")
    return sorted(path.parent for path in found)


def find_compared(compare: str | None, plan: ReconstructionPlan) -> list[ResultSet]:
    """Read the parameter ``compare``: results to set beside a plan's.

    Each part, with commas between them, is a run's name, ``RUN``, for its results of the plan's
    split and mask; or ``RUN@WHAT``, where WHAT picks others by what their folder's name holds:
    ``knee@8x``, ``knee@random``, ``knee@random-8x``. All that fit are taken.

    Raises:
        ValueError: it is no text.
        FileNotFoundError: there is nothing that fits; the message says what there is.
    """
    if compare is None:
        return []
    if not isinstance(compare, str) or not compare.strip(" ,"):
        raise ValueError(f"compare={compare!r}: give runs, such as other_run or knee@8x")
    folders: dict[Path, None] = {}
    for part in filter(None, (part.strip() for part in compare.split(","))):
        folders |= dict.fromkeys(_folders(part, plan))
    folders.pop(plan.folder, None)
    return [open_results(folder) for folder in folders]


def _folders(part: str, plan: ReconstructionPlan) -> list[Path]:
    run, _, what = part.partition("@")
    there = results_of_run(run)
    if not what:
        found = [folder for folder in there if folder.name == plan.folder.name]
    else:
        wanted = set(re.split(r"[-@]", what))
        split = [f for f in there if f.name.split("-")[0] == plan.job.split]
        found = [f for f in split if f.name == what or wanted <= set(f.name.split("-"))]
    if not found:
        names = ", ".join(f"{run}@{folder.name}" for folder in there)
        advice = f"it has {names}" if names else f"{run} has no results"
        raise FileNotFoundError(
            f"compare={part!r}: nothing of split {plan.job.split} fits; {advice}. "
            "Run this notebook for what is missing"
        )
    return found


def common_volumes(sets: Sequence[ResultSet]) -> list[ResultSet]:
    """Cut sets down to the volumes that all of them have scored.

    Raises:
        ValueError: there is none.
    """
    every = [_scored(each) for each in sets]
    common = sorted(set.intersection(*every)) if every else []
    if not common:
        raise ValueError(
            f"the results have no volume with a target in common: {', '.join(labels_of(sets))}"
        )
    return [each.only(common) for each in sets]


def _scored(each: ResultSet) -> set[str]:
    return {result.volume for result in each.results if result.varnet and result.zero_filled}


def left_out_of_comparison(sets: Sequence[ResultSet]) -> str:
    """Say which sets have scored more volumes than those that all have; "" where none has.

    Raises:
        ValueError: there is no volume that all have scored.
    """
    count = len(common_volumes(sets)[0].results)
    more = [
        f"{label} has {len(_scored(each))}"
        for label, each in zip(labels_of(sets), sets, strict=True)
        if len(_scored(each)) > count
    ]
    only = "the 1 volume" if count == 1 else f"the {count} volumes"
    return f"Compared on {only} that all have scored: {', '.join(more)}." if more else ""


def _means(sets: Sequence[ResultSet]) -> list[dict[tuple[str, str], tuple[float, int]]]:
    """Form means of sets of the same volumes: (kind, figure) -> mean, and of how many volumes.

    A volume whose figure is not finite in one set is left out of that figure's mean in all of them.
    """
    means: list[dict[tuple[str, str], tuple[float, int]]] = [{} for _ in sets]
    for kind in _KINDS:
        for figure, _ in _FIGURES:
            values = np.array(
                [
                    [
                        getattr(score, figure)
                        for score in sorted(each.scores(kind), key=lambda score: score.volume)
                    ]
                    for each in sets
                ]
            )
            known = values[:, np.isfinite(values).all(axis=0)]
            for row, mean in zip(known, means, strict=True):
                count = len(row)
                mean[kind, figure] = (math.fsum(row) / count if count else math.nan, count)
    return means


def _written(mean: float, count: int, total: int, form: str) -> str:
    return f"{mean:{form}}" if count == total else f"{mean:{form}} (of {count})"


def comparison_table(sets: Sequence[ResultSet], sort_by: str = "ssim") -> "DataFrame":
    """Tabulate sets of results by run and acceleration: means over the volumes that all have.

    A mean over fewer volumes than the column "volumes" says, because a figure is not finite, has
    their number beside it.

    Raises:
        ValueError: there is no such figure, or no volume that all have.
    """
    from pandas import DataFrame, MultiIndex

    name, _ = check_order(sort_by)
    sets = sorted(common_volumes(sets), key=lambda one: (one.acceleration, one.name))
    means, several = _means(sets), _runs_with_several_weights(sets)
    if name in ("ssim", "psnr", "nmse"):
        order = sorted(range(len(sets)), key=lambda n: np.nan_to_num(means[n]["varnet", name][0]))
        sets, means = [sets[n] for n in order], [means[n] for n in order]
    alike = len({(each.run, each.sampling, each.weights) for each in sets}) < len(sets)
    rows = []
    for each, mean in zip(sets, means, strict=True):
        row: dict[tuple[str, str], object] = {
            ("", "run"): each.name if alike else each.run,
            **({("", "weights"): each.weights} if several else {}),
            ("", "sampling"): each.sampling,
            ("", "true acceleration"): f"{each.acceleration:.2f}",
            ("", "volumes"): len(each.results),
        }
        for kind, label in (("zero_filled", "zero-filled"), ("varnet", "VarNet")):
            total = len(each.results)
            row |= {
                (label, "SSIM"): _written(*mean[kind, "ssim"], total, ".4f"),
                (label, "PSNR (dB)"): _written(*mean[kind, "psnr"], total, ".2f"),
                (label, "NMSE"): _written(*mean[kind, "nmse"], total, ".4f"),
            }
        rows.append(row)
    table = DataFrame(rows)
    table.columns = MultiIndex.from_tuples(table.columns)
    return table


def acceleration_figure(sets: Sequence[ResultSet]) -> "Figure":
    """Plot mean SSIM, PSNR and NMSE over the true acceleration, a line a run, zero-filled dashed.

    Raises:
        ValueError: there is no volume that all have.
    """
    left_out = left_out_of_comparison(sets)
    sets = common_volumes(sets)
    means, several = _means(sets), _runs_with_several_weights(sets)
    count = len(sets[0].results)
    volumes = "1 volume" if count == 1 else f"{count} volumes"
    finite = {
        label: least
        for figure, label in _FIGURES
        if (least := min(count for _, count in (means[0][k, figure] for k in _KINDS))) < count
    }
    title = f"The faster the scan, the less is left: {len(sets)} results on the same {volumes}"
    notes = [left_out] if left_out else []
    notes += [
        f"{label}: mean of {least}, the rest is not finite" for label, least in finite.items()
    ]
    figure = new_figure(
        10.5,
        4.1,
        title="\n".join((title, *notes)),
        synthetic=any(each.plan.cache.synthetic for each in sets),
    )
    panels = figure.subplots(1, 3)
    lines = [
        f"{_line_of(each)}, {each.weights}" if each.run in several else _line_of(each)
        for each in sets
    ]
    runs = list(dict.fromkeys(lines))
    for axes, (figure_name, label) in zip(panels, _FIGURES, strict=True):
        for number, line in enumerate(runs):
            part = sorted(
                (n for n in range(len(sets)) if lines[n] == line),
                key=lambda n: sets[n].acceleration,
            )
            colour = COLOURS[(number + 1) % len(COLOURS)] if number else COLOURS[0]
            for kind, style in zip(_KINDS, ("o-", "o--"), strict=True):
                axes.plot(
                    [sets[n].acceleration for n in part],
                    [means[n][kind, figure_name][0] for n in part],
                    style,
                    color=colour,
                    alpha=1.0 if kind == "varnet" else 0.5,
                    markersize=6,
                    mfc=colour if kind == "varnet" else "none",
                    label=f"{line}, {'VarNet' if kind == 'varnet' else 'zero-filled'}",
                )
        axes.set_title(label, fontsize=LABEL, loc="left")
        better = "lower is better ↓" if figure_name == "nmse" else "higher is better ↑"
        axes.set_title(better, fontsize=SMALL, loc="right", color=GREY)
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


def _line_of(each: ResultSet) -> str:
    """Name the line that a set of results belongs to: its run and form of mask."""
    form = each.plan.job.sampling.mask if each.plan.job.sampling else "own masks"
    return f"{each.run}, {form}"
