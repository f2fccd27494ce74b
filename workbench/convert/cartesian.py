"""Scans of the lines of a Cartesian measurement, in two or three dimensions.

``sorting`` says what each line is and which make a volume, ``place`` where each goes,
``assemble`` reads them.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbench.convert.assemble import Volume
from workbench.convert.checks import check_recon, told_of_columns
from workbench.convert.header import Header
from workbench.convert.lines import Flag, Measurement, flagged
from workbench.convert.noise import Whitening, find_whitening
from workbench.convert.place import (
    check_center,
    extent,
    find_center,
    find_readout,
    kept_readout,
    off_partition,
    partial,
    placed,
    refuse_zeros,
)
from workbench.convert.scan import Choices, RefusedError, Scan
from workbench.convert.sorting import Group, find_groups, sort_lines

_MOST_SAMPLES = 2**29  # of a slice, 4 GB: what the workbench reads
_ECHO_TIMES = "sequenceParameters/TE"


@dataclass(frozen=True)
class _Shared:
    """What all volumes of a measurement share."""

    measurement: Measurement
    center: tuple[int, int]  # step_1 and step_2 of k-space's
    chosen: bool  # whether a person said so
    whitening: Whitening | None


def scans_of_lines(measurement: Measurement, choices: Choices) -> list[Scan]:
    """Make volumes of a measurement's lines, one for each contrast, phase, repetition and set.

    Raises:
        RefusedError: none of its lines can become a volume; the message says why of the first. Of
            several volumes those that can are made, and remark on those that cannot.
    """
    _refuse(measurement)
    image, calibration, sorting = sort_lines(measurement)
    table = measurement.lines.table[image]
    measurement = _with_matrix(measurement, table, choices)
    center, of_center = find_center(measurement, table, choices.center)
    channels = int(table["channels"][0])
    noise = find_whitening(measurement, channels) if choices.whiten else None
    shared = _Shared(measurement, center, choices.center is not None, noise)
    scans: list[Scan] = []
    refused = {}
    for group in find_groups(measurement, image, calibration):
        try:
            scans.append(_scan(shared, group, check=not scans))
        except RefusedError as error:
            refused[group.name] = str(error)
    if not scans:
        raise RefusedError(next(iter(refused.values())))
    left_out = [f"{name} is left out: it {reason}" for name, reason in refused.items()]
    remarks = (*measurement.remarks, *sorting, *of_center, *left_out)
    return [replace(scan, remarks=(*remarks, *scan.remarks)) for scan in scans]


def _refuse(measurement: Measurement) -> None:
    """Refuse what lies on no grid: by the header's label, and by what the lines are."""
    label = measurement.trajectory.lower()
    if label not in ("cartesian", "epi"):
        raise RefusedError(
            f"has a trajectory that its header calls {label[:40]!r}, not Cartesian: bring it to a "
            "grid first, with a non-uniform FFT such as BART's nufft"
        )
    table = measurement.lines.table
    corrections = int(flagged(table, Flag.PHASE_CORRECTION).sum())
    if label == "epi" or corrections:
        reversed_ = flagged(table, Flag.REVERSE).any()
        kind = "is an EPI" if label == "epi" or reversed_ else "is an EPI or a train of spin echoes"
        why = f"it holds {corrections} phase-correction lines" if corrections else "its header says"
        raise RefusedError(
            f"{kind} ({why}): correct its lines' phase and bring them to a Cartesian grid first"
        )


