"""fastMRI's own dataset cache, the pickle ``dataset_cache.pkl``: read it safely, and write it.

The file is a dictionary, folder -> list of ``FastMRIRawDataSample(fname, slice_ind, metadata)``
(``fastmri/data/mri_data.py``). It holds neither offsets nor sizes nor times, keeps paths of the
machine that wrote it, lists deleted files for ever, and a first run on a part of the data stays in
it as if it were the whole. So a dataset is never trusted to it: reading it serves to compare what
somebody once trained on with what is here (``compare``). Writing one lets fastMRI's
``SliceDataset`` start without opening each file.
"""

import pickle
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import numpy as np

from workbench.data.cache import DatasetCache
from workbench.data.volume import Problem, Volume
from workbench.stores.disk import replacing


class PickleRefusedError(ValueError):
    """A pickle is no dataset cache of fastMRI's, or holds what such a file has no need of."""


@dataclass(frozen=True)
class ListedVolume:
    """One volume as fastMRI's cache lists it."""

    path: PurePath  # on the machine that wrote the pickle
    slices: tuple[int, ...]
    metadata: dict[str, Any]  # fields of the header, see metadata_of, and the file's attributes


def read_pickle(path: str | Path) -> tuple[ListedVolume, ...]:
    """Read fastMRI's ``dataset_cache.pkl``, as data and nothing else.

    Nothing that the file names is ever run: dictionaries, lists, numbers, strings, paths, NumPy
    scalars and fastMRI's named tuple are rebuilt here, anything else is refused.

    Raises:
        PickleRefusedError: the file names another class or function, is damaged, or holds
            something else than a dataset cache.
    """
    with Path(path).open("rb") as file:
        try:
            document = _PlainUnpickler(file).load()
        except PickleRefusedError as error:
            raise PickleRefusedError(f"{path} is refused: {error}") from None
        except Exception as error:  # a damaged pickle can raise anything
            raise PickleRefusedError(f"{path} is no pickle that can be read: {error}") from None
    listed: dict[PurePath, tuple[dict[str, Any], set[int]]] = {}
    try:
        for samples in document.values():
            for name, index, metadata in samples:
                listed.setdefault(PurePath(name), (dict(metadata), set()))[1].add(int(index))
    except (AttributeError, TypeError, ValueError):
        raise PickleRefusedError(
            f"{path} is no dataset cache of fastMRI's: it is not a list of samples by folder"
        ) from None
    in_order = sorted(listed.items(), key=lambda item: str(item[0]))
    return tuple(ListedVolume(name, tuple(sorted(n)), known) for name, (known, n) in in_order)


def compare(listed: Iterable[ListedVolume], cache: DatasetCache) -> tuple[Problem, ...]:
    """Say where fastMRI's cache and a dataset differ; nothing where they agree.

    Files are matched by file name and as many folders as tell the files here apart, at least one. A
    folder that the pickle does not know is left out: it often holds the training part alone.
    """
    paths = {cache.file(volume).absolute().parts: volume for volume in cache}
    depth = 1
    while len({parts[-1 - depth :] for parts in paths}) < len(paths):
        depth += 1
    theirs = {volume.path.parts[-1 - depth :]: volume for volume in listed}
    ours = {parts[-1 - depth :]: volume for parts, volume in paths.items()}
    found = {"/".join(place): "listed by the pickle, not here" for place in theirs.keys() - ours}
    for place in ours.keys() - theirs:
        if place[:-1] in {known[:-1] for known in theirs}:
            found["/".join(place)] = "here, not listed by the pickle"
    for place in ours.keys() & theirs:
        volume, other, here = ours[place], theirs[place], metadata_of(ours[place])
        there = other.metadata
        differ = [n for n in sorted(there.keys() | here) if there.get(n) != here.get(n)]
        if other.slices != tuple(range(volume.slices)):
            found["/".join(place)] = (
                f"the pickle lists {len(other.slices)} slices, the file has {volume.slices}"
            )
        elif differ:
            name = differ[0]
            found["/".join(place)] = (
                f"{name} is {there.get(name)!r} in the pickle, {here.get(name)!r} in the file"
            )
    return tuple(Problem(*item) for item in sorted(found.items()))


def metadata_of(volume: Volume) -> dict[str, Any]:
    """Return a volume's metadata as fastMRI's ``SliceDataset`` hands it to a transform."""
    return {
        "padding_left": volume.padding_left,
        "padding_right": volume.padding_right,
        "encoding_size": volume.encoded,
        "recon_size": volume.recon,
        **volume.attributes,
    }


def write_pickle(
    cache: DatasetCache,
    path: str | Path,
    *,
    data_path: str | Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Write ``dataset_cache.pkl`` for fastMRI's ``SliceDataset(use_dataset_cache=True)``.

    Args:
        cache: what to list: a whole dataset, or a part, which fastMRI then takes for the whole.
        path: the file to write.
        data_path: the dataset's folder as fastMRI will be given it, because the key is its ``root``
            to the letter (``data_path/multicoil_train``, as string and as ``Path``).
        overwrite: replace a file that is there.

    Raises:
        FileExistsError: the file is there, and may list other datasets.
        ValueError: there are no volumes to list.
    """
    from fastmri.data.mri_data import FastMRIRawDataSample

    path, base = Path(path), Path(data_path or cache.store.address)
    if not len(cache):
        raise ValueError(f"no volumes to list: {cache.address} has none in this selection")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already: give overwrite=True or another path")
    document: dict[str | Path, list[Any]] = {}
    for volume in cache:
        file, metadata = base / volume.path, metadata_of(volume)
        samples = document.setdefault(file.parent, [])
        document[str(file.parent)] = samples
        samples += [FastMRIRawDataSample(file, index, metadata) for index in range(volume.slices)]
    with replacing(path) as stream:
        pickle.dump(document, stream)
    return path


class _Sample(NamedTuple):
    """Stands in for fastMRI's named tuple, so that reading needs no torch."""

    fname: Any
    slice_ind: Any
    metadata: Any


class _ScalarType:
    """Stands in for ``numpy.dtype``: the letter and byte order of a plain number or string."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"[biufSU]\d+", code):
            raise PickleRefusedError(f"it holds NumPy values of type {code!r}")
        self._code, self._order = code, "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = {"<": "<", ">": ">"}.get(state[1], "=")

    def scalar(self, data: bytes) -> Any:
        return np.frombuffer(data, self._order + self._code, count=1)[0].item()


_REBUILT_AS: dict[tuple[str, str], Any] = {
    ("fastmri.data.mri_data", "FastMRIRawDataSample"): _Sample,
    ("numpy", "dtype"): _ScalarType,
    ("numpy.core.multiarray", "scalar"): _ScalarType.scalar,
    ("numpy._core.multiarray", "scalar"): _ScalarType.scalar,
    **{
        (module, name): PureWindowsPath if "Windows" in name else PurePosixPath
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath")
    },
}


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return what stands in for a class; refuse every other one before it is imported."""
        found = _REBUILT_AS.get((module, name))
        if found is None:
            raise PickleRefusedError(
                f"it asks for {module}.{name}, which a dataset cache has no need of and which "
                "could run code on this machine"
            )
        return found
