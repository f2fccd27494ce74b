"""Papermill in a pipe: the notebook goes to its stdout, the lines to its stderr."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from workbench.forms.echo import shows_nothing
from workbench.settings import notebooks

PAPERMILL = [sys.executable, "-m", "papermill"]


@pytest.mark.parametrize(
    ("words", "nothing"),
    [
        (["train.ipynb", "-p", "model", "brain"], True),
        (["train.ipynb", "-", "-p", "model", "brain", "-r", "name", "007"], True),
        (["-y", "{nodes: 8}", "train.ipynb", "--no-progress-bar"], True),
        (["train.ipynb", "out.ipynb", "-p", "model", "brain"], False),
        (["-p", "model", "brain", "train.ipynb", "out.ipynb"], False),
        (["train.ipynb", "", "-p", "model", "brain"], True),
        (["train.ipynb", "--log-output"], True),
        (["train.ipynb", "--log-output", "--log-level", "DEBUG"], False),
        (["train.ipynb", "--stdout-file", "lines.txt"], False),
        (["train.ipynb", "--stdout-file=-"], False),
    ],
)
def test_only_papermill_that_shows_no_lines_needs_them_elsewhere(words, nothing, tmp_path):
    assert shows_nothing([*PAPERMILL, *words]) is nothing
    assert shows_nothing(["python", "/usr/local/bin/papermill", *words]) is nothing
    assert not (tmp_path / "lines.txt").exists()


def test_nobody_else_is_taken_for_papermill():
    assert not shows_nothing(["python", "-m", "jupyterlab", "train.ipynb"])
    assert not shows_nothing([])


def papermill(project, *words):
    page = [str(notebooks() / "cache.ipynb"), *words]
    # ipykernel leaves the descriptors of tests alone, and only theirs.
    plain = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    return subprocess.run(
        [*PAPERMILL, *page, "-p", "dataset", str(project / "datasets/knee_multicoil")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=project,
        env=plain,
        check=True,
    )


LINE = "Built the dataset cache of"


def test_lines_are_on_stderr_as_they_come_and_the_notebook_is_whole(project):
    done = papermill(project)
    executed = nbformat.reads(done.stdout, as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert LINE in json.dumps(executed)
    assert done.stderr.count(LINE) == 1


def test_no_line_comes_twice_where_papermill_shows_it(project):
    done = papermill(project, "--log-output", "--log-level", "DEBUG")
    assert sum(line.startswith(LINE) for line in done.stderr.splitlines()) == 1