def _with_matrix(
    measurement: Measurement, table: NDArray[np.void], choices: Choices
) -> Measurement:
    """Give a measurement the matrix that a person says, and one partition where one was measured.

    Some headers count the slices of two-dimensional scans as partitions.
    """
    (x, y), z = choices.matrix or measurement.encoded[:2], measurement.encoded[2]
    only, (line, partition) = np.unique(table["step_2"]), measurement.center
    remarks, mm, recon_mm = measurement.remarks, measurement.encoded_mm, measurement.recon_mm
    image = _inside(measurement, (x, y, z))[0] if mm[0] and recon_mm[0] else measurement.recon[0]
    if not choices.matrix and (kept := kept_readout(table, x, image)) < x:
        remarks += (f"{kept} samples were kept of the header's readout of {x}, oversampled",)
        mm, x = (mm[0] * kept / x, *mm[1:]), kept
        measurement = replace(measurement, encoded_mm=mm)
    *inside, recon_z = _without_interpolation(measurement, (x, y, z))
    recon = choices.recon or (inside[0], inside[1])
    check_recon(recon, (x, y))
    if not choices.recon and recon != measurement.recon[:2]:
        said = "x".join(map(str, measurement.recon[:2]))
        remarks += (
            f"the header's image of {said} is interpolated: {recon[0]}x{recon[1]} samples were "
            "measured of its field of view",
        )
    whole = _inside(measurement, (x, y, z))[:2]
    sides = zip(whole, recon, mm[:2], recon_mm[:2], strict=True)
    less = any(most > size + 1 and all(known) for most, size, *known in sides)
    if less and not choices.recon:
        remarks += (
            f"the image of {recon[0]}x{recon[1]} is the middle of what the header calls its field "
            f"of view, {whole[0]}x{whole[1]} samples: give recon where that is too little",
        )
    if choices.recon:
        recon_mm = (mm[0] * recon[0] / x, mm[1] * recon[1] / y, recon_mm[2])
    else:  # no image is larger than what was encoded
        most = [size or math.inf for size in mm]
        recon_mm = (min(recon_mm[0], most[0]), min(recon_mm[1], most[1]), recon_mm[2])
    if len(only) == 1:
        if z > 1:
            remarks += (f"the header names {z} partitions, and one was measured: taken as slices",)
        thickness = recon_mm[2] / measurement.recon[2]
        mm, recon_mm = (*mm[:2], mm[2] / z), (*recon_mm[:2], thickness)
        partition, z, recon_z = int(only[0]), 1, 1
    return replace(
        measurement,
        encoded=(x, y, z),
        recon=(*recon, recon_z),
        center=(line, partition),
        encoded_mm=mm,
        recon_mm=recon_mm,
        remarks=remarks,
    )


def _without_interpolation(measurement: Measurement, matrix: tuple[int, int, int]) -> list[int]:
    """Return the image's matrix with no more samples than the encoded one has of its field of view.

    Scanners interpolate images. Cropped to the larger matrix they would show what lies beside the
    field of view; or, where k-space has fewer columns, lack some of it along the readout.
    """
    sizes = zip(matrix, measurement.recon, _inside(measurement, matrix), strict=True)
    # A neighbour is rounding.
    return [min(size, most if image > most + 1 else image) for size, image, most in sizes]


def _inside(measurement: Measurement, matrix: tuple[int, int, int]) -> list[int]:
    """Return how many samples of the encoded matrix lie in the image's field of view."""
    sizes = zip(matrix, measurement.encoded_mm, measurement.recon_mm, strict=True)
    return [
        min(size, round(size * image / mm)) if mm and image else size for size, mm, image in sizes
    ]


