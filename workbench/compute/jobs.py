"""What to run: one description of a training job, whichever compute runs it."""

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from workbench.catalog import DATASETS, model_by_name
from workbench.data.sampling import Sampling, numbers
from workbench.models import DEFAULT, find_network
from workbench.models.entry import check_whole
from workbench.settings import project_root

PRECISIONS = ("32", "bf16", "16")
COMPILE = ("auto", "on", "off")

# A phantom is a few dozen slices: a network of 30 million parameters and 50 epochs would say no
# more about it than a small one, whose numbers the network's entry has, and take hours.
PHANTOM_DEFAULTS: dict[str, Any] = {"epochs": 8, "lr": 1e-3, "lr_step": 6}

_SAMPLING_CHOICES = {
    "mask": "mask",
    "accelerations": "acceleration",
    "center_fractions": "center_fraction",
}


@dataclass(frozen=True)
class TrainingJob:
    """Everything that decides the outcome of a training run.

    Attributes:
        name: folder of the run under ``outputs/``.
        model: name in ``catalog.MODELS``.
        dataset: the dataset's folder.
        network: name in ``models.NETWORKS``.
        config: the network's numbers, an object of its entry's config class; None for its defaults.
        sampling: how k-space is undersampled; a training mask draws one of its accelerations.
        epochs: passes over the training set.
        batch_size: slices a rank and step.
        accumulate: batches whose gradients are added up before a step.
        lr: Adam's learning rate.
        lr_step: epochs after which the rate is multiplied by ``lr_gamma`` (StepLR).
        lr_gamma: that factor.
        weight_decay: Adam's L2 penalty.
        sample_rate: share of the training slices that is used.
        volume_sample_rate: share of the training volumes that is used.
        val_volume_sample_rate: share of the validation volumes that is used.
        precision: "32"; "bf16", which convolves in bfloat16 and does all else in float32; or
            "16", mixed, for GPUs that lack bfloat16 (its weights reconstruct in float32).
        tf32: whether an NVIDIA GPU may round float32 factors to TF32; faster, other numbers.
        crop_readout: whether the network sees the reconstruction's rows and a margin alone
            instead of the oversampled readout; half the work, other numbers.
        low_memory: whether a step computes activations twice instead of keeping them; the same
            numbers. "auto" does where they would not fit.
        compile: whether torch.compile fuses the U-Nets, one of ``COMPILE``; the same numbers but
            for rounding. "auto" does in a long training on a GPU that can.
        seed: of weights, order, masks and sampling.
        workers: loader processes a rank; None chooses.
        checkpoint_minutes: time between checkpoints within an epoch.
        images: validation slices that go to TensorBoard each epoch.
    """

    name: str
    model: str
    dataset: str
    network: str = DEFAULT
    config: Any = None
    sampling: Sampling = field(default_factory=Sampling)
    epochs: int = 50
    batch_size: int = 1
    accumulate: int = 1
    lr: float = 3e-4
    lr_step: int = 40
    lr_gamma: float = 0.1
    weight_decay: float = 0.0
    sample_rate: float = 1.0
    volume_sample_rate: float = 1.0
    val_volume_sample_rate: float = 1.0
    precision: str = "32"
    tf32: bool = False
    crop_readout: bool = False
    low_memory: bool | str = "auto"
    compile: str = "auto"
    seed: int = 42
    workers: int | None = None
    checkpoint_minutes: float = 10.0
    images: int = 4

    def __post_init__(self) -> None:
        entry = find_network(self.network)
        if self.config is None:
            object.__setattr__(self, "config", entry.config())
        _check(self)

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter by its name, those of the network's config among them."""
        return flat(asdict(self))

    def to_json(self) -> str:
        """Write the job as JSON."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "TrainingJob":
        """Read a job that ``to_json`` wrote.

        Raises:
            ValueError: the text is no job.
        """
        values = flat(json.loads(text))
        sampling: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in values.pop("sampling").items()
        }
        config = find_network(values["network"]).config
        names = [each.name for each in dataclasses.fields(config) if each.name in values]
        own = {name: values.pop(name) for name in names}
        return cls(sampling=Sampling(**sampling), config=config(**own), **values)


def flat(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's fields with those of its network's config among them.

    Jobs of earlier versions are so already, and name no network.
    """
    values = {"network": DEFAULT, **job}
    return values | values.pop("config", {})


