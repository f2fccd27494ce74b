"""Damaged volume files: indexing ends, and what it takes reads as h5py reads it."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.phantom.writing import write_volume
from workbench.dataset.cache import build_cache
from workbench.dataset.confined import Confined, ConfinedError
from workbench.dataset.reading import read_slice


def bytes_of_a_volume(**how):
    """Return a small volume's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_volume(
            Path(folder, "file1.h5"),
            kspace=np.ones((2, 2, 16, 14), np.complex64),
            target=np.ones((2, 10, 10), np.float32),
            acquisition="AXT2",
            patient_id="1",
            **how,
        )
        return path.read_bytes()


FILES = (bytes_of_a_volume(), bytes_of_a_volume(chunks=True, compression="gzip"))
# Most of a file is numbers: damage is worth more at its head and tail.
PLACES = st.integers(0, 2**12) | st.integers(-(2**12), -1) | st.integers(0, 2**16)
DAMAGE = st.tuples(PLACES, st.binary(min_size=1, max_size=8))
DAMAGED = st.tuples(
    st.sampled_from(FILES), st.lists(DAMAGE, min_size=1, max_size=4), st.none() | PLACES
)


def damaged(content, changes, end):
    """Overwrite bytes at some places, and cut the file."""
    changed = bytearray(content)
    for place, new in changes:
        start = place % len(changed)
        changed[start : start + len(new)] = new
    return bytes(changed if end is None else changed[: end % len(changed)])


def stored(path, name, slices):
    """Return an array as h5py reads it."""
    with h5py.File(path) as file:
        return np.stack([np.asarray(file[name][number]) for number in range(slices)])


@settings(max_examples=max(5, settings().max_examples // 20))
@given(st.lists(DAMAGED, min_size=20, max_size=20))
def test_volume_is_indexed_as_h5py_reads_it_or_refused(files):
    confined = Confined(stored)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "multicoil_val").mkdir()
        for number, file in enumerate(files):
            (root / f"multicoil_val/file{number:02d}.h5").write_bytes(damaged(*file))
        cache = build_cache(root)
        assert len(cache.volumes) + len(cache.problems) == len(files)
        for volume in cache:
            path = root / volume.path
            try:
                expected = confined(path, "kspace", volume.slices)
            except (ConfinedError, OSError, ValueError, KeyError):
                continue  # a damaged chunk of numbers, which reading refuses too
            for number in range(volume.slices):
                found = read_slice(path, "kspace", volume.kspace, number)
                assert found.tobytes() == expected[number].astype(np.complex64).tobytes()
    confined.close()
