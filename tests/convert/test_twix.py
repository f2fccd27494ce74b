"""Siemens raw data: the real phantom, and files of the described form written here."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import turbotwix
from numpy.fft import fft2, fftshift, ifftshift
from turbotwix.dtypes import VB_HEADER, VD_CHANNEL_HEADER, VD_SCAN_HEADER, Flag

from tests.convert.reading import converted, image_of, kspace_of, refusal
from workbench.convert.readers import READERS, scans_of
from workbench.convert.scan import Choices
from workbench.data.cache import open_cache
from workbench.data.header import parse_xml

PHANTOM = Path(__file__).parents[1] / "data/real/siemens_gre_phantom.dat"
COILS, SAMPLES, LINES = 3, 40, 15
PROTOCOL = {
    "iNoOfFourierColumns": SAMPLES,
    "iNoOfFourierLines": LINES,
    "iPEFTLength": LINES,
    "ImageColumns": SAMPLES // 2,
    "ImageLines": LINES,
    "flReadoutOSFactor": 2.0,
    "ucTrajectory": 1,
    "lContrasts": 1,
    "alTR": [3_000_000, 0],
    "alTE": [80_000, 90_000],
    "alDwellTime": [5000, 5000],
    "PatientID": "4711",
    "PatientName": "Doe",
    "InstitutionName": "St Mary",
}


def images(slices=3, size=(SAMPLES, LINES)):
    """Coil images (slices, coils, readout, phase) of an ellipse."""
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    body = ((x**2 + (2 * y) ** 2) < 0.7).astype(complex)
    coils = [body * (1 + 0.4 * np.sin(x + coil)) * np.exp(1j * coil) for coil in range(COILS)]
    return np.stack([(number + 1) * np.stack(coils) for number in range(slices)])


def line(samples, step=0, flags=0, center=LINES // 2, position=0.0, **counters):
    """One readout (coils, samples) and what its header says."""
    return {
        "samples": samples,
        "flags": flags,
        "center": center,
        "position": position,
        "counters": {"Lin": step, **counters},
    }


def lines_of(kspace, steps=range(LINES), **more):
    """Yield the lines of slices (slices, coils, readout, phase), one slice after the other."""
    for number, values in enumerate(kspace):
        for step in steps:
            where = {"Sli": number, "position": 4.0 * number, **more}
            yield line(values[..., step], step, **where)


def header_of(protocol):
    """Write a protocol's text as scanners do: a length, then named texts."""
    texts = []
    for name, value in protocol.items():
        kind = {int: "Long", float: "Double", str: "String", list: "Long"}[type(value)]
        listed = value if isinstance(value, list) else [value]
        words = " ".join(f'"{each}"' if isinstance(each, str) else str(each) for each in listed)
        texts.append(f'<Param{kind}."{name}"> {{ {words} }}\n')
    text = "".join(texts).encode()
    body = struct.pack("<I", 1) + b"Meas\0" + struct.pack("<I", len(text)) + text
    body += bytes(-(len(body) + 4) % 32)
    return struct.pack("<I", len(body) + 4) + body


def bytes_of(lines, protocol, header=VD_SCAN_HEADER, *, ended=True):
    """Write one measurement: its protocol, its lines, and what ends them."""
    parts = [header_of(protocol)]
    for number, each in enumerate([*lines, None] if ended else lines):
        scan = np.zeros(1, header)
        scan["ScanCounter"] = number + 1
        if each is None:
            scan["EvalInfoMask"] = int(Flag.ACQEND)
            parts.append(scan.tobytes())
            break
        channels, samples = each["samples"].shape
        scan["EvalInfoMask"], scan["SamplesInScan"] = each["flags"], samples
        scan["UsedChannels"], scan["CenterCol"] = channels, samples // 2
        scan["CenterLin"], scan["CenterPar"] = each["center"], each.get("partition", 0)
        for name, value in each["counters"].items():
            scan["Counter"][name] = value
        scan["SliceData"]["SlicePos"]["Tra"] = each["position"]
        scan["SliceData"]["Quaternion"] = (1, 0, 0, 0)
        within = scan.tobytes() if header is VD_SCAN_HEADER else b""
        before = bytes(VD_CHANNEL_HEADER.itemsize) if within else scan.tobytes()
        parts.append(within)
        parts += [before + values.astype("<c8").tobytes() for values in each["samples"]]
    return b"".join(parts)


