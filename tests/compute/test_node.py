"""What a node of a job keeps, and what an earlier attempt's node has kept."""

from workbench.compute import node


def test_what_was_restored_is_not_sent_back(tmp_path):
    folder, store = tmp_path / "run", tmp_path / "store"
    (store / "reconstructions").mkdir(parents=True)
    for name in ("metrics.csv", "reconstructions/a.h5"):
        (store / name).write_text("old")
    node.restore(folder, store)
    before = {path: path.stat().st_ino for path in store.rglob("*") if path.is_file()}
    with node.kept(folder, store):
        (folder / "metrics.csv").write_text("new")
    assert (store / "metrics.csv").read_text() == "new"
    assert (store / "reconstructions/a.h5").stat().st_ino == before[store / "reconstructions/a.h5"]
    other = tmp_path / "another node"
    assert node.restore(other, store, without="reconstructions") == ["metrics.csv"]
