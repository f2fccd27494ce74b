"""Whatever stands in dataset_cache.json is a cache whose every slice can be read, or is refused."""

import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.data.cache import build_cache
from workbench.data.cache_file import CacheFileError, parse_cache
from workbench.data.volume import check_volume
from workbench_demo.phantom.writing import write_volume

ODD = st.sampled_from(
    [
        *(None, True, False, "", "x", [], {}, [[]], -1, 0, 1, 2.0, 0.5, 10**12, 2**63, 10**400),
        *(
            float("nan"),
            float("inf"),
            "|O",
            "|V8",
            "<M8",
            ">c16",
            "../x.h5",
            "/etc/x.h5",
            "a//b.h5",
        ),
        *("a\nb.h5", "multicoil_train/file1.h5", [0] * 4, [10**12, 2, 8, 8], [2, 2, 8, 10**400]),
    ]
)
VALUES = ODD | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    root = tmp_path_factory.mktemp("brain")
    kspace = np.ones((2, 2, 8, 8), np.complex64)
    for number in range(2):
        write_volume(
            root / f"multicoil_train/file{number}.h5",
            kspace=kspace,
            target=np.ones((2, 7, 7), np.float32),
            recon=(7, 7),
            acquisition="AXT2",
            patient_id="0",
            mask=np.arange(8) % 2 == 0,
            attributes={"sizes": np.arange(3)},
        )
    (root / "multicoil_train/empty.h5").touch()
    build_cache(root)
    return (root / "dataset_cache.json").read_text()


def places(value, here=()):
    """Yield where values stand in a document."""
    yield here
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        if isinstance(inner, dict | list):
            yield from places(inner, (*here, name))
        else:
            yield (*here, name)


def read(content):
    for earlier in (False, True):
        try:
            volumes, problems = parse_cache(content, "FILE", earlier=earlier)
        except CacheFileError as error:
            assert str(error).startswith("FILE")
            assert len(str(error)) < 1000
            continue
        for volume in volumes:
            check_volume(volume)
            hash(volume.path)
            assert ".." not in volume.path.split("/")
            assert volume.path[0] != "/"
            assert (volume.path + volume.acquisition).encode()
            assert volume.own_mask is None or volume.own_mask.shape == volume.matrix[1:]
            assert volume.largest >= 0
        for problem in problems:
            (problem.path + problem.reason).encode()
        json.dumps([volume.attributes for volume in volumes], allow_nan=False)


@given(st.data(), VALUES)
def test_another_value_anywhere(document, data, value):
    changed = json.loads(document)
    *way, last = data.draw(st.sampled_from([place for place in places(changed) if place]))
    inside = changed
    for name in way:
        inside = inside[name]
    if data.draw(st.integers(0, 9)) == 0:
        del inside[last]
    else:
        inside[last] = value
    read(json.dumps(changed).encode())


@given(st.floats(0, 1), st.integers(0, 4), st.binary(max_size=6))
@example(0.5, 0, b"[" * 100_000)
@example(0.0, 0, b'{"a":' * 100_000)
@example(0.5, 0, b"9" * 10_000)
def test_other_bytes(document, share, length, content):
    whole = document.encode()
    place = int(share * len(whole))
    read(whole[:place] + content + whole[place + length :])


@given(st.binary(max_size=100))
def test_any_bytes(content):
    read(content)
