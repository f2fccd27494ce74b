"""One file's description, read from its first and last bytes."""

from contextlib import suppress

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from workbench.data.describe import UnusableVolumeError, describe, parse_header
from workbench.data.legacy_cache import metadata_of
from workbench.data.reading import read_kspace
from workbench.stores.disk import LocalFile

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


def pair(kind, *names, **more):
    """An array of pairs of floats, of k-space's shape."""
    values = np.empty((2, 3, 20, 14), np.dtype({"names": names, "formats": [kind] * 2, **more}))
    values[names[0]], values[names[1]] = np.random.default_rng(0).normal(size=(2, 2, 3, 20, 14))
    return values


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("names", [("r", "i"), ("real", "imag")])
def test_kspace_of_pairs_of_floats_is_complex_wherever_it_lies(tmp_path, kind, names):
    path, values = tmp_path / "file1.h5", pair(kind, *names)
    with h5py.File(path, "w") as file:
        fill(file, kspace=values)
    layout = described(path).kspace
    assert layout.dtype == f"{kind[0]}c{values.itemsize}"
    expected = values[names[0]] + 1j * values[names[1]]
    np.testing.assert_array_equal(read_by_offset(path, layout), expected)


@pytest.mark.parametrize("more", [{"offsets": [4, 0]}, {"offsets": [0, 8], "itemsize": 12}])
def test_pairs_that_are_stored_in_another_way_are_read_by_hdf5(tmp_path, more):
    path, values = tmp_path / "file1.h5", pair("<f4", "r", "i", **more)
    with h5py.File(path, "w") as file:
        fill(file, kspace=values)
    volume = described(path)
    assert volume.kspace.offset is None
    expected = values["r"] + 1j * values["i"]
    np.testing.assert_array_equal(read_kspace(path, volume, 1), expected[1])


ROW = np.arange(14) % 4 == 1


