"""Lines of a Cartesian measurement go where they belong, or are refused with what was found."""

import ismrmrd
import numpy as np
import pytest

from tests.convert.mrd_files import cartesian, encoding, fft2, header, images, line, write
from workbench.convert.mrd import scans
from workbench.convert.scan import Choices, RefusedError
from workbench.convert.write import slices_of
from workbench.data.images import crop_size


@pytest.fixture
def made(tmp_path):
    """Writes lines and returns the scans of their file."""

    def make(lines, xml=None, choices=None):
        path = tmp_path / "a.h5"
        path.unlink(missing_ok=True)
        return scans(write(path, lines, xml), choices or Choices())

    return make


def kspace_of(scan):
    return np.stack(list(slices_of(scan)))


def assert_same(found, expected):
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def refusal(made, *args, **kwargs):
    with pytest.raises(RefusedError) as refused:
        made(*args, **kwargs)
    return str(refused.value)


@pytest.mark.parametrize(("x", "y"), [(32, 24), (33, 25), (32, 25), (31, 24)])
def test_k_space_is_numpy_s_fft_of_the_image_for_even_and_odd_sizes(made, x, y):
    kspace = fft2(images(3, 2, x, y))
    (scan,) = made(cartesian(kspace), header(x=x, y=y))
    assert_same(kspace_of(scan), kspace)
    assert (scan.target, scan.sampled, scan.person) == (True, None, "4711")
    assert (scan.header.lines, scan.header.center) == (y, y // 2)
    assert scan.header.acquired == (0, y)
    assert scan.header.encoded == (x, y, 1)
    (middle,) = slices_of(scan, (1,))
    assert_same(middle, kspace[1])


def test_slices_stand_in_the_order_of_space_not_of_their_counter(made):
    kspace = fft2(images(4))
    lines = cartesian(kspace)
    for each in lines:  # interleaved, from the last to the first
        place = (3, 1, 2, 0)[each.idx.slice]
        each.position[:] = np.array([0.6, 0, 0.8]) * 7.0 * place
        each.slice_dir[:] = (0.6, 0, 0.8)
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace[[3, 1, 2, 0]])


def test_slices_of_several_directions_are_volumes_of_their_own(made):
    kspace = fft2(images(4))
    lines = cartesian(kspace)
    for each in lines:
        each.slice_dir[:] = ((0, 0, 1), (1, 0, 0))[each.idx.slice % 2]
        each.position[:] = (5.0 * each.idx.slice,) * 3
    first, second = made(lines)
    assert (first.name, second.name) == ("stack1", "stack2")
    assert_same(kspace_of(first), kspace[[0, 2]])
    assert_same(kspace_of(second), kspace[[1, 3]])


@pytest.mark.parametrize("unknown", [0, np.nan])
def test_slices_without_positions_stand_in_the_order_of_their_counter_and_say_so(made, unknown):
    kspace = fft2(images(3))
    (scan,) = made(cartesian(kspace, position=(unknown,) * 3, slice_dir=(unknown,) * 3))
    assert_same(kspace_of(scan), kspace)
    assert "the 3 slices have no positions" in " ".join(scan.remarks)


def test_slices_at_one_place_are_refused(made):
    assert "slices at one place" in refusal(made, cartesian(fft2(images(3)), position=(0, 0, 9)))


@pytest.mark.parametrize("z", [1, 8])
def test_slices_or_slabs_under_one_number_are_refused_not_averaged(made, z):
    kspace = fft2(images(3))
    slabs = (deep(volume_of(images(8)), slice=n) for n in range(2))
    for each in (lines := cartesian(kspace) if z == 1 else [*next(slabs), *next(slabs)]):
        each.position[2] = 40.0 * each.idx.slice
        each.idx.slice = 0
    reason = "has lines of slice 0 that lie up to"
    assert reason in refusal(made, lines, header(z=z))


def test_a_slice_that_follows_a_moving_head_is_one_slice(made):
    kspace = fft2(images(1))
    lines = cartesian(kspace)
    for number, each in enumerate(lines):
        each.position[2] = number / 24  # of 4 mm
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace)


@pytest.mark.parametrize("z", [1, 8])
def test_blades_under_one_number_are_refused_not_averaged(made, z):
    image = images(z)
    kspace, blade = (fft2(image), cartesian) if z == 1 else (volume_of(image), deep)
    turned = [blade(kspace, read_dir=(np.cos(turn), np.sin(turn), 0)) for turn in (0, 0.1, 0.6)]
    reason = "lines of slice 0 that run in several directions, as blades and spokes"
    assert reason in refusal(made, turned[0] + turned[2], header(z=z))
    (scan,) = made(turned[0] + turned[1], header(z=z))  # a head that moved
    assert_same(kspace_of(scan), fft2(image))
    back = blade(kspace, read_dir=(-1, 0, 0))  # and a readout that ran backwards
    (scan,) = made(turned[0] + back, header(z=z))
    assert_same(kspace_of(scan), fft2(image))


