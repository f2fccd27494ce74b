"""Where a dataset is, and which of its files may be volumes."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from workbench import settings
from workbench.catalog import DATASETS, split_of_folder
from workbench.dataset.volume import Problem

_STATS_A_TASK = 64


def find_dataset(name_or_path: str | Path) -> Path:
    """Return the folder of a dataset.

    A path to a folder is taken as it is (a relative one from the project's root). A name is
    looked for under ``datasets/``, then in the demo's copy; that one is announced, because it
    holds phantoms.

    Raises:
        FileNotFoundError: there is no such folder; the message says how to get the dataset.
        NotADirectoryError: it is a file.
    """
    text = str(name_or_path)
    if not text.strip():
        raise ValueError("dataset='': give a name such as knee_multicoil, or a folder's path")
    path = settings.resolve(name_or_path)
    if path.is_dir():
        return path
    is_name = not isinstance(name_or_path, Path) and Path(text).name == text
    if is_name:
        real = settings.resolve(Path("datasets", text))
        demo = settings.resolve(Path("outputs/demo/datasets", text))
        if real.is_dir():
            return real
        if demo.is_dir():
            print(
                f"NOTE: {settings.shown(real)} is not here; using {settings.shown(demo)}, "
                "the demo's synthetic phantom. It is not patient data."
            )
            return demo
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file: give the dataset's folder")
    raise FileNotFoundError(_how_to_get(text, path, is_name))


def _how_to_get(text: str, path: Path, is_name: bool) -> str:
    if is_name and text in DATASETS:
        where = settings.shown(settings.resolve(Path("datasets", text)))
        return (
            f"dataset {text} is not here ({where} is missing): bring it in with "
            "notebooks/ingest.ipynb, give the path of a copy, or run `make demo` for a phantom"
        )
    names = ", ".join(DATASETS)
    return f"no dataset at {path}: give the path of its folder, or one of {names}"


@dataclass(frozen=True)
class FoundFile:
    """A file that may be a volume.

    Attributes:
        path: relative to the dataset's folder, with ``/``.
        split: "train", "val", "test" or "challenge".
        size: bytes.
        mtime_ns: time of last change, nanoseconds.
    """

    path: str
    split: str
    size: int
    mtime_ns: int


def volume_files(
    root: Path, executor: Executor, known_splits: Mapping[str, str]
) -> tuple[list[FoundFile], list[Problem]]:
    """List the ``*.h5`` files of a dataset, sorted by path, and those that cannot be placed.

    Files count where their folder names a split (``multicoil_train``, ``multicoil_test_v2``); in
    ``root`` itself where its own name does. Hidden files, such as macOS's ``._NAME.h5``, and
    folders that name no split are passed over.

    Args:
        root: the dataset's folder.
        executor: threads to ask for sizes and times with; on a mount each answer takes its time.
        known_splits: path -> split that an earlier cache knew for files in ``root`` itself, so
            that a ``multicoil_val`` that was renamed keeps its split.
    """
    paths, problems = [], []
    for path, folder_split in _walk(root, "", split_of_folder(root.absolute().name)):
        split = folder_split or known_splits.get(path)
        if split:
            paths.append((path, split))
        else:
            problems.append(
                Problem(path, "its folder names no split: move it to one such as multicoil_train")
            )
    paths.sort()
    tasks = [paths[i : i + _STATS_A_TASK] for i in range(0, len(paths), _STATS_A_TASK)]
    found = executor.map(lambda task: [_stat(root, *item) for item in task], tasks)
    files = []
    for item in chain.from_iterable(found):
        if isinstance(item, Problem):
            problems.append(item)
        else:
            files.append(item)
    return files, problems


def _walk(root: Path, folder: str, split: str | None) -> Iterator[tuple[str, str | None]]:
    with os.scandir(root / folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads to itself: whoever reads it says so
                is_folder = False
            if is_folder:
                if inner := split_of_folder(entry.name):
                    yield from _walk(root, path, inner)
            elif entry.name.endswith(".h5"):
                yield path, split


def _stat(root: Path, path: str, split: str) -> FoundFile | Problem:
    try:
        found = (root / path).stat()
    except OSError as error:
        return Problem(path, f"it cannot be read: {error.strerror}")
    return FoundFile(path, split, found.st_size, found.st_mtime_ns)
