"""Find the volumes of a dataset and read their descriptions, many files at once."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing, suppress

from workbench.data.describe import PARSERS, TOGETHER, describe, describe_together
from workbench.data.fetched import END_BYTES
from workbench.data.folders import FoundFile, find_files
from workbench.data.volume import Problem, UnusableVolumeError, Volume
from workbench.progress import Progress
from workbench.stores import ChangedError, DiskStore, StorageError, Store

SECONDS_BETWEEN_SAVES = 20.0
WORKERS = 32
"""Files of a disk that are read at a time: on a mount each answer takes its time."""
_TOGETHER = 16  # files of a disk that one process describes in one call
_WORKERS_IN_STORAGE = 64  # as many connections as a store keeps open


def index_files(
    store: Store,
    known: Mapping[str, Volume],
    *,
    workers: int | None,
    save: Callable[[tuple[Volume, ...]], None],
) -> tuple[tuple[Volume, ...], tuple[Problem, ...], int]:
    """Describe every volume of a dataset, reading the files that are new or changed.

    Args:
        store: the dataset's folder.
        known: path -> volume as an earlier index has it.
        workers: files that are read at a time; None takes what the store is good for.
        save: is given what is known so far, every 20 seconds and when the work is interrupted.

    Returns:
        The volumes and the files that are left out, sorted by path, and the number of files that
        were read.

    Raises:
        FileNotFoundError: the folder is missing or holds no ``.h5`` file.
        OSError: the storage refuses or cannot be reached.
    """
    volumes: dict[str, Volume] = {}
    name, saved = store.address.rpartition("/")[2], time.monotonic()

    def in_order() -> tuple[Volume, ...]:
        return tuple(volumes[path] for path in sorted(volumes))

    default = WORKERS if isinstance(store, DiskStore) else _WORKERS_IN_STORAGE
    with ThreadPoolExecutor(workers or default) as executor:
        splits = {path: volume.split for path, volume in known.items()}
        files, problems = find_files(store, executor, splits)
        same = {FoundFile(v.path, v.split, v.size, v.mtime_ns) for v in known.values()}
        volumes.update((file.path, known[file.path]) for file in files if file in same)
        unread = [file for file in files if file not in same]
        some = 1
        if isinstance(store, DiskStore):
            some = min(max(len(unread) // WORKERS, 1), _TOGETHER)
        parts = [unread[first : first + some] for first in range(0, len(unread), some)]
        reading = [executor.submit(_describe_all, store, part) for part in parts]
        try:
            with Progress(f"indexing {name}", len(unread), "volumes") as progress:
                for future in as_completed(reading):
                    for result in future.result():
                        if isinstance(result, Problem):
                            problems.append(result)
                        else:
                            volumes[result.path] = result
                        progress.advance(1, result.path)
                    if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                        save(in_order())
                        saved = time.monotonic()
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            save(in_order())
            raise
        finally:
            PARSERS.close()
            TOGETHER.close()
    return in_order(), tuple(sorted(problems, key=lambda p: p.path)), len(unread)


def _describe_all(store: Store, files: Sequence[FoundFile]) -> list[Volume | Problem]:
    volumes: list[Volume | None] = [None] * len(files)
    if isinstance(store, DiskStore) and len(files) > 1:
        for file in files:
            _bring_ends(store, file)
        volumes = describe_together([(store.path(file.path), file) for file in files])
    return [volume or _describe(store, f) for volume, f in zip(volumes, files, strict=True)]


def _bring_ends(store: Store, file: FoundFile) -> None:
    """Let the system read a file's ends, where its structure lies: on a mount that is a wait."""
    with suppress(OSError), closing(store.source(file.path)) as source:
        source.read(0, END_BYTES)
        source.read(max(0, file.size - END_BYTES), END_BYTES)


def _describe(store: Store, file: FoundFile) -> Volume | Problem:
    try:
        with closing(store.source(file.path, file.size)) as source:
            return describe(source, path=file.path, split=file.split, mtime_ns=file.mtime_ns)
    except (UnusableVolumeError, ChangedError) as error:
        return Problem(file.path, str(error))
    except StorageError:
        raise
    except OSError as error:
        return Problem(file.path, f"it cannot be read: {error.strerror or error}")