def twix(path, *measurements, **how):
    """Write a file of measurements, each (lines, changes of the protocol), as software VD does."""
    contents = [bytes_of(lines, {**PROTOCOL, **changes}, **how) for lines, changes in measurements]
    directory = bytearray(10240)
    struct.pack_into("<II", directory, 0, 0, len(contents))
    at = len(directory)
    for number, content in enumerate(contents):
        entry = struct.pack("<IIQQ64s64s", number, 1, at, len(content), b"Doe^Jane", b"t2 of Jane")
        directory[8 + 152 * number : 8 + 152 * number + len(entry)] = entry
        at += len(content)
    path.write_bytes(bytes(directory) + b"".join(contents))
    return path


def test_the_real_phantom_is_the_library_s_array_and_a_plain_transform_of_it(tmp_path):
    with turbotwix.open_twix(str(PHANTOM)) as file:
        plain = file.read(file.lines.image).swapaxes(1, 2)
    scan, found = converted(PHANTOM, out=tmp_path)
    np.testing.assert_array_equal(found["kspace"], plain[None])
    image = image_of(plain)[80:240]
    np.testing.assert_allclose(found["reconstruction_rss"][0], image, atol=1e-6 * image.max())
    assert image.max() == pytest.approx(3.64e-5, rel=0.01)
    assert (scan.header.encoded, scan.header.recon) == ((320, 160, 1), (160, 160, 1))
    assert (scan.header.lines, scan.header.center) == (160, 80)
    assert (scan.header.encoded_mm, scan.header.recon_mm) == ((400, 200, 4), (200, 200, 4))
    (volume,) = open_cache(tmp_path / "ds")
    assert (volume.recon, volume.acquired, volume.coils) == ((160, 160, 1), (0, 160), 2)


def test_nothing_of_the_person_or_the_device_is_written(tmp_path):
    scan, found = converted(PHANTOM, out=tmp_path)
    written = (tmp_path / "ds/multicoil_train/v.h5").read_bytes()
    for secret in (b"DZNE", b"Bonn", b"Freud", b"45385", b"xxxx", b"1.3.12", b"2021", b"gre"):
        assert secret in PHANTOM.read_bytes()
        assert secret not in written, secret
    assert scan.person == ""  # a row of x is nobody
    known = {
        element.tag.rpartition("}")[2] for element in parse_xml(found["ismrmrd_header"]).iter()
    }
    assert {"systemModel", "TR", "TE", "patientPosition"} <= known


def test_slices_averages_and_oversampling(tmp_path):
    kspace = kspace_of(images())
    lines = [
        line(values[..., step] * share, step, Sli=number, position=place, Ave=average)
        for average, share in enumerate((0.5, 1.5))
        for number, (values, place) in enumerate(
            zip(kspace[[2, 0, 1]], (8.0, 0.0, 4.0), strict=True)
        )
        for step in range(LINES)
    ]
    scan, found = converted(twix(tmp_path / "a.dat", (lines, {})))
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-6)
    np.testing.assert_allclose(found["reconstruction_rss"], image_of(kspace)[:, 10:30], atol=1e-6)
    assert (scan.person, scan.header.known["sequenceParameters/TE"]) == ("4711", ("80",))