def training_job(
    dataset: Path | str, *, synthetic: bool, model: str, name: str | None = None, **choices: Any
) -> TrainingJob:
    """Form a job from a notebook's parameters; None stands for the default.

    Args:
        dataset: the dataset's folder.
        synthetic: whether it is the phantom, which has defaults of its own.
        model: a name of ``catalog.MODELS`` or its 2021 class name.
        name: folder of the run; the model's name where None.
        **choices: fields of ``TrainingJob`` and of its network's config, and for its sampling
            ``mask``, ``acceleration`` and ``center_fraction`` (one number, or several separated by
            commas).

    Raises:
        ValueError: a parameter is unknown or outside what is allowed.
    """
    known_model = model_by_name(model)
    given = {key: value for key, value in choices.items() if value is not None}
    sampling: dict[str, Any] = {
        key: given.pop(choice) if choice == "mask" else numbers(choice, given.pop(choice))
        for key, choice in _SAMPLING_CHOICES.items()
        if choice in given
    }
    entry = find_network(given.get("network", DEFAULT))
    kind = DATASETS[known_model.dataset].kind
    if kind not in entry.kinds:
        raise ValueError(f"network={entry.name!r} learns from {', '.join(entry.kinds)}, not {kind}")
    own = {each.name for each in dataclasses.fields(entry.config)}
    known = {each.name for each in dataclasses.fields(TrainingJob)} - {"config"} | own
    unknown = sorted(set(given) - known)
    if unknown:
        raise ValueError(f"no such parameter: {', '.join(unknown)}; there are {sorted(known)}")
    numbers_of_network = dict(entry.phantom) if synthetic else {}
    numbers_of_network |= {key: given.pop(key) for key in own if key in given}
    if "precision" in given:
        given["precision"] = str(given["precision"])
    if isinstance(given.get("compile"), bool):  # YAML takes on and off for these
        given["compile"] = "on" if given["compile"] else "off"
    if given.get("low_memory") in ("True", "False"):
        given["low_memory"] = given["low_memory"] == "True"
    defaults = PHANTOM_DEFAULTS if synthetic else {}
    return TrainingJob(
        name=name or known_model.name,
        model=known_model.name,
        dataset=str(dataset),
        config=entry.config(**numbers_of_network),
        sampling=Sampling(**sampling),
        **defaults | given,
    )


def run_folder(name: str, parameter: str = "name") -> Path:
    """Return a run's folder, ``outputs/NAME``.

    Args:
        name: of the run.
        parameter: of the notebook that gives it, for the error.

    Raises:
        ValueError: the name leaves ``outputs/`` or is no folder's name.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or not all(re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", part) for part in parts):
        raise ValueError(
            f"{parameter}={name!r}: give letters, digits, '.', '_', '-' and '/' between them"
        )
    return project_root() / "outputs" / name


def _is_number(value: Any) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _check(job: TrainingJob) -> None:
    run_folder(job.name)
    for name in ("model", "dataset"):
        if not isinstance(getattr(job, name), str):
            raise ValueError(f"{name}={getattr(job, name)!r}: give a text")
    for name in ("epochs", "batch_size", "accumulate", "lr_step"):
        check_whole(name, getattr(job, name), 1)
    for name in ("seed", "images"):
        check_whole(name, getattr(job, name), 0)
    if job.seed >= 2**32:
        raise ValueError(f"seed={job.seed}: give a whole number below 2**32")
    workers = job.workers
    if workers is not None and (type(workers) is not int or not 0 <= workers <= 256):
        raise ValueError(f"workers={workers!r}: give a whole number from 0 to 256, or None")
    for name in ("lr", "lr_gamma", "checkpoint_minutes"):
        value = getattr(job, name)
        if not _is_number(value) or not value > 0:
            raise ValueError(f"{name}={value!r}: give a number above 0")
    if not _is_number(job.weight_decay) or job.weight_decay < 0:
        raise ValueError(f"weight_decay={job.weight_decay!r}: give 0 or more")
    for name in ("sample_rate", "volume_sample_rate", "val_volume_sample_rate"):
        value = getattr(job, name)
        if not _is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{name}={value!r}: give a share above 0 and at most 1")
    if job.sample_rate < 1 and job.volume_sample_rate < 1:
        raise ValueError(
            "sample_rate and volume_sample_rate are both below 1: sample slices or volumes"
        )
    if job.precision not in PRECISIONS:
        raise ValueError(f"precision={job.precision!r}: give one of {', '.join(PRECISIONS)}")
    for name in ("tf32", "crop_readout"):
        if not isinstance(getattr(job, name), bool):
            raise ValueError(f"{name}={getattr(job, name)!r}: give True or False")
    if not isinstance(job.low_memory, bool) and job.low_memory != "auto":
        raise ValueError(f'low_memory={job.low_memory!r}: give True, False or "auto"')
    if job.compile not in COMPILE:
        raise ValueError(f"compile={job.compile!r}: give one of {', '.join(COMPILE)}")
