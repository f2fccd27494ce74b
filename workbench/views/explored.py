"""A slice of a volume, found by what a person gives: dataset, volume, slice number."""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from workbench.data.cache import DatasetCache, find_dataset, open_cache
from workbench.data.images import crop_size, finite
from workbench.data.masks import mask_of
from workbench.data.reading import read_kspace, read_slice
from workbench.data.sampling import Sampling, numbers
from workbench.data.volume import Volume
from workbench.views.kspace import acs_columns


@dataclass(frozen=True)
class ExploredSlice:
    """A slice and where it comes from.

    Attributes:
        file: the volume's path.
        volume: what the dataset cache knows of it.
        number: slice number, 0 first.
        kspace: (coils, H, W) complex64, as the volume's own mask leaves it.
        target: (h, w) float32; None in volumes without one, as in the test split.
        namesakes: other volumes of the dataset that have its file name.
        bad: where numbers were not finite, as sentences; they are 0 here, so that the rest is seen.
    """

    file: Path
    volume: Volume
    number: int
    kspace: np.ndarray
    target: np.ndarray | None
    namesakes: tuple[Volume, ...] = ()
    bad: tuple[str, ...] = ()

    def other(self, number: int) -> "ExploredSlice":
        """Read another slice of the volume."""
        return replace(_read(self.file, self.volume, number), namesakes=self.namesakes)

    @property
    def title(self) -> str:
        """Volume and slice, as figures name them."""
        said = ", without numbers that are not finite" if self.bad else ""
        return f"{self.name}, slice {self.number}{said}"

    @property
    def name(self) -> str:
        """The volume's file name; its path where other volumes have that name."""
        return self.volume.path if self.namesakes else self.volume.name

    @property
    def crop(self) -> tuple[int, int]:
        """Size of its images."""
        size = crop_size(self.volume.matrix, self.volume.recon[:2])
        shape = size if self.target is None else self.target.shape
        return min(size[0], shape[0]), min(size[1], shape[1])

    @property
    def data_range(self) -> float:
        """The volume's largest target value; the slice's own where the volume does not say."""
        return (
            self.volume.largest or (0.0 if self.target is None else float(self.target.max())) or 1.0
        )

    @property
    def acquired(self) -> tuple[int, int]:
        """First acquired column and the one after the last."""
        return self.volume.acquired

    @property
    def undersampled(self) -> bool:
        """Whether it was stored undersampled, with its own mask, as test volumes are."""
        return self.volume.mask is not None

    def mask(self, sampling: Sampling) -> tuple[np.ndarray, int]:
        """Return the columns (W,) that are kept and the number of ACS columns.

        An undersampled volume has its own mask, whatever the sampling.
        """
        mask, low_frequencies = mask_of(self.volume, None if self.undersampled else sampling)
        start, stop = acs_columns(mask, low_frequencies)
        return mask, stop - start


def open_slice(dataset: str | int, volume: str | int = "", slice_number: int = -1) -> ExploredSlice:
    """Read a slice of a dataset.

    Args:
        dataset: name or path.
        volume: file name, with or without ``.h5``, or the number that it ends with; the first
            validation volume by default.
        slice_number: 0 first; -1 takes the middle.

    Raises:
        FileNotFoundError: there is no such dataset.
        ValueError: there is no such volume or slice; the message says what there is.
    """
    if isinstance(dataset, bool) or not isinstance(dataset, str | int | Path):
        raise ValueError(f"dataset={dataset!r}: give a name such as knee_multicoil, or a path")
    if isinstance(slice_number, bool) or not isinstance(slice_number, int):
        raise ValueError(f"slice_number={slice_number!r}: give a whole number; -1 takes the middle")
    # On papermill's command line a name of digits alone comes as a number.
    where = str(dataset) if isinstance(dataset, int) else dataset
    cache = open_cache(find_dataset(where))
    return read_explored(cache, find_volume(cache, volume), slice_number)


