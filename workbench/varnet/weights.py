"""Weights of a VarNet, from a run of the workbench, from fastMRI's trainer, or as released."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
import torch
from torch import Tensor

from workbench.dataset.cache_file import replacing
from workbench.settings import resolve, shown
from workbench.varnet.network import VarNet

# The weights of fastMRI's leaderboard entries, as its repository's inference script names them.
RELEASED = {
    "fastmri-knee": "knee_leaderboard_state_dict.pt",
    "fastmri-brain": "brain_leaderboard_state_dict.pt",
}
RELEASED_FROM = "https://dl.fbaipublicfiles.com/fastMRI/trained_models/varnet/"


def find_weights(name_or_path: str | Path) -> Path:
    """Return the file of some weights; released ones are fetched once, into ``outputs/weights/``.

    Args:
        name_or_path: a file, or a name of ``RELEASED``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: released weights could not be fetched.
    """
    if str(name_or_path) not in RELEASED:
        path = resolve(name_or_path)
        if not path.is_file():
            names = ", ".join(RELEASED)
            raise FileNotFoundError(f"weights={shown(path)}: no such file; give one, or {names}")
        return path
    file = RELEASED[str(name_or_path)]
    path = resolve("outputs/weights") / file
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with requests.get(RELEASED_FROM + file, stream=True, timeout=60) as response:
                response.raise_for_status()
                with replacing(path) as whole:
                    for part in response.iter_content(1 << 20):  # raises where it ends early
                        whole.write(part)
        except requests.RequestException as error:
            raise OSError(
                f"{RELEASED_FROM}{file} could not be fetched ({type(error).__name__}): "
                f"download it by other means and put it at {shown(path)}"
            ) from None
    return path


def load_network(path: Path) -> VarNet:
    """Build the network that a file of weights is of, and load them.

    Args:
        path: a checkpoint of this workbench or of fastMRI's Lightning trainer, or a plain state
            dict such as the released ones.

    Raises:
        ValueError: the file holds no VarNet.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch's own message advises to load it unsafely: that is not passed on.
        raise ValueError(
            f"{shown(path)} is not a file of weights that can be loaded safely "
            f"({type(error).__name__}): it is damaged, or holds more than weights"
        ) from None
    state = _state_of(content)
    if state is None:
        raise ValueError(f"{shown(path)} holds no weights of a VarNet (sens_net, cascades)")
    try:
        network = VarNet(**architecture(state))
        network.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise ValueError(f"{shown(path)} is not a whole VarNet's: {reason}") from None
    if not all(torch.isfinite(weights).all() for weights in network.parameters()):
        raise ValueError(f"{shown(path)} holds weights that are not finite: its training diverged")
    _as_trained(network, content)
    return network.eval()


def _as_trained(network: VarNet, content: Mapping[str, Any]) -> None:
    """Set what changes a network's numbers as the run that trained it did.

    fastMRI's weights, the released ones included, come without: theirs are the whole readout and
    float32.
    """
    job = content.get("job")
    if isinstance(job, Mapping):
        network.bf16 = job.get("precision") == "bf16"
        network.crop_readout = job.get("crop_readout") is True
        network.tf32 = job.get("tf32") is True


def _state_of(content: Any) -> dict[str, Tensor] | None:
    """Find the VarNet's own entries, whatever their prefix."""
    state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        return None
    for prefix in ("", "network.", "varnet.", "module."):
        own = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith((f"{prefix}sens_net.", f"{prefix}cascades."))
        }
        if own:
            return own
    return None


def architecture(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read the arguments of ``VarNet`` off its weights' names and shapes.

    Raises:
        ValueError: there is neither a cascade nor a sensitivity net in them.
    """

    def unet(prefix: str) -> tuple[int, int]:
        first = state.get(f"{prefix}unet.down_sample_layers.0.layers.0.weight")
        if first is None:
            raise ValueError(f"the weights lack {prefix}unet: they are no VarNet's")
        levels = [
            int(found.group(1))
            for name in state
            if (found := re.match(re.escape(prefix) + r"unet\.down_sample_layers\.(\d+)\.", name))
        ]
        return first.shape[0], 1 + max(levels)

    numbers = [int(name.split(".")[1]) for name in state if name.startswith("cascades.")]
    chans, pools = unet("cascades.0.model.")
    sens_chans, sens_pools = unet("sens_net.norm_unet.")
    return {
        "num_cascades": 1 + max(numbers),
        "chans": chans,
        "pools": pools,
        "sens_chans": sens_chans,
        "sens_pools": sens_pools,
    }