def test_each_echo_is_a_volume_and_a_reversed_readout_is_turned(tmp_path):
    kspace = kspace_of(images(2))
    second = [
        {**each, "samples": each["samples"][:, ::-1], "flags": int(Flag.REFLECT)}
        for each in lines_of(np.roll(kspace, -1, 2), Eco=1)
    ]
    path = twix(tmp_path / "a.dat", ([*lines_of(kspace), *second], {"lContrasts": 2}))
    found = scans_of(path, Choices())
    assert [scan.name for scan in found] == ["echo1", "echo2"]
    np.testing.assert_allclose(list(found[0].read(range(2))), kspace, atol=1e-6)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(
    ("changes", "dwell"),
    [({}, 38.4), ({"tProtocolName": "AdjCoilSens"}, 5), ({"SoftwareVersions": "syngo MR XA30"}, 5)],
)
def test_noise_is_whitened_by_its_own_dwell_time(tmp_path, apart, changes, dwell):
    rng = np.random.default_rng(0)
    mixing = np.tril(rng.normal(size=(COILS, COILS)) + 3 * np.eye(COILS))
    noise = rng.normal(size=(COILS, 2 * 2000)).view(complex) / np.sqrt(2)
    adjustment = [
        line(values, flags=int(Flag.NOISEADJSCAN)) for values in np.split(mixing @ noise, 10, 1)
    ]
    kspace = kspace_of(images())
    scans = [(adjustment, changes), (list(lines_of(kspace)), {})]
    if not apart:
        scans = [([*adjustment, *lines_of(kspace)], changes)]
    path = twix(tmp_path / "a.dat", *scans)
    scan, found = converted(path)
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-6)
    assert ("the last of 2 measurements in the file" in scan.remarks) == apart
    _, white = converted(path, Choices(whiten=True))
    expected = np.einsum("ij,sjrp->sirp", np.linalg.inv(mixing), kspace)
    expected *= np.sqrt(0.793 * 5 / dwell)  # as siemens_to_ismrmrd's header has it
    assert abs(abs(white["kspace"]) - abs(expected)).max() < 0.05 * abs(expected).max()


def test_embedded_calibration_lines_are_lines_of_kspace(tmp_path):
    kspace = kspace_of(images())
    lines = []
    for each in lines_of(kspace):
        step = each["counters"]["Lin"]
        if 5 <= step < 10:
            also = int(Flag.PATREFANDIMASCAN) if step % 2 else 0
            lines.append({**each, "flags": int(Flag.PATREFSCAN) | also})
        elif step % 2:
            lines.append(each)
    changes = {"lAccelFactPE": 2, "ucRefScanMode": 2}
    scan, found = converted(twix(tmp_path / "a.dat", (lines, changes)))
    expected = (np.arange(LINES) % 2 == 1) | (abs(np.arange(LINES) - 7) < 3)
    assert (found["mask"] == expected).all()
    np.testing.assert_allclose(found["kspace"], kspace * expected, atol=1e-6)
    assert (scan.target, scan.header.lines) == (False, LINES)


def test_partial_fourier_is_placed_by_the_line_s_own_centre(tmp_path):
    kspace = kspace_of(images())
    lines = [
        line(values[..., step + 4], step, Sli=n, position=4.0 * n, center=LINES // 2 - 4)
        for n, values in enumerate(kspace)
        for step in range(LINES - 4)
    ]
    scan, found = converted(twix(tmp_path / "a.dat", (lines, {"iNoOfFourierLines": LINES - 4})))
    np.testing.assert_allclose(found["kspace"][..., 4:], kspace[..., 4:], atol=1e-6)
    assert not found["kspace"][..., :4].any()
    assert (scan.target, scan.header.acquired) == (False, (4, LINES))


def test_partitions_become_slices_and_oversampled_ones_are_cut(tmp_path):
    kspace = kspace_of(images(6))
    deep = fftshift(fft2(ifftshift(kspace, axes=0), axes=(0,), norm="ortho"), axes=0)
    lines = [
        {**line(deep[partition, ..., step], step, Par=partition), "partition": 3}
        for partition in range(6)
        for step in range(LINES)
    ]
    changes = {"iNoOfFourierPartitions": 6, "lPartitions": 6, "lImagesPerSlab": 4}
    scan, found = converted(twix(tmp_path / "a.dat", (lines, changes)))
    assert scan.shape == (4, COILS, SAMPLES, LINES)
    np.testing.assert_allclose(found["kspace"], kspace[1:5], atol=1e-5)
    np.testing.assert_allclose(found["reconstruction_rss"], image_of(kspace)[1:5, 10:30], atol=1e-5)


def test_interpolation_on_the_scanner_changes_no_matrix(tmp_path):
    changes = {"uc2DInterpolation": 1, "iPEFTLength": 30, "ImageColumns": 40, "ImageLines": 30}
    scan, _ = converted(twix(tmp_path / "a.dat", (list(lines_of(kspace_of(images()))), changes)))
    assert (scan.header.encoded, scan.header.recon) == ((40, 15, 1), (20, 15, 1))


def test_a_measurement_without_an_end_is_told(tmp_path, caplog):
    kspace = kspace_of(images())
    scan, found = converted(twix(tmp_path / "a.dat", (list(lines_of(kspace)), {}), ended=False))
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-6)
    assert "the measurement has no end: the scan was perhaps stopped" in scan.remarks


