import h5py
import numpy as np
import pytest
from fastmri.data import SliceDataset
from ismrmrd import xsd

from workbench_demo.phantom.writing import write_volume


@pytest.fixture
def kspace():
    draw = np.random.default_rng(0)
    shape = (3, 2, 32, 20)
    return (draw.normal(size=shape) + 1j * draw.normal(size=shape)).astype(np.complex64)


@pytest.fixture
def target():
    return np.random.default_rng(1).random((3, 16, 16), dtype=np.float32)


def write(path, kspace, target, **options):
    return write_volume(
        path, kspace=kspace, target=target, acquisition="AXT2", patient_id="p", **options
    )


@pytest.mark.parametrize("acquired", [(0, 20), (3, 18), (2, 20), (10, 11)])
def test_fastmri_reads_the_volume_with_the_padding_that_was_asked(
    tmp_path, kspace, target, acquired
):
    write(tmp_path / "a.h5", kspace, target, acquired=acquired)
    samples = SliceDataset(tmp_path, "multicoil", use_dataset_cache=False)
    assert len(samples) == 3
    read, mask, read_target, attributes, name, number = samples[1]
    np.testing.assert_array_equal(read, kspace[1])
    np.testing.assert_array_equal(read_target, target[1])
    assert (mask, name, number) == (None, "a.h5", 1)
    assert (attributes["padding_left"], attributes["padding_right"]) == acquired
    assert attributes["encoding_size"] == (32, 20, 1)
    assert attributes["recon_size"] == (16, 16, 1)
    assert attributes["max"] == target.max()
    assert attributes["norm"] == pytest.approx(np.linalg.norm(target))
    assert attributes["synthetic"]
    assert "ynthetic" in attributes["notice"]


def test_header_is_valid_and_arrays_lie_contiguously(tmp_path, kspace, target):
    path = write(tmp_path / "a.h5", kspace, target, field_of_view=(200.0, 100.0))
    with h5py.File(path) as file:
        header = xsd.CreateFromDocument(file["ismrmrd_header"][()])
        encoding = header.encoding[0]
        assert encoding.encodedSpace.fieldOfView_mm.x == 400
        assert encoding.encodedSpace.fieldOfView_mm.y == 125
        assert header.acquisitionSystemInformation.receiverChannels == 2
        assert file["kspace"].chunks is None
        offset = file["kspace"].id.get_offset()
    raw = np.fromfile(path, np.complex64, kspace.size, offset=offset).reshape(kspace.shape)
    np.testing.assert_array_equal(raw, kspace)


def test_single_coil_volume_holds_the_other_target(tmp_path, kspace, target):
    path = write(tmp_path / "a.h5", kspace[:, 0], target)
    with h5py.File(path) as file:
        assert set(file) == {"ismrmrd_header", "kspace", "reconstruction_esc"}
        assert file["kspace"].shape == (3, 32, 20)


def test_test_volume_holds_its_mask_and_no_target(tmp_path, kspace):
    mask = np.arange(20) % 4 == 0
    path = write(
        tmp_path / "a.h5", kspace, None, mask=mask, recon=(16, 16), attributes={"acceleration": 4}
    )
    with h5py.File(path) as file:
        assert set(file) == {"ismrmrd_header", "kspace", "mask"}
        np.testing.assert_array_equal(file["mask"][()], mask)
        assert file.attrs["acceleration"] == 4
        assert "max" not in file.attrs


def test_chunked_and_compressed_volume_reads_the_same(tmp_path, kspace, target):
    path = write(tmp_path / "a.h5", kspace, target, chunks=(1, 1, 32, 20), compression="gzip")
    with h5py.File(path) as file:
        assert file["kspace"].compression == "gzip"
        np.testing.assert_array_equal(file["kspace"][()], kspace)


def test_failed_write_leaves_the_old_file_and_no_litter(tmp_path, kspace, target):
    path = write(tmp_path / "a.h5", kspace, target)
    before = path.read_bytes()
    with pytest.raises(TypeError):
        write(path, kspace, target, attributes={"unwritable": object()})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"acquired": (11, 20)}, r"acquired=\(11, 20\)"),
        ({"acquired": (0, 21)}, r"acquired=\(0, 21\)"),
        ({"mask": np.ones(19, bool)}, r"mask of shape \(19,\)"),
        ({"target": np.ones((2, 16, 16), np.float32)}, r"target of shape"),
        ({"target": None}, "recon=None"),
        ({"recon": (0, 16)}, r"recon=\(0, 16\)"),
    ],
)
def test_wrong_shapes_are_refused(tmp_path, kspace, target, options, said):
    with pytest.raises(ValueError, match=said):
        write(tmp_path / "a.h5", kspace, **{"target": target, **options})
    assert not list(tmp_path.iterdir())
