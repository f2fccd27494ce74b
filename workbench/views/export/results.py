"""What a reconstruction can be taken away as: figures, animations, DICOM, NIfTI, HDF5, a report.

Everything goes into ``export/`` in the results' folder, whole or not at all; what was made from the
same results before is kept. An export is a module that writes a volume at a path, and a line here.
"""

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from functools import cache, partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from matplotlib import rc_context
from matplotlib.figure import Figure

from workbench.recon.results import Result, Results
from workbench.settings import shown
from workbench.stores.disk import naming, only_one, write_text
from workbench.views.export.animation import write_gif
from workbench.views.export.dicom import write_dicom_series
from workbench.views.export.exported import ReconstructedVolume, read_reconstructed
from workbench.views.export.nifti import write_nifti
from workbench.views.export.report import run_report
from workbench.views.reconstructions import (
    common_factor,
    extreme_slices,
    sheet_figure,
    slice_figure,
)
from workbench.views.scores import spread_figure

# Kind -> the form of its files' names, and what writes a volume at a path.
_VOLUMES: dict[str, tuple[str, Callable[[ReconstructedVolume, Path], None]]] = {
    "gif": ("gif/{}.gif", write_gif),
    "dicom": ("dicom/{}", write_dicom_series),
    "nifti": ("nifti/{}.nii.gz", write_nifti),
}
_FIGURES = ("png", "svg")
_WITHOUT_DATASET = ("leaderboard", "report")
KINDS = (*_FIGURES, *_VOLUMES, *_WITHOUT_DATASET)
_EDITION = 6  # raised when the same results come to be written otherwise
_LIST = "exports.json"

Export = tuple[str, Sequence[Result], Callable[[Path], None]]
"""Its name in the folder, the results that it is made from, and what writes it at a path."""


def export_results(results: Results, kinds: Sequence[str]) -> Iterator[str]:
    """Export results as some of ``KINDS``; yield a line on each kind's file or folder.

    Raises:
        FileNotFoundError: a kind is made from the dataset as well, and that is not here.
    """
    folder = results.folder / "export"
    needs = [kind for kind in kinds if kind not in _WITHOUT_DATASET]
    if needs and not results.dataset_is_here:
        raise FileNotFoundError(
            f"export={', '.join(needs)}: this also needs the dataset that was reconstructed, and "
            f"{shown(results.order.dataset)} does not hold it on this machine: run "
            "reconstruct.ipynb with local_dataset=DATASET, a copy of it; nothing is reconstructed "
            f"again. {' and '.join(_WITHOUT_DATASET)} do without"
        )
    for kind in kinds:
        removed = 0
        if kind == "report":
            paths = [run_report(results.run)]
        else:
            made = {
                name: make(folder, name, _digest(kind, made_from), write)
                for name, made_from, write in _exports(results, kind)
            }
            paths, removed = list(made.values()), _remove_older(results, kind, made)
        where = paths[0] if len(paths) == 1 else Path(os.path.commonpath(p.parent for p in paths))
        count = "" if len(paths) == 1 else f"{len(paths)} of them in "
        older = f"; {removed} of older results removed" if removed else ""
        yield f"{kind:<12}{count}{shown(where)}{older}"


def _digest(kind: str, made_from: Iterable[Result]) -> str:
    """Return what tells exports of some results from those of others, or of another edition."""
    files = [(result.volume.path, result.path.stat()) for result in made_from]
    changed = [(path, s.st_size, s.st_mtime_ns) for path, s in files]
    return hashlib.sha256(repr((_EDITION, kind, changed)).encode()).hexdigest()


def _remove_older(results: Results, kind: str, made: Collection[str]) -> int:
    """Remove what was exported of results that are no more, and return how many that are.

    Where weights were replaced and some volumes alone were reconstructed since, exports of the
    others lie beside the new ones, and nothing tells them apart.
    """
    folder, every = results.folder / "export", Results(results.folder)
    current = {name: _digest(kind, made_from) for name, made_from, _ in _exports(every, kind)}
    with _held(folder):
        known = _listed(folder)
        older = [
            name
            for name, made_from in known.items()
            if name.startswith(f"{kind}/") and name not in made and current.get(name) != made_from
        ]
        for name in older:
            with naming(folder / name):
                _remove(folder / name)
            del known[name]
        if older:
            write_text(folder / _LIST, json.dumps(known, indent=2))
    return len(older)


