"""Results of a reconstruction, read from their folder: nothing is planned, torch is not needed.

A folder of results, ``outputs/NAME/reconstructions/SPLIT.../``, holds what was asked for
(``reconstruction.json``), the volumes (``dataset_cache.json``), one HDF5 file a volume, and, once a
whole split is there, ``scores.csv`` with a row each.

A volume's file has its file name and lies in the folder itself, as fastMRI's leaderboard has it.
Where several volumes of the split share a file name, their results lie below it under their paths
in the dataset: ``multicoil_val/NAME.h5``. Each file says which volume it is of.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from workbench.compute.evaluation import FOLDER, ORDER
from workbench.compute.runs import Run
from workbench.data.cache import DatasetCache, load_cache
from workbench.data.images import zero_filled
from workbench.data.reading import keep_columns
from workbench.data.volume import Volume
from workbench.models import DEFAULT, label_of, unusual_options
from workbench.recon.asked import Order, read_order
from workbench.recon.metrics import METRICS, Scores
from workbench.settings import resolve, shown
from workbench.stores import is_address, open_store

KINDS = ("zero_filled", "reconstruction")
"""What is measured of a volume."""

FINGERPRINT = "fingerprint"
"""Name of the attribute that says of which k-space a result is."""

SAMPLED = "sampled"
"""Name of the attribute that says how many phase-encode lines a result is made of."""

PEAK = "peak"
"""Name of the attribute that says by which data range a result was measured."""

EARLIER = "varnet"
"""What files of results called "reconstruction" at first."""


@dataclass(frozen=True)
class Result:
    """One reconstructed volume, and what was measured of it; no scores without a target."""

    path: Path  # its HDF5 file
    volume: Volume
    order: Order
    acceleration: float  # see ``true_acceleration``
    slices: int
    scores: Mapping[str, Scores] = field(default_factory=dict)  # of each of KINDS
    slice_ssim: tuple[float, ...] = ()
    shared: bool = False  # whether other volumes beside it have its file name
    network: str = DEFAULT  # its name in the registry
    network_options: str | None = None  # that it was made with, as in ``Order``
    first_estimate: str = ""  # name of the classical reconstruction that the network began with
    fingerprint: str = ""  # of its k-space; results of earlier versions do not say it
    digest: str = ""  # see ``Order.digest``
    peak: float = 0.0  # data range that it was measured by; 0 of earlier ones, which do not say it

    @property
    def name(self) -> str:
        """Its file name, or its path in the dataset where others have that file name."""
        return self.volume.path if self.shared else self.path.name

    @property
    def label(self) -> str:
        """What people call the network, with options that are not the usual ones."""
        begins = f"from {label_of(self.first_estimate)}" if self.first_estimate else ""
        return label_of(self.network, self.unusual or begins)

    @property
    def unusual(self) -> str:
        """Options of a network that learns nothing which are not those of its dataset."""
        synthetic = self.volume.synthetic
        return unusual_options(self.network, self.network_options, synthetic=synthetic)

    @property
    def reconstruction(self) -> Scores:
        """The reconstruction's metrics; empty without a target."""
        return self.scores.get("reconstruction", {})

    @property
    def zero_filled(self) -> Scores:
        """The zero-filled image's metrics; empty without a target."""
        return self.scores.get("zero_filled", {})

    def images(self) -> np.ndarray:
        """Read the reconstructed slices (slices, h, w) float32.

        Raises:
            ValueError: the file is damaged, or holds another result by now.
        """
        return self._read(())

    def image(self, number: int) -> np.ndarray:
        """Read one reconstructed slice (h, w) float32; see ``images``."""
        return self._read(number)

    def _read(self, part: Any) -> np.ndarray:
        with open_result(self.path) as (file, found):
            images = file["reconstruction"][part]
        if self.digest and found.get("digest") != self.digest:
            raise ValueError(
                f"{shown(self.path)} was reconstructed anew since its metrics were read: run the "
                "notebook again, or open the results again"
            )
        return images

    def mask(self, kspace: np.ndarray) -> tuple[np.ndarray, int]:
        """Return the mask (W,) of a slice and its number of ACS columns; 0 where it is unknown.

        ``kspace`` is the slice's, as ``measured`` returns it.
        """
        from workbench.data.masks import as_measured, mask_of  # imports torch

        return as_measured(self.volume, *mask_of(self.volume, self.order.sampling), kspace)

    def measured(self, number: int, *, neighbours: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a slice's k-space (coils, H, W) as stored, and its target (h, w) or None.

        Of several ``neighbours`` the k-space has the coils of each in turn.

        Raises:
            ValueError: the dataset holds other k-space now than was reconstructed.
        """
        return self.dataset.read(self.volume, number, neighbours=neighbours)

    @cached_property
    def dataset(self) -> DatasetCache:
        """Its dataset, to read the volume; ValueError where that has other k-space by now."""
        dataset, known = DatasetCache(open_store(self.order.dataset)), self.fingerprint
        entry = dataset.store.entry(self.volume.path)
        size = entry.size if entry else self.volume.size  # a missing file says so when it is read
        if known and (size != self.volume.size or dataset.fingerprint(self.volume) != known):
            raise ValueError(
                f"{self.volume.path} of {dataset.address} was written anew since "
                f"{shown(self.path)} was reconstructed of it: reconstruct again"
            )
        return dataset

    def targets(self) -> np.ndarray | None:
        """Read the volume's target (slices, h, w) float32; None where it has none."""
        if self.volume.target is None:
            return None
        pairs = (self.measured(number) for number in range(self.volume.slices))
        return np.stack([target for _, target in pairs if target is not None])

    def zero_fill(self, kspace: np.ndarray) -> np.ndarray:
        """Reconstruct k-space (coils, H, W) with zeros in place of what the mask leaves out."""
        return zero_filled(keep_columns(kspace, self.mask(kspace)[0]), self.volume.recon[:2])


class Results(Sequence[Result]):
    """The results in a folder, in the dataset's order.

    Args:
        folder: of the results, ``outputs/NAME/reconstructions/SPLIT...``; a run's folder,
            ``outputs/NAME``, where it has one such folder alone. A relative one counts from the
            project's root.
        items: the results, where they are known; read from the folder by default.
        order: what was asked for, as well.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: what the folder says of itself is damaged.
    """

    def __init__(
        self, folder: str | Path, items: Iterable[Result] | None = None, order: Order | None = None
    ) -> None:
        self.folder = folder = _only_results(resolve(folder))
        self.order = order or read_order(folder)
        if items is None:
            items = read_results(folder, self.order, load_cache(folder, earlier=True) or ())
            if not items:
                raise FileNotFoundError(
                    f"{shown(folder)} holds no results of what was asked for last: run "
                    "reconstruct.ipynb for it"
                )
        self.items = tuple(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def first(self, count: int | None) -> "Results":
        """Return so many of the results, the first ones; all of them for None."""
        return Results(self.folder, self[:count], self.order)

    def only(self, volumes: Iterable[str]) -> "Results":
        """Return the results of some volumes, by their paths."""
        wanted = set(volumes)
        some = [each for each in self if each.volume.path in wanted]
        return Results(self.folder, some, self.order)

    @property
    def scored(self) -> "Results":
        """The results that have a target to be measured against."""
        return self.only(each.volume.path for each in self if each.scores)

    def scores(self, kind: str) -> dict[str, Scores]:
        """Return the metrics, of one of ``KINDS``, of each volume with a target, by its path."""
        return {each.volume.path: each.scores[kind] for each in self if each.scores}

    @property
    def labels(self) -> dict[str, str]:
        """What people call each of ``KINDS``, with options that are not the usual ones."""
        networks = dict.fromkeys(each.label for each in self)
        return {"zero_filled": "zero-filled", "reconstruction": ", ".join(networks)}

    @property
    def run(self) -> str:
        """Name of the run or weights."""
        return Run(self.folder.parent.parent).name

    @property
    def name(self) -> str:
        """Run and folder, which tell it from all others."""
        return f"{self.run}@{self.folder.name}"

    @property
    def weights(self) -> str:
        """File of the weights, and the first digits of its SHA256; empty where there are none."""
        return f"{Path(self.order.weights).name} {self.order.weights_sha256[:8]}".strip()

    @property
    def acceleration(self) -> float:
        """True acceleration, the mean over volumes."""
        return float(np.mean([each.acceleration for each in self]))

    @property
    def synthetic(self) -> bool:
        """Whether any volume is a phantom."""
        return any(each.volume.synthetic for each in self)

    @property
    def acquisitions(self) -> dict[str, str]:
        """The sequence of each volume, by its path."""
        return {each.volume.path: each.volume.acquisition for each in self}

    @property
    def dataset_is_here(self) -> bool:
        """Whether k-space and targets can be read: in blob storage, or as files that are there."""
        root = self.order.dataset
        return is_address(root) or all(Path(root, each.volume.path).exists() for each in self)


def _only_results(folder: Path) -> Path:
    """Return a folder of results: the one that is given, or a run's only one with weights.

    Raises:
        ValueError: the run has several.
    """
    found = sorted(path.parent for path in (folder / FOLDER).glob(f"*/{ORDER}"))
    if len(found) > 1:
        found = [each for each in found if read_order(each).weights] or found
    if len(found) > 1:
        names = ", ".join(shown(path) for path in found)
        raise ValueError(f"{shown(folder)} has several results: give one of {names}")
    return found[0] if found else folder


def read_results(folder: Path, order: Order, volumes: Iterable[Volume]) -> tuple[Result, ...]:
    """Read the results of those of some volumes that have one.

    Where making them anew was broken off, some are yet of what was asked for before, such as a
    run's weights of an earlier epoch: those are left out.
    """
    volumes = list(volumes)
    names = Counter(volume.name for volume in volumes)
    found = ((volume, find_result(folder, volume, order)) for volume in volumes)
    return tuple(
        read_result(path, volume, order, shared=names[volume.name] > 1)
        for volume, path in found
        if path is not None
    )


def find_result(folder: Path, volume: Volume, order: Order | None = None) -> Path | None:
    """Return the file of a volume's result, which says that it is of that volume, or None.

    With an order it does not say that it is of another method; earlier versions did not say all.
    """
    method = order.method if order else {}
    for path in (folder / volume.path, folder / volume.name):
        says = what_it_says(path)
        alike = all(says.get(name, value) == value for name, value in method.items())
        if says.get("volume") == volume.path and alike:
            return path
    return None


def what_it_says(path: Path) -> dict[str, Any]:
    """Return the attributes of a file of results; none where there is no such file, or a part."""
    with suppress(OSError, ValueError), open_result(path) as (file, found):
        return found if "reconstruction" in file else {}
    return {}


def tells_slices(found: Mapping[str, Any]) -> bool:
    """Say whether a file's SSIM by slice is of what its volume's is of, whose mean it then is.

    Earlier versions took it of the whole image: where a target is no square, of more.
    """
    whole = found.get(f"{EARLIER}_ssim", found.get("reconstruction_ssim"))
    slices = np.asarray(found.get("slice_ssim", ()))
    if whole is None or not slices.size:
        return True
    known = slices.dtype.kind == "f" and isinstance(whole, float)
    return known and bool(np.isclose(slices.mean(), whole, rtol=1e-6, equal_nan=True))


def true_acceleration(volume: Volume, sampled: int) -> float:
    """Return the lines of a full scan over those that were sampled: padding is never scanned."""
    left, right = volume.acquired
    return (right - left) / max(sampled, 1)


def _acceleration_of(found: Mapping[str, Any], volume: Volume) -> float:
    """Return what a file says of a volume's acceleration; at first it counted padding, too."""
    if SAMPLED in found:
        return true_acceleration(volume, int(found[SAMPLED]))
    left, right = volume.acquired
    return float(found["acceleration"]) * ((right - left) / volume.matrix[1])


def read_result(path: Path, volume: Volume, order: Order, *, shared: bool = False) -> Result:
    """Read what a file of results says of its volume; ValueError where it is damaged."""
    with open_result(path) as (file, found):
        images = file["reconstruction"]
        if images.ndim != 3 or not images.size or images.dtype.kind != "f":
            raise ValueError(f"its images are {images.dtype} of shape {images.shape}")
        slice_ssim = np.asarray(found.get("slice_ssim", ()), np.float64)
        if slice_ssim.shape not in ((0,), (len(images),)):
            raise ValueError(f"its slice_ssim has shape {slice_ssim.shape}")
        scores = {}
        for kind in KINDS:
            earlier = kind == "reconstruction" and f"{EARLIER}_ssim" in found
            name = EARLIER if earlier else kind
            if f"{name}_ssim" in found:  # NaN for metrics that an earlier version did not know
                values = {m.name: float(found.get(f"{name}_{m.name}", np.nan)) for m in METRICS}
                scores[kind] = values
        if len(scores) not in (0, len(KINDS)) or not {"digest", "sampling"} <= found.keys():
            raise ValueError("an attribute is missing")
        return Result(
            path=path,
            volume=volume,
            order=order,
            acceleration=_acceleration_of(found, volume),
            slices=len(images),
            scores=scores,
            slice_ssim=tuple(slice_ssim.tolist()) if tells_slices(found) else (),
            shared=shared,
            network=str(found.get("network", DEFAULT)),
            network_options=found.get("network_options", order.network_options),
            first_estimate=found.get("first_estimate", ""),
            fingerprint=found.get(FINGERPRINT, ""),
            digest=str(found["digest"]),
            peak=float(found.get(PEAK, 0.0)),
        )


@contextmanager
def open_result(path: Path) -> Iterator[tuple[h5py.File, dict[str, Any]]]:
    """Open a file of results, and read its attributes; HDF5 checks what is read of it.

    Raises:
        ValueError: it is damaged, which may come out as its images are read.
        FileNotFoundError: there is none.
    """
    try:
        with h5py.File(path) as file:
            yield (
                file,
                {n: v.decode() if isinstance(v, bytes) else v for n, v in file.attrs.items()},
            )
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{shown(path)} is damaged, or no result of a reconstruction ({error}): remove it and "
            "reconstruct again"
        ) from None