def _scan(shared: _Shared, group: Group, *, check: bool) -> Scan:
    """Make the scan of one volume's lines."""
    measurement, center = shared.measurement, shared.center[0]
    width, table = measurement.encoded[1], measurement.lines.table[group.rows]
    volume = _volume(shared, group.rows, group.slices, width, center)
    repeats = _repeats(table, volume)
    columns = np.zeros(width, bool)
    columns[volume.columns] = True
    left = width // 2 - center
    first, last = extent(columns, left, measurement.last)
    gaps = not columns[first : last + 1].all()
    off = off_partition(volume)
    shares = _shares(volume, first, last, off)
    remarks = [*group.remarks, *volume.readout.remarks]
    if off:
        places = f"{shared.center[1] + off}, beside the centre, {shared.center[1]}"
        remarks.append(f"the strongest partition is {places}")
    if measurement.last is not None and last - left < measurement.last:
        remarks.append(f"lines end at {last - left}, before the header's {measurement.last}")
    remarks += told_of_columns(columns, first, last)
    if shared.whitening:
        remarks.append(f"noise lines that whitened the coils: {shared.whitening.count}")
    remarks += check_center(volume, center, chosen=shared.chosen) if check else ()
    remarks += [f"lines of one place that were averaged: up to {repeats}"] if repeats > 1 else []
    remarks += [f"{name} of {share:g}: it is no target" for name, share in shares.items()]
    calibration, said = _calibration(shared, group, volume.readout.length)
    mixed = volume.reversed.any() and not volume.reversed.all()
    if mixed:
        remarks.append(
            "lines ran both ways, as in an EPI, and may differ in phase: it is no target"
        )
    extra = {**shares, "averages": repeats, "whitened": shared.whitening is not None}

    def read(numbers: Iterable[int]) -> Iterator[NDArray[np.complex64]]:
        for values in volume.kspace(numbers):
            refuse_zeros(values, columns, volume.readout.span)
            yield values

    return Scan(
        shape=volume.shape,
        read=read,
        header=_header(
            replace(measurement, known=_known(measurement, int(table["contrast"][0]))),
            volume,
            last - first + 1,
            width // 2 - first,
        ),
        name=group.name,
        sampled=columns if gaps else None,
        target=not (gaps or shares or mixed),
        acquisition=measurement.acquisition,
        person=measurement.person,
        calibration=calibration,
        attributes=extra,
        remarks=(*remarks, *said),
    )


def _volume(
    shared: _Shared,
    rows: NDArray[np.int32],
    slices: NDArray[np.uint16],
    width: int,
    center: int,
) -> Volume:
    """Give each line its place.

    Args:
        shared: what all volumes share.
        rows: the lines.
        slices: counters of the slices in the order of space.
        width: phase-encode columns of the volume.
        center: step_1 of the line that goes to the middle of them.
    """
    measurement = shared.measurement
    table, depth = measurement.lines.table[rows], measurement.encoded[2]
    order = np.argsort(slices)
    places = order[np.searchsorted(slices, table["slice"], sorter=order)]
    partitions = placed(table["step_2"], shared.center[1], depth, "partition")
    turning = zip(("step_1", "step_2"), measurement.alternating, strict=True)
    odd = [(table[step] % 2).astype(bool) & turn for step, turn in turning]
    volume = Volume(
        read=measurement.lines.read,
        rows=rows,
        slices=places.astype(np.uint16),
        columns=placed(table["step_1"], center, width, "line"),
        partitions=partitions,
        readout=find_readout(table, measurement.encoded[0]),
        reversed=flagged(table, Flag.REVERSE),
        signs=np.where(odd[0] ^ odd[1], -1, 1).astype(np.int8),
        shape=(
            len(slices) if depth == 1 else measurement.recon[2],
            int(table["channels"][0]),
            measurement.encoded[0],
            width,
        ),
        depth=depth,
        whitening=shared.whitening.at(float(table["dwell"][0])) if shared.whitening else None,
    )
    if math.prod(volume.shape[1:]) > _MOST_SAMPLES:
        sides = "x".join(map(str, measurement.encoded[:2]))
        raise RefusedError(f"has an encoded matrix of {sides}, too large for a slice")
    _refuse_uneven(volume)
    return volume


def _refuse_uneven(volume: Volume) -> None:
    """Refuse a volume of which not every slice, or every partition, has the same lines."""
    deep = volume.depth > 1
    planes = volume.partitions if deep else volume.slices
    held = np.zeros((int(planes.max()) + 1, volume.shape[3]), bool)
    held[planes, volume.columns] = True
    measured = np.flatnonzero(held.any(1))
    if len(measured) <= int(planes.max()) - int(planes.min()):
        raise RefusedError(
            f"skips some of its {'partitions' if deep else 'slices'}: data that is undersampled "
            "across them has no place in a two-dimensional volume"
        )
    counts = held[measured].sum(1)
    if (held[measured] != held[measured[0]]).any():
        word = "partition" if deep else "slice"
        why = "undersampled in two directions" if deep else "perhaps cut short"
        raise RefusedError(
            f"has other lines in one {word} than in another, {counts.min()} to {counts.max()} of "
            f"{held.any(0).sum()} ({why}): a volume has one mask for all"
        )


