"""The dataset cache: what a dataset holds, so that nobody opens its files to find out.

``dataset_cache.json`` lies in the dataset's folder. Its paths are relative, so that it holds
under any mount point. Sampling and filtering return another, smaller cache and leave the file.
"""

import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from workbench.catalog import SPLITS
from workbench.data.cache_file import CacheFileError, read_cache_file, write_cache_file
from workbench.data.folders import find_dataset
from workbench.data.indexing import index_files
from workbench.data.volume import Problem, Volume, short_names
from workbench.settings import shown

__all__ = [
    "CacheFileError",
    "DatasetCache",
    "build_cache",
    "find_dataset",
    "load_cache",
    "open_cache",
]

CACHE_NAME = "dataset_cache.json"
_PARTIAL_NAME = "dataset_cache.partial.json"
WORKERS = 32
_NAMED = 5


@dataclass(frozen=True)
class DatasetCache:
    """What a dataset, or a part of it, holds.

    Attributes:
        root: the dataset's folder.
        volumes: sorted by path.
        problems: files that were left out.
    """

    root: Path
    volumes: tuple[Volume, ...]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        """Number of volumes."""
        return len(self.volumes)

    def __iter__(self) -> Iterator[Volume]:
        return iter(self.volumes)

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

    @cached_property
    def namesakes(self) -> dict[str, list[str]]:
        """File name -> the paths of the volumes that have it, of names that several have."""
        found: dict[str, list[str]] = {}
        for volume in self.volumes:
            found.setdefault(volume.name, []).append(volume.path)
        return {name: paths for name, paths in found.items() if len(paths) > 1}

    @property
    def acquisitions(self) -> tuple[str, ...]:
        """The acquisitions that occur, sorted."""
        return tuple(sorted({volume.acquisition for volume in self.volumes}))

    @property
    def synthetic(self) -> bool:
        """Whether any volume is a phantom, not a patient's."""
        return any(volume.synthetic for volume in self.volumes)

    def file(self, volume: Volume) -> Path:
        """Return the path of a volume's file."""
        return self.root / volume.path

    def split(self, name: str) -> "DatasetCache":
        """Return the volumes of one split; none where the dataset lacks it.

        Raises:
            ValueError: there is no split of that name.
        """
        if name not in SPLITS:
            raise ValueError(f"split={name!r}: give one of {', '.join(SPLITS)}")
        return self._with(volume for volume in self.volumes if volume.split == name)

    def only(
        self,
        *,
        acquisition: str | Collection[str] | None = None,
        folder: str | None = None,
    ) -> "DatasetCache":
        """Return the volumes of some acquisitions, or of one folder such as ``multicoil_val``.

        Raises:
            ValueError: the dataset has none of them; the message lists what it has.
        """
        part = self
        if acquisition is not None:
            wanted = {acquisition} if isinstance(acquisition, str) else set(acquisition)
            part = part._with(v for v in part.volumes if v.acquisition in wanted)
            if not part.volumes:
                raise ValueError(
                    f"acquisition={acquisition!r}: {shown(self.root)} has "
                    f"{', '.join(self.acquisitions) or 'no volumes'}"
                )
        if folder is not None:
            folders = sorted({v.path.rpartition("/")[0] for v in self.volumes})
            part = part._with(v for v in part.volumes if v.path.rpartition("/")[0] == folder)
            if not part.volumes:
                raise ValueError(f"folder={folder!r}: {shown(self.root)} has {', '.join(folders)}")
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
        return self._with(self.volumes[index] for index in sorted(order[:count]))

    def _with(self, volumes: Iterator[Volume]) -> "DatasetCache":
        return replace(self, volumes=tuple(volumes))


def load_cache(
    root: str | Path, path: str | Path | None = None, *, earlier: bool = False
) -> DatasetCache | None:
    """Load a dataset's cache as it was written, without a look at the files.

    Args:
        root: the dataset's folder.
        path: the cache file where it lies elsewhere; the folder's own is read if it is missing.
        earlier: take a cache of version 1 as well, whose masks may be misread.

    Returns:
        The cache, or None where there is none.

    Raises:
        CacheFileError: the file is damaged or of another version.
    """
    root = Path(root)
    for place in dict.fromkeys((Path(path or root / CACHE_NAME), root / CACHE_NAME)):
        try:
            return DatasetCache(root, *read_cache_file(place, earlier=earlier))
        except FileNotFoundError:
            continue
    return None


