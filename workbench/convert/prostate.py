"""fastMRI prostate: the three averages of a T2 scan become one volume.

Each average of a T2 scan holds every second phase-encode column: averages 0 and 2 the odd ones,
average 1 the even ones (Tibrewala et al. 2024, doi:10.1038/s41597-024-03252-w). Together they
measure all. NYU fills each average by GRAPPA and averages the magnitudes; here each column is what
was measured, so that k-space and target belong together.
"""

import csv
import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.catalog import split_of_folder
from workbench.convert.checks import off_middle
from workbench.convert.hdf5 import acquisition_of, header_of, held, kspace_of, opened, slices_by
from workbench.convert.header import Header
from workbench.convert.scan import Choices, RefusedError, Scan
from workbench.data.describe import own_array

CODE = "https://github.com/cai2r/fastMRI_prostate"
COLUMNS = {"fastmri_pt_id", "slice", "PIRADS", "fastmri_rawfile", "data_split"}
"""Columns of NYU's ``t2_slice_level_labels.csv`` that are read."""
_MOST_AVERAGES = 8  # of a T2 scan, which has three; more are a diffusion scan's
_FOLDERS = 2  # the file's and the one above it, in which the labels are looked for


@dataclass(frozen=True)
class Labels:
    """What the labels' file says of a patient: the official split, and PI-RADS by slice."""

    split: str | None
    grades: tuple[int, ...]


def holds(path: Path) -> bool:
    """Say whether a file holds k-space of several averages, or is the file of labels."""
    if path.suffix.lower() == ".csv":
        return bool(_read_labels(path, path.stat().st_mtime_ns))
    found = held(path)
    fits = found and found.kind == "c" and len(found.shape) == 5
    return bool(fits and found and "ismrmrd_header" in found.names)


