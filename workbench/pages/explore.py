"""The page of ``explore.ipynb``: a volume, a slice, and how to undersample it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from workbench.compute.cluster_run import ClusterRun
from workbench.data.cache import CACHE_NAME, DatasetCache, is_kept, load_cache, open_cache
from workbench.data.cache_file import CacheFileError
from workbench.data.folders import find_dataset
from workbench.data.sampling import MASKS, Sampling
from workbench.forms.executed import Executed
from workbench.forms.parameters import Field
from workbench.pages.cluster import TARGET, ClusterPage
from workbench.pages.shared import check_dataset, check_sampling, datasets_here
from workbench.settings import resolve, shown
from workbench.stores import Store, is_address
from workbench.views import explore
from workbench.views.annotations import Annotations, grades_in_words, read_annotations
from workbench.views.explored import ExploredSlice, find_slice, find_volume, open_slice
from workbench.views.header import (
    attribute_table,
    header_table,
    repetitions_in_words,
    volume_table,
)
from workbench.views.tables import styled_table


def _index(asked: "ExplorePage") -> DatasetCache | None:
    """Return what is known of the dataset without reading its files."""
    if is_address(asked.dataset):
        return None
    return load_cache(find_dataset(asked.dataset, announce=False))


def _volumes(asked: "ExplorePage") -> Sequence[str]:
    cache = _index(asked)
    return [cache.names[volume.path] for volume in cache] if cache else []


def _slices(asked: "ExplorePage") -> Sequence[str]:
    cache = _index(asked)
    return [str(n) for n in range(find_volume(cache, asked.volume).slices)] if cache else []


class ExplorePage(ClusterPage):
    """Choose a slice, and how to undersample it."""

    notebook, start, at_once = "explore", "Show", True
    only_here = ("annotations",)
    imports = ("workbench.data.masks", "workbench.data.reading")

    dataset: str = Field("brain_multicoil", choices=datasets_here)
    """name under datasets/, or a folder's path"""
    volume: str = Field("", numeric=True, choices=_volumes)
    """file name, or the number it ends with; empty takes the first validation volume"""
    slice_number: int = Field(-1, label="slice", choices=_slices)
    """0 is the first, -1 the middle one"""
    mask: str = Field("equispaced", choices=MASKS)
    """kind of mask, such as random; an unknown kind is refused with the list"""
    acceleration: float = Field(4.0, ge=1, lt=100)
    """one line of so many is measured; 1 or more"""
    center_fraction: float = Field(0.08, label="centre fraction", gt=0, lt=1)
    """share of lines around the centre that are always measured"""
    annotations: str | None = None
    """path of fastMRI+'s knee.csv or brain.csv: findings are drawn as boxes"""
    target: str = Field("local", choices=("local", "azureml"), **TARGET)
    """azureml: on a node of a cluster, which has the dataset from the storage"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_sampling(self, Sampling())
        return self

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look for the dataset, the volume and its slice, and the annotations."""
        if self.target == "azureml":
            return {}
        return {
            "dataset": lambda: check_dataset(self.dataset),
            "slice_number": self._look_for_slice,
            "annotations": self._findings,
        }

    def _look_for_slice(self) -> None:
        try:
            cache = _index(self)
        except (ValueError, OSError):
            return  # the dataset's look says so
        if cache:
            find_slice(cache, self.volume, self.slice_number)

    def _look_in_storage(self, data: Store) -> None:
        """Look for volume and slice where somebody has indexed the dataset there."""
        try:
            cache = load_cache(data)
        except CacheFileError:
            return  # the node makes it anew
        if cache:
            find_slice(cache, self.volume, self.slice_number)

    @property
    def _sampling(self) -> Sampling:
        return Sampling(self.mask, (self.acceleration,), (self.center_fraction,))

    def _findings(self) -> Annotations | None:
        return read_annotations(self.annotations) if self.annotations else None

    def plan(self) -> ClusterRun | None:
        """Say what will be shown."""
        if self.target == "azureml":
            return self.on_node(self.dataset, self._look_in_storage)
        print(f"dataset    {self.dataset}\nmask       {self._sampling}", flush=True)
        return None

    def work(self, planned: ClusterRun | None) -> tuple[str, str | None]:
        """Read the slice once, which indexes the dataset where nobody has; say where it lies."""
        if planned:
            return self.follow(planned), None
        cache = open_cache(find_dataset(self.dataset))
        seen = open_slice(cache, self.volume, self.slice_number)
        print(f"{seen.title} of {seen.volume.slices}", flush=True)
        if is_kept(cache):
            return cache.store.address, None
        folder = resolve("outputs/cache") / cache.name  # the dataset's may not be writable
        cache.save(folder)
        return cache.store.address, str(folder / CACHE_NAME)

    def result(self, left: tuple[str, str | None]) -> ExploredSlice | Executed:
        """Open the slice, or what a node showed of it."""
        if self.target == "azureml":
            return Executed(Path(left[0]))
        cache = load_cache(*left)
        assert cache is not None
        seen = open_slice(cache, self.volume, self.slice_number)
        findings = self._findings()
        findings = findings and findings.within([seen.volume, *seen.namesakes])
        return replace(seen, sampling=self._sampling, findings=findings)

    def report(self, result: ExploredSlice | Executed) -> str:
        """Name the slice."""
        if isinstance(result, Executed):
            return f": {shown(result.path)}"
        return f": {result.title}"


# ---- what the cells below show ------------------------------------------------------------


def show_volume(seen: ExploredSlice) -> Iterator[Any]:
    """Show the volume's sizes and scan, and where its numbers are not finite."""
    yield styled_table(volume_table(seen.volume), left=True)
    yield repetitions_in_words(seen.file, seen.volume)
    yield from seen.bad


def show_findings(seen: ExploredSlice) -> Iterator[Any]:
    """Show what radiologists found: PI-RADS grades that the volume holds, and annotations."""
    findings, graded = seen.findings, grades_in_words(seen.volume, seen.number)
    if graded:
        yield graded
    if findings is None:
        if not graded:
            yield "annotations=None: no findings to show"
        return
    yield from findings.remarks
    labels = "; ".join(findings.study_labels(seen.volume.path))
    yield f"whole study: {labels or 'nothing said'}"
    yield explore.annotated_figure(seen, findings) or "no boxes on this volume"


def show_header(seen: ExploredSlice) -> Iterator[Any]:
    """Show everything that the file says of itself."""
    yield styled_table(header_table(seen.file), left=True)
    yield styled_table(attribute_table(seen.file), left=True)
