"""The page of ``reconstruct.ipynb``: from a run's weights to reconstructed volumes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from workbench.catalog import SPLITS
from workbench.compute.jobs import run_folder
from workbench.compute.runs import open_run
from workbench.data.cache import CacheFileError, load_cache
from workbench.data.sampling import MASKS, Sampling, numbers
from workbench.forms.layout import datasets_here, runs_here
from workbench.forms.page import Look, OpenPage, Page, Values, open_page
from workbench.recon.reconstruction_plan import (
    ReconstructionPlan,
    plan_reconstruction,
    reconstruct,
    results,
)
from workbench.recon.results import Results
from workbench.recon.uncertainty import check_masks_wanted
from workbench.recon.weights import RELEASED
from workbench.views.annotations import Annotations, read_annotations
from workbench.views.comparison import (
    acceleration_figure,
    common_volumes,
    comparison_table,
    find_compared,
    labels_of,
    left_out_of_comparison,
)
from workbench.views.export.results import KINDS, export_kinds, export_results
from workbench.views.ranking import check_order, orders, rank_slices, rank_volumes, slice_table
from workbench.views.tables import styled_table


@dataclass(frozen=True)
class Looks:
    """What to show of results, and what to take away.

    Attributes:
        compared: other results to set beside them.
        sort_by: the metric that orders volumes and slices.
        uncertainty: masks to draw for the maps of uncertainty; 0 for none.
        annotations: findings to draw, or None.
        export: kinds of ``workbench.views.export.results``.
    """

    compared: tuple[Results, ...] = ()
    sort_by: str = "ssim"
    uncertainty: int = 0
    annotations: Annotations | None = None
    export: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction left.

    Attributes:
        results: a result for each volume.
        looks: how to look at it.
    """

    results: Results
    looks: Looks


def reconstruct_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the reconstruction at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def check(values: Values) -> None:
    """Check what can be checked without a look at weights or volumes.

    Raises:
        ValueError: a parameter is outside what is allowed.
        FileNotFoundError: there is no such run.
    """
    check_order(values["sort_by"])
    check_masks_wanted(values["uncertainty"])
    export_kinds(values["export"])
    if values["annotations"]:
        read_annotations(values["annotations"])
    if values["split"] not in SPLITS:
        raise ValueError(f"split={values['split']!r}: give one of {', '.join(SPLITS)}")
    for name in ("volumes", "nodes"):
        value = values[name]
        if value is not None and value < 1:
            raise ValueError(f"{name}={value!r}: give a whole number, 1 or more")
    run = values["run"]
    if run:
        run_folder(run, "run")
    job = None
    if not values["weights"]:
        try:
            job = open_run(run or "brain").job
        except FileNotFoundError as error:
            raise FileNotFoundError(f"run={run!r}: {error}") from None
    rates = values["acceleration"], values["center_fraction"]
    if values["mask"] is rates[0] is rates[1] is None:
        return
    usual = job.sampling if job else Sampling()
    accelerations, fractions = (
        default if given is None else numbers(name, given)
        for name, given, default in (
            ("acceleration", rates[0], usual.accelerations),
            ("center_fraction", rates[1], usual.center_fractions),
        )
    )
    Sampling(values["mask"] or usual.mask, accelerations, fractions)


def plan(
    *,
    compare: str | None,
    sort_by: str,
    uncertainty: int,
    annotations: str | None,
    export: str | None,
    **values: Any,
) -> tuple[ReconstructionPlan, Looks]:
    """Check everything, see what is there already, and show it."""
    looking = {"sort_by": sort_by, "uncertainty": uncertainty, "export": export}
    check({**values, **looking, "annotations": annotations})
    kinds, masks = export_kinds(export), check_masks_wanted(uncertainty)
    findings = read_annotations(annotations) if annotations else None
    found = plan_reconstruction(**values)
    if findings:
        with suppress(CacheFileError):  # then its part alone says which names are unclear
            findings = findings.within(load_cache(found.cache.root) or found.cache)
    looks = Looks(tuple(find_compared(compare, found.folder)), sort_by, masks, findings, kinds)
    print(found, flush=True)
    return found, looks


def work(asked: tuple[ReconstructionPlan, Looks]) -> Reconstructed:
    """Reconstruct what is missing, and read the results."""
    planned, looks = asked
    for line in reconstruct(planned):
        print(line, flush=True)
    return Reconstructed(results(planned), looks)


# ---- what the cells below show ------------------------------------------------------------


