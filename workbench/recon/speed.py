"""How a network runs on the machine at hand: fused or not, with or without kept activations."""

import importlib.util
import os
import shutil

import torch
from torch import Tensor

from workbench.compute.jobs import TrainingJob
from workbench.models import build, find_network
from workbench.models.reconstructor import Reconstructor
from workbench.models.unet import UNetBase

LONG = 2000
"""Steps from which compiling for a minute or two is worth its time."""

_OLDEST_FOR_TRITON = (7, 0)
_SHARE = 0.8  # of a memory that may be filled
_BESIDES = 1.25  # what a step needs for a moment, over what it keeps
_PER_PARAMETER = 16  # bytes: weight, gradient, and Adam's two moments
_AVERAGED = 4  # and, with ``ema``, the average


def use_tf32(allowed: bool) -> None:
    """Let NVIDIA GPUs round float32 factors to TF32, or not; torch's own default is half of each.

    It is a setting of the process, for a backward pass runs in threads of its own.
    """
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cuda.matmul.allow_tf32 = allowed


def kept_bytes(
    job: TrainingJob, shape: tuple[int, int, int], size: tuple[int, int] | None = None
) -> int:
    """Return what a forward pass keeps for its backward pass, without running it.

    It is counted as on a GPU; a CPU keeps a little over half of it.

    Args:
        job: its network and batch size.
        shape: coils, readout and phase encode of a slice.
        size: that its image is cropped to; None for the whole one.
    """
    with torch.device("meta"):
        network = build(job.network, job.config)
        network.crop_readout = job.crop_readout
        coils, *matrix = shape
        kspace = torch.empty(job.batch_size, network.neighbours * coils, *matrix, 2)
        mask = torch.empty(1, 1, 1, shape[2], 1, dtype=torch.bool)
    own = {id(parameter) for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        network.central_image(kspace, mask, None, size or shape[1:])
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def device_memory(ranks_here: int) -> int:
    """Return the bytes that a rank of this machine has: its GPU's, or its share of the RAM."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // ranks_here


def saves_memory(
    job: TrainingJob,
    shape: tuple[int, int, int],
    memory: int,
    size: tuple[int, int] | None = None,
) -> bool:
    """Return whether a job's steps compute activations twice instead of keeping them.

    The largest slice counts, see ``kept_bytes``, and all of the ``memory`` of a rank, in bytes, so
    that a resumed run decides as it did before.
    """
    if isinstance(job.low_memory, bool):
        return job.low_memory
    if "low_memory" in find_network(job.network).lacks:
        return False
    with torch.device("meta"):
        network = build(job.network, job.config)
    count = sum(parameter.numel() for parameter in network.parameters())
    parameters = count * (_PER_PARAMETER + (_AVERAGED if job.ema else 0))
    return _BESIDES * kept_bytes(job, shape, size) + parameters > _SHARE * memory


def compiles(job: TrainingJob, steps: int) -> bool:
    """Return whether a job's U-Nets are to be compiled, for so many steps in all.

    Raises:
        ValueError: it asks for it, and this machine cannot.
    """
    if job.compile == "off" or "compile" in find_network(job.network).lacks:
        return False
    gpu, obstacle = torch.cuda.is_available(), ""
    if not gpu and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "clang++"))):
        obstacle = "on a CPU it needs a C++ compiler, such as g++"
    elif gpu and torch.cuda.get_device_capability() < _OLDEST_FOR_TRITON:
        obstacle = f"Triton has no kernels for {torch.cuda.get_device_name()}"
    elif gpu and not importlib.util.find_spec("triton"):
        obstacle = "Triton is not installed"
    if job.compile == "auto":
        return gpu and not obstacle and steps >= LONG
    if obstacle:
        raise ValueError(f"compile=on: {obstacle}; give auto or off")
    return True


def compile_unets(network: Reconstructor, backend: str = "inductor") -> None:
    """Compile the U-Nets in place: one graph for all cascades, whatever the image's size."""
    for module in network.modules():
        if isinstance(module, UNetBase):
            module.compile(backend=backend, fullgraph=True)