def test_software_before_vd_is_read_as_well(tmp_path):
    kspace = kspace_of(images())
    path = tmp_path / "a.dat"
    path.write_bytes(bytes_of(list(lines_of(kspace)), {**PROTOCOL, "note": "x" * 10000}, VB_HEADER))
    _, found = converted(path)
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-6)


EPI = int(Flag.PHASCOR)
REFUSED = {
    "EPI lines": ({}, EPI, "is an EPI or a train of spin echoes (it holds 45 phase-correction"),
    "EPI factor": ({"lEPIFactor": 15}, 0, "is an EPI (its header says)"),
    "radial": ({"ucTrajectory": 2}, 0, "has a trajectory that its header calls 'radial'"),
    "spiral": ({"ucTrajectory": 4}, 0, "calls 'spiral'"),
    "blades": ({"ucTrajectory": 8}, 0, "calls 'propeller'"),
    "unknown": ({"ucTrajectory": 16}, 0, "calls 'trajectory 16'"),
    "multiband": ({"lMultiBandFactor": 2}, 0, "is a multiband measurement (2 slices)"),
    "its flag": ({}, int(Flag.SLICE_ACCEL_REFSCAN), "is a multiband measurement: part"),
    "noise alone": ({}, int(Flag.NOISEADJSCAN), "lines, none of which is of an image"),
    "matrix": (
        {"iPEFTLength": 8},
        0,
        "lines 0 to 14 with the centre at 7, which the encoded matrix",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_cartesian_measurement_is_refused(tmp_path, case):
    changes, flags, message = REFUSED[case]
    plain = list(lines_of(kspace_of(images())))
    marked = [{**each, "flags": flags} for each in plain]
    lines = [*plain, *marked] if case in ("EPI lines", "its flag") else marked
    assert message in refusal(twix(tmp_path / "a.dat", (lines, changes)))


def test_damaged_files_are_refused_in_words(tmp_path):
    whole = twix(tmp_path / "a.dat", (list(lines_of(kspace_of(images()))), {})).read_bytes()
    (tmp_path / "b.dat").write_bytes(whole[:-5000])
    assert refusal(tmp_path / "b.dat").startswith("is cut short: copy it again")
    (tmp_path / "c.dat").write_bytes(whole[:10300] + bytes(len(whole) - 10300))
    assert READERS["twix"].holds(tmp_path / "c.dat")
    assert refusal(tmp_path / "c.dat") == (
        "holds no lines, or empty ones: copy it from the scanner again"
    )


def test_an_earlier_measurement_that_claims_more_than_the_file_is_refused(tmp_path):
    lines = list(lines_of(kspace_of(images())))
    path = twix(tmp_path / "a.dat", (lines, {}), (lines, {}))
    content = bytearray(path.read_bytes())
    struct.pack_into("<Q", content, 8 + 16, 2**40)  # length of the first one
    path.write_bytes(content)
    assert refusal(path, Choices(whiten=True)).startswith("is cut short")


def test_without_turbotwix_its_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "turbotwix", None)
    assert refusal(PHANTOM) == (
        'is Siemens raw data, which is read by turbotwix: pip install -e ".[twix]"'
    )


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"\x89HDF\r\n\x1a\n" * 9, b"PK\x03\x04" * 20])
def test_foreign_files_are_left_to_others(tmp_path, content):
    (tmp_path / "a.dat").write_bytes(content)
    assert not READERS["twix"].holds(tmp_path / "a.dat")
    assert not READERS["twix"].holds(tmp_path / "none")
