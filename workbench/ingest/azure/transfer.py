"""Datasets between a container and this machine: side by side, to be run again, in part."""

import hashlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import catalog
from workbench.ingest.archives import RESERVED
from workbench.ingest.blobs import StorageError, read_blob, storage_problem
from workbench.progress import Progress, amount, duration
from workbench.settings import shown

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient

_PART = ".transfer-part"
# The cache lists what lies beside it, and the manifest what was unpacked there: a part of a dataset
# has others, and the lock is nobody's but its machine's.
_OWN = (*RESERVED, "dataset_cache.pkl")


class TransferError(Exception):
    """Files that could not be brought over; the message lists the first of them."""


@dataclass(frozen=True)
class Transfer:
    """What a transfer did.

    Attributes:
        dataset: the dataset.
        files: files that were to be there.
        moved: those that came in this run.
        size: bytes of all of them.
        moved_size: bytes that came in this run.
        seconds: how long it took.
    """

    dataset: str
    files: int
    moved: int
    size: int
    moved_size: int
    seconds: float

    def __str__(self) -> str:
        speed = f", {amount(self.moved_size / self.seconds, 'B')}/s" if self.moved else ""
        return (
            f"{self.dataset}: {self.files:,} files of {amount(self.size, 'B')} are there; "
            f"{self.moved:,} of {amount(self.moved_size, 'B')} came now, in "
            f"{duration(self.seconds)}{speed}"
        )


def download_dataset(
    container: "ContainerClient",
    dataset: str,
    root: Path,
    *,
    splits: Sequence[str] = (),
    fraction: float = 1.0,
    connections: int = 16,
) -> Transfer:
    """Bring a dataset from a container to a folder; what is there whole is passed over.

    A file is fetched under a temporary name, checked for its size and, where the container knows
    one, its MD5 sum, and renamed.

    Args:
        container: the container.
        dataset: folder in it, such as "knee_multicoil".
        root: folder that holds the datasets; the files go to ``root/dataset``.
        splits: of "train", "val", "test", "challenge"; empty for all.
        fraction: share of each split's files; the same ones each time, and a larger share holds
            all of a smaller one.
        connections: files at work at the same time.

    Raises:
        ValueError: a split or the fraction is none, or nothing is there to fetch.
        StorageError: the container cannot be listed.
        TransferError: files could not be fetched; run again for them.
    """
    check_choice(splits, fraction, connections)
    blobs = _listed(container, dataset)
    if not blobs:
        raise ValueError(
            f"the container {container.container_name} holds nothing under {dataset}/: ingest it "
            "first, or check the dataset's name"
        )
    wanted = choose(list(blobs), splits, fraction)
    if not wanted:
        raise ValueError(f"{dataset} has no files of {', '.join(splits)} in the container")
    folder = root / dataset
    for leftover in folder.rglob(f".*{_PART}") if folder.is_dir() else ():
        leftover.unlink()

    def there(path: str) -> bool:
        file = folder / path
        return file.is_file() and file.stat().st_size == blobs[path].size

    def fetch(path: str, count: Callable[[int], None]) -> None:
        _fetch(container, blobs[path], folder / path, count)

    sizes = {path: int(blobs[path].size) for path in wanted}
    return _move(f"downloading {dataset}", dataset, sizes, there, fetch, connections)


def upload_dataset(
    container: "ContainerClient", dataset: str, root: Path, *, connections: int = 8
) -> Transfer:
    """Bring a dataset's files from a folder to a container; what is there whole is passed over.

    Args:
        container: the container.
        dataset: the folder's name here and there.
        root: folder that holds the datasets.
        connections: files at work at the same time.

    Raises:
        ValueError: the folder is not there or empty.
        StorageError: the container cannot be listed.
        TransferError: files could not be sent; run again for them.
    """
    check_choice((), 1.0, connections)
    folder = root / dataset
    files = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in (folder.rglob("*") if folder.is_dir() else ())
        if path.is_file() and path.name not in _OWN and not path.name.startswith(".")
    }
    if not files:
        raise ValueError(f"{shown(folder)}: no files to upload")
    blobs = _listed(container, dataset)

    def there(path: str) -> bool:
        return path in blobs and blobs[path].size == files[path]

    def send(path: str, count: Callable[[int], None]) -> None:
        from azure.storage.blob import ContentSettings

        with (folder / path).open("rb") as file:
            digest = hashlib.file_digest(file, "md5").digest()
            file.seek(0)
            container.upload_blob(
                f"{dataset}/{path}",
                file,
                length=files[path],
                overwrite=True,
                max_concurrency=4,
                content_settings=ContentSettings(content_md5=bytearray(digest)),
            )
        count(files[path])

    return _move(f"uploading {dataset}", dataset, files, there, send, connections)


