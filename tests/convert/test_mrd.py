"""ISMRMRD files: read in blocks, one measurement or several, whole or damaged."""

import subprocess
import sys
from pathlib import Path

import h5py
import ismrmrd
import numpy as np
import pytest

from tests.convert.mrd_files import cartesian, encoding, fft2, header, images, line, write
from tests.convert.reading import refusal
from tests.convert.test_cartesian import assert_same, kspace_of
from tests.programs import find_program
from workbench.convert import mrd
from workbench.convert.readers import scans_of
from workbench.convert.scan import Choices
from workbench.convert.write import write_scan
from workbench.data.cache import open_cache


def test_a_file_that_the_package_wrote_becomes_a_volume_in_fastmri_s_form(tmp_path):
    image = images(3)
    path = tmp_path / "meas.h5"
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(header().encode())
        for each in cartesian(fft2(image)):
            file.append_acquisition(each)
    (scan,) = scans_of(path, Choices())
    assert list(write_scan(scan, tmp_path / "multicoil_train/a.h5")) == [0, 1, 2]
    (volume,) = open_cache(tmp_path).split("train")
    assert volume.kspace.shape == (3, 2, 32, 24)
    with h5py.File(tmp_path / "multicoil_train/a.h5") as file:
        assert_same(file["kspace"][()], fft2(image))
        rss = np.sqrt((np.abs(image) ** 2).sum(1))[:, 8:24]
        np.testing.assert_allclose(file["reconstruction_rss"][()], rss, atol=1e-5 * rss.max())


def test_the_header_of_the_tests_is_valid():
    xml = header(encodings=[encoding(calibration="embedded", multiband=2), encoding()])
    read = ismrmrd.xsd.CreateFromDocument(xml)
    assert read.encoding[0].parallelImaging.multiband.multiband_factor == 2


def test_of_several_measurements_noise_serves_the_image_after_it(tmp_path):
    rng = np.random.default_rng(1)
    samples = rng.normal(size=(2, 500)) + 1j * rng.normal(size=(2, 500))
    noise = line([[2], [5]] * samples, [ismrmrd.ACQ_IS_NOISE_MEASUREMENT])
    path = write(tmp_path / "a.h5", [noise], name="dataset_1")
    kspace = fft2(images(1))
    write(path, cartesian(kspace), name="dataset_2")
    (plain,) = scans_of(path, Choices())
    assert_same(kspace_of(plain), kspace)
    assert plain.name == ""
    (scan,) = scans_of(path, Choices(whiten=True))
    expected = kspace * np.array([1 / 2, 1 / 5])[:, None, None] * np.sqrt(0.8 / 2)
    found = kspace_of(scan)
    assert np.abs(found - expected).max() < 0.15 * np.abs(expected).max()


def test_several_measurements_with_images_are_told_apart(tmp_path):
    kspace = [fft2(images(1, seed=seed)) for seed in range(11)]
    for number in (10, 2, 1):
        write(tmp_path / "a.h5", cartesian(kspace[number]), name=f"dataset_{number}")
    radial = header(trajectory="radial")
    write(tmp_path / "a.h5", cartesian(kspace[0]), radial, name="dataset_11")
    found = scans_of(tmp_path / "a.h5", Choices())
    assert [scan.name for scan in found] == ["measurement1", "measurement2", "measurement3"]
    for scan, number in zip(found, (1, 2, 10), strict=True):
        assert_same(kspace_of(scan), kspace[number])
        assert "measurement4 is left out: it has a trajectory" in " ".join(scan.remarks)


@pytest.mark.parametrize("number", ["xxxxxxxx", "XX XX"])
def test_whom_a_scanner_made_nameless_is_not_one_person_with_others(tmp_path, number):
    xml = header().replace("4711", number)
    (scan,) = scans_of(write(tmp_path / "a.h5", cartesian(fft2(images(1))), xml), Choices())
    assert scan.person == ""


def grid(samples, step, *, turn=0.0):
    along = np.arange(samples) - samples // 2
    across = np.full(samples, float(step - 12))
    cos, sin = np.cos(turn), np.sin(turn)
    return np.stack([cos * along - sin * across, sin * along + cos * across], 1).astype(np.float32)


def test_a_trajectory_that_is_the_grid_is_no_obstacle(tmp_path):
    kspace = fft2(images(1))
    lines = [line(kspace[0, :, :, s], kspace_encode_step_1=s, traj=grid(32, s)) for s in range(24)]
    (scan,) = scans_of(write(tmp_path / "a.h5", lines), Choices())
    assert_same(kspace_of(scan), kspace)


