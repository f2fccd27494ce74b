"""The benchmark of the kernels' convolution."""

from benchmarks import convolution


def test_each_pass_has_a_row_and_both_are_near_the_exact_result():
    heading, _, *rows = convolution.lines([(4, 12, 18), (70, 9, 7)])
    assert heading.startswith("| channels, size | pass |")
    assert len(rows) == 6
    for row in rows:
        *_, theirs, ours = row.strip("| ").split(" | ")
        assert 0 < float(theirs) < 1e-5
        assert 0 < float(ours) < 1e-5
