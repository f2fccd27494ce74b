"""What to run: one description of a training job, whichever compute runs it."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, ValidationInfo

from workbench.catalog import DATASETS, model_by_name
from workbench.compute.loggers import USUAL, read_loggers
from workbench.compute.own_code import digest_of
from workbench.compute.start import Start
from workbench.data.sampling import Sampling, numbers
from workbench.models import (
    AS_PUBLISHED,
    DEFAULT,
    ZERO_FILLED,
    build,
    check_network_name,
    find_network,
    read_first_estimate,
)
from workbench.models.entry import Network, read_options
from workbench.models.own import check_form, is_own, read_config, try_loss, try_network
from workbench.settings import project_root

Precision = Literal["32", "bf16", "16"]
Compile = Literal["auto", "on", "off"]
Optimizer = Literal["adam", "adamw", "rmsprop"]
Schedule = Literal["step", "cosine"]
Learning = Literal["supervised", "self-supervised"]
Augment = Literal["flips", "full"]
PRECISIONS: tuple[str, ...] = get_args(Precision)
COMPILE: tuple[str, ...] = get_args(Compile)
SCHEDULES: tuple[str, ...] = get_args(Schedule)
LEARNING: tuple[str, ...] = get_args(Learning)
AUGMENT: tuple[str, ...] = get_args(Augment)
OPTIMIZERS: dict[str, str] = dict(
    zip(get_args(Optimizer), ("Adam", "AdamW", "RMSprop"), strict=True)
)
"""Name of each optimizer, as ``optimizer=`` takes it, and its class in ``torch.optim``."""
LOSSES: dict[str, str] = {
    "ssim": "workbench.recon.losses:ssim_loss",
    "l1": "workbench.recon.losses:l1_loss",
    "mse": "workbench.recon.losses:mse_loss",
    "ssim_l1": "workbench.recon.losses:ssim_l1_loss",
    "edge": "workbench.recon.losses:edge_loss",
}
"""Name of each loss, as ``loss=`` takes it, and where its function is."""

# A phantom is a few dozen slices: a network of 30 million parameters and 50 epochs would say no
# more about it than a small one, whose numbers the network's entry has, and take hours.
PHANTOM_DEFAULTS: dict[str, Any] = {"epochs": 8, "lr": 1e-3, "lr_step": 6}


def run_folder(name: str, parameter: str = "name") -> Path:
    """Return a run's folder, ``outputs/NAME``.

    Raises:
        ValueError: the name leaves ``outputs/`` or is no folder's name; it is called ``parameter``.
    """
    parts = name.split("/") if isinstance(name, str) else []
    if not parts or not all(re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", part) for part in parts):
        raise ValueError(
            f"{parameter}={name!r}: give letters, digits, '.', '_', '-' and '/' between them"
        )
    return project_root() / "outputs" / name


def _name(value: str) -> str:
    run_folder(value)
    return value


def _first_estimate(value: str | None) -> str | None:
    """Check a first estimate, and write it in one way, so that jobs compare."""
    if found := read_first_estimate(value):
        name, config = found
        return ", ".join(
            [name, *find_network(name).unusual(dataclasses.asdict(config), synthetic=False)]
        )
    return ZERO_FILLED if value and value.strip() == ZERO_FILLED else None


def check_loss_name(name: str) -> str:
    """Check that a loss is one of ``LOSSES``, or has the form of one of somebody's own."""
    if is_own(name):
        return check_form("loss", name)
    if name not in LOSSES:
        raise ValueError(
            f"loss={name!r}: give one of {', '.join(LOSSES)}, or package.module:function"
        )
    return name


