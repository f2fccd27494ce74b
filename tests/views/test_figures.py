import gc
import weakref

import numpy as np
import pytest
import torch
from matplotlib import _pylab_helpers
from matplotlib.figure import Figure

from workbench.recon.scoring import score_slice
from workbench.views.curves import learning_curves
from workbench.views.reconstructions import (
    contact_sheet,
    error_factor,
    reconstruction_figure,
    ssim_image,
)
from workbench.views.style import SYNTHETIC_NOTE


@pytest.fixture
def images():
    """A target and three images that are more and more like it."""
    random = np.random.default_rng(0)
    target = random.uniform(size=(32, 40)).astype(np.float32)
    noise = random.normal(size=target.shape).astype(np.float32)
    return target, [target + level * noise for level in (0.3, 0.1, 0.02)]


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes]


def windows(figure: Figure) -> list[list[tuple[float, float]]]:
    """The window of each image, row by row of the figure."""
    rows: dict[int, list[tuple[float, float]]] = {}
    for axes in figure.axes:
        place = axes.get_subplotspec()
        if axes.images and place.get_gridspec().nrows > 1:
            rows.setdefault(place.rowspan.start, []).append(axes.images[0].get_clim())
    return [rows[row] for row in sorted(rows)]


def test_each_reconstruction_carries_its_own_ssim(images):
    target, (zero_filled, better, best) = images
    figure = reconstruction_figure(
        target, zero_filled, {"one": better, "two": best}, data_range=1.2
    )
    for name, image in {"zero-filled": zero_filled, "one": better, "two": best}.items():
        ssim = score_slice(torch.tensor(image), torch.tensor(target), "", 0, 1.2).parts["ssim"]
        assert any(t.startswith(f"{name}\nSSIM {ssim:.3f}") for t in titles(figure))


def test_compared_panels_share_one_window(images):
    target, (zero_filled, better, best) = images
    figure = reconstruction_figure(target, zero_filled, {"one": better, "two": best})
    rows = windows(figure)
    assert [len(row) for row in rows] == [4, 3, 3]
    assert all(len(set(row)) == 1 for row in rows)


def test_error_is_shown_in_percent_with_its_factor(images):
    target, (zero_filled, _, best) = images
    figure = reconstruction_figure(target, zero_filled, {"one": best}, data_range=2.0)
    factor = error_factor(np.abs(zero_filled - target), [np.abs(best - target)], 2.0)
    shown = [axes for axes in figure.axes if axes.get_title() == f"error ×{factor}"]
    assert len(shown) == 2
    assert shown[0].images[0].get_clim() == (0, 100 / factor)
    np.testing.assert_allclose(
        shown[1].images[0].get_array(), 50 * np.abs(best - target), rtol=1e-5
    )


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


def test_shapes_that_differ_are_named(images):
    target, (zero_filled, better, _) = images
    with pytest.raises(ValueError, match=r"VarNet of shape \(30, 40\), target of \(32, 40\)"):
        reconstruction_figure(target, zero_filled, {"VarNet": better[:30]})


def test_image_that_is_not_finite_is_shown_and_said(images):
    target, (zero_filled, better, _) = images
    better[3, :10] = np.nan
    figure = reconstruction_figure(target, zero_filled, {"VarNet": better})
    assert "VarNet\n0.781 % of the pixels are not finite (red)" in titles(figure)
    assert any(title.startswith("zero-filled\nSSIM 0.") for title in titles(figure))
    shown = next(axes for axes in figure.axes if axes.get_title().startswith("VarNet"))
    masked = np.ma.getmaskarray(shown.images[0].get_array())
    assert masked.sum() == 10
    assert figure._repr_png_()


def test_sheet_with_an_image_that_is_not_finite_keeps_the_others_window(images):
    target, _ = images
    sheet = contact_sheet([target, np.full_like(target, np.nan)], ["one", "broken"])
    assert sheet.axes[0].images[0].get_array().max() == pytest.approx(100)
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


def test_contact_sheet_shows_every_image_in_one_window(images):
    target, others = images
    sheet = contact_sheet([target, *others, target], list("abcde"))
    shown = [axes for axes in sheet.axes if axes.images]
    assert [axes.get_title() for axes in shown] == list("abcde")
    assert len({axes.images[0].get_clim() for axes in shown}) == 1


def test_contact_sheet_scales_to_the_brightest_of_all():
    dim, bright = np.full((8, 8), 2.0), np.full((8, 8), 4.0)
    sheet = contact_sheet([dim, bright], ["dim", "bright"])
    assert [axes.images[0].get_array().max() for axes in sheet.axes if axes.images] == [50, 100]


def test_contact_sheet_needs_a_label_an_image(images):
    with pytest.raises(ValueError, match="1 images, 2 labels"):
        contact_sheet([images[0]], ["a", "b"])


def test_long_title_stays_inside_a_narrow_figure(images):
    title = "file_brain_AXFLAIR_200_6002462.h5, slice 7: a message of many words for one panel"
    sheet = contact_sheet([images[0]], ["one"], title=title)
    sheet.draw_without_rendering()
    assert sheet.get_suptitle().split() == title.split()
    assert sheet._suptitle.get_window_extent().width < sheet.bbox.width


def test_figures_are_not_kept_by_matplotlib(images):
    target, (zero_filled, better, _) = images
    figure = reconstruction_figure(target, zero_filled, {"one": better})
    assert figure._repr_png_()
    kept = weakref.ref(figure)
    del figure
    gc.collect()
    assert kept() is None
    assert not _pylab_helpers.Gcf.figs


def rows(count):
    ssim = [0.6, 0.8, 0.75, 0.7]
    return [
        {
            "epoch": number + 1,
            "train_loss": 0.4 - 0.1 * number,
            "val_ssim": ssim[number],
            "val_psnr": 30.0 + number,
            "val_nmse": 0.05,
        }
        for number in range(count)
    ]


def test_learning_curves_mark_the_epoch_of_the_best_ssim():
    figure = learning_curves(rows(4))
    assert figure.get_suptitle() == "Best validation SSIM 0.8000 after epoch 2"
    assert "validation PSNR: 31.00" in " ".join(ax.get_title("left") for ax in figure.axes)
    for axes in figure.axes:
        assert axes.lines[1].get_xdata()[0] == 2


def test_learning_curves_of_one_epoch_are_drawn():
    figure = learning_curves(rows(1))
    assert figure._repr_png_()
    assert list(figure.axes[0].get_lines()[0].get_xdata()) == [1]
    assert all(float(tick).is_integer() for tick in figure.axes[3].get_xticks())


def test_learning_curves_without_validation_have_no_best_epoch():
    figure = learning_curves([{"epoch": 1, "train_loss": 0.5, "val_ssim": float("nan")}])
    assert figure.get_suptitle() == ""


def test_learning_curves_without_an_epoch_are_refused():
    with pytest.raises(ValueError, match="rows is empty"):
        learning_curves([])
