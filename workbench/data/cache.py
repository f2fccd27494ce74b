"""The dataset cache: what a dataset holds, so that nobody opens its files to find out.

``dataset_cache.json`` lies in the dataset's folder, on a disk or in blob storage. Its paths are
relative, so that it holds under any mount point. Sampling and filtering return another, smaller
cache and leave the file.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from workbench.catalog import SPLITS
from workbench.data.cache_file import CacheFileError, parse_cache, text_of_cache
from workbench.data.folders import find_dataset
from workbench.data.index import index_files
from workbench.data.reading import fingerprint, read_stack
from workbench.data.volume import Problem, Volume, neighbours_of, short_names
from workbench.settings import shown
from workbench.stores import DiskStore, Source, Store, open_store

__all__ = [
    "CACHE_NAME",
    "CacheFileError",
    "DatasetCache",
    "build_cache",
    "find_dataset",
    "load_cache",
    "open_cache",
    "open_dataset",
]

CACHE_NAME = "dataset_cache.json"
_MOST_BYTES = 2**29
_NAMED = 5


@dataclass(frozen=True)
class DatasetCache:
    """What a dataset, or a part of it, holds: its volumes, in the order of their paths.

    ``dataset[0]``, ``dataset["file1000001.h5"]`` and ``dataset[:3]`` pick volumes, ``split``,
    ``only`` and ``sample_volumes`` parts, ``read`` a slice.

    Attributes:
        store: the dataset's folder.
        volumes: sorted by path.
        problems: the files that were left out, and why.
    """

    store: Store
    volumes: tuple[Volume, ...] = ()
    problems: tuple[Problem, ...] = ()

    def __str__(self) -> str:
        """Say where it is, a folder or a URL, and how much it holds."""
        problems = f", {_files(len(self.problems))} left out" if self.problems else ""
        return f"{self.address} ({len(self):,} volumes, {self.slices:,} slices{problems})"

    def __len__(self) -> int:
        """Number of volumes."""
        return len(self.volumes)

    def __iter__(self) -> Iterator[Volume]:
        return iter(self.volumes)

    @overload
    def __getitem__(self, place: int | str) -> Volume: ...
    @overload
    def __getitem__(self, place: slice) -> "DatasetCache": ...
    def __getitem__(self, place: int | str | slice) -> "Volume | DatasetCache":
        """Return a volume by its number, path or file name; a smaller dataset for a slice.

        Raises:
            IndexError: there is no volume of that number.
            KeyError: there is no volume of that name, or several have it.
        """
        if isinstance(place, slice):
            return self.with_volumes(self.volumes[place])
        if not isinstance(place, str):
            return self.volumes[place]
        found = [each for each in self if place in (each.path, each.name)]
        if len(found) != 1:
            which = f": {', '.join(each.path for each in found)}" if found else ""
            raise KeyError(f"{place}: {len(found) or 'no'} volumes of {self.address}{which}")
        return found[0]

    @property
    def address(self) -> str:
        """The dataset's folder or URL as people read it."""
        return shown(self.store.address)

    @property
    def name(self) -> str:
        """Name of the dataset's folder."""
        return Path(self.store.address).name

    @property
    def slices(self) -> int:
        """Number of slices in all volumes."""
        return sum(volume.slices for volume in self.volumes)

    @property
    def counts(self) -> dict[str, tuple[int, int]]:
        """Split -> (volumes, slices), for the splits that are there."""
        parts = {name: self.split(name) for name in SPLITS}
        return {name: (len(part), part.slices) for name, part in parts.items() if len(part)}

    @cached_property
    def names(self) -> dict[str, str]:
        """Path -> file name, or the path again where several volumes have that file name."""
        return short_names(volume.path for volume in self.volumes)

    @property
    def acquisitions(self) -> tuple[str, ...]:
        """The acquisitions that occur, sorted."""
        return tuple(sorted({volume.acquisition for volume in self.volumes}))

    @property
    def synthetic(self) -> bool:
        """Whether any volume is a phantom, not a patient's."""
        return any(volume.synthetic for volume in self.volumes)

    def source(self, volume: Volume) -> Source:
        """Open a volume's file to be read by byte range; close it after use."""
        return self.store.source(volume.path, volume.size)

    def read(
        self, volume: Volume, number: int, *, neighbours: int = 1
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Read one slice of a volume.

        Args:
            volume: of this dataset.
            number: of the slice, 0 first.
            neighbours: slices whose k-space is read, as ``SliceDataset`` stacks them.

        Returns:
            K-space as stored, (neighbours x coils, readout, phase encode) complex64, and the
            slice's target (height, width) float32, None where the volume has none.

        Raises:
            IndexError: the volume has no such slice.
            OSError: the file cannot be read; the message names it.
        """
        if not 0 <= number < volume.slices:
            raise IndexError(f"slice {number}: {volume.path} has slices 0 to {volume.slices - 1}")
        with closing(self.source(volume)) as source:
            numbers = neighbours_of(number, volume.slices, neighbours)
            kspace, target = read_stack(source, volume, numbers)
        return kspace.reshape(-1, *volume.matrix), target

    def fingerprint(self, volume: Volume) -> str:
        """Return what tells a volume's k-space from another's; OSError where it cannot be read."""
        with closing(self.source(volume)) as source:
            return fingerprint(source, volume)

    def file(self, volume: Volume) -> Path:
        """Return the path of a volume's file; ValueError where the dataset is not on a disk."""
        if not isinstance(self.store, DiskStore):
            raise ValueError(f"{self.address} is not on a disk")
        return self.store.path(volume.path)

    def save(self, store: Store | str | Path, name: str = CACHE_NAME, *, dataset: str = "") -> None:
        """Write the cache's file into a folder; where that refuses, an older one stays.

        ``dataset`` names whose cache it is, for a file that others could take for their own.
        """
        as_store(store).write(name, text_of_cache(self.volumes, self.problems, dataset))

    def split(self, name: str) -> "DatasetCache":
        """Return the volumes of one split; none where the dataset lacks it.

        Raises:
            ValueError: there is no split of that name.
        """
        if name not in SPLITS:
            raise ValueError(f"split={name!r}: give one of {', '.join(SPLITS)}")
        return self.with_volumes(volume for volume in self.volumes if volume.split == name)

    def only(self, *, acquisition: str | Collection[str]) -> "DatasetCache":
        """Return the volumes of some acquisitions; ValueError where there are none."""
        wanted = {acquisition} if isinstance(acquisition, str) else set(acquisition)
        part = self.with_volumes(v for v in self.volumes if v.acquisition in wanted)
        if not part.volumes:
            raise ValueError(
                f"acquisition={acquisition!r}: {self.address} has "
                f"{', '.join(self.acquisitions) or 'no volumes'}"
            )
        return part

    def sample_volumes(self, fraction: float, seed: int) -> "DatasetCache":
        """Draw a fraction of the volumes, at least one, in their old order.

        The draw depends on the seed and the volumes' number alone, and a larger fraction keeps
        the volumes of a smaller one.

        Raises:
            ValueError: the fraction is not above 0 and at most 1.
        """
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction={fraction}: give more than 0 and at most 1")
        count = max(1, round(len(self.volumes) * fraction))
        order = np.random.default_rng(seed).permutation(len(self.volumes))
        return self.with_volumes(self.volumes[index] for index in sorted(order[:count]))

    def with_volumes(self, volumes: Iterable[Volume]) -> "DatasetCache":
        """Return a cache of the same dataset with other volumes."""
        return replace(self, volumes=tuple(volumes))


def as_store(place: Store | str | Path) -> Store:
    """Return a folder as a store; a path is taken as it is."""
    if isinstance(place, Path):
        return DiskStore(place)
    return open_store(place) if isinstance(place, str) else place


def load_cache(
    dataset: Store | str | Path, path: str | Path | None = None, *, earlier: bool = False
) -> DatasetCache | None:
    """Load a dataset's cache as it was written, without a look at the files; None without one.

    Args:
        dataset: its folder.
        path: the cache file where it lies elsewhere; the folder's own is read if it is missing.
        earlier: take a cache of version 1 as well, whose masks may be misread.

    Raises:
        CacheFileError: the file is damaged, of another version or of another dataset.
        OSError: the store refuses or cannot be reached.
    """
    store = as_store(dataset)
    mine = _whose(store)
    for place, name in dict.fromkeys((_place(store, path), (store, CACHE_NAME))):
        content = _read(place, name)
        if content is not None:
            found = parse_cache(content, _shown(place, name), earlier=earlier, dataset=mine)
            return DatasetCache(store, *found)
    return None


def _whose(store: Store) -> str:
    """Return what tells a dataset from others: its address, of a folder without links."""
    return str(store.root.resolve()) if isinstance(store, DiskStore) else store.address


def is_kept(cache: DatasetCache, path: str | Path | None = None) -> bool:
    """Say whether a cache lies whole where ``load_cache`` finds it."""
    try:
        return load_cache(cache.store, path) == cache
    except (CacheFileError, OSError):
        return False


def _place(store: Store, path: str | Path | None) -> tuple[Store, str]:
    """Return the folder and the name of a cache file."""
    return (DiskStore(Path(path).parent), Path(path).name) if path else (store, CACHE_NAME)


def _shown(store: Store, name: str) -> str:
    return shown(f"{store.address}/{name}")


def _read(store: Store, name: str) -> bytes | None:
    entry = store.entry(name)
    is_other = entry is None and isinstance(store, DiskStore) and store.path(name).exists()
    if is_other or (entry and entry.size > _MOST_BYTES):
        what = "it is no file" if is_other else "it is too large"
        raise CacheFileError(f"{_shown(store, name)} is no dataset cache: {what}")
    return store.read(name) if entry else None


def open_dataset(where: str | Path, *, check: bool = True) -> DatasetCache:
    """Open a dataset: its volumes, read from its cache, which is made where it is missing.

    Args:
        where: the name of a dataset below ``datasets/`` such as "knee_multicoil", a folder, or an
            address: https:// in blob storage, s3:// or gs://. A relative folder counts from the
            project's root.
        check: compare the files' sizes and times with the cache; see ``open_cache``.

    Returns:
        The dataset, see ``DatasetCache``. What was done is printed in one line.

    Raises:
        FileNotFoundError: there is no such dataset, or it holds no ``.h5`` file.
        OSError: the storage refuses or cannot be reached.
    """
    return open_cache(find_dataset(where), check=check)


def open_cache(
    dataset: Store | str | Path,
    *,
    check: bool = True,
    path: str | Path | None = None,
    workers: int | None = None,
) -> DatasetCache:
    """Use a dataset's cache where it is present and up to date, else bring it there; say which.

    Args:
        dataset: its folder.
        check: compare the files' sizes and times with the cache: in storage by listing them, 5,000
            a request. False trusts it as it is, for mounts where each look at a file is a request
            or where times do not hold.
        path: where the cache file lies, or goes, if not in the dataset's folder. It says whose it
            is: that of another dataset is built anew.
        workers: see ``build_cache``, also for what is raised.
    """
    store = as_store(dataset)
    if not check:
        with suppress(CacheFileError):
            cache = load_cache(store, path)
            if cache is not None:
                print(f"Using the dataset cache of {cache}, unchecked.")
                return cache
    return build_cache(store, path=path, workers=workers)


def build_cache(
    dataset: Store | str | Path,
    *,
    refresh: bool = True,
    path: str | Path | None = None,
    workers: int | None = None,
) -> DatasetCache:
    """Index a dataset, write its cache file, and say in one line what was done.

    An interrupted build leaves what it had read beside the cache file, and the next goes on
    from there. Where the file cannot be written (a read-only mount) the cache is returned all the
    same.

    Args:
        dataset: its folder.
        refresh: read only files that are new or changed; False reads every file anew.
        path: where the cache file goes, if not into the dataset's folder.
        workers: files that are read at a time; by default what the store is good for.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no ``.h5`` file.
        OSError: the storage refuses or cannot be reached.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers={workers}: give 1 or more")
    store = as_store(dataset)
    place, name = _place(store, path)
    mine, partial_name = _whose(store), f"{Path(name).stem}.partial.json"
    whose = "" if place == store else mine  # in the dataset's folder it holds wherever that goes
    before, remark = None, ""
    known: dict[str, Volume] = {}  # path -> what need not be read again
    if refresh:
        with suppress(CacheFileError):
            if (partial := _read(place, partial_name)) is not None:
                known = {v.path: v for v in parse_cache(partial, partial_name, dataset=mine)[0]}
        try:
            before = load_cache(store, path)
            known |= {volume.path: volume for volume in before or ()}
        except CacheFileError as error:
            remark = f"{error}, so it is built anew. "
            with suppress(CacheFileError):  # of version 1, the splits hold, and nothing else
                old = load_cache(store, path, earlier=True) or ()
                known = {v.path: replace(v, mtime_ns=-1) for v in old} | known

    def save(volumes: tuple[Volume, ...]) -> None:
        with suppress(OSError):
            DatasetCache(store, volumes).save(place, partial_name, dataset=whose)

    volumes, problems, read = index_files(store, known, workers=workers, save=save)
    cache = DatasetCache(store, volumes, problems)
    if cache == before:
        print(f"Using the dataset cache of {cache}.")
        return cache
    forgotten = len(known.keys() - {volume.path for volume in cache})
    done = f"read {_files(read)}" + (f", forgot {forgotten}" if forgotten else "")
    try:
        cache.save(place, name, dataset=whose)
        with suppress(OSError):  # some may write there and not delete
            place.delete(partial_name)
        where = f"saved as {_shown(place, name)}"
    except OSError as error:
        where = f"not saved: {error}; give another `path` to keep it"
    verb = "Built" if before is None else "Refreshed"
    print(f"{remark}{verb} the dataset cache of {cache}: {done}, {where}.")
    lines = [f"  left out: {problem.path}: {problem.reason}" for problem in problems]
    if len(lines) > _NAMED:
        lines[_NAMED:] = [f"  and {len(lines) - _NAMED:,} more, in the cache's `problems`"]
    print("".join(f"{line}\n" for line in lines), end="")
    return cache


def _files(count: int) -> str:
    return f"{count:,} file" if count == 1 else f"{count:,} files"
