import numpy as np
import pytest

from workbench.views.kspace import (
    acs_columns,
    coils_figure,
    decibels,
    kspace_and_mask_figure,
    sampling_in_words,
)


@pytest.fixture
def kspace():
    random = np.random.default_rng(0)
    values = random.normal(size=(3, 24, 20)) + 1j * random.normal(size=(3, 24, 20))
    values[..., :2] = values[..., 18:] = 0
    return values.astype(np.complex64)


@pytest.fixture
def mask():
    """Every fourth of 20 columns, and four of ACS, 8 to 11."""
    mask = np.arange(20) % 4 == 2
    mask[8:12] = True
    return mask


def test_true_acceleration_counts_acquired_lines_only(mask):
    # Of lines 2 to 17: 2, 6, 8, 9, 10, 11, 14.
    words = sampling_in_words(mask, 4, (2, 18))
    assert words.startswith("7 of 16 lines sampled: 2.29× true acceleration, ACS 4 lines (20.0 %)")


def test_acs_is_found_in_the_mask(mask):
    assert acs_columns(mask) == (8, 12)
    assert acs_columns(mask, 3) == (9, 12)


def test_masked_panel_lacks_the_lines_that_the_mask_lacks(kspace, mask):
    figure = kspace_and_mask_figure(kspace, mask, acquired=(2, 18), title="file1, slice 3")
    assert figure.get_suptitle().startswith("file1, slice 3\n7 of 16 lines sampled: 2.29×")
    full, _, masked = (axes for axes in figure.axes if axes.images)
    kept = mask & (np.arange(20) >= 2) & (np.arange(20) < 18)
    seen = ~np.ma.getmaskarray(masked.images[0].get_array())
    assert (seen.all(axis=0) == kept).all()
    assert full.images[0].get_clim() == masked.images[0].get_clim()
    assert (full.get_ylabel(), full.get_xlabel()) == ("readout, sample", "phase encode, line")


@pytest.mark.parametrize(("acquired", "spans"), [((2, 18), 2), (None, 0)])
def test_zero_padding_is_hatched_on_both_sides(kspace, mask, acquired, spans):
    figure = kspace_and_mask_figure(kspace, mask, acquired=acquired)
    assert len([patch for patch in figure.axes[0].patches if patch.get_hatch()]) == spans


def test_undersampled_volume_is_not_shown_as_fully_sampled(kspace, mask):
    figure = kspace_and_mask_figure(kspace * mask, mask, acquired=(2, 18))
    titles = [axes.get_title() for axes in figure.axes if axes.images]
    assert titles == ["mask: sampled lines white, padding hatched", "k-space, sampled lines"]


def test_decibels_are_below_the_largest_magnitude():
    kspace = np.array([[[10, 1], [0, 0.1]]], np.complex64)
    np.testing.assert_allclose(decibels(kspace), [[0, -20], [np.nan, -40]], atol=1e-4)


@pytest.mark.parametrize("coils", [1, 3, 11])
def test_every_coil_has_a_magnitude_and_a_phase(coils):
    random = np.random.default_rng(0)
    images = random.normal(size=(coils, 12, 10)) + 1j * random.normal(size=(coils, 12, 10))
    figure = coils_figure(images)
    limits = [axes.images[0].get_clim() for axes in figure.axes if axes.images]
    assert len(limits) == 2 * coils
    assert limits.count((-np.pi, np.pi)) == coils
    assert len(set(limits)) == 2
    assert figure._repr_png_()


def test_maps_leave_air_blank():
    maps = np.ones((2, 8, 8), np.complex64) / np.sqrt(2)
    maps[:, :, :3] = 0
    shown = coils_figure(maps, sensitivities=True).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(shown)[:, :3].all()
    np.testing.assert_allclose(shown[:, 3:], np.sqrt(0.5), rtol=1e-6)
