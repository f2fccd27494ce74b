"""fastMRI prostate: files of the published form, synthesised from a known image."""

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.convert.reading import image_of, kspace_of, only_scan, refusal
from tests.recon.conftest import TINY
from workbench.catalog import DATASETS
from workbench.compute.training import plan_training
from workbench.convert.plan import Ask, plan_conversion
from workbench.convert.readers import scans_of
from workbench.convert.run import convert
from workbench.convert.scan import Choices, RefusedError
from workbench.convert.write import write_scan
from workbench.data.cache import open_cache
from workbench.data.folders import find_dataset
from workbench.pages.explore import show_findings
from workbench.recon import run as rank
from workbench.views.explore import slices_figure
from workbench.views.explored import open_slice

READOUT, LINES, FIRST, RECON, COILS = 64, 45, 10, 32, 3
HEADER = f"""<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
<subjectInformation><patientName>Meier</patientName></subjectInformation>
<encoding><encodedSpace><matrixSize><x>{READOUT}</x><y>{READOUT}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>360</x><y>360</y><z>3</z></fieldOfView_mm></encodedSpace>
<reconSpace><matrixSize><x>{RECON}</x><y>{RECON}</y><z>1</z></matrixSize>
<fieldOfView_mm><x>180</x><y>180</y><z>3</z></fieldOfView_mm></reconSpace>
<encodingLimits><kspace_encoding_step_1><minimum>0</minimum><maximum>{LINES - 1}</maximum>
<center>22</center></kspace_encoding_step_1></encodingLimits>
<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"""


def coil_images(slices, seed):
    """Make complex coil images (slices, coils, READOUT, READOUT): an ellipse, heard by coils."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : READOUT * 1j, -1 : 1 : READOUT * 1j]
    body = (np.hypot(1.6 * y, 1.3 * x) < 0.8) * (1 + 0.4 * np.sin(9 * x + 7 * y))
    sizes = 1 + 0.3 * rng.random((slices, COILS, 1, 1))
    heard = np.stack([np.exp(-np.hypot(y - np.cos(c), x - np.sin(c)) + 1j * c) for c in range(3)])
    return sizes * body * heard * 2e-4


def write_t2(path, slices=4, seed=0, change=None, noise=1e-6):
    """Write a T2 file as NYU publishes it; return the k-space that was measured, padded."""
    rng = np.random.default_rng(seed)
    full = kspace_of(coil_images(slices, seed))
    full[..., :FIRST] = full[..., FIRST + LINES :] = 0
    lines = full[..., FIRST : FIRST + LINES]
    noise = noise * rng.normal(size=lines.shape)
    averages = np.zeros((3, *lines.shape), np.complex64)
    averages[0, ..., 1::2] = (lines + noise)[..., 1::2]
    averages[1, ..., 0::2] = lines[..., 0::2]
    averages[2, ..., 1::2] = (lines - noise)[..., 1::2]
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["kspace"] = averages if change is None else change(averages)
        file["ismrmrd_header"] = HEADER
        file["calibration_data"] = np.ones((slices, COILS, READOUT, 32), np.complex64)
        file["reconstruction_rss"] = np.zeros((slices, RECON, RECON), np.float32)
        file.attrs.update(acquisition="AXT2", patient_id="x", max=1.0, norm=1.0)
    return full


def write_labels(path, patients):
    """Write NYU's table of labels: patient -> (split, grades)."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        columns = ["", "fastmri_pt_id", "slice", "PIRADS", "fastmri_rawfile", "data_split"]
        rows.writerow([*columns, "folder"])
        for patient, (split, grades) in patients.items():
            for number, grade in enumerate(grades, 1):
                name = f"file_prostate_AXT2_{patient:03}.h5"
                rows.writerow([0, patient, number, grade, name, split, "fastMRI_prostate_T2_IDS"])


