"""What each line is by its flags, and which lines make a volume: by counters and place in space."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from workbench.convert.lines import NO_IMAGE, Flag, Measurement, flagged
from workbench.convert.scan import RefusedError
from workbench.data.images import finite

_VOLUMES = {"contrast": "echo", "phase": "phase", "repetition": "repetition", "set": "set"}
"""Counters of which each value is a volume, and what it is called in a scan's name."""
_COUNTERS = ("step_1", "step_2", "average", "slice", *_VOLUMES, "segment")
_SAME_DIRECTION = 0.9998  # cosine of a bit more than a degree
_SAME_PLACE_MM = 0.01
_SAME_READOUT = 0.94  # cosine of 20 degrees: heads turn by less, blades by more


def sort_lines(
    measurement: Measurement,
) -> tuple[NDArray[np.int32], NDArray[np.int32], tuple[str, ...]]:
    """Part a measurement's lines into those of the image and those of separate calibration.

    Returns:
        Numbers of rows of either, ascending, and remarks.

    Raises:
        RefusedError: none is of an image.
    """
    table, remarks = measurement.lines.table, []
    usable = ~flagged(table, *NO_IMAGE)
    both = flagged(table, Flag.CALIBRATION_AND_IMAGING) & usable
    alone = flagged(table, Flag.CALIBRATION) & usable & ~both
    # No line of a separate calibration belongs to the image as well.
    separate = measurement.calibration in ("separate", "external")
    embedded = measurement.calibration == "embedded" or (bool(both.any()) and not separate)
    image = usable & ~alone
    if embedded:  # what another encoding space describes lies on another grid
        spaces = np.unique(table["encoding_space"][image])
        image = usable & (np.isin(table["encoding_space"], spaces) | (not len(spaces)))
        apart = alone & image
        if _coincide(table, apart, image & ~alone):
            image &= ~alone
            remarks.append(
                f"calibration lines at the places of the image's, so none of them: {apart.sum()}"
            )
    if not image.any():
        held = f"{len(table)} lines, none of which is" if len(table) else "no lines"
        raise RefusedError(f"holds {held} of an image")
    if inside := int((image & alone).sum()):
        remarks.append(f"calibration lines in k-space: {inside}")
    right = _right_channels(measurement, table["channels"], image)
    if other := int((image & ~right).sum()):
        count = int(table["channels"][image & right][0])
        remarks.append(f"lines left out, for they are not of {count} coils: {other}")
    noise = flagged(table, Flag.NOISE)
    if noise.any():
        remarks.append(f"noise lines, no part of k-space: {noise.sum()}")
    if rest := int((~usable & ~noise).sum()):
        remarks.append(f"lines of navigators, feedback and the like, left out: {rest}")
    calibration = alone & right & ~image
    image_rows, beside = (np.flatnonzero(each & right) for each in (image, calibration))
    return image_rows.astype(np.int32), beside.astype(np.int32), tuple(remarks)


def _coincide(table: NDArray[np.void], some: NDArray[np.bool_], others: NDArray[np.bool_]) -> bool:
    """Say whether one of some lines has all of its counters in common with one of the others.

    Embedded calibration lines are those that the image's lack; what was measured beside them is a
    scan of its own, of other contrast, whatever the header says.
    """
    if not some.any():
        return False
    keys = [
        np.column_stack([*(table[name][chosen] for name in _COUNTERS), table["user"][chosen]])
        for chosen in (some, others)
    ]
    places = [np.unique(each, axis=0) for each in keys]
    together = np.concatenate(places)
    return len(np.unique(together, axis=0)) < len(together)


