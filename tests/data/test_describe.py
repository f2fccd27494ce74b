"""One file's description: what is read, how little is fetched, and what is refused, by name."""

from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset

from tests.data.far import Far
from workbench.data import confined
from workbench.data.cache import build_cache, load_cache
from workbench.data.confined import Confined
from workbench.data.describe import describe
from workbench.data.header import parse_header
from workbench.data.legacy_cache import metadata_of
from workbench.data.reading import read_kspace
from workbench.data.volume import UnusableVolumeError
from workbench.stores.disk import LocalFile

SHAPE = (2, 3, 20, 14)


HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>
<encodedSpace><matrixSize><x>{x}</x><y>{y}</y><z>1</z></matrixSize></encodedSpace>
<reconSpace><matrixSize><x>{rx}</x><y>{ry}</y><z>1</z></matrixSize></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{maximum}</maximum>
<center>{center}</center></kspace_encoding_step_1></encodingLimits>
</encoding></ismrmrdHeader>"""


SIZES = {"x": 20, "y": 14, "rx": 10, "ry": 10, "center": 7, "maximum": 13}


def described(path, **more):
    with LocalFile(path) as source:
        return describe(source, path=f"multicoil_train/{path.name}", split="train", **more)


def read_by_offset(path, layout):
    values = np.fromfile(path, layout.dtype, np.prod(layout.shape), offset=layout.offset)
    return values.reshape(layout.shape)


def fill(file, *, kspace=None, header=None):
    file["kspace"] = np.arange(1680).reshape(2, 3, 20, 14) * 1j if kspace is None else kspace
    file["ismrmrd_header"] = header or HEADER.format(x=20, y=14, rx=10, ry=10, center=7, maximum=13)


@pytest.fixture
def changed(tmp_path, make_volume):
    """A volume that a function changes: ``changed(lambda file: ...)``."""

    def change(function, **more):
        path = make_volume(tmp_path / "file1.h5", **more)
        with h5py.File(path, "a") as file:
            function(file)
        return path

    return change


# ---- what is read --------------------------------------------------------------------------


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


def test_single_coil_files_have_the_emulated_target_and_test_volumes_their_columns(
    tmp_path, make_volume
):
    path = make_volume(tmp_path / "file1.h5", coils=None)
    with h5py.File(path, "a") as file:
        file["reconstruction_rss"] = np.zeros((2, 10, 10), np.float32)
    assert described(path).target_name == "reconstruction_esc"
    sampled = np.arange(14) % 4 == 1
    volume = described(make_volume(tmp_path / "file2.h5", target=False, mask=sampled))
    assert (volume.mask, volume.target, volume.target_name) == ((1, 5, 9, 13), None, None)


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


def test_attributes_in_arrays_of_one_value_are_that_value(tmp_path, make_volume):
    path = make_volume(tmp_path / "file1.h5")
    with h5py.File(path, "a") as file:
        file.attrs["acquisition"] = np.array(["CORPD_FBK"], h5py.string_dtype())
        file.attrs["patient_id"] = np.array([[b"x"]])
        file.attrs["synthetic"], file.attrs["max"] = np.array([False]), np.array([0.5])
        file.attrs["none"] = np.array([])
    found = described(path)
    assert (found.acquisition, found.synthetic, found.largest) == ("CORPD_FBK", False, 0.5)
    assert (found.attributes["patient_id"], found.attributes["none"]) == ("x", [])


def test_attributes_that_json_does_not_know_are_kept_as_text(tmp_path, make_volume):
    path = make_volume(tmp_path / "multicoil_train/file1.h5")
    with h5py.File(path, "a") as file:
        file.attrs["norm"] = np.nan
        file.attrs["more"] = [np.inf, 1.0]
        file.attrs[b"caf\xe9"] = b"\xe9"
    (volume,) = build_cache(tmp_path)
    found = volume.attributes
    assert (found["norm"], found["more"], found["caf\ufffd"]) == ("nan", ["inf", 1.0], "?")
    assert load_cache(tmp_path).volumes == (volume,)


@pytest.mark.parametrize(
    "storage",
    [
        {},
        {"chunks": (1, 1, 20, 14)},
        {"chunks": (1, 2, 9, 9), "maxshape": (None,) * 4},
        {"compression": "gzip"},
    ],
    ids=str,
)
def test_arrays_in_chunks_and_behind_links_are_read(changed, storage):
    values = np.random.default_rng(0).normal(size=SHAPE).astype(np.complex64)

    def change(file):
        del file["kspace"]
        file.create_dataset("raw/data", data=values, **storage)
        file["raw/alias"] = h5py.SoftLink("data")
        file["kspace"] = h5py.SoftLink("/raw/alias")

    path = changed(change)
    volume = described(path)
    assert (volume.kspace.shape, volume.kspace.offset is None) == (SHAPE, bool(storage))
    np.testing.assert_array_equal(read_kspace(path, volume, 1), values[1])


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


@pytest.mark.parametrize("namespace", ["", ' xmlns="http://www.ismrm.org/other"'])
def test_header_without_the_usual_namespace_is_read(namespace):
    text = HEADER.format(**SIZES)
    other = text.replace(' xmlns="http://www.ismrm.org/ISMRMRD"', namespace)
    assert other != text
    assert parse_header(other) == parse_header(text)


# ---- how little is fetched ---------------------------------------------------------------


@pytest.mark.parametrize("end_bytes", [None, 64, 600, 4096])
def test_two_requests_describe_a_file_and_what_they_lack_is_fetched_later(
    tmp_path, make_volume, end_bytes
):
    path = make_volume(tmp_path / "file1.h5", size=(128, 96), recon=(96, 96))
    whole, source = described(path), Far(path.read_bytes())
    more = {"end_bytes": end_bytes} if end_bytes else {}
    assert describe(source, path=whole.path, split="train", **more) == whole
    if end_bytes:
        assert len(source.asked) > 2
    else:
        assert len(source.asked) == 2
        assert sum(count for _, count in source.asked) < source.size / 2


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
    source = Far(path.read_bytes())
    volume = describe(source, path="file1.h5", split="train")
    assert len(source.asked) > 2
    assert volume.target.shape == (4, 32, 32)
    np.testing.assert_array_equal(read_by_offset(path, volume.kspace), kspace)


# ---- what is refused -----------------------------------------------------------------------


def remove(name):
    def change(file):
        del file[name]

    return change


def put(name, value):
    def change(file):
        del file[name]
        file[name] = value

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
    path = Path(file.filename).with_name("out.bin")
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


def linked(link, name="kspace"):
    def change(file):
        with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
            other["kspace"] = np.ones(SHAPE, "c8")
        file["outside"] = h5py.ExternalLink("other.h5", "/")
        file["round"] = h5py.SoftLink("/round")
        if name in file:
            del file[name]
        file[name] = link

    return change


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
        (put("reconstruction_rss", np.ones((5, 10, 10), "f4")), r"shape \(5, 10, 10\) beside"),
        (remove("ismrmrd_header"), "no ismrmrd_header"),
        (put("ismrmrd_header", 5), "ismrmrd_header is int64, not text"),
        (put("ismrmrd_header", "<open>"), "ismrmrd_header is no XML"),
        (put("ismrmrd_header", HEADER), "'{x}' for encoding/encodedSpace/matrixSize/x"),
        (put("ismrmrd_header", "<ismrmrdHeader/>"), "None for encoding/encodedSpace"),
        (lambda file: file.create_group("mask"), "its mask is a group"),
    ],
)
def test_a_foreign_file_is_refused_with_its_reason(changed, change, reason):
    with pytest.raises(UnusableVolumeError, match=reason):
        described(changed(change))


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
        (replaced("reconstruction_rss", (2, 10, 10), "f4"), "its reconstruction_rss was never"),
        (
            replaced("reconstruction_rss", (2, 10, 10), "f4", external=[("x.bin", 0, 800)]),
            "its reconstruction_rss lies in another file, 'x.bin'",
        ),
        (external, "its kspace lies in another file, '.*: write its values into"),
        (virtual("source.h5"), r"its kspace is a virtual dataset.*'source\.h5': write its values"),
        (virtual("gone.h5"), "is a virtual dataset"),
        (virtual("../source.h5"), "is a virtual dataset"),
        (virtual("{folder}/source.h5"), "is a virtual dataset"),
        (linked(h5py.ExternalLink("other.h5", "/kspace")), "a link to another file, 'other.h5'"),
        (linked(h5py.ExternalLink("/dev/zero", "/x")), "a link to another file, '/dev/zero'"),
        (linked(h5py.SoftLink("/outside/kspace")), "a link to another file, 'other.h5'"),
        (linked(h5py.ExternalLink("x.h5", "/a"), "mask"), "its mask is a link to another file"),
        (
            linked(h5py.ExternalLink("x.h5", "/a"), "ismrmrd_header"),
            "its ismrmrd_header is a link to another file",
        ),
        (
            linked(h5py.ExternalLink("x.h5", "/a"), "reconstruction_rss"),
            "its reconstruction_rss is a link to another file",
        ),
        (linked(h5py.SoftLink("/nowhere")), "its kspace is a link that leads nowhere"),
        (linked(h5py.SoftLink("/round")), "its kspace is a link that leads to itself"),
    ],
)
def test_what_reads_as_zeros_or_as_another_file_is_refused(changed, change, reason):
    with pytest.raises(UnusableVolumeError, match=reason):
        described(changed(change))


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
def test_mask_that_cannot_be_read_as_columns_is_refused(changed, mask, reason):
    with pytest.raises(UnusableVolumeError, match=f"its mask .*{reason}|its {reason}"):
        described(changed(lambda file: file.create_dataset("mask", data=mask)))


def test_mask_that_samples_only_padding_is_refused(tmp_path, make_volume):
    path = make_volume(tmp_path / "file2.h5", mask=np.arange(14) < 2, acquired=(2, 13))
    with pytest.raises(UnusableVolumeError, match=r"samples no column of those .* 2 to 12"):
        described(path)


@pytest.mark.parametrize("value", ["0.5", [0.5, 0.5], np.nan, np.inf, -1.0, True, None])
def test_target_without_one_number_for_its_largest_value_is_refused(changed, value):
    def change(file):
        del file.attrs["max"]
        if value is not None:
            file.attrs["max"] = value

    with pytest.raises(UnusableVolumeError, match=r"attribute max.*write the target's largest"):
        described(changed(change))


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
        (HEADER.format(**SIZES | {"center": -7}), "not 0 to 65536"),
        *(
            (HEADER.format(**SIZES | {"x": x}), "encodedSpace/matrixSize/x, not")
            for x in ("0", "-320", 10**12, "1e3", "320.5", "9" * 5000)
        ),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_header_that_is_a_trap_or_makes_no_sense_is_refused(changed, text, reason):
    with pytest.raises(UnusableVolumeError, match=f"its ismrmrd_header .*({reason})") as info:
        described(changed(put("ismrmrd_header", text)))
    assert len(str(info.value)) < 300


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


# ---- files that hang or crash HDF5 ---------------------------------------------------------


def hang(path):
    """Make a volume that HDF5 reads for ever: an object of its global heap has a strange size."""
    content = bytearray(path.read_bytes())
    length = content.index(b"\4\0\0\0\0\0\0\0AXT")
    content[length + 1] = 1
    path.write_bytes(content)


def test_file_that_hangs_or_crashes_hdf5_costs_itself_alone(dataset, monkeypatch):
    monkeypatch.setattr(confined, "SECONDS", 1)
    hang(dataset / "multicoil_train/file0.h5")
    cache = build_cache(dataset)
    assert len(cache) == 5
    assert [(problem.path, problem.reason) for problem in cache.problems] == [
        (
            "multicoil_train/file0.h5",
            "reading its HDF5 structure takes more than 1 s of a processor, as in damaged files: "
            "bring it in again",
        )
    ]
    assert load_cache(dataset) == cache


def _act(what):
    if what == "memory":
        return len(bytearray(2**40))
    raise KeyError(what)


def test_calls_that_take_all_memory_end():
    call = Confined(_act)
    with pytest.raises(MemoryError):
        call("memory")
    with pytest.raises(KeyError, match="raise"):
        call("raise")
    call.close()
