"""Files with holes, links to other files, damage and traps: each refused by name, the rest read."""

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest

from workbench.data import confined
from workbench.data.cache import build_cache, load_cache
from workbench.data.confined import Confined, ConfinedError
from workbench.data.describe import UnusableVolumeError, describe
from workbench.stores.disk import LocalFile

SHAPE = (2, 3, 20, 14)


def described(path):
    with LocalFile(path) as source:
        return describe(source, path=f"multicoil_train/{path.name}", split="train")


@pytest.fixture
def changed(tmp_path, make_volume):
    """A volume that a function changes: ``changed(lambda file: ...)``."""

    def change(function):
        path = make_volume(tmp_path / "file1.h5")
        with h5py.File(path, "a") as file:
            function(file)
        return path

    return change


def replaced(name="kspace", shape=SHAPE, dtype="c8", **how):
    def change(file):
        del file[name]
        return file.create_dataset(name, shape, dtype, **how)

    return change


def partly(name="kspace", shape=SHAPE, dtype="c8", **how):
    def change(file):
        replaced(name, shape, dtype, **how)(file)[0] = 1

    return change


def early(layout, written=0):
    """Room for all values, taken as parallel writers do, before they are written."""

    def change(file):
        values = file["kspace"][()]
        del file["kspace"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(layout)
        if layout != h5py.h5d.COMPACT:
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_ALLOC)
        if layout == h5py.h5d.CHUNKED:
            properties.set_chunk((1, 1, 20, 14))
        space = h5py.h5s.create_simple(SHAPE)
        h5py.h5d.create(file.id, b"kspace", h5py.h5t.py_create(values.dtype), space, properties)
        file["kspace"][:written] = values[:written]

    return change


LAYOUTS = [h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED]


def external(file):
    path = Path(file.filename).with_name("secret.bin")
    path.write_bytes(bytes(2 * 3 * 20 * 14 * 8))
    replaced(external=[(str(path), 0, h5py.h5f.UNLIMITED)])(file)


def virtual(source):
    def change(file):
        folder = Path(file.filename).parent
        where = source.format(folder=folder)
        with h5py.File(folder / "source.h5", "w") as other:
            other["data"] = np.ones(SHAPE, "c8")
        layout = h5py.VirtualLayout(SHAPE, "c8")
        layout[:] = h5py.VirtualSource(where, "data", SHAPE)
        del file["kspace"]
        file.create_virtual_dataset("kspace", layout)

    return change


def linked(link):
    def change(file):
        with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
            other["kspace"] = np.ones(SHAPE, "c8")
        file["outside"] = h5py.ExternalLink("other.h5", "/")
        file["round"] = h5py.SoftLink("/round")
        del file["kspace"]
        file["kspace"] = link

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (replaced(), "its kspace was never written"),
        (replaced(fillvalue=np.complex64(3)), "its kspace was never written"),
        (replaced(chunks=(1, 1, 20, 14)), "6 of the 6 chunks of its kspace were never written"),
        (partly(chunks=(1, 1, 20, 14)), "3 of the 6 chunks of its kspace were never written"),
        (partly(chunks=(1, 2, 9, 9), maxshape=(None,) * 4), "12 of the 24 chunks"),
        (partly(chunks=(1, 1, 20, 14), fillvalue=np.complex64(1)), "3 of the 6 chunks"),
        (partly(chunks=(1, 1, 20, 14), compression="gzip"), "3 of the 6 chunks"),
        (partly(shape=(10**12, 3, 20, 14), chunks=(1, 3, 20, 14)), "999,999,999,999 of the"),
        (
            partly("reconstruction_rss", (2, 10, 10), "f4", chunks=(1, 10, 10)),
            "1 of the 2 chunks of its reconstruction_rss",
        ),
        (external, "its kspace lies in another file, '.*secret.bin': write its values into"),
        (virtual("source.h5"), r"its kspace is a virtual dataset.*'source\.h5': write its values"),
        (virtual("gone.h5"), "is a virtual dataset"),
        (virtual("../source.h5"), "is a virtual dataset"),
        (virtual("{folder}/source.h5"), "is a virtual dataset"),
        (linked(h5py.ExternalLink("other.h5", "/kspace")), "a link to another file, 'other.h5'"),
        (linked(h5py.ExternalLink("/dev/zero", "/x")), "a link to another file, '/dev/zero'"),
        (linked(h5py.SoftLink("/outside/kspace")), "a link to another file, 'other.h5'"),
        (linked(h5py.SoftLink("/nowhere")), "its kspace is a link that leads nowhere"),
        (linked(h5py.SoftLink("/round")), "its kspace is a link that leads to itself"),
    ],
)
def test_what_reads_as_zeros_or_as_another_file_is_refused(changed, change, reason):
    with pytest.raises(UnusableVolumeError, match=reason):
        described(changed(change))


@pytest.mark.parametrize("name", ["mask", "ismrmrd_header", "reconstruction_rss"])
def test_every_array_that_is_read_must_lie_in_the_file(changed, name):
    def change(file):
        if name in file:
            del file[name]
        file[name] = h5py.ExternalLink("other.h5", name)

    with pytest.raises(UnusableVolumeError, match=f"its {name} is a link to another file"):
        described(changed(change))


def test_soft_link_within_the_file_is_followed(changed):
    path = changed(lambda file: (file.move("kspace", "raw/data"), linked_inside(file)))
    volume = described(path)
    with h5py.File(path) as file:
        expected = file["kspace"][()]
    found = np.fromfile(path, "<c8", expected.size, offset=volume.kspace.offset)
    np.testing.assert_array_equal(found.reshape(SHAPE), expected)


def linked_inside(file):
    file["kspace"] = h5py.SoftLink("/raw/data")


