"""What a run's folder and a store that outlives its machine exchange, each file whole.

A node's own disk is lost with the node: what a run leaves there is copied to the store as it
changes. From there the next attempt, and the notebook that watches, fetch what they lack.
"""

import itertools
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from workbench.compute.evaluation import FOLDER, SCORES
from workbench.compute.node import ERRORS, Node
from workbench.compute.runs import read_record
from workbench.stores import ChangedError, Entry, Store
from workbench.stores.disk import naming, replacing, write_text

LOG_FILE = "log.txt"
SECONDS_BETWEEN_COPIES = 2.0
FETCHED = ".fetched.json"
"""Names the versions of the store's files that are in the folder."""

SECONDS_BETWEEN_CHECKPOINTS = 600.0
"""Least time between two fetches of the best checkpoint: some 360 MB, which Azure bills."""

_SMALL = (LOG_FILE, "metrics.csv", "volumes.csv", "versions.json")
_BEST = "checkpoints/best.ckpt"
_FILES = 8  # fetched at a time
_TRIES = 5
_FILES_BETWEEN_NOTES = 64
_PASSES_BETWEEN_LOGS = 30  # TensorBoard's files grow with every step, and are copied whole


def fetch(
    store: Store, folder: Path, wanted: Callable[[str], bool] = lambda path: True
) -> list[str]:
    """Bring wanted files that are new or changed from a store into a folder; return their paths.

    Raises:
        OSError: the store refuses or cannot be reached; what came until then stays.
    """
    fetched, missing = _fetched(folder), {}
    for entry in store.list():
        version = _version(entry)
        is_here = fetched.get(entry.path) == version and (folder / entry.path).exists()
        if not _hidden(entry.path) and wanted(entry.path) and not is_here:
            missing[entry.path] = entry.mtime_ns, version

    def bring(path: str) -> str:
        target, changed = folder / path, missing[path][0]
        target.parent.mkdir(parents=True, exist_ok=True)
        for tries in range(_TRIES):  # a running job writes it anew
            try:
                with store.open(path) as source, replacing(target) as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                break
            except ChangedError:
                if tries == _TRIES - 1:
                    raise
        os.utime(target, ns=(changed, changed))  # by which ``kept`` knows it again
        return path

    came: list[str] = []
    try:
        with ThreadPoolExecutor(_FILES) as threads:
            for path in threads.map(bring, missing):
                fetched[path] = missing[path][1]
                came.append(path)
                if len(came) % _FILES_BETWEEN_NOTES == 0:
                    write_text(folder / FETCHED, json.dumps(fetched))
    finally:
        if came:
            write_text(folder / FETCHED, json.dumps(fetched))
    return came


def put(folder: Path, store: Store, paths: Iterable[str]) -> None:
    """Copy files of a folder to a store; OSError where it refuses or cannot be reached."""
    for path in paths:
        with (folder / path).open("rb") as file:
            store.write(path, file)


def files_of(folder: Path) -> list[str]:
    """List a run's files; what is hidden is being written, or a lock."""
    paths = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in paths if not _hidden(path))


def went_on(folder: Path, store: Store, path: str) -> bool:
    """Say whether a file has changed here since it was brought, and not in the store."""
    there = {entry.path: entry for entry in store.list()}
    entry = there.get(path)
    if entry is None or _fetched(folder).get(path) != _version(entry):
        return False
    return _state(folder / path) != (entry.mtime_ns, entry.size)


def hand_over(folder: Path, store: Store, without: Collection[str] = ()) -> None:
    """Copy a folder's files to a store, but for those that it has; they count as brought here."""
    there = {entry.path: (entry.mtime_ns, entry.size) for entry in store.list()}
    changed = [path for path in files_of(folder) if there.get(path) != _state(folder / path)]
    handed = [path for path in changed if path not in without]
    put(folder, store, handed)
    fetched = _fetched(folder)
    for entry in store.list():
        if entry.path in handed:
            os.utime(folder / entry.path, ns=(entry.mtime_ns, entry.mtime_ns))
            fetched[entry.path] = _version(entry)
    write_text(folder / FETCHED, json.dumps(fetched))