def choose(paths: Sequence[str], splits: Sequence[str], fraction: float) -> list[str]:
    """Choose files by split, and of each split a share by the hash of their names."""
    by_split: dict[str | None, list[str]] = {}
    for path in paths:
        by_split.setdefault(catalog.split_of_folder(path.split("/")[0]), []).append(path)
    chosen = []
    for split, members in by_split.items():
        if splits and split not in splits:
            continue
        members.sort(key=lambda path: hashlib.sha256(path.encode()).digest())
        chosen += members[: max(1, round(fraction * len(members)))]
    return sorted(chosen)


def check_choice(splits: Sequence[str], fraction: float, connections: int) -> None:
    """Check what of a dataset is asked for.

    Raises:
        ValueError: names the parameter, what it was and what is allowed.
    """
    for split in splits:
        if split not in catalog.SPLITS:
            raise ValueError(f"splits={split!r}: give one of {', '.join(catalog.SPLITS)}")
    number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not number or not 0 < fraction <= 1:
        raise ValueError(f"fraction={fraction!r}: give a number above 0, up to 1")
    whole = isinstance(connections, int) and not isinstance(connections, bool)
    if not whole or not 1 <= connections <= 128:
        raise ValueError(f"connections={connections!r}: give a whole number from 1 to 128")


def _listed(container: "ContainerClient", dataset: str) -> dict[str, "BlobProperties"]:
    """List a dataset's files: path -> what the container says of it."""
    from azure.core.exceptions import AzureError

    start = f"{dataset}/"
    try:
        found = list(container.list_blobs(name_starts_with=start))
    except AzureError as error:
        problem = storage_problem(error, str(container.account_name))
    else:
        return {
            blob.name.removeprefix(start): blob
            for blob in found
            if blob.name.rpartition("/")[2] not in _OWN
        }
    raise StorageError(problem)


def _fetch(
    container: "ContainerClient", blob: "BlobProperties", target: Path, count: Callable[[int], None]
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}{_PART}")
    known = blob.content_settings.content_md5
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with part.open("wb") as file:
            for data in read_blob(container.get_blob_client(blob.name), connections=2):
                file.write(data)
                if known:
                    digest.update(data)
                count(len(data))
            if file.tell() != blob.size or (known and digest.digest() != bytes(known)):
                raise TransferError(f"{blob.name}: what came is not what the container lists")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _move(
    title: str,
    dataset: str,
    sizes: dict[str, int],
    there: Callable[[str], bool],
    move: Callable[[str, Callable[[int], None]], None],
    connections: int,
) -> Transfer:
    """Move what is not there yet, several files at a time; one's failure stops no other."""
    import time

    from azure.core.exceptions import AzureError

    began = time.monotonic()
    total = sum(sizes.values())
    to_move = [path for path in sizes if not there(path)]
    size = sum(sizes[path] for path in to_move)
    stopped = threading.Event()
    problems: dict[str, str] = {}

    def one(path: str) -> None:
        if stopped.is_set():
            return
        try:
            move(path, progress.advance)
        except AzureError as error:
            problems[path] = f"{type(error).__name__}"
        except (OSError, TransferError) as error:
            problems[path] = str(error)

    with Progress(title, total, start=total - size) as progress:
        threads = ThreadPoolExecutor(connections, "transfer")
        try:
            for future in [threads.submit(one, path) for path in to_move]:
                future.result()
        finally:
            stopped.set()
            threads.shutdown(cancel_futures=True)
    if problems:
        first = "; ".join(f"{path}: {what}" for path, what in list(problems.items())[:3])
        raise TransferError(
            f"{len(problems)} of {len(sizes)} files of {dataset} could not be brought over "
            f"({first}): run again, what came stays"
        )
    return Transfer(dataset, len(sizes), len(to_move), total, size, time.monotonic() - began)
