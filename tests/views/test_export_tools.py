"""What other people's programs make of the exports: dciodvfy of dicom3tools, and dcm2niix."""

import subprocess
from dataclasses import replace

import nibabel
import numpy as np
import pytest

from tests.programs import find_program
from tests.views.read_back import read_dicom_series, written
from workbench.views.export.exported import read_reconstructed
from workbench.views.export.geometry import SAGITTAL
from workbench.views.export.nifti import write_nifti

BROKEN = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
BROKEN[0, 3, 5:9] = [np.nan, np.inf, -np.inf, np.nan]


def geometry(known=(), **more):
    def change(source):
        found = dict(source.geometry.known) | dict(known)
        return {"geometry": replace(source.geometry, known=found, **more)}

    return change


def part(name):
    return geometry({"BodyPartExamined": name})


def images(change):
    return lambda source: {"images": change(source.images)}


def acquisition(name):
    def change(source):
        attributes = source.volume.attributes | {"acquisition": name}
        known = {"ProtocolName": "", "InversionTime": 2500.0}
        return {"volume": replace(source.volume, attributes=attributes), **geometry(known)(source)}

    return change


UNKNOWN = dict.fromkeys(("ProtocolName", "PatientPosition", "BodyPartExamined"), "")
# kind of series -> what it changes of a knee's
KINDS = {
    "knee": lambda _: {},
    "brain of fastMRI": lambda source: {
        "volume": replace(source.volume, path="multicoil_val/file_brain_AXT2_200_2000019.h5")
    },
    "T1": acquisition("AXT1"),
    "T1 after contrast agent": acquisition("AXT1POST"),
    "FLAIR": acquisition("AXFLAIR"),
    "sagittal": geometry(plane=SAGITTAL),
    "sequence unknown": acquisition(""),
    "one slice": images(lambda found: found[:1]),
    "odd": images(lambda found: found[:, :31, :27]),
    "oblong pixels": geometry(pixel=(440 / 64, 220 / 26)),
    "odd, oblong": lambda source: {
        **images(lambda found: found[:, :27, :31])(source),
        **geometry(pixel=(0.4375, 2 / 3), thickness=1 / 3)(source),
    },
    "zeros": images(np.zeros_like),
    "negative": images(lambda found: found - found.max() / 3),
    "all negative": images(lambda found: found - 2 * found.max()),
    "not finite": images(lambda _: BROKEN),
    "large": images(lambda found: found / found.max() * np.float32(1e38)),
    "small": images(lambda found: found * 1e-30),
    "thousands": images(lambda found: found * (4321 / found.max())),
    "long texts": lambda source: {
        "run": "run\n\\" + 100 * "long ",
        "sampling": 2000 * "s",
        **geometry({"ProtocolName": 100 * "λ", "PatientPosition": "on the head"})(source),
    },
    "breast": part("Breast"),
    "head": part("HEAD"),
    "spine": part("CSPINE"),
    "another language's knee": part("Knie"),
    "no part of a body": part("PHANTOM"),
    "body part in words": part("der linke Arm, zweimal"),
    "partitions": geometry(volumetric=True, thickness=0.7),
    "nothing known": lambda source: {"geometry": replace(source.geometry, known=UNKNOWN)},
}


@pytest.fixture(params=KINDS)
def source(request, reconstructed, in_project):
    found = reconstructed()
    source = read_reconstructed(found, found[0])
    return replace(source, **KINDS[request.param](source))


def test_other_programs_find_no_error_in_any_kind_of_series_and_make_our_nifti_of_it(
    source, tmp_path
):
    dciodvfy, dcm2niix = (
        find_program("dicom3tools", "dciodvfy"),
        find_program("dcm2niix", "dcm2niix"),
    )
    stored = written(source, tmp_path / "series")
    for file in (tmp_path / "series").iterdir():
        said = subprocess.run([dciodvfy, file], capture_output=True, text=True, check=False).stderr
        assert "MRImage" in said
        assert "Error" not in said, said
    back = read_dicom_series(tmp_path / "series")
    finite = np.where(np.isfinite(source.images), source.images, 0).astype(np.float64)
    span = max(finite.max(), 0) - min(finite.min(), 0)
    assert np.abs(back - finite).max() <= span / 65535 / 2 * 1.0001

    write_nifti(source, tmp_path / "ours.nii.gz")
    options = ("-b", "n", "-z", "n", "-f", "theirs", "-o", tmp_path)
    subprocess.run([dcm2niix, *options, tmp_path / "series"], capture_output=True, check=True)
    ours, theirs = (
        nibabel.as_closest_canonical(nibabel.load(tmp_path / name))
        for name in ("ours.nii.gz", "theirs.nii")
    )
    assert theirs.shape == ours.shape
    np.testing.assert_allclose(theirs.header.get_zooms(), ours.header.get_zooms(), rtol=1e-6)
    np.testing.assert_allclose(theirs.affine, ours.affine, rtol=1e-6, atol=1e-4)
    power = stored.RescaleType.removeprefix("value * ")
    values = theirs.get_fdata() / float(power if power != "US" else 1)
    expected = ours.get_fdata()
    expected[~np.isfinite(expected)] = 0
    np.testing.assert_allclose(values, expected, rtol=2e-6, atol=span / 65535)
