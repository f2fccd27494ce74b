"""The writer: a volume in fastMRI's form, whole or not at all, with a header of allowed fields."""

import h5py
import numpy as np
import pytest
from fastmri import complex_abs, ifft2c, rss
from fastmri.data.mri_data import SliceDataset as ReferenceDataset
from fastmri.data.transforms import center_crop, to_tensor

from workbench.convert.header import Header, known_fields
from workbench.convert.scan import RefusedError, Scan
from workbench.convert.write import slices_of, turned_over, write_scan
from workbench.data.cache import open_cache
from workbench.data.header import parse_xml
from workbench.data.images import centered_fft2, centered_ifft2

PERSONAL = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <subjectInformation><patientName>Doe^Jane</patientName><patientID>4711</patientID>
  <patientBirthdate>1970-01-01</patientBirthdate></subjectInformation>
 <studyInformation><studyDate>2024-02-03</studyDate><studyID>77</studyID></studyInformation>
 <measurementInformation><measurementID>m_99_4711</measurementID>
  <patientPosition>HFS</patientPosition><protocolName>Knee of Jane Doe</protocolName>
  <frameOfReferenceUID>1.2.840.99</frameOfReferenceUID></measurementInformation>
 <acquisitionSystemInformation><systemVendor>Jane Doe, 1970</systemVendor>
  <systemModel>Aera</systemModel><systemFieldStrength_T>1.5</systemFieldStrength_T>
  <institutionName>St Mary</institutionName><deviceID>D-123</deviceID>
  <stationName>MR7</stationName></acquisitionSystemInformation>
 <experimentalConditions><H1resonanceFrequency_Hz>63866218</H1resonanceFrequency_Hz>
 </experimentalConditions>
 <sequenceParameters><TR>3000</TR><TE>30</TE><TE>60</TE><sequence_type>TSE</sequence_type>
 </sequenceParameters>
 <userParameters><userParameterString><name>secret</name><value>Jane</value>
 </userParameterString></userParameters>
</ismrmrdHeader>"""


def scan(slices=3, coils=2, shape=(20, 15), **more):
    rng = np.random.default_rng(1)
    size = (slices, coils, *shape)
    kspace = (rng.normal(size=size) + 1j * rng.normal(size=size)).astype(np.complex64)
    header = Header((*shape, 1), (shape[0] // 2, shape[1] - 2, 1), shape[1], shape[1] // 2)
    plain = {"shape": size, "read": lambda numbers: (kspace[n] for n in numbers), "header": header}
    return kspace, Scan(**{**plain, **more})


def write(made, path, **how):
    assert list(write_scan(made, path, **how)) == list(range(made.shape[0]))
    return path


def test_fastmri_reads_it_and_its_target_is_fastmri_s(tmp_path):
    kspace, made = scan(acquisition="AXT2")
    path = write(made, tmp_path / "multicoil_train/a.h5", scale=2.0, attributes={"patient_id": "p"})
    reference = ReferenceDataset(path.parent, "multicoil")
    assert len(reference) == 3
    for number in range(3):
        found, mask, target, attributes, name, index = reference[number]
        assert (mask, name, index) == (None, "a.h5", number)
        np.testing.assert_array_equal(found, 2 * kspace[number])
        expected = center_crop(rss(complex_abs(ifft2c(to_tensor(found))), dim=0), (10, 13))
        np.testing.assert_allclose(target, expected, rtol=1e-4)
        assert (attributes["acquisition"], attributes["patient_id"]) == ("AXT2", "p")
        assert (attributes["padding_left"], attributes["padding_right"]) == (0, 15)
    (volume,) = open_cache(tmp_path).split("train")
    assert volume.kspace.offset is not None  # read by byte range
    with h5py.File(path) as file:
        assert file.attrs["max"] == file["reconstruction_rss"][()].max()
        assert file.attrs["norm"] == pytest.approx(np.linalg.norm(file["reconstruction_rss"]))


def test_what_is_no_target_has_none_and_keeps_its_mask(tmp_path):
    sampled = np.arange(15) % 2 == 0
    _, made = scan(target=False, sampled=sampled, calibration=lambda: np.ones((3, 2, 4, 4)))
    write(made, tmp_path / "multicoil_test/a.h5", scale=3.0)
    (volume,) = open_cache(tmp_path).split("test")
    assert volume.target is None
    assert volume.own_mask.tolist() == sampled.tolist()
    with h5py.File(tmp_path / "multicoil_test/a.h5") as file:
        assert (file["calibration_data"][()] == 3).all()


@pytest.mark.parametrize("shape", [(20, 15), (15, 20)])
def test_images_are_turned_over_exactly(shape):
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    found = centered_ifft2(turned_over(centered_fft2(image)))
    expected = np.flip(image, 0)
    if shape[0] % 2 == 0:  # about the middle pixel, which stays
        expected = np.roll(expected, 1, 0)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_header_keeps_what_is_allowed_and_nothing_else(tmp_path):
    known = known_fields(parse_xml(PERSONAL))
    assert known["sequenceParameters/TE"] == ("30", "60")
    assert "acquisitionSystemInformation/systemVendor" not in known  # it has a name's form
    header = Header((20, 15, 1), (10, 13, 1), 11, 6, known=known)
    _, made = scan(header=header)
    path = write(made, tmp_path / "multicoil_val/a.h5")
    content = path.read_bytes()
    for word in (b"Jane", b"Doe", b"4711", b"1970", b"2024", b"1.2.840", b"D-123", b"MR7", b"Mary"):
        assert word not in content
    (volume,) = open_cache(tmp_path).split("val")
    assert volume.acquired == header.acquired == (1, 12)
    import ismrmrd

    with h5py.File(path) as file:
        read = ismrmrd.xsd.CreateFromDocument(file["ismrmrd_header"][()])
    assert read.encoding[0].encodingLimits.slice.maximum == 2
    assert read.sequenceParameters.TE == [30.0, 60.0]
    assert read.acquisitionSystemInformation.receiverChannels == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda k: k[:, :1], "holds a slice of"),
        (lambda k: k[:2], "ends after 2 of 3 slices"),
        (lambda k: k * np.nan, "not finite in slice 0"),
    ],
)
def test_source_that_breaks_its_word_leaves_nothing(tmp_path, change, message):
    kspace, made = scan()
    wrong = change(kspace)
    broken = scan(read=lambda numbers: iter(wrong))[1]
    assert broken.shape == made.shape
    with pytest.raises(RefusedError, match=message):
        list(write_scan(broken, tmp_path / "a.h5"))
    assert list(tmp_path.iterdir()) == []


def test_calibration_that_is_not_finite_is_refused(tmp_path):
    _, made = scan(calibration=lambda: np.full((3, 2, 4, 4), np.nan, np.complex64))
    with pytest.raises(RefusedError, match="calibration lines of values that are not finite"):
        list(write_scan(made, tmp_path / "a.h5"))
    assert list(tmp_path.iterdir()) == []


def test_some_slices_alone_can_be_read():
    kspace, made = scan()
    (found,) = slices_of(made, (1,))
    np.testing.assert_array_equal(found, kspace[1])


@pytest.mark.parametrize(
    ("scale", "reason"), [(1e-30, "images of zeros"), (1e25, "images of"), (1e39, "not finite")]
)
def test_scale_that_single_precision_cannot_take_is_refused(tmp_path, scale, reason):
    _, made = scan()
    with pytest.raises(RefusedError, match=reason):
        list(write_scan(made, tmp_path / "multicoil_train/a.h5", scale=scale))
    assert list(tmp_path.rglob("*.h5")) == []