@pytest.mark.parametrize(
    "mask",
    [
        ROW,
        ROW.astype(np.uint8),
        ROW.astype(np.int64),
        ROW.astype(">i2"),
        ROW.astype(np.float16),
        ROW.astype(">f8"),
        np.where(ROW, 1.0, -0.0),
        ROW[None],
        ROW[None, :, None],
        ROW[None, None, :, None],
        np.tile(ROW, (20, 1)),
        np.tile(ROW, (20, 1)).astype(np.float32)[None],
    ],
    ids=lambda mask: f"{mask.dtype.str}{mask.shape}",
)
def test_mask_of_any_number_and_shape_that_can_mean_columns_is_read(tmp_path, make_volume, mask):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    assert described(path).mask == (1, 5, 9, 13)


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        (np.where(ROW, 1, -1), "holds the value -1: give each phase-encode column 1"),
        (np.where(ROW, 2, 0), "holds the value 2"),
        (np.where(ROW, 255, 0).astype(np.uint8), "holds the value 255"),
        (np.where(ROW, 1, np.nan), "holds the value nan"),
        (np.where(ROW, np.inf, 0), "holds the value inf"),
        (np.where(ROW, 0.5, 0), "holds the value 0.5"),
        (np.zeros(14, bool), "samples no column"),
        (ROW[:9], r"shape \(9,\), its k-space 14 phase-encode columns"),
        (np.tile(ROW, 2), r"shape \(28,\)"),
        (ROW.reshape(2, 7), r"shape \(2, 7\)"),
        (np.True_, r"shape \(\)"),
        (h5py.Empty("f4"), "mask holds no values"),
        (np.zeros((0, 14), bool), r"shape \(0, 14\)"),
        (np.tile(ROW, (3, 1)), r"shape \(3, 14\)"),
        (np.tile(ROW[:, None], (1, 20)), r"shape \(14, 20\)"),
        (np.tile(ROW, (20, 1)) ^ (np.arange(20) == 3)[:, None], "differs along the readout"),
        (np.array([b"1"] * 14), r"mask is \|S1, not numbers"),
        (["1"] * 14, "mask is object, not numbers"),
        (ROW.astype(complex), "mask is complex128, not numbers"),
        (pair("<f4", "a", "b")[0, 0, 0], "not numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mask_that_cannot_be_read_as_columns_is_refused(tmp_path, make_volume, mask, reason):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        file["mask"] = mask
    with pytest.raises(UnusableVolumeError, match=f"its mask .*{reason}|its {reason}"):
        described(path)


def test_mask_that_is_a_group_or_samples_only_padding_is_refused(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        file.create_group("mask")
    with pytest.raises(UnusableVolumeError, match="its mask is a group"):
        described(path)
    path = make_volume(tmp_path / "file2.h5", mask=np.arange(14) < 2, acquired=(2, 13))
    with pytest.raises(UnusableVolumeError, match=r"samples no column of those .* 2 to 12"):
        described(path)


@pytest.mark.parametrize("value", ["0.5", [0.5], np.nan, np.inf, -1.0, True, None])
def test_target_without_one_number_for_its_largest_value_is_refused(tmp_path, make_volume, value):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        del file.attrs["max"]
        if value is not None:
            file.attrs["max"] = value
    with pytest.raises(UnusableVolumeError, match=r"attribute max.*write the target's largest"):
        described(path)


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
        (put("kspace", np.ones((2, 3, 20, 14), "f4")), "is float32 .*not complex.*: write it as"),
        (put("kspace", np.ones((2, 3, 20, 14, 2), "f4")), "is float32 .*: join the pairs of its"),
        (put("kspace", np.ones((2, 3, 20, 14), "i2")), "is int16 of shape"),
        (put("kspace", np.ones((2, 3, 20, 14), np.clongdouble)), "is complex256 of shape"),
        (put("kspace", pair("<f2", "r", "i")), "is .*f2.* of shape"),
        (put("kspace", pair("<f4", "x", "y")), "is .*'x'.* of shape"),
        (put("kspace", pair("<f4", "imag", "real")), "is .*'imag'.* of shape"),
        (put("reconstruction_rss", np.ones((2, 10, 10), "i2")), "target is int16, not real"),
        (put("reconstruction_rss", np.ones((2, 10, 10), "c8")), "target is complex64, not real"),
        (put("reconstruction_rss", np.ones((2, 10, 10), "g")), "target is float128, not real"),
        (never_written, "kspace was never written"),
        (put("reconstruction_rss", np.ones((5, 10, 10), "f4")), r"shape \(5, 10, 10\) beside"),
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


def without(name, **more):
    """Put a dataset of the same shape in the place of another, its values never written."""

    def change(file):
        old = file[name]
        shape, dtype = old.shape, old.dtype
        del file[name]
        file.create_dataset(name, shape, dtype, **more)

    return change


def hole(file):
    values = file["kspace"][()]
    del file["kspace"]
    made = file.create_dataset("kspace", values.shape, values.dtype, chunks=(1, 3, 20, 14))
    made[0] = values[0]


def virtual(where):
    def change(file):
        layout = h5py.VirtualLayout((2, 3, 20, 14), "c8")
        layout[:] = h5py.VirtualSource(where, "kspace", shape=(2, 3, 20, 14))
        del file["kspace"]
        file.create_virtual_dataset("kspace", layout)

    return change


def linked(link, name="kspace"):
    def change(file):
        file.move(name, f"old_{name}")
        file[name] = link

    return change


def to_itself(file):
    linked(h5py.SoftLink("/other"))(file)
    file["other"] = h5py.SoftLink("/kspace")


OUTSIDE = [("/etc/hostname", 0, 13440)]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (hole, "1 of the 2 chunks of its kspace were never written: bring it in again"),
        (without("kspace", chunks=(1, 3, 20, 14)), "2 of the 2 chunks of its kspace"),
        (without("kspace", chunks=(1, 1, 20, 14), compression="gzip"), "6 of the 6 chunks"),
        (without("reconstruction_rss"), "its reconstruction_rss was never written"),
        (without("kspace", external=OUTSIDE), "its kspace lies in another file, '/etc/hostname'"),
        (without("reconstruction_rss", external=[("x.bin", 0, 800)]), "another file, 'x.bin'"),
        (virtual("/etc/hostname"), "virtual dataset.*such as '/etc/hostname': .* h5repack"),
        (virtual("gone.h5"), "virtual dataset.*such as 'gone.h5'"),
        (virtual("../secret.h5"), "virtual dataset.*secret"),
        (virtual("."), "virtual dataset"),
        (linked(h5py.ExternalLink("/etc/hostname", "/kspace")), "link to another file, '/etc"),
        (linked(h5py.ExternalLink("x.h5", "/a"), "reconstruction_rss"), "link to another file"),
        (linked(h5py.ExternalLink("x.h5", "/a"), "ismrmrd_header"), "link to another file"),
        (linked(h5py.SoftLink("/nowhere")), "its kspace is a link that leads nowhere"),
        (to_itself, "its kspace is a link that leads to itself"),
    ],
)
def test_arrays_whose_values_are_not_all_in_the_file_are_refused(
    tmp_path, make_volume, change, reason
):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(UnusableVolumeError, match=reason):
        described(path)


