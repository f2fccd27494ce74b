import pytest


def test_cells_run_in_a_kernel_of_their_own_and_are_saved(open_notebook, lab):
    notebook = open_notebook(["import workbench.settings as s; print(s.project_root())"])
    notebook.run_all()
    assert notebook.output("project_root").inner_text().strip() == str(lab.project)
    assert notebook.save().cells[0].outputs[0].text.strip() == str(lab.project)


def test_failing_cell_fails_the_test_with_its_traceback(open_notebook):
    notebook = open_notebook(["1 / 0"])
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        notebook.run_all()


def test_error_of_a_page_is_complained_about(open_notebook):
    notebook = open_notebook(["1"])
    notebook.page.evaluate("console.error('so it is')")
    assert any("so it is" in complaint for complaint in notebook.complaints)
    notebook.complaints.clear()
