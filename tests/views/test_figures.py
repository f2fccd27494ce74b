"""Figures of images, k-space, coils, learning curves and scores."""

import gc
import weakref

import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers

from tests.views.conftest import results_of
from workbench.compute.jobs import training_job
from workbench.recon.scoring import score_slice
from workbench.views.curves import learning_curves, loss_in_words
from workbench.views.kspace import (
    acs_columns,
    coils_figure,
    decibels,
    kspace_and_mask_figure,
    sampling_in_words,
)
from workbench.views.reconstructions import (
    contact_sheet,
    error_factor,
    reconstruction_figure,
    ssim_image,
)
from workbench.views.scores import against_figure, spread_figure
from workbench.views.style import SYNTHETIC_NOTE


@pytest.fixture
def images():
    """A target and three images that are more and more like it."""
    random = np.random.default_rng(0)
    target = random.uniform(size=(32, 40)).astype(np.float32)
    noise = random.normal(size=target.shape).astype(np.float32)
    return target, [target + level * noise for level in (0.3, 0.1, 0.02)]


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def shown(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def test_each_reconstruction_carries_its_own_ssim_and_shares_the_windows(images):
    target, (zero_filled, better, best) = images
    named = {"zero-filled": zero_filled, "one": better, "two": best}
    figure = reconstruction_figure(
        target, zero_filled, {"one": better, "two": best}, data_range=1.2
    )
    for name, image in named.items():
        ssim = score_slice(torch.tensor(image), torch.tensor(target), "", 0, 1.2).parts["ssim"]
        assert any(t.startswith(f"{name}\nSSIM {ssim:.3f}") for t in titles(figure))
    factor = error_factor(
        np.abs(zero_filled - target), [np.abs(each - target) for each in (better, best)], 1.2
    )
    panels = dict.fromkeys(("", f"error ×{factor}", "SSIM map"), ())
    for axes in figure.axes:
        if axes.images and axes.get_subplotspec().get_gridspec().nrows > 1:
            title = axes.get_title() if axes.get_title() in panels else ""
            panels[title] = (*panels[title], axes.images[0])
    assert [len(row) for row in panels.values()] == [4, 3, 3]
    assert all(len({image.get_clim() for image in row}) == 1 for row in panels.values())
    *_, error = panels[f"error ×{factor}"]
    assert error.get_clim() == (0, 100 / factor)
    np.testing.assert_allclose(error.get_array(), np.abs(best - target) * 100 / 1.2, rtol=1e-5)


@pytest.mark.parametrize(("error", "factor"), [(0.9, 1), (0.3, 2), (0.06, 10), (0.0, 100)])
def test_error_factor_keeps_the_reconstructions_inside_the_scale(error, factor):
    assert error_factor(np.zeros((4, 4)), [np.full((4, 4), error)], 1.0) == factor


def test_ssim_map_is_one_where_images_agree_and_has_the_images_shape(images):
    target, (noisy, *_) = images
    half = np.where(np.arange(40) < 20, target, noisy)
    values = ssim_image(half, target, 1.0)
    assert values.shape == target.shape
    assert np.isnan(values[:3]).all()
    np.testing.assert_allclose(values[3:-3, 3:17], 1, atol=1e-9)
    assert values[3:-3, 24:-3].mean() < 0.9


def test_image_that_is_not_finite_is_shown_and_said(images):
    target, (zero_filled, better, _) = images
    better[3, :10] = np.nan
    figure = reconstruction_figure(target, zero_filled, {"VarNet": better})
    words = [" ".join(title.split()) for title in titles(figure)]
    assert "VarNet 0.781 % of the pixels are not finite (red)" in words
    assert any(title.startswith("zero-filled\nSSIM 0.") for title in titles(figure))
    broken = next(axes for axes in figure.axes if axes.get_title().startswith("VarNet"))
    assert np.ma.getmaskarray(broken.images[0].get_array()).sum() == 10
    assert figure._repr_png_()
    sheet = contact_sheet([target, np.full_like(target, np.nan)], ["one", "broken"])
    assert shown(sheet)[0].get_array().max() == pytest.approx(100)
    assert sheet._repr_png_()


def test_slice_of_zeros_is_shown():
    blank = np.zeros((16, 16), np.float32)
    assert reconstruction_figure(blank, blank, {"VarNet": blank})._repr_png_()


@pytest.mark.parametrize("synthetic", [True, False])
def test_synthetic_data_is_said_where_it_is_synthetic(images, synthetic):
    target, others = images
    figures = (
        reconstruction_figure(target, others[0], {}, synthetic=synthetic),
        contact_sheet([target], ["one"], synthetic=synthetic),
        learning_curves([{"epoch": 1, "train_loss": 0.3}], synthetic=synthetic),
    )
    for figure in figures:
        assert (figure.get_supxlabel() == SYNTHETIC_NOTE) is synthetic


def test_contact_sheet_shows_every_image_in_one_window_of_the_brightest(images):
    target, others = images
    sheet = contact_sheet([target, *others, target], list("abcde"))
    assert [axes.get_title() for axes in sheet.axes if axes.images] == list("abcde")
    assert len({image.get_clim() for image in shown(sheet)}) == 1
    dim, bright = np.full((8, 8), 2.0), np.full((8, 8), 4.0)
    sheet = contact_sheet([dim, bright], ["dim", "bright"])
    assert [image.get_array().max() for image in shown(sheet)] == [50, 100]


def test_long_title_stays_inside_a_narrow_figure(images):
    title = "file_brain_AXFLAIR_200_6002462.h5, slice 7: a message of many words for one panel"
    sheet = contact_sheet([images[0]], ["one"], title=title)
    sheet.draw_without_rendering()
    assert sheet.get_suptitle().split() == title.split()
    assert sheet._suptitle.get_window_extent().width < sheet.bbox.width


def test_figures_are_not_kept_by_matplotlib(images):
    figure = contact_sheet([images[0]], ["one"])
    assert figure._repr_png_()
    kept = weakref.ref(figure)
    del figure
    gc.collect()
    assert kept() is None
    assert not _pylab_helpers.Gcf.figs


# ---- learning curves ----------------------------------------------------------------------


def epochs(count):
    ssim = [0.6, 0.8, 0.75, 0.7]
    return [
        {"epoch": n + 1, "train_loss": 0.4, "val_ssim": ssim[n], "val_psnr": 30.0 + n}
        for n in range(count)
    ]


def test_learning_curves_mark_the_epoch_of_the_best_ssim():
    figure = learning_curves([row | {"val_nmse": 0.05} for row in epochs(4)])
    assert figure.get_suptitle() == "Best validation SSIM 0.8000 after epoch 2"
    assert "validation PSNR: 31.00" in " ".join(ax.get_title("left") for ax in figure.axes)
    for axes in figure.axes:
        assert axes.lines[1].get_xdata()[0] == 2


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "1 − SSIM"),
        ({"loss": "ssim"}, "1 − SSIM"),
        ({"loss": "l1"}, "l1"),
        ({"network": "unet"}, "L1, input normalised"),
        ({"network": "unet", "loss": "ssim"}, "1 − SSIM"),
        ({"learning": "self-supervised"}, "error of k-space"),
    ],
)
def test_curve_of_the_training_loss_says_which_it_is(asked, said):
    job = training_job("data", synthetic=False, model="brain", **asked)
    figure = learning_curves(epochs(2), loss=loss_in_words(job))
    assert figure.axes[0].get_ylabel() == said


