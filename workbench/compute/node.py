"""This machine as one node of a cluster's job: its place among the others, and what it keeps.

AzureML starts the job's command on every node and tells each its place by variables. What a node's
own disk holds is lost with the node, so node 0 copies the run's folder to a mounted one.
"""

import itertools
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NODES = "WORKBENCH_NODES"
STORE = "WORKBENCH_STORE"
DEVICE = "WORKBENCH_DEVICE"
ERROR_FILE = "error.json"
NOTE = "error.json: "
"""What a rank's error follows on its output where the disk has no room for the file."""

LOG_FILE = "log.txt"
SECONDS_BETWEEN_COPIES = 2.0
_PASSES_BETWEEN_LOGS = 30  # TensorBoard's files grow with every step, and are copied whole


@dataclass(frozen=True)
class Node:
    """A machine's place in a job.

    Attributes:
        rank: its number, 0 first.
        count: machines in the job.
        address: host of node 0.
        port: node 0's port for the rendezvous.
        store: mounted folder that outlives the nodes, or None.
        device: "GPU" where the job was promised GPUs, else "CPU".
    """

    rank: int = 0
    count: int = 1
    address: str = ""
    port: int = 0
    store: Path | None = None
    device: str = "CPU"


def this_node(environment: Mapping[str, str] = os.environ) -> Node | None:
    """Return this machine's place in a cluster's job; None outside of one.

    Raises:
        ValueError: the job has several nodes, and the cluster did not tell this one its place.
    """
    if NODES not in environment:
        return None
    count = int(environment[NODES])
    missing = [
        name
        for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
        if count > 1 and not environment.get(name)
    ]
    if missing:
        raise ValueError(
            f"this is one of {count} nodes, but {', '.join(missing)} is not set: the job must be "
            "submitted with AzureML's PyTorch distribution, one process a node"
        )
    return Node(
        int(environment.get("NODE_RANK") or 0) if count > 1 else 0,
        count,
        environment.get("MASTER_ADDR", ""),
        int(environment.get("MASTER_PORT") or 0),
        Path(environment[STORE]) if environment.get(STORE) else None,
        environment.get(DEVICE, "CPU"),
    )


def note_error(folder: Path, error: BaseException) -> None:
    """Leave a rank's error for whoever started it.

    The first rank's stays, unless it was only the sequel of another's.
    """
    rank = os.environ.get("RANK", "0")
    note = {"rank": rank, "kind": type(error).__name__, "message": str(error)}
    text = json.dumps(note | {"lost_peer": _lost_peer(error)})
    try:
        _note(folder, text)
    except OSError:
        print(f"{NOTE}{text}", flush=True)


def keep_error(folder: Path, store: Path) -> None:
    """Copy a node's error to the store, by the same rule."""
    with suppress(FileNotFoundError):
        _note(store, (folder / ERROR_FILE).read_text())


def _note(folder: Path, note: str) -> None:
    path = folder / ERROR_FILE
    try:
        with path.open("x") as file:
            try:
                file.write(note)
                file.flush()
            except OSError:
                path.unlink()  # half a note would stand in the way of a whole one
                raise
    except FileExistsError:
        if tells_of_lost_peer(path.read_text()) and not tells_of_lost_peer(note):
            path.write_text(note)


def noted_error(folder: Path) -> str | None:
    """Return the error that a rank left in a run's folder, as one line."""
    with suppress(FileNotFoundError):
        return error_line((folder / ERROR_FILE).read_text())
    return None


def error_line(note: str) -> str | None:
    """Write a rank's note as one line; None where it is no note."""
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        found = json.loads(note)
        return f"rank {found['rank']}: {found['kind']}: {found['message']}"
    return None


def tells_of_lost_peer(note: str) -> bool:
    """Say whether a rank failed only because another one was gone."""
    with suppress(ValueError, AttributeError, RecursionError):
        return bool(json.loads(note).get("lost_peer"))
    return False


def _lost_peer(error: BaseException) -> bool:
    """Tell the sequel of another rank's death by torch's own words for it (gloo, NCCL, store)."""
    words = r"Connection closed by peer|Connection reset by peer|NCCL|Broken pipe|recvValue failed"
    return type(error).__name__.startswith("Dist") or bool(
        isinstance(error, RuntimeError) and re.search(words, str(error))
    )


def restore(folder: Path, store: Path, *, without: str = "") -> list[str]:
    """Bring back what an earlier attempt kept, so that the run goes on from its checkpoint.

    Args:
        folder: the run's folder.
        store: where it was kept.
        without: a folder in it that is not wanted.

    Returns:
        The files' paths in the folder.
    """
    brought = []
    for path in _files(store):
        if path == ERROR_FILE or (without and path.startswith(f"{without}/")):
            continue
        _copy(store / path, folder / path)
        changed = (store / path).stat().st_mtime_ns  # by which ``kept`` knows it again
        os.utime(folder / path, ns=(changed, changed))
        brought.append(path)
    return brought


@contextmanager
def kept(folder: Path, store: Path) -> Iterator[None]:
    """Copy a run's files to the store as they change, each whole, and once more at the end.

    A thread does it, so that training does not wait for the storage.
    """
    stop = threading.Event()
    # What was restored is there: gigabytes of reconstructions are not sent back.
    seen = {path: _state(folder / path) for path in _files(folder) if _same(folder, store, path)}

    def watch() -> None:
        for number in itertools.count(1):
            if stop.wait(SECONDS_BETWEEN_COPIES):
                return
            with suppress(OSError):  # the storage may be back next time; the last copy must work
                _keep(folder, store, seen, logs=number % _PASSES_BETWEEN_LOGS == 0)

    store.mkdir(parents=True, exist_ok=True)
    with suppress(FileNotFoundError):
        (store / ERROR_FILE).unlink()  # an earlier attempt's
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        _keep(folder, store, seen, logs=True)


def _keep(folder: Path, store: Path, seen: dict[str, tuple[int, int]], *, logs: bool) -> None:
    for path in _files(folder):
        if path == ERROR_FILE or (path.startswith("tensorboard/") and not logs):
            continue  # ``keep_error`` weighs an error against the other nodes'
        try:
            state = _state(folder / path)
            if seen.get(path) != state:
                _copy(folder / path, store / path)
                seen[path] = state
        except FileNotFoundError:
            if not store.is_dir():
                raise


def _state(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _same(folder: Path, store: Path, path: str) -> bool:
    with suppress(FileNotFoundError):
        return _state(folder / path) == _state(store / path)
    return False


def _files(folder: Path) -> list[str]:
    """List a run's files; what is hidden is being written or a lock."""
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path) for path in paths if not any(part.startswith(".") for part in path.parts)]


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    shutil.copyfile(source, partial)
    partial.replace(target)
