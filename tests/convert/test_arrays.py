"""K-space in arrays: every form gives the image it was made of, and what cannot be one is told."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.fft import fft, fftshift, ifft2, ifftshift
from scipy.io import loadmat, savemat

from tests.convert.reading import converted, kspace_of, refusal
from workbench.convert.readers import READERS, scans_of
from workbench.convert.scan import Choices, RefusedError
from workbench.data.cache import open_cache
from workbench.data.images import centered_fft2, centered_ifft2

REAL = Path(__file__).parents[1] / "data/real"
SIZE = (48, 35)  # readout, phase encode
FULL = ("slice", "coil", "readout", "phase")


def images(slices=3, coils=2, size=SIZE, seed=0):
    """Coil images (slices, coils, readout, phase): an ellipse with a hole, turned by coils."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : size[0] * 1j, -1 : 1 : size[1] * 1j]
    made = np.zeros((slices, coils, *size), complex)
    for number in range(slices):
        body = (x**2 + (y / 0.8) ** 2 < 0.8).astype(float)
        body[(x - 0.2) ** 2 + (y + 0.1 * number) ** 2 < 0.05] = 0.2
        for coil in range(coils):
            made[number, coil] = body * (1 + 0.4 * np.sin(2 * x + coil)) * np.exp(1j * (coil + y))
    return made + 0.01 * rng.normal(size=made.shape)


def rss(made):
    return np.sqrt((np.abs(made) ** 2).sum(1))


def npy(folder, values, name="a.npy"):
    np.save(folder / name, values)
    return folder / name


def mat5(folder, values, name="a.mat", packed=True):
    savemat(folder / name, {"kspace_full": values, "note": "T2", "TR": 4.0}, do_compression=packed)
    return folder / name


def mat5_plain(folder, values):
    return mat5(folder, values, packed=False)


def mat73(folder, values, name="a.mat"):
    """Write as MATLAB 7.3 does: a user block of 512 bytes, axes in reverse, pairs of numbers."""
    with h5py.File(folder / name, "w", userblock_size=512) as file:
        pairs = np.empty(values.shape[::-1], [("real", "f8"), ("imag", "f8")])
        pairs["real"], pairs["imag"] = values.T.real, values.T.imag
        file["k"] = pairs
        file["#refs#/a"] = pairs
    with (folder / name).open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")
    return folder / name


def cfl(folder, values, name="a.cfl"):
    shape = " ".join(map(str, values.shape))
    (folder / name).with_suffix(".hdr").write_text(f"# Dimensions\n{shape} \n")
    values.astype("<c8").ravel(order="F").tofile(folder / name)
    return folder / name


