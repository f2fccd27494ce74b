"""What a node of a job keeps, what an earlier attempt's has kept, and which error counts."""

import math
import shutil

import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from workbench.compute import kept as kept_module
from workbench.compute.here import TrainingFailedError
from workbench.compute.kept import LOG_FILE, WhileItRuns, fetch, kept
from workbench.compute.node import NODES, STORE, note_error, noted_error, noting_errors
from workbench.compute.training import plan_training, train
from workbench.stores import DiskStore


@pytest.fixture
def places(tmp_path):
    """A run's folder, and a store that holds what an earlier attempt has kept."""
    store = DiskStore(tmp_path / "store")
    for name in ("metrics.csv", "reconstructions/a.h5", "errors/node0-rank0.json"):
        store.write(name, b"old")
    return tmp_path / "run", store


def test_what_was_fetched_is_not_sent_back(places, tmp_path):
    folder, store = places
    fetch(store, folder, lambda path: not path.startswith("errors/"))
    before = (store.root / "reconstructions/a.h5").stat().st_ino
    with kept(folder, store):
        (folder / "metrics.csv").write_text("new")
    assert store.read("metrics.csv") == b"new"
    assert (store.root / "reconstructions/a.h5").stat().st_ino == before
    other = tmp_path / "another node"
    assert fetch(store, other, lambda path: "/" not in path) == ["metrics.csv"]


def test_a_fetch_brings_what_is_new_changed_or_lost_and_no_more(places):
    folder, store = places
    assert len(fetch(store, folder)) == 3
    assert fetch(store, folder) == []
    store.write("metrics.csv", b"new")
    (folder / "reconstructions/a.h5").unlink()
    store.write(".lock", b"")
    assert sorted(fetch(store, folder)) == ["metrics.csv", "reconstructions/a.h5"]


def test_curves_of_a_running_job_grow_in_a_tensorboard_that_is_open(places, tmp_path):
    """The file is another one after each look, with what the open one has read at its beginning."""
    folder, store = places
    node = SummaryWriter(tmp_path / "node")

    def log(step):
        node.add_scalar("train_loss", 1 / step, step)
        node.flush()
        (events,) = (tmp_path / "node").iterdir()
        store.write(f"tensorboard/{events.name}", events.read_bytes())

    fetcher = WhileItRuns(store, folder)
    log(1)
    fetcher.look()
    board = EventAccumulator(str(folder / "tensorboard"))
    for step in (2, 3):
        log(step)
        assert [path.startswith("tensorboard/") for path in fetcher.look()] == [True]
        board.Reload()
        assert [each.step for each in board.Scalars("train_loss")][-1] == step
    assert fetcher.look() == []
    node.close()


def test_the_best_checkpoint_comes_once_it_is_whole_and_not_again_at_each_look(places, monkeypatch):
    folder, store = places
    fetcher, best = WhileItRuns(store, folder), "checkpoints/best.ckpt"
    assert not fetcher.best()
    for content in (b"a", b"ab", b"abc"):  # a node writes it
        store.write(best, content)
        store.write("checkpoints/last.ckpt", content)
        assert not fetcher.best()
        fetcher.look()
    assert not (folder / "checkpoints").exists()
    assert fetcher.best()
    assert (folder / best).read_bytes() == b"abc"
    store.write(best, b"better")
    assert [fetcher.best() for _ in range(3)] == [False] * 3  # ten minutes are not over
    monkeypatch.setattr(kept_module.time, "monotonic", lambda: math.inf)
    assert [fetcher.best() for _ in range(3)] == [False, True, False]
    assert (folder / best).read_bytes() == b"better"
    assert not (folder / "checkpoints/last.ckpt").exists()


