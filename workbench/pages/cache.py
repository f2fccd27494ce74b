"""The page of ``cache.ipynb``: index a dataset, and exchange it with fastMRI's own cache."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import model_validator

from workbench.catalog import DATASETS
from workbench.compute.cluster_run import ClusterRun
from workbench.compute.node import this_node
from workbench.data.cache import (
    DatasetCache,
    build_cache,
    find_dataset,
    is_kept,
    load_cache,
    open_cache,
)
from workbench.data.legacy_cache import compare, read_pickle, write_pickle
from workbench.data.volume import Problem
from workbench.forms.executed import Executed
from workbench.forms.parameters import Field, WrongValueError
from workbench.pages.cluster import TARGET, ClusterPage
from workbench.pages.shared import check_dataset, connection_entry, datasets_here
from workbench.settings import resolve, shown
from workbench.stores import DiskStore, Store, is_address
from workbench.views import overview
from workbench.views.tables import styled_table


@dataclass(frozen=True)
class Indexed:
    """What a dataset holds.

    Attributes:
        cache: its cache.
        official: fastMRI's own (volumes, slices) by split.
        compared: the pickle that was compared, its number of volumes, and the differences.
        exported: the pickle that was written, or None.
    """

    cache: DatasetCache
    official: Mapping[str, tuple[int, int]]
    compared: tuple[Path, int, tuple[Problem, ...]] | None
    exported: Path | None


class CachePage(ClusterPage):
    """Index a dataset; compare and export what is asked for."""

    notebook, start = "cache", "Index"
    secrets = (connection_entry(lambda asked: asked.in_storage),)
    only_here = ("in_storage", "compare_pickle", "export_pickle", "cache_file")

    dataset: str = Field("knee_multicoil", choices=datasets_here)
    """name under datasets/, or the path of a folder"""
    rebuild: bool = False
    """read every file anew"""
    in_storage: bool = Field(False, label="it is in Azure blob storage")
    """the dataset is a folder in Azure blob storage, read by ranges"""
    target: str = Field("local", choices=("local", "azureml"), **TARGET)
    """azureml: on a node of a cluster, which has the dataset from the storage"""

    compare_pickle: str = Field("", section="fastMRI's own cache", label="compare with")
    """fastMRI's dataset_cache.pkl to compare with what is here"""
    export_pickle: str = Field("", label="write")
    """write a dataset_cache.pkl for fastMRI's own SliceDataset to this path"""
    export_root: str = Field("", label="dataset's folder in it")
    """the dataset's folder as fastMRI will be given it; empty: as it is here"""

    official: str = Field("", section="More", label="official counts of", choices=tuple(DATASETS))
    """compare with this dataset's official counts; empty: by the folder's name"""
    check_files: bool = Field(True, label="look for changed files")
    """compare sizes and times with the cache; False trusts it (slow mounts)"""
    cache_file: str = ""
    """where the cache goes if the dataset's folder is read-only"""
    workers: int = Field(32, ge=1, unit="threads")
    """threads that read files"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.dataset:
            raise WrongValueError(
                "dataset", "dataset='': give a name such as knee_multicoil, or a folder's path"
            )
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Nothing where the dataset is a folder here, and is indexed here."""
        elsewhere = self.in_storage or self.target != "local" or is_address(self.dataset)
        return super().needs if elsewhere else ()

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look for the dataset, and the pickle to compare it with."""
        looks: dict[str, Callable[[], object]] = {"compare_pickle": self._find_pickle}
        if not self.in_storage and self.target == "local":
            looks["dataset"] = lambda: check_dataset(self.dataset)
        return looks

    def _find_pickle(self) -> None:
        if self.compare_pickle and not resolve(self.compare_pickle).is_file():
            raise ValueError(f"compare_pickle={self.compare_pickle!r}: no such file")

    def plan(self) -> Store | ClusterRun:
        """Find the dataset, and say what will be done.

        Raises:
            FileNotFoundError: there is no such dataset, or no storage account is given.
        """
        if self.target == "azureml":
            return self.on_node(self.dataset)
        if self.in_storage:
            from workbench.stores.blob import configured_store

            store: Store = configured_store(self.dataset)
        else:
            store = find_dataset(self.dataset)
        how = "reads files that are new or changed"
        if self.rebuild:
            how = "reads every file anew"
        elif not self.check_files:
            how = "trusts the cache that is there"
        print(f"dataset    {shown(store.address)}\nindex      {how}")
        return store

    def work(self, planned: Store | ClusterRun) -> tuple[str, str | None]:
        """Index the dataset and export it; return where its cache lies."""
        if isinstance(planned, ClusterRun):
            return self.follow(planned), None
        path = resolve(self.cache_file) if self.cache_file else None
        workers = self.workers if isinstance(planned, DiskStore) else max(self.workers, 64)
        if self.rebuild:
            cache = build_cache(planned, refresh=False, path=path, workers=workers)
        else:
            cache = open_cache(planned, check=self.check_files, path=path, workers=workers)
        if self.export_pickle:
            written = write_pickle(
                cache, resolve(self.export_pickle), data_path=self.export_root or None
            )
            print(f"Written for fastMRI: {shown(written)}")
        node = this_node()
        if node and node.store:
            cache.save(node.store)
        if not self.in_storage and is_kept(cache, path):
            return planned.address, str(path) if path else None
        # A notebook has no key to the storage, and a folder may not be writable.
        folder = resolve("outputs/cache") / cache.name
        cache.save(folder)
        return str(folder), None

    def result(self, left: tuple[str, str | None]) -> Indexed | Executed:
        """Open what ``work`` left, and compare it."""
        if self.target == "azureml":
            return Executed(Path(left[0]))
        cache = load_cache(*left)
        assert cache is not None
        compared = None
        if self.compare_pickle:
            listed = read_pickle(resolve(self.compare_pickle))
            compared = resolve(self.compare_pickle), len(listed), compare(listed, cache)
        exported = resolve(self.export_pickle) if self.export_pickle else None
        official = overview.official_counts(cache, self.official)
        return Indexed(cache, official, compared, exported)

    def report(self, result: Indexed | Executed) -> str:
        """Count what is there."""
        if isinstance(result, Executed):
            return f": {shown(result.path)}"
        return f": {len(result.cache):,} volumes, {result.cache.slices:,} slices"


# ---- what the cells below show ------------------------------------------------------------


def show_splits(found: Indexed) -> Iterator[Any]:
    """Show volumes and slices by split, against fastMRI's own counts."""
    yield styled_table(overview.split_table(found.cache, found.official))
    if found.official:
        yield overview.completeness_figure(found.cache, found.official)


def show_acquisitions(found: Indexed) -> Iterator[Any]:
    """Show volumes by acquisition."""
    yield styled_table(overview.acquisition_table(found.cache))
    yield overview.distribution_figure(found.cache, "acquisition")


def show_sizes(found: Indexed) -> Iterator[Any]:
    """Show the sizes of k-space, the coils and the slices."""
    for quantity in ("matrix", "coils", "slices"):
        yield overview.distribution_figure(found.cache, quantity)


def show_problems(found: Indexed) -> Iterator[Any]:
    """Show the files that are left out, with the reason."""
    yield f"Files left out: {len(found.cache.problems)}"
    if found.cache.problems:
        yield overview.problem_table(found.cache.problems)


def show_comparison(found: Indexed) -> Iterator[Any]:
    """Show how fastMRI's own cache differs, where one was compared, and what was written for it."""
    if found.compared:
        file, listed, differences = found.compared
        yield f"{shown(file)}: {listed} volumes, differences: {len(differences)}"
        if differences:
            yield overview.problem_table(differences)
    if found.exported:
        yield f"Written for fastMRI: {shown(found.exported)}"
