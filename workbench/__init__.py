"""A workbench for fastMRI: ingest, cache, train, reconstruct, look.

The names below are for scripts and notebooks of your own. They are imported when first used, so
that ``import workbench`` takes no time. Take a slice, undersample it, reconstruct it, score it::

    import workbench

    dataset = workbench.open_dataset("outputs/demo/datasets/brain_multicoil").split("val")
    slices = workbench.SliceDataset(dataset, workbench.Sampling("equispaced", 4, 0.08))
    sample = slices.slice_of(dataset[0], 5)  # masked k-space, mask, target of one slice

    model = workbench.load_model("outputs/demo/brain")  # a run, a file, or "fastmri-brain"
    image = workbench.reconstruct(model, sample)  # (height, width) float32
    print(workbench.score(image, sample.target, max_value=sample.max_value))

    whole = workbench.Results("outputs/demo/brain")  # what reconstruct.ipynb has written

| name | what it is |
| --- | --- |
| ``open_dataset`` | opens a dataset by name, folder or address: its volumes and splits |
| ``Volume`` | one file of a dataset: its sizes, coils, mask, header |
| ``Sampling`` | how k-space is undersampled |
| ``SliceDataset`` | undersampled slices for training and evaluation (a torch ``Dataset``) |
| ``load_model`` | a network with its weights, ready to reconstruct |
| ``reconstruct`` | k-space to images |
| ``score`` | SSIM, PSNR and NMSE as fastMRI's leaderboard computes them |
| ``VarNet``, ``NETWORKS`` | the end-to-end VarNet, and the registry of networks |
| ``Run``, ``Results`` | a training's folder, and a reconstruction's |
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.compute.runs import Run
    from workbench.data.cache import open_dataset
    from workbench.data.sampling import Sampling
    from workbench.data.slices import SliceDataset
    from workbench.data.volume import Volume
    from workbench.models import NETWORKS, VarNet
    from workbench.recon.arrays import reconstruct, score
    from workbench.recon.results import Results
    from workbench.recon.weights import load_model

__all__ = [
    "NETWORKS",
    "Results",
    "Run",
    "Sampling",
    "SliceDataset",
    "VarNet",
    "Volume",
    "load_model",
    "open_dataset",
    "reconstruct",
    "score",
]

_HOMES = {
    "NETWORKS": "models",
    "Results": "recon.results",
    "Run": "compute.runs",
    "Sampling": "data.sampling",
    "SliceDataset": "data.slices",
    "VarNet": "models",
    "Volume": "data.volume",
    "load_model": "recon.weights",
    "open_dataset": "data.cache",
    "reconstruct": "recon.arrays",
    "score": "recon.arrays",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
