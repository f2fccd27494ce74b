"""The benchmarks work at toy size, and refuse to measure what is not equal."""

import json
import math
from concurrent.futures import Executor, Future
from dataclasses import replace

import pytest
import urllib3

from benchmarks.__main__ import main
from benchmarks.bart import installed
from benchmarks.groups import rows_of
from benchmarks.pairs import DiffersError, Pair, measure, require
from benchmarks.reading import dropped
from benchmarks.remote import RangedFile, storage
from benchmarks.report import markdown

ROWS = [
    "train_memory/knee",
    "train_memory/knee/peak",
    "train_memory/knee/low",
    "train_memory/knee/low/peak",
    "inference/knee",
    "inference/brain",
    "inference/flair",
    "train_step/knee",
    "train_step/knee/low",
    "feed/local",
    "cache/local",
    "sample/local",
    "transform",
    "cache/remote",
    "sample/remote",
    "ssim/loss",
    "ssim/eval",
    "adam",
    "epoch/demo",
    "unet/slice",
    "unet/step",
    "classical/sense",
    "classical/wavelet",
    "classical/tv",
]


def test_toy_run_writes_every_row_with_both_medians_and_their_ratio(tmp_path, monkeypatch):
    # Without a process a group: torch and fastmri are imported once.
    monkeypatch.setattr("benchmarks.__main__.ProcessPoolExecutor", lambda *_, **__: Here())
    assert main(["--toy", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "bench.json").read_text())
    names = [row["name"] for row in document["rows"]]
    expected = [name for name in ROWS if installed() or not name.startswith("classical")]
    # Not every file system lets go of a file's pages.
    assert [name for name in names if name != "sample/local/cold"] == expected
    for row in document["rows"]:
        assert math.isclose(row["ratio"], row["reference"] / row["ours"])
        assert row["ratio"] > 0
        assert row["unit"] == ("MB" if "memory" in row["name"] else "ms")
        assert row["n"] >= 1
    assert document["machine"]["versions"]["fastmri"] == "0.3.0"
    table = (tmp_path / "bench.md").read_text()
    assert all(f"| {name} |" in table for name in expected)


def test_a_busy_machine_is_told_of_in_the_table():
    where = {"processor": "P", "processors": 2, "threads": 2, "versions": {"torch": "2"}}
    where["versions"]["fastmri"] = "0.3.0"
    assert "busy" not in markdown("toy", [], where | {"load_at_start": 0.3})
    assert "The machine was busy, its load 3.1" in markdown(
        "toy", [], where | {"load_at_start": 3.1}
    )


def test_a_group_is_measured_in_a_process_of_its_own(tmp_path, capfd):
    assert main(["--toy", "--only", "adam", "--out", str(tmp_path)]) == 0
    assert capfd.readouterr().out.count("adam: ") == 1
    assert "| adam |" in (tmp_path / "bench.md").read_text()


def pair(calls, check=lambda: None, repeats=3, before=lambda: None):
    return Pair(
        "a/b",
        "nothing",
        lambda: calls.append("reference"),
        lambda: calls.append("ours"),
        check,
        repeats,
        before=before,
    )


def test_reference_and_ours_are_measured_in_turn():
    calls = []
    assert measure(pair(calls)).n == 3
    assert calls == ["reference", "ours"] * 3


def test_what_comes_before_a_call_is_not_measured():
    calls = []
    one = replace(
        pair(calls, repeats=1, before=lambda: calls.append("before")),
        figure=lambda work: (calls.append("clock"), work()) and 1.0,
    )
    measure(one)
    assert calls == ["before", "clock", "reference", "before", "clock", "ours"]


def test_a_file_dropped_from_the_page_cache_keeps_its_content(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(bytes(range(256)) * 400)
    assert isinstance(dropped(path), bool)
    assert path.read_bytes() == bytes(range(256)) * 400


def test_a_result_that_differs_stops_a_group_before_anything_is_measured(tmp_path, monkeypatch):
    calls = []

    def check():
        require("a/b", 0.1, 1e-10)

    group = (lambda *_: [pair(calls), pair(calls, check)]), ("a/b",)
    monkeypatch.setattr("benchmarks.groups.GROUPS", [group])
    with pytest.raises(
        DiffersError, match=r"a/b: differs from the reference by 0\.1, allowed 1e-10"
    ):
        rows_of(0, "toy", tmp_path, "*", None)
    assert not calls


def test_nothing_is_written_where_a_result_differs(tmp_path, monkeypatch, capsys):
    def differs(*_):
        raise DiffersError("a/b: differs")

    monkeypatch.setattr("benchmarks.__main__.ProcessPoolExecutor", lambda *_, **__: Here())
    monkeypatch.setattr("benchmarks.__main__.rows_of", differs)
    assert main(["--toy", "--out", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())
    assert "a/b: differs. Nothing was written." in capsys.readouterr().err


class Here(Executor):
    """Does the work at once, in this process."""

    def submit(self, work, /, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except DiffersError as error:
            future.set_exception(error)
        return future


def test_nan_is_not_equal():
    with pytest.raises(DiffersError, match="a: differs"):
        require("a", math.nan, 1.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "nothing"], "--only nothing: no row has such a name"),
        (["--threads", "0"], "--threads 0: give 1 or more"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--toy", "--out", str(tmp_path), *arguments])
    assert message in capsys.readouterr().err


def test_storage_answers_ranges_and_says_how_large_a_file_is(tmp_path):
    content = bytes(range(256)) * 40
    (tmp_path / "a").write_bytes(content)
    with storage(tmp_path) as url, urllib3.connection_from_url(url) as server:
        file = RangedFile(server, "/a")
        assert file.read(100, 1000) == content[100:1100]
        assert file.size == len(content)
        assert file.read(len(content) - 5, 100) == content[-5:]
        with pytest.raises(OSError, match="the server answered 404"):
            RangedFile(server, "/b").read(0, 1)
