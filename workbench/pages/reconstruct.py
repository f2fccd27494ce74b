"""The page of ``reconstruct.ipynb``: from a run's weights to reconstructed volumes."""

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from workbench.catalog import SPLITS
from workbench.compute.cluster_plan import ClusterChoices
from workbench.compute.runs import Run, open_run
from workbench.data.cache import CacheFileError, load_cache
from workbench.data.sampling import MASKS, Sampling
from workbench.forms.parameters import Field, Numbers, WrongValueError, concerning
from workbench.models import DEFAULT, NETWORKS, released, trains
from workbench.pages.cluster import TARGET, ClusterPage
from workbench.pages.shared import (
    NetworkName,
    NetworkOptions,
    RunName,
    check_dataset,
    check_sampling,
    datasets_here,
    runs_here,
)
from workbench.progress import count_of, interactive
from workbench.recon.reconstruction_plan import (
    ReconstructionPlan,
    plan_reconstruction,
    reconstruct,
)
from workbench.recon.results import Results
from workbench.recon.uncertainty import check_masks_wanted
from workbench.settings import resolve
from workbench.views.annotations import Annotations, read_annotations
from workbench.views.compared import (
    common_volumes,
    find_compared,
    labels_of,
    left_out_of_comparison,
    parts_of,
    results_that_fit,
    words_of,
)
from workbench.views.comparison import comparing_figure, comparison_table, methods_figure
from workbench.views.export.results import KINDS, export_results
from workbench.views.lesions import lesion_figures, lesion_table
from workbench.views.paired import METHOD, difference_table
from workbench.views.ranking import (
    check_order,
    orders,
    rank_slices,
    rank_volumes,
    score_table,
    slice_table,
)
from workbench.views.reconstructions import extreme_views, sheet_figure
from workbench.views.scores import against_figure, spread_figure
from workbench.views.tables import styled_table
from workbench.views.uncertainty import uncertainty_figures

_OF_LOOKING = {"compare", "make_missing", "sort_by", "annotations", "export"}


def _comparable(_: Any = None) -> list[str]:
    """Return what results can be compared with: networks that learn nothing, and runs."""
    return [*(name for name in NETWORKS if not trains(name)), *runs_here()]


