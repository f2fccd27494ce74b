"""Whatever lies at dataset_cache.json is read as volumes that can be read, or refused."""

import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from demo.phantom.writing import write_volume
from workbench.dataset.cache import CACHE_NAME, build_cache
from workbench.dataset.cache_file import CacheFileError, read_cache_file
from workbench.dataset.volume import KSPACE_TYPES, TARGET_TYPES

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
) | st.sampled_from(["|O", "<c8", -1, 2**40, 10**30, "../../etc/passwd", "test", [2, 3, 20, 14]])


def cache_of_one_volume():
    """Return the cache's document, as indexing one volume writes it."""
    with tempfile.TemporaryDirectory() as folder:
        write_volume(
            Path(folder, "multicoil_val/file1.h5"),
            kspace=np.ones((2, 3, 20, 14), np.complex64),
            target=np.ones((2, 10, 10), np.float32),
            acquisition="AXT2",
            patient_id="1",
            mask=np.arange(14) % 2 == 0,
        )
        build_cache(folder)
        return json.loads(Path(folder, CACHE_NAME).read_text())


DOCUMENT = cache_of_one_volume()


def places(value, path=()):
    """Yield the path to each value of a document."""
    yield path
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(each, (*path, key))


@given(st.lists(st.tuples(st.sampled_from(list(places(DOCUMENT))[1:]), VALUES), max_size=3))
def test_document_becomes_readable_volumes_or_a_refusal(changes):
    document = json.loads(json.dumps(DOCUMENT))
    for path, value in changes:
        inner = document
        try:
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took its place away
    assert_sound(json.dumps(document).encode())


@given(st.binary(max_size=200))
def test_bytes_become_nothing(content):
    assert_sound(content)


def assert_sound(content):
    """Read a cache file; whatever is believed of it can be read from a file of that size."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, CACHE_NAME)
        path.write_bytes(content)
        try:
            volumes, _ = read_cache_file(path)
        except CacheFileError:
            return
    for volume in volumes:
        assert not Path(volume.path).is_absolute()
        assert ".." not in Path(volume.path).parts
        for layout, types in ((volume.kspace, KSPACE_TYPES), (volume.target, TARGET_TYPES)):
            if layout is None:
                continue
            assert layout.dtype in types
            assert all(type(length) is int and length > 0 for length in layout.shape)
            if layout.offset is not None:
                values = np.prod(layout.shape, dtype=object) * np.dtype(layout.dtype).itemsize
                assert 0 <= layout.offset <= volume.size - values