def test_averages_are_the_mean_of_what_came_for_each_line(made):
    rng, kspace = np.random.default_rng(3), fft2(images(2))
    noise = 0.1 * rng.normal(size=(3, *kspace.shape)).astype(np.float32)
    times = 1 + np.arange(24) % 3  # one, two or three
    lines = [
        each
        for average in range(3)
        for each in cartesian(
            kspace + noise[average], np.flatnonzero(times > average), average=average
        )
    ]
    (scan,) = made(lines)
    expected = np.stack([kspace + noise[:n].mean(0) for n in (1, 2, 3)])
    expected = np.choose(times - 1, list(expected))
    assert_same(kspace_of(scan), expected)
    assert scan.attributes["averages"] == 3
    assert scan.target


@pytest.mark.parametrize("z", [1, 8])
def test_zeros_of_an_average_that_was_measured_in_part_do_not_weaken_the_other(made, z):
    """As of one and a half averages that were stored as two."""
    image = images(z)
    kspace = fft2(image) if z == 1 else volume_of(image)
    half = kspace * (np.arange(24) % 2)
    of_average = cartesian if z == 1 else deep
    lines = of_average(kspace) + of_average(half, average=1)
    (scan,) = made(lines, header(z=z))
    assert_same(kspace_of(scan), fft2(image))


def test_interleaved_averages_of_other_lines_fill_one_volume(made):
    kspace = fft2(images(1))
    even, odd = np.arange(0, 24, 2), np.arange(1, 24, 2)
    lines = cartesian(kspace, odd) + cartesian(kspace, even, average=1)
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace)
    assert (scan.target, scan.sampled) == (True, None)


@pytest.mark.parametrize(
    ("counter", "word"),
    [("contrast", "echo"), ("phase", "phase"), ("repetition", "repetition"), ("set", "set")],
)
def test_each_value_of_a_counter_is_a_volume(made, counter, word):
    kspace = [fft2(images(2, seed=seed)) for seed in range(3)]
    lines = [each for n in range(3) for each in cartesian(kspace[n], **{counter: n})]
    found = made(lines)
    assert [scan.name for scan in found] == [f"{word}{n}" for n in (1, 2, 3)]
    for scan, expected in zip(found, kspace, strict=True):
        assert_same(kspace_of(scan), expected)


def test_each_echo_keeps_its_own_time(made):
    kspace = fft2(images(1))
    times = "<sequenceParameters><TR>500</TR><TE>10</TE><TE>20</TE></sequenceParameters>"
    lines = cartesian(kspace) + cartesian(kspace, contrast=1)
    found = made(lines, header(user=times))
    assert [scan.header.known["sequenceParameters/TE"] for scan in found] == [("10",), ("20",)]
    assert {scan.header.known["sequenceParameters/TR"] for scan in found} == {("500",)}


def test_segments_are_no_axis(made):
    kspace = fft2(images(1))
    lines = cartesian(kspace, range(12), segment=1) + cartesian(kspace, range(12, 24), segment=2)
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace)


@pytest.mark.parametrize("place", [1, 5, 7])
def test_lines_that_differ_by_a_counter_of_the_user_do_not_mix(made, place):
    kspace = fft2(images(1))
    lines = cartesian(kspace) + cartesian(kspace, user=[int(n == place) for n in range(8)])
    assert "a counter of the user's own" in refusal(made, lines)


def zeroed(kspace, columns):
    """Return lines of k-space with zeros in some columns, as if they had been measured."""
    kspace = kspace.copy()
    kspace[..., columns] = 0
    return cartesian(kspace)


def test_lines_of_zeros_between_others_are_not_taken_for_measured(made):
    kspace = fft2(images(3))
    assert "holds zeros, or next to nothing, in 8 of a slice's 24 lines" in refusal(
        made, zeroed(kspace, range(0, 24, 3))
    )
    assert "in 6 of a slice's 24 lines" in refusal(made, zeroed(kspace, range(6)))
    (scan,) = made(zeroed(kspace, [0, 1, 2, 22, 23]))  # padding
    assert scan.target
    echo = kspace.copy()
    echo[:, :, :8] = 0  # a partial one, filled
    assert "in 8 of a slice's 32 samples along the readout" in refusal(made, cartesian(echo))
    echo[:, :, 25:] = 0
    assert made(cartesian(echo))[0].target
    late = cartesian(kspace)
    for each in late:
        if each.idx.slice == 2 and each.idx.kspace_encode_step_1 == 9:
            each.data[:] = 0
    (scan,) = made(late)
    with pytest.raises(RefusedError, match="next to nothing, in 1 of a slice's 24 lines"):
        kspace_of(scan)