class TrainingJob(pydantic.BaseModel):
    """Everything that decides the outcome of a training run; ``job.json`` holds it.

    Attributes:
        dataset: the dataset's folder, or its address.
        network: of the registry, or of somebody's own, ``package.module:MyNetwork``.
        config: the network's numbers, an object of its entry's config class; None for its defaults.
        loss: of ``LOSSES``, or of somebody's own, ``package.module:function``; None is the
            network's own where it has one, else 1 - SSIM.
        code: "network" and "loss", where they are somebody's own -> digest of their code.
        start_from: the weights that it begins with; None for random ones.
        learning: "supervised", from targets, or "self-supervised", from sampled lines that the
            network is not shown (``workbench.recon.selfsupervised``).
        augment: "flips" or "full", see ``workbench.data.augment``; None for none.
        optimizer: of ``OPTIMIZERS``.
        first_estimate: what an unrolled network begins with and, untrained, returns: "zero-filled",
            or a classical reconstruction such as "sense" or "tv, regularisation=0.002"; short
            trainings come further. None, or "published": zero-filled, and random weights.
        schedule: of the learning rate: "step", or "cosine", which rises for a tenth of the steps
            and falls to zero along a cosine.
        lr_step: epochs after which "step" multiplies the learning rate by ``lr_gamma`` (StepLR).
        clip: norm that a step's gradient is cut to; None leaves it as it is.
        ema: decay a step of a running average of the weights, which is what is validated and
            reconstructs; in the first steps it is less, see ``WeightAverage``. 0: no average.
        patience: epochs without a better validation after which the run ends; None never does.
        precision: "32"; "bf16", which convolves in bfloat16 and does all else in float32; or
            "16", mixed, for GPUs that lack bfloat16 (its weights reconstruct in float32).
        crop_readout: whether the network sees only the reconstruction's rows and a margin
            instead of the oversampled readout; half the work, other numbers.
        low_memory: whether a step computes activations twice instead of keeping them; the same
            numbers. "auto" does where they would not fit.
        compile: whether torch.compile fuses the U-Nets; the same numbers but for rounding. "auto"
            does in a long training on a GPU that can.
        workers: loader processes a rank; None chooses.
        images: validation slices that go to the loggers each epoch.
        logger: of ``LOGGERS``, where the curves go.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, AfterValidator(_name)]
    model: str
    dataset: str
    network: Annotated[str, AfterValidator(check_network_name)] = DEFAULT
    config: Any = Field(None, validate_default=True)
    loss: Annotated[str, AfterValidator(check_loss_name)] | None = None
    code: dict[str, str] = Field(default_factory=dict)
    start_from: Start | None = None
    first_estimate: Annotated[str | None, AfterValidator(_first_estimate)] = None
    learning: Learning = "supervised"
    augment: Augment | None = None
    sampling: Sampling = Sampling()
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(1, ge=1)
    accumulate: int = Field(1, ge=1)
    optimizer: Optimizer = "adam"
    lr: float = Field(3e-4, gt=0)
    schedule: Schedule = "step"
    lr_step: int = Field(40, ge=1)
    lr_gamma: float = Field(0.1, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    clip: float | None = Field(None, gt=0)
    ema: float = Field(0.0, ge=0, lt=1)
    patience: int | None = Field(None, ge=1)
    sample_rate: float = Field(1.0, gt=0, le=1)
    volume_sample_rate: float = Field(1.0, gt=0, le=1)
    val_volume_sample_rate: float = Field(1.0, gt=0, le=1)
    precision: Precision = "32"
    tf32: bool = False
    crop_readout: bool = False
    low_memory: Literal[True, False, "auto"] = "auto"
    compile: Compile = "auto"
    seed: int = Field(42, ge=0, lt=2**32)
    workers: int | None = Field(None, ge=0, le=256)
    checkpoint_minutes: float = Field(10.0, gt=0)
    images: int = Field(4, ge=0)
    logger: Annotated[str, AfterValidator(read_loggers)] = USUAL

    @pydantic.field_validator("config", mode="plain")
    @classmethod
    def _read_config(cls, value: Any, info: ValidationInfo) -> Any:
        name = info.data.get("network", DEFAULT)
        if is_own(name) and value is not None:  # a file is read without the network's code
            return read_config(name, value) if isinstance(value, Mapping) else value
        kind = find_network(name).config
        return value if isinstance(value, kind) else kind(**(value or {}))

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.sample_rate < 1 and self.volume_sample_rate < 1:
            raise ValueError(
                "sample_rate and volume_sample_rate are both below 1: sample slices or volumes"
            )
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """Every parameter by its name, those of the network's config among them."""
        return flat(self.model_dump())

    def to_json(self) -> str:
        """Write the job as JSON."""
        return self.model_dump_json(indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a job of this version or an earlier one; ValueError where the text is not a job."""
        values = {"network": DEFAULT, **json.loads(text)}
        _name_first_estimate(values)
        if "config" not in values:  # of earlier versions, which had its numbers among the others
            names = _names(find_network(values["network"]).config)
            values["config"] = {name: values.pop(name) for name in names if name in values}
        return cls.model_validate_json(json.dumps(values))


def flat(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job's fields with those of its network's config among them.

    Jobs of earlier versions are so already, and name no network.
    """
    values = {"network": DEFAULT, **job}
    _name_first_estimate(values)
    if start := values.get("start_from"):
        values["start_from"] = str(Start.model_validate(start))
    return values | values.pop("config", {})


def _name_first_estimate(values: dict[str, Any]) -> None:
    """Rename what earlier versions said of a network's first estimate."""
    if values.pop("zero_start", False):
        values["first_estimate"] = ZERO_FILLED


def training_job(
    dataset: Path | str, *, synthetic: bool, model: str, name: str | None = None, **choices: Any
) -> TrainingJob:
    """Form a job from a notebook's parameters; None stands for the default.

    The network's recipe has defaults of its own, and so has the phantom (synthetic). ``choices``
    are fields of ``TrainingJob`` and of its network's config (also by ``network_options``, see
    ``read_options``), and for its sampling ``mask``, ``acceleration`` and ``center_fraction`` (one
    number, or several).

    Raises:
        ValueError: a parameter is unknown or outside what is allowed.
    """
    known_model = model_by_name(model)
    given = {key: value for key, value in choices.items() if value is not None}
    sampling: dict[str, Any] = {}
    if "mask" in given:
        sampling["mask"] = given.pop("mask")
    for field, choice in (
        ("accelerations", "acceleration"),
        ("center_fractions", "center_fraction"),
    ):
        if choice in given:
            sampling[field] = numbers(choice, given.pop(choice))
    start: Start | None = given.get("start_from")
    if start:
        start.check("network", given.setdefault("network", start.network), start.network)
        given.setdefault("first_estimate", start.first_estimate)  # what they learned with
    entry = find_network(given.get("network", DEFAULT))
    if not entry.trains:
        raise ValueError(
            f"network={entry.name!r} learns nothing, so it cannot be trained: reconstruct with it, "
            f"workbench reconstruct network={entry.name}"
        )
    kind = DATASETS[known_model.dataset].kind
    if kind not in entry.kinds:
        raise ValueError(f"network={entry.name!r} learns from {', '.join(entry.kinds)}, not {kind}")
    names = _names(entry.config)
    if clash := [key for key in names if key in TrainingJob.model_fields]:
        raise ValueError(
            f"network={entry.name!r}: its argument {clash[0]} is a parameter of the training "
            "already: give it another name"
        )
    own = {key: given.pop(key) for key in names if key in given}
    own |= read_options(given.pop("network_options", None))
    if given.get("low_memory") in ("True", "False"):  # as the notebook writes it
        given["low_memory"] = given["low_memory"] == "True"
    _check_help(entry, given)
    if given.get("learning") == "self-supervised" and given.get("loss"):
        raise ValueError(
            f"loss={given['loss']!r} compares images with targets, and learning=self-supervised "
            "reads none: leave one of the two out"
        )
    for key in given:
        if key not in TrainingJob.model_fields:
            raise ValueError(
                f"{key}: no such parameter of a training with network={entry.name!r}, whose "
                f"numbers are {', '.join(names) or 'none'}"
            )
    small = dict(entry.phantom) if synthetic else {}
    numbers_of_config = {key: small.pop(key) for key in names if key in small}
    if start:
        numbers_of_config = start.config
        for key, value in own.items():
            start.check(key, value, start.config.get(key))
    named: dict[str, Any] = {key: given.get(key) for key in ("network", "loss")}
    try:
        return TrainingJob(
            name=name or known_model.name,
            code={key: digest_of(value, key) for key, value in named.items() if is_own(value)},
            model=known_model.name,
            dataset=str(dataset),
            config=entry.configured(numbers_of_config | own),
            sampling=Sampling(**sampling),
            **{**entry.recipe, **(PHANTOM_DEFAULTS if synthetic else {}), **small, **given},
        )
    except pydantic.ValidationError as error:
        raise ValueError(in_words(error)) from None


def _check_help(entry: Network, given: Mapping[str, Any]) -> None:
    """Refuse what a network cannot do."""
    asked: dict[str, Any] = {"precision": "bf16", "compile": "on"}
    asked |= dict.fromkeys(("low_memory", "crop_readout"), True)
    for name, advice in entry.lacks.items():
        value = given.get(name)
        if value not in (None, AS_PUBLISHED) and value == asked.get(name, value):
            raise ValueError(f"{name}={value}: {entry.label} cannot: {advice}")


def try_own_code(job: TrainingJob) -> None:
    """Run a job's own network and loss, where it has any, on a tiny slice.

    Any network is asked whether it can learn as the job wants.

    Raises:
        ValueError: one does not do; the message names the parameter, and what to do.
    """
    if is_own(job.network):
        try_network(job.network, lambda: build(job.network, job.config))
    if job.loss and is_own(job.loss):
        try_loss(job.loss)
    if job.learning == "self-supervised":
        import torch

        with torch.device("meta"):
            network = build(job.network, job.config)
        if not network.forms_coil_images:
            raise ValueError(
                f"learning=self-supervised compares k-space of single coils, and network="
                f"{job.network!r} forms no images of single coils: give another network, such as "
                f"{DEFAULT}, or learning=supervised"
            )


def in_words(error: pydantic.ValidationError) -> str:
    """Say the first thing that pydantic refuses as "epochs=0: give 1 or more"."""
    first = error.errors(include_url=False)[0]
    if cause := first.get("ctx", {}).get("error"):
        return str(cause)
    name = str(first["loc"][0])
    if first["type"] == "extra_forbidden":
        return f"{name}: no such parameter"
    advice = first["msg"].replace("Input should be", "give")
    for words, plain in (
        (r"greater than or equal to (\S+)", r"\1 or more"),
        (r"less than or equal to (\S+)", r"at most \1"),
        (r"greater than (\S+)", r"more than \1"),
        ("a valid boolean", "True or False"),
        ("a valid integer.*", "a whole number"),
        ("a valid string", "a text"),
        ("a valid", "a"),
    ):
        advice = re.sub(words, plain, advice)
    return f"{name}={first['input']!r}: {advice}"


def _names(config: type[Any]) -> list[str]:
    return [each.name for each in dataclasses.fields(config)]
