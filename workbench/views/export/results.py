"""What a reconstruction can be taken away as: figures, animations, DICOM, NIfTI, HDF5, a report.

Everything goes into ``export/`` in the results' folder, whole or not at all; what was made from the
same results before is kept.
"""

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath

from matplotlib import rc_context
from matplotlib.figure import Figure

from workbench.recon.reconstruction_plan import Reconstruction, ReconstructionPlan
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
from workbench.views.measured import cropped, read_targets
from workbench.views.reconstruct import (
    extreme_slices,
    scored,
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


def export_results(
    plan: ReconstructionPlan, results: Sequence[Reconstruction], kinds: Sequence[str]
) -> Iterator[str]:
    """Export results; yield a line on each file or folder that is there.

    Args:
        plan: what was reconstructed.
        results: its results.
        kinds: some of ``KINDS``.
    """
    exports = Exports(plan.folder / "export")
    for kind in kinds:
        if kind == "report":
            yield _line(kind, [run_report(plan)])
        elif kind in ("png", "svg"):
            yield _line(kind, list(export_figures(plan, results, exports, kind)))
        elif kind == "leaderboard":
            yield _line(kind, [export_leaderboard(results, exports)])
        else:
            write = {"gif": export_gif, "dicom": export_dicom, "nifti": export_nifti}[kind]
            yield _line(kind, [write(plan, result, exports) for result in results])


def export_gif(plan: ReconstructionPlan, result: Reconstruction, exports: Exports) -> Path:
    """Write a volume's slices as an animation, beside its target where it has one."""

    def write(file: Path, source: ReconstructedVolume) -> None:
        targets = read_targets(plan, source.volume)
        panes = [source.images] if targets is None else cropped(targets, source.images)
        write_animation(
            file,
            dict(zip(("VarNet",) if targets is None else ("target", "VarNet"), panes, strict=True)),
            caption=result.name,
            synthetic=source.volume.synthetic,
        )

    return _one_volume(plan, result, exports, "gif/{}.gif", write)


def export_dicom(plan: ReconstructionPlan, result: Reconstruction, exports: Exports) -> Path:
    """Write a volume as a DICOM series: a folder, a file a slice."""
    return _one_volume(
        plan, result, exports, "dicom/{}", lambda path, source: write_dicom_series(source, path)
    )


def export_nifti(plan: ReconstructionPlan, result: Reconstruction, exports: Exports) -> Path:
    """Write a volume as NIfTI."""
    return _one_volume(
        plan, result, exports, "nifti/{}.nii.gz", lambda path, source: write_nifti(source, path)
    )


def export_leaderboard(results: Sequence[Reconstruction], exports: Exports) -> Path:
    """Write the results' HDF5 files, as fastMRI's leaderboard takes them, into one archive."""

    def write(file: Path) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for result in results:
                archive.write(result.path, f"reconstructions/{result.name}")

    return exports.make("leaderboard.zip", _made_from("leaderboard", results), write)


def export_figures(
    plan: ReconstructionPlan, results: Sequence[Reconstruction], exports: Exports, kind: str
) -> Iterator[Path]:
    """Write the page's figures as PNG or SVG: scores, extreme slices, every volume's slices."""
    made_from = _made_from(kind, results)

    def one(name: str, draw: Callable[[], Figure], made: str = made_from) -> Path:
        return exports.make(
            f"{kind}/{name}.{kind}", made, lambda path: save_figure(draw(), path, kind)
        )

    if scored(results):
        yield one("scores", lambda: spread_figure(plan, results))
    for title, result, number in extreme_slices(results):
        name = _named(result, f"{title.split()[0]}-{{}}-{number}")
        yield one(name, lambda r=result, n=number, t=title: next(slice_views(plan, r, n, t)))  # type: ignore[misc]
    for result in results:
        name = _named(result, "slices-{}")
        yield one(name, lambda r=result: sheet_figure(plan, r), _made_from(kind, [result]))  # type: ignore[misc]


def save_figure(figure: Figure, path: Path, kind: str) -> None:
    """Write a figure as PNG or SVG; the same figure always gives the same file."""
    buffer = BytesIO()
    with rc_context({"svg.hashsalt": "workbench"}):
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(buffer, format=kind, metadata=metadata)
    path.write_bytes(buffer.getvalue())


def _one_volume(
    plan: ReconstructionPlan,
    result: Reconstruction,
    exports: Exports,
    name: str,
    write: Callable[[Path, ReconstructedVolume], None],
) -> Path:
    made_from = _made_from(name, [result])
    return exports.make(
        _named(result, name),
        made_from,
        lambda path: write(path, read_reconstructed(plan, result)),
    )


def _named(result: Reconstruction, form: str) -> str:
    """Form a file's name around a result's, in a folder of its volume's where the name has one."""
    folder, _, name = result.name.rpartition("/")
    before, _, last = form.rpartition("/")
    return str(PurePosixPath(before, folder, last.format(name.removesuffix(".h5"))))


def _made_from(kind: str, results: Sequence[Reconstruction]) -> str:
    """Sum up what decides an export: its kind, and the results' files as they are."""
    files = [(r.volume, r.path.stat().st_size, r.path.stat().st_mtime_ns) for r in results]
    return hashlib.sha256(repr((_EDITION, kind, files)).encode()).hexdigest()


def _line(kind: str, paths: Sequence[Path]) -> str:
    where = paths[0] if len(paths) == 1 else Path(os.path.commonpath(p.parent for p in paths))
    count = "" if len(paths) == 1 else f"{len(paths)} of them in "
    return f"{kind:<12}{count}{shown(where)}"