FORMS = {
    "npy": (npy, FULL, (0, 1, 2, 3)),
    "mat5": (mat5, ("readout", "phase", "coil", "slice"), (2, 3, 1, 0)),
    "mat5, not compressed": (mat5_plain, FULL, (0, 1, 2, 3)),
    "mat73": (mat73, ("phase", "readout", "slice", "coil"), (3, 2, 0, 1)),
    "cfl": (cfl, ("readout", "phase", "slice", "coil"), (2, 3, 0, 1)),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_image_that_it_was_made_of(tmp_path, form):
    write, axes, order = FORMS[form]
    made = images()
    path = write(tmp_path, kspace_of(made).transpose(order))
    scan, found = converted(path, Choices(axes=axes, recon=(24, 35)))
    assert scan.shape == (3, 2, *SIZE)
    np.testing.assert_allclose(found["kspace"], kspace_of(made), atol=1e-5)
    np.testing.assert_allclose(found["reconstruction_rss"], rss(made)[:, 12:36], atol=1e-5)
    (volume,) = open_cache(tmp_path / "ds")
    assert (volume.encoded, volume.recon) == ((*SIZE, 1), (24, 35, 1))
    assert (volume.acquired, volume.kspace.offset is not None) == ((0, 35), True)


@pytest.mark.parametrize("numbers", [(2,), (0, 2), (2, 0, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_some_slices_are_read_in_the_order_that_is_asked_for(tmp_path, form, numbers):
    write, axes, order = FORMS[form]
    kspace = kspace_of(images())
    (scan,) = scans_of(write(tmp_path, kspace.transpose(order)), Choices(axes=axes))
    found = list(scan.read(numbers))
    np.testing.assert_allclose(found, kspace[list(numbers)], atol=1e-5)


def test_an_array_of_two_axes_needs_no_names(tmp_path):
    made = images(1, 1)
    scan, found = converted(npy(tmp_path, kspace_of(made)[0, 0]))
    np.testing.assert_allclose(found["reconstruction_rss"], rss(made), atol=1e-5)
    assert "axes taken as readout, phase" in scan.remarks


def test_the_readout_is_the_axis_of_the_matrix_s_length(tmp_path):
    kspace = kspace_of(images(1, 1))[0, 0]
    _, found = converted(npy(tmp_path, kspace.T), Choices(matrix=SIZE))
    np.testing.assert_allclose(found["kspace"][0, 0], kspace, atol=1e-5)


def test_axes_of_length_1_need_no_names(tmp_path):
    scan, _ = converted(npy(tmp_path, kspace_of(images(1, 1))[..., None]))
    assert scan.shape == (1, 1, *SIZE)


def test_bart_s_own_axes_are_known(tmp_path):
    kspace = kspace_of(images())
    shape = (*SIZE, 1, 2, *[1] * 9, 3, 1, 1)
    path = cfl(tmp_path, kspace.transpose(2, 3, 1, 0).reshape(shape))
    _, found = converted(path)
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-5)
    assert scans_of(path.with_suffix(".hdr"), Choices()) == []


def test_three_axes_could_be_coils_or_slices(tmp_path):
    said = refusal(npy(tmp_path, kspace_of(images(1, 8))[0]))
    assert said.startswith("has an array of 8x48x35, which does not say what its axes are")
    assert "axes='coil, readout, phase'" in said


def test_each_volume_of_an_axis_is_one_of_its_own(tmp_path):
    kspace = np.stack([kspace_of(images(seed=n)) for n in range(2)])
    path = npy(tmp_path, kspace)
    scans = scans_of(path, Choices(axes=("volume", *FULL)))
    assert [scan.name for scan in scans] == ["volume1", "volume2"]
    for scan, expected in zip(scans, kspace, strict=True):
        np.testing.assert_allclose(list(scan.read(range(3))), expected, atol=1e-5)


def test_averages_are_averaged_line_by_line(tmp_path):
    kspace = kspace_of(images())
    parts = np.stack([kspace * 0.5, kspace * 1.5, kspace])
    parts[2, ..., 1::2] = 0  # the third one measured every other line
    scan, found = converted(npy(tmp_path, parts), Choices(axes=("average", *FULL)))
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-5)
    assert "mean of 3 averages" in scan.remarks


def test_real_and_imaginary_part_can_be_an_axis(tmp_path):
    kspace = kspace_of(images())
    path = npy(tmp_path, np.stack([kspace.real, kspace.imag], 2).astype(np.float32))
    _, found = converted(path, Choices(axes=("slice", "coil", "complex", "readout", "phase")))
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-5)
    assert "holds real values" in refusal(path)


def test_missing_lines_make_a_mask_and_no_target(tmp_path):
    kspace = kspace_of(images())
    sampled = (np.arange(35) % 3 == 2) | (abs(np.arange(35) - 17) < 4)
    scan, found = converted(npy(tmp_path, kspace * sampled), Choices(axes=FULL))
    assert "reconstruction_rss" not in found
    assert (found["mask"] == sampled).all()
    (volume,) = open_cache(tmp_path / "ds")
    assert (volume.own_mask == sampled).all()
    assert f"undersampled: {sampled.sum()} of 35 lines; no target" in scan.remarks


@pytest.mark.parametrize(("axis", "word"), [(2, "readout"), (3, "phase encode")])
def test_an_image_half_of_its_field_of_view_off_is_refused(tmp_path, axis, word):
    """As of fftshift(fft2(image)): its centre is right, and a cropped target would be of air."""
    room = [(0, 0), (0, 0), (24, 24), (18, 17)]
    whole = np.pad(images(), room)
    moved = ifftshift(whole, axes=axis)
    said = refusal(npy(tmp_path, kspace_of(moved)), Choices(axes=FULL, recon=SIZE))
    assert f"halves lie at the two edges along {word}" in said
    near = npy(tmp_path, kspace_of(np.roll(whole, 12, axis)))
    (scan,) = scans_of(near, Choices(axes=FULL))
    assert not [each for each in scan.remarks if "field of view" in each]


def test_an_image_that_fills_its_field_of_view_and_may_be_off_says_so(tmp_path):
    (scan,) = scans_of(npy(tmp_path, kspace_of(ifftshift(images(), axes=2))), Choices(axes=FULL))
    assert [each for each in scan.remarks if "half of its field of view off along readout" in each]


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_lines_left_out_before_an_fft_there_and_back_are_not_taken_for_measured(tmp_path, dtype):
    """As to crop the readout's oversampling; what was 0 is some 1e-8 or 1e-17 of the rest then."""
    made = np.pad(images(3), [(0, 0), (0, 0), (24, 24), (0, 0)])
    sampled = (np.arange(35) % 3 == 2) | (abs(np.arange(35) - 17) < 4)
    kspace = (kspace_of(made) * sampled).astype(dtype)
    cropped = centered_fft2(centered_ifft2(kspace)[..., 24:72, :])
    assert cropped.dtype == dtype
    assert cropped.any((0, 1, 2)).all()
    said = refusal(npy(tmp_path, cropped), Choices(axes=FULL))
    assert f"next to nothing, in {(~sampled).sum()} of a slice's 35 lines" in said
    scan, found = converted(npy(tmp_path, cropped * sampled), Choices(axes=FULL))
    assert (found["mask"] == sampled).all()
    assert not scan.target


def test_two_axes_with_missing_rows_are_exchanged(tmp_path):
    kspace = kspace_of(images(1, 1))[0, 0]
    sampled = (np.arange(35) % 3 == 2) | (abs(np.arange(35) - 17) < 4)
    path = npy(tmp_path, (kspace * sampled).T)
    scan, found = converted(path)
    np.testing.assert_allclose(found["kspace"][0, 0], kspace * sampled, atol=1e-5)
    assert "axes taken as phase, readout" in scan.remarks
    said = refusal(path, Choices(axes=("readout", "phase")))
    assert said == "lacks lines inside the readout: are readout and phase exchanged in axes=?"


def test_zeros_at_both_sides_are_padding(tmp_path):
    kspace = kspace_of(images())
    kspace[..., :5] = kspace[..., 30:] = 0
    scan, found = converted(npy(tmp_path, kspace), Choices(axes=FULL))
    assert (scan.header.acquired, scan.sampled) == ((5, 30), None)
    assert "reconstruction_rss" in found


@pytest.mark.parametrize("axis", [2, 3])
def test_partial_fourier_is_no_target(tmp_path, axis):
    kspace = kspace_of(images())
    np.moveaxis(kspace, axis, 0)[:9] = 0
    scan, found = converted(npy(tmp_path, kspace), Choices(axes=FULL))
    assert "reconstruction_rss" not in found
    name = ("readout", "phase encode")[axis - 2]
    assert f"partial Fourier along {name}; no target" in scan.remarks
    assert scan.header.acquired == ((0, 35) if axis == 2 else (9, 35))


def test_a_side_that_is_shorter_by_less_than_a_tenth_is_no_partial_fourier_as_of_scanners(tmp_path):
    kspace = kspace_of(images(1, 1, size=(96, 35)))
    kspace[..., :4, :] = 0
    scan, found = converted(npy(tmp_path, kspace), Choices(axes=FULL))
    assert scan.target
    assert "reconstruction_rss" in found


def test_lines_are_placed_by_the_matrix_and_the_centre(tmp_path):
    kspace = kspace_of(images())
    path = npy(tmp_path, kspace[..., 9:])
    choices = Choices(axes=FULL, matrix=SIZE, center=8)
    scan, found = converted(path, choices)
    np.testing.assert_allclose(found["kspace"][..., 9:], kspace[..., 9:], atol=1e-5)
    assert not found["kspace"][..., :9].any()
    assert (scan.target, scan.header.acquired) == (False, (9, 35))
    assert "far from the middle" in refusal(path, Choices(axes=FULL))
    said = refusal(path, Choices(axes=FULL, center=8))
    assert (
        said == "has 26 lines, which center=8 puts at columns 5 to 30 of 26: give a matrix "
        "that holds them"
    )


def test_fewer_lines_than_the_matrix_lie_in_its_middle(tmp_path):
    kspace = kspace_of(images())
    scan, found = converted(npy(tmp_path, kspace[..., 7:28]), Choices(axes=FULL, matrix=SIZE))
    np.testing.assert_allclose(found["kspace"][..., 7:28], kspace[..., 7:28], atol=1e-5)
    assert (scan.target, scan.header.acquired) == (True, (7, 28))


def test_coils_of_zeros_are_left_out_and_told(tmp_path):
    kspace = kspace_of(images(coils=3))
    kspace[:, 1] = 0
    scan, found = converted(npy(tmp_path, kspace), Choices(axes=FULL))
    np.testing.assert_allclose(found["kspace"], kspace[:, [0, 2]], atol=1e-5)
    assert "1 of 3 coils hold zeros only, left out" in scan.remarks


def test_the_variable_can_be_named(tmp_path):
    kspace = kspace_of(images())
    path = tmp_path / "a.mat"
    savemat(path, {"maps": images(), "ksp": kspace, "TE": 30.0})
    said = refusal(path)
    assert said == (
        "holds several complex arrays, maps (3x2x48x35, complex), ksp (3x2x48x35, complex), "
        "TE (1x1, real): give variable=, one of them"
    )
    _, found = converted(path, Choices(variable="ksp", axes=FULL))
    np.testing.assert_allclose(found["kspace"], kspace, atol=1e-5)
    assert refusal(path, Choices(variable="kspace")).startswith("has no variable='kspace'; it hold")


def radial():
    """Spokes (samples, spokes) through the centre of an ellipse's k-space."""
    radius, angle = np.mgrid[-24:24, 0:35]
    return np.exp(-((radius / 4) ** 2)) * np.exp(1j * angle) + 1e-3


K = kspace_of(images(1, 1))[0, 0]
REFUSED = {
    "image": (images(1, 1)[0, 0], "looks like an image and not like k-space"),
    "noise": (np.random.default_rng(0).normal(size=(*SIZE, 2)) @ [1, 1j], "looks like an image"),
    "unshifted": (ifftshift(K), "strongest lines in a corner (row 0, column 0 of 48x35), as an"),
    "off": (np.roll(K, 9, 1), "strongest lines at row 24, column 26 of 48x35, far from the middle"),
    "radial": (radial(), "all its lines along phase encode are equally strong, as in radial"),
    "hybrid": (ifft2(K, axes=(0,)), "all its lines along readout are equally strong"),
    "2-D pattern": (np.where(np.random.default_rng(1).random(SIZE) < 0.3, K, 0), "along both axes"),
    "real": (abs(K), "holds no complex array of two axes or more, as k-space is; it holds (48x35"),
    "1-D": (K.ravel(), "holds no complex array of two axes or more"),
    "zeros": (K * 0, "holds zeros only"),
    "NaN": (np.where(np.arange(35) == 3, np.nan, K), "values that are not finite in slice 0"),
    "no values": (K[:0], "holds no complex array"),
    "one value": (np.array(1j), "holds no complex array"),
    "tiny": (K[20:25, 15:20], "has k-space of 5x5, too small for one"),
    "text": (np.array(["a"]), "holds no complex array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_cartesian_kspace_is_refused(tmp_path, case):
    values, message = REFUSED[case]
    assert message in refusal(npy(tmp_path, values))


@pytest.mark.parametrize(("count", "empty"), [(8, 1), (10, 2), (12, 3), (16, 1), (16, 2)])
@pytest.mark.parametrize("shifted", [True, False])
def test_partitions_that_are_called_slices_are_refused(tmp_path, shifted, count, empty):
    air = 0 * images(empty)
    made = np.concatenate([air, images(count), air]) + 1e-3
    choices = Choices(axes=FULL)
    (scan,) = scans_of(npy(tmp_path, kspace_of(made)), choices)
    assert scan.target
    deep = fft(ifftshift(kspace_of(made), axes=0), axis=0)
    path = npy(tmp_path, fftshift(deep, axes=0) if shifted else deep)
    said = refusal(path, choices)
    assert "as partitions of a scan in three dimensions" in said or not shifted


def test_what_choices_cannot_mean_is_refused(tmp_path):
    path = npy(tmp_path, kspace_of(images()))
    for choices, message in {
        Choices(axes=("slice", "readout", "phase")): "has an array of 3x2x48x35, and axes='slice",
        Choices(axes=("slice", "coil", "readout")): "name readout and phase among them",
        Choices(axes=("coil", "coil", "readout", "phase")): "once at most",
        Choices(axes=("slice", "complex", "readout", "phase")): "complex names an axis of 2",
        Choices(axes=FULL, matrix=(64, 35)): "has 48 samples along the readout and 35 lines, and",
        Choices(axes=FULL, matrix=(48, 30)): "give the array's readout, and no fewer lines",
        Choices(axes=FULL, center=35): "center=35 puts at columns",
        Choices(axes=FULL, recon=(96, 35)): "asked for recon=96x35, more than its matrix of 48x35",
    }.items():
        assert message in refusal(path, choices), choices


def test_a_slice_unlike_the_first_is_told_when_it_is_read(tmp_path):
    kspace = kspace_of(images(5))
    kspace[1, ..., ::2] = 0
    kspace[3] = 0
    (scan,) = scans_of(npy(tmp_path, kspace), Choices(axes=FULL))
    with pytest.raises(RefusedError, match="has other lines or coils in slice 1 than in the first"):
        list(scan.read([0, 1]))
    with pytest.raises(RefusedError, match="has slice 3 full of zeros: leave it out"):
        list(scan.read([2, 3]))


def test_damaged_files_are_refused_in_words(tmp_path):
    values = np.arange(20000).reshape(200, 100) * 1j
    for write in (npy, mat5, mat5_plain, mat73):
        path = write(tmp_path, values)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        assert READERS["array"].holds(path)
        with pytest.raises((RefusedError, OSError), match=r"damaged|truncated|cut short"):
            scans_of(path, Choices())


@pytest.mark.parametrize("write", [mat5, mat5_plain])
def test_damage_anywhere_in_a_mat_file_costs_no_more_than_its_scan(tmp_path, write):
    rng, whole = np.random.default_rng(0), write(tmp_path, K).read_bytes()
    for number in range(200):
        content = bytearray(whole)
        for place in rng.integers(128, 600, 3):
            content[place] = rng.integers(256)
        (tmp_path / "b.mat").write_bytes(content)
        try:
            for scan in scans_of(tmp_path / "b.mat", Choices(), "array"):
                assert len(list(scan.read([0]))) == 1, number
        except RefusedError:
            pass


def test_bart_s_two_files_belong_together(tmp_path):
    path = cfl(tmp_path, K)
    path.write_bytes(path.read_bytes()[:-8])
    assert refusal(path) == (
        "has 13,432 bytes, not the 13,440 of its .hdr (48x35): bring both in again"
    )
    path.with_suffix(".hdr").write_text("# Dimensions\n-3 no\n")
    assert "tells no dimensions" in refusal(path)
    path.with_suffix(".hdr").unlink()
    assert refusal(path) == "lacks the .hdr that belongs to it: bring that in too"
    assert "BART's axes of radial" in refusal(cfl(tmp_path, K[None, :, :, None]))
    assert "bart fft -i -u 4" in refusal(cfl(tmp_path, np.stack([K, K], 2)))


def test_a_trajectory_beside_it_tells_a_radial_scan(tmp_path):
    savemat(tmp_path / "a.mat", {"ksp": K, "traj": np.ones((48, 35, 2))})
    assert refusal(tmp_path / "a.mat").startswith("holds a trajectory (traj), as radial and spiral")


def test_fastmri_s_own_files_need_no_conversion(tmp_path):
    with h5py.File(tmp_path / "file1.h5", "w") as file:
        file["kspace"], file["ismrmrd_header"] = K[None, None].astype(np.complex64), b"<x/>"
    assert refusal(tmp_path / "file1.h5") == "is in fastMRI's form already: use its folder as it is"


def test_values_of_another_file_are_not_followed(tmp_path):
    other = mat73(tmp_path, K, "other.mat")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["k"] = h5py.ExternalLink(other, "k")
    assert "it holds nothing" in refusal(tmp_path / "a.h5")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMP", b"MATLAB 7.3 MAT-file" * 20])
def test_foreign_files_are_left_to_others(tmp_path, content):
    path = tmp_path / "a.hdr"
    path.write_bytes(content)
    assert not READERS["array"].holds(path)
    assert not READERS["array"].holds(tmp_path / "none")


@pytest.mark.parametrize("center", [None, 127])
def test_a_real_head_is_reconstructed(tmp_path, center):
    path = REAL / "brain_t1_sagittal.mat"
    scan, found = converted(path, Choices(center=center), tmp_path)
    plain = abs(fftshift(ifft2(ifftshift(loadmat(path)["data"]), norm="ortho")))
    np.testing.assert_allclose(found["reconstruction_rss"][0], plain, atol=2e-4 * plain.max())
    off = "the strongest lines are row 127, column 127 of 256x256, and the middle is (128, 128)"
    assert (off in scan.remarks) == (center is None)
    assert abs(found["kspace"]).argmax() % 256 == (128 if center else 127)
    assert plain.max() == pytest.approx(151.6, abs=0.1)
    assert len(open_cache(tmp_path / "ds")) == 1
