"""The page of ``train.ipynb``: its parameters, and what the form shows while a network trains."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, model_validator

from workbench.azure_login import find_workspace
from workbench.catalog import MODEL_ALIASES, MODELS, SPLITS
from workbench.compute.evaluation import NO_SPLIT, parse_splits
from workbench.compute.gpus import tell_memory_in_use
from workbench.compute.here import Ranks
from workbench.compute.jobs import (
    AUGMENT,
    COMPILE,
    LEARNING,
    LOSSES,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    check_loss_name,
    run_folder,
    training_job,
)
from workbench.compute.loggers import LOGGERS, check_installed
from workbench.compute.node import this_node
from workbench.compute.plan import Plan
from workbench.compute.runs import Run
from workbench.compute.training import TARGETS, plan_training, train
from workbench.data.cache import load_cache
from workbench.data.folders import find_dataset
from workbench.data.sampling import MASKS, Sampling
from workbench.forms.parameters import Field, Numbers, WrongValueError, concerning
from workbench.models import (
    DEFAULT,
    FIRST_ESTIMATES,
    NETWORKS,
    find_network,
    released,
    trains,
)
from workbench.models.entry import read_options
from workbench.models.own import check_there, is_own
from workbench.pages.cluster import TARGET, ClusterPage
from workbench.pages.shared import (
    NetworkName,
    NetworkOptions,
    RunName,
    check_dataset,
    check_sampling,
    datasets_here,
    runs_here,
)
from workbench.settings import TRACKING_LOGIN
from workbench.stores import is_address

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS_BETWEEN_LOOKS = 2.0


def _check_loss(name: str) -> str:
    return check_there("loss", name) if is_own(name) else check_loss_name(name)


def _check_trains(name: str) -> str:
    if not trains(name):
        raise ValueError(
            f"network={name!r} learns nothing: reconstruct with it, without a training"
        )
    return name


class TrainPage(ClusterPage):
    """Train a network, here or on a cluster, and reconstruct with it."""

    notebook, start, tensorboard = "train", "Train", True
    imports = (
        *("workbench.data.masks", "workbench.views.training"),
        *("workbench.views.curves", "workbench.views.samples"),
    )

    model: str = Field("brain", choices=tuple(MODELS), meanings=MODEL_ALIASES)
    """knee, brain, knee_singlecoil or prostate (also KneeMulticoil, ...)"""
    local_dataset: str | None = Field(None, label="dataset", choices=datasets_here)
    """its folder, or its address, https://, s3:// or gs://; None: the model's"""
    name: RunName | None = Field(None, label="run's name", choices=runs_here)
    """folder of the run under outputs/; None: the model's name"""
    epochs: int | None = Field(None, ge=1, unit="passes", aliases=("num_epochs",))
    """passes over the training set, 50 (None)"""
    nodes: int = Field(1, ge=1, unit="machines or processes", aliases=("num_nodes",))
    """machines of the cluster; here without GPUs: that many processes"""
    target: str = Field("auto", choices=TARGETS, **TARGET)
    """local, azureml, or auto: azureml if configured and the dataset is not here"""
    reconstruct: str | None = Field(
        None, label="reconstruct after", choices=(*SPLITS, NO_SPLIT), several=True
    )
    """splits such as "val, test", or none; None: on a cluster val and test"""

    mask: str | None = Field(None, section="Undersampling", choices=MASKS)
    """such as random, equispaced (None); an unknown kind is refused with the list"""
    acceleration: Numbers | None = Field(None, numeric=True)
    """one or several such as "4,8"; 4 (None)"""
    center_fraction: Numbers | None = Field(None, label="centre fraction", numeric=True)
    """share of ACS columns, 0.08 (None), one for each acceleration"""

    first_estimate: str | None = Field(None, choices=lambda _: FIRST_ESTIMATES, section="Learning")
    """published (None), zero-filled, sense, wavelet, tv: its first image"""
    start_from: str | None = Field(None, choices=lambda _: (*runs_here(), *released()))
    """weights to begin with: a run, a file, or fastmri-knee; None: random ones"""
    learning: str | None = Field(None, choices=LEARNING)
    """supervised (None), or self-supervised: from k-space alone, no target is read"""
    augment: str | None = Field(None, choices=AUGMENT)
    """flips, or full (shifts, rotates, scales too), more by epoch; None: none"""

    batch_size: int | None = Field(None, section="Schedule", ge=1, unit="slices")
    """slices a process and step, 1 (None)"""
    accumulate: int | None = Field(None, label="accumulate gradients", ge=1, unit="batches")
    """batches whose gradients are added up before a step, 1 (None)"""
    optimizer: str | None = Field(None, choices=tuple(OPTIMIZERS))
    """adam (None), adamw or rmsprop"""
    lr: float | None = Field(None, label="learning rate", gt=0)
    """learning rate, 3e-4 (None)"""
    schedule: str | None = Field(None, label="learning rate: schedule", choices=SCHEDULES)
    """step (None), or cosine: it rises, then falls to zero by the last epoch"""
    lr_step: int | None = Field(None, label="learning rate: step", ge=1, unit="epochs")
    """epochs after which the rate is multiplied by lr_gamma, 40 (None)"""
    lr_gamma: float | None = Field(None, label="learning rate: factor", gt=0)
    """that factor, 0.1 (None)"""
    weight_decay: float | None = Field(None, ge=0)
    """penalty on large weights, 0 (None)"""
    clip: float | None = Field(None, label="clip gradients", gt=0)
    """norm that a step's gradient is cut to; None: not cut"""
    ema: float | None = Field(None, label="average weights", ge=0, lt=1)
    """decay of a running average of the weights, such as 0.999; 0 (None): none"""
    patience: int | None = Field(None, ge=1, unit="epochs")
    """epochs without a better validation after which it ends; None: never"""
    precision: str | None = Field(None, choices=PRECISIONS)
    """32 (None), bf16 (convolutions alone) or 16 (mixed)"""
    seed: int | None = Field(None, ge=0, lt=2**32)
    """of weights, order, masks and sampling, 42 (None)"""
    checkpoint_minutes: float | None = Field(None, label="checkpoint every", gt=0, unit="minutes")
    """time between checkpoints within an epoch, 10 (None)"""
    logger: str | None = Field(None, label="curves go to", choices=tuple(LOGGERS), several=True)
    """such as "tensorboard, mlflow"; None: tensorboard, on AzureML mlflow too"""
    resume: bool = True
    """go on with the run that is there; False: refuse to"""
    workers: int | None = Field(None, label="loader processes", ge=0, le=256)
    """loader processes a rank; None: 4 a GPU, none on the CPU"""

    low_memory: str | None = Field(
        None, section="Speed and memory", choices=("auto", "True", "False")
    )
    """True: keep no activations, compute them twice; "auto" (None)"""
    compile: str | None = Field(None, choices=COMPILE, meanings={True: "on", False: "off"})
    """torch.compile: on, off or "auto" (None)"""
    tf32: bool | None = None
    """True: GPUs may round float32 factors to TF32; faster, other numbers"""
    crop_readout: bool | None = Field(None, label="crop the readout")
    """True: without the readout's oversampling; half the work, other numbers"""

    network: Annotated[NetworkName, AfterValidator(_check_trains)] | None = Field(
        None, section="Network", choices=lambda _: tuple(filter(trains, NETWORKS))
    )
    """your own as package.module:MyNetwork; None: the usual one"""
    network_options: NetworkOptions | None = None
    """arguments of the network (docs/own-code.md); None: its defaults"""
    loss: Annotated[str, AfterValidator(_check_loss)] | None = Field(
        None, choices=lambda _: tuple(LOSSES)
    )
    """such as ssim, l1, or package.module:function; None: the network's, or 1 - SSIM"""
    cascades: int | None = Field(None, ge=1)
    """number of cascades, 12 (None)"""
    chans: int | None = Field(None, label="channels", ge=1)
    """channels of a U-Net, 18 (None)"""
    pools: int | None = Field(None, ge=1, le=4)
    """poolings of a U-Net, 4 (None)"""
    sens_chans: int | None = Field(None, label="sensitivity net: channels", ge=1)
    """channels of the sensitivity net, 8 (None)"""
    sens_pools: int | None = Field(None, label="sensitivity net: pools", ge=1, le=4)
    """poolings of the sensitivity net, 4 (None)"""

    sample_rate: float | None = Field(None, section="Less data", label="slices", gt=0, le=1)
    """share of the training slices, 1 (None)"""
    volume_sample_rate: float | None = Field(None, label="volumes", gt=0, le=1)
    """share of the training volumes, 1 (None)"""
    val_volume_sample_rate: float | None = Field(None, label="validation volumes", gt=0, le=1)
    """share of the validation volumes, 1 (None)"""

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what can be checked without a look at data or cloud."""
        check_sampling(self, Sampling())
        with concerning("reconstruct"):
            parse_splits(self.reconstruct)
        if (self.sample_rate or 1) < 1 and (self.volume_sample_rate or 1) < 1:
            raise WrongValueError(
                "sample_rate",
                "sample_rate and volume_sample_rate are both below 1: sample slices or volumes",
            )
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Those of curves that go elsewhere, too."""
        return *super().needs, TRACKING_LOGIN

    @property
    def _dataset(self) -> str:
        return self.local_dataset or MODELS[self.model].dataset

    def looks(self) -> dict[str, Callable[[], object]]:
        """Look for the weights to begin with, and the dataset, where this machine trains on it."""
        looks: dict[str, Callable[[], object]] = {}
        if self.target == "local" or self.local_dataset or not find_workspace():
            looks["local_dataset"] = lambda: check_dataset(self._dataset)
            if self.logger and not this_node():
                looks["logger"] = lambda: check_installed(str(self.logger))
        if self.start_from and not (this_node() or self._run.last.exists()):
            looks["start_from"] = self._look_at_start
        return looks

    def _look_at_start(self) -> None:
        """Look whether there are such weights, before anything is read."""
        from workbench.recon.weights import file_of

        if self.start_from not in released():
            file_of(str(self.start_from))

    @property
    def _run(self) -> Run:
        return Run(run_folder(self.name or self.model))

    def usual(self) -> dict[str, Any]:
        """Return the network's own defaults, and the phantom's, where the dataset is one."""
        if is_own(self.network or ""):
            return {}
        cache = (
            None
            if is_address(self._dataset)
            else load_cache(find_dataset(self._dataset, announce=False))
        )
        here, usual = (
            training_job("", synthetic=synthetic, model=self.model, network=network).parameters
            for synthetic, network in (
                (cache is not None and cache.synthetic, self.network),
                (False, None),
            )
        )
        own = {name for name in self.fields if name in here and here[name] != usual.get(name)}
        own.discard("network")
        if self.start_from:  # its network's numbers are those of the weights
            own -= {each.name for each in fields(find_network(self.network or DEFAULT).config)}
        return {name: here[name] for name in own if getattr(self, name) is None}

    def plan(self) -> Plan:
        """Check everything and show what will run."""
        choices = self.model_dump()
        if self.start_from:
            from workbench.recon.start import find_start

            choices["start_from"] = find_start(
                self.start_from,
                self._run,
                network=self.network,
                options=read_options(self.network_options),
            )
        planned = plan_training(**choices)
        print(planned, flush=True)
        if planned.estimates:
            from IPython.display import display

            from workbench.views.training import estimate_figure

            display(estimate_figure(planned))
        return planned

    def work(self, planned: Plan) -> str:
        """Train, and print the lines of the run; return its folder."""
        for line in train(planned):
            print(line, flush=True)
        return str(planned.run.folder)

    def watch(self, planned: Plan, ended: Event) -> None:
        """Show learning curves, samples and the GPUs' memory as they come."""
        from IPython.display import display

        from workbench.views.curves import learning_curves, loss_in_words
        from workbench.views.samples import Samples, samples_figure

        run, synthetic = planned.run, planned.run.synthetic
        loss = loss_in_words(planned.job)
        samples, epochs, last = Samples(run.folder), 0, False
        while not last:
            last = ended.wait(SECONDS_BETWEEN_LOOKS)
            metrics = run.metrics
            if len(metrics) != epochs:
                epochs = len(metrics)
                curves = learning_curves(metrics, loss=loss, synthetic=synthetic)
                display(curves, display_id="learning curves")
            if (
                epochs
                and samples.read()
                and (figure := samples_figure(samples, synthetic=synthetic))
            ):
                display(figure, display_id="validation slices by epoch")
            if isinstance(planned.where, Ranks) and planned.where.device == "GPU" and not last:
                tell_memory_in_use()

    def result(self, left: str) -> Run:
        """Open the run."""
        return Run(Path(left))

    def report(self, result: Run) -> str:
        """Name the best epoch."""
        from workbench.views.curves import best_row, say_standing

        best = best_row(result.metrics)
        return f": best epoch {best['epoch']:.0f}, validation {say_standing(best)}"


def show_samples(run: Run) -> "Figure | None":
    """Show some validation slices after the first and the latest epochs."""
    from workbench.views.samples import Samples, samples_figure

    samples = Samples(run.folder)
    samples.read()
    return samples_figure(samples, synthetic=run.synthetic)
