"""A dataset copied between two stores: files side by side, to be run again, in part."""

import hashlib
import os
import threading
import time
from collections.abc import Collection, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass

from workbench import catalog
from workbench.ingest.archives import RESERVED
from workbench.progress import Progress, amount, duration
from workbench.settings import shown
from workbench.stores import DiskStore, Entry, Store
from workbench.stores.streams import as_file, chunks_of, digested, hashed


class TransferError(Exception):
    """Files that could not be copied; the message lists the first of them."""


@dataclass(frozen=True)
class Transfer:
    """What a transfer did: files and bytes that were to be there, and those that came now.

    Others lie there as well: files that the source does not have, or no longer. What was passed
    over of the source, and why, may have more.
    """

    dataset: str
    files: int
    moved: int
    size: int
    moved_size: int
    seconds: float
    others: tuple[str, ...] = ()
    passed_over: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        speed = f", {amount(self.moved_size / self.seconds, 'B')}/s" if self.moved else ""
        others = ""
        if self.others:
            count = f"{len(self.others):,} file{'s' if len(self.others) > 1 else ''}"
            others = f"; {count} more there, such as {self.others[0]}, the source does not have"
        for path, why in self.passed_over:
            others += f"\n  passed over: {path} {why}"
        return (
            f"{self.dataset}: {self.files:,} files of {amount(self.size, 'B')} are there; "
            f"{self.moved:,} of {amount(self.moved_size, 'B')} came now, in "
            f"{duration(self.seconds)}{speed}{others}"
        )


def copy_dataset(
    source: Store,
    target: Store,
    dataset: str,
    *,
    splits: Sequence[str] = (),
    fraction: float = 1.0,
    connections: int = 16,
) -> Transfer:
    """Copy a dataset's folder from one store to another; what is there whole is passed over.

    What differs is replaced, whichever is newer. Each file is written whole or not at all, and
    checked for its size and, where the source knows one, its MD5 sum. What goes from a disk into a
    container gets such a sum; what comes to a disk gets the time that the source has for it. By
    these a copy is known again, and where neither tells, the file is copied anew.

    Args:
        source: the store that holds the dataset.
        target: the store that gets it.
        dataset: the folder's name here and there, such as "knee_multicoil".
        splits: of "train", "val", "test", "challenge"; empty for all.
        fraction: share of each split's files; the same ones each time, and a larger share holds
            all of a smaller one.
        connections: files at work at the same time.

    Raises:
        ValueError: a choice is not valid, or there is nothing to copy.
        OSError: a store cannot be listed.
        TransferError: files could not be copied; run again for them.
    """
    for split in splits:
        if split not in catalog.SPLITS:
            raise ValueError(f"splits={split!r}: give one of {', '.join(catalog.SPLITS)}")
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: give a number above 0, up to 1")
    began, here, there = time.monotonic(), source.folder(dataset), target.folder(dataset)
    passed: list[tuple[str, str]] = []
    files = _data(here, passed)
    if not files:
        raise ValueError(
            f"{shown(here.address)}: no files to copy: ingest the dataset first, or check its name"
        )
    wanted = choose(files, splits, fraction)
    if not wanted:
        raise ValueError(f"{dataset} has no files of {', '.join(splits)} in the source")
    if isinstance(there, DiskStore):
        there.sweep()
    copies = _data(there, [])
    stopped = threading.Event()
    problems: dict[str, str] = {}

    def is_copy(path: str) -> bool:
        if stopped.is_set() or path not in copies:
            return False
        found = _is_copy(here, files[path], there, copies[path])
        progress.advance(1, path)
        return found

    with Progress(f"comparing {dataset}", len(copies.keys() & set(wanted)), "files") as progress:
        threads = ThreadPoolExecutor(connections, "transfer")
        try:
            same = list(threads.map(is_copy, wanted))
        except BaseException:
            stopped.set()
            raise
        finally:
            threads.shutdown(cancel_futures=True)
    missing = [path for path, found in zip(wanted, same, strict=True) if not found]
    total, size = (sum(files[path].size for path in paths) for paths in (wanted, missing))

    def copy(path: str) -> None:
        if stopped.is_set():
            return
        try:
            _copy(here, there, files[path], progress)
        except (OSError, EOFError, TransferError) as error:
            problems[path] = str(error)

    with Progress(f"copying {dataset}", total, start=total - size) as progress:
        threads = ThreadPoolExecutor(connections, "transfer")
        try:
            list(threads.map(copy, missing))
        finally:
            stopped.set()
            threads.shutdown(cancel_futures=True)
    if problems:
        first = "; ".join(f"{path}: {what}" for path, what in list(problems.items())[:3])
        raise TransferError(
            f"{len(problems)} of {len(wanted)} files of {dataset} could not be copied ({first}): "
            "run again, what came stays"
        )
    seconds = time.monotonic() - began
    others = tuple(sorted(copies.keys() - files.keys()))
    over = tuple(each for each in passed if not _hidden(each[0]))
    return Transfer(dataset, len(wanted), len(missing), total, size, seconds, others, over)