def find_volume(cache: DatasetCache, name: str | int = "") -> Volume:
    """Return the volume of a file name or path; without one the first of validation, else of all.

    A number finds the one volume whose name ends with it, zeros before it aside: papermill's
    command line makes numbers of digits.

    Raises:
        ValueError: there is none of that name, or several; the message lists some names.
    """
    if isinstance(name, bool) or not isinstance(name, str | int):
        raise ValueError(f"volume={name!r}: give a file's name, such as file1000000.h5")
    if not len(cache):
        raise ValueError(f"{cache.address} holds no volume that can be read")
    if name == "":
        return next(iter(cache.split("val")), cache.volumes[0])
    text = str(name)
    wanted = text.removesuffix(".h5") + ".h5"
    found = [
        volume
        for volume in cache
        if f"/{volume.path}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{volume.path}")
    ]
    if len(found) == 1 or any(volume.path == wanted for volume in found):
        return next((volume for volume in found if volume.path == wanted), found[0])
    if found:
        paths = ", ".join(volume.path for volume in found[:5])
        raise ValueError(
            f"volume={name!r}: {len(found)} volumes are called so, give one of {paths}"
        )
    names = [volume.name for volume in cache]
    if text.isdecimal():
        ending = [volume for volume in cache if re.search(rf"(?<!\d)0*{text}\.h5$", volume.name)]
        ending = ending or [v for v in cache if v.name.endswith(f"{text}.h5")]
        if len(ending) == 1:
            return ending[0]
        if ending:
            some = ", ".join(cache.names[volume.path] for volume in ending[:5])
            raise ValueError(f"volume={name!r}: {len(ending)} volumes end so, such as {some}")
    close = get_close_matches(wanted.rpartition("/")[2], names, n=5, cutoff=0.5) or names[:5]
    raise ValueError(
        f"volume={name!r}: {cache.name} has {len(names):,} volumes, such as {', '.join(close)}"
    )


def read_explored(cache: DatasetCache, volume: Volume, slice_number: int = -1) -> ExploredSlice:
    """Read a slice of a volume; -1 takes the middle.

    Raises:
        ValueError: the volume has no such slice.
    """
    if not -1 <= slice_number < volume.slices:
        raise ValueError(
            f"slice_number={slice_number}: {volume.name} has slices 0 to {volume.slices - 1}; "
            "-1 takes the middle"
        )
    number = volume.slices // 2 if slice_number == -1 else slice_number
    others = tuple(each for each in cache if each.name == volume.name and each != volume)
    return replace(_read(cache.file(volume), volume, number), namesakes=others)


def _read(file: Path, volume: Volume, number: int) -> ExploredSlice:
    kspace = read_kspace(file, volume, number)
    target = None
    if volume.target is not None and volume.target_name is not None:
        target = read_slice(file, volume.target_name, volume.target, number)
    bad = _not_finite(kspace, f"k-space, slice {number}")
    if target is not None:
        bad += _not_finite(target, f"{volume.target_name}, slice {number}")
        target = finite(target)
    if bad:
        # Both parts: a NaN in one of them alone says nothing of the other.
        kspace = finite(kspace)
    return ExploredSlice(file, volume, number, kspace, target, bad=bad)


def _not_finite(values: np.ndarray, name: str, most: int = 20) -> tuple[str, ...]:
    """Say where numbers are NaN or infinite: how many by coil, of (coils, H, W), and column."""
    places = np.argwhere(~np.isfinite(values))
    if not len(places):
        return ()
    columns, counts = np.unique(np.delete(places, -2, axis=1), axis=0, return_counts=True)
    lines = [
        f"{name}: {len(places)} of {values.size} numbers are NaN or infinite; they are drawn as 0"
    ]
    for place, count in list(zip(columns, counts, strict=True))[:most]:
        coil = f"coil {place[0]}, " if len(place) > 1 else ""
        lines.append(f"  {coil}column {place[-1]}: {count}")
    if len(columns) > most:
        lines.append(f"  and {len(columns) - most} more columns")
    return tuple(lines)


def sampling_of(mask: str, acceleration: float, center_fraction: float) -> Sampling:
    """Form a sampling of one acceleration out of a notebook's parameters.

    Raises:
        ValueError: one is no number, or several, or outside what is allowed.
    """
    rates, fractions = (
        numbers("acceleration", acceleration),
        numbers("center_fraction", center_fraction),
    )
    for name, values in (("acceleration", rates), ("center_fraction", fractions)):
        if len(values) != 1:
            raise ValueError(
                f"{name}={values}: give one number, this page shows one mask at a time"
            )
    return Sampling(mask, rates, fractions)