def test_missing_lines_are_a_mask_and_no_target(made):
    kspace = fft2(images(2))
    steps = np.unique([*range(0, 24, 3), *range(9, 15)])
    (scan,) = made(cartesian(kspace, steps))
    mask = np.isin(np.arange(24), steps)
    assert_same(kspace_of(scan), kspace * mask)
    assert (scan.target, scan.sampled.tolist()) == (False, mask.tolist())
    assert scan.header.acquired == (0, 24)  # the last two were to be skipped, and are no padding


def test_a_first_line_that_was_skipped_is_no_padding(made):
    kspace = fft2(images(1))
    (scan,) = made(cartesian(kspace, range(1, 24, 2)))
    assert_same(kspace_of(scan), kspace * (np.arange(24) % 2))
    assert scan.header.acquired == (0, 24)
    assert "partial_fourier" not in scan.attributes


def test_a_matrix_larger_than_the_lines_is_padded_around_the_centre(made):
    kspace = np.zeros((1, 2, 32, 24), np.complex64)
    kspace[..., 5:20] = fft2(images(1, 2, 32, 15))
    lines = [
        line(kspace[0, :, :, 5 + step], kspace_encode_step_1=step, position=(0, 0, 1))
        for step in range(15)
    ]
    (scan,) = made(lines, header(last=14, center=7))
    assert_same(kspace_of(scan), kspace)
    assert (scan.target, scan.header.acquired) == (True, (5, 20))


def test_lines_need_not_begin_with_number_0(made):
    kspace = np.zeros((1, 2, 32, 24), np.complex64)
    kspace[..., 3:22] = fft2(images(1, 2, 32, 19))
    (scan,) = made(cartesian(kspace, range(3, 22)))
    assert_same(kspace_of(scan), kspace)
    assert scan.header.acquired == (3, 22)
    assert "lines end at 21, before the header's 23" in scan.remarks
    assert scan.header.center == 9


def test_partial_fourier_is_marked_and_no_target(made):
    kspace = fft2(images(2))
    kspace[..., :6] = 0
    (scan,) = made(cartesian(kspace, range(6, 24)))
    assert_same(kspace_of(scan), kspace)
    assert (scan.target, scan.sampled) == (False, None)
    assert scan.attributes["partial_fourier"] == pytest.approx(18 / 23, abs=1e-3)
    assert scan.header.acquired == (6, 24)


@pytest.mark.parametrize("vendor", ["SIEMENS", "Other"])
def test_the_centre_beside_siemens_lines_is_truer_than_their_header(made, vendor):
    kspace = fft2(images(2))
    kspace[..., :6] = 0
    # As siemens_to_ismrmrd writes 6/8: lines from 0 on, the header's centre in their middle.
    lines = [
        line(
            kspace[number, :, :, 6 + step],
            kspace_encode_step_1=step,
            slice=number,
            position=(0, 0, number),
            user=(0, 0, 0, 0, 0, 6, 0, 0),
        )
        for step in range(18)
        for number in range(2)
    ]
    xml = header(vendor=vendor, last=17, center=9)
    if vendor == "SIEMENS":
        (scan,) = made(lines, xml)
        assert_same(kspace_of(scan), kspace)
        assert scan.header.acquired == (6, 24)
        assert "the centre is line 6, as the lines say" in " ".join(scan.remarks)
        assert not scan.target
    else:  # of nobody else a counter of the user's means that; the strongest line gives it away
        (scan,) = made(lines, xml)
        assert "the strongest line is 6, beside the centre, which is 9" in scan.remarks


@pytest.mark.parametrize("said", [0, 40])
def test_a_centre_beside_siemens_lines_that_cannot_be_is_none(made, said):
    kspace = np.zeros((1, 2, 32, 24), np.complex64)
    kspace[..., 6:18] = fft2(images(1, 2, 32, 12))
    user = (0, 0, 0, 0, 0, said, 0, 0)
    lines = cartesian(kspace[..., 6:18], user=user)
    (scan,) = made(lines, header(vendor="SIEMENS", last=11, center=6))
    assert_same(kspace_of(scan), kspace)
    assert scan.remarks == ()


def test_a_centre_far_from_the_strongest_line_is_refused_until_a_person_gives_it(made):
    x, y = 32, 64
    kspace = fft2(images(1, 2, x, y))
    kspace[..., :16] = 0
    lines = [
        line(kspace[0, :, :, 16 + step], kspace_encode_step_1=step, position=(0, 0, 1))
        for step in range(48)
    ]
    xml = header(x=x, y=y, last=47, center=24)
    assert "give center=16" in refusal(made, lines, xml)
    (scan,) = made(lines, xml, Choices(center=16))
    assert_same(kspace_of(scan), kspace)
    (scan,) = made(lines, xml, Choices(center=24))
    assert "the strongest line is 16, beside the centre, which is 24" in scan.remarks


def test_an_asymmetric_echo_leaves_zeros_at_the_start(made):
    kspace = fft2(images(2))
    kspace[..., :8, :] = 0
    (scan,) = made(cartesian(kspace[..., 8:, :], center_sample=8))
    assert_same(kspace_of(scan), kspace)
    assert (scan.target, scan.attributes["partial_echo"]) == (
        False,
        pytest.approx(24 / 31, abs=1e-3),
    )