def radial(samples, step):
    return grid(samples, 12, turn=np.pi * step / 24)


def propeller(samples, step):
    return grid(samples, step % 8 + 8, turn=0.5 * (step // 8))


def shuffled(samples, step):
    return grid(samples, (5 * step) % 24)


@pytest.mark.parametrize("path_of", [radial, propeller, shuffled])
def test_a_trajectory_off_the_grid_is_refused_whatever_the_label(tmp_path, path_of):
    kspace = fft2(images(1))
    lines = [
        line(kspace[0, :, :, s], kspace_encode_step_1=s, traj=path_of(32, s)) for s in range(24)
    ]
    assert "stores a trajectory that is not the grid" in refusal(write(tmp_path / "a.h5", lines))


def test_samples_are_read_whatever_the_order_asked_for(tmp_path):
    values = np.arange(40)[:, None, None] * np.ones((1, 2, 8))
    path = write(tmp_path / "a.h5", [line(each) for each in values])
    with h5py.File(path) as file:
        name = next(iter(file.values())).name
    for rows in ([3, 4, 5, 6], [9, 1, 5, 5, 0], [], list(range(0, 40, 3))):
        found = [int(each[0, 0].real) for each in mrd._read(path, name, np.array(rows, np.int32))]
        assert found == rows


def damaged(change):
    """Return what writes a file, changes it, and returns its path."""

    def make(folder):
        path = write(folder / "a.h5", cartesian(fft2(images(1))))
        with h5py.File(path, "a") as file:
            change(file)
        return path

    return make


def cut_short(folder):
    path = damaged(lambda file: None)(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def rewrite_xml(text):
    def change(file):
        file["dataset/xml"][0] = text(file["dataset/xml"][0].decode()).encode()

    return change


def drop_lines(file):
    file["dataset/data"].resize((0,))


def never_written(file):  # HDF5 reads zeros there
    file["dataset/data"].resize((128,))


def elsewhere(file):
    del file["dataset/data"]
    file["dataset/data"] = h5py.ExternalLink("other.h5", "dataset/data")
    with h5py.File(Path(file.filename).with_name("other.h5"), "w") as other:
        other.create_dataset("dataset/data", 3, ismrmrd.hdf5.acquisition_dtype)


def without_counters(file):
    del file["dataset/data"]
    types = [("head", [("flags", "u8")]), ("traj", "f4"), ("data", "f4")]
    file["dataset"].create_dataset("data", data=np.zeros(3, types))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (cut_short, "is a damaged HDF5 file: bring it in again"),
        (damaged(drop_lines), "holds no lines of an image"),
        (damaged(never_written), "6 of the 8 chunks of its data were never written"),
        (damaged(elsewhere), "its data is a link to another file"),
        (damaged(without_counters), "has lines that are not described as ISMRMRD's are"),
        (damaged(rewrite_xml(lambda xml: "Jane Doe")), "has a header that is no XML"),
        (damaged(rewrite_xml(lambda xml: "<a/>")), "has a header without encoding"),
        (
            damaged(rewrite_xml(lambda xml: xml.replace("<x>32</x>", ""))),
            "has '' for encodedSpace's x in its header, not a whole number",
        ),
        (
            damaged(rewrite_xml(lambda xml: xml.replace("<x>32</x>", "<x>0</x>"))),
            "has '0' for encodedSpace's x",
        ),
        (
            damaged(rewrite_xml(lambda xml: xml.replace("<x>32</x>", "<x>3e9</x>"))),
            "has '3e9' for encodedSpace's x",
        ),
        (damaged(lambda file: file["dataset"].pop("xml")), "has lines without a header"),
    ],
)
def test_a_damaged_file_says_what_it_is(tmp_path, make, reason):
    assert reason in refusal(make(tmp_path))


def test_a_line_of_too_few_samples_stops_the_volume(tmp_path):
    path = write(tmp_path / "a.h5", cartesian(fft2(images(1))))
    with h5py.File(path, "a") as file:
        value = file["dataset/data"][12]
        value["data"] = np.zeros(7, np.float32)
        file["dataset/data"][12] = value
    assert "holds 7 numbers in line 12, not 128" in refusal(path)


def test_foreign_files_are_none(tmp_path):
    for name, content in (("a", b""), ("b", b"\x89HDF"), ("c", bytes(5000)), ("d", b"PK\3\4")):
        (tmp_path / name).write_bytes(content)
        assert not mrd.holds(tmp_path / name)
    with h5py.File(tmp_path / "fastmri.h5", "w") as file:
        file["kspace"] = np.zeros((1, 2, 3), np.complex64)
        file["ismrmrd_header"] = header()
    assert not mrd.holds(tmp_path / "fastmri.h5")


def test_nothing_of_a_person_is_in_the_volume_nor_in_a_refusal(tmp_path):
    xml = header().replace(
        "<subjectInformation>", "<subjectInformation><patientName>Doe^Jane</patientName>"
    )
    path = write(tmp_path / "Jane.h5", cartesian(fft2(images(1))), xml, name="Jane")
    (scan,) = scans_of(path, Choices())
    list(write_scan(scan, tmp_path / "b.h5"))
    content = (tmp_path / "b.h5").read_bytes()
    assert not any(word in content for word in (b"Jane", b"Doe", b"4711"))
    path.write_bytes(path.read_bytes()[:-500])
    assert "Jane" not in refusal(path)


VARIANTS = {
    "plain": ["-m", "64", "-c", "4"],
    "odd and not oversampled": ["-m", "65", "-c", "3", "-O", "1"],
    "its own trajectory": ["-m", "64", "-c", "2", "-k"],
    "accelerated with noise and calibration": [
        *("-m", "64", "-c", "4", "-a", "2", "-w", "16", "-C", "-r", "2")
    ],
    "accelerated threefold": ["-m", "96", "-c", "8", "-a", "3", "-w", "24"],
}


@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS)
def test_debian_s_generator_gives_its_image(tmp_path, options):
    program = find_program("ismrmrd-tools", "ismrmrd_generate_cartesian_shepp_logan")
    path = tmp_path / "a.h5"
    command = [program, *options, "-n", "0", "-o", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    with h5py.File(path) as file:
        image = file["dataset/coil_images"][0]
    image = (image["real"] + 1j * image["imag"]).transpose(0, 2, 1)
    if "65" in options:  # it shifts odd images by a pixel, for it leaves out ifftshift
        image = np.roll(image, (-1, -1), (-2, -1))
    found = scans_of(path, Choices())
    times = int(dict(zip(options[::2], options[1::2], strict=False)).get("-a", 1))
    assert len(found) == times * (2 if "-r" in options else 1)
    for scan in found:
        kspace = fft2(image)
        if scan.sampled is not None:
            kspace = kspace * scan.sampled
        assert_same(kspace_of(scan), kspace[None])
        assert scan.target == (times == 1)
    if times == 2:
        assert found[0].sampled.sum() == 40
        assert found[0].sampled[24:40].all()


MEASURE = """
import sys
from pathlib import Path
from workbench.convert.readers import scans_of
from workbench.convert.scan import Choices
from workbench.convert.write import write_scan
def peak():  # of this process alone; getrusage knows its parent's as well
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
import scipy.fft, workbench.data.images
before = peak()
for number, scan in enumerate(scans_of(Path(sys.argv[1]), Choices())):
    for _ in write_scan(scan, Path(sys.argv[1]).with_name(f"{number}.h5")): pass
print(peak() - before, scan.shape)
"""


def test_memory_holds_a_slice_and_60_mb_of_a_larger_file(tmp_path):
    path, coils, x, y, slices = tmp_path / "a.h5", 8, 512, 128, 48
    types = ismrmrd.hdf5.acquisition_dtype
    with ismrmrd.Dataset(str(path)) as file:
        file.write_xml_header(header(coils=coils, x=x, y=y).encode())
    block, samples = np.zeros(slices, types), np.ones((coils, x, 2), np.float32)
    samples[:, x // 2] = 100
    block["head"]["number_of_samples"], block["head"]["center_sample"] = x, x // 2
    block["head"]["active_channels"] = coils
    block["head"]["idx"]["slice"] = np.arange(slices)
    with h5py.File(path, "a") as file:
        table = file["dataset"].create_dataset("data", (slices * y,), types, chunks=(8,))
        for step in range(y):
            block["head"]["idx"]["kspace_encode_step_1"] = step
            for each in block:
                each["data"] = samples.ravel() / (1 + abs(step - y // 2))
                each["traj"] = samples[:0].ravel()
            table[step * slices : (step + 1) * slices] = block
    size, slice_size = path.stat().st_size / 2**20, coils * x * y * 8 / 2**20
    assert size > 190
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True
    )
    grown = int(done.stdout.split()[0])
    # The writer transforms a slice to its image: a few copies of it.
    assert grown < 60 + 6 * slice_size < size / 2
