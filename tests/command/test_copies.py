"""Working copies: an update brings new notebooks and loses nobody's work."""

import json

import pytest

from workbench.command.copies import RECORD, update_copies


def notebook(path, text, outputs=(), **metadata):
    cell = {"cell_type": "code", "source": [text], "outputs": list(outputs), "metadata": {}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": [cell], "metadata": metadata}))


def text_of(path):
    return json.loads(path.read_text())["cells"][0]["source"]


@pytest.fixture
def shipped(tmp_path):
    notebook(tmp_path / "notebooks/train.ipynb", "first")
    notebook(tmp_path / "notebooks/examples/loss.ipynb", "loss")
    notebook(tmp_path / "notebooks/.ipynb_checkpoints/train.ipynb", "litter")
    (tmp_path / "notebooks/examples/own.py").write_text("first")
    return tmp_path / "notebooks"


@pytest.fixture
def work(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return tmp_path / "work"


def files(work):
    return sorted(p.relative_to(work).as_posix() for p in work.rglob("*") if p.is_file())


ALL = [RECORD, "examples/loss.ipynb", "examples/own.py", "train.ipynb"]


def test_every_notebook_has_a_copy(shipped, work):
    assert update_copies(shipped, work) == []
    assert files(work) == ALL
    assert (work / "train.ipynb").read_bytes() == (shipped / "train.ipynb").read_bytes()


def test_work_stays_as_it_is_while_ours_does(shipped, work):
    update_copies(shipped, work)
    notebook(work / "train.ipynb", "mine")
    assert update_copies(shipped, work) == []
    assert files(work) == ALL
    assert text_of(work / "train.ipynb") == ["mine"]


def test_untouched_copy_is_replaced_by_an_update(shipped, work):
    update_copies(shipped, work)
    notebook(work / "train.ipynb", "first", language_info={"version": "3.11"})  # opened and saved
    notebook(shipped / "train.ipynb", "second")
    (shipped / "examples/own.py").write_text("second")
    assert update_copies(shipped, work) == []
    assert files(work) == ALL
    assert text_of(work / "train.ipynb") == ["second"]
    assert (work / "examples/own.py").read_text() == "second"


@pytest.mark.parametrize(("text", "outputs"), [("mine", []), ("first", [{"name": "stdout"}])])
def test_work_is_kept_beside_the_new_notebook(shipped, work, text, outputs):
    for version in ("second", "third"):  # on one day
        update_copies(shipped, work)
        notebook(work / "train.ipynb", text, outputs)
        mine = (work / "train.ipynb").read_bytes()
        notebook(shipped / "train.ipynb", version)
        [told] = update_copies(shipped, work)
        kept = work.parent / told.split("kept as ")[1].split(",")[0]
        assert kept.parent == work
        assert kept.suffix == ".ipynb"
        assert kept.read_bytes() == mine
        assert text_of(work / "train.ipynb") == [version]
    assert len(files(work)) == len(ALL) + 2


@pytest.mark.parametrize("record", ["", "{}", "not JSON"])
def test_without_its_record_work_is_kept_too(shipped, work, record):
    update_copies(shipped, work)
    notebook(work / "train.ipynb", "mine")
    (work / RECORD).write_text(record)
    assert len(update_copies(shipped, work)) == 1
    assert sum("mine" in (work / name).read_text() for name in files(work)) == 1
    assert update_copies(shipped, work) == []


def test_what_is_no_notebook_any_more_is_kept(shipped, work):
    update_copies(shipped, work)
    (work / "train.ipynb").write_text("<<<<<<< half a notebook")
    notebook(shipped / "train.ipynb", "second")
    update_copies(shipped, work)
    assert any("half a notebook" in (work / name).read_text() for name in files(work))
