"""Where in a workspace a job goes: through which SDK, to which cluster, with which datastore."""

import platform
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from workbench.azure_login import Workspace
from workbench.compute.azureml_v1 import AzureMLv1
from workbench.compute.azureml_v2 import AzureMLv2
from workbench.compute.gpus import has_gpus
from workbench.compute.sender import Cluster, ClusterError, Datastore, LostContactError, Sender
from workbench.stores.blob import CONTAINER

# The package that brings each, its module, and the sender.
_SENDERS: dict[str, tuple[str, str, type[Sender]]] = {
    "v1": ("azureml-core", "azureml.core", AzureMLv1),
    "v2": ("azure-ai-ml", "azure.ai.ml", AzureMLv2),
}
SDKS = tuple(_SENDERS)
_LAST_PYTHON = {"v1": (3, 12)}
"""That a package is made for, as ``pyproject.toml`` has it, too."""


def connect(workspace: Workspace, sdk: str | None = None) -> Sender:
    """Log in to a workspace through an SDK; None takes the first that works here.

    Raises:
        ValueError: there is no such SDK, or this Python lacks it.
        ClusterError: the workspace refuses, or does not exist.
        LoginError: no login works.
    """
    if sdk not in (None, *SDKS):
        raise ValueError(f"sdk={sdk!r}: give one of {', '.join(SDKS)}, or None")
    wanted = [name for name in SDKS if sdk in (None, name) and _installed(_SENDERS[name][1])]
    if not wanted:
        package = _SENDERS[sdk or "v2"][0]
        advice = f"install it with {_command(package)}"
        if sys.version_info[:2] > _LAST_PYTHON.get(sdk or "v2", (4,)):
            advice = "it does not run there: leave sdk out, or take Python 3.11 or 3.12"
        raise ValueError(
            f"sdk={sdk!r}: Python {platform.python_version()} lacks {package}; {advice}"
        )
    for name in wanted:
        sender = _SENDERS[name][2](workspace)
        try:
            sender.open()
            break
        except LostContactError:
            raise
        except ClusterError as error:
            if name == wanted[-1] == "v1" and sdk is None:
                raise ClusterError(
                    f"{error} (asked through SDK v1, whose support has ended; where that is the "
                    f"cause, install SDK v2: {_command(_SENDERS['v2'][0])})"
                ) from None
            if name == wanted[-1]:
                raise
        except ImportError as error:  # it is there, and not for this Python
            if name == wanted[-1]:
                raise ValueError(
                    f"sdk={sdk!r}: Python {platform.python_version()} cannot import "
                    f"{_SENDERS[name][0]} ({error}): give another sdk, or take Python 3.11"
                ) from None
    return sender


def _command(package: str) -> str:
    return f"`.venv/bin/uv pip install --python .venv/bin/python {package}`"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


def choose_cluster(
    clusters: Sequence[Cluster],
    name: str | None,
    nodes: int,
    low_priority: bool | None,
    *,
    gpus: bool = True,
) -> Cluster:
    """Return the cluster of a name; None takes the only one that fits.

    Where clusters with GPUs fit and others do, those count that have what the job computes with,
    ``gpus``: a network wants them, and to read files there wastes them.

    Raises:
        ValueError: there is none of that name, it is too small, of the other priority or not
            ready, or a name has to be given.
    """
    offered = "; ".join(map(str, clusters)) or "none: make one in the studio, under Compute"
    if name is None:
        named = [
            each
            for each in clusters
            if each.max_nodes >= nodes and low_priority in (None, each.low_priority)
        ]
        named = [each for each in named if has_gpus(each.vm_size) == gpus] or named
        if len(named) != 1:
            which = "several clusters fit" if named else f"no cluster takes {nodes} nodes"
            raise ValueError(f"cluster=None: {which}; give one of these: {offered}")
    else:
        named = [each for each in clusters if each.name.lower() == name.lower()]
        if not named:
            raise ValueError(f"cluster={name!r}: the workspace has {offered}")
    chosen = named[0]
    if chosen.max_nodes == 0:
        raise ValueError(f"cluster {chosen} has zero nodes: raise its maximum in the studio")
    if nodes > chosen.max_nodes:
        raise ValueError(
            f"nodes={nodes}: cluster {chosen}; give fewer, or raise its maximum in the studio"
        )
    if low_priority not in (None, chosen.low_priority):
        raise ValueError(
            f"low_priority={low_priority}: a cluster's priority is fixed when it is made, and this "
            f"one is {chosen}; the workspace has {offered}"
        )
    if chosen.state not in ("Succeeded", "Updating", "Creating"):
        raise ValueError(f"cluster {chosen.name} is {chosen.state}: mend it in the studio")
    return chosen


def choose_datastore(datastores: Sequence[Datastore], name: str | None) -> Datastore:
    """Return the datastore that holds the datasets.

    None takes that of the container ``datasets``, else the workspace's default.

    Raises:
        ValueError: there is none of that name, or none at all.
    """
    if name is not None:
        found = [each for each in datastores if each.name == name]
    else:
        found = [each for each in datastores if each.container == CONTAINER]
        found = found or [each for each in datastores if each.default]
    if len(found) > 1:
        names = ", ".join(each.name for each in found)
        raise ValueError(f"datastore=None: several hold {CONTAINER!r}; give one of {names}")
    if found:
        return found[0]
    offered = ", ".join(f"{each.name} ({each.account}/{each.container})" for each in datastores)
    raise ValueError(
        f"datastore={name!r}: the workspace has {offered or 'none'}; register the container "
        f"{CONTAINER!r} as a datastore in the studio (Data, Datastores)"
    )
