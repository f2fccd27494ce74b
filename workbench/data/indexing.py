"""Read the descriptions of many files at once."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from workbench.data.describe import PARSERS, UnusableVolumeError, describe
from workbench.data.folders import FoundFile, printable, volume_files
from workbench.data.volume import Problem, Volume
from workbench.progress import Progress
from workbench.stores.disk import LocalFile

SECONDS_BETWEEN_SAVES = 20.0
_NAMED = 8


@dataclass(frozen=True)
class Index:
    """What the files of a dataset are.

    Attributes:
        volumes: sorted by path.
        problems: files that are left out, sorted by path.
        read: number of files that were read, the rest being known.
    """

    volumes: tuple[Volume, ...]
    problems: tuple[Problem, ...]
    read: int


def index_files(
    root: Path,
    known: Mapping[str, Volume],
    *,
    workers: int,
    save: Callable[[tuple[Volume, ...]], None],
) -> Index:
    """Describe every volume of a dataset, reading the files that are new or changed.

    Args:
        root: the dataset's folder.
        known: path -> volume as an earlier index has it.
        workers: threads; each waits for one file.
        save: is given what is known so far, every 20 seconds and when the work is interrupted.

    Raises:
        FileNotFoundError: the folder holds no ``.h5`` file.
    """
    with ThreadPoolExecutor(workers) as executor:
        splits = {path: volume.split for path, volume in known.items()}
        files, problems = volume_files(root, executor, splits)
        if not files and not problems:
            raise FileNotFoundError(
                f"no volumes in {root}: expected .h5 files in folders such as multicoil_train, "
                f"multicoil_val or singlecoil_test; found {_listed(root)}"
            )
        return describe_files(
            files, problems, known, partial(_describe, root), executor, root.name, save=save
        )


def _listed(root: Path) -> str:
    names = sorted(printable(path.name) for path in root.iterdir() if path.name[0] != ".")
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more if names else "nothing"


def describe_files(
    files: list[FoundFile],
    problems: list[Problem],
    known: Mapping[str, Volume],
    describe_file: Callable[[FoundFile], Volume | Problem],
    executor: Executor,
    name: str,
    *,
    save: Callable[[tuple[Volume, ...]], None] = lambda _: None,
) -> Index:
    """Describe the files of a dataset that are new or changed, many at a time.

    Args:
        files: the dataset's files.
        problems: what was found wrong before.
        known: path -> volume as an earlier index has it.
        describe_file: reads one file.
        executor: threads to read in.
        name: the dataset's name, for the progress.
        save: is given what is known so far, every 20 seconds and when the work is interrupted.
    """
    volumes = {file.path: known[file.path] for file in files if _is_known(file, known)}
    unread = [file for file in files if file.path not in volumes]
    problems = list(problems)
    try:
        _read(name, unread, describe_file, executor, volumes, problems, save)
    except BaseException:
        executor.shutdown(wait=False, cancel_futures=True)
        save(_sorted(volumes))
        raise
    finally:
        PARSERS.close()
    return Index(_sorted(volumes), tuple(sorted(problems, key=lambda p: p.path)), len(unread))


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
    name: str,
    files: list[FoundFile],
    describe_file: Callable[[FoundFile], Volume | Problem],
    executor: Executor,
    volumes: dict[str, Volume],
    problems: list[Problem],
    save: Callable[[tuple[Volume, ...]], None],
) -> None:
    saved = time.monotonic()
    with Progress(f"indexing {name}", len(files), "volumes") as progress:
        for future in as_completed([executor.submit(describe_file, file) for file in files]):
            result = future.result()
            if isinstance(result, Problem):
                problems.append(result)
            else:
                volumes[result.path] = result
            progress.advance(1, result.path)
            if time.monotonic() - saved > SECONDS_BETWEEN_SAVES:
                save(_sorted(volumes))
                saved = time.monotonic()


def _describe(root: Path, file: FoundFile) -> Volume | Problem:
    try:
        with LocalFile(root / file.path) as source:
            return describe(source, path=file.path, split=file.split, mtime_ns=file.mtime_ns)
    except UnusableVolumeError as error:
        return Problem(file.path, str(error))
    except OSError as error:
        return Problem(file.path, f"it cannot be read: {error.strerror or error}")
