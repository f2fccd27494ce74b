"""A notebook that ran elsewhere: each cell here finds its own there."""

import nbformat
from nbformat.v4 import new_code_cell, new_notebook, new_output

from workbench.forms.executed import Executed
from workbench.views.training import evaluation_table, show_run, volume_table


def test_a_cell_is_found_by_what_it_shows_not_by_what_it_imports(tmp_path):
    def cell(source, text):
        return new_code_cell(source, outputs=[new_output("stream", text=f"{text}\n")])

    page = new_notebook(
        cells=[
            cell("from a import evaluation_table, show_run\n\npage.show(show_run)", "curves"),
            cell("page.show(views.evaluation_table)", "splits"),
        ]
    )
    nbformat.write(page, tmp_path / "train.ipynb")
    executed = Executed(tmp_path / "train.ipynb")
    assert list(executed.outputs(show_run)) == ["curves"]
    assert list(executed.outputs(evaluation_table)) == ["splits"]
    assert "has no such cell" in next(iter(executed.outputs(volume_table)))
