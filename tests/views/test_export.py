import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw

from tests.views.conftest import write
from tests.views.read_back import datasets, read_dicom_series, read_nifti, written
from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
from workbench.recon.results import ORDER, Results
from workbench.views.export.animation import write_gif
from workbench.views.export.dicom import write_dicom_series
from workbench.views.export.exported import NOTICE, read_reconstructed
from workbench.views.export.geometry import upright
from workbench.views.export.results import KINDS, export_results, make


@pytest.fixture
def results(reconstructed, in_project):
    return reconstructed()


@pytest.fixture
def source(results):
    """The knee's volume."""
    return read_reconstructed(results, results[0])


def exported(results, kind):
    list(export_results(results, (kind,)))
    return results.folder / "export" / kind


def series_of(results, name="file1000001"):
    return datasets(exported(results, "dicom") / name)


def brighter(first, second):
    return first.mean() > 1.2 * second.mean()


def test_dicom_reads_back_as_the_reconstruction_upright_and_scaled_as_it_says(results, source):
    series = series_of(results)
    back, images = read_dicom_series(results.folder / "export/dicom/file1000001"), source.images
    assert np.abs(back - images).max() <= images.max() / 65535 / 2 * 1.0001
    for dataset, image in zip(series, upright(images), strict=True):
        factor = float(dataset.RescaleType.removeprefix("value * "))
        values = pydicom.pixels.apply_rescale(dataset.pixel_array, dataset) / factor
        np.testing.assert_allclose(values, image, atol=images.max() / 65535)
        assert dataset.WindowWidth >= 1
        assert values.argmax() == image.argmax()
    assert brighter(*np.array_split(series[0].pixel_array, 2))  # the top of the patient in row 0


def test_dicom_objects_are_whole_valid_and_marked_as_research(results, monkeypatch):
    monkeypatch.setattr(pydicom.config.settings, "reading_validation_mode", pydicom.config.RAISE)
    series = [*series_of(results), *series_of(results, "file1000002")]
    assert len(series) == 3 + 4
    for dataset in series:
        dataset.walk(lambda _, element: element.value)  # decodes and validates every value
        assert dataset.file_meta.MediaStorageSOPClassUID.name == "MR Image Storage"
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY", "OTHER"]
        assert dataset.ContentQualification == "RESEARCH"
        assert NOTICE in dataset.ImageComments
        assert "Assumed" in dataset.ImageComments
        assert "synthetic" in dataset.StudyDescription


def test_dicom_names_nobody_and_claims_no_deidentification(source, tmp_path):
    attributes = source.volume.attributes | {"patient_id": "MRN-7654321"}
    volume = replace(source.volume, path="multicoil_val/Meier_Hans.h5", attributes=attributes)
    dataset = written(source, tmp_path / "series", volume=volume)
    assert dataset.PatientName == ""
    assert dataset.PatientID.startswith("VOLUME-")
    assert "PatientIdentityRemoved" not in dataset
    assert "DeidentificationMethod" not in dataset
    for file in (tmp_path / "series").iterdir():
        for secret in ("Meier", "Hans", "7654321", "fastMRI,"):
            assert secret.encode() not in file.read_bytes()


def test_volumes_of_one_name_in_two_folders_share_no_uid(source, tmp_path):
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID")
    first, second = (
        written(source, tmp_path / path, volume=replace(source.volume, path=f"{path}/a.h5"))
        for path in ("multicoil_val", "site_b/multicoil_val")
    )
    assert not any(first[name].value == second[name].value for name in names)


def with_acquisition(source, name, **more):
    attributes = source.volume.attributes | {"acquisition": name}
    return replace(source.volume, attributes=attributes, **more)


def test_the_side_of_a_knee_is_left_open_and_a_brain_has_none(source, tmp_path):
    path = "multicoil_val/file_brain_AXT2_200_2000019.h5"
    knee = written(source, tmp_path / "knee")
    volume = with_acquisition(source, "AXT2", path=path)
    brain = written(source, tmp_path / "brain", volume=volume)
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
    source, tmp_path, acquisition, protocol, inverts
):
    volume = with_acquisition(source, acquisition)
    known = {"InversionTime": 100.0, "ProtocolName": protocol}
    dataset = written(source, tmp_path / "series", known, volume=volume)
    assert ("IR" in dataset.ScanningSequence) == inverts
    assert ("InversionTime" in dataset) == inverts