def _right_channels(
    measurement: Measurement, channels: NDArray[np.uint16], image: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Say which lines have as many coils as the header says, or else as most image lines."""
    counts = np.bincount(channels[image])
    said = measurement.channels
    count = said if said and said < len(counts) and counts[said] else int(counts.argmax())
    return np.asarray(channels == count)


@dataclass(frozen=True)
class Group:
    """Lines of one volume.

    Attributes:
        name: what tells it from the measurement's other volumes; "" where it is alone.
        rows: its image lines.
        calibration: its separate calibration lines.
        slices: counters of its slices, in the order of space.
        remarks: of that order.
    """

    name: str
    rows: NDArray[np.int32]
    calibration: NDArray[np.int32]
    slices: NDArray[np.uint16]
    remarks: tuple[str, ...]


def find_groups(
    measurement: Measurement, rows: NDArray[np.int32], calibration: NDArray[np.int32]
) -> Iterator[Group]:
    """Part lines of the image into volumes: by counters, by directions of slices, by slabs.

    Raises:
        RefusedError: slices of one volume lie in the same place, or one in several.
    """
    table, names = measurement.lines.table, list(_VOLUMES)
    keys = np.stack([table[name] for name in names], 1)
    image, beside = keys[rows], keys[calibration]
    several = [name for name, values in zip(names, image.T, strict=True) if np.ptp(values)]
    for key in np.unique(image, axis=0):
        said = dict(zip(names, key, strict=True))
        name = "_".join(f"{_VOLUMES[each]}{int(said[each]) + 1}" for each in several)
        same = (beside == key).all(1)
        if len(beside) and not same.any():  # one calibration serves all
            same = (beside == beside[0]).all(1)
        for group in _parted(measurement, rows[(image == key).all(1)], calibration[same]):
            yield replace(group, name="_".join(filter(None, (name, group.name))))


def _parted(
    measurement: Measurement, rows: NDArray[np.int32], calibration: NDArray[np.int32]
) -> Iterator[Group]:
    """Part the lines of one set of counters into stacks, or into slabs in three dimensions."""
    table, deep = measurement.lines.table, measurement.encoded[2] > 1
    _refuse_moving(table[rows], measurement.encoded_mm[2])
    stacks = _stacks(table[rows])
    if deep:
        stacks = [(slices[at : at + 1], ()) for slices, _ in stacks for at in range(len(slices))]
    for number, (slices, remarks) in enumerate(stacks, 1):
        name = f"{'slab' if deep else 'stack'}{number}" if len(stacks) > 1 else ""
        inside, beside = (
            each[np.isin(table["slice"][each], slices)] for each in (rows, calibration)
        )
        yield Group(name, inside, beside, slices, remarks)


def _refuse_moving(table: NDArray[np.void], thickness: float) -> None:
    """Refuse lines of several places or directions under one slice's number: their mean is nothing.

    Scanners that follow a moving head shift them by less than half of the slice, or slab (mm).
    """
    positions = finite(table["position"].astype(float))
    readouts = finite(table["read_dir"].astype(float))
    lengths = np.linalg.norm(readouts, axis=1)
    readouts = np.divide(readouts, lengths[:, None], where=lengths[:, None] > 0, out=readouts)
    for number in np.unique(table["slice"]):
        apart = float(np.linalg.norm(np.ptp(positions[table["slice"] == number], axis=0)))
        if apart > (thickness or 1.0) / 2:
            raise RefusedError(
                f"has lines of slice {number} that lie up to {apart:.3g} mm apart: several slices "
                "under one number, which would be averaged; number them anew"
            )
        along = readouts[(table["slice"] == number) & (lengths > 0)]
        if len(along) and np.abs(along @ along[0]).min() < _SAME_READOUT:
            raise RefusedError(
                f"has lines of slice {number} that run in several directions, as blades and spokes "
                "do: bring them to a Cartesian grid first"
            )


def _stacks(table: NDArray[np.void]) -> list[tuple[NDArray[np.uint16], tuple[str, ...]]]:
    """Part the slices of image lines into stacks of one direction each.

    Returns:
        Of each stack the counters of its slices in the order of space, and remarks.
    """
    counters, first = np.unique(table["slice"], return_index=True)
    directions = finite(table["slice_dir"][first].astype(float))
    positions = finite(table["position"][first].astype(float))
    stacks: list[list[int]] = []
    for number, direction in enumerate(directions):
        for stack in stacks:
            of_stack = directions[stack[0]]
            if direction @ of_stack >= _SAME_DIRECTION or not (direction.any() or of_stack.any()):
                stack.append(number)
                break
        else:
            stacks.append([number])
    found = []
    for stack in stacks:
        order, remarks = _in_space(positions[stack], directions[stack[0]])
        found.append((counters[stack][order], remarks))
    return found


def _in_space(
    positions: NDArray[np.float64], direction: NDArray[np.float64]
) -> tuple[NDArray[np.intp], tuple[str, ...]]:
    """Return the order of slices along their common direction."""
    count = len(positions)
    if count > 1 and not (direction.any() and positions.any()):
        said = f"the {count} slices have no positions: they stand in the order of their counter"
        return np.arange(count), (said,)
    places = positions @ direction
    order = np.argsort(places, kind="stable")
    if count > 1 and np.diff(places[order]).min() < _SAME_PLACE_MM:
        raise RefusedError(
            f"has slices at one place of {count}: several stacks, or one slice many times; part "
            "them into files of their own"
        )
    return order, ()
