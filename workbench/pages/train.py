"""The page of ``train.ipynb``: its form, and what the form shows while a network trains."""

import dataclasses
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any

from workbench.azure_login import require_workspace
from workbench.catalog import MODELS, SPLITS
from workbench.compute.evaluation import parse_splits
from workbench.compute.jobs import COMPILE, PRECISIONS, TrainingJob, training_job
from workbench.compute.plan import Plan
from workbench.compute.runs import Run
from workbench.compute.sender import conda_specification, parse_tags
from workbench.compute.training import TARGETS, TrainingPlan, plan_training, train
from workbench.data.sampling import MASKS
from workbench.forms.layout import datasets_here, runs_here
from workbench.forms.page import Look, OpenPage, Page, Values, open_page
from workbench.progress import amount, tell
from workbench.settings import child_environment

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SECONDS_BETWEEN_LOOKS = 2.0

# What of the parameters ``training_job`` takes.
_OF_JOB = {each.name for each in dataclasses.fields(TrainingJob)} - {"model", "dataset"} | {
    *("mask", "acceleration", "center_fraction")
}


def training_page(variables: Mapping[str, Any]) -> OpenPage:
    """Open the page: a form in JupyterLab; the training at once elsewhere.

    Args:
        variables: the notebook's ``globals()``, with its parameters.
    """
    return open_page(PAGE, variables)


def check(values: Values) -> None:
    """Check what can be checked without a look at data or cloud.

    Raises:
        ValueError: a parameter is outside what is allowed.
    """
    if values["target"] not in TARGETS:
        raise ValueError(f"target={values['target']!r}: give one of {', '.join(TARGETS)}")
    if values["nodes"] < 1:
        raise ValueError(f"nodes={values['nodes']!r}: give 1 or more")
    choices = {name: value for name, value in values.items() if name in _OF_JOB}
    training_job(Path(), synthetic=False, model=values["model"], **choices)
    parse_splits(values["reconstruct"])
    parse_tags(values["tags"])
    if values["torch_build"]:
        conda_specification(values["torch_build"])
    if values["target"] == "azureml":
        require_workspace()


def plan(**values: Any) -> Plan:
    """Check everything and show what will run."""
    from workbench.views.training import show_estimate

    found = plan_training(**values)
    print(found, flush=True)
    show_estimate(found)
    return found


def work(planned: Plan) -> Run:
    """Train, and print the lines of the run."""
    for line in train(planned):
        print(line, flush=True)
    return planned.run


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
        if isinstance(planned, TrainingPlan) and planned.ranks.device == "GPU" and not last:
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


def _clusters(values: Values) -> Sequence[str]:
    from workbench.compute.cluster import connect

    return [each.name for each in connect(require_workspace(), values["sdk"]).clusters()]


def _datastores(values: Values) -> Sequence[str]:
    from workbench.compute.cluster import connect

    return [each.name for each in connect(require_workspace(), values["sdk"]).datastores()]


def _best(run: Run) -> str:
    from workbench.views.curves import best_epoch

    metrics = run.metrics
    best = metrics[best_epoch(metrics) or 0]
    return f": best epoch {best['epoch']:.0f}, validation SSIM {best['val_ssim']:.4f}"


PAGE = Page(
    notebook="train",
    address="workbench.pages.train:PAGE",
    start="Train",
    check=check,
    plan=plan,
    work=work,
    watch=watch,
    report=_best,
    tensorboard=True,
    common=("model", "local_dataset", "name", "epochs", "nodes", "target", "reconstruct"),
    groups={
        "Undersampling": ("mask", "acceleration", "center_fraction"),
        "Schedule": (
            *("batch_size", "accumulate", "lr", "lr_step", "lr_gamma", "weight_decay"),
            *("precision", "seed", "checkpoint_minutes", "resume", "workers"),
        ),
        "Speed and memory": ("low_memory", "compile", "tf32", "crop_readout"),
        "Network": ("cascades", "chans", "pools", "sens_chans", "sens_pools"),
        "Less data": ("sample_rate", "volume_sample_rate", "val_volume_sample_rate"),
        "AzureML": (
            *("cluster", "low_priority", "sdk", "dataset_access", "azure_dataset", "datastore"),
            *("experiment", "tags", "torch_build", "price_per_hour", "dataset_mount"),
        ),
    },
    looks={
        "model": Look(choices=lambda: tuple(MODELS), only_these=True),
        "local_dataset": Look("dataset", choices=datasets_here),
        "name": Look("run's name", choices=runs_here),
        "epochs": Look(unit="passes"),
        "nodes": Look(unit="machines or processes"),
        "target": Look("where to train", choices=lambda: TARGETS, only_these=True),
        "reconstruct": Look("reconstruct afterwards", choices=lambda: SPLITS, several=True),
        "mask": Look(choices=lambda: MASKS, only_these=True),
        "center_fraction": Look("centre fraction"),
        "batch_size": Look(unit="slices"),
        "accumulate": Look("accumulate gradients", unit="batches"),
        "lr": Look("learning rate"),
        "lr_step": Look("learning rate: step", unit="epochs"),
        "lr_gamma": Look("learning rate: factor"),
        "precision": Look(choices=lambda: PRECISIONS, only_these=True),
        "low_memory": Look(choices=lambda: ("auto", "True", "False"), only_these=True),
        "compile": Look("torch.compile", choices=lambda: COMPILE, only_these=True),
        "tf32": Look(choices=lambda: ("True", "False")),
        "crop_readout": Look("crop the readout", choices=lambda: ("True", "False")),
        "checkpoint_minutes": Look("checkpoint every", unit="minutes"),
        "workers": Look("loader processes"),
        "chans": Look("channels"),
        "sens_chans": Look("sensitivity net: channels"),
        "sens_pools": Look("sensitivity net: pools"),
        "sample_rate": Look("share of slices"),
        "volume_sample_rate": Look("share of volumes"),
        "val_volume_sample_rate": Look("share of validation volumes"),
        "cluster": Look(look_up=_clusters),
        "datastore": Look(look_up=_datastores),
        "low_priority": Look(choices=lambda: ("True", "False")),
        "dataset_mount": Look(choices=lambda: ("True", "False")),
        "price_per_hour": Look("a node costs", unit="US dollars an hour"),
        "sdk": Look("AzureML's SDK", choices=lambda: ("v1", "v2"), only_these=True),
    },
)
