"""What makes a dataset's figures doubtful, as a look into few of its files shows."""

from contextlib import closing

import numpy as np

from workbench.data.cache import DatasetCache
from workbench.data.reading import middle_lines, read_slice
from workbench.data.volume import Volume


def zeros_sampled(part: DatasetCache, volume: Volume) -> tuple[int, int]:
    """Return how many columns that count as sampled hold zeros alone, and how many count so.

    Those count that the file's own mask samples, without one those that the header calls acquired.
    It is seen in the middle slice; OSError where that cannot be read.
    """
    own = volume.own_mask
    sampled = slice(*volume.acquired) if own is None else own

    def zeros(lines: np.ndarray) -> np.ndarray:
        return np.logical_not(lines.reshape(-1, volume.matrix[1])[:, sampled].any(axis=0))

    with closing(part.source(volume)) as source:
        found = zeros(middle_lines(source, volume, volume.slices // 2))
        if found.any():  # in some lines of a coil
            found = zeros(read_slice(source, "kspace", volume.kspace, volume.slices // 2))
    return int(found.sum()), len(found)


def also_in(part: DatasetCache, other: DatasetCache) -> list[Volume]:
    """Return the volumes of a part whose scan another part holds too, under any name.

    They are told by the files' attributes, such as the target's largest value, without which the
    name counts too, and for certain by the k-space; OSError where that cannot be read.
    """

    def look(volume: Volume) -> tuple[object, ...]:
        name = "" if volume.target else volume.name
        return name, volume.kspace.shape, repr(sorted(volume.attributes.items()))

    alike = {look(volume) for volume in part} & {look(volume) for volume in other}
    there = {part.fingerprint(volume) for volume in other if look(volume) in alike}
    return [
        volume for volume in part if look(volume) in alike and part.fingerprint(volume) in there
    ]
