import h5py
import numpy as np
import pytest
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


def test_field_of_view_of_the_image_is_widened_to_that_of_kspace(tmp_path, kspace, target):
    path = write(tmp_path / "a.h5", kspace, target, field_of_view=(200.0, 100.0))
    with h5py.File(path) as file:
        encoded = xsd.CreateFromDocument(file["ismrmrd_header"][()]).encoding[0].encodedSpace
    assert (encoded.fieldOfView_mm.x, encoded.fieldOfView_mm.y) == (400, 125)


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
