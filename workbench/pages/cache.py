"""The page of ``cache.ipynb``: index a dataset, and exchange it with fastMRI's own cache."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from workbench.catalog import DATASETS
from workbench.data.cache import DatasetCache, build_cache, find_dataset, load_cache, open_cache
from workbench.data.cache_file import CacheFileError
from workbench.data.legacy_cache import compare, read_pickle, write_pickle
from workbench.data.volume import Problem
from workbench.forms.choices import datasets_here
from workbench.forms.opening import OpenPage, open_page
from workbench.forms.page import Page
from workbench.forms.parameters import Field, Parameters, WrongValueError
from workbench.forms.secrets import connection_entry
from workbench.settings import resolve, shown
from workbench.stores import Store
from workbench.views.tables import styled_table


class CacheParameters(Parameters):
    """What ``cache.ipynb`` asks for."""

    notebook: ClassVar[str] = "cache"

    dataset: str = Field(
        "knee_multicoil", "name under datasets/, or the path of a folder", choices=datasets_here
    )
    rebuild: bool = Field(False, "read every file anew")
    in_storage: bool = Field(
        False,
        "the dataset is a folder in Azure blob storage, read by ranges",
        label="it is in Azure blob storage",
    )
    compare_pickle: str = Field(
        "",
        "fastMRI's dataset_cache.pkl to compare with what is here",
        section="fastMRI's own cache",
        label="compare with dataset_cache.pkl",
    )
    export_pickle: str = Field(
        "",
        "write a dataset_cache.pkl for fastMRI's own SliceDataset to this path",
        label="write a dataset_cache.pkl",
    )
    export_root: str = Field(
        "",
        "the dataset's folder as fastMRI will be given it; empty: as it is here",
        label="dataset's folder in it",
    )
    official: str = Field(
        "",
        "compare with this dataset's official counts; empty: by the folder's name",
        section="More",
        label="official counts of",
        choices=tuple(DATASETS),
    )
    check_files: bool = Field(
        True,
        "compare sizes and times with the cache; False trusts it (slow mounts)",
        label="look for changed files",
    )
    cache_file: str = Field("", "where the cache goes if the dataset's folder is read-only")
    workers: int = Field(32, "threads that read files", ge=1, unit="threads")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.dataset:
            raise WrongValueError(
                "dataset", "dataset='': give a name such as knee_multicoil, or a folder's path"
            )
        if self.compare_pickle and not resolve(self.compare_pickle).is_file():
            raise WrongValueError(
                "compare_pickle", f"compare_pickle={self.compare_pickle!r}: no such file"
            )
        return self


@dataclass(frozen=True)
class Indexed:
    """What a dataset holds.

    Attributes:
        cache: its cache.
        official: fastMRI's own (volumes, slices) by split.
        compared: the pickle that was compared, and its differences; None where there was none.
        exported: the pickle that was written, or None.
    """

    cache: DatasetCache
    official: Mapping[str, tuple[int, int]]
    compared: tuple[Path, int, tuple[Problem, ...]] | None
    exported: Path | None


def cache_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the index at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def plan(parameters: CacheParameters) -> tuple[CacheParameters, Store]:
    """Find the dataset, and say what will be done.

    Raises:
        FileNotFoundError: there is no such dataset, or no storage account is given.
    """
    if parameters.in_storage:
        from workbench.stores.blob import configured_store

        store: Store = configured_store(parameters.dataset)
    else:
        store = find_dataset(parameters.dataset)
    how = "reads files that are new or changed"
    if parameters.rebuild:
        how = "reads every file anew"
    elif not parameters.check_files and not parameters.in_storage:
        how = "trusts the cache that is there"
    print(f"dataset    {shown(store.address)}\nindex      {how}")
    return parameters, store


def work(planned: tuple[CacheParameters, Store]) -> dict[str, Any]:
    """Index the dataset; compare and export what is asked for."""
    asked, store = planned
    path = resolve(asked.cache_file) if asked.cache_file else None
    workers = max(asked.workers, 64) if asked.in_storage else asked.workers
    if asked.rebuild or asked.in_storage:
        cache = build_cache(store, refresh=not asked.rebuild, path=path, workers=workers)
    else:
        cache = open_cache(store, check=asked.check_files, path=path, workers=workers)
    left: dict[str, Any] = {"folder": store.address, "file": path and str(path)}
    if asked.in_storage or not _is_kept(cache, path):
        # A notebook has no key to the storage, and a folder may not be writable.
        folder = resolve("outputs/cache") / cache.name
        cache.save(folder)
        left = {"folder": str(folder), "file": None}
    if asked.compare_pickle:
        listed = read_pickle(resolve(asked.compare_pickle))
        differences = [asdict(each) for each in compare(listed, cache)]
        left["compared"] = {"listed": len(listed), "differences": differences}
    if asked.export_pickle:
        path = resolve(asked.export_pickle)
        left["exported"] = str(write_pickle(cache, path, data_path=asked.export_root or None))
        print(f"Written for fastMRI: {shown(left['exported'])}")
    return left


def _is_kept(cache: DatasetCache, path: Path | None) -> bool:
    """Say whether a cache lies whole where it belongs."""
    try:
        return load_cache(cache.store, path) == cache
    except (CacheFileError, OSError):
        return False


def open_indexed(left: Mapping[str, Any], asked: CacheParameters) -> Indexed:
    """Open what ``work`` left."""
    from workbench.views.overview import official_counts

    cache = load_cache(left["folder"], left["file"])
    assert cache is not None
    compared = None
    if found := left.get("compared"):
        differences = tuple(Problem(**each) for each in found["differences"])
        compared = resolve(asked.compare_pickle), found["listed"], differences
    exported = Path(left["exported"]) if "exported" in left else None
    return Indexed(cache, official_counts(cache, asked.official), compared, exported)


# ---- what the cells below show ------------------------------------------------------------


def show_splits(found: Indexed) -> None:
    """Show volumes and slices by split, against fastMRI's own counts."""
    from IPython.display import display

    from workbench.views import overview

    display(styled_table(overview.split_table(found.cache, found.official)))
    if found.official:
        display(overview.completeness_figure(found.cache, found.official))


