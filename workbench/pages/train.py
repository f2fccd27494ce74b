"""The page of ``train.ipynb``: its parameters, and what the form shows while a network trains."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, model_validator

from workbench.azure_login import require_workspace
from workbench.catalog import MODEL_ALIASES, MODELS, SPLITS
from workbench.compute.cluster import SDKS
from workbench.compute.gpus import TORCH_BUILDS
from workbench.compute.here import Ranks
from workbench.compute.jobs import COMPILE, PRECISIONS
from workbench.compute.plan import Plan
from workbench.compute.runs import Run
from workbench.compute.sender import parse_tags
from workbench.compute.training import TARGETS, plan_training, train
from workbench.data.sampling import MASKS, Sampling
from workbench.forms.choices import datasets_here, runs_here
from workbench.forms.opening import OpenPage, open_page
from workbench.forms.page import Page
from workbench.forms.parameters import Field, Numbers, Parameters, WrongValueError, concerning
from workbench.models import DEFAULT, NETWORKS
from workbench.pages.checks import RunName, check_sampling
from workbench.progress import amount, tell
from workbench.settings import child_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS_BETWEEN_LOOKS = 2.0


def _check_tags(text: str) -> str:
    parse_tags(text)
    return text


def _clusters(parameters: "TrainParameters") -> Sequence[str]:
    from workbench.compute.cluster import connect

    return [each.name for each in connect(require_workspace(), parameters.sdk).clusters()]


def _datastores(parameters: "TrainParameters") -> Sequence[str]:
    from workbench.compute.cluster import connect

    return [each.name for each in connect(require_workspace(), parameters.sdk).datastores()]


class TrainParameters(Parameters):
    """What ``train.ipynb`` asks for."""

    notebook: ClassVar[str] = "train"

    model: str = Field(
        "brain",
        "knee, brain or knee_singlecoil (also KneeMulticoil, BrainMulticoil)",
        choices=tuple(MODELS),
        meanings=MODEL_ALIASES,
    )
    local_dataset: str | None = Field(
        None,
        "its folder, or https:// address in blob storage; None: the model's",
        label="dataset",
        choices=datasets_here,
    )
    name: RunName | None = Field(
        None,
        "folder of the run under outputs/; None: the model's name",
        label="run's name",
        choices=runs_here,
    )
    epochs: int | None = Field(
        None,
        "passes over the training set, 50 (None)",
        ge=1,
        unit="passes",
        aliases=("num_epochs",),
    )
    nodes: int = Field(
        1,
        "machines of the cluster; here without GPUs: that many processes",
        ge=1,
        unit="machines or processes",
        aliases=("num_nodes",),
    )
    target: str = Field(
        "auto",
        '"local", "azureml", or "auto": azureml where a workspace is configured',
        label="where to train",
        choices=TARGETS,
        meanings={True: "azureml", False: "local"},
        aliases=("azureml",),
    )
    reconstruct: str | None = Field(
        None,
        'splits to reconstruct after training, on all ranks, such as "val, test"',
        label="reconstruct afterwards",
        choices=SPLITS,
        several=True,
    )
    mask: str | None = Field(
        None,
        "random, equispaced (None), equispaced_fraction, magic, magic_fraction",
        section="Undersampling",
        choices=MASKS,
    )
    acceleration: Numbers | None = Field(
        None, '4 (None), or several such as "4,8"', also=(int, float, list, tuple)
    )
    center_fraction: Numbers | None = Field(
        None,
        "share of ACS columns, 0.08 (None), one for each acceleration",
        label="centre fraction",
        also=(int, float, list, tuple),
    )
    batch_size: int | None = Field(
        None, "slices a process and step, 1 (None)", section="Schedule", ge=1, unit="slices"
    )
    accumulate: int | None = Field(
        None,
        "batches whose gradients are added up before a step, 1 (None)",
        label="accumulate gradients",
        ge=1,
        unit="batches",
    )
    lr: float | None = Field(None, "Adam's learning rate, 3e-4 (None)", label="learning rate", gt=0)
    lr_step: int | None = Field(
        None,
        "epochs after which the rate is multiplied by lr_gamma, 40 (None)",
        label="learning rate: step",
        ge=1,
        unit="epochs",
    )
    lr_gamma: float | None = Field(
        None, "that factor, 0.1 (None)", label="learning rate: factor", gt=0
    )
    weight_decay: float | None = Field(None, "Adam's L2 penalty, 0 (None)", ge=0)
    precision: str | None = Field(
        None,
        "32 (None), bf16 (convolutions alone) or 16 (mixed)",
        choices=PRECISIONS,
        also=(int,),
    )
    seed: int | None = Field(
        None, "of weights, order, masks and sampling, 42 (None)", ge=0, lt=2**32
    )
    checkpoint_minutes: float | None = Field(
        None,
        "time between checkpoints within an epoch, 10 (None)",
        label="checkpoint every",
        gt=0,
        unit="minutes",
    )
    resume: bool = Field(True, "go on with the run that is there; False: refuse to")
    workers: int | None = Field(
        None,
        "loader processes a rank; None: 4 a GPU, none on the CPU",
        label="loader processes",
        ge=0,
        le=256,
    )
    low_memory: str | None = Field(
        None,
        'True: keep no activations, compute them twice; "auto" (None)',
        section="Speed and memory",
        choices=("auto", "True", "False"),
        meanings={True: "True", False: "False"},
    )
    compile: str | None = Field(
        None,
        'torch.compile: on, off or "auto" (None)',
        label="torch.compile",
        choices=COMPILE,
        meanings={True: "on", False: "off"},
    )
    tf32: bool | None = Field(
        None, "True: GPUs may round float32 factors to TF32; faster, other numbers"
    )
    crop_readout: bool | None = Field(
        None,
        "True: without the readout's oversampling; half the work, other numbers",
        label="crop the readout",
    )
    network: str | None = Field(
        None, f"kind of network, {DEFAULT} (None)", section="Network", choices=tuple(NETWORKS)
    )
    cascades: int | None = Field(None, "number of cascades, 12 (None)", ge=1)
    chans: int | None = Field(
        None, "channels of a cascade's U-Net, 18 (None)", label="channels", ge=1
    )
    pools: int | None = Field(None, "poolings of a cascade's U-Net, 4 (None)", ge=1, le=4)
    sens_chans: int | None = Field(
        None, "channels of the sensitivity net, 8 (None)", label="sensitivity net: channels", ge=1
    )
    sens_pools: int | None = Field(
        None,
        "poolings of the sensitivity net, 4 (None)",
        label="sensitivity net: pools",
        ge=1,
        le=4,
    )
    sample_rate: float | None = Field(
        None,
        "share of the training slices, 1 (None)",
        section="Less data",
        label="share of slices",
        gt=0,
        le=1,
    )
    volume_sample_rate: float | None = Field(
        None, "share of the training volumes, 1 (None)", label="share of volumes", gt=0, le=1
    )
    val_volume_sample_rate: float | None = Field(
        None,
        "share of the validation volumes, 1 (None)",
        label="share of validation volumes",
        gt=0,
        le=1,
    )
    cluster: str | None = Field(
        None,
        "AzureML cluster; None: the only one that fits",
        section="AzureML",
        look_up=_clusters,
    )
    low_priority: bool | None = Field(None, "True or False: only a cluster of that kind")
    sdk: str | None = Field(
        None,
        "AzureML's SDK, v1 or v2; None: the first that works here",
        label="AzureML's SDK",
        choices=SDKS,
    )
    dataset_access: str | None = Field(
        None,
        "mount (None), download to each node first, or stream by ranged reads",
        choices=("mount", "download", "stream"),
    )
    dataset_mount: bool | None = Field(
        None,
        "the name of 2021 for that: True mounts, False downloads",
        aliases=("use_dataset_mount",),
    )
    azure_dataset: str | None = Field(
        None,
        "folder of the dataset in blob storage; None: the model's",
        aliases=("azure_dataset_id",),
    )
    datastore: str | None = Field(
        None, 'AzureML datastore; None: that of the container "datasets"', look_up=_datastores
    )
    experiment: str | None = Field(None, "the studio lists the run under it, fastmri (None)")
    tags: Annotated[str, AfterValidator(_check_tags)] | None = Field(
        None, "for the studio: NAME:VALUE, several separated by commas"
    )
    torch_build: str | None = Field(
        None, "torch for older GPUs: cu126; None: the usual one", choices=TORCH_BUILDS
    )
    price_per_hour: float | None = Field(
        None,
        "US dollars a node, for the estimate; None: Azure's public price",
        label="a node costs",
        ge=0,
        unit="US dollars an hour",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check what can be checked without a look at data or cloud."""
        check_sampling(self.mask, self.acceleration, self.center_fraction, Sampling())
        if (self.sample_rate or 1) < 1 and (self.volume_sample_rate or 1) < 1:
            raise WrongValueError(
                "sample_rate",
                "sample_rate and volume_sample_rate are both below 1: sample slices or volumes",
            )
        if self.target == "azureml":
            with concerning("target"):
                require_workspace()
        return self


