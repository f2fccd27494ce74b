"""Find the volumes of a dataset and read their descriptions, many files at once."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
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
    default = WORKERS if isinstance(store, DiskStore) else _WORKERS_IN_STORAGE
    with ThreadPoolExecutor(workers or default) as executor:
        splits = {path: volume.split for path, volume in known.items()}
        files, problems = find_files(store, executor, splits)
        volumes = {file.path: known[file.path] for file in files if _is_known(file, known)}
        unread = [file for file in files if file.path not in volumes]
        try:
            _read(store, unread, executor, volumes, problems, save)
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            save(_sorted(volumes))
            raise
        finally:
            PARSERS.close()
    return _sorted(volumes), tuple(sorted(problems, key=lambda p: p.path)), len(unread)


def _is_known(file: FoundFile, known: Mapping[str, Volume]) -> bool:
    volume = known.get(file.path)
    return volume is not None and (volume.size, volume.mtime_ns, volume.split) == (
        file.size,
        file.mtime_ns,
        file.split,
    )


def _sorted(volumes: Mapping[str, Volume]) -> tuple[Volume, ...]:
    return tuple(volumes[path] for path in sorted(volumes))


def _read(
    store: Store,
    files: list[FoundFile],
    executor: Executor,
    volumes: dict[str, Volume],
    problems: list[Problem],
    save: Callable[[tuple[Volume, ...]], None],
) -> None:
    """Add what the files are to ``volumes`` and ``problems``."""
    saved = time.monotonic()
    name = store.address.rpartition("/")[2]
    with Progress(f"indexing {name}", len(files), "volumes") as progress:
        for future in as_completed([executor.submit(_describe, store, file) for file in files]):
            result = future.result()
            if isinstance(result, Problem):
                problems.append(result)
            else:
                volumes[result.path] = result
            progress.advance(1, result.path)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                save(_sorted(volumes))
                saved = time.monotonic()


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
