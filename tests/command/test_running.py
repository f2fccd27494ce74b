"""A notebook headless: on this Python, with its lines as they come, its error in a few lines."""

import json
import sys

import nbformat
import pytest

from workbench.command.running import PageFailedError, run_page

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


SHOW = """
import os, sys
print("Traceback (most recent call last): one that was caught")
print(type(lr), lr)
print(sys.executable, os.environ["WORKBENCH_ROOT"])
raise ValueError("nodes=0: " + 40 * "give 1\\n")
"""


def test_it_runs_on_this_python_in_this_project_and_its_error_is_told_in_a_few_lines(
    tmp_path, monkeypatch, capfd
):
    """A small number is still a number there, and each line comes as it is printed."""
    cells = [nbformat.v4.new_code_cell(each) for each in ("lr = 1.0", SHOW)]
    cells[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "", "language": "python"}
    page, executed = tmp_path / "page.ipynb", tmp_path / "out.ipynb"
    nbformat.write(nbformat.v4.new_notebook(metadata={"kernelspec": kernel}, cells=cells), page)
    # Another Python has put its kernel where Jupyter looks first.
    other = tmp_path / "jupyter/kernels/python3/kernel.json"
    other.parent.mkdir(parents=True)
    other.write_text(json.dumps({"argv": ["false"], "display_name": "x", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path / "project"))
    with pytest.raises(PageFailedError, match="ValueError: nodes=0: give 1") as failure:
        run_page(page, executed, {"lr": 1e-05}, prefix="> ")
    assert len(str(failure.value).splitlines()) < 15
    assert capfd.readouterr().out.splitlines() == [
        "> Traceback (most recent call last): one that was caught",
        "> <class 'float'> 1e-05",
        f"> {sys.executable} {tmp_path / 'project'}",
    ]
    assert "nodes=0" in executed.read_text()