def scans(path: Path, choices: Choices) -> list[Scan]:
    """Describe the volume that a T2 scan becomes; the file of labels holds none."""
    if path.suffix.lower() == ".csv":
        return []
    with opened(path) as file:
        kspace = kspace_of(file)
        header, xml = header_of(file)
        _refuse_diffusion(file, kspace.shape, xml)
        _, slices, coils, readout, _ = kspace.shape
        measured = _measured(kspace, slices // 2)
        _check_place(kspace, header, measured, named=_patient(path.name) is not None)
        calibration = own_array(file, "calibration_data")
        acquisition = acquisition_of(file) or "AXT2"
    (first, end), every = header.acquired, measured.any(axis=0)
    sampled = None if every.all() else np.pad(every, (first, header.encoded[1] - end))
    patient = _patient(path.name)
    labels = _labels_of(path, patient)
    fitting = labels is not None and len(labels.grades) == slices
    return [
        Scan(
            shape=(slices, coils, readout, header.encoded[1]),
            read=slices_by(path, functools.partial(_combined, measured, header.encoded[1], first)),
            header=header,
            sampled=sampled,
            target=sampled is None,
            acquisition=acquisition,
            person=f"prostate {patient}" if patient else path.stem,
            split=labels.split if labels else None,
            calibration=None if calibration is None else functools.partial(_calibration, path),
            attributes={"pirads": list(labels.grades)} if labels and fitting else {},
            remarks=tuple(_remarks(measured, labels, slices)),
        )
    ]


def _refuse_diffusion(file: h5py.File, shape: tuple[int, ...], xml: str) -> None:
    """Refuse an EPI, by what it holds: it needs regridding, phase correction and GRAPPA."""
    trajectory = re.search(r"trajectory>\s*(\w+)\s*<", xml)
    found = [name for name in ("coil_sens_maps", "phase_correction") if name in file]
    if trajectory and trajectory[1] != "cartesian":
        found.append(f"a trajectory {trajectory[1]}")
    if shape[0] > _MOST_AVERAGES:
        found.append(f"{shape[0]} averages")
    if found:
        raise RefusedError(
            f"is a diffusion scan of fastMRI prostate, an EPI (it holds {', '.join(found)}): "
            f"reconstruct it with NYU's own code, {CODE}"
        )


def _measured(kspace: h5py.Dataset, number: int) -> NDArray[np.bool_]:
    """Say which columns each average measured in a slice, (averages, lines)."""
    middle = kspace[:, number, :, kspace.shape[3] // 2, :]
    return (middle != 0).any(axis=1)


def _check_place(
    kspace: h5py.Dataset, header: Header, measured: NDArray[np.bool_], *, named: bool
) -> None:
    """Refuse k-space that does not fit its header, is not of averages, or has its centre elsewhere.

    Columns that interleave otherwise than in the published files are those of averages where the
    file is named as one (``named``), and may be frames' elsewhere.
    """
    _, slices, _, readout, lines = kspace.shape
    (first, end), (x, y, _) = header.acquired, header.encoded
    if (readout, lines) != (x, header.lines) or not 0 <= first < end <= y:
        raise RefusedError(
            f"has k-space of {readout}x{lines}, and its header speaks of {header.lines} lines "
            f"of {x}x{y}, from column {first}: they do not fit"
        )
    if not measured.any():
        raise RefusedError("holds nothing but zeros in its middle slice: bring it in again")
    middle = kspace[:, slices // 2, :, readout // 2, :]
    same = (measured == measured[0]).all()
    if len(measured) > 1 and (same or not (named or _as_published(measured))):
        raise RefusedError(
            f"has {len(measured)} k-spaces of {'the same' if same else 'other'} columns, and a "
            "fastMRI prostate T2 has averages of every second one: echoes or frames have no mean; "
            "save each as a file, or k-space as an array without a header, with volume or average "
            "among its axes"
        )
    power = (middle.real**2 + middle.imag**2).sum(axis=1).max(axis=0)
    off = first + int(power.argmax()) - y // 2
    if abs(off) > off_middle(y):
        raise RefusedError(
            f"has its strongest column {abs(off)} beside the middle of the matrix that its header "
            "speaks of: it is no fastMRI prostate T2 as published"
        )


def _combined(
    measured: NDArray[np.bool_], width: int, first: int, kspace: h5py.Dataset, number: int
) -> NDArray[np.complex64]:
    """Return a slice, padded to a width; each column is the mean of what measured it."""
    if not np.array_equal(_measured(kspace, number), measured):
        raise RefusedError(
            f"measures other columns in slice {number} than in its middle slice: it is no fastMRI "
            f"prostate T2 as published, see {CODE}"
        )
    counts = np.maximum(measured.sum(axis=0), 1).astype(np.float32)
    values = np.zeros((*kspace.shape[2:4], width), np.complex64)
    stored = np.empty(kspace.shape[2:], np.complex64)
    for average, columns in enumerate(map(np.flatnonzero, measured)):
        kspace.read_direct(stored, np.s_[average, number])
        for coil, lines in enumerate(stored):
            values[coil][:, first + columns] += lines[:, columns] / counts[columns]
    return values


def _calibration(path: Path) -> NDArray[np.complex64]:
    with opened(path) as file:
        found: Any = own_array(file, "calibration_data")
        return np.asarray(found[()], np.complex64)


def _remarks(measured: NDArray[np.bool_], labels: Labels | None, slices: int) -> Iterator[str]:
    """Say what a person should know of the volume."""
    if _as_published(measured):
        yield "odd columns are the mean of averages 0 and 2, even ones are average 1"
    else:
        some = ", ".join(str(count) for count in measured.sum(axis=1))
        yield f"each column is the mean of the averages that measured it ({some} columns)"
    yield (
        "the target is made of the measured columns, not NYU's: motion between the averages is "
        "seen as ghosts, in k-space and in the target"
    )
    if labels is None:
        yield "no line of t2_slice_level_labels.csv lies beside it: split by person, no PI-RADS"
    elif len(labels.grades) != slices:
        yield f"PI-RADS left out: there are labels for {len(labels.grades)} of {slices} slices"


def _as_published(measured: NDArray[np.bool_]) -> bool:
    odd = np.arange(measured.shape[1]) % 2 == 1
    return np.array_equal(measured, [odd, ~odd, odd])


def _patient(name: str) -> int | None:
    """Return the patient's number in a file's name: 1 of file_prostate_AXT2_001.h5 and _0001.h5."""
    found = re.search(r"AXT2_0*(\d+)\.h5$", name, re.IGNORECASE)
    return int(found[1]) if found else None


def _labels_of(path: Path, patient: int | None) -> Labels | None:
    """Look for a patient's labels in the file's folder, and in the one above it."""
    for folder in list(path.absolute().parents)[:_FOLDERS]:
        for file in sorted(folder.glob("*.csv")):
            found = _read_labels(file, file.stat().st_mtime_ns)
            if patient in found:
                return found[patient]
    return None


@functools.lru_cache(maxsize=64)
def _read_labels(path: Path, changed: int) -> Mapping[int | None, Labels]:
    """Read labels of T2 scans by the patient's number; nothing of any other table."""
    splits, grades = defaultdict[int, set[str]](set), defaultdict[int, dict[int, int]](dict)
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.DictReader(lines)
            if not set(rows.fieldnames or ()) >= COLUMNS:
                return {}
            for row in rows:
                patient = _patient(row["fastmri_rawfile"] or "")
                if patient is not None:
                    splits[patient].add(row["data_split"] or "")
                    grades[patient][int(row["slice"])] = int(row["PIRADS"])
    except (OSError, ValueError, TypeError, csv.Error):
        return {}
    return {
        patient: Labels(
            split_of_folder(" ".join(splits[patient])),
            # Slices count from 1; with gaps nobody knows which grade is whose.
            tuple(found[n] for n in sorted(found))
            if found.keys() == set(range(1, len(found) + 1))
            else (),
        )
        for patient, found in grades.items()
    }