def test_lines_that_lost_their_oversampling_are_not_padded_to_it(made):
    """As streams are kept by Gadgetron: fewer samples, and the header of before."""
    image = images(2)
    kept = fft2(image[:, :, 8:24])
    (scan,) = made(cartesian(kept))
    assert_same(kspace_of(scan), kept)
    assert (scan.header.encoded, scan.header.recon) == ((16, 24, 1), (16, 24, 1))
    assert (scan.header.encoded_mm, scan.header.recon_mm) == ((200, 200, 4), (200, 200, 4))
    assert "16 samples were kept of the header's readout of 32, oversampled" in scan.remarks
    (short,) = made(cartesian(kept[:, :, 4:], center_sample=4))
    assert_same(kspace_of(short)[:, :, 4:], kept[:, :, 4:])
    assert (short.shape[2], short.target) == (16, False)
    (whole,) = made(cartesian(fft2(image)[:, :, 6:], center_sample=10))
    assert whole.shape[2] == 32


def test_samples_to_be_discarded_are_cut(made):
    kspace = fft2(images(1))
    padded = np.pad(kspace, ((0, 0), (0, 0), (3, 5), (0, 0)), constant_values=99)
    lines = cartesian(padded, center_sample=19, discard_pre=3, discard_post=5)
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace)


def test_a_readout_of_a_neighbour_s_middle_loses_its_last_sample_alone(made):
    kspace = fft2(images(1, 2, 33, 24))
    (scan,) = made(cartesian(kspace, center_sample=17), header(x=33))
    expected = np.zeros_like(kspace)
    expected[..., :32, :] = kspace[..., 1:, :]
    assert_same(kspace_of(scan), expected)
    assert "samples of each line that lie outside the matrix: 1" in scan.remarks


def test_reversed_lines_are_turned_round(made):
    kspace = fft2(images(1))
    lines = cartesian(kspace)
    for each in lines[1::2]:
        each.data[:] = each.data[:, ::-1].copy()
        each.set_flag(ismrmrd.ACQ_IS_REVERSE)
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace)
    assert "lines that ran backwards, and were turned round: 12 of 24" in " ".join(scan.remarks)
    assert not scan.target  # an EPI without phase correction has ghosts
    for each in lines[::2]:
        each.data[:] = each.data[:, ::-1].copy()
        each.set_flag(ismrmrd.ACQ_IS_REVERSE)
    (scan,) = made(lines)
    assert_same(kspace_of(scan), kspace)
    assert scan.target


@pytest.mark.parametrize(
    "flag",
    [
        ismrmrd.ACQ_IS_NOISE_MEASUREMENT,
        ismrmrd.ACQ_IS_NAVIGATION_DATA,
        ismrmrd.ACQ_IS_HPFEEDBACK_DATA,
        ismrmrd.ACQ_IS_RTFEEDBACK_DATA,
        ismrmrd.ACQ_IS_DUMMYSCAN_DATA,
        ismrmrd.ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA,
        ismrmrd.ACQ_IS_PHASE_STABILIZATION_REFERENCE,
        ismrmrd.ACQ_IS_PHASE_STABILIZATION,
    ],
)
def test_lines_of_no_image_are_left_out(made, flag):
    kspace = fft2(images(1))
    other = line(np.full((2, 32), 1e6), [flag], kspace_encode_step_1=5)
    (scan,) = made([other, *cartesian(kspace), other])
    assert_same(kspace_of(scan), kspace)
    assert scan.remarks[0].endswith(": 2")


def calibrated(kspace, alone, both):
    """Return every other line, and calibration lines with their flags."""
    found = []
    for step in range(kspace.shape[-1]):
        flags = []
        if step in alone:
            flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
        elif step in both:
            flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION_AND_IMAGING]
        elif step % 2:
            continue
        found += cartesian(kspace, [step], flags=flags)
    return found


@pytest.mark.parametrize("mode", ["embedded", "interleaved", "other"])
def test_embedded_calibration_is_part_of_k_space(made, mode):
    kspace = fft2(images(2))
    lines = calibrated(kspace, alone=(9, 11, 13), both=(8, 10, 12, 14))
    (scan,) = made(lines, header(calibration=mode))
    mask = np.isin(np.arange(24), [*range(0, 24, 2), 9, 11, 13])
    assert_same(kspace_of(scan), kspace * mask)
    assert scan.sampled.tolist() == mask.tolist()
    assert (scan.calibration, scan.target) == (None, False)


@pytest.mark.parametrize("mode", ["separate", "external", ""])
def test_separate_calibration_stands_beside_k_space(made, mode):
    kspace, other = fft2(images(2)), fft2(images(2, seed=5))
    flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = cartesian(other, range(8, 15), flags=flags) + cartesian(kspace, range(0, 24, 2))
    (scan,) = made(lines, header(calibration=mode))
    assert_same(kspace_of(scan), kspace * (np.arange(24) % 2 == 0))
    assert_same(scan.calibration(), other[..., 8:15])


