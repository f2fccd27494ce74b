"""Whether a difference between results is beyond their spread over volumes."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp, wilcoxon

from workbench.recon.results import Results
from workbench.views.paired import difference_table


def results(reconstructed, ssim, name):
    first = reconstructed()[0]
    items = []
    for number, value in enumerate(ssim):
        score = {"ssim": float(value), "psnr": 30.0 + float(value), "nmse": 0.02}
        items.append(
            replace(
                first,
                path=first.path.with_name(f"{number}.h5"),
                volume=replace(first.volume, path=f"multicoil_val/{number}.h5"),
                scores={"reconstruction": score, "zero_filled": score},
            )
        )
    folder = reconstructed().folder
    return Results(folder.parent / name, items, reconstructed().order)


def table(reconstructed, *ssim):
    sets = [results(reconstructed, values, f"val-{n}") for n, values in enumerate(ssim)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.views.paired.labels_of", lambda s: [e.folder.name for e in s])
        return difference_table(sets)


def test_a_steady_difference_is_beyond_the_spread_and_a_fickle_one_within(
    reconstructed, in_project
):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.6, 0.9, 12)
    steady, fickle = base - 0.01 + rng.normal(0, 0.002, 12), base + rng.normal(0, 0.05, 12)
    found = table(reconstructed, base, steady, fickle)
    rows = found[found["metric"] == "SSIM"]
    assert rows["difference"].tolist() == ["val-0 − val-1", "val-0 − val-2"]
    assert rows["says"].tolist() == [
        "the first is better, beyond the spread over volumes",
        "within the spread over volumes",
    ]
    interval = ttest_1samp(base - steady, 0).confidence_interval(0.95)
    assert rows["95 % interval"].iloc[0] == f"{interval.low:+.4f} to {interval.high:+.4f}"
    assert rows["p"].iloc[0] == "< 0.001" or rows["p"].iloc[0] == (
        f"{2 * wilcoxon(base - steady).pvalue:.3f}"
    )
    # Two comparisons: the smaller p counts twice.
    alone = table(reconstructed, base, fickle).iloc[0]
    assert float(rows["p"].iloc[1]) == pytest.approx(float(alone["p"]), abs=2e-3)
    assert (found[found["metric"] == "NMSE"]["says"] == "within the spread over volumes").all()


def test_few_volumes_are_called_too_few(reconstructed, in_project):
    found = table(reconstructed, [0.7, 0.8, 0.9], [0.6, 0.7, 0.8]).iloc[0]
    assert found["says"] == "3 volumes are too few to tell"
    assert (found["p"], found["mean"]) == ("–", "+0.1000")
    assert table(reconstructed, [0.7], [0.6]).iloc[0]["95 % interval"] == "– to –"
