"""One file's description, read from its first and last bytes."""

from contextlib import suppress

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from workbench.dataset.describe import UnusableVolumeError, describe, parse_header
from workbench.dataset.legacy_cache import metadata_of
from workbench.dataset.source import LocalFile

HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum>
<center>{center}</center></kspace_encoding_step_1></encodingLimits>
</encoding></ismrmrdHeader>"""


class CountedFile(LocalFile):
    """A local file that notes which ranges were asked for."""

    def __init__(self, path):
        super().__init__(path)
        self.ranges = []

    def read(self, offset, count):
        self.ranges.append((offset, count))
        return super().read(offset, count)


def described(path, **more):
    with LocalFile(path) as source:
        return describe(source, path=f"multicoil_train/{path.name}", split="train", **more)


def read_by_offset(path, layout):
    values = np.fromfile(path, layout.dtype, np.prod(layout.shape), offset=layout.offset)
    return values.reshape(layout.shape)


@pytest.mark.parametrize("coils", [None, 3])
def test_values_at_the_offsets_are_the_arrays(tmp_path, make_volume, coils):
    path = make_volume(tmp_path / "file1.h5", coils=coils)
    volume = described(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(read_by_offset(path, volume.kspace), file["kspace"][()])
        target = file[volume.target_name][()]
    np.testing.assert_array_equal(read_by_offset(path, volume.target), target)
    assert volume.target_name == ("reconstruction_esc" if coils is None else "reconstruction_rss")
    assert (volume.slices, volume.coils, volume.matrix) == (2, coils or 1, (20, 14))
    assert volume.size == path.stat().st_size


def test_values_at_the_offsets_hold_behind_a_user_block(tmp_path):
    path = tmp_path / "file1.h5"
    with h5py.File(path, "w", userblock_size=1024) as file:
        fill(file)
        expected = file["kspace"][()]
    np.testing.assert_array_equal(read_by_offset(path, described(path).kspace), expected)


@pytest.mark.parametrize(
    ("size", "recon", "acquired"),
    [
        ((20, 14), (10, 10), (0, 14)),
        ((20, 14), (10, 10), (3, 12)),
        ((21, 15), (9, 11), (2, 15)),
        ((512, 213), (213, 213), (0, 213)),
    ],
)
def test_metadata_are_those_of_fastmri(tmp_path, make_volume, size, recon, acquired):
    path = make_volume(
        tmp_path / "file1.h5", size=size, recon=recon, acquired=acquired, slices=1, coils=1
    )
    reference, slices = SliceDataset._retrieve_metadata(None, path)
    volume = described(path)
    assert metadata_of(volume) == reference
    assert (volume.padding_left, volume.padding_right, volume.slices) == (*acquired, slices)


@pytest.mark.parametrize(("y", "center", "maximum"), [(368, 166, 331), (323, 161, 322), (7, 0, 2)])
def test_padding_of_odd_limits_is_that_of_fastmri(tmp_path, y, center, maximum):
    path = tmp_path / "file1.h5"
    text = HEADER.format(x=640, y=y, rx=320, ry=320, center=center, maximum=maximum)
    with h5py.File(path, "w") as file:
        fill(file, header=text)
    reference, _ = SliceDataset._retrieve_metadata(None, path)
    header = parse_header(text)
    assert (header.padding_left, header.padding_right) == (
        reference["padding_left"],
        reference["padding_right"],
    )
    assert (header.encoded, header.recon) == (
        reference["encoding_size"],
        reference["recon_size"],
    )


def test_single_coil_files_with_both_targets_give_the_emulated_one(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5", coils=None)
    with h5py.File(path, "a") as file:
        file["reconstruction_rss"] = np.zeros((2, 10, 10), np.float32)
    assert described(path).target_name == "reconstruction_esc"


def test_a_test_volume_has_its_sampled_columns_and_no_target(tmp_path, make_volume):
    sampled = np.arange(14) % 4 == 1
    volume = described(make_volume(tmp_path / "file1.h5", target=False, mask=sampled))
    assert volume.mask == (1, 5, 9, 13)
    assert volume.target is None
    assert volume.target_name is None


def test_attributes_are_plain_values_of_the_same_size(tmp_path, make_volume):
    given = {
        "acceleration": np.int64(4),
        "max": np.float32(0.1),
        "fixed": np.bytes_(b"text"),
        "list": np.array([1.5, 2.5]),
        "flag": np.bool_(True),
    }
    found = described(make_volume(tmp_path / "file1.h5", attributes=given)).attributes
    assert found["max"] == float(np.float32(0.1))
    assert (found["acceleration"], found["fixed"], found["list"]) == (4, "text", [1.5, 2.5])
    assert found["flag"] is True
    assert {type(value) for value in found.values()} <= {int, float, str, bool, list}


@pytest.mark.parametrize(
    "storage", [{"chunks": (1, 1, 20, 14)}, {"compression": "gzip"}], ids=["chunked", "gzip"]
)
def test_chunked_and_compressed_arrays_have_no_offset(tmp_path, make_volume, storage):
    volume = described(make_volume(tmp_path / "file1.h5", **storage))
    assert volume.kspace.offset is None
    assert volume.kspace.shape == (2, 3, 20, 14)


def test_big_endian_arrays_have_no_offset(tmp_path):
    path = tmp_path / "file1.h5"
    with h5py.File(path, "w") as file:
        fill(file, kspace=np.ones((2, 3, 20, 14), ">c8"))
    assert described(path).kspace.offset is None


def test_a_file_is_described_with_two_requests(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5", size=(128, 96), recon=(96, 96))
    with CountedFile(path) as source:
        describe(source, path="file1.h5", split="train")
        assert len(source.ranges) == 2
        assert sum(count for _, count in source.ranges) < source.size / 2


@pytest.mark.parametrize("end_bytes", [64, 600, 4096])
def test_bytes_that_were_not_fetched_are_fetched_later(tmp_path, make_volume, end_bytes):
    path = make_volume(tmp_path / "file1.h5", size=(128, 96), recon=(96, 96))
    whole = described(path)
    with CountedFile(path) as source:
        assert describe(source, path=whole.path, split="train", end_bytes=end_bytes) == whole
        assert len(source.ranges) > 2


def test_structure_in_the_middle_of_the_file_is_found(tmp_path):
    path = tmp_path / "file1.h5"
    kspace = np.ones((4, 4, 64, 48), np.complex64)
    with h5py.File(path, "w") as file:
        fill(file, kspace=kspace)
        for number in range(40):
            file[f"more{number}"] = np.ones((64, 64), np.float32)
        file["reconstruction_rss"] = np.ones((4, 32, 32), np.float32)
        file.create_dataset("last", data=np.ones((4, 64, 64), np.complex64))
        file.attrs["max"] = 1.0
    with CountedFile(path) as source:
        volume = describe(source, path="file1.h5", split="train")
        assert len(source.ranges) > 2
    assert volume.target.shape == (4, 32, 32)
    np.testing.assert_array_equal(read_by_offset(path, volume.kspace), kspace)


def fill(file, *, kspace=None, header=None):
    file["kspace"] = np.arange(1680).reshape(2, 3, 20, 14) * 1j if kspace is None else kspace
    file["ismrmrd_header"] = header or HEADER.format(x=20, y=14, rx=10, ry=10, center=7, maximum=13)


def remove(name):
    def change(file):
        del file[name]

    return change


def put(name, value):
    def change(file):
        del file[name]
        file[name] = value

    return change


def never_written(file):
    del file["kspace"]
    file.create_dataset("kspace", (2, 3, 20, 14), "c8")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (remove("kspace"), "no k-space"),
        (put("kspace", np.ones((2, 3, 4, 20, 14), "c8")), r"shape \(2, 3, 4, 20, 14\)"),
        (put("kspace", np.ones((20, 14), "c8")), r"shape \(20, 14\)"),
        (put("kspace", np.ones((0, 3, 20, 14), "c8")), r"shape \(0, 3, 20, 14\)"),
        (put("kspace", np.ones((2, 3, 20, 14), "f4")), "is float32, not complex"),
        (never_written, "kspace was never written"),
        (put("reconstruction_rss", np.ones((5, 10, 10), "f4")), r"shape \(5, 10, 10\) beside"),
        (put("mask", np.ones(9, bool)), "mask has 9 columns, its k-space 14"),
        (remove("ismrmrd_header"), "no ismrmrd_header"),
        (put("ismrmrd_header", 5), "ismrmrd_header is int64, not text"),
        (put("ismrmrd_header", "<open>"), "ismrmrd_header is no XML"),
        (put("ismrmrd_header", HEADER), "'{x}' for encoding/encodedSpace/matrixSize/x"),
        (put("ismrmrd_header", "<ismrmrdHeader/>"), "None for encoding/encodedSpace"),
    ],
)
def test_a_foreign_file_is_refused_with_its_reason(tmp_path, make_volume, change, reason):
    path = make_volume(tmp_path / "file1.h5", mask=np.ones(14, bool))
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(UnusableVolumeError, match=reason):
        described(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "0 bytes"), (b"\0" * 5000, "no HDF5 file"), (b"not hdf5", "no HDF5 file")],
)
def test_a_file_that_is_no_hdf5_is_refused(tmp_path, content, reason):
    path = tmp_path / "file1.h5"
    path.write_bytes(content)
    with pytest.raises(UnusableVolumeError, match=reason):
        described(path)


@pytest.mark.parametrize("kept", [0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path, make_volume, kept):
    path = make_volume(tmp_path / "file1.h5")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(UnusableVolumeError, match=f"truncated .*of {len(whole)} bytes"):
        described(path)


def test_data_that_end_after_the_file_are_caught_where_its_stated_size_is_right(
    tmp_path, make_volume
):
    path = make_volume(tmp_path / "file1.h5")
    content = path.read_bytes()
    address = described(path).target.offset.to_bytes(8, "little")
    assert content.count(address) == 1
    path.write_bytes(content.replace(address, (len(content) - 100).to_bytes(8, "little")))
    with pytest.raises(UnusableVolumeError, match="its arrays end after the file does"):
        described(path)


@pytest.mark.parametrize("seed", range(8))
def test_damaged_structure_is_a_reason_and_not_a_crash(tmp_path, make_volume, seed):
    path = make_volume(tmp_path / "file1.h5")
    content = bytearray(path.read_bytes())
    random = np.random.default_rng(seed)
    start = 8 + 200 * seed
    content[start : start + 200] = random.bytes(200)
    path.write_bytes(content)
    with suppress(UnusableVolumeError):
        assert described(path).kspace.shape
