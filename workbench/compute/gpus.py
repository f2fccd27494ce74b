"""Which GPUs a VM has, and whether a build of torch has kernels for them.

VM sizes: https://learn.microsoft.com/azure/virtual-machines/sizes/overview (section GPU).
"""

import ctypes
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from workbench.progress import amount, tell
from workbench.settings import child_environment

TORCH_BUILDS = ("cu126", "cu130")
"""CUDA versions that torch's own index offers builds for."""

# Since 2.11 torch's usual wheels are CUDA 13 builds, which hold no kernels for Pascal and Volta;
# CUDA 12.6 builds still do.
_OLDEST = {"": (7, 5), "cu130": (7, 5), "cu126": (5, 0)}
FOR_OLD_CARDS = "cu126"
_WAY_OUT = (
    f"Give torch_build={FOR_OLD_CARDS!r} (train.ipynb) for older cards and drivers, or take a "
    "cluster with newer cards"
)
_NO_CARD = (
    "Another build of torch cannot help: look in the studio whether the cluster's machines have "
    "GPUs and are healthy, and send the job again"
)
_NO_DRIVER = "no NVIDIA driver"

# By card and its CUDA compute capability: sizes, without "standard_", and the cards of each.
_SIZES: dict[tuple[str, tuple[int, int]], dict[str, int]] = {
    ("P100", (6, 0)): {"nc6s_v2": 1, "nc12s_v2": 2, "nc24s_v2": 4, "nc24rs_v2": 4},
    ("P40", (6, 1)): {"nd6s": 1, "nd12s": 2, "nd24s": 4, "nd24rs": 4},
    ("V100", (7, 0)): {"nc6s_v3": 1, "nc12s_v3": 2, "nc24s_v3": 4, "nc24rs_v3": 4, "nd40rs_v2": 8},
    ("T4", (7, 5)): {"nc4as_t4_v3": 1, "nc8as_t4_v3": 1, "nc16as_t4_v3": 1, "nc64as_t4_v3": 4},
    ("A10", (8, 6)): {"nv36ads_a10_v5": 1, "nv72ads_a10_v5": 2},
    ("A100", (8, 0)): {
        "nc24ads_a100_v4": 1,
        "nc48ads_a100_v4": 2,
        "nc96ads_a100_v4": 4,
        "nd96asr_v4": 8,
        "nd96amsr_a100_v4": 8,
    },
    ("H100", (9, 0)): {"nc40ads_h100_v5": 1, "nc80adis_h100_v5": 2, "nd96isr_h100_v5": 8},
    ("H200", (9, 0)): {"nd96isr_h200_v5": 8},
}


@dataclass(frozen=True)
class Machine:
    """The GPUs of a VM size: the card's name, its CUDA compute capability, number of cards."""

    card: str
    capability: tuple[int, int]
    count: int


class UnusableGpuError(RuntimeError):
    """This machine's GPUs cannot run this build of torch; the message says why and the way out."""


def machine_of(vm_size: str) -> Machine | None:
    """Return the GPUs of a VM size; None where it has none, or is not known here."""
    size = vm_size.lower().removeprefix("standard_")
    for (card, capability), sizes in _SIZES.items():
        if size in sizes:
            return Machine(card, capability, sizes[size])
    return None


def cards_of(vm_size: str) -> int:
    """Return the processes of a node: one for each GPU, else one."""
    machine = machine_of(vm_size)
    return machine.count if machine else 1


def has_gpus(vm_size: str) -> bool:
    """Say whether a VM size has GPUs: those of Azure's N series have."""
    return vm_size.lower().startswith("standard_n")


def cluster_warnings(vm_size: str, torch_build: str = "") -> list[str]:
    """Say what stands between a cluster's GPUs and a build of torch, before a job is sent."""
    if not has_gpus(vm_size):
        return [
            f"{vm_size} has no GPU: each node works in one CPU process, which is for trials only"
        ]
    machine = machine_of(vm_size)
    if machine is None:
        return [f"the GPUs of {vm_size} are not known here; the job checks them as it starts"]
    if machine.capability < _OLDEST[torch_build]:
        return [
            f"{vm_size} has {machine.card} cards, which torch's build "
            f"{torch_build or 'for CUDA 13 (the usual one)'} has no kernels for: give "
            f"torch_build={FOR_OLD_CARDS!r}, or take a cluster with T4, A100 or newer cards"
        ]
    return []


def count_gpus() -> int:
    """Return how many GPUs torch can use here; without a driver torch is not imported to say so."""
    if sys.platform == "linux" and not Path("/dev/kfd").exists():  # of AMD's driver
        try:
            ctypes.CDLL("libcuda.so.1")  # NVIDIA's, which CUDA itself looks for by this name
        except OSError:
            return 0
    import torch

    return torch.cuda.device_count()


def check_gpus(promised: bool) -> None:
    """Check this machine's driver and cards against torch before any data is touched.

    Raises:
        UnusableGpuError: torch cannot use the cards, or there are none where some were promised.
    """
    import torch

    way_out = _WAY_OUT
    cards, build = _driver(), f"torch {torch.__version__} (CUDA {torch.version.cuda or 'none'})"
    problem: str | None = None
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            problem = problem or missing_kernels(
                torch.cuda.get_device_name(number),
                torch.cuda.get_device_capability(number),
                torch.cuda.get_arch_list(),
            )
        if problem is None:
            torch.zeros(1, device="cuda").add_(1).item()
    elif promised or cards != _NO_DRIVER:
        why = "the driver is too old for it"
        if cards == _NO_DRIVER:
            why, way_out = "the container was given no card", _NO_CARD
        elif torch.version.cuda is None:
            why = "this build of torch has no CUDA"
        problem = f"torch sees no GPU on this machine: {why}"
    if problem:
        raise UnusableGpuError(f"{problem}; {cards}, {build}. {way_out}")


def missing_kernels(
    card: str, capability: tuple[int, int], architectures: Sequence[str]
) -> str | None:
    """Say that a build of torch lacks kernels for a card, or return None.

    A binary ("sm_75") for (major, minor) runs on cards of the same major and the same or a higher
    minor; PTX ("compute_90") on any that is newer (CUDA C++ Programming Guide, compatibility).
    """
    for name in architectures:
        if match := re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", name):
            built_for = int(match[2]), int(match[3])
            same = match[1] == "compute" or built_for[0] == capability[0]
            if same and built_for <= capability:
                return None
    held = ", ".join(architectures) or "none"
    return f"{card} has compute capability {capability[0]}.{capability[1]}, and torch has {held}"


def tell_memory_in_use() -> None:
    """Tell how much memory of this machine's GPUs is in use, where ``nvidia-smi`` says."""
    answer = _nvidia_smi("memory.used,memory.total", "nounits")
    cards = re.findall(r"^(\d+), (\d+)$", answer, re.MULTILINE)  # MiB
    if cards:
        used = [[int(number) * 2**20 for number in card] for card in cards]
        text = "; ".join(f"{amount(part, 'B')} of {amount(total, 'B')}" for part, total in used)
        tell("GPU memory", max(part / total for part, total in used), f"GPU memory: {text}")


def _driver() -> str:
    """Return cards and driver as nvidia-smi names them."""
    lines = _nvidia_smi("name,driver_version").splitlines()
    return f"{lines[0].replace(', ', ', driver ')}" if lines else _NO_DRIVER


def _nvidia_smi(query: str, *more: str) -> str:
    """Return what nvidia-smi answers, a line a card; "" where it does not."""
    form = ",".join(("csv", "noheader", *more))
    try:
        return subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", f"--format={form}"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env=child_environment(),
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
