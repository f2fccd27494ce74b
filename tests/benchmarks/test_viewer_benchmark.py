"""The viewer's benchmark works at toy size."""

import json

from benchmarks.viewer import main


def test_toy_run_times_both_viewers_and_the_notebook(tmp_path):
    assert main(["--toy", "--out", str(tmp_path)]) == 0
    measured, linked = json.loads((tmp_path / "viewer.json").read_text())["timings"]
    for timing in (measured, linked):
        assert 0 < timing["first_paint_s"] <= timing["all_slices_s"]
        assert 0 < timing["slice_ms"] <= timing["slowest_slice_ms"]
    assert measured["first_coil_s"] > 0
    assert linked["first_coil_s"] is None
    assert linked["notebook_bytes"] > measured["notebook_bytes"]
    assert "| first paint |" in (tmp_path / "viewer.md").read_text()
