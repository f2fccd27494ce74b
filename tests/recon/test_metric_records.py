"""A new metric is one record: tables, files, orders and figures follow."""

import numpy as np
import pytest
import torch

from tests.views.conftest import results_of
from workbench.compute.runs import Run
from workbench.recon.metrics import METRICS, Metric, mean_of, mean_scores, score_volumes
from workbench.recon.scoring import score_slice
from workbench.recon.tables import read_scores, score_row, write_scores
from workbench.views.curves import learning_curves
from workbench.views.ranking import rank_volumes, score_table
from workbench.views.scores import against_figure, spread_figure


def worst_pixel(images, targets, data_range):
    return (images - targets).abs().amax((1, 2)) / data_range


@pytest.fixture
def worst():
    """A metric that is measured by slice, for as long as a test runs."""
    record = Metric("worst", "worst pixel", "%", ".1f", ".0f", False, mean_of("worst"), worst_pixel)
    METRICS.append(record)
    yield record
    METRICS.remove(record)


def scored(value):
    target = torch.ones(1, 9, 9)
    return score_volumes(
        score_slice(target[0] + value, target[0], f"v{value}", 0, 2.0) for _ in "1"
    )


def results(folder):
    """Two volumes, whose images are 0.25 and 0.5 off."""
    rows = {value: scored(value)[0] for value in (0.25, 0.5)}
    scores = {f"{v}": {m.name: row[m.name] for m in METRICS} for v, row in rows.items()}
    return results_of(folder, {path: (each, each) for path, each in scores.items()})


def test_new_record_is_measured_averaged_and_compared(worst, tmp_path):
    rows = scored(0.5) + scored(0.25)
    assert [row["worst"] for row in rows] == [0.25, 0.125]
    assert mean_scores(rows)["worst"] == pytest.approx(0.1875)
    spread = spread_figure(results(tmp_path / "a/reconstructions/val"))
    assert [axes.get_title("left") for axes in spread.axes] == [
        "SSIM",
        "PSNR (dB)",
        "NMSE",
        "worst pixel (%)",
    ]
    other = results(tmp_path / "b/reconstructions/val")
    pairs = against_figure(results(tmp_path / "a/reconstructions/val"), other)
    assert pairs.axes[3].get_title("left").startswith("worst pixel (%): +0.0 on average")


def test_new_record_is_in_files_and_orders(worst, tmp_path):
    found = results(tmp_path)
    write_scores(tmp_path, map(score_row, found))
    read = [float(row["reconstruction_worst"]) for row in read_scores(tmp_path)]
    assert read == [0.125, 0.25]
    for order, names in (("worst", ["0.5.h5", "0.25.h5"]), ("-worst", ["0.25.h5", "0.5.h5"])):
        assert [each.name for each in rank_volumes(found, order)] == names
    table = score_table(found, sort_by="worst")
    assert list(table.data["zero-filled", "worst pixel (%)"]) == [0.25, 0.125]


def test_curves_show_a_new_record_and_leave_a_gap_where_it_was_not_known(worst, tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,train_loss,val_ssim\n1,0.4,0.6\n2,0.3,0.7\n")
    figure = learning_curves(Run(tmp_path).metrics)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles[-2:] == ["validation worst pixel", ""]
    assert np.isnan(figure.axes[4].lines[0].get_ydata()).all()
