"""Find the volumes of a dataset and read their descriptions, many files at once."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing

from workbench.data.describe import PARSERS, describe
from workbench.data.folders import FoundFile, find_files
from workbench.data.volume import Problem, UnusableVolumeError, Volume
from workbench.progress import Progress
from workbench.stores import DiskStore, StorageError, Store

SECONDS_BETWEEN_SAVES = 20.0
WORKERS = 32
"""Files of a disk that are read at a time: on a mount each answer takes its time."""
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
        reading = [executor.submit(_describe, store, file) for file in unread]
        try:
            with Progress(f"indexing {name}", len(unread), "volumes") as progress:
                for future in as_completed(reading):
                    result = future.result()
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
    return in_order(), tuple(sorted(problems, key=lambda p: p.path)), len(unread)


def _describe(store: Store, file: FoundFile) -> Volume | Problem:
    try:
        with closing(store.source(file.path, file.size)) as source:
            return describe(source, path=file.path, split=file.split, mtime_ns=file.mtime_ns)
    except UnusableVolumeError as error:
        return Problem(file.path, str(error))
    except StorageError:
        raise
    except OSError as error:
        return Problem(file.path, f"it cannot be read: {error.strerror or error}")
