import numpy as np
import pytest

from workbench.views.scores import comparison_figure, scores_figure


def score(ssim, psnr=30.0, nmse=0.05):
    return {"ssim": ssim, "psnr": psnr, "nmse": nmse}


@pytest.fixture
def scores():
    return {
        "zero-filled": {f"v{n}": score(0.5 + 0.01 * n) for n in range(7)},
        "VarNet": {f"v{n}": score(0.8 + 0.01 * n) for n in range(7)},
    }


KINDS = {f"v{n}": "AXT2" if n < 5 else "AXFLAIR" for n in range(7)}


def test_each_acquisition_says_how_many_volumes_it_has(scores):
    figure = scores_figure(scores, KINDS)
    for axes in figure.axes:
        labels = [label.get_text() for label in axes.get_xticklabels()]
        assert labels == ["all\nn = 7", "AXFLAIR\nn = 2", "AXT2\nn = 5"]


def test_every_volume_is_a_dot(scores):
    axes = scores_figure(scores, KINDS).axes[0]
    dots = [line.get_ydata() for line in axes.lines if line.get_marker() == "o"]
    drawn = np.sort(np.concatenate([d for d in dots if len(d)]))
    every = [each["ssim"] for part in scores.values() for each in part.values()]
    np.testing.assert_allclose(drawn, np.sort(every * 2))  # once in "all", once in its own


def test_title_gives_the_mean_of_each_method(scores):
    assert scores_figure(scores).get_suptitle() == (
        "Mean SSIM of 7 volumes: zero-filled 0.530, VarNet 0.830"
    )


def test_one_volume_is_enough():
    figure = scores_figure({"zero-filled": {"v": score(0.5)}}, {"v": "AXT2"})
    assert figure.axes[0].get_xticklabels()[0].get_text() == "AXT2\nn = 1"
    assert figure._repr_png_()


def test_methods_that_scored_different_volumes_are_refused(scores):
    del scores["VarNet"]["v6"]
    with pytest.raises(ValueError, match=r"zero-filled and VarNet scored different volumes.* v6"):
        scores_figure(scores)


def test_no_scores_are_refused():
    with pytest.raises(ValueError, match="there are no scores"):
        scores_figure({})


def test_infinite_psnr_of_a_perfect_volume_is_left_out():
    perfect = {"a": score(1.0, np.inf, 0.0), "b": score(0.9, 40.0, 0.01)}
    assert scores_figure({"VarNet": perfect})._repr_png_()
    worse = {"a": score(1.0, 45.0, 0.0), "b": score(0.9, 39.0, 0.01)}
    figure = comparison_figure(worse, perfect, names=("old", "new"))
    assert figure._repr_png_()
    assert figure.axes[1].get_title("left") == "PSNR (dB): +1.00 on average\nnew better in 2 of 2"


def test_comparison_gives_the_mean_difference_of_pairs(scores):
    first = scores["zero-filled"]
    second = {
        volume: score(first[volume]["ssim"] + (0.03 if volume != "v0" else -0.04))
        for volume in reversed(first)
    }
    figure = comparison_figure(first, second, names=("old", "new"), acquisitions=KINDS)
    assert figure.get_suptitle() == "new against old: SSIM +0.0200 on average, n = 7"
    assert figure.axes[0].get_title("left").endswith("new better in 6 of 7")
    kinds = {line.get_label(): line for line in figure.axes[0].lines}
    np.testing.assert_allclose(kinds["AXT2"].get_xdata(), [0.5, 0.51, 0.52, 0.53, 0.54])
    np.testing.assert_allclose(kinds["AXT2"].get_ydata(), [0.46, 0.54, 0.55, 0.56, 0.57])


def test_lower_nmse_counts_as_better(scores):
    first = scores["VarNet"]
    second = {volume: score(each["ssim"], nmse=0.04) for volume, each in first.items()}
    titles = [
        axes.get_title("left")
        for axes in comparison_figure(first, second, names=("old", "new")).axes
    ]
    assert titles[2] == "NMSE: −0.0100 on average\nnew better in 7 of 7"


def test_runs_on_different_volumes_are_refused(scores):
    fewer = {volume: scores["VarNet"][volume] for volume in list(KINDS)[:6]}
    with pytest.raises(ValueError, match="old and new scored different volumes, such as v6"):
        comparison_figure(scores["VarNet"], fewer, names=("old", "new"))


def test_volume_that_is_not_finite_is_left_out_and_named(scores):
    scores["VarNet"]["v2"] = score(*3 * [float("nan")])
    figure = scores_figure(scores, KINDS)
    assert "VarNet 0.832" in figure.get_suptitle()
    assert "not finite, left out of VarNet: v2" in figure.get_suptitle()
    assert figure._repr_png_()
