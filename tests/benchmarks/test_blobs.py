"""The cache of a container is measured in the loopback Azure, and extrapolated."""

import re

import pytest

from benchmarks.blobs import main


def test_the_time_for_all_of_fastmri_follows_from_two_measurements(capsys):
    assert main(["--counts", "3", "9"]) == 0
    said = capsys.readouterr().out
    few, many = map(float, re.search(r"3 volumes ([\d.]+) s, 9 volumes ([\d.]+) s", said).groups())
    each = float(re.search(r"\(5,847 - 9\) x (-?[\d.]+) ms", said)[1]) / 1000
    total = float(re.search(r"= (-?[\d,]+) s", said)[1].replace(",", ""))
    assert min(few, many) > 2 * 0.02  # two requests a volume, each as slow as storage is
    assert each == pytest.approx((many - few) / 6, abs=0.002)
    assert total == pytest.approx(many + 5838 * each, abs=1 + 5838 * 5e-6)


def test_counts_that_do_not_rise_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--counts", "9", "9"])
    assert "--counts 9 9: give two rising numbers" in capsys.readouterr().err
