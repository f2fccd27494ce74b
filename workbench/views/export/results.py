"""What a reconstruction can be taken away as: figures, animations, DICOM, NIfTI, HDF5, a report.

Everything goes into ``export/`` in the results' folder, whole or not at all; what was made from the
same results before is kept.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from io import BytesIO
from pathlib import Path, PurePosixPath

from matplotlib import rc_context
from matplotlib.figure import Figure

from workbench.data.images import cropped
from workbench.recon.results import Result, Results
from workbench.settings import shown
from workbench.views.export.animation import write_animation
from workbench.views.export.dicom import write_dicom_series
from workbench.views.export.exported import (
    Exports,
    ReconstructedVolume,
    read_reconstructed,
)
from workbench.views.export.nifti import write_nifti
from workbench.views.export.report import run_report
from workbench.views.reconstruct import (
    extreme_slices,
    sheet_figure,
    slice_views,
    spread_figure,
)

KINDS = ("png", "svg", "gif", "dicom", "nifti", "leaderboard", "report")
_EDITION = 2  # raised when the same results come to be written otherwise


def export_kinds(export: str | None) -> tuple[str, ...]:
    """Read the notebook's parameter ``export``: kinds with commas between them; None for none.

    Raises:
        ValueError: it names something else.
    """
    if export is None:
        return ()
    if not isinstance(export, str):
        raise ValueError(f"export={export!r}: give some of {', '.join(KINDS)}, or None")
    kinds = tuple(dict.fromkeys(part.strip().lower() for part in export.split(",") if part.strip()))
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"export={export!r}: {kind} is none of {', '.join(KINDS)}")
    return kinds


def export_results(results: Results, kinds: Sequence[str]) -> Iterator[str]:
    """Export results; yield a line on each file or folder that is there.

    Args:
        results: what to export.
        kinds: some of ``KINDS``.
    """
    exports = Exports(results.folder / "export")
    for kind in kinds:
        if kind == "report":
            paths = [run_report(results.run)]
        elif kind in ("png", "svg"):
            paths = list(export_figures(results, exports, kind))
        elif kind == "leaderboard":
            paths = [export_leaderboard(results, exports)]
        else:
            name, write = _VOLUMES[kind]
            paths = [export_volume(results, each, exports, name, write) for each in results]
        where = paths[0] if len(paths) == 1 else Path(os.path.commonpath(p.parent for p in paths))
        count = "" if len(paths) == 1 else f"{len(paths)} of them in "
        yield f"{kind:<12}{count}{shown(where)}"


def _write_gif(source: ReconstructedVolume, file: Path) -> None:
    """Write a volume's slices as an animation, beside its target where it has one."""
    result, targets = source.result, source.result.targets()
    panes = {result.label: source.images}
    if targets is not None:
        target, images = cropped(targets, source.images)
        panes = {"target": target, result.label: images}
    write_animation(file, panes, caption=result.name, synthetic=source.volume.synthetic)


# Kind -> the form of its names, and what writes a volume at a path.
_VOLUMES: dict[str, tuple[str, Callable[[ReconstructedVolume, Path], None]]] = {
    "gif": ("gif/{}.gif", _write_gif),
    "dicom": ("dicom/{}", write_dicom_series),
    "nifti": ("nifti/{}.nii.gz", write_nifti),
}


def export_volume(
    results: Results,
    result: Result,
    exports: Exports,
    name: str,
    write: Callable[[ReconstructedVolume, Path], None],
) -> Path:
    """Write one volume.

    Args:
        results: the results that it is one of.
        result: the volume's.
        exports: where it goes.
        name: form of the file's name, relative to the exports.
        write: writes it, as a file or a folder of them.
    """
    return exports.make(
        _named(result, name),
        _made_from(name, [result]),
        lambda path: write(read_reconstructed(results, result), path),
    )


def export_leaderboard(results: Sequence[Result], exports: Exports) -> Path:
    """Write the results' HDF5 files, as fastMRI's leaderboard takes them, into one archive."""

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for result in results:
                archive.write(result.path, f"reconstructions/{result.name}")

    return exports.make("leaderboard.zip", _made_from("leaderboard", results), write)


def export_figures(results: Results, exports: Exports, kind: str) -> Iterator[Path]:
    """Write the page's figures as PNG or SVG: scores, extreme slices, every volume's slices."""

    def one(name: str, draw: Callable[[], Figure], of: Sequence[Result]) -> Path:
        return exports.make(
            f"{kind}/{name}.{kind}",
            _made_from(kind, of),
            lambda path: save_figure(draw(), path, kind),
        )

    if results.scored:
        yield one("scores", partial(spread_figure, results), results)
    for title, result, number in extreme_slices(results):
        name = _named(result, f"{title.split()[0]}-{{}}-{number}")
        yield one(name, partial(next, slice_views(result, number, title)), results)
    for result in results:
        yield one(_named(result, "slices-{}"), partial(sheet_figure, result), [result])


def save_figure(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure as PNG or SVG; the same figure always gives the same file."""
    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "workbench"}):
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(buffer, format=kind, metadata=metadata)
    path.write_bytes(buffer.getvalue())


def _named(result: Result, form: str) -> str:
    """Form a file's name around a result's, in a folder of its volume's where the name has one."""
    folder, _, name = result.name.rpartition("/")
    before, _, last = form.rpartition("/")
    return str(PurePosixPath(before, folder, last.format(name.removesuffix(".h5"))))


def _made_from(kind: str, results: Sequence[Result]) -> str:
    """Sum up what decides an export: its kind, and the results' files as they are."""
    files = [(r.volume.path, r.path.stat().st_size, r.path.stat().st_mtime_ns) for r in results]
    return hashlib.sha256(repr((_EDITION, kind, files)).encode()).hexdigest()
