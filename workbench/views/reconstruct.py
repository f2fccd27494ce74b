"""What a reconstruction of a split looks like: tables, distributions, best and worst slices."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING

from workbench.data.masks import mask_of
from workbench.recon.reconstruction_plan import Reconstruction, ReconstructionPlan, open_result
from workbench.views.kspace import kspace_and_mask_figure
from workbench.views.measured import (
    cropped,
    read_image,
    read_measured,
    volume_of,
    zero_filled_slice,
)
from workbench.views.ranking import rank_volumes
from workbench.views.reconstructions import contact_sheet, reconstruction_figure
from workbench.views.scores import comparison_figure, scores_figure
from workbench.views.tables import styled_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas.io.formats.style import Styler

_FORMATS = {"SSIM": "{:.4f}", "PSNR (dB)": "{:.2f}", "NMSE": "{:.4f}", "acceleration": "{:.2f}"}


def score_table(
    results: Sequence[Reconstruction], by: str = "volume", sort_by: str = "ssim"
) -> "Styler":
    """Return figures of zero-filled and VarNet images as a table, the worst volume first.

    Args:
        results: those with a target count.
        by: "volume", or "acquisition" for the means over volumes.
        sort_by: the figure that says which is worse, see ``workbench.views.ranking``.

    Raises:
        ValueError: there is no such figure.
    """
    import pandas

    names = {"ssim": "SSIM", "psnr": "PSNR (dB)", "nmse": "NMSE"}
    rows, remarks = [], []
    for result in rank_volumes(scored(results), sort_by):
        row = {
            ("", "volume"): result.name,
            ("", "acquisition"): result.acquisition,
            ("", "slices"): len(result.slice_ssim),
            ("", "acceleration"): result.acceleration,
        }
        for kind, score in (("zero-filled", result.zero_filled), ("VarNet", result.varnet)):
            figures = asdict(score) if score else {}
            row |= {(kind, label): figures[name] for name, label in names.items()}
        rows.append(row)
    table = pandas.DataFrame(rows)
    table.columns = pandas.MultiIndex.from_tuples(table.columns)
    if by == "acquisition":
        finite = table.where(~table.isin([math.inf, -math.inf]))  # NaN enters no mean
        group = finite.groupby([("", "acquisition")])
        means = group.mean(numeric_only=True).drop(columns=[("", "slices")])
        means.insert(0, ("", "volumes"), group.size())
        means.loc["all"] = finite.mean(numeric_only=True)
        means.loc["all", ("", "volumes")] = len(table)
        counts = group.count()
        counts.loc["all"] = finite.count()
        remarks = [
            f"{' '.join(column)}, {kind}: mean of {counts.loc[kind, column]} of "
            f"{means.loc[kind, ('', 'volumes')]:.0f} volumes, the rest is not finite"
            for column in means
            if column[1] in names.values()
            for kind in means.index
            if counts.loc[kind, column] < means.loc[kind, ("", "volumes")]
        ]
        table = means.astype({("", "volumes"): int})
        table.index.name = "acquisition"
    formats = {column: _FORMATS[column[1]] for column in table if column[1] in _FORMATS}
    style = styled_table(table, formats, index=by == "acquisition")
    return style.set_caption(escape("; ".join(remarks))) if remarks else style


def scored(results: Sequence[Reconstruction]) -> list[Reconstruction]:
    """Return the results that have a target to be scored against."""
    return [result for result in results if result.varnet and result.zero_filled]


def spread_figure(plan: ReconstructionPlan, results: Sequence[Reconstruction]) -> "Figure":
    """Show how the figures spread over volumes and acquisitions, zero-filled beside VarNet."""
    known = scored(results)
    return scores_figure(
        {
            "zero-filled": [result.zero_filled for result in known if result.zero_filled],
            "VarNet": [result.varnet for result in known if result.varnet],
        },
        {result.volume: result.acquisition for result in known},
        synthetic=plan.cache.synthetic,
    )


def against_figure(
    plan: ReconstructionPlan,
    results: Sequence[Reconstruction],
    others: Sequence[Reconstruction],
    names: tuple[str, str],
) -> "Figure":
    """Compare with another run's results on the volumes that both have scored.

    Args:
        plan: what was reconstructed.
        results: its results.
        others: the other run's.
        names: of the other and of this one.

    Raises:
        ValueError: there is no volume that both have scored.
    """
    known = scored(results)
    return comparison_figure(
        [result.varnet for result in scored(others) if result.varnet],
        [result.varnet for result in known if result.varnet],
        names=names,
        acquisitions={result.volume: result.acquisition for result in known},
        common=True,
        synthetic=plan.cache.synthetic,
    )


def extreme_slices(results: Sequence[Reconstruction]) -> list[tuple[str, Reconstruction, int]]:
    """Return the best, the middle and the worst slice by SSIM, each with its volume.

    A slice that has no SSIM because it is not finite comes before them, the first of each volume.
    """
    known = scored(results)
    ranked = sorted(
        (
            (ssim, result.volume, number, result)
            for result in known
            for number, ssim in enumerate(result.slice_ssim)
            if math.isfinite(ssim)
        ),
        key=lambda each: each[:3],
    )
    broken = [
        ("not finite: first such slice", result, numbers[0])
        for result in known
        if (numbers := [n for n, ssim in enumerate(result.slice_ssim) if not math.isfinite(ssim)])
    ]
    places = {"best": -1, "median": len(ranked) // 2, "worst": 0} if ranked else {}
    return broken + [(f"{kind} slice", ranked[at][3], ranked[at][2]) for kind, at in places.items()]


def slice_views(
    plan: ReconstructionPlan, result: Reconstruction, number: int, title: str
) -> Iterator["Figure"]:
    """Show a slice beside its target, and its k-space and mask.

    Yields:
        Images with errors and SSIM maps, then k-space and mask.
    """
    volume = volume_of(plan, result)
    title = f"{title}: {result.name}, slice {number}, {volume.acquisition}"
    kspace, target = read_measured(plan, volume, number)
    mask, low = mask_of(volume, plan.job.sampling)
    filled, image = cropped(zero_filled_slice(volume, kspace, mask), read_image(result, number))
    if target is not None:
        target, filled, image = cropped(target, filled, image)
        yield reconstruction_figure(
            target,
            filled,
            {"VarNet": image},
            title=title,
            data_range=volume.largest or None,
            synthetic=volume.synthetic,
        )
    else:
        yield contact_sheet(
            [filled, image],
            ["zero-filled", "VarNet"],
            title=title,
            synthetic=volume.synthetic,
        )
    yield kspace_and_mask_figure(
        kspace, mask, low_frequencies=low, acquired=volume.acquired, synthetic=volume.synthetic
    )


def sheet_figure(plan: ReconstructionPlan, result: Reconstruction) -> "Figure":
    """Show every slice of a reconstructed volume."""
    with open_result(result.path) as file:
        images = file["reconstruction"][()]
        synthetic = bool(file.attrs["synthetic"])
    labels = [
        f"{number}" + (f": SSIM {result.slice_ssim[number]:.3f}" if result.slice_ssim else "")
        for number in range(len(images))
    ]
    title = f"{result.name}, {result.acquisition}: every slice"
    return contact_sheet(images, labels, title=title, synthetic=synthetic)
