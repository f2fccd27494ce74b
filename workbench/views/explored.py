"""A slice of a volume, found by dataset, volume name and slice number."""

import re
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.cache import DatasetCache, find_dataset, open_cache
from workbench.data.images import crop_size, finite, zero_filled
from workbench.data.reading import keep_columns, read_kspace, read_slice
from workbench.data.sampling import Sampling
from workbench.data.volume import Volume
from workbench.views.annotations import Annotations


@dataclass(frozen=True)
class ExploredSlice:
    """A slice, where it comes from, how to undersample it, and what was found in its volume.

    Attributes:
        file: the volume's path.
        volume: what the dataset cache knows of it.
        number: slice number, from 0.
        kspace: (coils, H, W) complex64, as the volume's own mask leaves it.
        target: (h, w) float32; None in volumes without one, such as those of the test split.
        namesakes: other volumes of the dataset with the same file name.
        bad: sentences on where values were NaN or infinite; they are 0 here.
        sampling: how to undersample it, where the file has no mask of its own.
        findings: annotations of its volume; None where none are given.
    """

    file: Path
    volume: Volume
    number: int
    kspace: np.ndarray
    target: np.ndarray | None
    namesakes: tuple[Volume, ...] = ()
    bad: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    findings: Annotations | None = None

    def other(self, number: int) -> "ExploredSlice":
        """Read another slice of the volume."""
        return replace(self, number=number, **_read(self.file, self.volume, number))

    @property
    def title(self) -> str:
        """Volume and slice, as figures name them."""
        cleaned = ", without numbers that are not finite" if self.bad else ""
        return f"{self.name}, slice {self.number}{cleaned}"

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
        """The volume's largest target value; without one in the header, the slice's; else 1."""
        own = 0.0 if self.target is None else float(self.target.max())
        return self.volume.largest or own or 1.0

    @property
    def undersampled(self) -> bool:
        """Whether the file holds undersampled k-space with its own mask, as test volumes do."""
        return self.volume.mask is not None

    @property
    def mask(self) -> tuple[np.ndarray, int]:
        """The sampled columns (W,), the file's own if it has some, and how many are ACS.

        Of the file's own that is 0: what there is around DC need not be as wide on either side.
        """
        from workbench.data.masks import mask_of  # imports torch

        return mask_of(self.volume, None if self.undersampled else self.sampling)

    @property
    def form(self) -> str:
        """What undersamples it, for people."""
        return "its own mask" if self.undersampled else str(self.sampling)

    def zero_filled(self) -> np.ndarray:
        """Return its image (h, w) with zeros in place of what the mask leaves out."""
        return zero_filled(keep_columns(self.kspace, self.mask[0]), self.crop)


def open_slice(
    dataset: DatasetCache | str, volume: str = "", slice_number: int = -1
) -> ExploredSlice:
    """Read a slice of a dataset, given by name, path or its cache.

    Raises:
        FileNotFoundError: there is no such dataset.
        ValueError: there is no such volume or slice; the message lists what there is.
    """
    cache = dataset if isinstance(dataset, DatasetCache) else open_cache(find_dataset(dataset))
    found, number = find_slice(cache, volume, slice_number)
    namesakes = tuple(each for each in cache if each.name == found.name and each != found)
    file = cache.file(found)
    return ExploredSlice(file, found, number, namesakes=namesakes, **_read(file, found, number))


def find_slice(cache: DatasetCache, volume: str = "", slice_number: int = -1) -> tuple[Volume, int]:
    """Return a volume of a dataset, see ``find_volume``, and a slice's number; -1 is the middle.

    Raises:
        ValueError: there is no such volume or slice; the message lists what there is.
    """
    found = find_volume(cache, volume)
    if not -1 <= slice_number < found.slices:
        there = f"{found.name} has slices 0 to {found.slices - 1}; -1 takes the middle"
        raise ValueError(f"slice_number={slice_number}: {there}")
    return found, found.slices // 2 if slice_number == -1 else slice_number


def find_volume(cache: DatasetCache, name: str = "") -> Volume:
    """Return the volume with a file name, with or without ``.h5``, or path.

    The default is the first validation volume, or without any the first of all. A number finds the
    volume with a name that ends with it, ignoring leading zeros.

    Raises:
        ValueError: no volume has the name, or several have; the message lists some names.
    """
    if not len(cache):
        raise ValueError(f"{cache.address} holds no volume that can be read")
    if name == "":
        return next(iter(cache.split("val")), cache.volumes[0])
    wanted = name.removesuffix(".h5") + ".h5"
    ways = [
        lambda path: path == wanted,
        lambda path: f"/{path}".endswith(f"/{wanted}") or f"/{wanted}".endswith(f"/{path}"),
    ]
    if name.isdecimal():
        number = re.compile(rf"(?<!\d)0*{name}\.h5$")
        ways += [lambda path: bool(number.search(path)), lambda path: path.endswith(wanted)]
    for fits in ways:
        found = [volume for volume in cache if fits(volume.path)]
        if len(found) == 1:
            return found[0]
        if found:
            some = ", ".join(cache.names[volume.path] for volume in found[:5])
            raise ValueError(f"volume={name!r}: {len(found)} volumes match, give one of {some}")
    names = [volume.name for volume in cache]
    close = get_close_matches(wanted.rpartition("/")[2], names, n=5, cutoff=0.5) or names[:5]
    raise ValueError(
        f"volume={name!r}: {cache.name} has {len(names):,} volumes, such as {', '.join(close)}; "
        "one that came after its index was built is found once the cache is refreshed"
    )


def _read(file: Path, volume: Volume, number: int) -> dict[str, Any]:
    """Read k-space and target of a slice, and say what of it is not finite."""
    kspace, target = read_kspace(file, volume, number), None
    bad = _not_finite(kspace, f"k-space, slice {number}")
    kspace = finite(kspace) if bad else kspace
    if volume.target is not None and volume.target_name is not None:
        target = read_slice(file, volume.target_name, volume.target, number)
        bad += _not_finite(target, f"{volume.target_name}, slice {number}")
        target = finite(target)
    return {"kspace": kspace, "target": target, "bad": bad}


def _not_finite(values: np.ndarray, name: str, most: int = 20) -> tuple[str, ...]:
    """Say where values ([coils,] H, W) are NaN or infinite: how many in each coil and column."""
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
