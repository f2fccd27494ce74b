"""The benchmark of other ways to learn."""

from benchmarks import learning


def test_ways_are_trained_beside_the_supervised_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(learning, "MANY", {"train": 2, "val": 1})
    few = ["--epochs", "1", "--seeds", "1", "--recon", "32", "--out", str(tmp_path)]
    assert learning.main([*few, "--only", "self-supervised"]) == 0
    heading, _, *rows = capsys.readouterr().out.strip().splitlines()[-5:]
    assert heading.startswith("| learned | validation SSIM")
    assert [row.split(" | ")[0] for row in rows] == [
        "| zero-filled",
        "| supervised",
        "| self-supervised",
    ]
    assert rows[0].split(" | ")[3] == "0%"
    assert rows[1].split(" | ")[3] == "100%"
