"""The page of ``reconstruct.ipynb``: from a run's weights to reconstructed volumes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from workbench.catalog import SPLITS
from workbench.compute.runs import open_run
from workbench.data.cache import CacheFileError, load_cache
from workbench.data.sampling import MASKS, Sampling
from workbench.forms.choices import datasets_here, runs_here
from workbench.forms.opening import OpenPage, open_page
from workbench.forms.page import Page
from workbench.forms.parameters import Field, Numbers, Parameters, WrongValueError, concerning
from workbench.models import released
from workbench.pages.checks import RunName, check_sampling
from workbench.recon.reconstruction_plan import (
    ReconstructionPlan,
    plan_reconstruction,
    reconstruct,
)
from workbench.recon.results import Results
from workbench.recon.uncertainty import check_masks_wanted
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


class ReconstructParameters(Parameters):
    """What ``reconstruct.ipynb`` asks for."""

    notebook: ClassVar[str] = "reconstruct"

    run: RunName | None = Field(
        None, "run under outputs/ whose best checkpoint to take; None: brain", choices=runs_here
    )
    split: str = Field(
        "val",
        "train, val, test, challenge; test_full: the brain's test set with targets",
        choices=SPLITS,
    )
    volumes: int | None = Field(None, "how many volumes, the first ones; None: all", ge=1)
    compare: str | None = Field(
        None,
        'other results: a run, or "knee@8x" for its results at 8x, with commas between',
        label="compare with",
        choices=runs_here,
    )
    export: str | None = Field(
        None,
        "png, svg, gif, dicom, nifti, leaderboard, report",
        choices=KINDS,
        several=True,
    )
    sort_by: str = Field(
        "ssim",
        "orders volumes and slices, worst first: ssim, psnr, nmse, gain, ...",
        section="Looking",
        label="sort by",
        choices=lambda: tuple(orders()),
    )
    uncertainty: int = Field(
        0, "masks to draw for maps of uncertainty, such as 8; 0: no maps", ge=0, unit="masks"
    )
    annotations: str | None = Field(None, "path of fastMRI+'s knee.csv or brain.csv")
    mask: str | None = Field(
        None,
        "kind of mask; None: the run's, on test and challenge the files' own",
        section="Undersampling",
        choices=MASKS,
    )
    acceleration: Numbers | None = Field(
        None, "such as 4 or 8; None: as for mask", also=(int, float, list, tuple)
    )
    center_fraction: Numbers | None = Field(
        None,
        "share of ACS columns; None: as for mask",
        label="centre fraction",
        also=(int, float, list, tuple),
    )
    weights: str | None = Field(
        None,
        "other weights: a file, or fastmri-knee, fastmri-brain (as released)",
        section="More",
        choices=lambda: tuple(released()),
    )
    local_dataset: str | None = Field(
        None,
        "the dataset's folder or name; None: the run's",
        label="dataset",
        choices=datasets_here,
    )
    nodes: int = Field(1, "processes on this machine where it has no GPU", ge=1, unit="processes")

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what can be checked without a look at weights or volumes."""
        with concerning("sort_by"):
            check_order(self.sort_by)
        with concerning("uncertainty"):
            check_masks_wanted(self.uncertainty)
        with concerning("annotations"):
            if self.annotations:
                read_annotations(self.annotations)
        usual = Sampling()
        if not self.weights:
            try:
                usual = open_run(self.run or "brain").job.sampling
            except (ValueError, OSError) as error:
                raise WrongValueError("run", f"run={self.run!r}: {error}") from None
        if not self.mask is self.acceleration is self.center_fraction is None:
            check_sampling(self.mask, self.acceleration, self.center_fraction, usual)
        return self


@dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction left, and what is to be shown of it.

    Attributes:
        results: a result for each volume.
        asked: how to look at them.
        compared: other results to set beside them.
        annotations: findings to draw, or None.
    """

    results: Results
    asked: ReconstructParameters
    compared: tuple[Results, ...] = ()
    annotations: Annotations | None = None

    @property
    def export(self) -> tuple[str, ...]:
        """Kinds of ``workbench.views.export.results``."""
        return export_kinds(self.asked.export)


def reconstruct_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the reconstruction at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


_OF_LOOKING = {"compare", "sort_by", "uncertainty", "annotations", "export"}


def plan(parameters: ReconstructParameters) -> ReconstructionPlan:
    """Check everything, see what is there already, and show it."""
    found = plan_reconstruction(**parameters.model_dump(exclude=_OF_LOOKING))
    find_compared(parameters.compare, found.folder)
    print(found, flush=True)
    return found


def work(planned: ReconstructionPlan) -> str:
    """Reconstruct what is missing; return the results' folder."""
    for line in reconstruct(planned):
        print(line, flush=True)
    return str(planned.folder)


def open_reconstructed(folder: str, asked: ReconstructParameters) -> Reconstructed:
    """Open what ``work`` left, and what is to be shown beside it."""
    results = Results(Path(folder)).first(asked.volumes)
    annotations = read_annotations(asked.annotations) if asked.annotations else None
    if annotations:
        volumes = [each.volume for each in results]
        with suppress(CacheFileError):  # then these alone say which names are unclear
            volumes = list(load_cache(results.order.dataset) or volumes)
        annotations = annotations.within(volumes)
    compared = tuple(find_compared(asked.compare, results.folder))
    return Reconstructed(results, asked, compared, annotations)


# ---- what the cells below show ------------------------------------------------------------


def show_scores(done: Reconstructed) -> None:
    """Show each volume's metrics, the worst first, and the first slices of the same order."""
    from IPython.display import display

    from workbench.views import reconstruct as views

    if not done.results.scored:
        print("no volume here has a target")
        return
    display(views.score_table(done.results, sort_by=done.asked.sort_by))
    ranked = rank_slices(done.results.scored, done.asked.sort_by)
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

    if not done.compared or not done.results.scored:
        print("nothing to compare with: give compare, such as other_run or knee@8x")
        return
    sets = [done.results, *done.compared]
    try:
        common_volumes(sets)
    except ValueError as error:
        print(f"not compared: {error}")
        return
    if left_out := left_out_of_comparison(sets):
        print(left_out)
    display(styled_table(comparison_table(sets, done.asked.sort_by), index=False))
    display(acceleration_figure(sets))
    for other in done.compared:
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

    findings = done.annotations
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

    if not done.asked.uncertainty:
        print("no maps: give uncertainty, the number of masks to draw, such as 8")
        return
    for figure in uncertainty_figures(done.results, done.asked.uncertainty):
        display(figure)


def show_volumes(done: Reconstructed) -> Any:
    """Show every slice: in a viewer, opened from a sorted list; elsewhere a sheet of one volume."""
    from workbench.progress import interactive
    from workbench.views import reconstruct as views

    if interactive():
        from workbench.views.viewer.slice_browser import SliceBrowser

        return SliceBrowser(done.results, done.asked.sort_by, done.annotations)
    return views.sheet_figure(rank_volumes(done.results, done.asked.sort_by)[0])


def show_exports(done: Reconstructed) -> None:
    """Write what was asked for, and say where it is."""
    if not done.export:
        print(f"nothing to export: give export, some of {', '.join(KINDS)}")
    for line in export_results(done.results, done.export):
        print(line, flush=True)


PAGE = Page(
    ReconstructParameters,
    "Reconstruct",
    plan,
    work,
    open_reconstructed,
    report=lambda done: f": {len(done.results)} volumes",
)
