"""Where a dataset is, and which of its files may be volumes."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from workbench import settings
from workbench.catalog import DATASETS, split_of_folder
from workbench.data.volume import Problem
from workbench.stores import DiskStore, Store, is_address, open_store

_STATS_A_TASK = 64
_NAMED = 8
_DEMO = "outputs/demo/datasets"
_SUFFIXES = (".h5", ".hdf5")
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def find_dataset(name_or_path: str | Path, *, announce: bool = True) -> Store:
    """Return the folder of a dataset.

    An address in blob storage and a path to a folder are taken as they are (a relative path from
    the project's root). A name is looked for under ``datasets/``, then in the demo's copy; that
    one is announced by default, because it holds phantoms.

    Raises:
        FileNotFoundError: there is no such folder; the message says how to get the dataset.
        NotADirectoryError: it is a file.
        ValueError: it is no address; see ``open_store`` for this and for logins that fail.
    """
    text = str(name_or_path)
    if is_address(name_or_path):
        return open_store(text)
    if not text.strip():
        raise ValueError("dataset='': give a name such as knee_multicoil, or a folder's path")
    path = settings.resolve(name_or_path)
    if path.is_dir():
        return DiskStore(path)
    is_name = not isinstance(name_or_path, Path) and Path(text).name == text
    real, demo = (settings.resolve(Path(where, text)) for where in ("datasets", _DEMO))
    if is_name and real.is_dir():
        return DiskStore(real)
    if is_name and demo.is_dir():
        if announce:
            print(
                f"NOTE: {settings.shown(real)} is not here; using {settings.shown(demo)}, "
                "the demo's synthetic phantom. It is not patient data."
            )
        return DiskStore(demo)
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file: give the dataset's folder")
    if is_name and text in DATASETS:
        if raw := DATASETS[text].made_from:
            raise FileNotFoundError(
                f"dataset {text} is not here ({settings.shown(real)} is missing): ingest {raw}, "
                f"then `workbench convert source=datasets/{raw} dataset={text}`"
            )
        raise FileNotFoundError(
            f"dataset {text} is not here ({settings.shown(real)} is missing): bring it in with "
            "`workbench ingest`, give the path of a copy, or run `workbench demo` for a phantom"
        )
    raise FileNotFoundError(
        f"no dataset at {path}: give the path of its folder, or one of {', '.join(DATASETS)}; "
        "`workbench demo` makes phantoms in outputs/demo/datasets/"
    )


class FoundFile(NamedTuple):
    """A file that may be a volume; its fields are those of ``Volume``."""

    path: str
    split: str
    size: int
    mtime_ns: int


def find_files(
    store: Store, executor: Executor, known_splits: Mapping[str, str]
) -> tuple[list[FoundFile], list[Problem]]:
    """List the ``*.h5`` files of a dataset, sorted by path, and those that are left out.

    ``place_files`` says which count. On a disk each folder is read once, whatever links lead to
    it. A file counts under each of its names: copies, hard links and links alike, as for fastMRI.

    Args:
        store: the dataset's folder.
        executor: threads to ask for sizes and times with; on a mount each answer takes its time.
        known_splits: see ``place_files``.

    Raises:
        FileNotFoundError: there is no such folder, or no ``.h5`` file in it.
    """
    problems: list[Problem] = []
    if isinstance(store, DiskStore):
        root = store.root
        if not root.is_dir():
            raise FileNotFoundError(f"no dataset at {root}: there is no such folder")
        entries = dict.fromkeys(_walk(root, problems), (-1, 0))
    else:
        entries = {entry.path: (entry.size, entry.mtime_ns) for entry in store.list()}
    own_split = split_of_folder(Path(store.address).absolute().name)
    splits, unplaced = place_files(entries, own_split, known_splits)
    problems += unplaced
    files = [FoundFile(path, split, *entries[path]) for path, split in splits.items()]
    if not files and not problems:
        on_disk = isinstance(store, DiskStore)
        paths = [path.name for path in root.iterdir()] if on_disk else entries
        tops = {printable(path.partition("/")[0]) for path in paths}
        names = sorted(name for name in tops if name[0] != ".")
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        listed = ", ".join(names[:_NAMED]) + more if names else "nothing: ingest the dataset"
        raise FileNotFoundError(
            f"no volumes in {store.address}: expected .h5 files in folders such as "
            f"multicoil_train, multicoil_val or singlecoil_test; found {listed}"
        )
    if not isinstance(store, DiskStore):
        return files, problems
    tasks = [files[i : i + _STATS_A_TASK] for i in range(0, len(files), _STATS_A_TASK)]
    asked = executor.map(lambda task: [_stat(root, file) for file in task], tasks)
    found = [item for task in asked for item in task]
    problems += [item for item in found if isinstance(item, Problem)]
    return [item for item in found if isinstance(item, FoundFile)], problems


def _stat(root: Path, file: FoundFile) -> FoundFile | Problem:
    try:
        found = (root / file.path).stat()
    except OSError as error:
        return Problem(file.path, f"it cannot be read: {error.strerror}")
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something else")
        return Problem(file.path, f"it is {kind}, not a file")
    return file._replace(size=found.st_size, mtime_ns=found.st_mtime_ns)


def place_files(
    paths: Iterable[str], own_split: str | None, known_splits: Mapping[str, str] | None = None
) -> tuple[dict[str, str], list[Problem]]:
    """Tell by its path which split a file belongs to.

    Files count where each folder on their way names a split (``multicoil_train``,
    ``multicoil_test_v2``); in the dataset's folder itself where its own name does. Hidden files,
    such as macOS's ``._NAME.h5``, and files of other kinds are passed over.

    Args:
        paths: of all files, relative to the dataset's folder, with ``/``.
        own_split: what the dataset's folder names.
        known_splits: path -> split that an earlier cache knew for files in the folder itself, so
            that a ``multicoil_val`` that was renamed keeps its split.

    Returns:
        Path -> split, sorted by path, and the HDF5 files that are left out; of a folder that names
        no split, the folder.
    """
    splits, problems, foreign = {}, [], Counter[str]()
    for text in sorted(paths):
        path = PurePosixPath(text)
        if path.suffix.lower() not in _SUFFIXES or any(part[0] == "." for part in path.parts):
            continue
        folders = [split_of_folder(folder) for folder in path.parts[:-1]]
        split = folders[-1] if folders else own_split or (known_splits or {}).get(text)
        if _UNPRINTABLE.search(text):
            reason = "its name holds characters that cannot be shown: rename it"
            problems.append(Problem(printable(text), reason))
        elif None in folders:
            foreign["/".join(path.parts[: folders.index(None) + 1])] += 1
        elif path.suffix != ".h5":
            reason = f"its name ends in {path.suffix}: rename it to {path.stem}.h5"
            problems.append(Problem(text, reason))
        elif split:
            splits[text] = split
        else:
            reason = "its folder names no split: move it to one such as multicoil_train"
            problems.append(Problem(text, reason))
    for folder, count in foreign.items():
        files = "an HDF5 file" if count == 1 else f"{count:,} HDF5 files"
        reason = f"{files} passed over: the folder does not name one split, as multicoil_train does"
        problems.append(Problem(f"{folder}/", reason))
    return splits, problems


def printable(text: str) -> str:
    """Return a file's name with the characters that cannot be shown written as escapes."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], text)


def _walk(root: Path, problems: list[Problem]) -> Iterator[str]:
    """Yield the paths of all files that may be HDF5.

    Folders come before links to folders, and a link's folder is not searched for more folders
    than those of a split: it can lead to the whole machine.
    """
    folders: list[tuple[str, bool]] = [("", True)]
    links: list[tuple[str, bool]] = []
    seen = set[str]()
    while folders or links:
        folder, here = folders.pop() if folders else links.pop(0)
        real, reason = os.path.realpath(root / folder), ""
        try:
            if real in seen:
                reason = "it leads to a folder that is read already"
            else:
                with os.scandir(root / folder) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not folder:
                raise
            reason = f"it cannot be read: {error.strerror}"
        seen.add(real)
        if reason:
            problems.append(Problem(f"{printable(folder)}/", reason))
            continue
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            may_be_volume = PurePosixPath(path).suffix.lower() in _SUFFIXES
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link that leads to itself: whoever reads it says so
                is_folder = False
            if entry.name.startswith("."):
                continue
            if may_be_volume and is_folder:
                problems.append(Problem(printable(path), "it is a folder, not a file"))
            elif may_be_volume:
                yield path
            elif is_folder and (here or split_of_folder(entry.name)):
                if entry.is_symlink():
                    links.append((path, False))
                else:
                    folders.append((path, here))
