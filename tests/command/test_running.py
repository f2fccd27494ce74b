"""A notebook headless: on this Python, with its lines as they come, its error in a few lines."""

import json
import sys

import nbformat
import pytest

from workbench.command.running import PageFailedError, run_page

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture
def notebook(tmp_path):
    """Write a notebook of parameters, and a cell."""

    def write(source, parameters="lr = 1.0"):
        cells = [nbformat.v4.new_code_cell(each) for each in (parameters, source)]
        cells[0].metadata["tags"] = ["parameters"]
        kernel = {"name": "python3", "display_name": "", "language": "python"}
        made = nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=cells)
        nbformat.write(made, tmp_path / "page.ipynb")
        return tmp_path / "page.ipynb"

    return write


def test_its_error_is_told_in_a_few_lines_and_kept(notebook, tmp_path, capfd):
    page = notebook("raise ValueError('nodes=0: ' + 40 * 'give 1\\n')")
    with pytest.raises(PageFailedError, match="ValueError: nodes=0: give 1") as failure:
        run_page(page, tmp_path / "out.ipynb", {})
    assert len(str(failure.value).splitlines()) < 15
    assert "Traceback" not in capfd.readouterr().out
    assert "nodes=0" in (tmp_path / "out.ipynb").read_text()


def test_a_small_number_is_still_a_number(notebook, tmp_path, capfd):
    run_page(notebook("print(type(lr), lr)"), tmp_path / "out.ipynb", {"lr": 1e-05}, prefix="> ")
    assert capfd.readouterr().out == "> <class 'float'> 1e-05\n"


def test_its_kernel_is_this_python_in_this_project(notebook, tmp_path, monkeypatch, capfd):
    # Another Python has put its kernel where Jupyter looks first.
    other = tmp_path / "jupyter/kernels/python3/kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path / "project"))
    page = notebook("import os, sys; print(sys.executable, os.environ['WORKBENCH_ROOT'])")
    run_page(page, tmp_path / "out.ipynb", {})
    assert capfd.readouterr().out.split() == [sys.executable, str(tmp_path / "project")]
