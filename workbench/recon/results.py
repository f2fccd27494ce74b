"""Results of a reconstruction, read from their folder: nothing is planned, torch is not needed.

A folder of results, ``outputs/NAME/reconstructions/SPLIT.../``, holds what was asked for
(``reconstruction.json``), the volumes (``dataset_cache.json``), one HDF5 file a volume, and, once a
whole split is there, ``scores.csv`` with a row each.

A volume's file has its file name and lies in the folder itself, as fastMRI's leaderboard has it.
Where several volumes of the split share a file name, their results lie below it under their paths
in the dataset: ``multicoil_val/NAME.h5``. Each file says which volume it is of.
"""

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from workbench.compute.evaluation import ORDER, SCORES
from workbench.compute.runs import Run
from workbench.data.cache import DatasetCache, load_cache
from workbench.data.images import zero_filled
from workbench.data.sampling import Sampling
from workbench.data.volume import Volume
from workbench.models import DEFAULT, label_of
from workbench.recon.metrics import METRICS, Scores
from workbench.settings import shown
from workbench.stores import is_address, open_store
from workbench.stores.disk import write_text

if TYPE_CHECKING:
    from workbench.data.slices import SliceDataset

KINDS = ("zero_filled", "reconstruction")
"""What is measured of a volume."""

_EARLIER = "varnet"  # what files of results called "reconstruction" at first


