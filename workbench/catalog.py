"""What exists: fastMRI's datasets, archives and official counts, and the models by name.

Counts and archive names are those that NYU publishes and mails (https://fastmri.med.nyu.edu); the
prostate's are those of its labels, https://github.com/cai2r/fastMRI_prostate.
"""

import re
from dataclasses import dataclass, field

SPLITS = ("train", "val", "test", "challenge", "test_full")
OWN_MASKS = ("test", "challenge")
"""The splits whose volumes were published undersampled, each with its own mask."""


@dataclass(frozen=True)
class Dataset:
    """One dataset: the folder that it lives in and what a complete copy holds.

    Attributes:
        name: folder under ``datasets/`` and in the storage container.
        anatomy: "knee", "brain", "prostate" or "breast".
        kind: "multicoil" or "singlecoil" for k-space, "DICOM" for images, "other" for the rest.
        counts: split -> (volumes, slices) as NYU publishes them; empty where it publishes none.
        releases: archive stems (without extension) of each generation of links.
        made_from: dataset that ``workbench convert`` makes this one of; "" for those that come
            in fastMRI's form.
    """

    name: str
    anatomy: str
    kind: str
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    releases: dict[str, tuple[str, ...]] = field(default_factory=dict)
    made_from: str = ""


def _batches(stem: str, count: int) -> tuple[str, ...]:
    return tuple(f"{stem}_batch_{number}" for number in range(count))


_KNEE = {"train": (973, 34742), "val": (199, 7135), "test": (118, 4092)}
# Ten of the multi-coil test scans have no single-coil twin (arXiv:1811.08839).
_SINGLE_COIL = _KNEE | {"test": (108, 3903)}

DATASETS: dict[str, Dataset] = {
    dataset.name: dataset
    for dataset in (
        Dataset(
            "knee_singlecoil",
            "knee",
            "singlecoil",
            _SINGLE_COIL,
            {
                "2021": (
                    "knee_singlecoil_train",
                    "knee_singlecoil_val",
                    "knee_singlecoil_test_v2",
                    "knee_singlecoil_challenge",
                ),
                "2025": ("knee_singlecoil_train", "knee_singlecoil_val", "knee_singlecoil_test"),
            },
        ),
        Dataset(
            "knee_multicoil",
            "knee",
            "multicoil",
            _KNEE,
            {
                "2021": (
                    "multicoil_train",
                    "multicoil_val",
                    "knee_multicoil_test_v2",
                    "knee_multicoil_challenge",
                ),
                "2025": (
                    *_batches("knee_multicoil_train", 5),
                    "knee_multicoil_val",
                    "knee_multicoil_test",
                ),
            },
        ),
        Dataset(
            "brain_multicoil",
            "brain",
            "multicoil",
            {"train": (4469, 70748), "val": (1378, 21842), "test": (558, 8852)},
            {
                "2021": (
                    "brain_multicoil_train",
                    "brain_multicoil_val",
                    "brain_multicoil_test",
                    "brain_multicoil_challenge",
                    "brain_multicoil_challenge_transfer",
                ),
                "2025": (
                    *_batches("brain_multicoil_train", 10),
                    *_batches("brain_multicoil_val", 3),
                    *_batches("brain_multicoil_test", 3),
                    *_batches("brain_multicoil_test_full", 3),
                ),
            },
        ),
        Dataset(
            "knee_DICOMs",
            "knee",
            "DICOM",
            releases={
                "2021": ("knee_mri_dicom_batch1", "knee_mri_dicom_batch2"),
                "2025": ("knee_DICOMs_batch1", "knee_DICOMs_batch2"),
            },
        ),
        Dataset(
            "brain_DICOMs",
            "brain",
            "DICOM",
            releases={"2021": ("brain_fastMRI_DICOM",), "2025": ("brain_fastMRI_DICOM",)},
        ),
        Dataset(
            "prostate",
            "prostate",
            "multicoil",
            {"train": (218, 6647), "val": (48, 1462), "test": (46, 1399)},
            made_from="prostate_raw",
        ),
        Dataset("prostate_raw", "prostate", "other"),
        Dataset("breast", "breast", "other"),
    )
}

# First match wins: DICOM archives carry their anatomy's name too.
_DATASET_OF_ARCHIVE = (
    (r"knee.*dicom", "knee_DICOMs"),
    (r"brain.*dicom", "brain_DICOMs"),
    (r"knee_singlecoil|^singlecoil_", "knee_singlecoil"),
    (r"knee_multicoil|^multicoil_", "knee_multicoil"),
    (r"brain_multicoil", "brain_multicoil"),
    (r"prostate", "prostate_raw"),
    (r"breast", "breast"),
)


def dataset_of_archive(name: str) -> str | None:
    """Name the dataset that an archive such as ``multicoil_val.tar.gz`` belongs to, or None."""
    for pattern, dataset in _DATASET_OF_ARCHIVE:
        if re.search(pattern, name, re.IGNORECASE):
            return dataset
    return None


_SPLIT_WORDS = {
    "train": "train(?:ing)?",
    "val": "val(?:id(?:ation)?)?",
    "test_full": "test_full",
    "test": "test(?:ing)?(?!_full)",
    "challenge": "challenge",
}


def split_of_folder(folder: str) -> str | None:
    """Name the split of a folder such as ``multicoil_test_v2`` ("test"), or None.

    ``Train``, ``validation`` and ``multicoil-train`` name one as well; a folder that names two
    names none. ``multicoil_test_full`` is a split of its own, "test_full": fully sampled, and with
    targets, the same scans as those of ``multicoil_test``, under the same file names.
    """
    words = re.sub("[^a-z0-9]+", "_", folder.lower())
    found = [
        split
        for split, pattern in _SPLIT_WORDS.items()
        if re.search(f"(?:^|_)(?:{pattern})(?:_|$)", words)
    ]
    return found[0] if len(found) == 1 else None


@dataclass(frozen=True)
class Model:
    """A model by name: the dataset that a network trains on by default."""

    name: str
    dataset: str


MODELS: dict[str, Model] = {
    "knee": Model("knee", "knee_multicoil"),
    "brain": Model("brain", "brain_multicoil"),
    "knee_singlecoil": Model("knee_singlecoil", "knee_singlecoil"),
    "prostate": Model("prostate", "prostate"),
}
MODEL_ALIASES = {
    "KneeMulticoil": "knee",
    "BrainMulticoil": "brain",
    "KneeSinglecoil": "knee_singlecoil",
}


def model_by_name(name: str) -> Model:
    """Look up a model by its name or its 2021 class name.

    Raises:
        ValueError: the name is none of the models.
    """
    found = MODELS.get(MODEL_ALIASES.get(name, name))
    if found is None:
        allowed = ", ".join([*MODELS, *MODEL_ALIASES])
        raise ValueError(f"model={name!r}: give one of {allowed}")
    return found
