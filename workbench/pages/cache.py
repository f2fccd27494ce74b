"""The page of ``cache.ipynb``: index a dataset, and exchange it with fastMRI's own cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.catalog import DATASETS
from workbench.data.cache import DatasetCache, build_cache, find_dataset, open_cache
from workbench.data.legacy_cache import compare, read_pickle, write_pickle
from workbench.data.volume import Problem
from workbench.forms.layout import datasets_here
from workbench.forms.page import Look, OpenPage, Page, Values, open_page
from workbench.forms.storage_secret import connection_entry
from workbench.settings import resolve, shown
from workbench.stores import Store, is_address
from workbench.views.tables import styled_table


@dataclass(frozen=True)
class CacheRequest:
    """A checked order for a dataset's cache.

    Attributes:
        dataset: the dataset's folder, here or in storage.
        official: dataset to compare with; "" goes by the folder's name.
        rebuild: read every file anew.
        check_files: compare sizes and times.
        cache_file: where the cache goes; None for the dataset's folder.
        workers: threads.
        compare_pickle: fastMRI's cache to compare with, or None.
        export_pickle: where to write one, or None.
        export_root: the dataset's folder as fastMRI will be given it, or None.
    """

    dataset: Store
    official: str
    rebuild: bool
    check_files: bool
    cache_file: Path | None
    workers: int
    compare_pickle: Path | None
    export_pickle: Path | None
    export_root: str | None


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


def check(values: Values) -> None:
    """Check what can be checked without a look at the files.

    Raises:
        ValueError: a parameter is outside what is allowed.
        FileNotFoundError: a file that is to be read is missing.
    """
    if not str(values["dataset"]).strip():
        raise ValueError("dataset='': give a name such as knee_multicoil, or a folder's path")
    if values["official"] and values["official"] not in DATASETS:
        raise ValueError(f"official={values['official']!r}: give one of {', '.join(DATASETS)}")
    if type(values["workers"]) is not int or values["workers"] < 1:
        raise ValueError(f"workers={values['workers']!r}: give 1 or more")
    pickle = values["compare_pickle"]
    if pickle and not resolve(pickle).is_file():
        raise FileNotFoundError(f"compare_pickle={pickle!r}: no such file")


def plan(
    *,
    dataset: str,
    in_storage: bool,
    official: str,
    rebuild: bool,
    check_files: bool,
    cache_file: str,
    workers: int,
    compare_pickle: str,
    export_pickle: str,
    export_root: str,
) -> CacheRequest:
    """Check a notebook's parameters, find the dataset, and say what will be done.

    Raises:
        ValueError: a parameter is outside what is allowed.
        FileNotFoundError: there is no such dataset, or no storage account is given.
    """
    check(locals())
    if in_storage:
        from workbench.stores.blob import configured_store

        place: Store = configured_store(dataset)
    else:
        place = find_dataset(dataset)
    how = (
        "reads every file anew"
        if rebuild
        else "reads files that are new or changed"
        if check_files or in_storage
        else "trusts the cache that is there"
    )
    print(f"dataset    {shown(place.address)}\nindex      {how}")
    return CacheRequest(
        place,
        official,
        rebuild,
        check_files,
        resolve(cache_file) if cache_file else None,
        workers,
        resolve(compare_pickle) if compare_pickle else None,
        resolve(export_pickle) if export_pickle else None,
        export_root or None,
    )


def work(request: CacheRequest) -> Indexed:
    """Index the dataset; compare and export what is asked for."""
    from workbench.views.overview import official_counts

    cache = _cache(request)
    compared = exported = None
    if request.compare_pickle:
        listed = read_pickle(request.compare_pickle)
        differences = tuple(compare(listed, cache))
        compared = request.compare_pickle, len(listed), differences
    if request.export_pickle:
        exported = Path(write_pickle(cache, request.export_pickle, data_path=request.export_root))
        print(f"Written for fastMRI: {shown(exported)}")
    return Indexed(cache, official_counts(cache, request.official), compared, exported)


def _cache(request: CacheRequest) -> DatasetCache:
    workers, path = request.workers, request.cache_file
    if is_address(request.dataset.address):
        return build_cache(
            request.dataset, refresh=not request.rebuild, path=path, workers=max(workers, 64)
        )
    if request.rebuild:
        return build_cache(request.dataset, refresh=False, path=path, workers=workers)
    return open_cache(request.dataset, check=request.check_files, path=path, workers=workers)


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
    notebook="cache",
    address="workbench.pages.cache:PAGE",
    start="Index",
    check=check,
    plan=plan,
    work=work,
    report=lambda found: f": {len(found.cache):,} volumes, {found.cache.slices:,} slices",
    common=("dataset", "rebuild", "in_storage"),
    groups={
        "fastMRI's own cache": ("compare_pickle", "export_pickle", "export_root"),
        "More": ("official", "check_files", "cache_file", "workers"),
    },
    looks={
        "dataset": Look(choices=datasets_here),
        "official": Look("official counts of", choices=lambda: tuple(DATASETS), only_these=True),
        "in_storage": Look("it is in Azure blob storage"),
        "rebuild": Look("read every file anew"),
        "check_files": Look("look for changed files"),
        "workers": Look(unit="threads"),
        "compare_pickle": Look("compare with dataset_cache.pkl"),
        "export_pickle": Look("write a dataset_cache.pkl"),
        "export_root": Look("dataset's folder in it"),
    },
    secrets=(connection_entry(lambda values: bool(values["in_storage"])),),
)