def _data(folder: Store, passed: list[tuple[str, str]]) -> dict[str, Entry]:
    """Return a dataset's files, without the workbench's own and those that are hidden.

    What a disk's listing passes over is added to ``passed``. The cache lists what lies beside it,
    and the manifest what was unpacked there: a part of a dataset has others, and the lock belongs
    to its machine.
    """
    return {
        entry.path: entry
        for entry in (folder.listed("", passed) if isinstance(folder, DiskStore) else folder.list())
        if entry.path.rpartition("/")[2] not in RESERVED and not _hidden(entry.path)
    }


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def choose(paths: Collection[str], splits: Sequence[str], fraction: float) -> list[str]:
    """Choose files by split, and of each split a share by the hash of their names."""
    by_split: dict[str | None, list[str]] = {}
    for path in sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest()):
        by_split.setdefault(catalog.split_of_folder(path.split("/")[0]), []).append(path)
    return sorted(
        path
        for split, members in by_split.items()
        if not splits or split in splits
        for path in members[: max(1, round(fraction * len(members)))]
    )


def _is_copy(source: Store, entry: Entry, target: Store, copy: Entry) -> bool:
    """Say whether a file is there as the source has it: volumes of one shape have one size."""
    if copy.size != entry.size:
        return False
    if entry.md5 and copy.md5:
        return entry.md5 == copy.md5
    if copy.mtime_ns == entry.mtime_ns:  # later is no sign: it may have been written here
        return True
    if not (known := entry.md5 or copy.md5):
        return False
    with (target if entry.md5 else source).open(entry.path) as file:
        same = digested(file, hashlib.md5(usedforsecurity=False)) == known
    if same:
        _mark(target, entry)
    return same


def _mark(target: Store, entry: Entry) -> None:
    """Give a copy on a disk the time of what it is a copy of."""
    if isinstance(target, DiskStore):
        with suppress(OSError):  # another's file, or a mount that keeps no times
            os.utime(target.path(entry.path), ns=(entry.mtime_ns, entry.mtime_ns))


def _copy(source: Store, target: Store, entry: Entry, progress: Progress) -> None:
    """Copy one file.

    Raises:
        TransferError: what came is not what the source lists.
    """
    md5 = entry.md5
    if not md5 and isinstance(source, DiskStore) and not isinstance(target, DiskStore):
        with source.path(entry.path).open("rb") as file:
            md5 = hashlib.file_digest(file, "md5").hexdigest()
    digest = hashlib.md5(usedforsecurity=False)

    def checked() -> Generator[bytes, None, None]:
        with source.open(entry.path) as opened:
            for data in hashed(chunks_of(opened), digest):
                progress.advance(len(data), entry.path)
                yield data
        if md5 and digest.hexdigest() != md5:
            raise TransferError(f"{entry.path}: what came is not what the source lists")

    with closing(checked()) as chunks:
        target.write(entry.path, as_file(chunks), entry.size, md5=md5)
        try:
            for _ in chunks:  # a container takes no more than the file's size
                pass
        except TransferError:
            target.delete(entry.path)
            raise
    _mark(target, entry)