def show_acquisitions(found: Indexed) -> None:
    """Show volumes by acquisition."""
    from IPython.display import display

    from workbench.views import overview

    display(styled_table(overview.acquisition_table(found.cache)))
    display(overview.distribution_figure(found.cache, "acquisition"))


def show_sizes(found: Indexed) -> None:
    """Show the sizes of k-space, the coils and the slices."""
    from IPython.display import display

    from workbench.views import overview

    for quantity in ("matrix", "coils", "slices"):
        display(overview.distribution_figure(found.cache, quantity))


def show_problems(found: Indexed) -> None:
    """Show the files that are left out, with the reason."""
    from IPython.display import display

    from workbench.views import overview

    print(f"Files left out: {len(found.cache.problems)}")
    if found.cache.problems:
        display(overview.problem_table(found.cache.problems))


def show_comparison(found: Indexed) -> None:
    """Show how fastMRI's own cache differs, where one was compared, and what was written for it."""
    from IPython.display import display

    from workbench.views import overview

    if found.compared:
        file, listed, differences = found.compared
        print(f"{shown(file)}: {listed} volumes, differences: {len(differences)}")
        if differences:
            display(overview.problem_table(differences))
    if found.exported:
        print(f"Written for fastMRI: {shown(found.exported)}")


PAGE = Page(
    CacheParameters,
    "Index",
    plan,
    work,
    open_indexed,
    report=lambda found: f": {len(found.cache):,} volumes, {found.cache.slices:,} slices",
    secrets=(connection_entry(lambda asked: asked.in_storage),),
)