PATIENTS = {
    1: ("training", (1, 1, 4, 4)),
    2: ("training", (1, 1, 1, 1)),
    3: ("validation", (1, 3, 1, 1)),
    4: ("test", (1, 1, 1, 1)),
}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A project with prostate_raw, its labels, and the dataset that is made of it."""
    root = tmp_path_factory.mktemp("project")
    raw, full = root / "datasets/prostate_raw", {}
    for patient in PATIENTS:
        name = f"file_prostate_AXT2_{patient:0{4 if patient == 2 else 3}}.h5"
        full[patient] = write_t2(raw / "fastMRI_prostate_T2_IDS_001_020" / name, seed=patient)
    write_labels(raw / "t2_slice_level_labels.csv", PATIENTS)
    plan = plan_conversion(Ask(raw, root / "datasets/prostate", root / "private", scale=1.0))
    assert plan.refusals == ()
    assert list(convert(plan)) == []
    return root, plan, full


def volume_of(project, patient):
    root, plan, _ = project
    (item,) = (item for item in plan.items if item.scan.person == f"prostate {patient}")
    dataset = open_cache(root / "datasets/prostate")
    return dataset, next(volume for volume in dataset if volume.path == item.path)


def test_averages_become_the_measured_kspace_and_its_image(project):
    for patient, full in project[2].items():
        dataset, volume = volume_of(project, patient)
        assert volume.kspace.shape == (4, COILS, READOUT, READOUT)
        assert volume.acquired == (FIRST, FIRST + LINES)
        middle = slice((READOUT - RECON) // 2, (READOUT + RECON) // 2)
        expected = image_of(full)[:, middle, middle]
        with h5py.File(dataset.file(volume)) as file:
            kspace = file["kspace"][()]
            target = file["reconstruction_rss"][()]
            assert file.attrs["max"] == target.max()
            assert file["calibration_data"].shape == (4, COILS, READOUT, 32)
        np.testing.assert_allclose(kspace, full, rtol=0, atol=1e-5 * np.abs(full).max())
        np.testing.assert_allclose(target, expected, rtol=0, atol=1e-5 * expected.max())


def test_official_split_and_grades_come_from_the_labels(project):
    splits = {"training": "train", "validation": "val", "test": "test"}
    for patient, (split, grades) in PATIENTS.items():
        _, volume = volume_of(project, patient)
        assert volume.split == splits[split]
        assert tuple(volume.attributes["pirads"]) == grades
        assert volume.acquisition == "AXT2"


def test_volumes_say_nothing_of_the_person(project):
    dataset, volume = volume_of(project, 2)
    content = Path(dataset.file(volume)).read_bytes()
    for secret in (b"Meier", b"AXT2_0002", b"prostate 2", b"fastMRI_prostate"):
        assert secret not in content


def test_grades_are_shown_beside_the_slices(project):
    dataset, volume = volume_of(project, 1)
    seen = open_slice(dataset, volume.name, 2)
    (said,) = show_findings(seen)
    assert said == "PI-RADS of slice 2: 4; the highest is 4, on slices 2, 3"
    titles = [axes.get_title() for axes in slices_figure(seen).axes]
    assert "slice 3, PI-RADS 4" in titles
    dataset, volume = volume_of(project, 3)
    (said,) = show_findings(open_slice(dataset, volume.name, 0))
    assert said == "PI-RADS of slice 0: 1; the highest is 3, on slice 1"
    dataset, volume = volume_of(project, 4)
    (said,) = show_findings(open_slice(dataset, volume.name, 0))
    assert said == "PI-RADS of slice 0: 1; the highest is 1"


def test_a_network_trains_by_the_name_prostate(project, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(project[0]))
    plan = plan_training(
        model="prostate", name="tiny", epochs=1, sample_rate=0.2, target="local", **TINY
    )
    assert plan.job.dataset == str(project[0] / "datasets/prostate")
    rank.fit(plan.job, plan.run.folder)
    (row,) = plan.run.metrics
    assert 0 < float(row["val_ssim"]) < 1


def test_official_counts_are_those_of_the_labels():
    counts = DATASETS["prostate"].counts
    assert sum(volumes for volumes, _ in counts.values()) == 312
    assert sum(slices for _, slices in counts.values()) == 9508


def test_a_missing_prostate_says_how_it_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    how = "workbench convert source=datasets/prostate_raw dataset=prostate"
    with pytest.raises(FileNotFoundError, match=how):
        find_dataset("prostate")


def test_frames_that_interleave_are_not_averaged_as_a_prostate_scan_s(tmp_path):
    """As of a heart that was measured every fourth line a frame, beside fastMRI's header."""

    def frames(averages):
        whole = averages.sum(0)
        return np.stack([whole * (np.arange(LINES) % 4 == frame) for frame in range(4)])

    write_t2(tmp_path / "cine.h5", change=frames)
    said = refusal(tmp_path / "cine.h5")
    assert said.startswith("has 4 k-spaces of other columns, and a fastMRI prostate T2 has")
    write_t2(tmp_path / "renamed.h5")
    assert only_scan(tmp_path / "renamed.h5").target


def test_without_labels_people_are_split_and_a_remark_says_so(tmp_path):
    write_t2(tmp_path / "file_prostate_AXT2_0012.h5")
    scan = only_scan(tmp_path / "file_prostate_AXT2_0012.h5")
    assert (scan.person, scan.split, scan.attributes) == ("prostate 12", None, {})
    assert any("split by person" in remark for remark in scan.remarks)
    assert any("ghosts" in remark for remark in scan.remarks)


def test_labels_of_another_number_of_slices_are_left_out(tmp_path):
    write_t2(tmp_path / "file_prostate_AXT2_001.h5")
    write_labels(tmp_path / "labels.csv", {1: ("test", (1, 1, 1))})
    scan = only_scan(tmp_path / "file_prostate_AXT2_001.h5")
    assert (scan.split, scan.attributes) == ("test", {})
    assert any("labels for 3 of 4 slices" in remark for remark in scan.remarks)


