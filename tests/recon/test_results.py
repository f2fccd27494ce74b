"""Files of results are read as they were written, or named as damaged."""

import json
import subprocess
import sys
from dataclasses import asdict

import h5py
import numpy as np
import pytest

from tests.views.conftest import volume_at
from workbench.compute.evaluation import sha256_of
from workbench.recon.asked import Order, is_current, read_order
from workbench.recon.reconstruction import write_result
from workbench.recon.results import open_result, read_result

ATTRIBUTES = {
    "digest": "a" * 64,
    "weights_sha256": "b" * 64,
    "sampling": "random 4x, 8 % centre",
    "volume": "multicoil_val/file.h5",
    "acquisition": "AXT2",
    "acceleration": 4.2,
    "synthetic": False,
    **{
        f"{kind}_{name}": value
        for kind in ("reconstruction", "zero_filled")
        for name, value in (("ssim", 0.9), ("psnr", 31.0), ("nmse", np.inf))
    },
    "slice_ssim": np.array([0.9, 1.0, 0.8]),
}
VOLUME = volume_at("multicoil_val/file.h5", "val")
ORDER = Order("weights.pt", "b" * 64, "/data", "val", None)


@pytest.fixture
def result(tmp_path):
    images = np.random.default_rng(0).normal(size=(3, 8, 6)).astype(np.float32)
    write_result(tmp_path / "file.h5", images, ATTRIBUTES)
    return tmp_path / "file.h5", images


def read_all(path):
    with open_result(path) as (file, _):
        return read_result(path, VOLUME, ORDER), file["reconstruction"][()]


def test_result_is_read_as_written_by_any_reader_of_hdf5(result):
    path, images = result
    assert np.array_equal(read_all(path)[1], images)
    with h5py.File(path) as file:
        assert np.array_equal(file["reconstruction"][()], images)
        assert file.attrs["volume"].decode() == "multicoil_val/file.h5"


def test_images_that_were_reconstructed_anew_are_not_shown_with_the_metrics_before(result):
    """As where a training goes on while its results are open: they had another's SSIM beside."""
    path, images = result
    known, _ = read_all(path)
    assert np.array_equal(known.image(1), images[1])
    write_result(path, 2 * images, ATTRIBUTES | {"digest": "c" * 64})
    for read in (known.images, lambda: known.image(1)):
        with pytest.raises(ValueError, match=r"file\.h5 was reconstructed anew since its metrics"):
            read()
    assert np.array_equal(read_all(path)[0].image(1), 2 * images[1])


def test_no_flipped_bit_reads_other_numbers(result):
    path, images = result
    expected, _ = read_all(path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    messages = []
    for place in random.integers(len(whole), size=600):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            found, read = read_all(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            assert found == expected
            assert np.array_equal(read, images)
    assert len(messages) > 100
    assert all("file.h5 is damaged" in message for message in messages)
    assert all("reconstruct again" in message for message in messages)


def test_results_of_before_there_were_checksums_open(tmp_path):
    path = tmp_path / "old.h5"
    with h5py.File(path, "w") as file:
        file["reconstruction"] = np.ones((3, 4, 4), np.float32)
        file.attrs.update(ATTRIBUTES)
    assert read_all(path)[0].acceleration == 4.2


@pytest.mark.parametrize("content", [b"", bytes(4096), b"<html>", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_result_is_named_with_a_remedy(content, tmp_path):
    path = tmp_path / "file.h5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"file\.h5 is damaged.*reconstruct again"):
        read_result(path, VOLUME, ORDER)


def images(values):
    """Return what puts other images into a file of results."""

    def change(file):
        del file["reconstruction"]
        file["reconstruction"] = values

    return change


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file.attrs.update(slice_ssim="text"),
        lambda file: file.attrs.update(slice_ssim=np.zeros((3, 2))),
        lambda file: file.attrs.update(slice_ssim=np.zeros(2)),
        lambda file: file.attrs.update(acceleration="text"),
        *(
            (lambda file, name=name: file.attrs.pop(name))
            for name in ("acceleration", "digest", "sampling", "zero_filled_ssim")
        ),
        lambda file: file.move("reconstruction", "elsewhere"),
        images(np.ones((3, 4))),
        images(np.ones(())),
        images(np.ones((0, 4, 4))),
        images(np.ones((3, 4, 4), "c8")),
    ],
)
def test_result_that_no_reconstruction_writes_is_named_with_a_remedy(change, result):
    path, _ = result
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(ValueError, match=r"file\.h5 is damaged.*reconstruct again"):
        read_result(path, VOLUME, ORDER)


@pytest.mark.parametrize("place", ["outputs", "node", "elsewhere"])
def test_results_of_a_checkpoint_that_has_learned_on_are_not_current(place, tmp_path):
    """Also where a node of a cluster made them, or where the project has been moved since."""
    best = tmp_path / "outputs/team/brain/checkpoints/best.ckpt"
    best.parent.mkdir(parents=True)
    best.write_bytes(b"epoch 1")
    made_by = tmp_path / place / "team/brain/checkpoints/best.ckpt"
    made_by = {"elsewhere": tmp_path / "a/file/that/is/gone.ckpt"}.get(place, made_by)
    order = Order(str(made_by), sha256_of(best), "/data", "val", None)
    folder = best.parents[1] / "reconstructions/val"
    assert is_current(folder, order)
    best.write_bytes(b"epoch 2")
    assert is_current(folder, order) == (place == "elsewhere")


@pytest.mark.parametrize("name", ["weights", "weights_sha256", "dataset", "split"])
def test_order_of_wrong_types_is_named(name, tmp_path):
    values = asdict(ORDER) | {name: None}
    (tmp_path / "reconstruction.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=rf"reconstruction\.json is damaged: {name} is no text"):
        read_order(tmp_path)


def test_results_and_runs_are_read_without_torch():
    script = (
        "import sys\n"
        "import workbench.compute.runs, workbench.recon.results, workbench.views.reconstructions\n"
        "import workbench.pages.reconstruct, workbench.pages.train, workbench.views.training\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