def test_values_that_dicom_cannot_hold_are_zero_and_counted(source, tmp_path):
    images = source.images.copy()
    images[0, 3, 4:7] = [np.nan, np.inf, -np.inf]
    dataset = written(source, tmp_path / "series", images=images)
    assert "3 values were not finite" in dataset.ImageComments
    assert (read_dicom_series(tmp_path / "series")[0, 3, 4:7] == 0).all()


def test_dicom_geometry_is_the_header_s(results):
    knee, brain = series_of(results)[0], series_of(results, "file1000002")
    assert list(knee.PixelSpacing) == [160 / 32, 160 / 32]
    assert list(knee.ImageOrientationPatient) == [1, 0, 0, 0, 0, -1]
    first = brain[0]
    assert list(first.PixelSpacing) == [220 / 32, 220 / 32]
    assert list(first.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
    assert (first.RepetitionTime, first.EchoTime, first.PatientPosition) == (3000, 30, "HFS")
    places = np.array([each.ImagePositionPatient for each in brain])
    np.testing.assert_allclose(np.diff(places, axis=0), [[0, 0, 4.5]] * 3)
    assert first.SliceThickness == 4.5
    assert "SpacingBetweenSlices" not in first  # no header tells the gap
    assert "no gap between slices" in first.ImageComments
    np.testing.assert_allclose(places.mean(axis=0)[2], 0, atol=1e-6)


def test_uids_are_one_study_a_volume_one_series_a_run_and_always_the_same(results, reconstructed):
    def uids(found, name):
        series = datasets(exported(found, "dicom") / name)
        images = [each.SOPInstanceUID for each in series]
        assert len(set(images)) == len(series)
        assert len({each.SeriesInstanceUID for each in series}) == 1
        return series[0].StudyInstanceUID, series[0].SeriesInstanceUID, images

    first = uids(results, "file1000001")
    assert all(uid.is_valid for uid in (*first[:2], *first[2]))
    (results.folder / "export/exports.json").unlink()
    assert uids(results, "file1000001") == first
    assert uids(results, "file1000002")[0] != first[0]
    other_mask = uids(reconstructed(mask="random"), "file1000001")
    assert other_mask[0] == first[0]
    assert other_mask[1] != first[1]
    assert not set(other_mask[2]) & set(first[2])


def test_nifti_holds_the_very_floats_where_dicom_has_each_pixel(results):
    nifti = exported(results, "nifti")
    for result in results:
        file = nifti / f"{result.path.stem}.nii.gz"
        back, image = read_nifti(file), nibabel.load(file)
        assert back.dtype == np.float32
        assert (back == result.images()).all()
        series = series_of(results, result.path.stem)
        assert image.header.get_xyzt_units()[0] == "mm"
        for column, row, number in ((0, 0, 0), (3, 5, 1), (31, 31, 2)):
            right, down = np.reshape(series[number].ImageOrientationPatient, (2, 3)).astype(float)
            rows, columns = series[number].PixelSpacing
            first = np.array(series[number].ImagePositionPatient, float)
            place = first + right * column * columns + down * row * rows
            seen = image.affine @ [column, row, number, 1]
            np.testing.assert_allclose(seen[:3], place * [-1, -1, 1], atol=1e-4)


@pytest.mark.parametrize(("name", "axis"), [("file1000001", 2), ("file1000002", 1)])
def test_nifti_of_a_brain_has_its_front_in_front_and_of_a_knee_its_top_on_top(results, name, axis):
    image = nibabel.load(exported(results, "nifti") / f"{name}.nii.gz")
    image = nibabel.as_closest_canonical(image)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")
    lower, upper = np.array_split(image.get_fdata(), 2, axis)
    assert brighter(upper, lower)


def test_animation_goes_through_the_slices_and_back_upright(results):
    with Image.open(exported(results, "gif") / "file1000002.gif") as animation:
        assert animation.n_frames == 4 + 2
        assert (animation.info["duration"], animation.info["loop"]) == (150, 0)
        frame = np.asarray(animation.convert("L"))[18 : 18 + 256]  # 8 pixels for one
    top = np.percentile(results[1].targets(), 99.7)
    images = results[1].targets()[0], results[1].image(0)
    for image, left in zip(images, (0, 2 * (256 + 4)), strict=True):
        expected = np.rint(255 * (upright(image) / top).clip(0, 1)).repeat(8, 0).repeat(8, 1)
        assert (frame[:, left : left + 256] == expected).all()


def test_animation_says_what_is_not_finite(results, source, tmp_path, monkeypatch):
    written = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda pen, place, text, **look: (
            written.append(text), draw(pen, place, text, **look)
        )
    )  # fmt: skip
    write_gif(source, tmp_path / "a.gif")
    assert not any("finite" in text for text in written)
    path = tmp_path / source.result.path.name
    shutil.copy(source.result.path, path)
    with h5py.File(path, "a") as file:
        file["reconstruction"][1, 3, 4:6] = np.nan
    write_gif(replace(source, result=replace(source.result, path=path)), tmp_path / "b.gif")
    assert "2 values are not finite, and black" in " ".join(written)


