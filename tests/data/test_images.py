import numpy as np
import pytest
from fastmri import fft2c, ifft2c, rss_complex
from fastmri.data.transforms import complex_center_crop, to_tensor

from tests.recon.conftest import noise
from workbench.data.images import (
    center_crop,
    centered_fft2,
    centered_ifft2,
    crop_size,
    root_sum_of_squares,
    sensitivity_maps,
    zero_filled,
)


@pytest.mark.parametrize("shape", [(3, 20, 14), (2, 21, 13)])
def test_transforms_equal_fastmri_and_keep_single_precision(shape):
    values = noise(*shape)
    for ours, theirs in ((centered_fft2, fft2c), (centered_ifft2, ifft2c)):
        expected = theirs(to_tensor(values)).numpy()
        result = ours(values)
        assert result.dtype == np.complex64
        np.testing.assert_allclose(result, expected[..., 0] + 1j * expected[..., 1], atol=1e-6)


@pytest.mark.parametrize("crop", [(10, 10), (9, 7)])
def test_zero_filled_equals_fastmri(crop):
    kspace = noise(4, 21, 14)
    expected = rss_complex(complex_center_crop(ifft2c(to_tensor(kspace)), crop)).numpy()
    image = zero_filled(kspace, crop)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, rtol=1e-5)


def test_single_coil_kspace_gives_the_magnitude():
    kspace = noise(20, 14)
    np.testing.assert_allclose(
        zero_filled(kspace, (10, 10)),
        np.abs(center_crop(centered_ifft2(kspace), (10, 10))),
        rtol=1e-5,
    )


def test_crop_is_the_headers_matrix_and_narrow_flair_is_cropped_to_its_width_squared():
    assert crop_size((640, 368), (320, 320)) == (320, 320)
    assert crop_size((256, 368), (320, 320)) == (256, 320)
    assert crop_size((512, 213), (256, 256)) == (213, 213)
    assert zero_filled(noise(2, 40, 13), (20, 20)).shape == (13, 13)
    with pytest.raises(ValueError, match="an image of 20x14 has no centre of 24x10"):
        center_crop(np.zeros((3, 20, 14)), (24, 10))
    with pytest.raises(ValueError, match=r"kspace of shape \(2, 3, 20, 14\): give one slice"):
        zero_filled(noise(2, 3, 20, 14), (10, 10))


def smooth_study(height=64, width=48):
    """An object and the smooth sensitivities, of unit root sum of squares, that hear it."""
    rows, columns = np.meshgrid(
        np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij"
    )
    angles = 2 * np.pi * np.arange(4)[:, None, None] / 4
    coils = np.exp(
        -((rows - np.cos(angles)) ** 2 + (columns - np.sin(angles)) ** 2) / 2 + 1j * angles
    )
    coils /= root_sum_of_squares(coils)
    return np.hypot(rows, columns) < 0.7, coils


def test_maps_of_smooth_coils_are_found_where_there_is_an_object():
    inside, coils = smooth_study()
    maps = sensitivity_maps(centered_fft2(inside * coils).astype(np.complex64), 16)
    assert maps.dtype == np.complex64
    assert np.abs(maps - coils)[:, inside].mean() < 0.03
    np.testing.assert_allclose(root_sum_of_squares(maps)[inside], 1, atol=1e-5)


def test_maps_are_zero_in_air_and_use_nothing_outside_the_acs():
    inside, coils = smooth_study()
    kspace = centered_fft2(inside * coils).astype(np.complex64)
    assert not sensitivity_maps(kspace, 24)[:, :4, :4].any()
    changed = kspace.copy()
    changed[..., :14] = changed[..., -14:] = 5
    np.testing.assert_array_equal(sensitivity_maps(changed, 12), sensitivity_maps(kspace, 12))
    assert not sensitivity_maps(np.zeros((2, 8, 8), np.complex64), 4).any()
    for columns in (0, 49):
        with pytest.raises(ValueError, match=f"low_frequencies={columns}: give 1 to 48"):
            sensitivity_maps(noise(2, 64, 48), columns)