def _fetched(folder: Path) -> dict[str, Any]:
    """Return the versions of the store's files that are in a folder."""
    with suppress(OSError, ValueError):
        return read_record(folder / FETCHED)
    return {}


def _version(entry: Entry) -> list[Any]:
    """Return what tells a file of the store from others of its place, as JSON has it."""
    return [entry.etag or entry.mtime_ns, entry.size]


def _state(file: Path) -> tuple[int, int]:
    """Return by what a file is known again; a fetched one has the store's date."""
    found = file.stat()
    return found.st_mtime_ns, found.st_size


class WhileItRuns:
    """Brings what changes while a job runs: tables, log and TensorBoard's files at each look.

    The best checkpoint comes rarely, so that a reconstruction can be made meanwhile. The last one
    is many times as much over a training, and only the cluster goes on with it.
    """

    def __init__(self, store: Store, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._seen: Entry | None = None
        self._came: Entry | None = None
        self._next = 0.0

    def look(self) -> list[str]:
        """Fetch what is small and has changed; return its paths. OSError as ``fetch``."""
        return fetch(
            self._store,
            self._folder,
            lambda path: (
                path in _SMALL or path.startswith("tensorboard/") or path.endswith(f"/{SCORES}")
            ),
        )

    def best(self) -> bool:
        """Fetch the best checkpoint where it is due and has changed; return whether it came.

        A node may be writing it: it is taken once two looks in a row have found the same.
        """
        if time.monotonic() < self._next or not (entry := self._store.entry(_BEST)):
            return False
        before, self._seen = self._seen, entry
        if before != entry or entry == self._came:
            return False
        came = fetch(self._store, self._folder, lambda path: path == _BEST)
        self._came, self._next = entry, time.monotonic() + SECONDS_BETWEEN_CHECKPOINTS
        return bool(came)


@contextmanager
def kept(
    folder: Path, store: Store, wanted: Callable[[str], bool] = lambda path: True
) -> Iterator[None]:
    """Copy wanted files of a run to the store as they change, and once more at the end.

    A thread does it, so that training does not wait for the storage. Errors are always wanted.
    """
    seen: dict[str, tuple[int, int]] = {}
    for entry in store.list():
        # What was fetched is there: gigabytes of reconstructions are not sent back.
        with suppress(FileNotFoundError):
            if _state(folder / entry.path) == (entry.mtime_ns, entry.size):
                seen[entry.path] = entry.mtime_ns, entry.size

    def copy(*, logs: bool) -> None:
        for path in files_of(folder):
            is_log = path.startswith("tensorboard/")
            if not (wanted(path) or path.startswith(f"{ERRORS}/")) or (is_log and not logs):
                continue
            try:
                now = _state(folder / path)
                if seen.get(path) != now:
                    put(folder, store, [path])
                    seen[path] = now
            except FileNotFoundError:
                if (folder / path).exists():  # then the store has gone
                    raise

    stop = threading.Event()

    def watch() -> None:
        for number in itertools.count(1):
            if stop.wait(SECONDS_BETWEEN_COPIES):
                return
            with suppress(OSError):  # the storage may be back next time; the last copy must work
                copy(logs=number % _PASSES_BETWEEN_LOGS == 0)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        copy(logs=True)


def keeping(
    folder: Path, node: Node, lines: Iterator[str], wanted: Callable[[str], bool]
) -> Iterator[str]:
    """Keep what a node's ranks leave, and their lines, in the store that outlives the node.

    ``wanted`` are the files that are this node's to keep: each has one writer.
    """
    assert node.store is not None
    log_file = folder / LOG_FILE
    with kept(folder, node.store, wanted):
        for line in lines:
            with naming(log_file), log_file.open("a") as log:
                log.write(f"{line}\n")
            yield line


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def main() -> None:
    """Copy what runs have left from one folder to another; reconstructions are in the store.

    The other may be a mount: files are written there by their own names.
    """
    source, target = map(Path, sys.argv[1:])
    for path in files_of(source):
        if f"/{FOLDER}/" not in path:
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / path, target / path)


if __name__ == "__main__":
    main()