def training_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the training at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def plan(parameters: TrainParameters) -> Plan:
    """Check everything and show what will run."""
    from workbench.views.training import show_estimate

    found = plan_training(**parameters.model_dump())
    print(found, flush=True)
    show_estimate(found)
    return found


def work(planned: Plan) -> str:
    """Train, and print the lines of the run; return its folder."""
    for line in train(planned):
        print(line, flush=True)
    return str(planned.run.folder)


def watch(planned: Plan, ended: Event) -> None:
    """Show learning curves, samples and the GPUs' memory as they come, until the event is set."""
    from IPython.display import display

    from workbench.views.curves import learning_curves
    from workbench.views.samples import Samples, samples_figure

    run, synthetic = planned.run, planned.run.synthetic
    samples, epochs, last = Samples(run.folder), 0, False
    while not last:
        last = ended.wait(SECONDS_BETWEEN_LOOKS)
        metrics = run.metrics
        if len(metrics) != epochs:
            epochs = len(metrics)
            display(learning_curves(metrics, synthetic=synthetic), display_id="learning curves")
        if epochs and samples.read() and (figure := samples_figure(samples, synthetic=synthetic)):
            display(figure, display_id="validation slices by epoch")
        if isinstance(planned.where, Ranks) and planned.where.device == "GPU" and not last:
            tell_gpu_memory()