def test_all_nodes_but_the_first_keep_their_reconstructions_and_errors_alone(places):
    folder, store = places
    with kept(folder, store, lambda path: path.startswith("reconstructions/")):
        for name in ("reconstructions/b.h5", "metrics.csv", "errors/node1-rank1.json"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("mine")
    kept_there = {entry.path: store.read(entry.path) for entry in store.list()}
    assert kept_there == {
        "metrics.csv": b"old",
        "reconstructions/a.h5": b"old",
        "reconstructions/b.h5": b"mine",
        "errors/node0-rank0.json": b"old",
        "errors/node1-rank1.json": b"mine",
    }


def test_the_sequel_of_another_rank_s_error_counts_only_where_nothing_else_is(
    tmp_path, monkeypatch
):
    store = DiskStore(tmp_path)
    assert noted_error(store) == ("", True)
    errors = {
        "2": RuntimeError("[gloo] Connection closed by peer"),
        "1": ValueError("the cause"),
        "0": RuntimeError("NCCL error"),
    }
    for rank, error in errors.items():
        monkeypatch.setenv("RANK", rank)
        note_error(tmp_path, error)
        if rank == "2":
            assert noted_error(store) == (f"rank 2: RuntimeError: {error}", True)
    assert noted_error(store) == ("rank 1: ValueError: the cause", False)
    (tmp_path / "errors/node0-rank1.json").write_text("[" * 100_000)
    assert noted_error(store)[1]


def on_node(monkeypatch, rank, store):
    """Be one of two nodes of a job."""
    place = {NODES: "2", STORE: store.address, "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
    for name, value in (place | {"MASTER_PORT": "1", "RANK": str(rank)}).items():
        monkeypatch.setenv(name, value)


def test_nodes_write_errors_of_their_own_and_each_forgets_its_earlier_attempt_s(
    tmp_path, monkeypatch
):
    """Node 1 fails before node 0, which has several ranks, has begun."""
    store = DiskStore(tmp_path / "store")
    store.write("errors/node0-rank1.json", b"an earlier attempt's")
    on_node(monkeypatch, 1, store)
    with pytest.raises(ValueError, match="loss='x'"), noting_errors():
        plan_training(model="brain", loss="x")
    on_node(monkeypatch, 0, store)
    with noting_errors():
        assert [entry.path for entry in store.list()] == ["errors/node1-rank1.json"]
    monkeypatch.setenv("RANK", "1")
    note_error(tmp_path / "run", ValueError("later"))
    assert len(list(store.list())) == 2
    assert (tmp_path / "run/errors/node0-rank1.json").exists()
    said, lost_peer = noted_error(store)
    assert said.startswith("rank 1: ValueError: loss='x'")
    assert not lost_peer


def test_a_node_goes_on_with_what_an_earlier_one_has_kept(
    tiny_study, project, tmp_path, monkeypatch
):
    """The earlier one was lost with one volume to go: the next reconstructs that one alone."""
    tiny = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1, "epochs": 1}
    store = DiskStore(tmp_path / "store")
    monkeypatch.setenv(NODES, "1")
    monkeypatch.setenv(STORE, store.address)

    def lines():
        chosen = {"target": "local", "local_dataset": str(tiny_study), "reconstruct": "val"}
        return list(train(plan_training(model="brain", **chosen, **tiny)))

    assert "reconstructing val: 2 volumes, 0 there already" in lines()
    shutil.rmtree(project / "outputs")
    results = "reconstructions/val-equispaced-4x-0.08"
    for name in ("scores.csv", "file3.h5"):
        store.delete(f"{results}/{name}")
    assert "reconstructing val: 1 volume, 1 there already" in lines()
    assert store.entry(f"{results}/scores.csv")
    assert "epoch 1/1: loss" in store.read(LOG_FILE).decode()


def test_a_rank_that_is_told_to_end_leaves_no_error_of_its_own(tiny_study, project):
    """As on a node that is taken away: SIGTERM comes first."""
    tiny = {"cascades": 1, "chans": 2, "pools": 1, "sens_chans": 2, "sens_pools": 1}
    chosen = {"target": "local", "local_dataset": str(tiny_study), "epochs": 1000}
    plan = plan_training(model="brain", nodes=2, **chosen, **tiny)
    lines = train(plan)
    while "epoch 1/" not in next(lines):
        pass
    # Each is forked from the agent, which has imported all; rank 1 is the later one.
    agents = [
        process
        for process in psutil.Process().children(recursive=True)
        if "workbench.compute.ranks" in process.cmdline()
    ]
    first, second = (each for each in agents if each.parent() in agents)
    max(first, second, key=lambda process: (process.create_time(), process.pid)).terminate()
    with pytest.raises(TrainingFailedError):
        list(lines)
    cause, only_a_peer = noted_error(DiskStore(plan.run.folder))
    assert only_a_peer, cause