def test_learning_curves_of_one_epoch_are_drawn():
    figure = learning_curves(epochs(1))
    assert figure._repr_png_()
    assert list(figure.axes[0].get_lines()[0].get_xdata()) == [1]
    assert all(float(tick).is_integer() for tick in figure.axes[3].get_xticks())
    unknown = learning_curves([{"epoch": 1, "train_loss": 0.5, "val_ssim": float("nan")}])
    assert unknown.get_suptitle() == ""


# ---- k-space and coils --------------------------------------------------------------------


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


def test_true_acceleration_counts_acquired_lines_only_and_acs_is_found_in_the_mask(mask):
    # Of lines 2 to 17: 2, 6, 8, 9, 10, 11, 14.
    words = sampling_in_words(mask, 4, (2, 18))
    assert words.startswith("7 of 16 lines sampled: 2.29× true acceleration, ACS 4 lines (20.0 %)")
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
    names = [axes.get_title() for axes in figure.axes if axes.images]
    assert names == ["mask: sampled lines white, padding hatched", "k-space, sampled lines"]


def test_decibels_are_below_the_largest_magnitude():
    kspace = np.array([[[10, 1], [0, 0.1]]], np.complex64)
    np.testing.assert_allclose(decibels(kspace), [[0, -20], [np.nan, -40]], atol=1e-4)