@pytest.mark.parametrize("chunks", [(1, 1, 20, 14), (1, 2, 9, 9)])
def test_chunks_that_are_all_written_are_read(changed, chunks):
    def change(file):
        values = file["kspace"][()]
        del file["kspace"]
        file.create_dataset("kspace", data=values, chunks=chunks, maxshape=(None,) * 4)

    assert described(changed(change)).kspace.offset is None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_room_taken_early_is_read_where_all_is_written(changed, layout):
    assert described(changed(early(layout, 2))).kspace.shape == SHAPE
    with pytest.raises(UnusableVolumeError, match="slice 1 of its kspace holds zeros"):
        described(changed(early(layout, 1)))


def test_filter_that_is_not_here_is_named(changed):
    def change(file):
        del file["kspace"]
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((1, 3, 20, 14))
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (2, 2, 8))
        space = h5py.h5s.create_simple(SHAPE)
        kind = h5py.h5t.py_create(np.dtype("c8"))
        h5py.h5d.create(file.id, b"kspace", kind, space, properties)

    with pytest.raises(UnusableVolumeError, match="its kspace is compressed with filter 32001"):
        described(changed(change))


def header(text):
    def change(file):
        del file["ismrmrd_header"]
        file["ismrmrd_header"] = text

    return change


BILLION = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<a>" * 100_000 + "</a>" * 100_000, "more than 100 levels"),
        ("<a>" * 100_000, "is no XML"),
        ("<a>" + "<b/>" * 1_500_000 + "</a>", "characters long, more than"),
        (f'<!DOCTYPE a [<!ENTITY e0 "xxxxxxxxxx">{BILLION}]><a>&e12;</a>', "is no XML|None for"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "is no XML"),
        (b'<?xml version="1.0" encoding="utf-7"?><a/>', "is no XML"),
        (b"\xff\xfe<a/>", "is no XML"),
        ("", "is no XML"),
    ],
    ids=["deep", "open", "long", "billion laughs", "unknown", "utf-7", "bytes", "empty"],
)
def test_header_that_is_a_trap_is_refused(changed, text, reason):
    with pytest.raises(UnusableVolumeError, match=f"its ismrmrd_header .*({reason})"):
        described(changed(header(text)))


def test_header_without_namespace_is_read(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    expected = described(path)
    with h5py.File(path, "a") as file:
        text = file["ismrmrd_header"][()].decode()
        bare = text.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', "")
        assert bare != text
        header(bare)(file)
    found = described(path)
    assert (found.encoded, found.recon) == (expected.encoded, expected.recon)
    assert (found.padding_left, found.padding_right) == (0, 14)


@pytest.mark.parametrize("value", ["0", "-320", "99999999999", "1e3", "320.5", "9" * 5000])
def test_sizes_that_cannot_be_are_refused(tmp_path, make_volume, value):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        text = file["ismrmrd_header"][()].decode().replace("<x>20</x>", f"<x>{value}</x>")
        header(text)(file)
    with pytest.raises(UnusableVolumeError, match="encodedSpace/matrixSize/x, not"):
        described(path)


def hang(path):
    """Make a volume that HDF5 reads for ever: an object of its global heap has a strange size."""
    content = bytearray(path.read_bytes())
    length = content.index(b"\4\0\0\0\0\0\0\0AXT")
    content[length + 1] = 1
    path.write_bytes(content)


def test_file_that_hangs_or_crashes_hdf5_costs_itself_alone(dataset, monkeypatch):
    monkeypatch.setattr(confined, "SECONDS", 1)
    for number in (0, 1):
        hang(dataset / f"multicoil_train/file{number}.h5")
    cache = build_cache(dataset)
    assert len(cache) == 4
    assert [(problem.path, problem.reason) for problem in cache.problems] == [
        (
            f"multicoil_train/file{number}.h5",
            "reading its HDF5 structure takes more than 1 s of a processor, as in damaged files: "
            "bring it in again",
        )
        for number in (0, 1)
    ]
    assert load_cache(dataset) == cache


def _act(what):
    if what == "hang":
        while True:
            pass
    if what == "memory":
        return len(bytearray(2**40))
    if what == "raise":
        raise KeyError(what)
    if what != "answer":
        os.kill(os.getpid(), getattr(signal, what))
    return what


@pytest.mark.parametrize(
    ("what", "message"),
    [("SIGSEGV", r"crashes \(SIGSEGV\)"), ("SIGABRT", "SIGABRT"), ("SIGKILL", "SIGKILL")],
)
def test_crash_is_an_error_and_the_next_call_is_answered(what, message):
    call = Confined(_act)
    assert call("answer") == "answer"
    with pytest.raises(ConfinedError, match=message):
        call(what)
    assert call("answer") == "answer"
    call.close()


def test_calls_that_hang_or_take_all_memory_end(monkeypatch):
    monkeypatch.setattr(confined, "SECONDS", 1)
    call = Confined(_act)
    with pytest.raises(ConfinedError, match="takes more than 1 s of a processor"):
        call("hang")
    with pytest.raises(MemoryError):
        call("memory")
    with pytest.raises(KeyError, match="raise"):
        call("raise")
    call.close()


def test_attributes_that_json_does_not_know_are_kept_as_text(tmp_path, make_volume):
    path = make_volume(tmp_path / "multicoil_train/file1.h5")
    with h5py.File(path, "a") as file:
        file.attrs["norm"] = np.nan
        file.attrs["more"] = [np.inf, 1.0]
    (volume,) = build_cache(tmp_path)
    assert (volume.attributes["norm"], volume.attributes["more"]) == ("nan", ["inf", 1.0])
    assert load_cache(tmp_path).volumes == (volume,)
