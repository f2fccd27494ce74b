"""A volume's file with other bytes is described as h5py reads it or refused, soon."""

import io

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from workbench.data import confined
from workbench.data.confined import Confined
from workbench.data.describe import PARSERS, describe
from workbench.data.volume import UnusableVolumeError, check_volume
from workbench_demo.phantom.writing import write_volume

NAMES = ("contiguous", "chunked", "compressed")
STORAGE = ({}, {"chunks": (1, 1, 8, 8)}, {"compression": "gzip"})


class Content:
    """Bytes in memory, as a source."""

    def __init__(self, content):
        self.content, self.size = content, len(content)

    def read(self, offset, count):
        return self.content[offset : offset + count]


def _arrays(content, names):
    with h5py.File(io.BytesIO(content), "r") as file:
        return [file[name][()] for name in names]


READERS = Confined(_arrays)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    random = np.random.default_rng(0)
    kspace = (random.normal(size=(2, 2, 8, 8)) + 1j).astype(np.complex64)
    contents = []
    for name, storage in zip(NAMES, STORAGE, strict=True):
        path = write_volume(
            tmp_path_factory.mktemp("files") / f"{name}.h5",
            kspace=kspace,
            target=random.uniform(size=(2, 7, 7)).astype(np.float32),
            recon=(7, 7),
            acquisition="AXT2",
            patient_id="0123abcd",
            mask=np.arange(8) % 2 == 0,
            **storage,
        )
        contents.append(path.read_bytes())
    return contents


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(confined, "SECONDS", 1)
    yield
    PARSERS.close()
    READERS.close()


def described(content):
    try:
        volume = describe(Content(content), path="multicoil_train/file.h5", split="train")
    except UnusableVolumeError as error:
        assert 0 < len(str(error)) < 1000
        return
    check_volume(volume)
    layouts = {"kspace": volume.kspace}
    if volume.target_name:
        layouts[volume.target_name] = volume.target
    if all(layout.offset is None for layout in layouts.values()):
        return  # h5py reads the values
    read = READERS(content, tuple(layouts))
    for layout, expected in zip(layouts.values(), read, strict=True):
        assert expected.shape == layout.shape
        if layout.offset is not None:
            end = layout.offset + expected.nbytes
            found = np.frombuffer(content[layout.offset : end], layout.dtype)
            assert found.tobytes() == np.ascontiguousarray(expected, layout.dtype).tobytes()


KIND = st.sampled_from(range(len(NAMES)))
NUMBERS = st.sampled_from([0, 1, 8, 255, 2**16, 2**31, 10**12, 2**63, 2**64 - 1]) | st.integers(
    0, 2**14
)
EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=6,
)


@given(KIND, EDITS)
def test_changed_bytes(files, kind, edits):
    content = bytearray(files[kind])
    for share, change in edits:
        place = int(share * len(content))
        content[place : place + len(change)] = change
    described(bytes(content[: len(files[kind])]))


@given(KIND, st.floats(0, 1, exclude_max=True), NUMBERS)
@example(0, 0, 0)
def test_changed_number(files, kind, share, number):
    content = bytearray(files[kind])
    place = int(share * len(content)) // 8 * 8
    content[place : place + 8] = number.to_bytes(8, "little")
    described(bytes(content))


@given(KIND, st.floats(0, 1), st.floats(0, 1), st.binary(max_size=16))
def test_part_cut_out_or_put_in(files, kind, first, last, content):
    whole = files[kind]
    described(whole[: int(first * len(whole))] + content + whole[int(last * len(whole)) :])


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes(files, content, signed):
    described((files[0][:8] if signed else b"") + content)


def test_unchanged_files_are_described(files):
    for content in files:
        describe(Content(content), path="multicoil_train/file.h5", split="train")