@pytest.mark.parametrize("coils", [1, 3, 11])
def test_every_coil_has_a_magnitude_and_a_phase(coils):
    random = np.random.default_rng(0)
    images = random.normal(size=(coils, 12, 10)) + 1j * random.normal(size=(coils, 12, 10))
    figure = coils_figure(images)
    limits = [image.get_clim() for image in shown(figure)]
    assert len(limits) == 2 * coils
    assert limits.count((-np.pi, np.pi)) == coils
    assert len(set(limits)) == 2
    assert figure._repr_png_()


def test_maps_leave_air_blank():
    maps = np.ones((2, 8, 8), np.complex64) / np.sqrt(2)
    maps[:, :, :3] = 0
    values = coils_figure(maps, sensitivities=True).axes[0].images[0].get_array()
    assert np.ma.getmaskarray(values)[:, :3].all()
    np.testing.assert_allclose(values[:, 3:], np.sqrt(0.5), rtol=1e-6)


# ---- scores -------------------------------------------------------------------------------


def score(ssim, psnr=30.0, nmse=0.05):
    return {"ssim": ssim, "psnr": psnr, "nmse": nmse}


@pytest.fixture
def of(tmp_path):
    """Results of a run with some scores of its reconstructions."""

    def of(made, run="new", kinds=KINDS):
        folder = tmp_path / run / "reconstructions/val"
        return results_of(folder, {path: (score(0.5), each) for path, each in made.items()}, kinds)

    return of


SCORES = {f"v{n}": score(0.8 + 0.01 * n) for n in range(7)}
KINDS = {f"v{n}": "AXT2" if n < 5 else "AXFLAIR" for n in range(7)}


def test_every_volume_is_a_dot_in_its_acquisition_and_in_all(of):
    figure = spread_figure(of(SCORES))
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["all volumes\nn = 7", "AXFLAIR\nn = 2", "AXT2\nn = 5"]
    dots = [line.get_ydata() for line in figure.axes[0].lines if line.get_marker() == "o"]
    every = [0.5] * 7 + [each["ssim"] for each in SCORES.values()]
    np.testing.assert_allclose(np.sort(np.concatenate(dots)), np.sort(every * 2))
    means = "Mean SSIM of 7 volumes: zero-filled 0.500, VarNet 0.830"
    assert spread_figure(of(SCORES, kinds=())).get_suptitle() == means


def test_one_volume_is_enough(of):
    figure = spread_figure(of({"v1": score(0.5)}))
    assert figure.axes[0].get_xticklabels()[0].get_text() == "AXT2\nn = 1"
    assert figure._repr_png_()


def test_infinite_psnr_of_a_perfect_volume_is_left_out(of):
    perfect = of({"a": score(1.0, np.inf, 0.0), "b": score(0.9, 40.0, 0.01)})
    assert spread_figure(perfect)._repr_png_()
    worse = of({"a": score(1.0, 45.0, 0.0), "b": score(0.9, 39.0, 0.01)}, "old")
    figure = against_figure(worse, perfect)
    assert figure._repr_png_()
    assert (
        figure.axes[1].get_title("left")
        == "PSNR (dB): +1.00 on average\nbetter (above the line) in 2 of 2"
    )


def test_volume_that_is_not_finite_is_left_out_and_named(of):
    figure = spread_figure(of(SCORES | {"v2": score(*3 * [float("nan")])}))
    assert "VarNet 0.832 (of 6)" in figure.get_suptitle()
    assert "not finite, left out of VarNet: v2" in figure.get_suptitle()
    assert figure._repr_png_()


def test_comparison_gives_the_mean_difference_of_pairs(of):
    first = {f"v{n}": score(0.5 + 0.01 * n) for n in range(7)}
    second = {
        volume: score(first[volume]["ssim"] + (0.03 if volume != "v0" else -0.04), nmse=0.04)
        for volume in reversed(first)
    }
    figure = against_figure(of(first, "old"), of(second))
    assert figure.get_suptitle() == "new against old: SSIM +0.0200 on average, n = 7"
    assert figure.axes[0].get_title("left").endswith("better (above the line) in 6 of 7")
    lower = "NMSE: −0.0100 on average\nbetter (below the line) in 7 of 7"
    assert figure.axes[2].get_title("left") == lower
    kinds = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(kinds["AXT2"].get_xdata(), [0.5, 0.51, 0.52, 0.53, 0.54])
    np.testing.assert_allclose(kinds["AXT2"].get_ydata(), [0.46, 0.54, 0.55, 0.56, 0.57])


def test_target_without_room_for_a_window_of_the_ssim_is_named():
    with pytest.raises(ValueError, match=r"target of shape \(6, 40\): give \(H, W\), 7x7 or more"):
        reconstruction_figure(*[np.ones((6, 40), np.float32)] * 2, {})