def _repeats(table: NDArray[np.void], volume: Volume) -> int:
    """Return how many lines came for one place, at most.

    Raises:
        RefusedError: they differ by a counter whose meaning nobody knows, and do not mix.
    """
    places = np.stack([volume.slices, volume.columns, volume.partitions], 1).astype(np.int32)
    _, inverse, counts = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    user = table["user"]
    if counts.max() > 1 and np.ptp(user, axis=0).any():
        first = np.zeros((len(counts), user.shape[1]), user.dtype)
        first[inverse.ravel()] = user
        if (first[inverse.ravel()] != user).any():
            raise RefusedError(
                "has lines of one place that differ by a counter of the user's own: part them into "
                "files, one for each value"
            )
    return int(counts.max())


def _shares(volume: Volume, first: int, last: int, off: int) -> dict[str, float]:
    """Return the shares of partial Fourier and of a partial echo, where there are any.

    The strongest partition lies ``off`` beside the middle.
    """
    span, middle = volume.readout.span, volume.shape[2] // 2
    found = {
        "partial_fourier": partial(first, last, volume.shape[3] // 2),
        "partial_echo": partial(span.start, span.stop - 1, middle),
    }
    if volume.depth > 1:
        ends = int(volume.partitions.min()), int(volume.partitions.max())
        found["partial_fourier_z"] = partial(*ends, volume.depth // 2 + off)
    return {name: round(share, 3) for name, share in found.items() if share is not None}


def _calibration(
    shared: _Shared, group: Group, length: int
) -> tuple[Callable[[], NDArray[np.complex64]] | None, tuple[str, ...]]:
    """Return what reads separate calibration lines, (slices, coils, readout, lines); remarks.

    Lines of the image are of so many samples (``length``).
    """
    rows = group.calibration
    if not len(rows):
        return None, ()
    table = shared.measurement.lines.table[rows]
    count, first = len(rows), int(table["step_1"].min())
    width = int(table["step_1"].max()) - first + 1
    try:
        if shared.measurement.encoded[2] > 1 or set(table["slice"]) != set(group.slices):
            raise RefusedError("is not of the same slices")
        image = shared.measurement.lines.table["encoding_space"][group.rows]
        if not np.isin(table["encoding_space"], image).all():
            raise RefusedError("is of another encoding space")
        volume = _volume(shared, rows, group.slices, width, first + width // 2)
        if volume.readout.length != length or table["step_2"].any():
            raise RefusedError("is of another resolution")
    except RefusedError as error:
        return None, (f"calibration lines left out: {count}; the calibration {error}",)

    def read() -> NDArray[np.complex64]:
        return np.stack(list(volume.kspace(range(volume.shape[0]))))

    return read, (f"calibration lines apart, as calibration_data: {count}",)


def _header(measurement: Measurement, volume: Volume, lines: int, center: int) -> Header:
    """Say of the volume what its two-dimensional slices are."""
    encoded, recon = measurement.encoded_mm, measurement.recon_mm
    thickness = recon[2] / max(1, measurement.recon[2])
    if volume.depth > 1 and encoded[2]:
        thickness = encoded[2] / volume.depth
    return Header(
        encoded=(*measurement.encoded[:2], 1),
        recon=(*measurement.recon[:2], 1),
        lines=lines,
        center=center,
        encoded_mm=(*encoded[:2], encoded[2] / volume.depth),
        recon_mm=(*recon[:2], thickness),
        known=measurement.known,
    )


def _known(measurement: Measurement, contrast: int) -> dict[str, tuple[str, ...]]:
    """Return what else a header says of one contrast: of several echo times its own."""
    known = dict(measurement.known)
    if len(times := known.get(_ECHO_TIMES, ())) > 1:
        known[_ECHO_TIMES] = times[contrast : contrast + 1]
    return known
