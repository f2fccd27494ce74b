"""Weights of a network, from a run of the workbench, from fastMRI's trainer, or as released."""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import requests
import torch
from torch import Tensor

from workbench.compute.evaluation import sha256_of
from workbench.compute.own_code import digest_of
from workbench.compute.runs import Run, open_run
from workbench.models import (
    DEFAULT,
    NETWORKS,
    build,
    find_network,
    first_estimate,
    released,
    trains,
)
from workbench.models.entry import Network, read_options
from workbench.models.own import is_own
from workbench.models.reconstructor import Reconstructor
from workbench.recon.asked import Order
from workbench.recon.torch_file import StandIn, read_torch_file
from workbench.settings import resolve, shown
from workbench.stores.disk import replacing

_WRAPPERS = r"(?:^|(?<=\.))(?:module|_orig_mod)\."


def find_weights(name_or_path: str | Path) -> Path:
    """Return the file of some weights; released ones are fetched once.

    They go to ``outputs/weights/NETWORK/``: files of two networks can have one name. Where earlier
    versions, which knew one network, have put its files, there they are found.

    Args:
        name_or_path: a file, or a name of ``models.released``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: released weights could not be fetched.
    """
    known = released()
    if str(name_or_path) not in known:
        path = resolve(name_or_path)
        if not path.is_file():
            names = ", ".join(known)
            raise FileNotFoundError(f"weights={shown(path)}: no such file; give one, or {names}")
        return path
    url = known[str(name_or_path)]
    network = next(name for name, entry in NETWORKS.items() if url in entry.released.values())
    folder, file = resolve("outputs/weights"), url.rpartition("/")[2]
    path, earlier = folder / network / file, folder / file
    if network == DEFAULT and earlier.exists():
        return earlier
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with requests.get(url, stream=True, timeout=60) as response:
                response.raise_for_status()
                with replacing(path) as whole:
                    for part in response.iter_content(1 << 20):  # raises where it ends early
                        whole.write(part)
        except requests.RequestException as error:
            raise OSError(
                f"{url} could not be fetched ({type(error).__name__}): "
                f"download it by other means and put it at {shown(path)}"
            ) from None
    return path