def _exports(results: Results, kind: str) -> Iterator[Export]:
    """Yield what a kind of export consists of."""

    def named(result: Result, form: str) -> str:
        # In a folder of its volume's where its name has one.
        folder, _, name = result.name.rpartition("/")
        before, _, last = form.rpartition("/")
        return str(PurePosixPath(before, folder, last.format(name.removesuffix(".h5"))))

    def volume(result: Result, path: Path) -> None:
        _VOLUMES[kind][1](read_reconstructed(results, result), path)

    def figure(draw: Callable[[], Figure], path: Path) -> None:
        buffer, metadata = BytesIO(), {"Date": None} if kind == "svg" else {}
        with rc_context({"svg.hashsalt": "workbench"}):  # the same figure gives the same file
            draw().savefig(buffer, format=kind, metadata=metadata)
        path.write_bytes(buffer.getvalue())

    def archive(path: Path) -> None:
        # The HDF5 files as they are, as fastMRI's leaderboard takes them.
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
            for result in results:
                file.write(result.path, f"reconstructions/{result.name}")

    if kind == "leaderboard":
        yield "leaderboard.zip", results, archive
    elif kind in _VOLUMES:
        for result in results:
            yield named(result, _VOLUMES[kind][0]), [result], partial(volume, result)
    else:
        if results.scored:
            yield f"{kind}/scores.{kind}", results, partial(figure, partial(spread_figure, results))
        extremes = extreme_slices(results)
        factor = cache(partial(common_factor, extremes))

        def slices(title: str, result: Result, number: int) -> Figure:
            return slice_figure(result, number, title, factor())

        for title, result, number in extremes:
            # One best slice: of other weights it is another, and takes the place of this.
            name = f"{kind}/{title.split()[0]}.{kind}"
            if name.startswith(f"{kind}/not"):
                name = named(result, f"{kind}/not-finite-{{}}.{kind}")
            yield name, results, partial(figure, partial(slices, title, result, number))
        for result in results:
            name = named(result, f"{kind}/slices-{{}}.{kind}")
            yield name, [result], partial(figure, partial(sheet_figure, result))


def make(folder: Path, name: str, made_from: str, write: Callable[[Path], None]) -> Path:
    """Write a file or a folder whole, or not at all; keep one that was made from the same.

    The folder remembers in ``exports.json`` what each of them was made from.

    Raises:
        CannotWriteError: the disk refuses it.
    """
    path = folder / name
    with _held(folder):
        known = _listed(folder)
        if path.exists() and known.get(name) == made_from:
            return path
        with naming(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # The extension stays last: some writers go by it.
            partial_path = path.with_name(f".partial.{path.name}")
            before = path.with_name(f".before.{path.name}")
            _remove(partial_path)  # of a process that was killed
            try:
                write(partial_path)
                if path.is_dir():  # a folder with files in it cannot be replaced at one stroke
                    _remove(before)
                    path.rename(before)
                partial_path.replace(path)
                _remove(before)
            finally:
                _remove(partial_path)
        write_text(folder / _LIST, json.dumps(known | {name: made_from}, indent=2))
    return path


def _held(folder: Path) -> AbstractContextManager[int]:
    """Hold a folder of exports: what lies there half written is then of a process that ended."""
    busy = f"another process exports into {shown(folder)}: waiting for it"
    return only_one(folder / ".lock", busy, wait=True)


def _listed(folder: Path) -> dict[str, str]:
    """Return what each export in a folder was made from, by its name."""
    with suppress(OSError, ValueError, TypeError, RecursionError):
        listed = dict(json.loads((folder / _LIST).read_text()))
        return {str(name): made for name, made in listed.items() if ".." not in str(name)}
    return {}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