def show_scores(done: Reconstructed) -> None:
    """Show each volume's metrics, the worst first, and the first slices of the same order."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    if not done.results.scored:
        print("no volume here has a target")
        return
    display(views.score_table(done.results, sort_by=done.looks.sort_by))
    ranked = rank_slices(done.results.scored, done.looks.sort_by)
    display(styled_table(slice_table(ranked, most=10)))


def show_acquisitions(done: Reconstructed) -> Any:
    """Show the metrics by acquisition, and how they are spread."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    if done.results.scored:
        display(views.score_table(done.results, by="acquisition"))
        display(views.spread_figure(done.results))


def show_compared(done: Reconstructed) -> None:
    """Show the results beside others: a table, figures by acceleration, volume by volume."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    if not done.looks.compared or not done.results.scored:
        print("nothing to compare with: give compare, such as other_run or knee@8x")
        return
    sets = [done.results, *done.looks.compared]
    try:
        common_volumes(sets)
    except ValueError as error:
        print(f"not compared: {error}")
        return
    if left_out := left_out_of_comparison(sets):
        print(left_out)
    display(styled_table(comparison_table(sets, done.looks.sort_by), index=False))
    display(acceleration_figure(sets))
    for other in done.looks.compared:
        names = labels_of([other, done.results])
        display(views.against_figure(done.results, other, (names[0], names[1])))


def show_extremes(done: Reconstructed) -> None:
    """Show the best, the median and the worst slice."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    for kind, result, number in views.extreme_slices(done.results):
        for figure in views.slice_views(result, number, kind):
            display(figure)


def show_findings(done: Reconstructed) -> None:
    """Show annotated findings close up, with SSIM inside their boxes beside the whole slices'."""
    from IPython.display import display

    from workbench.views.lesions import lesion_figures, lesion_table

    findings = done.looks.annotations
    if findings is None:
        print("no annotations: give the path of fastMRI+'s knee.csv or brain.csv")
        return
    for remark in findings.remarks:
        print(remark)
    for result in done.results:
        if labels := findings.study_labels(result.volume.path):
            print(f"{result.name}, the whole study: {', '.join(labels)}")
    table = lesion_table(done.results, findings)
    if not len(table):
        print(f"{findings.source.name} has no box on a volume here that has a target")
        return
    display(styled_table(table.round(4)))
    for figure in lesion_figures(done.results, findings):
        display(figure)


def show_uncertainty(done: Reconstructed) -> None:
    """Show where the best, median and worst slice are not to be trusted."""
    from IPython.display import display

    from workbench.views.uncertainty import uncertainty_figures

    if not done.looks.uncertainty:
        print("no maps: give uncertainty, the number of masks to draw, such as 8")
        return
    for figure in uncertainty_figures(done.results, done.looks.uncertainty):
        display(figure)


def show_volumes(done: Reconstructed) -> Any:
    """Show every slice: in a viewer, opened from a sorted list; elsewhere a sheet of one volume."""
    from workbench.progress import interactive
    from workbench.views import reconstruct as views

    looks = done.looks
    if interactive():
        from workbench.views.viewer.slice_browser import SliceBrowser

        return SliceBrowser(done.results, looks.sort_by, looks.annotations)
    return views.sheet_figure(rank_volumes(done.results, looks.sort_by)[0])


def show_exports(done: Reconstructed) -> None:
    """Write what was asked for, and say where it is."""
    if not done.looks.export:
        print(f"nothing to export: give export, some of {', '.join(KINDS)}")
    for line in export_results(done.results, done.looks.export):
        print(line, flush=True)


PAGE = Page(
    notebook="reconstruct",
    address="workbench.pages.reconstruct:PAGE",
    start="Reconstruct",
    check=check,
    plan=plan,
    work=work,
    report=lambda done: f": {len(done.results)} volumes",
    common=("run", "split", "volumes", "compare", "export"),
    groups={
        "Looking": ("sort_by", "uncertainty", "annotations"),
        "Undersampling": ("mask", "acceleration", "center_fraction"),
        "More": ("weights", "local_dataset", "nodes"),
    },
    looks={
        "run": Look(choices=runs_here),
        "weights": Look(choices=lambda: tuple(RELEASED)),
        "split": Look(choices=lambda: SPLITS, only_these=True),
        "local_dataset": Look("dataset", choices=datasets_here),
        "mask": Look(choices=lambda: MASKS, only_these=True),
        "center_fraction": Look("centre fraction"),
        "compare": Look("compare with", choices=runs_here),
        "export": Look(choices=lambda: KINDS, several=True),
        "sort_by": Look("sort by", choices=lambda: tuple(orders())),
        "uncertainty": Look(unit="masks"),
        "nodes": Look(unit="processes"),
    },
)