@dataclass(frozen=True)
class Order:
    """What was asked for: all that decides what a reconstruction looks like.

    Attributes:
        weights: file of weights.
        weights_sha256: its hash.
        dataset: the dataset's folder, or its address in blob storage.
        split: one of ``workbench.catalog.SPLITS``.
        sampling: how to undersample; None takes each file's own mask.
        volumes: paths of the volumes that were still to be made, relative to the dataset.
    """

    weights: str
    weights_sha256: str
    dataset: str
    split: str
    sampling: Sampling | None
    volumes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Say how k-space was undersampled."""
        return str(self.sampling) if self.sampling else "each file's own mask"

    def digest(self, volume: Volume) -> str:
        """What tells one result from another: weights, sampling, and the volume as it is now.

        A volume's copy on another machine is the same volume, whatever its time of change.
        """
        known = asdict(volume) | {"mtime_ns": 0}
        sampling = asdict(self.sampling) if self.sampling else None
        text = json.dumps([self.weights_sha256, sampling, known], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def slices(self, volume: Volume) -> "SliceDataset":
        """Return a volume's slices, undersampled as asked, wherever the dataset lies."""
        from workbench.data.slices import SliceDataset

        cache = DatasetCache(open_store(self.dataset), (volume,))
        return SliceDataset(cache, self.sampling)

    def to_json(self) -> str:
        """Write the order as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Order":
        """Read an order that ``to_json`` wrote."""
        values = json.loads(text)
        for name in ("weights", "weights_sha256", "dataset", "split"):
            if not isinstance(values[name], str):
                raise ValueError(f"{name} is no text")
        if sampling := values.pop("sampling"):
            sampling = Sampling(
                sampling["mask"],
                tuple(sampling["accelerations"]),
                tuple(sampling["center_fractions"]),
            )
        return cls(**values | {"sampling": sampling, "volumes": tuple(values["volumes"])})


@dataclass(frozen=True)
class Result:
    """One reconstructed volume, and what was measured of it.

    Attributes:
        path: its HDF5 file.
        volume: the volume.
        order: what was asked for.
        acceleration: true acceleration, phase-encode columns over sampled ones.
        slices: number of slices.
        scores: of each of ``KINDS`` the metrics; empty without a target.
        slice_ssim: SSIM of each slice; empty without a target.
        shared: whether other volumes beside it have its file name.
        network: name of the network in the registry.
    """

    path: Path
    volume: Volume
    order: Order
    acceleration: float
    slices: int
    scores: Mapping[str, Scores] = field(default_factory=dict)
    slice_ssim: tuple[float, ...] = ()
    shared: bool = False
    network: str = DEFAULT

    @property
    def name(self) -> str:
        """Its file name, or its path in the dataset where others have that file name."""
        return self.volume.path if self.shared else self.path.name

    @property
    def label(self) -> str:
        """What people call the network."""
        return label_of(self.network)

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
            ValueError: the file is damaged.
        """
        with open_result(self.path) as file:
            return file["reconstruction"][()]

    def image(self, number: int) -> np.ndarray:
        """Read one reconstructed slice (h, w) float32.

        Raises:
            ValueError: the file is damaged.
        """
        with open_result(self.path) as file:
            return file["reconstruction"][number]

    def mask(self) -> tuple[np.ndarray, int]:
        """Return the volume's mask (W,) and its number of ACS columns; 0 where they are unknown."""
        from workbench.data.masks import mask_of

        return mask_of(self.volume, self.order.sampling)

    def measured(self, number: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Read a slice's k-space (coils, H, W) as stored, and its target (h, w) or None."""
        from workbench.data.reading import read_both  # imports torch

        cache = DatasetCache(open_store(self.order.dataset), (self.volume,))
        with closing(cache.source(self.volume)) as source:
            kspace, target = read_both(source, self.volume, number)
        return (kspace if kspace.ndim == 3 else kspace[None]), target

    def targets(self) -> np.ndarray | None:
        """Read the volume's target (slices, h, w) float32; None where it has none."""
        if self.volume.target is None:
            return None
        pairs = (self.measured(number) for number in range(self.volume.slices))
        return np.stack([target for _, target in pairs if target is not None])

    def zero_fill(self, kspace: np.ndarray) -> np.ndarray:
        """Reconstruct k-space (coils, H, W) with zeros in place of what the mask leaves out."""
        from workbench.data.reading import keep_columns

        return zero_filled(keep_columns(kspace, self.mask()[0]), self.volume.recon[:2])


@dataclass(frozen=True)
class Results(Sequence[Result]):
    """The results in a folder, in the dataset's order.

    Args:
        folder: of the results, ``outputs/NAME/reconstructions/SPLIT...``.
        items: the results and
        order: what was asked for, where they are known; both are read from the folder by default.

    Raises:
        FileNotFoundError: the folder holds none.
        ValueError: what the folder says of itself is damaged.
    """

    folder: Path
    items: tuple[Result, ...] = None  # type: ignore[assignment]
    order: Order = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.items is None:
            order = read_order(self.folder)
            volumes = load_cache(self.folder, earlier=True) or ()
            object.__setattr__(self, "order", order)
            object.__setattr__(self, "items", read_results(self.folder, order, volumes))
            if not self.items:
                raise FileNotFoundError(
                    f"{shown(self.folder)} holds no results: run reconstruct.ipynb for it"
                )

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, place: Any) -> Any:
        return self.items[place]

    def first(self, count: int | None) -> "Results":
        """Return so many of the results, the first ones; all of them for None."""
        return replace(self, items=self[:count])

    def only(self, volumes: Iterable[str]) -> "Results":
        """Return the results of some volumes, by their paths."""
        wanted = set(volumes)
        return replace(self, items=tuple(each for each in self if each.volume.path in wanted))

    @property
    def scored(self) -> "Results":
        """The results that have a target to be measured against."""
        return replace(self, items=tuple(each for each in self if each.scores))

    def scores(self, kind: str) -> dict[str, Scores]:
        """Return the metrics of each volume that has a target, by its path.

        Args:
            kind: one of ``KINDS``.
        """
        return {each.volume.path: each.scores[kind] for each in self if each.scores}

    @property
    def labels(self) -> dict[str, str]:
        """What people call each of ``KINDS``."""
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
        """File of the weights, and the first digits of its SHA256."""
        return f"{Path(self.order.weights).name} {self.order.weights_sha256[:8]}"

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


def read_order(folder: Path) -> Order:
    """Read what was asked for in a folder of results.

    Raises:
        FileNotFoundError: nothing was.
        ValueError: the file is damaged.
    """
    try:
        return Order.from_json((folder / ORDER).read_text())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{shown(folder / ORDER)} is damaged: {error}") from None


def read_results(folder: Path, order: Order, volumes: Iterable[Volume]) -> tuple[Result, ...]:
    """Read the results of those of some volumes that have one."""
    volumes = list(volumes)
    names = Counter(volume.name for volume in volumes)
    found = ((volume, find_result(folder, volume)) for volume in volumes)
    return tuple(
        read_result(path, volume, order, shared=names[volume.name] > 1)
        for volume, path in found
        if path is not None
    )