def test_a_link_within_the_file_and_whole_chunks_are_taken(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        values = file["kspace"][()]
        del file["kspace"]
        file.create_dataset("raw/data", data=values, chunks=(1, 2, 9, 5), compression="gzip")
        file["raw/alias"] = h5py.SoftLink("data")
        file["kspace"] = h5py.SoftLink("/raw/alias")
    volume = described(path)
    assert (volume.kspace.shape, volume.kspace.offset) == ((2, 3, 20, 14), None)


def test_a_filter_that_is_not_here_is_named(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        del file["kspace"]
        shape = (2, 3, 20, 14)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk(shape)
        properties.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (0,) * 4)
        h5py.h5d.create(
            file.id,
            b"kspace",
            h5py.h5t.py_create(np.dtype("c8")),
            h5py.h5s.create_simple(shape),
            properties,
        ).write_direct_chunk((0,) * 4, bytes(100))
    with pytest.raises(UnusableVolumeError, match=r"filter 32001.*not installed here"):
        described(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("<a>" * 100_000 + "</a>" * 100_000, "more than 100 levels"),
        ('<?xml version="1.0" encoding="klingon"?><a/>', "no XML"),
        ('<?xml version="1.0" encoding="utf-7"?><a/>', "no XML"),
        ("<a>" + "x" * 5_000_000 + "</a>", "characters long"),
        (
            "<!DOCTYPE a [<!ENTITY e0 'eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee'>"
            + "".join(f"<!ENTITY e{n + 1} '{f'&e{n};' * 20}'>" for n in range(9))
            + "]><a>&e9;</a>",
            "no XML",
        ),
        (HEADER.format(x=10**12, y=14, rx=10, ry=10, center=7, maximum=13), "not 1 to 65536"),
        (HEADER.format(x=0, y=14, rx=10, ry=10, center=7, maximum=13), "not 1 to 65536"),
        (HEADER.format(x="9" * 5000, y=14, rx=10, ry=10, center=7, maximum=13), "not a number"),
        (HEADER.format(x=20, y=14, rx=10, ry=10, center=-7, maximum=13), "not 0 to 65536"),
    ],
    ids=["deep", "encoding", "utf-7", "long", "entities", "10^12", "0", "digits", "negative"],
)
def test_header_that_would_cost_too_much_or_makes_no_sense_is_refused(
    tmp_path, make_volume, header, reason
):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        put("ismrmrd_header", header)(file)
    with pytest.raises(UnusableVolumeError, match=reason) as info:
        described(path)
    assert len(str(info.value)) < 300


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.ismrm.org/other"'])
def test_header_without_the_usual_namespace_is_read(namespace):
    text = HEADER.format(x=20, y=14, rx=10, ry=10, center=7, maximum=13)
    other = text.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', namespace)
    assert other != text
    assert parse_header(other) == parse_header(text)


def test_attributes_that_json_does_not_know_are_kept_as_text(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        file.attrs["norm"] = np.nan
        file.attrs["more"] = [np.inf, 1.0]
    attributes = described(path).attributes
    assert (attributes["norm"], attributes["more"]) == ("nan", ["inf", 1.0])


def test_shape_of_10_to_the_12_is_refused_before_anything_is_read(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        del file["kspace"]
        file.create_dataset("kspace", (10**12, 3, 20, 14), "c8", chunks=(1, 3, 20, 14))
    with pytest.raises(UnusableVolumeError, match="kspace"):
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
