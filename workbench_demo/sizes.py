"""What the demo makes and trains, by the name of a size."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from workbench.models import NETWORKS, trains

PAGES = ("ingest", "cache", "explore", "train", "reconstruct")


@dataclass(frozen=True)
class Part:
    """One anatomy's way from archives to pictures.

    Attributes:
        model: the model to train, and the name of its run.
        dataset: the dataset that it trains on.
        generation: of the links that fastMRI would mail, "2021" or "2025".
        study: arguments of ``plan_study``.
        training: parameters of ``train.ipynb`` beside those that every demo gives.
        pages: the notebooks to run, in order.
        compare: networks that learn nothing, to set beside the trained one.
    """

    model: str
    dataset: str
    generation: str
    study: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    pages: tuple[str, ...] = PAGES
    compare: str = ", ".join(name for name in NETWORKS if not trains(name))

    @property
    def name(self) -> str:
        """Of its run and its notebooks: the model's, and the seed where it is not the usual one."""
        seed = self.training.get("seed")
        return self.model if seed is None else f"{self.model}-seed{seed}"


@dataclass(frozen=True)
class Size:
    """A demo of a certain size.

    Attributes:
        name: of its folder, ``outputs/NAME``.
        cost: time and disk that it takes, for people.
        parts: the anatomies, in order.
        scans: people that a scanner of one's own scans, whose raw data is converted.
        at_once: anatomies at the same time.
    """

    name: str
    cost: str
    parts: tuple[Part, ...]
    scans: int = 0
    at_once: int = 2


_BRAIN = ("brain", "brain_multicoil", "2025")
_KNEE = ("knee", "knee_multicoil", "2021")
_WITHOUT_EXPLORE = ("ingest", "cache", "train", "reconstruct")
_SMALLEST = {"cascades": 1, "chans": 4, "pools": 2, "sens_chans": 2, "sens_pools": 2}
_SMALLEST_NETWORK = {**_SMALLEST, "epochs": 2}
_PUBLISHED_NETWORK = {"cascades": 12, "chans": 18, "sens_chans": 8, "epochs": 1, "lr": 3e-4}


def _study(
    train: int, val: int, recon: int, slices: int, coils: tuple[int, ...], **more: int
) -> dict[str, Any]:
    volumes = {"train": train, "val": val, "test": 1}
    return {"volumes": volumes, "recon": recon, "slices": slices, "coils": coils, **more}


SIZES: Mapping[str, Size] = {
    "small": Size(
        "demo",
        "about 5 minutes on 2 processors, and 0.8 GB",
        (
            Part(*_BRAIN, _study(10, 4, 112, 8, (4, 5, 6), odd_flair=1), {"epochs": 2}),
            Part(*_KNEE, _study(6, 2, 112, 8, (4, 6)), {"epochs": 3}, _WITHOUT_EXPLORE),
        ),
        scans=3,
    ),
    # For the tests: every step, on next to nothing.
    "tiny": Size(
        "demo-tiny",
        "about a minute on 2 processors, and 10 MB",
        (
            Part(*_BRAIN, _study(2, 1, 32, 2, (2,)), _SMALLEST_NETWORK, _WITHOUT_EXPLORE),
            Part(
                *_KNEE,
                _study(1, 1, 32, 2, (2,)),
                _SMALLEST_NETWORK,
                ("ingest", "train", "reconstruct"),
            ),
        ),
        scans=2,
    ),
    # Slices as large as fastMRI's and the network of the paper, to see what a step costs.
    "full": Size(
        "demo-full",
        "about 10 minutes on 2 processors, 3 GB of disk and 12 GB of memory",
        (
            Part(*_BRAIN, _study(2, 1, 320, 4, (8, 16)), _PUBLISHED_NETWORK),
            Part(*_KNEE, _study(1, 1, 320, 2, (15,)), _PUBLISHED_NETWORK, _WITHOUT_EXPLORE),
        ),
        at_once=1,  # for the memory's sake
    ),
}