def test_other_patterns_are_taken_as_they_are_found(tmp_path):
    """Averages 0 and 1 change places, and average 2 measured everything."""

    def change(averages):
        averages = averages[[1, 0, 2]]
        averages[2] = averages[0] + averages[1]
        return averages

    full = write_t2(tmp_path / "file_prostate_AXT2_001.h5", change=change, noise=0)
    scan = only_scan(tmp_path / "file_prostate_AXT2_001.h5")
    (values,) = scan.read((1,))
    np.testing.assert_allclose(values, full[1], rtol=0, atol=1e-5 * np.abs(full).max())
    assert scan.remarks[0].endswith("that measured it (23, 22, 45 columns)")
    assert scan.target


def test_columns_that_nobody_measured_leave_a_mask_and_no_target(tmp_path):
    def change(averages):
        averages[1, ..., 4] = 0
        return averages

    write_t2(tmp_path / "file_prostate_AXT2_001.h5", change=change)
    scan = only_scan(tmp_path / "file_prostate_AXT2_001.h5")
    assert not scan.target
    assert np.flatnonzero(~scan.sampled[FIRST : FIRST + LINES]).tolist() == [4]


def test_a_slice_that_measures_other_columns_is_refused(tmp_path):
    def change(averages):
        averages[:, 3] = averages[[1, 0, 2], 3]
        return averages

    write_t2(tmp_path / "file_prostate_AXT2_001.h5", change=change)
    scan = only_scan(tmp_path / "file_prostate_AXT2_001.h5")
    with pytest.raises(RefusedError, match="other columns in slice 3"):
        list(scan.read(range(4)))


def test_calibration_turns_over_with_the_images(tmp_path):
    write_t2(tmp_path / "file_prostate_AXT2_001.h5")
    lines = np.random.default_rng(0).normal(size=(4, COILS, READOUT, 32)).astype(np.complex64)
    with h5py.File(tmp_path / "file_prostate_AXT2_001.h5", "a") as file:
        file["calibration_data"][()] = lines
    list(
        write_scan(only_scan(tmp_path / "file_prostate_AXT2_001.h5"), tmp_path / "a.h5", flip=True)
    )
    with h5py.File(tmp_path / "a.h5") as file:
        found = np.fft.ifft(np.fft.ifftshift(file["calibration_data"][()], axes=-2), axis=-2)
    image = np.fft.ifft(np.fft.ifftshift(lines, axes=-2), axis=-2)
    np.testing.assert_allclose(found, np.roll(np.flip(image, -2), 1, -2), rtol=0, atol=1e-6)


def test_a_file_of_another_form_is_refused_by_name(tmp_path):
    (tmp_path / "a.h5").write_text("no HDF5 at all")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["kspace"] = np.ones((2, 3, 8, 8), np.complex64)
    for name in ("a.h5", "b.h5"):
        with pytest.raises(RefusedError, match="is not a fastMRI prostate T2 file"):
            scans_of(tmp_path / name, Choices(), "prostate")


def with_maps(file):
    file["coil_sens_maps"] = np.zeros(3)


def with_epi(file):
    file["ismrmrd_header"][()] = HEADER.replace("cartesian", "epi")


def with_many_averages(file):
    del file["kspace"]
    file["kspace"] = np.ones((50, 2, 2, 20, 15), np.complex64)


def with_echoes(file):
    whole = file["kspace"][0] + file["kspace"][1]
    file["kspace"][()] = np.stack([whole, 0.7 * whole, 0.5 * whole])


def with_a_centre_elsewhere(file):
    file["kspace"][()] = np.roll(file["kspace"][()], 10, -1)


def with_nothing(file):
    file["kspace"][()] = 0


def with_fewer_lines(file):
    values = file["kspace"][..., 1:]
    del file["kspace"]
    file["kspace"] = values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_maps, r"is a diffusion scan .* an EPI \(it holds coil_sens_maps\): .* NYU's own"),
        (with_epi, r"an EPI \(it holds a trajectory epi\)"),
        (with_many_averages, r"an EPI \(it holds 50 averages\)"),
        (with_echoes, "has 3 k-spaces of the same columns, and a fastMRI prostate T2 has averages"),
        (with_a_centre_elsewhere, "has its strongest column 10 beside the middle"),
        (with_nothing, "holds nothing but zeros in its middle slice"),
        (with_fewer_lines, "k-space of 64x44, and its header speaks of 45 lines of 64x64"),
    ],
)
def test_what_is_no_t2_scan_is_refused_by_what_it_holds(tmp_path, change, message):
    path = tmp_path / "file_prostate_AXT2_001.h5"
    write_t2(path)
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(RefusedError, match=message):
        scans_of(path, Choices())
