"""The ladder of waits climbs, at its cheapest steps."""

import json

from benchmarks import startup


def test_waits_are_measured_and_written_beside_their_budgets(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "_TRIES", 1)
    small = {"volumes": {"train": 1, "val": 1}, "recon": 32, "slices": 2, "workers": 1}
    monkeypatch.setattr(startup, "_STUDY", startup._STUDY | small)
    asked = ["import workbench", "a plan of a training", "explore.ipynb to its first picture"]
    words = [word for name in asked for word in ("--only", name)]
    assert startup.main(["--out", str(tmp_path), *words]) == 0
    found = json.loads((tmp_path / "startup.json").read_text())["waits"]
    assert [each["name"] for each in found] == asked
    assert all(each["seconds"] > 0 for each in found)
    text = (tmp_path / "startup.md").read_text()
    assert all(f"| {each['name']} | {each['seconds']:.2f} s | " in text for each in found)
