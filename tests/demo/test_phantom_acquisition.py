from dataclasses import replace

import numpy as np
import pytest

from workbench_demo.phantom.acquisition import Scan, scan
from workbench_demo.phantom.coils import CoilArray
from workbench_demo.phantom.fields import Grid
from workbench_demo.phantom.knee import Knee
from workbench_demo.phantom.tissue import SEQUENCES, signals

HOW = Scan("CORPD_FBK", 1, (48, 48), 54, (3, 50), 4, 160.0, 20.0)


def scanned(how):
    return scan(Knee(np.random.default_rng(0)), how, np.random.default_rng(1))


@pytest.mark.parametrize("snr", [10.0, 50.0])
def test_noise_is_complex_white_and_as_strong_as_asked(snr):
    noisy, target = scanned(replace(HOW, snr=snr))
    clean, _ = scanned(replace(HOW, snr=1e9))
    noise = (noisy - clean)[..., 3:50]
    deviation = np.sqrt((np.abs(noise) ** 2).mean())
    brightest = np.percentile(target, 99)
    assert brightest / deviation == pytest.approx(snr, rel=0.3)
    assert noise.real.std() == pytest.approx(noise.imag.std(), rel=0.05)
    inner, outer = noise[..., 40:56, :].std(), noise[..., :16, :].std()
    assert inner == pytest.approx(outer, rel=0.1)


def test_every_coil_hears_most_from_its_own_side():
    grid = Grid.centred(48, 48, 4.0)
    maps = np.abs(CoilArray(np.random.default_rng(0), 6, 130.0, "slice").sensitivities(grid, 0.0))
    brightest = {int(np.argmax(one)) for one in maps}
    assert len(brightest) == 6
    for one in maps:
        row, column = np.unravel_index(np.argmax(one), one.shape)
        assert one[row, column] > 3 * one[47 - row, 47 - column]


def test_sensitivities_are_smooth_in_magnitude_and_phase():
    grid = Grid.centred(96, 96, 2.0)
    maps = CoilArray(np.random.default_rng(0), 8, 140.0, "row").sensitivities(grid, 10.0)
    for axis in (1, 2):
        steps = np.abs(np.diff(maps, axis=axis)).max(axis=(1, 2))
        assert (steps < 0.15 * np.abs(maps).max(axis=(1, 2))).all()


def test_contrasts_are_those_that_radiologists_know():
    t1, t2, flair = signals("AXT1"), signals("AXT2"), signals("AXFLAIR")
    assert t1["white matter"] > t1["grey matter"] > t1["fluid"]
    assert t2["fluid"] > t2["lesion"] > t2["grey matter"] > t2["white matter"]
    assert flair["lesion"] > flair["grey matter"] > flair["white matter"] > flair["fluid"]
    assert signals("AXT1POST")["vessel"] > 3 * signals("AXT1PRE")["vessel"]
    plain, suppressed = signals("CORPD_FBK"), signals("CORPDFS_FBK")
    assert plain["fat"] > plain["muscle"]
    assert suppressed["fluid"] > suppressed["cartilage"] > 3 * suppressed["fat"]


def test_unknown_acquisition_is_refused_with_what_is_allowed():
    with pytest.raises(ValueError, match="AXT9.*" + ", ".join(SEQUENCES)):
        signals("AXT9")


def test_images_are_stored_upside_down_as_fastmri_stores_them():
    class Head:
        """Bright fat in the upper half of what is scanned, nothing below."""

        coverage, axis, reach = 10.0, "row", 1000.0

        def draw(self, canvas, depth, random):
            upper = np.broadcast_to(canvas.grid.rows[:, None] > 0, canvas.grid.shape)
            canvas.image[upper] = 1.0

    _, target = scan(Head(), replace(HOW, snr=1e6), np.random.default_rng(0))
    assert target[0][26:].mean() > 5 * target[0][:22].mean()
