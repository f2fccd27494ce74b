"""One slice of an array: from a file or from far away, with and without the kernels."""

import concurrent.futures
import mmap
import multiprocessing
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest

from tests.data.far import Far
from workbench.data import reading
from workbench.data.reading import read_slice
from workbench.data.volume import KSPACE_TYPES, TARGET_TYPES, ArrayLayout
from workbench_kernels import rows

SHAPE = (3, 4, 190, 75)  # a slice is more than a strip, and no whole number of them
KEEP = np.arange(75) % 3 == 1


@pytest.fixture(scope="module")
def array():
    values = np.random.default_rng(0).normal(size=(*SHAPE, 2)).astype(np.float32)
    values[1, 2, 3, :6] = np.nan
    return values.view(np.complex64)[..., 0]


@pytest.fixture(scope="module")
def path(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("reading") / "volume.h5"
    with h5py.File(path, "w") as file:
        file["kspace"] = array
        file.create_dataset("chunked", data=array, chunks=True, compression="gzip")
    return path


@pytest.fixture(scope="module")
def layout(path):
    with h5py.File(path, "r") as file:
        return ArrayLayout(SHAPE, "<c8", file["kspace"].id.get_offset())


def assert_kept(found, array):
    """Compare bit by bit, so that what is not a number counts."""
    expected = np.where(KEEP, array[1], np.complex64(0))
    assert found.tobytes() == expected.tobytes()


@pytest.fixture(params=["kernels", "NumPy"])
def either_way(request, monkeypatch):
    """Lets a test run with the kernels, and without."""
    if request.param == "NumPy":
        monkeypatch.setattr(rows, "_kernels", lambda: (None, 1))


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_slice_is_read_and_masked(path, layout, array, threads, torch_threads):
    torch_threads(threads)
    assert read_slice(path, "kspace", layout, 1).tobytes() == array[1].tobytes()
    assert_kept(read_slice(path, "kspace", layout, 1, keep=KEEP), array)
    out = np.empty(SHAPE[1:], np.complex64)
    assert read_slice(path, "kspace", layout, 1, keep=KEEP, out=out) is out
    assert_kept(out, array)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("dtype", [*KSPACE_TYPES, *TARGET_TYPES])
@pytest.mark.parametrize("storage", ["offset", "no offset"])
def test_any_float_is_read_as_one_of_32_bits_and_masked(tmp_path, dtype, storage):
    random = np.random.default_rng(0)
    values = (random.normal(size=(2, 5, 8)) + 1j * random.normal(size=(2, 5, 8))).astype(
        np.complex64
    )
    values = (values if "c" in dtype else values.real).astype(dtype)
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        file["values"] = values
        offset = file["values"].id.get_offset() if storage == "offset" else None
    layout = ArrayLayout(values.shape, dtype, offset)
    keep = np.arange(8) != 2
    wanted = values[1].astype(layout.read_as)
    for found in (
        read_slice(path, "values", layout, 1),
        read_slice(Far(path.read_bytes()), "values", layout, 1),
    ):
        assert found.dtype == layout.read_as
        assert found.tobytes() == wanted.tobytes()
    wanted[:, 2] = 0
    for found in (
        read_slice(path, "values", layout, 1, keep=keep),
        read_slice(Far(path.read_bytes()), "values", layout, 1, keep=keep),
    ):
        assert found.tobytes() == wanted.tobytes()
    one_row = read_slice(path, "values", layout, (1, 3), keep=keep)
    assert one_row.tobytes() == wanted[3].tobytes()


@pytest.mark.parametrize("offset", [True, False])
def test_value_beyond_32_bits_is_named(tmp_path, offset):
    path = tmp_path / "volume.h5"
    values = np.full((2, 5, 8), 1e300 + 0j)
    with h5py.File(path, "w") as file:
        file["kspace"] = values
        layout = ArrayLayout(
            values.shape, "<c16", file["kspace"].id.get_offset() if offset else None
        )
    said = r"slice 1 of kspace in .*volume\.h5 holds a value that is too large for complex64"
    with pytest.raises(ValueError, match=said):
        read_slice(path, "kspace", layout, 1)
    with pytest.raises(ValueError, match=r"slice 1 of kspace .*too large for complex64"):
        read_slice(Far(path.read_bytes()), "kspace", layout, 1)


def test_columns_of_another_number_are_refused(path, layout):
    with pytest.raises(ValueError, match="columns to keep of 75"):
        read_slice(path, "kspace", layout, 1, keep=KEEP[1:])


def test_chunked_array_is_read_and_masked(path, layout, array):
    chunked = replace(layout, offset=None)
    assert_kept(read_slice(path, "chunked", chunked, 1, keep=KEEP), array)
    source = Far(path.read_bytes())
    assert_kept(read_slice(source, "chunked", chunked, 1, keep=KEEP), array)


@pytest.mark.usefixtures("either_way")
@pytest.mark.parametrize("threads", [1, 3])
def test_file_that_was_cut_is_named(path, layout, tmp_path, threads, torch_threads):
    torch_threads(threads)
    cut = tmp_path / "cut.h5"
    cut.write_bytes(path.read_bytes()[: layout.offset + 2 * 4 * 190 * 75 * 8 - 1])
    with pytest.raises(OSError, match=r"cut\.h5 ends before slice 1 of kspace does"):
        read_slice(cut, "kspace", layout, 1)


@pytest.mark.parametrize("filters", [{"compression": "gzip"}, {"fletcher32": True}], ids=str)
def test_damaged_chunk_is_named(tmp_path, layout, array, filters):
    path = tmp_path / "volume.h5"
    with h5py.File(path, "w") as file:
        chunked = file.create_dataset("kspace", data=array, chunks=(1, *SHAPE[1:]), **filters)
        place = chunked.id.get_chunk_info(1).byte_offset
    damaged = bytearray(path.read_bytes())
    damaged[place + 100 : place + 200] = bytes(100)
    path.write_bytes(damaged)
    for file in (path, Far(bytes(damaged))):
        with pytest.raises(
            OSError, match=r"slice 1 of kspace of .* it is damaged, or the file was"
        ):
            read_slice(file, "kspace", replace(layout, offset=None), 1)
    gone = r"slice 5 of kspace of .*volume\.h5 cannot be read"
    with pytest.raises(OSError, match=gone):
        read_slice(path, "kspace", replace(layout, offset=None, shape=(9, *SHAPE[1:])), 5)


def test_refusal_of_the_system_names_the_file(tmp_path, layout):
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        read_slice(tmp_path, "kspace", layout, 0)


def test_full_shared_memory_is_called_by_its_name(path, layout):
    """A page that cannot be had is a bad address to the system call that would fill it."""
    with open(os.memfd_create("full"), "r+b") as file:  # noqa: PTH123
        file.truncate(array_bytes := int(np.prod(SHAPE[1:])) * 8)
        with mmap.mmap(file.fileno(), array_bytes) as memory:
            file.truncate(0)  # as if the system had no pages for it
            out = np.frombuffer(memory, np.complex64).reshape(SHAPE[1:])
            with pytest.raises(OSError, match=r"no room in shared memory.*volume\.h5"):
                read_slice(path, "kspace", layout, 1, out=out)
            del out


@pytest.mark.parametrize("most", [reading.REQUEST_BYTES, 100_000])
def test_large_slice_comes_in_requests_side_by_side(path, layout, array, most, monkeypatch):
    monkeypatch.setattr(reading, "REQUEST_BYTES", most)
    source = Far(path.read_bytes())
    assert_kept(read_slice(source, "kspace", layout, 1, keep=KEEP), array)
    assert read_slice(source, "kspace", layout, 2).tobytes() == array[2].tobytes()
    assert len(source.asked) == 2 * -(-array[0].nbytes // most)
    assert max(count for _, count in source.asked) <= most


def test_source_that_ends_early_is_refused(path, layout, monkeypatch):
    monkeypatch.setattr(reading, "REQUEST_BYTES", 100_000)
    source = Far(path.read_bytes()[: layout.offset + 500_000])
    with pytest.raises(OSError, match=r"far\.h5 ends before slice 1 of kspace does"):
        read_slice(source, "kspace", layout, 1)


def test_forked_process_reads_after_threads_were_used(path, layout, array, torch_threads):
    """It has none of its parent's threads: asking for them would wait for ever."""
    torch_threads(2)
    read_slice(path, "kspace", layout, 1)  # the parent's threads begin here
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(1, context) as process:
        found = process.submit(read_slice, path, "kspace", layout, 1, keep=KEEP).result(60)
    assert_kept(found, array)
