"""Where a line goes: the centre of k-space, the readout, what is missing around it."""

import numpy as np
from numpy.typing import NDArray

from workbench.convert.assemble import Readout, Volume
from workbench.convert.checks import check_image, check_kspace, off_middle, peaked
from workbench.convert.lines import Flag, Measurement, flagged
from workbench.convert.scan import RefusedError
from workbench.data.images import finite

_OVERSAMPLED = 1.2  # encoded samples of the readout / those of the image
_NOTHING = 3e-7  # of the strongest sample; rounding after an FFT has 1e-8, noise 1e-5 and more
_FEW_PARTITIONS = 8  # of fewer the strongest one tells nothing


def find_center(
    measurement: Measurement, table: NDArray[np.void], chosen: int | None
) -> tuple[tuple[int, int], tuple[str, ...]]:
    """Find the centre of k-space: what a person says, or the lines themselves, or the header.

    The lines come before the header because siemens_to_ismrmrd writes half the number of lines
    there, whatever the partial Fourier; the true line stands beside each line.

    Args:
        measurement: whose header is asked.
        table: its image lines.
        chosen: number of the central line, counted from the first one measured; None: find it.

    Returns:
        Its step_1 and step_2; remarks on where they come from.
    """
    found, remarks = [], []
    axes = (("line", "step_1", "center_line"), ("partition", "step_2", "center_partition"))
    for axis, (word, step, own) in enumerate(axes):
        steps, size = table[step].astype(int), measurement.encoded[1 + axis]
        if axis == 0 and chosen is not None:
            found.append(int(steps.min()) + chosen)
            continue
        said, itself = measurement.center[axis], np.unique(table[own])
        alone = int(itself[0]) if len(itself) == 1 and itself[0] >= 0 else None
        if alone is not None and not _fits(steps, alone, size):
            alone = None
        if alone is not None and said not in (None, alone):
            remarks.append(
                f"the centre is {word} {alone}, as the lines say; the header's {said} is wrong"
            )
        if alone is None and said is None:
            count = max(int(steps.max()), (measurement.last or 0) if axis == 0 else 0) + 1
            found.append(count // 2)
            if count > 1:
                remarks.append(f"the header names no central {word}: {count // 2} was assumed")
        else:
            found.append(int(said if alone is None else alone))  # type: ignore[arg-type]
    return (found[0], found[1]), tuple(remarks)


def _fits(steps: NDArray[np.int_], center: int, size: int) -> bool:
    first = size // 2 - center
    return first + int(steps.min()) >= 0 and first + int(steps.max()) < size


def placed(steps: NDArray[np.uint16], center: int, size: int, word: str) -> NDArray[np.uint16]:
    """Return where lines or partitions go on an encoded axis.

    Raises:
        RefusedError: some would go outside of it.
    """
    numbers = steps.astype(int)
    if not _fits(numbers, center, size):
        raise RefusedError(
            f"holds {word}s {numbers.min()} to {numbers.max()} with the centre at {center}, which "
            f"the encoded matrix of {size} cannot take: give the right center and matrix"
        )
    return (size // 2 - center + numbers).astype(np.uint16)


def kept_readout(table: NDArray[np.void], size: int, image: int) -> int:
    """Return the samples of the readout's matrix: ``size``, or ``image``, those of the image.

    The longer half of each echo reaches the edge of the encoded matrix. Where it reaches that of
    the image's own samples, whoever stored the lines had cut the oversampling, in image space, and
    left the header as it was. Padded to its matrix they would show the middle of the image alone.
    """
    lengths = table["samples"].astype(int) - table["discard_pre"] - table["discard_post"]
    before = table["center_sample"].astype(int) - table["discard_pre"]
    if not table["center_sample"].any():  # they name none
        before = lengths // 2
    after = lengths - before
    whole = 2 * max(int(before.max()), int(after.max()))
    return image if _OVERSAMPLED * image <= size and abs(whole - image) <= 2 else size


def find_readout(table: NDArray[np.void], size: int) -> Readout:
    """Place lines along a readout of so many samples: k-space's centre goes to ``size // 2``.

    Raises:
        RefusedError: the lines differ, or do not fit.
    """
    samples, pre, post, center = (
        table[name].astype(int)
        for name in ("samples", "discard_pre", "discard_post", "center_sample")
    )
    remarks = []
    turned = flagged(table, Flag.REVERSE)
    if (turned & (pre != post)).any():
        raise RefusedError("has reversed lines of which other samples are cut before than after")
    lengths = samples - pre - post
    length = int(lengths[0])
    if (lengths != length).any() or length < 1:
        raise RefusedError(
            f"has lines of {lengths.min()} to {lengths.max()} samples: only lines of equal length "
            "make a grid"
        )
    if not center.any() and length == size:
        center = pre + size // 2
        remarks.append("the lines name no central sample: the middle was assumed")
    offsets = size // 2 - (center - pre)
    offset = int(offsets[0])
    if (offsets != offset).any():
        raise RefusedError("has lines whose central sample differs")
    # A neighbour's convention for the middle of an odd number may put one sample outside.
    before, after = max(0, -offset), max(0, offset + length - size)
    if before + after > max(1, size // 64):
        raise RefusedError(
            f"has lines of {length} samples with the centre at {size // 2 - offset}, which the "
            f"encoded matrix of {size} cannot take: give the right matrix"
        )
    if before + after:
        remarks.append(f"samples of each line that lie outside the matrix: {before + after}")
    if turned.any():
        remarks.append(
            f"lines that ran backwards, and were turned round: {turned.sum()} of {len(turned)}"
        )
    starts = (pre + np.where(turned, after, before)).astype(np.uint16)
    return Readout(starts, length - before - after, offset + before, tuple(remarks))


def extent(columns: NDArray[np.bool_], left: int, last: int | None) -> tuple[int, int]:
    """Return the first and the last column that was to be measured, skipped ones included.

    Lines that are skipped regularly may begin or end with skipped ones: 0, 2 ... 62 are 0 to 63.

    Args:
        columns: which were measured, (phase encode,).
        left: column of line 0.
        last: the last line that was to be measured, if the header says.
    """
    measured = np.flatnonzero(columns)
    first, final = int(measured[0]), int(measured[-1])
    step = int(np.diff(measured).max(initial=1))
    if left < first < left + step:
        first = max(0, left)
    if last is not None and final < left + last < final + step:
        final = min(len(columns) - 1, left + last)
    return first, final


def partial(first: int, last: int, middle: int) -> float | None:
    """Return the share of partial Fourier of an axis measured from first to last; None: it is not.

    Half of an even number lies before the middle, and one less behind it. A side that is shorter
    by a tenth or less is no partial Fourier: centres are rarely exact.
    """
    before, after = max(0, middle - first), max(0, last - middle)
    before -= before > after
    short, long = sorted((before, after))
    return None if short >= 0.9 * long else (last - first + 1) / (2 * long + 1)


def off_partition(volume: Volume) -> int:
    """Return how far the strongest partition lies beside the middle; 0 for as little as it may.

    Headers name half of the partitions, whatever the partial Fourier; then all of those that were
    measured lie around what is no centre. In two dimensions it is 0.

    Raises:
        RefusedError: all are equally strong, as slices are that only count as partitions.
    """
    planes = np.unique(volume.partitions)
    if len(planes) < _FEW_PARTITIONS:
        return 0
    away = np.abs(volume.columns.astype(int) - volume.shape[3] // 2)
    power, chosen = np.zeros(volume.depth), np.flatnonzero(away == away.min())
    for line, values in volume.lines(chosen):
        with np.errstate(invalid="ignore", over="ignore"):
            power[volume.partitions[line]] += finite(np.sum(values.real**2 + values.imag**2))
    power /= np.maximum(np.bincount(volume.partitions[chosen], minlength=volume.depth), 1)
    if power.any() and not peaked(power[planes]):
        raise RefusedError(
            f"has {len(planes)} partitions that are equally strong, as slices are: those of a scan "
            "in two dimensions are numbered by idx.slice"
        )
    off = int(power.argmax()) - volume.depth // 2
    return off if abs(off) > max(1, volume.depth // 32) else 0


def refuse_zeros(kspace: NDArray[np.complex64], columns: NDArray[np.bool_], readout: slice) -> None:
    """Refuse a slice of which lines hold zeros alone, unless they are padding around the others.

    Nor may samples at the same place of all lines, as of a partial echo that was filled. What is
    next to nothing beside the strongest sample was zero before an FFT there and back.

    Args:
        kspace: of the slice, (coils, readout, phase encode).
        columns: those of which there are lines, (phase encode,).
        readout: samples that lines hold.

    Raises:
        RefusedError: zeros stand for what was not measured.
    """
    strength = np.zeros(kspace.shape[1:], np.float32)
    for coil in kspace:
        with np.errstate(over="ignore"):
            np.maximum(strength, np.abs(coil), out=strength)
    there = ~np.isfinite(strength) | (strength > _NOTHING * finite(strength).max())
    rows = np.zeros(len(there), bool)
    rows[readout] = True
    sides = ("lines", columns, there.any(0)), ("samples along the readout", rows, there.any(1))
    for word, stored, other in sides:
        lost, middle = stored & ~other, len(stored) // 2
        held, given = np.flatnonzero(other), np.flatnonzero(stored)
        inside = not len(held) or lost[held[0] : held[-1]].any()
        cut = inside or partial(held[0], held[-1], middle)
        if lost.any() and cut and (inside or not partial(given[0], given[-1], middle)):
            raise RefusedError(
                f"holds zeros, or next to nothing, in {lost.sum()} of a slice's {len(given)} "
                f"{word}, as if they had been measured: leave such out, or convert k-space as an "
                "array in which they are 0"
            )


def check_center(volume: Volume, center: int, *, chosen: bool) -> tuple[str, ...]:
    """Look whether a volume's middle is k-space with its centre where the lines were put.

    Args:
        volume: the lines.
        center: step_1 of the line that was put into the middle.
        chosen: whether a person said so.

    Returns:
        Remarks.

    Raises:
        RefusedError: it is no Cartesian k-space, or its strongest line is far from the middle and
            no person said that it is.
    """
    deep, height, width = volume.depth > 1, *volume.shape[2:]
    planes, middle = (volume.partitions, volume.depth) if deep else (volume.slices, volume.shape[0])
    lines = np.flatnonzero(planes == middle // 2)
    kspace = volume.plane(lines)
    with np.errstate(invalid="ignore", over="ignore"):  # the writer refuses such values
        power = finite(np.sum(kspace.real**2 + kspace.imag**2, axis=0)).astype(float)
    if not power.any():
        raise RefusedError("holds zeros alone in the middle of its slices")
    columns = np.bincount(volume.columns[lines], minlength=width) > 0
    refuse_zeros(kspace, columns, volume.readout.span)
    row, column = check_kspace(power)
    remarks, off = [], column - width // 2
    line = center + off
    if abs(off) > off_middle(width) and not chosen:
        first = int(volume.columns.min()) - width // 2 + center
        raise RefusedError(
            f"has its strongest line at {line}, and its centre is said to be line {center}: if "
            f"that is wrong, give center={line - first}; if it is right, center={center - first}"
        )
    if abs(off) > 1:
        remarks.append(f"the strongest line is {line}, beside the centre, which is {center}")
    if abs(row - height // 2) > off_middle(height):
        remarks.append(f"the strongest sample is {row} of the readout, not {height // 2}")
    return (*remarks, *check_image(kspace))  # of a middle partition it is a projection
