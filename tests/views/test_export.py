import zipfile
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image

from workbench.views.export.animation import write_animation
from workbench.views.export.dicom import first_pixel, read_dicom_series, write_dicom_series
from workbench.views.export.exported import NOTICE, Exports, read_reconstructed
from workbench.views.export.nifti import affine, read_nifti
from workbench.views.export.results import KINDS, export_kinds, export_results
from workbench.views.orientation import upright


@pytest.fixture
def results(reconstructed, in_project):
    return reconstructed()


def exported(results, kind):
    found = results
    list(export_results(found, (kind,)))
    return found.folder / "export"


@pytest.mark.parametrize(
    ("text", "kinds"), [(None, ()), ("png", ("png",)), (" DICOM, gif,dicom", ("dicom", "gif"))]
)
def test_kinds_are_read(text, kinds):
    assert export_kinds(text) == kinds


@pytest.mark.parametrize("wrong", ["jpeg", "png;svg", 3, True])
def test_wrong_kind_is_named_with_those_there_are(wrong):
    with pytest.raises(ValueError, match=r"export=.*png, svg, gif, dicom, nifti"):
        export_kinds(wrong)


def test_dicom_reads_back_as_the_reconstruction(results):
    found = results
    folder = exported(results, "dicom")
    for result in found:
        images = read_reconstructed(found, result).images
        back = read_dicom_series(folder / "dicom" / result.path.stem)
        assert back.shape == images.shape
        assert np.abs(back - images).max() <= images.max() / 65535 / 2 * 1.0001


def test_rescaled_dicom_is_the_reconstruction_times_the_power_of_ten_it_names(results):
    found = results
    source = read_reconstructed(found, found[0])
    folder = exported(results, "dicom") / "dicom" / found[0].path.stem
    for number in range(len(source.images)):
        dataset = pydicom.dcmread(folder / f"{number + 1:04d}.dcm")
        factor = float(dataset.RescaleType.removeprefix("value * "))
        values = pydicom.pixels.apply_rescale(dataset.pixel_array, dataset) / factor
        seen = upright(source.images[number])
        np.testing.assert_allclose(values, seen, atol=source.images.max() / 65535)
        assert dataset.WindowWidth >= 1
        assert values.argmax() == seen.argmax()


def test_dicom_shows_the_top_of_the_patient_in_row_0(results):
    found = results
    folder = exported(results, "dicom")
    image = pydicom.dcmread(folder / "dicom" / found[0].path.stem / "0001.dcm").pixel_array
    assert image[: len(image) // 2].mean() > 1.2 * image[len(image) // 2 :].mean()


# PS3.3 of the modules of MR Image Storage: what has to be there with a value.
REQUIRED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("FrameOfReferenceUID", "ImageType", "Rows", "Columns", "BitsAllocated", "BitsStored"),
    *("HighBit", "PixelRepresentation", "SamplesPerPixel", "PhotometricInterpretation"),
    *("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient", "ScanningSequence"),
    *("SequenceVariant", "PixelData", "RescaleSlope", "RescaleIntercept", "RescaleType"),
)
PRESENT = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "ReferringPhysicianName", "StudyID", "SeriesNumber", "Manufacturer"),
    *("InstanceNumber", "PositionReferenceIndicator", "SliceThickness", "EchoTime"),
    *("EchoTrainLength", "MRAcquisitionType", "ScanOptions", "RepetitionTime", "PatientPosition"),
)