def test_calibration_at_the_places_of_image_lines_is_in_no_k_space_whatever_the_header(made):
    kspace = fft2(images(2))
    flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = cartesian(kspace, range(0, 24, 2)) + cartesian(3 * kspace, range(8, 16), flags=flags)
    (scan,) = made(lines, header(calibration="embedded"))
    expected = kspace * (np.arange(24) % 2 == 0)
    assert_same(kspace_of(scan), expected)
    assert_same(scan.calibration(), 3 * kspace[..., 8:16])
    said = "calibration lines at the places of the image's, so none of them: 16"
    assert said in scan.remarks


def test_lines_that_are_too_few_for_coil_maps_or_for_an_image_are_told(made):
    kspace = fft2(images(2))
    flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = cartesian(kspace, range(0, 24, 2)) + cartesian(kspace, range(9, 16, 2), flags=flags)
    (scan,) = made(lines, header(calibration="separate"))
    assert "1 of the measured lines stand side by side" in " ".join(scan.remarks)
    (scan,) = made(lines, header(calibration="embedded"))
    assert "side by side" not in " ".join(scan.remarks)
    (scan,) = made(cartesian(kspace, range(8, 17)), header())
    assert "lines are in columns 8 to 16 of 24 alone" in " ".join(scan.remarks)


def test_one_calibration_serves_all_echoes(made):
    kspace, other = fft2(images(1)), fft2(images(1, seed=5))
    flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = cartesian(other, range(8, 15), flags=flags)
    lines += cartesian(kspace, range(0, 24, 2)) + cartesian(kspace, range(0, 24, 2), contrast=1)
    for scan in made(lines, header(calibration="separate")):
        assert_same(scan.calibration(), other[..., 8:15])


def test_calibration_of_another_resolution_is_left_out_and_said(made):
    kspace = fft2(images(1))
    flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = cartesian(kspace[:, :, 8:24], range(4), flags=flags) + cartesian(kspace)
    (scan,) = made(lines, header(calibration="separate"))
    assert_same(kspace_of(scan), kspace)
    assert (scan.calibration, scan.target) == (None, True)
    assert "calibration lines left out: 4" in " ".join(scan.remarks)


@pytest.mark.parametrize("mode", ["embedded", "separate", "other"])
def test_calibration_of_another_encoding_space_is_in_no_k_space(made, mode):
    kspace, other = fft2(images(1)), fft2(images(1, seed=5))
    flags = [ismrmrd.ACQ_IS_PARALLEL_CALIBRATION]
    lines = cartesian(other, range(8, 15), flags=flags, encoding_space_ref=1)
    xml = header(encodings=[encoding(calibration=mode), encoding(y=20, recon_y=10)])
    (scan,) = made(lines + cartesian(kspace, range(0, 24, 2)), xml)
    assert_same(kspace_of(scan), kspace * (np.arange(24) % 2 == 0))
    assert scan.calibration is None
    said = "calibration lines left out: 7; the calibration is of another encoding space"
    assert said in scan.remarks


def test_lines_of_another_number_of_coils_are_left_out_and_counted(made):
    kspace = fft2(images(1))
    body = cartesian(fft2(images(1, 1)), range(3))
    (scan,) = made(body + cartesian(kspace))
    assert_same(kspace_of(scan), kspace)
    assert "lines left out, for they are not of 2 coils: 3" in scan.remarks


def noisy(dwell=5.0, samples=4000, seed=1):
    rng = np.random.default_rng(seed)
    mixing = np.array([[2, 0, 0], [1 + 1j, 0.5, 0], [0.3j, 0.2, 3]])
    white = (rng.normal(size=(3, samples)) + 1j * rng.normal(size=(3, samples))) / np.sqrt(2)
    flags = [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]
    return mixing, line(mixing @ white, flags, sample_time_us=dwell)


def test_noise_lines_whiten_the_coils_when_asked(made):
    mixing, noise = noisy()
    rng = np.random.default_rng(2)
    white = (rng.normal(size=(1, 3, 32, 24)) + 1j * rng.normal(size=(1, 3, 32, 24))) / np.sqrt(2)
    white[..., 16, 12] = 1000
    mixed = np.einsum("ij,njxy->nixy", mixing, white).astype(np.complex64)
    lines = [noise, *cartesian(mixed)]
    (plain,) = made(lines, header(coils=3))
    assert_same(kspace_of(plain), mixed)
    assert plain.attributes["whitened"] is False
    (scan,) = made(lines, header(coils=3), Choices(whiten=True))
    found = kspace_of(scan)
    found[..., 16, 12] = white[..., 16, 12] = 0
    values = found.transpose(1, 0, 2, 3).reshape(3, -1)
    covariance = values @ values.conj().T / values.shape[1]
    np.testing.assert_allclose(covariance, 0.8 * np.eye(3), atol=0.12)  # the header's bandwidth
    # Exactly the inverse of the mixing, but for what 4000 samples know of it.
    assert np.abs(found / np.sqrt(0.8) - white).max() < 0.25
    assert scan.attributes["whitened"] is True


