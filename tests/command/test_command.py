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

from workbench.pages.__main__ import PAGES

COMMANDS = [
    "cache",
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


def test_version_is_the_package_s(tmp_path):
    assert version("fastmri-workbench") in run(tmp_path, "--version")[1]


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.notebook)
def test_help_of_a_page_has_every_parameter_and_no_torch(model, tmp_path):
    code = (
        "import sys; from workbench.command.__main__ import main\n"
        f"main([{model.notebook!r}, '--help'], standalone_mode=False)\n"
        "print('torch' in sys.modules)"
    )
    environment = os.environ | {"COLUMNS": "100"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    for name in (*model.fields, "--output"):
        assert re.search(rf"^  {name}\b", done.stdout, re.MULTILINE), name
    assert done.stdout.endswith("False\n")


def test_page_runs_shows_its_lines_and_says_where_the_notebook_is(project):
    code, out, err = run(project, "cache", "dataset=knee_multicoil", "workers=2")
    assert code == 0, err
    assert "Built the dataset cache of datasets/knee_multicoil (1 volume" in out
    assert err.splitlines()[-1].endswith("outputs/cache.ipynb")
    executed = nbformat.read(project / "outputs/cache.ipynb", as_version=4)
    assert all(cell.execution_count for cell in executed.cells if cell.cell_type == "code")
    assert executed.metadata.papermill.parameters == {"workers": 2}


def test_wrong_parameters_are_told_at_once_and_nothing_is_made(tmp_path):
    code, out, err = run(tmp_path, "train", "nodes=0", "model=foot")
    assert (code, out) == (2, "")
    assert "nodes=0: give a whole number, 1 or more" in err
    assert "model='foot': give one of" in err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["outputs", "notebooks/train.ipynb", "mine.txt"])
def test_executed_notebook_takes_no_other_file_s_place(name, tmp_path):
    from workbench.settings import notebooks

    output = notebooks() / "train.ipynb" if "notebooks" in name else tmp_path / name
    output.parent.mkdir(exist_ok=True)
    before = output.read_text() if output.exists() else None
    code, _, err = run(tmp_path, "train", "--output", str(output))
    assert code == 2
    assert "--output" in err
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