def test_dicom_objects_are_whole_valid_and_marked_as_research(results, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    folder = exported(results, "dicom")
    files = sorted((folder / "dicom").glob("*/*.dcm"))
    assert len(files) == 3 + 4
    for file in files:
        dataset = pydicom.dcmread(file)
        dataset.walk(lambda _, element: element.value)  # decodes and validates every value
        assert dataset.file_meta.MediaStorageSOPClassUID.name == "MR Image Storage"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        for name in REQUIRED:
            assert dataset[name].value not in (None, ""), name
        for name in PRESENT:
            assert name in dataset, name
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert dataset.ContentQualification == "RESEARCH"
        assert NOTICE in dataset.ImageComments
        assert "Assumed" in dataset.ImageComments
        assert "synthetic" in dataset.StudyDescription


def test_dicom_names_nobody_and_claims_no_deidentification(results, tmp_path):
    found = results
    source = read_reconstructed(found, found[0])
    attributes = source.volume.attributes | {"patient_id": "MRN-7654321"}
    volume = replace(source.volume, path="multicoil_val/Meier_Hans.h5", attributes=attributes)
    write_dicom_series(replace(source, volume=volume), tmp_path / "series")
    for file in (tmp_path / "series").iterdir():
        dataset = pydicom.dcmread(file)
        assert dataset.PatientName == ""
        assert dataset.PatientID.startswith("VOLUME-")
        assert "PatientIdentityRemoved" not in dataset
        assert "DeidentificationMethod" not in dataset
        for secret in ("Meier", "Hans", "7654321", "fastMRI,"):
            assert secret.encode() not in file.read_bytes()


def test_volumes_of_one_name_in_two_folders_share_no_uid(results, tmp_path):
    found = results
    source = read_reconstructed(found, found[0])
    known = {}
    for folder in ("multicoil_val", "site_b/multicoil_val"):
        volume = replace(source.volume, path=f"{folder}/{source.volume.name}")
        write_dicom_series(replace(source, volume=volume), tmp_path / folder)
        dataset = pydicom.dcmread(tmp_path / folder / "0001.dcm")
        for name in ("Study", "Series", "SOP"):
            known.setdefault(f"{name}InstanceUID", set()).add(dataset[f"{name}InstanceUID"].value)
        known.setdefault("patient", set()).add(dataset.PatientID)
    assert {len(found) for found in known.values()} == {2}


def test_the_side_of_a_knee_is_left_open_and_a_brain_has_none(results, tmp_path):
    found = results
    knee = read_reconstructed(found, found[0])
    path = "multicoil_val/file_brain_AXT2_200_2000019.h5"
    attributes = knee.volume.attributes | {"acquisition": "AXT2"}
    brain = replace(knee, volume=replace(knee.volume, path=path, attributes=attributes))
    write_dicom_series(knee, tmp_path / "knee")
    write_dicom_series(brain, tmp_path / "brain")
    knee, brain = (pydicom.dcmread(tmp_path / name / "0001.dcm") for name in ("knee", "brain"))
    assert (knee.BodyPartExamined, knee.Laterality) == ("KNEE", "")
    assert brain.BodyPartExamined == "BRAIN"
    assert "Laterality" not in brain


@pytest.mark.parametrize(
    ("acquisition", "protocol", "inverts"),
    [
        ("AXFLAIR", "", True),
        ("AXT2", "t2_tirm_tra_dark-fluid", True),
        ("COR_STIR", "", True),
        ("AXT2", "ir_tse", True),
        ("CORPD_FBK", "", False),
        ("AXT2", "first try", False),
    ],
)
def test_inversion_time_is_there_for_inversion_recovery_alone(
    results, tmp_path, acquisition, protocol, inverts
):
    found = results
    source = read_reconstructed(found, found[0])
    attributes = source.volume.attributes | {"acquisition": acquisition}
    write_dicom_series(
        replace(
            source,
            volume=replace(source.volume, attributes=attributes),
            geometry=replace(source.geometry, inversion_time=100.0, protocol=protocol),
        ),
        tmp_path / "series",
    )
    dataset = pydicom.dcmread(tmp_path / "series/0001.dcm")
    assert ("IR" in dataset.ScanningSequence) == inverts
    assert ("InversionTime" in dataset) == inverts


def test_values_that_dicom_cannot_hold_are_zero_and_counted(results, tmp_path):
    found = results
    source = read_reconstructed(found, found[0])
    images = source.images.copy()
    images[0, 3, 4:7] = [np.nan, np.inf, -np.inf]
    write_dicom_series(replace(source, images=images), tmp_path / "series")
    dataset = pydicom.dcmread(tmp_path / "series/0001.dcm")
    assert "3 values were no finite numbers" in dataset.ImageComments
    assert (read_dicom_series(tmp_path / "series")[0, 3, 4:7] == 0).all()


def test_dicom_geometry_is_the_header_s(results):
    folder = exported(results, "dicom") / "dicom"
    knee, brain = (
        [pydicom.dcmread(file) for file in sorted((folder / name).glob("*.dcm"))]
        for name in ("file1000001", "file1000002")
    )
    assert list(knee[0].PixelSpacing) == [160 / 32, 160 / 32]
    assert list(knee[0].ImageOrientationPatient) == [1, 0, 0, 0, 0, -1]
    assert list(brain[0].PixelSpacing) == [220 / 32, 220 / 32]
    assert list(brain[0].ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert (brain[0].RepetitionTime, brain[0].EchoTime, brain[0].PatientPosition) == (
        3000,
        30,
        "HFS",
    )
    places = np.array([each.ImagePositionPatient for each in brain])
    np.testing.assert_allclose(np.diff(places, axis=0), [[0, 0, 4.5]] * 3)
    assert brain[0].SliceThickness == 4.5
    assert "SpacingBetweenSlices" not in brain[0]  # no header tells the gap
    assert "no gap between slices" in brain[0].ImageComments
    np.testing.assert_allclose(places.mean(axis=0)[2], 0, atol=1e-6)


def test_uids_are_one_study_a_volume_one_series_a_run_and_always_the_same(
    results, reconstructed, in_project
):
    def uids(found, name):
        folder = exported(found, "dicom") / "dicom" / name
        datasets = [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]
        images = [each.SOPInstanceUID for each in datasets]
        assert len(set(images)) == len(datasets)
        assert len({each.SeriesInstanceUID for each in datasets}) == 1
        return datasets[0].StudyInstanceUID, datasets[0].SeriesInstanceUID, images

    found = results
    first = uids(results, "file1000001")
    assert all(uid.is_valid for uid in (*first[:2], *first[2]))
    (found.folder / "export/exports.json").unlink()
    assert uids(results, "file1000001") == first
    other_volume = uids(results, "file1000002")
    assert other_volume[0] != first[0]
    other_mask = uids(reconstructed(mask="random"), "file1000001")
    assert other_mask[0] == first[0]
    assert other_mask[1] != first[1]
    assert not set(other_mask[2]) & set(first[2])


def test_nifti_holds_the_very_floats(results):
    found = results
    folder = exported(results, "nifti")
    for result in found:
        with h5py.File(result.path) as file:
            images = file["reconstruction"][()]
        back = read_nifti(folder / "nifti" / f"{result.path.stem}.nii.gz")
        assert back.dtype == np.float32
        assert (back == images).all()


def test_nifti_and_dicom_agree_where_each_pixel_lies(results):
    found = results
    folder = exported(results, "nifti")
    for result in found:
        source = read_reconstructed(found, result)
        image = nibabel.load(folder / "nifti" / f"{result.path.stem}.nii.gz")
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(image.affine, affine(source), atol=1e-4)
        rows, columns = source.geometry.pixel
        for column, row, number in ((0, 0, 0), (3, 5, 1), (31, 31, 2)):
            place = (
                first_pixel(source, number)
                + np.array(source.plane.right) * column * columns
                + np.array(source.plane.down) * row * rows
            )
            seen = image.affine @ [column, row, number, 1]
            np.testing.assert_allclose(seen[:3], place * [-1, -1, 1], atol=1e-4)


def test_nifti_of_a_brain_has_its_front_in_front_and_of_a_knee_its_top_on_top(results):
    folder = exported(results, "nifti") / "nifti"
    knee, brain = (
        nibabel.as_closest_canonical(nibabel.load(folder / f"{name}.nii.gz"))
        for name in ("file1000001", "file1000002")
    )
    assert nibabel.aff2axcodes(knee.affine) == nibabel.aff2axcodes(brain.affine) == ("R", "A", "S")
    values = brain.get_fdata()
    half = values.shape[1] // 2
    assert values[:, half:].mean() > 1.2 * values[:, :half].mean()
    values = knee.get_fdata()
    half = values.shape[2] // 2
    assert values[..., half:].mean() > 1.2 * values[..., :half].mean()


def test_animation_goes_through_the_slices_and_back_upright(results):
    found = results
    folder = exported(results, "gif")
    with Image.open(folder / "gif" / f"{found[1].path.stem}.gif") as animation:
        assert animation.n_frames == 4 + 2
        assert animation.info["duration"] == 150
        assert animation.info["loop"] == 0
        frame = np.asarray(animation.convert("L")).astype(float)
    pane = frame[18:-18, : frame.shape[1] // 2]
    assert pane[: len(pane) // 2].mean() > 1.2 * pane[len(pane) // 2 :].mean()


def test_animation_s_pixels_are_the_image_s(tmp_path):
    images = np.linspace(0, 1, 2 * 256 * 8).reshape(2, 256, 8)
    write_animation(tmp_path / "a.gif", {"one": images})
    with Image.open(tmp_path / "a.gif") as animation:
        frame = np.asarray(animation.convert("L"))[18:-18, :8]
    top = np.percentile(images, 99.7)
    expected = np.rint(255 * (upright(images[0]) / top).clip(0, 1))
    assert (frame == expected).all()


def test_panes_that_differ_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"panes of shapes \[\(1, 4, 4\), \(1, 5, 4\)\]"):
        write_animation(tmp_path / "a.gif", {"a": np.ones((1, 4, 4)), "b": np.ones((1, 5, 4))})


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_figures_are_written_as_files_of_their_kind(results, kind):
    folder = exported(results, kind) / kind
    names = {path.name.partition("-")[0].partition(".")[0] for path in folder.iterdir()}
    assert names == {"scores", "best", "median", "worst", "slices"}
    start = {"png": b"\x89PNG", "svg": b"<?xml"}[kind]
    assert all(path.read_bytes().startswith(start) for path in folder.iterdir())


def test_archive_holds_the_results_as_they_are(results):
    found = results
    with zipfile.ZipFile(exported(results, "leaderboard") / "leaderboard.zip") as archive:
        assert sorted(archive.namelist()) == [f"reconstructions/{r.path.name}" for r in found]
        assert archive.read(f"reconstructions/{found[0].path.name}") == found[0].path.read_bytes()


def test_volumes_without_target_are_exported_too(reconstructed, in_project):
    found = reconstructed("test")
    lines = list(export_results(found, ("png", "gif", "dicom", "nifti")))
    assert len(lines) == 4
    assert [path.name for path in (found.folder / "export/png").iterdir()] == [
        "slices-file1000003.png"
    ]


def test_what_is_there_is_kept_and_what_changed_is_made_anew(results):
    found = results
    folder = exported(results, "nifti")
    file = folder / "nifti" / f"{found[0].path.stem}.nii.gz"
    before = file.stat().st_mtime_ns
    exported(results, "nifti")
    assert file.stat().st_mtime_ns == before
    with h5py.File(found[0].path, "a") as stored:
        stored["reconstruction"][0, 0, 0] = 0.5
    exported(results, "nifti")
    assert read_nifti(file)[0, 0, 0] == 0.5


@pytest.mark.parametrize("folder", [False, True])
def test_export_that_fails_leaves_what_was_there(tmp_path, folder):
    exports = Exports(tmp_path)

    def write(text, fail):
        def to(path):
            if folder:
                path.mkdir()
                (path / "one").write_text(text)
            else:
                path.write_text(text)
            if fail:
                raise OSError("disk full")

        return to

    exports.make("a", "1", write("old", fail=False))
    with pytest.raises(OSError, match="disk full"):
        exports.make("a", "2", write("new", fail=True))
    read = (tmp_path / "a/one" if folder else tmp_path / "a").read_text
    assert read() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "exports.json"]
    Exports(tmp_path).make("a", "2", write("new", fail=False))
    assert read() == "new"


def test_names_in_any_script_are_written_and_no_text_is_two_values(results, tmp_path):
    found = results
    source = read_reconstructed(found, found[0])
    geometry = replace(source.geometry, protocol="Kopf für λ\\TSE")
    write_dicom_series(replace(source, run="knée/λ", geometry=geometry), tmp_path / "series")
    dataset = pydicom.dcmread(next((tmp_path / "series").glob("*.dcm")))
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert dataset.ProtocolName == "Kopf für λ/TSE"
    assert dataset.SeriesDescription == "RESEARCH, not clinical: knée/λ"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "report"])
def test_a_full_disk_is_named_in_one_line(results, kind, small_disk):
    found = results
    small_disk("4k", found.folder / "export")
    with pytest.raises(OSError, match="No space left on device") as info:
        exported(results, kind)
    assert str(found.folder.name) in str(info.value)
    assert "\n" not in str(info.value)
