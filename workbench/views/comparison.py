"""Runs, accelerations and masks side by side: any folders of results, by their names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from workbench.compute.here import ranks_here
from workbench.compute.jobs import run_folder
from workbench.compute.runs import Run
from workbench.dataset.cache import DatasetCache, load_cache
from workbench.settings import shown
from workbench.varnet.metrics import VolumeScore, mean_score
from workbench.varnet.reconstruction_plan import (
    Reconstruction,
    ReconstructionJob,
    ReconstructionPlan,
    read_result,
)
from workbench.views.ranking import check_order
from workbench.views.style import COLOURS, GREY, LABEL, SMALL, new_figure, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

ORDER = "reconstruction.json"
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
    cache = load_cache(folder) or DatasetCache(folder, ())
    there = replace(
        cache,
        root=Path(job.dataset),
        volumes=tuple(volume for volume in cache if (folder / volume.name).exists()),
    )
    if not there.volumes:
        raise FileNotFoundError(f"{shown(folder)} holds no results: run reconstruct.ipynb for it")
    plan = ReconstructionPlan(job, there, folder, ranks_here(1), Run(folder))
    return ResultSet(
        Run(folder.parent.parent).name,
        plan,
        tuple(read_result(folder / volume.name) for volume in there),
    )


def results_of_run(run: str) -> list[Path]:
    """Return the folders of a run's results, sorted by name."""
    found = (run_folder(run) / "reconstructions").glob(f"*/{ORDER}")
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
    scored = [
        {result.volume for result in each.results if result.varnet and result.zero_filled}
        for each in sets
    ]
    common = sorted(set.intersection(*scored)) if scored else []
    if not common:
        raise ValueError("the results have no volume with a target in common")
    return [each.only(common) for each in sets]


def comparison_table(sets: Sequence[ResultSet], sort_by: str = "ssim") -> "DataFrame":
    """Tabulate sets of results by run and acceleration: means over the volumes that all have.

    Raises:
        ValueError: there is no such figure, or no volume that all have.
    """
    from pandas import DataFrame, MultiIndex

    name, _ = check_order(sort_by)
    sets = common_volumes(sets)
    rows = []
    for each in sorted(sets, key=lambda one: (one.acceleration, one.name)):
        row: dict[tuple[str, str], object] = {
            ("", "run"): each.run,
            ("", "sampling"): each.sampling,
            ("", "true acceleration"): f"{each.acceleration:.2f}",
            ("", "volumes"): len(each.results),
        }
        for kind, label in (("zero_filled", "zero-filled"), ("varnet", "VarNet")):
            mean = mean_score(each.scores(kind))
            row |= {
                (label, "SSIM"): f"{mean['ssim']:.4f}",
                (label, "PSNR (dB)"): f"{mean['psnr']:.2f}",
                (label, "NMSE"): f"{mean['nmse']:.4f}",
            }
        rows.append(row)
    table = DataFrame(rows)
    table.columns = MultiIndex.from_tuples(table.columns)
    if name in ("ssim", "psnr", "nmse"):
        column = ("VarNet", {"ssim": "SSIM", "psnr": "PSNR (dB)", "nmse": "NMSE"}[name])
        table = table.iloc[table[column].astype(float).argsort(kind="stable")]
    return table.reset_index(drop=True)


def acceleration_figure(sets: Sequence[ResultSet]) -> "Figure":
    """Plot mean SSIM, PSNR and NMSE over the true acceleration, a line a run, zero-filled dashed.

    Raises:
        ValueError: there is no volume that all have.
    """
    sets = common_volumes(sets)
    count = len(sets[0].results)
    volumes = "1 volume" if count == 1 else f"{count} volumes"
    figure = new_figure(
        10.5,
        4.1,
        title=f"The faster the scan, the less is left: {len(sets)} results on the same {volumes}",
        synthetic=any(each.plan.cache.synthetic for each in sets),
    )
    panels = figure.subplots(1, 3)
    runs = list(dict.fromkeys(_line_of(each) for each in sets))
    for axes, (figure_name, label) in zip(panels, _FIGURES, strict=True):
        for number, line in enumerate(runs):
            part = sorted(
                (each for each in sets if _line_of(each) == line), key=lambda e: e.acceleration
            )
            colour = COLOURS[(number + 1) % len(COLOURS)] if number else COLOURS[0]
            for kind, style in (("varnet", "o-"), ("zero_filled", "o--")):
                axes.plot(
                    [each.acceleration for each in part],
                    [mean_score(each.scores(kind))[figure_name] for each in part],
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
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, frameon=False, fontsize=SMALL)
    return figure


def _line_of(each: ResultSet) -> str:
    """Name the line that a set of results belongs to: its run and form of mask."""
    form = each.plan.job.sampling.mask if each.plan.job.sampling else "own masks"
    return f"{each.run}, {form}"
