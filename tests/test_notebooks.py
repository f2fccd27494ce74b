import ast

import nbformat
import papermill
import pytest

from workbench.settings import project_root

FOLDER = project_root() / "notebooks"
NOTEBOOKS = sorted([*FOLDER.glob("*.ipynb"), *FOLDER.glob("examples/*.ipynb")])
WRITES_A_FILE = "%%writefile "  # a cell of an example that shows a file of one's own
# A lone JSON-like value, as papermill may pass it, is all that a parameter's default can be.
TYPES = {"str", "int", "float", "bool"}


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def cells(path, kind):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


def test_every_parameter_has_type_default_and_help(path):
    parameters = papermill.inspect_notebook(path)
    assert parameters
    for name, found in parameters.items():
        assert found["inferred_type_name"] in TYPES, name
        assert found["help"].strip(), name
        ast.literal_eval(found["default"])


def test_no_parameter_is_a_secret(path):
    for name in papermill.inspect_notebook(path):
        assert not {"secret", "password", "token", "key", "credential"} & set(name.split("_"))


def test_nothing_is_stored_but_sources(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert "widgets" not in notebook.metadata
    assert "papermill" not in notebook.metadata
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in cells(path, "code"):
        assert cell.outputs == []
        assert cell.execution_count is None
        assert not {"papermill", "execution"} & cell.metadata.keys()


def test_it_opens_with_its_story_then_parameters(path):
    first, second = nbformat.read(path, as_version=4).cells[:2]
    assert first.cell_type == "markdown"
    assert first.source.startswith("# ")
    assert second.metadata.tags == ["parameters"]


def test_cells_are_short_for_the_logic_is_in_the_package(path):
    for cell in cells(path, "code"):
        if "parameters" in cell.metadata.get("tags", ()):
            continue
        assert len(cell.source.splitlines()) <= 15, cell.source
        if not ("examples" in path.parts and cell.source.startswith(WRITES_A_FILE)):
            assert not any(isinstance(node, ast.ClassDef) for node in ast.parse(cell.source).body)
