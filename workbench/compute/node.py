"""This machine as one node of a cluster's job, and the errors that ranks leave.

AzureML, or SLURM, starts the job's command on every node and tells each its place by variables.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from workbench.stores import Store, open_store
from workbench.stores.disk import write_text

NODES = "WORKBENCH_NODES"
STORE = "WORKBENCH_STORE"
DEVICE = "WORKBENCH_DEVICE"
RANKS = {
    "AzureML's PyTorch distribution": "NODE_RANK",
    "SLURM's srun": "SLURM_NODEID",
}
"""What starts a job on several nodes, one process each -> the variable with the node's number."""
ERRORS = "errors"
"""Folder of a run where each rank that fails leaves a file: its name has the node's number."""

NOTE = "error: "
"""A rank's error follows it on the output where the disk has no room for the file."""

# torch's own words for a peer's death: gloo, NCCL, store.
_LOST_PEER = (
    r"Connection (?:closed by peer|reset by peer|refused|timed out)|Socket closed|NCCL|Broken pipe"
    r"|recvValue failed"
)


@dataclass(frozen=True)
class Node:
    """A machine's place in a job.

    Attributes:
        rank: its number, 0 first.
        count: machines in the job.
        address: host of node 0, where ranks meet at ``port``.
        store: folder that outlives the nodes, or None.
        device: "GPU" where the job was promised GPUs, else "CPU".
    """

    rank: int = 0
    count: int = 1
    address: str = ""
    port: int = 0
    store: Store | None = None
    device: str = "CPU"


def this_node() -> Node | None:
    """Return this machine's place in a cluster's job; None outside of one.

    Raises:
        ValueError: the job has several nodes, and the cluster did not tell this one its place.
    """
    if NODES not in os.environ:
        return None
    count = int(os.environ[NODES])
    rank = next(filter(None, map(os.environ.get, RANKS.values())), "")
    address, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    if count > 1 and not (rank and address and port):
        raise ValueError(
            f"this is one of {count} nodes, but {' or '.join(RANKS.values())}, MASTER_ADDR or "
            f"MASTER_PORT is not set: start the job with {' or '.join(RANKS)}, one process a node"
        )
    return Node(
        int(rank) if count > 1 else 0,
        count,
        address,
        int(port or 0),
        open_store(os.environ[STORE]) if os.environ.get(STORE) else None,
        os.environ.get(DEVICE, "CPU"),
    )


def note_error(folder: Path | None, error: BaseException) -> None:
    """Leave this rank's error in a run's folder, and in the store of its job, if it has one.

    At once: other nodes fail in its wake, and the cloud may stop this one because of them.
    """
    rank, kind = os.environ.get("RANK", "0"), type(error).__name__
    lost_peer = kind.startswith("Dist") or (
        isinstance(error, RuntimeError) and bool(re.search(_LOST_PEER, str(error)))
    )
    note = json.dumps(
        {
            "rank": rank,
            "kind": kind,
            "message": str(error),
            "lost_peer": lost_peer,
            "time_ns": time.time_ns(),
        }
    )
    node = this_node()
    path = f"{_errors_of(node)}{rank}.json"
    if node and node.store:
        with suppress(OSError):
            node.store.write(path, note.encode())
    try:
        if folder:
            write_text(folder / path, note)
    except OSError:
        print(f"{NOTE}{note}", flush=True)


@contextmanager
def noting_errors(*, first: bool = True) -> Iterator[None]:
    """On a node, note what fails in the context; ``first`` forgets those of its earlier attempt.

    Only its own are deleted: another node may have begun, and failed, before this one.
    """
    node = this_node()
    if first and node and node.store:
        for entry in list(node.store.list(ERRORS)):
            if entry.path.startswith(_errors_of(node)):
                node.store.delete(entry.path)
    try:
        yield
    except Exception as error:
        if node and not getattr(error, "noted", False):
            note_error(None, error)
        raise


def _errors_of(node: Node | None) -> str:
    return f"{ERRORS}/node{node.rank if node else 0}-rank"


def noted_error(store: Store) -> tuple[str, bool]:
    """Return the first error that ranks left, and whether it only says that a peer was lost.

    The sequel of another rank's error counts only where there is nothing else. ("", True) where
    there is no error.
    """
    found = []
    for entry in store.list(ERRORS):
        with suppress(FileNotFoundError):
            note = store.read(entry.path).decode(errors="replace")
            if line := error_line(note):
                held = json.loads(note)
                found.append((bool(held.get("lost_peer")), held.get("time_ns", 0), line))
    lost_peer, _, line = min(found, default=(True, 0, ""))
    return line, lost_peer


def error_line(note: str) -> str:
    """Write a rank's note as one line; "" where it cannot be read."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(note)
        return f"rank {found['rank']}: {found['kind']}: {found['message']}"
    return ""