def test_noise_sampled_at_another_rate_is_scaled(made):
    kspace = fft2(images(1, 3))
    (same,) = made([noisy(5.0)[1], *cartesian(kspace)], header(coils=3), Choices(whiten=True))
    (slow,) = made([noisy(20.0)[1], *cartesian(kspace)], header(coils=3), Choices(whiten=True))
    assert_same(kspace_of(slow) * 2, kspace_of(same))
    lines = cartesian(kspace) + cartesian(kspace, contrast=1, sample_time_us=20)
    first, second = made([noisy(5.0)[1], *lines], header(coils=3), Choices(whiten=True))
    assert_same(kspace_of(second), kspace_of(first) * 2)
    assert "noise lines that whitened the coils: 1" in second.remarks


@pytest.mark.parametrize(
    ("noise", "reason"),
    [
        ([], "holds no noise lines of its coils"),
        ([noisy(samples=4)[1]], "cannot part its 3 coils"),
        ([line(np.zeros((3, 99)), [ismrmrd.ACQ_IS_NOISE_MEASUREMENT])], "a coil hears nothing"),
    ],
)
def test_whitening_without_good_noise_is_refused(made, noise, reason):
    lines = [*noise, *cartesian(fft2(images(1, 3)))]
    assert reason in refusal(made, lines, header(coils=3), Choices(whiten=True))


def deep(volume, center=None, steps=None, **more):
    """Return the lines of a volume's k-space (partitions, coils, readout, phase encode)."""
    return [
        line(
            volume[part, :, :, step],
            kspace_encode_step_1=step,
            kspace_encode_step_2=part,
            position=(0, 0, 3),
            **more,
        )
        for part in range(len(volume))
        if steps is None or part in steps
        for step in range(volume.shape[-1])
    ]


def volume_of(image):
    """Transform images (z, coils, x, y) to k-space in three dimensions, in plain numpy."""
    axes = (0, 2, 3)
    moved = np.fft.fftn(np.fft.ifftshift(image, axes=axes), axes=axes, norm="ortho")
    return np.fft.fftshift(moved, axes=axes)


@pytest.mark.parametrize(("z", "kept"), [(8, 8), (8, 6), (7, 5), (8, 5)])
def test_three_dimensions_become_slices_by_a_transform_along_z(made, z, kept):
    image = images(z)
    xml = header(z=z, recon_z=kept)
    (scan,) = made(deep(volume_of(image)), xml)
    first = (z - kept) // 2
    expected = fft2(image)[first : first + kept]
    assert_same(kspace_of(scan), expected)
    assert scan.target
    some = list(scan.read((2, 0)))
    assert_same(np.stack(some), expected[[2, 0]])
    assert scan.header.encoded_mm == (400, 200, 4)
    assert scan.header.recon_mm == (200, 200, 4)


def test_slices_between_the_measured_ones_are_not_made_and_not_counted(made):
    """Scanners interpolate along z, too; each volume's slice is as thick as it was measured."""
    (scan,) = made(deep(volume_of(images(8))), header(z=8, recon_z=16))
    assert scan.shape[0] == 8
    assert scan.header.recon_mm == (200, 200, 4)


def test_partial_fourier_across_partitions_is_no_target(made):
    (scan,) = made(deep(volume_of(images(8)), steps=range(2, 8)), header(z=8))
    assert not scan.target
    assert scan.attributes["partial_fourier_z"] == pytest.approx(6 / 7, abs=1e-3)


def test_partial_fourier_across_partitions_shows_where_the_header_s_centre_is_wrong(made):
    volume = volume_of(images(16))
    lines = deep(volume, steps=range(4, 16))
    for each in lines:
        each.idx.kspace_encode_step_2 -= 4
    (scan,) = made(lines, header(z=16, last_z=11, center_z=6))
    assert not scan.target
    assert scan.attributes["partial_fourier_z"] == pytest.approx(12 / 15)
    assert "the strongest partition is 4, beside the centre, 6" in scan.remarks
    (scan,) = made(lines, header(z=16, last_z=11, center_z=4))
    assert not scan.target
    assert scan.remarks == ("partial_fourier_z of 0.8: it is no target",)


def test_slices_that_are_numbered_as_partitions_are_refused(made):
    kspace = fft2(images(1)) * np.linspace(0.7, 1.2, 8)[:, None, None, None]
    lines = deep(kspace)
    assert "has 8 partitions that are equally strong" in refusal(made, lines, header(z=8))


def test_partitions_that_came_more_often_are_no_stronger(made):
    image = images(8)
    lines = deep(volume_of(image))
    (scan,) = made(lines + deep(volume_of(image), steps=range(4), average=1), header(z=8))
    assert_same(kspace_of(scan), fft2(image))