def find_result(folder: Path, volume: Volume) -> Path | None:
    """Return the file of a volume's result, which says that it is of that volume, or None."""
    places = (folder / volume.path, folder / volume.name)
    return next((path for path in places if volume_of(path) == volume.path), None)


def volume_of(path: Path) -> str | None:
    """Return the volume that a file of results says it is of; None where there is no such file."""
    with suppress(OSError, ValueError), open_result(path) as file:
        return str(attributes_of(file).get("volume"))
    return None


def read_result(path: Path, volume: Volume, order: Order, *, shared: bool = False) -> Result:
    """Read what a file of results says of its volume.

    Args:
        path: the file.
        volume: the volume that it is of.
        order: what was asked for.
        shared: whether other volumes beside it have its file name.

    Raises:
        ValueError: it is damaged.
    """
    with open_result(path) as file:
        found, images = attributes_of(file), file["reconstruction"]
        if images.ndim != 3 or not images.size or images.dtype.kind != "f":
            raise ValueError(f"its images are {images.dtype} of shape {images.shape}")
        slices, slice_ssim = len(images), np.asarray(found.get("slice_ssim", ()), np.float64)
        if slice_ssim.shape not in ((0,), (slices,)):
            raise ValueError(f"its slice_ssim has shape {slice_ssim.shape}")
        scores = {kind: scores for kind in KINDS if (scores := _scores_of(found, kind))}
        if len(scores) not in (0, len(KINDS)) or not {"digest", "sampling"} <= found.keys():
            raise ValueError("an attribute is missing")
        return Result(
            path,
            volume,
            order,
            float(found["acceleration"]),
            slices,
            scores,
            tuple(slice_ssim.tolist()),
            shared,
            str(found.get("network", DEFAULT)),
        )


def _scores_of(attributes: Mapping[str, Any], kind: str) -> Scores:
    """Read the metrics of a kind; those that an earlier version did not know are NaN."""
    if kind == "reconstruction" and f"{_EARLIER}_ssim" in attributes:
        kind = _EARLIER
    if f"{kind}_ssim" not in attributes:
        return {}
    return {each.name: float(attributes.get(f"{kind}_{each.name}", np.nan)) for each in METRICS}


def attributes_of(file: h5py.File) -> dict[str, Any]:
    """Return a result's attributes, text as str."""
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in file.attrs.items()
    }


@contextmanager
def open_result(path: Path) -> Iterator[h5py.File]:
    """Open a file of results; HDF5 checks what is read of it.

    Raises:
        ValueError: it is damaged, which may come out as its images are read.
        FileNotFoundError: there is none.
    """
    try:
        with h5py.File(path) as file:
            yield file
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{shown(path)} is damaged, or no result of a reconstruction ({error}): remove it and "
            "reconstruct again"
        ) from None


def score_row(result: Result) -> dict[str, Any]:
    """Return a result's row of ``scores.csv``."""
    return {
        "volume": result.volume.path,
        "acquisition": result.volume.acquisition,
        "slices": result.slices,
        "acceleration": result.acceleration,
        **named_scores(result.scores),
    }


def named_scores(scores: Mapping[str, Scores]) -> Scores:
    """Name the metrics of each kind as files do, such as "zero_filled_ssim"."""
    return {f"{kind}_{name}": v for kind, each in scores.items() for name, v in each.items()}


def write_scores(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``scores.csv``; metrics are left empty where a volume has no target."""
    columns = ["volume", "acquisition", "slices", "acceleration"]
    columns += [f"{kind}_{metric.name}" for kind in KINDS for metric in METRICS]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(rows, key=lambda row: str(row["volume"])))
    write_text(folder / SCORES, text.getvalue())


def read_scores(folder: Path) -> list[dict[str, str]]:
    """Read ``scores.csv``, a row a volume; none where it is not there."""
    try:
        with (folder / SCORES).open(newline="") as file:
            rows = list(csv.DictReader(file))
    except FileNotFoundError:
        return []
    earlier, now = f"{_EARLIER}_", "reconstruction_"
    return [{name.replace(earlier, now): value for name, value in row.items()} for row in rows]