class ReconstructPage(ClusterPage):
    """Reconstruct a split with a run's weights, and look at the results."""

    notebook, start = "reconstruct", "Reconstruct"
    shows_on_nodes = False  # each has a part of the results
    imports = ("workbench.recon.weights", "workbench.models.unet")

    run: RunName | None = Field(None, choices=runs_here)
    """run under outputs/ whose best checkpoint to take; None: brain"""
    split: str = Field("val", choices=SPLITS)
    """train, val, test, challenge; test_full: the brain's test set with targets"""
    network: NetworkName | None = Field(None, choices=lambda _: tuple(NETWORKS))
    """sense, wavelet, tv need no training; None: the run's"""
    volumes: int | None = Field(None, ge=1)
    """how many volumes, the first ones; None: all"""
    compare: str | None = Field(None, label="compare with", choices=_comparable)
    """other results: a run, sense, wavelet, tv, "knee@8x"; commas between"""
    make_missing: bool = Field(False, label="make what is missing")
    """True: runs of compare without such results are reconstructed first"""
    export: str | None = Field(None, choices=KINDS, several=True)
    """such as "png, dicom, report"; the last cell lists all"""
    target: str = Field("local", choices=("local", "azureml"), **TARGET)
    """azureml: on all GPUs of a cluster's nodes, with the dataset in the storage"""

    sort_by: str = Field("ssim", section="Looking", choices=lambda _: tuple(orders()))
    """orders volumes and slices, worst first: ssim, psnr, nmse, gain, ..."""
    uncertainty: int = Field(0, ge=0, unit="masks")
    """masks to draw for maps of uncertainty, such as 8; 0: no maps"""
    annotations: str | None = None
    """path of fastMRI+'s knee.csv or brain.csv"""

    mask: str | None = Field(None, section="Undersampling", choices=MASKS)
    """kind of mask; None: the run's, on test and challenge the files' own"""
    acceleration: Numbers | None = Field(None, numeric=True)
    """such as 4 or 8; None: as for mask"""
    center_fraction: Numbers | None = Field(None, label="centre fraction", numeric=True)
    """share of ACS columns; None: as for mask"""

    weights: str | None = Field(None, section="More", choices=lambda _: tuple(released()))
    """other weights: a file, or as released: fastmri-knee, fastmri-unet-brain, ..."""
    network_options: NetworkOptions | None = None
    """arguments of the network (docs/models.md); None: its defaults"""
    local_dataset: str | None = Field(None, label="dataset", choices=datasets_here)
    """the dataset's folder or name; None: the run's"""
    nodes: int = Field(1, ge=1, unit="machines or processes", aliases=("num_nodes",))
    """machines of the cluster; here without GPUs: that many processes"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what can be checked without a look at a disk."""
        with concerning("sort_by"):
            check_order(self.sort_by)
        with concerning("uncertainty"):
            check_masks_wanted(self.uncertainty)
        return self

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look for the run or the weights, the dataset and the annotations."""
        looks: dict[str, Callable[[], object]] = {"run": self._look_at_run}
        if self.weights and self.weights not in released():
            looks["weights"] = self._find_weights
        if self.local_dataset and self.target == "local":
            looks["local_dataset"] = partial(check_dataset, self.local_dataset)
        if self.annotations:
            looks["annotations"] = partial(read_annotations, self.annotations)
        return looks

    def _look_at_run(self) -> None:
        usual = Sampling()
        named = self.local_dataset or (self.target == "azureml" and self.azure_dataset)
        learns = trains(self.network or DEFAULT)
        alone = named and not learns
        if not self.weights and not alone:
            try:
                usual = open_run(self.run or "brain").job.sampling
            except (ValueError, OSError) as error:
                name = "azure_dataset" if self.target == "azureml" else "local_dataset"
                way = "" if learns else f", or give {name}, which {self.network} needs alone"
                raise WrongValueError("run", f"run={self.run!r}: {error}{way}") from None
        if not self.mask is self.acceleration is self.center_fraction is None:
            check_sampling(self, usual)

    def _find_weights(self) -> None:
        if not resolve(str(self.weights)).is_file():
            raise FileNotFoundError(
                f"weights={self.weights!r}: no such file; give one, or {', '.join(released())}"
            )

    def plan(self) -> list[ReconstructionPlan]:
        """Check everything, see what is there already, and show it: the run's own comes first."""
        own = plan_reconstruction(**self.model_dump(exclude=_OF_LOOKING))
        missing = list(self._missing(own)) if self.make_missing else []
        if missing:
            fits = (
                results_that_fit(part, own.folder, own.order) for part in parts_of(self.compare)
            )
            fit = dict.fromkeys(chain.from_iterable(fits))
            compared = [Results(each) for each in fit if each != own.folder]
        else:
            compared = find_compared(self.compare, own.folder, own.order)
        planned_sets = [Results(each.folder, (), each.order) for each in (own, *missing)]
        if missing or compared:
            labels_of([*planned_sets, *compared])  # or refuses
        for planned in (own, *missing):
            print(planned, flush=True)
        return [own, *missing]

    def _missing(self, own: ReconstructionPlan) -> Iterator[ReconstructionPlan]:
        """Plan the results of ``compare`` that are not there, on the same volumes."""
        for part in parts_of(self.compare):
            if results_that_fit(part, own.folder, own.order):
                continue
            run, _, what = part.partition("@")
            sampling = own.order.sampling
            asked: dict[str, Any] = {"run": run}
            if not trains(run):
                beside = Run(own.folder.parent.parent).name
                asked = {"run": None if beside == own.order.network else beside, "network": run}
            if sampling is not None:
                asked |= {"mask": sampling.mask, "acceleration": list(sampling.accelerations)}
                asked["center_fraction"] = list(sampling.center_fractions)
            words = words_of(what)
            if options := [word for word in words if "=" in word]:
                asked["network_options"] = ", ".join(options)
            for word in (word for word in words if "=" not in word):
                rate = re.fullmatch(r"(\d+(?:\.\d+)?)x", word)
                if not rate and word not in MASKS:
                    raise WrongValueError(
                        "compare", f"compare={part!r}: {word!r} is neither a mask nor such as 8x"
                    )
                asked["acceleration" if rate else "mask"] = float(rate[1]) if rate else word
            yield plan_reconstruction(
                split=self.split,
                local_dataset=self.local_dataset,
                volumes=self.volumes,
                nodes=self.nodes,
                target=self.target,
                **self.model_dump(include={*ClusterChoices.model_fields}),
                **asked,
            )

    def work(self, planned: list[ReconstructionPlan]) -> tuple[str, list[str]]:
        """Reconstruct what is missing; return the results' folder, and which volumes' they are."""
        for line in reconstruct(*planned):
            print(line, flush=True)
        own = planned[0]
        return str(own.folder), [volume.path for volume in own.cache]

    def result(self, left: tuple[str, list[str]]) -> "Reconstructed":
        """Open the results, and what is to be shown beside them.

        The folder may hold others: of volumes that the dataset has no more, say.
        """
        folder, paths = left
        results = Results(Path(folder)).only(paths)
        annotations = read_annotations(self.annotations) if self.annotations else None
        if annotations:
            volumes = [each.volume for each in results]
            with suppress(CacheFileError):  # then these alone say which names are unclear
                volumes = list(load_cache(results.order.dataset) or volumes)
            annotations = annotations.within(volumes)
        compared = tuple(find_compared(self.compare, results.folder, results.order))
        return Reconstructed(results, self, compared, annotations)

    def report(self, result: "Reconstructed") -> str:
        """Count the volumes."""
        return f": {count_of(len(result.results))}"


