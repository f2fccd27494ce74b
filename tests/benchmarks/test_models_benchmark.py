import json

from benchmarks import models


def test_toy_run_scores_methods_with_and_without_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    assert models.main(["--toy", "--only", "tv", "varnet"]) == 0
    folder = tmp_path / "outputs/bench/models"
    rows = {row["label"]: row for row in json.loads((folder / "models.json").read_text())["rows"]}
    assert list(rows) == ["zero-filled", "total variation", "VarNet"]
    assert rows["total variation"]["scores"][0]["nmse"] < rows["zero-filled"]["scores"][0]["nmse"]
    assert (rows["total variation"]["parameters"], rows["VarNet"]["parameters"]) == (0, 1_757_988)
    assert rows["VarNet"]["step"] > 0 == rows["total variation"]["step"]
    for name in ("models.png", "models_cost.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    table = (folder / "models.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in table[2:]] == [f"| {label}" for label in rows]
    assert table[-1] in capsys.readouterr().out
