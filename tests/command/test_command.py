"""The command ``workbench``, as a person types it."""

import os
import re
import signal
import subprocess
import sys
import threading
from importlib.metadata import version

import nbformat
import pytest
from click.testing import CliRunner

from workbench.command.__main__ import main
from workbench.pages.__main__ import PAGES
from workbench.settings import notebooks

COMMANDS = [
    "cache",
    "cancel",
    "convert",
    "demo",
    "explore",
    "ingest",
    "lab",
    "reconstruct",
    "repeat",
    "storage",
    "train",
]


def start(project, *words):
    return subprocess.Popen(
        [sys.executable, "-m", "workbench.command", *words],
        env=os.environ | {"WORKBENCH_ROOT": str(project), "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(project, *words):
    with start(project, *words) as process:
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def test_help_has_a_line_for_each_command_and_needs_nothing_heavy(tmp_path):
    code, out, _ = run(tmp_path, "--help")
    assert code == 0
    assert re.findall(r"^  (\w+)  +[A-Z].*\.$", out, re.MULTILINE) == COMMANDS
    assert {model.notebook for model in PAGES} < set(COMMANDS)
    heavy = "import sys, workbench.command.__main__; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.fixture
def typed(monkeypatch, tmp_path):
    """The command with some words, in this process: what it says of them before it works."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return lambda *words: CliRunner().invoke(main, words)


def test_version_is_the_package_s(typed):
    assert version("fastmri-workbench") in typed("--version").output


def test_help_of_a_page_has_every_parameter_and_no_torch():
    code = (
        "import sys; from workbench.command.__main__ import main\n"
        "for page in sys.argv[1:]: main([page, '--help'], standalone_mode=False); print('====')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *(model.notebook for model in PAGES)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"COLUMNS": "100"},
    )
    *helps, torch = done.stdout.split("====\n")
    for model, text in zip(PAGES, helps, strict=True):
        for name in (*model.fields, "--output"):
            assert re.search(rf"^  {name}\b", text, re.MULTILINE), (model, name)
    assert torch == "False\n"


def test_page_runs_shows_its_lines_and_says_where_the_notebook_is(project):
    code, out, err = run(project, "cache", "dataset=knee_multicoil", "workers=2")
    assert code == 0, err
    assert "Built the dataset cache of datasets/knee_multicoil (1 volume" in out
    assert err.splitlines()[-1].endswith("outputs/cache.ipynb")
    executed = nbformat.read(project / "outputs/cache.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert executed.metadata.papermill.parameters == {"workers": 2}


def test_wrong_parameters_are_told_at_once_and_nothing_is_made(typed, tmp_path):
    done = typed("train", "nodes=0", "model=foot")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "nodes=0: give a whole number, 1 or more" in done.stderr
    assert "model='foot': give one of" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["outputs", "notebooks/train.ipynb", "mine.txt"])
def test_executed_notebook_takes_no_other_file_s_place(typed, name, tmp_path):
    output = notebooks() / "train.ipynb" if "notebooks" in name else tmp_path / name
    output.parent.mkdir(exist_ok=True)
    before = output.read_text() if output.exists() else None
    done = typed("train", "--output", str(output))
    assert done.exit_code == 2
    assert "--output" in done.stderr
    assert (output.read_text() if output.exists() else None) == before


def test_failure_is_told_in_a_few_lines(tmp_path):
    code, _, err = run(tmp_path, "cache", "dataset=nowhere", "--output", str(tmp_path / "x.ipynb"))
    assert code == 1
    assert "cache failed: ParametersError: no dataset at " in err
    assert "nowhere" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 10
    assert "Traceback" in (tmp_path / "x.ipynb").read_text()


def test_interrupt_ends_it_tidily(project):
    with start(project, "cache") as process:
        timer = threading.Timer(300, process.kill)
        timer.start()
        assert process.stdout.readline().startswith("dataset")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate()
        timer.cancel()
    assert process.returncode == 130
    assert "Interrupted: run it again" in err
    assert "Traceback" not in err