def load_model(
    source: "str | Path | Run",
    *,
    network: str | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | torch.device | None = None,
) -> Reconstructor:
    """Load a network with its weights, ready to reconstruct.

    Args:
        source: a run (its best checkpoint is taken): a ``Run``, its folder such as
            ``outputs/demo/brain``, or its name such as ``demo/brain``; a checkpoint; an exported
            file of weights, a ``state_dict`` such as fastMRI's; or the name of weights that
            fastMRI has released, such as ``fastmri-knee`` or ``fastmri-unet-brain``, which are
            downloaded once. A relative path counts from the project's root. Or a network that
            learns nothing, ``sense``, ``wavelet`` or ``tv``.
        network: whose weights they are, ``package.module:MyNetwork``, for a file of your own
            network's weights that is no checkpoint of a run. A checkpoint says it itself; give it
            all the same where the module has another name now.
        options: arguments of that network's constructor, where they are not its defaults.
        device: where it goes, such as "cpu" or "cuda:1"; None takes the GPU where there is one.

    Returns:
        The network in evaluation mode, float32. Its ``name`` says which it is. A warning says
        where the code of your own network has changed since its weights learned with it.

    Raises:
        FileNotFoundError: there is no such run or file; the message lists what there is.
        ValueError: the file is damaged, or holds no weights of a network of ``NETWORKS``.
        OSError: released weights could not be fetched.
    """
    if isinstance(source, str) and not trains(source) and not resolve(source).exists():
        found = untrained(source, options)
    else:
        found = load_network(file_of(source), network, options)
        if said := changed_code(found):
            warnings.warn(said, UserWarning, stacklevel=2)
    return found.to(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def file_of(source: "str | Path | Run") -> Path:
    """Find the file of weights that ``load_model`` is asked for; raises what that raises."""
    if not isinstance(source, Run):
        if str(source) in released() or (path := resolve(source)).is_file():
            return find_weights(source)
        source = Run(path) if path.is_dir() else open_run(str(source))
    if source.best.exists():
        return source.best
    folder = shown(source.folder)
    if source.awaited:
        raise FileNotFoundError(
            f"{folder} has no checkpoint yet: train it again, which finds its job on AzureML and "
            "brings what that has kept"
        )
    if (source.folder / "job.json").exists():
        raise FileNotFoundError(f"{folder} has no checkpoint yet: train it first")
    raise FileNotFoundError(
        f"{folder} is no run's folder: it has no job.json and no checkpoints/best.ckpt"
    )


def load_ordered(order: Order) -> Reconstructor:
    """Load the network that an order asks for; raises what ``load_network`` raises."""
    options = read_options(order.network_options)
    if order.network and not order.weights:
        return untrained(order.network, options)
    return load_network(Path(order.weights), order.network, options)


def load_made_by(order: Order) -> Reconstructor:
    """Load the network that an order's results are made by.

    Raises:
        ValueError: the file of its weights was written anew since.
    """
    network = load_ordered(order)
    if order.weights and sha256_of(Path(order.weights)) != order.weights_sha256:
        raise ValueError(
            f"{shown(order.weights)} was written anew since this was planned, as by a training "
            "that goes on: run again to reconstruct with what it holds now"
        )
    return network


def untrained(name: str, options: Mapping[str, Any] | None = None) -> Reconstructor:
    """Build a network that learns nothing, ready to reconstruct.

    Raises:
        ValueError: it has no such argument, or a value is outside what is allowed.
    """
    return build(name, find_network(name).configured(options or {})).eval()


def load_network(
    path: Path, named: str | None = None, options: Mapping[str, Any] | None = None
) -> Reconstructor:
    """Build the network that a file of weights is of, and load them.

    The weights become float32; a warning says so where the file holds another type.

    The file is a checkpoint of this workbench or of fastMRI's Lightning trainer, or a plain state
    dict such as the released ones. ``named`` and ``options`` are as in ``load_model``.

    Raises:
        ValueError: the file is damaged, or holds no network's weights, those of another one than is
            named, or some that are not finite.
    """
    content, asked = read_torch_file(path), named
    job = job_in(content)
    if job:  # beside an average it has the weights of the last step
        content = {"state_dict": content.get("state_dict")}
    named = named or job.get("network")
    if is_own(named):
        kept = job.get("config", {})
        network, state = _own_network(content, path, str(named), kept, options)
    else:
        entry, state = _state_of(content, path, job.get("network"))
        try:
            network = _network_of(entry, state)
        except ValueError as error:
            raise ValueError(f"{shown(path)} is not a whole {entry.label}'s: {error}") from None
        if asked not in (None, entry.name):
            raise ValueError(
                f"network={asked!r}: {shown(path)} holds the weights of a {entry.label}; leave "
                "network out, or give another run or file"
            )
        if options:
            raise ValueError(
                f"{', '.join(options)}: the numbers of a {entry.label} are those of its weights in "
                f"{shown(path)}: leave options out"
            )
    floats = [weights.dtype for weights in state.values() if weights.is_floating_point()]
    types = {str(dtype).removeprefix("torch.") for dtype in floats}
    if others := sorted(types - {"float32"}):
        warnings.warn(
            f"{shown(path)} holds {', '.join(others)}: used as float32", UserWarning, stacklevel=2
        )
    for name, weights in network.named_parameters():
        if not torch.isfinite(weights).all():
            raise ValueError(
                f"{shown(path)} holds weights that are not finite, first in {name}: its training "
                "diverged, or they are too large for float32; take an earlier checkpoint"
            )
    # fastMRI's weights, the released ones included, come without a job: theirs are the whole
    # readout and float32.
    if job:
        network.job = dict(job)
        network.bf16 = job.get("precision") == "bf16"
        network.crop_readout = job.get("crop_readout") is True
        begins = job.get("first_estimate")
        try:
            network.begin_with(first_estimate(begins))
        except (ValueError, AttributeError) as error:
            raise ValueError(f"{shown(path)} begins with {begins!r}: {error}") from None
        network.tf32 = job.get("tf32") is True
    return network.eval()


def changed_code(network: Reconstructor) -> str:
    """Say that a network's own code is not what its weights learned with; "" where it may be."""
    learned = network.job.get("code", {}).get("network")
    if learned is None or network.name != network.job.get("network"):
        return ""
    if learned == digest_of(network.name):
        return ""
    return f"the code of {network.name} has changed since these weights learned with it"


def job_in(content: Any) -> Mapping[str, Any]:
    """Return the job that a checkpoint's content keeps; empty of other files."""
    job = content.get("job") if isinstance(content, Mapping) else None
    return job if isinstance(job, Mapping) else {}


def require_checkpoint(path: Path) -> None:
    """Check that a file is a whole checkpoint, which a training run can go on from.

    Raises:
        ValueError: it is damaged, or of another kind; the message says what to do.
    """
    content = read_torch_file(path)
    needed = {"job", "loops", "state_dict", "optimizer_states", "callbacks"}
    if not isinstance(content, Mapping) or not needed <= content.keys():
        raise ValueError(
            f"{shown(path)} is no checkpoint of a run of this workbench: remove it or give another "
            "name to begin anew, or give it as weights to a reconstruction"
        )


def _network_of(entry: Network, state: Mapping[str, Tensor]) -> Reconstructor:
    """Build the network that a state dict is of.

    Raises:
        ValueError: something is missing, has no place in it, or another shape or type.
    """
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(f"{name} is {kind}, expected a tensor of floating-point numbers")
    try:
        config = entry.config_of(state)
    except LookupError as missing:
        raise ValueError(f"{missing} is missing") from None
    with torch.device("meta"):
        network = build(entry.name, config)
    expected = network.state_dict()
    for name, value in expected.items():
        if name not in state:
            raise ValueError(f"{name} is missing")
        if state[name].shape != value.shape:
            found, wanted = (tuple(each.shape) for each in (state[name], value))
            raise ValueError(f"{name} has the shape {found}, expected {wanted} as in its others")
    for name in state:
        if name not in expected:
            raise ValueError(f"{name} has no place in it")
    single = {name: value.detach().to(torch.float32, copy=True) for name, value in state.items()}
    network.load_state_dict(single, assign=True)
    return network


def _own_network(
    content: Any, path: Path, name: str, kept: Any, options: Mapping[str, Any] | None
) -> tuple[Reconstructor, dict[str, Tensor]]:
    """Build a network of somebody's own, and load its weights, whatever their names begin with.

    ``kept`` are the numbers of its config that the file holds, and ``options`` go before them.

    Raises:
        ValueError: the network cannot be built, or the file lacks some of its weights.
    """
    entry = find_network(name)
    whole = f"{shown(path)} is not a whole {entry.label}'s"
    try:
        network = build(name, entry.config(**{**kept, **(options or {})}))
    except TypeError as error:
        raise ValueError(f"{whole}: {error}") from None
    expected = network.state_dict()
    names = {each: re.sub(_WRAPPERS, "", each.removeprefix(entry.inside)) for each in expected}
    held = _entries(content, "", 3)
    found = {place + key: value for place, key, value in held if isinstance(value, Tensor)}
    first = next(iter(names.values()), "")
    starts = [key.removesuffix(first) for key in found if f".{key}".endswith(f".{first}")]
    fitting = {s: sum(s + n in found for n in names.values()) for s in starts}
    most = [s for s in fitting if fitting[s] == max(fitting.values())] or [""]
    if len(most) > 1:
        raise ValueError(_of_several(path, most))
    (start,), state = most, {}
    for each, plain in names.items():
        value, wanted = found.pop(start + plain, None), expected[each]
        if value is None:
            raise ValueError(f"{whole}: {plain} is missing")
        if value.shape != wanted.shape:
            raise ValueError(
                f"{whole}: {plain} has the shape {tuple(value.shape)}, expected "
                f"{tuple(wanted.shape)}; give options, the arguments that it was trained with"
            )
        if value.is_floating_point() != wanted.is_floating_point():
            raise ValueError(f"{whole}: {plain} is {value.dtype}, expected {wanted.dtype}")
        state[each] = value
    if extra := [key.removeprefix(start) for key in found if key.startswith(start)]:
        raise ValueError(f"{whole}: {extra[0]} has no place in it")
    network.load_state_dict(state)
    return network, state


def _entries(part: Any, place: str, depth: int) -> Iterator[tuple[str, str, Tensor | StandIn]]:
    """Yield a file's tensors, and what stands for objects, with the places that they lie in.

    Their names are those in the network, not as it was wrapped for several GPUs or compiled, as a
    whole or in its parts.
    """
    for key, value in part.items() if isinstance(part, Mapping) else ():
        if isinstance(value, Mapping) and value and depth:
            yield from _entries(value, f"{place}{key}.", depth - 1)
        elif isinstance(key, str) and isinstance(value, Tensor | StandIn):
            yield place, re.sub(_WRAPPERS, "", key), value


def _of_several(path: Path, places: Iterable[str]) -> str:
    named = ", ".join(sorted(place or "without a prefix" for place in places))
    return (
        f"{shown(path)} holds the weights of several networks ({named}): save the state_dict() of "
        "one of them with torch.save"
    )


def _fits(entry: Network, state: Mapping[str, Any]) -> bool:
    """Say whether a network reads its config off some weights, whose names begin as its own do."""
    try:
        entry.config_of({name: value for name, value in state.items() if isinstance(value, Tensor)})
    except (ValueError, LookupError):
        return False
    return True


def _state_of(content: Any, path: Path, named: str | None) -> tuple[Network, dict[str, Tensor]]:
    """Find a network's own entries, however deep they lie and whatever their prefix.

    ``named`` is its name, where the file says it.

    Raises:
        ValueError: there are none, or those of several networks.
    """
    if isinstance(content, StandIn) and not content:
        raise ValueError(
            f"{shown(path)} holds an object of the class {content.name}, and its code is not run: "
            "load it where it was made, and save the network's state_dict() with torch.save"
        )
    trained = [entry for entry in NETWORKS.values() if entry.trains]
    known = [NETWORKS[named]] if named in NETWORKS else trained
    found: dict[str, tuple[Network, dict[str, Any]]] = {}
    others: list[str] = []
    for place, name, value in _entries(content, "", 3):
        for entry in known:
            if own := re.search(rf"(?:^|\.)((?:{entry.weights}).*)", name):
                _, state = found.setdefault(place + name[: own.start(1)], (entry, {}))
                state[entry.inside + own.group(1)] = value
                break
        else:
            others.append(name)
    if len(found) == 1:
        entry, state = next(iter(found.values()))
        alike = (each for each in known if each.weights == entry.weights)
        return next((each for each in alike if _fits(each, state)), entry), state
    if found:
        raise ValueError(_of_several(path, found))
    labels = " or a ".join(entry.label for entry in trained)
    listed = f", but {', '.join(others[:3])}" if others else ""
    raise ValueError(f"{shown(path)} holds no weights of a {labels}{listed}")