def show_samples(run: Run) -> "Figure | None":
    """Show some validation slices after the first and the latest epochs."""
    from workbench.views.samples import Samples, samples_figure

    samples = Samples(run.folder)
    samples.read()
    return samples_figure(samples, synthetic=run.synthetic)


def tell_gpu_memory() -> None:
    """Tell how much memory of this machine's GPUs is in use, where ``nvidia-smi`` says."""
    if not shutil.which("nvidia-smi"):
        return
    asked = ("--query-gpu=memory.used,memory.total", "--format=csv,noheader,nounits")
    answer = subprocess.run(
        ["nvidia-smi", *asked],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env=child_environment(),
    )
    cards = gpu_memory(answer.stdout)
    if cards:
        shares = [used / total for used, total in cards]
        texts = (f"{amount(used, 'B')} of {amount(total, 'B')}" for used, total in cards)
        tell("GPU memory", max(shares), "GPU memory: " + "; ".join(texts))


def gpu_memory(answer: str) -> list[tuple[float, float]]:
    """Read bytes used and bytes in all of each card from what ``nvidia-smi`` answers (MiB)."""
    rows = (line.split(",") for line in answer.splitlines())
    return [
        (float(row[0]) * 2**20, float(row[1]) * 2**20)
        for row in rows
        if len(row) == 2 and all(part.strip().replace(".", "").isdigit() for part in row)
    ]


def _best(run: Run) -> str:
    from workbench.views.curves import best_epoch

    metrics = run.metrics
    best = metrics[best_epoch(metrics) or 0]
    return f": best epoch {best['epoch']:.0f}, validation SSIM {best['val_ssim']:.4f}"


PAGE = Page(
    TrainParameters,
    "Train",
    plan,
    work,
    lambda folder, _: Run(Path(folder)),
    watch=watch,
    report=_best,
    tensorboard=True,
)