def test_slices_that_a_header_counts_as_partitions_are_slices(made):
    kspace = fft2(images(4))
    (scan,) = made(cartesian(kspace, kspace_encode_step_2=2), header(z=4))
    assert_same(kspace_of(scan), kspace)
    assert "the header names 4 partitions" in " ".join(scan.remarks)


def test_partitions_that_the_matrix_cannot_take_are_refused(made):
    lines = deep(volume_of(images(8)))
    reason = "holds partitions 0 to 7 with the centre at 2, which the encoded matrix of 4"
    assert reason in refusal(made, lines, header(z=4))


def test_slabs_are_volumes_of_their_own(made):
    stacks = [images(4, seed=seed) for seed in (1, 2)]
    lines = [
        each for n in range(2) for each in deep(volume_of(stacks[n]), slice=n, slice_dir=(0, 0, 1))
    ]
    for each in lines:
        each.position[2] = 40 * each.idx.slice
    found = made(lines, header(z=4))
    assert [scan.name for scan in found] == ["slab1", "slab2"]
    for scan, image in zip(found, stacks, strict=True):
        assert_same(kspace_of(scan), fft2(image))


def test_partitions_of_other_lines_are_refused(made):
    lines = deep(volume_of(images(8)))
    kept = [e for e in lines if (e.idx.kspace_encode_step_1 + e.idx.kspace_encode_step_2) % 2 == 0]
    assert "other lines in one partition than in another" in refusal(made, kept, header(z=8))


def test_skipped_partitions_are_refused(made):
    lines = deep(volume_of(images(8)), steps=range(0, 8, 2))
    assert "skips some of its partitions" in refusal(made, lines, header(z=8))


def test_a_slice_cut_short_is_refused_and_of_several_volumes_that_one_alone(made):
    kspace = fft2(images(2))
    reason = "other lines in one slice than in another, 23 to 24 of 24"
    assert reason in refusal(made, cartesian(kspace)[:-1])
    (scan,) = made(cartesian(kspace) + cartesian(kspace, repetition=1)[:-1])
    assert scan.name == "repetition1"
    assert f"repetition2 is left out: it has {reason}" in " ".join(scan.remarks)


@pytest.mark.parametrize("z", [1, 8])
def test_signs_that_alternate_without_a_word_are_refused(made, z):
    image = np.pad(images(z), [(0, 0), (0, 0), (0, 0), (12, 12)])
    signs = (-1.0) ** np.arange(48)
    lines = cartesian(fft2(image) * signs) if z == 1 else deep(volume_of(image) * signs)
    said = refusal(made, lines, header(y=48, z=z))
    assert "halves lie at the two edges along phase encode" in said


def test_signs_that_alternate_are_turned_back(made):
    user = (
        "<userParameters><userParameterLong><name>ChopY</name><value>0</value></userParameterLong>"
        "</userParameters>"
    )
    kspace = fft2(images(1))
    (scan,) = made(cartesian(kspace * (-1) ** np.arange(24)), header(user=user))
    assert_same(kspace_of(scan), kspace)


EPI = [ismrmrd.ACQ_IS_PHASECORR_DATA]


@pytest.mark.parametrize(
    ("lines", "xml", "reason"),
    [
        ({}, header(trajectory="radial"), "a trajectory that its header calls 'radial'"),
        ({}, header(trajectory="spiral"), "a trajectory that its header calls 'spiral'"),
        ({}, header(trajectory="propellor"), "a trajectory that its header calls 'propellor'"),
        ({}, header(trajectory="epi"), "is an EPI (its header says)"),
        ({}, header(multiband=3), "is a multiband measurement (3 slices at once)"),
        ({"flags": EPI}, None, "it holds 24 phase-correction lines"),
        ({"flags": [ismrmrd.ACQ_IS_NOISE_MEASUREMENT]}, None, "holds 24 lines, none of which is"),
        ({"center_sample": 9}, None, "the encoded matrix of 32 cannot take"),
        ({}, header(x=60000, y=60000), "an encoded matrix of 60000x60000, too large for a slice"),
        ({"discard_pre": 32}, None, "only lines of equal length make a grid"),
        ({}, header(y=20), "holds lines 0 to 23 with the centre at 10"),
        ({}, header(x=16), "has lines of 32 samples with the centre at 16"),
        ({"encoding_space_ref": 1}, None, "lines of encoding space 1, and its header describes 1"),
    ],
)
def test_what_has_no_place_on_a_grid_is_refused(made, lines, xml, reason):
    assert reason in refusal(made, cartesian(fft2(images(1)), **lines), xml)


def test_lines_of_zeros_alone_are_refused(made):
    assert "holds zeros alone" in refusal(made, cartesian(np.zeros((1, 2, 32, 24))))


