"""The table of a run's epochs is read back whole, or named as damaged with a remedy."""

import pytest

from workbench.compute.runs import Run

WHOLE = "epoch,step,train_loss\n1,10,0.5\n2,20,0.4\n"


def test_table_of_epochs_is_read(tmp_path):
    (tmp_path / "metrics.csv").write_text(WHOLE)
    assert [row["step"] for row in Run(tmp_path).metrics] == [10, 20]


@pytest.mark.parametrize(
    "damaged",
    [
        WHOLE.replace("2,20", "6,20"),
        WHOLE.replace("epoch", "epocj"),
        WHOLE.replace("1,10,0.5\n", ""),
        WHOLE.replace("20", "2\0"),
        "\0" * 40,
    ],
)
def test_damaged_table_says_that_it_can_be_removed(damaged, tmp_path):
    (tmp_path / "metrics.csv").write_text(damaged)
    with pytest.raises(ValueError, match=r"metrics\.csv is damaged.*another name"):
        _ = Run(tmp_path).metrics
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").write_text("")
    with pytest.raises(ValueError, match=r"remove it, and the run writes it anew from last\.ckpt"):
        _ = Run(tmp_path).metrics