def open_cache(
    root: str | Path,
    *,
    check: bool = True,
    path: str | Path | None = None,
    workers: int = WORKERS,
) -> DatasetCache:
    """Use a dataset's cache where it is present and up to date, else bring it there; say which.

    Args:
        root: the dataset's folder.
        check: compare the files' sizes and times with the cache; False trusts it as it is, for
            mounts where each look at a file is a request or where times do not hold.
        path: where the cache file lies, or goes, if not in ``root``.
        workers: threads that read files.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no ``.h5`` file.
    """
    if not check:
        with suppress(CacheFileError):
            cache = load_cache(root, path)
            if cache is not None:
                print(f"Using the dataset cache of {_held(cache)}, unchecked.")
                return cache
    return build_cache(root, path=path, workers=workers)


def build_cache(
    root: str | Path,
    *,
    refresh: bool = True,
    path: str | Path | None = None,
    workers: int = WORKERS,
) -> DatasetCache:
    """Index a dataset, write its cache file, and say in one line what was done.

    An interrupted build leaves what it had read beside the cache file, and the next goes on
    from there. Where the file cannot be written (a read-only mount) the cache is returned all the
    same.

    Args:
        root: the dataset's folder.
        refresh: read only files that are new or changed; False reads every file anew.
        path: where the cache file goes, if not into ``root``.
        workers: threads that read files.

    Raises:
        FileNotFoundError: there is no such folder, or it holds no ``.h5`` file.
    """
    root, place = Path(root), Path(path or Path(root, CACHE_NAME))
    if workers < 1:
        raise ValueError(f"workers={workers}: give 1 or more")
    if not root.is_dir():
        raise FileNotFoundError(f"no dataset at {root}: there is no such folder")
    partial = place.with_name(_PARTIAL_NAME)
    before, remark = _load_or_remark(root, place) if refresh else (None, "")
    known = {volume.path: volume for volume in before or ()}
    if refresh:
        if before is None:
            with suppress(CacheFileError):  # of version 1, the splits hold, and nothing else
                old = load_cache(root, place, earlier=True)
                known = {volume.path: replace(volume, mtime_ns=-1) for volume in old or ()}
        with suppress(FileNotFoundError, CacheFileError):
            known = {volume.path: volume for volume in read_cache_file(partial)[0]} | known

    def save(volumes: tuple[Volume, ...]) -> None:
        with suppress(OSError):
            write_cache_file(partial, volumes)

    index = index_files(root, known, workers=workers, save=save)
    cache = DatasetCache(root, index.volumes, index.problems)
    if cache == before:
        print(f"Using the dataset cache of {_held(cache)}.")
        return cache
    forgotten = len(known.keys() - {volume.path for volume in cache})
    done = f"read {_files(index.read)}" + (f", forgot {forgotten}" if forgotten else "")
    try:
        write_cache_file(place, cache.volumes, cache.problems)
        partial.unlink(missing_ok=True)
        where = f"saved as {shown(place)}"
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        where = f"not saved ({reason}: {shown(place)}); give another `path` to keep it"
    verb = "Built" if before is None else "Refreshed"
    print(f"{remark}{verb} the dataset cache of {_held(cache)}: {done}, {where}.")
    print(left_out(cache), end="")
    return cache


def _load_or_remark(root: Path, place: Path) -> tuple[DatasetCache | None, str]:
    try:
        return load_cache(root, place), ""
    except CacheFileError as error:
        return None, f"{error}, so it is built anew. "


def _held(cache: DatasetCache) -> str:
    problems = f", {_files(len(cache.problems))} left out" if cache.problems else ""
    return f"{shown(cache.root)} ({len(cache):,} volumes, {cache.slices:,} slices{problems})"


def left_out(cache: DatasetCache) -> str:
    """Return lines that name the first files that were left out, with their reasons."""
    lines = [f"  left out: {problem.path}: {problem.reason}" for problem in cache.problems]
    if len(lines) > _NAMED:
        lines[_NAMED:] = [f"  and {len(lines) - _NAMED:,} more, in the cache's `problems`"]
    return "".join(f"{line}\n" for line in lines)


def _files(count: int) -> str:
    return f"{count:,} file" if count == 1 else f"{count:,} files"