def test_an_epi_that_calls_itself_cartesian_is_refused_by_its_lines(made):
    kspace = fft2(images(1))
    lines = cartesian(kspace, [12, 12, 12], flags=EPI) + cartesian(kspace)
    for each in lines[::2]:
        each.set_flag(ismrmrd.ACQ_IS_REVERSE)
    assert "is an EPI (it holds 3 phase-correction lines)" in refusal(made, lines)


def test_spokes_that_call_themselves_cartesian_lines_are_refused(made):
    rng = np.random.default_rng(1)
    spokes = np.ones(24) * np.exp(-np.abs(np.arange(64) - 32) / 3)[:, None]
    spokes = spokes * rng.uniform(0.9, 1.1, size=(1, 2, 64, 24))
    reason = "all its lines along phase encode are equally strong, as in radial or spiral scans"
    assert reason in refusal(made, cartesian(spokes), header(x=64))


def test_lines_of_unequal_length_are_refused(made):
    kspace = fft2(images(1))
    lines = cartesian(kspace, range(12)) + cartesian(kspace[:, :, 2:-2], range(12, 24))
    assert "lines of 28 to 32 samples" in refusal(made, lines)


def test_encoding_spaces_that_differ_are_refused_and_others_are_one(made):
    kspace = fft2(images(1))
    lines = cartesian(kspace, range(12)) + cartesian(kspace, range(12, 24), encoding_space_ref=1)
    for other, differing in (
        ({"y": 48}, "encoded, recon, center, last:"),
        ({"center": 8}, "center:"),  # of each echo its own: the first one's was taken for both
        ({"mm": 8}, "encoded_mm, recon_mm:"),
        ({"trajectory": "radial"}, "trajectory:"),
    ):
        xml = header(encodings=[encoding(), encoding(**other)])
        assert f"2 encoding spaces that differ in {differing}" in refusal(made, lines, xml)
    (scan,) = made(lines, header(encodings=[encoding(), encoding()]))
    assert_same(kspace_of(scan), kspace)


def test_lines_that_name_no_central_sample_are_taken_to_be_whole(made):
    kspace = fft2(images(1))
    (scan,) = made(cartesian(kspace, center_sample=0))
    assert_same(kspace_of(scan), kspace)
    assert "the lines name no central sample: the middle was assumed" in scan.remarks
    kept = fft2(images(1)[:, :, 8:24])
    (scan,) = made(cartesian(kept, center_sample=0))  # nor have they their oversampling
    assert_same(kspace_of(scan), kept)


def test_a_person_s_matrix_comes_before_the_header_s(made):
    kspace = fft2(images(1))
    choices = Choices(matrix=(32, 24), recon=(16, 20))
    (scan,) = made(cartesian(kspace), header(x=16, y=20, center=12, last=23), choices)
    assert_same(kspace_of(scan), kspace)
    assert scan.header.recon == (16, 20, 1)


@pytest.mark.parametrize("matrix", [(24, 36), (32, 48), (16, 36)])
def test_interpolated_image_s_matrix_is_what_was_measured_of_its_field_of_view(made, matrix):
    """Cut to 24x24, as where fastMRI's k-space is narrower, it would show more than it says."""
    (scan,) = made(cartesian(fft2(images(1))), header(recon_x=matrix[0], recon_y=matrix[1]))
    assert scan.header.recon == (16, 24, 1)
    assert crop_size(scan.shape[2:], scan.header.recon) == (16, 24)
    assert f"the header's image of {matrix[0]}x{matrix[1]} is interpolated" in scan.remarks[0]


def test_field_of_view_is_that_of_the_image_which_is_written(made):
    (scan,) = made(cartesian(fft2(images(1))), choices=Choices(recon=(8, 12)))
    assert scan.header.recon_mm == (100, 100, 4)
    square = header(recon_y=48).replace("<x>200</x><y>200</y>", "<x>200</x><y>400</y>")
    (scan,) = made(cartesian(fft2(images(1))), square)
    assert (scan.header.recon, scan.header.recon_mm) == ((16, 24, 1), (200, 200, 4))


def test_image_that_shows_less_than_its_field_of_view_says_so(made):
    remark = "the image of 16x16 is the middle of what the header calls its field of view, 16x24"
    (scan,) = made(cartesian(fft2(images(1))), header(recon_y=16))
    assert scan.header.recon == (16, 16, 1)
    assert remark in scan.remarks[0]
    (scan,) = made(cartesian(fft2(images(1))), header(recon_y=16), Choices(recon=(16, 24)))
    assert (scan.header.recon, scan.remarks) == ((16, 24, 1), ())
    nothing_in_mm = header(recon_y=16).replace("mm>", "mil>")
    assert made(cartesian(fft2(images(1))), nothing_in_mm)[0].remarks == ()


def test_image_that_is_larger_than_its_matrix_is_not_asked_for(made):
    asked = Choices(recon=(16, 48))
    assert "recon=16x48, more than its matrix of 32x24" in refusal(
        made, cartesian(fft2(images(1))), choices=asked
    )