@dataclass(frozen=True)
class Reconstructed:
    """What a reconstruction left, how to look at it, and what to set beside it."""

    results: Results
    asked: ReconstructPage
    compared: tuple[Results, ...] = ()
    annotations: Annotations | None = None


# ---- what the cells below show ------------------------------------------------------------


def show_scores(done: Reconstructed) -> Iterator[Any]:
    """Show each volume's metrics, the worst first, and the first slices of the same order."""
    if not done.results.scored:
        yield "no volume here has a target"
        return
    yield score_table(done.results, sort_by=done.asked.sort_by)
    ranked = rank_slices(done.results.scored, done.asked.sort_by)
    yield styled_table(slice_table(ranked, most=10))


def show_acquisitions(done: Reconstructed) -> Iterator[Any]:
    """Show the metrics by acquisition, and how they are spread."""
    if done.results.scored:
        yield score_table(done.results, by="acquisition")
        yield spread_figure(done.results)


def show_compared(done: Reconstructed) -> Iterator[Any]:
    """Show the results beside others: a table, figures by acceleration, volume by volume."""
    if not done.compared or not done.results.scored:
        yield "nothing to compare with: give compare, such as other_run or knee@8x"
        return
    sets = [done.results, *done.compared]
    try:
        common_volumes(sets)
    except ValueError as error:
        yield f"not compared: {error}"
        return
    yield left_out_of_comparison(sets) or None
    yield styled_table(comparison_table(sets, done.asked.sort_by), index=False)
    yield styled_table(difference_table(sets), index=False)
    yield METHOD
    yield comparing_figure(sets)
    yield methods_figure(sets)
    for other in done.compared:
        yield against_figure(other, done.results)


def show_extremes(done: Reconstructed) -> Iterator[Any]:
    """Show the best, the median and the worst slice."""
    yield from extreme_views(done.results)


def show_findings(done: Reconstructed) -> Iterator[Any]:
    """Show annotated findings close up, with SSIM inside their boxes beside the whole slices'."""
    findings = done.annotations
    if findings is None:
        yield "no annotations: give the path of fastMRI+'s knee.csv or brain.csv"
        return
    yield from findings.remarks
    for result in done.results:
        if labels := findings.study_labels(result.volume.path):
            yield f"{result.name}, the whole study: {', '.join(labels)}"
    table = lesion_table(done.results, findings)
    if not len(table):
        yield f"{findings.source.name} has no box on a volume here that has a target"
        return
    yield styled_table(table.round(4))
    yield from lesion_figures(done.results, findings)


def show_uncertainty(done: Reconstructed) -> Iterator[Any]:
    """Show where the best, median and worst slice are not to be trusted."""
    if done.asked.uncertainty:
        yield from uncertainty_figures(done.results, done.asked.uncertainty)
    else:
        yield "no maps: give uncertainty, the number of masks to draw, such as 8"


def show_volumes(done: Reconstructed) -> Any:
    """Show every slice: in a viewer, opened from a sorted list; elsewhere a sheet of one volume."""
    if not interactive():
        return sheet_figure(rank_volumes(done.results, done.asked.sort_by)[0])
    from workbench.views.viewer.slice_browser import SliceBrowser

    return SliceBrowser(done.results, done.asked.sort_by, done.annotations)


def show_exports(done: Reconstructed) -> Iterator[str]:
    """Write what was asked for, and say where it is."""
    kinds = parts_of(done.asked.export)
    if not kinds:
        yield f"nothing to export: give export, some of {', '.join(KINDS)}"
    yield from export_results(done.results, kinds)