@pytest.mark.parametrize(("kind", "start"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figures_are_written_as_files_of_their_kind(results, kind, start):
    files = list(exported(results, kind).iterdir())
    names = {path.name.partition("-")[0].partition(".")[0] for path in files}
    assert names == {"scores", "best", "median", "worst", "slices"}
    assert all(path.read_bytes().startswith(start) for path in files)


def test_there_is_one_best_slice_whatever_was_best_before(results):
    folder = exported(results, "png")
    turned = [
        replace(each, slice_ssim=tuple(-ssim for ssim in each.slice_ssim)) for each in results
    ]
    others = Results(results.folder, turned, results.order)
    names = sorted(path.name for path in folder.iterdir())
    pictures = [(folder / name).read_bytes() for name in ("best.png", "worst.png")]
    for result in results:  # as if made by other weights
        os.utime(result.path)
    exported(others, "png")
    assert sorted(path.name for path in folder.iterdir()) == names
    after = [(folder / name).read_bytes() for name in ("best.png", "worst.png")]
    assert pictures[0] != after[0]
    assert pictures[1] != after[1]


def test_exports_of_results_that_are_no_more_do_not_stay_beside_the_new_ones(
    results, in_project, tmp_path
):
    """With other weights and fewer volumes, the others' were yet of the weights before."""
    folder = tmp_path / "outputs/run/reconstructions" / results.folder.name
    shutil.copytree(results.folder, folder, ignore=shutil.ignore_patterns("export"))
    own = folder / "export/dicom/of_a_person"
    own.mkdir(parents=True)
    whole = Results(folder)
    broken = replace(whole[1], slice_ssim=(np.nan, *whole[1].slice_ssim[1:]))
    list(export_results(Results(folder, [whole[0], broken], whole.order), ("dicom", "png")))
    names = {path.name for path in (folder / "export").glob("*/*")}
    assert {"file1000001", "file1000002", "not-finite-file1000002.png"} < names
    # The same results, of which fewer are asked for: nothing has become wrong.
    (line,) = export_results(whole.first(1), ("dicom",))
    assert line.endswith("file1000001")
    assert (folder / "export/dicom/file1000002").exists()
    order = replace(whole.order, weights_sha256="f" * 64)
    order.write(folder)
    with h5py.File(whole[0].path, "a") as file:
        file.attrs["weights_sha256"] = np.bytes_(b"f" * 64)
    (line,) = export_results(Results(folder), ("dicom",))
    assert line.endswith("; 1 of older results removed")
    assert sorted(path.name for path in own.parent.iterdir()) == ["file1000001", "of_a_person"]
    (line,) = export_results(Results(folder), ("png",))
    assert sorted(path.name for path in (folder / "export/png").iterdir()) == [
        *("best.png", "median.png", "scores.png", "slices-file1000001.png", "worst.png")
    ]
    assert not any(
        "file1000002" in name for name in json.loads((own.parents[1] / "exports.json").read_text())
    )


def test_archive_holds_the_results_as_they_are(results):
    with zipfile.ZipFile(exported(results, "leaderboard").with_suffix(".zip")) as archive:
        assert sorted(archive.namelist()) == [f"reconstructions/{r.path.name}" for r in results]
        first = results[0].path
        assert archive.read(f"reconstructions/{first.name}") == first.read_bytes()


def test_volumes_without_target_are_exported_too(reconstructed, in_project):
    found = reconstructed("test")
    assert len(list(export_results(found, ("png", "gif", "dicom", "nifti")))) == 4
    names = [path.name for path in (found.folder / "export/png").iterdir()]
    assert names == ["slices-file1000003.png"]


def test_what_is_there_is_kept_and_what_changed_is_made_anew(results):
    file = exported(results, "nifti") / f"{results[0].path.stem}.nii.gz"
    before = file.stat().st_mtime_ns
    exported(results, "nifti")
    assert file.stat().st_mtime_ns == before
    with h5py.File(results[0].path, "a") as stored:
        stored["reconstruction"][0, 0, 0] = 0.5
    exported(results, "nifti")
    assert read_nifti(file)[0, 0, 0] == 0.5


@pytest.mark.parametrize("kind", ["dicom", "nifti"])
def test_a_volume_that_was_written_anew_lends_no_export_its_geometry(results, kind, in_project):
    path = in_project / "datasets/knee_multicoil/multicoil_val/file1000001.h5"
    before = path.read_bytes()
    write(path, "CORPD_FBK", field_of_view=(320, 320))
    with h5py.File(path, "a") as file:
        file["kspace"][...] = file["kspace"][()][::-1]
    (results.folder / "export/exports.json").unlink(missing_ok=True)
    try:
        with pytest.raises(ValueError, match=r"file1000001\.h5 of .* was written anew since"):
            exported(Results(results.folder), kind)
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("folder", [False, True])
def test_export_that_fails_leaves_what_was_there(tmp_path, folder):
    file = tmp_path / "a/one" if folder else tmp_path / "a"

    def write(path, text, *, fail=False):
        if folder:
            path.mkdir()
            path /= "one"
        path.write_text(text)
        if fail:
            raise OSError("disk full")

    make(tmp_path, "a", "1", lambda path: write(path, "old"))
    with pytest.raises(OSError, match="disk full"):
        make(tmp_path, "a", "2", lambda path: write(path, "new", fail=True))
    assert file.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a", "exports.json"]
    make(tmp_path, "a", "2", lambda path: write(path, "new"))
    assert file.read_text() == "new"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "a", "exports.json"]


def test_export_that_was_killed_leaves_no_half_series_beside_the_whole_one(results, tmp_path):
    """Viewers read every file of a folder, hidden ones as well: slices had come twice."""
    folder = tmp_path / "export"
    code = f"""
import os, pathlib
from workbench.views.export.results import make

def write(path):
    path.mkdir()
    (path / "0001.dcm").write_bytes(b"half")
    os.kill(os.getpid(), 9)

make(pathlib.Path({str(folder)!r}), "dicom/a", "1", write)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert len(list(folder.rglob("*.dcm"))) == 1
    source = read_reconstructed(results, results[0])
    make(folder, "dicom/a", "1", lambda path: write_dicom_series(source, path))
    assert len(list(folder.rglob("*.dcm"))) == len(source.images)


def test_names_in_any_script_are_written_and_no_text_is_two_values(source, tmp_path):
    known = {"ProtocolName": "Kopf für λ\\TSE"}
    dataset = written(source, tmp_path / "series", known, run="knée/λ")
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert dataset.ProtocolName == "Kopf für λ/TSE"
    assert dataset.SeriesDescription == "RESEARCH, not clinical: knée/λ"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "report"])
def test_a_full_disk_is_named_in_one_line(results, kind, small_disk):
    small_disk("4k", results.folder / "export")
    with pytest.raises(OSError, match="No space left on device") as info:
        exported(results, kind)
    assert str(results.folder.name) in str(info.value)
    assert "\n" not in str(info.value)


@pytest.fixture
def away(results, in_project):
    """The dataset in another place; other tests find it, and the results, as they were."""
    dataset, away = in_project / "datasets/knee_multicoil", in_project / "away"
    order = (results.folder / ORDER).read_text()
    dataset.rename(away)
    yield away
    away.rename(dataset)
    (results.folder / ORDER).write_text(order)


def test_export_without_the_dataset_says_what_is_missing_and_what_to_do(results, away):
    said = (
        r"export=dicom, png: .* datasets/knee_multicoil does not hold it .* local_dataset=DATASET"
    )
    with pytest.raises(FileNotFoundError, match=said):
        list(export_results(results, ("dicom", "leaderboard", "png")))
    assert len(list(export_results(results, ("leaderboard", "report")))) == 2
    plan = plan_reconstruction(weights="weights.pt", local_dataset=str(away))
    list(reconstruct(plan))
    assert plan.folder == results.folder
    assert not plan.order.volumes
    assert len(list(export_results(Results(plan.folder), ("dicom",)))) == 1
