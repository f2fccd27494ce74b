"""Parameters of the wrong type: every notebook says so, before anything slow."""

import json
import math

import pytest

from workbench.forms.fields import Field, checked, fields_in, fields_of, notebook_path
from workbench.settings import project_root

NOTEBOOKS = sorted(path.stem for path in notebook_path("train").parent.glob("*.ipynb"))
PARAMETERS = [(name, each) for name in NOTEBOOKS for each in fields_of(notebook_path(name))]

# Nothing of these is a value of any parameter of the type, whatever its meaning.
NEVER = [{"a": 1}, b"text", {"val"}, object, math.nan, math.inf, 1j]
WRONG = {
    "str": [*NEVER, 0.5, -1.5],
    "int": [*NEVER, True, 1.0, 2.5, "4", "four", [1]],
    "float": [*NEVER, True, "0.5", "much", "4,8"],
    "bool": [*NEVER, 0, 1, "True", [True]],
}
# Texts of which papermill's -p makes a number, True or False, and lists: some parameters take them.
GUESSED = [2024, 20241105, True, False, ["val"], ("a", "b"), []]
TAKEN = {
    "acceleration": [2024, 20241105, ["val"], ("a", "b"), []],
    "center_fraction": [2024, 20241105, ["val"], ("a", "b"), []],
    "precision": [2024, 20241105],
    "volume": [2024, 20241105],
    "low_memory": [True, False],
    "compile": [True, False],
}


def run_cells(notebook, **values):
    """Run a notebook's cells as papermill does, with other parameters."""
    variables = {}
    for cell in json.loads(notebook_path(notebook).read_text())["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), variables)
            if "parameters" in cell["metadata"].get("tags", ()):
                variables |= values


def wrong_values(field):
    taken = TAKEN.get(field.name, [])
    floats = field.name in ("acceleration", "center_fraction")
    values = [value for value in WRONG[field.type] if not (floats and value in (0.5, -1.5))]
    values += [None] if field.default is not None else []
    if field.type == "str":
        values += [each for each in GUESSED if not any(each is one or each == one for one in taken)]
    return values


@pytest.mark.parametrize(
    ("notebook", "field"), PARAMETERS, ids=[f"{name}-{each.name}" for name, each in PARAMETERS]
)
def test_value_of_another_type_is_refused_by_name(notebook, field, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))  # holds nothing: what is found is an error
    for value in wrong_values(field):
        with pytest.raises(ValueError, match=f"^{field.name}=.*: give (a|True)"):
            checked([field], {field.name: value})
    with pytest.raises(ValueError, match=f"^{field.name}="):
        run_cells(notebook, **{field.name: {"a": 1}})
    assert list(project_root().iterdir()) == []


@pytest.mark.parametrize(
    ("notebook", "field"), PARAMETERS, ids=[f"{name}-{each.name}" for name, each in PARAMETERS]
)
def test_default_is_a_value(notebook, field):
    assert checked([field], {field.name: field.default}) == {field.name: field.default}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (20241105, "x=20241105: give a text; papermill's -p .*write -r x 2024_11_05$"),
        (0.5, "x=0.5: give a text; .*write -r x 0.5$"),
        (True, "x=True: give a text; .*write -r x True$"),
        (["https://host/?sig=secret"], "x=<list>: give a text$"),
    ],
)
def test_number_in_place_of_a_text_says_how_to_give_it(value, message):
    (field,) = fields_in("x: str = 'a'\n")
    with pytest.raises(ValueError, match=message):
        field.check(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("acceleration", 4),
        ("acceleration", "4,8"),
        ("acceleration", [4, 8]),
        ("precision", 32),
        ("compile", True),
        ("low_memory", False),
        ("volume", 1000001),
    ],
)
def test_text_that_means_a_number_may_come_as_one(name, value):
    assert Field(name, "str", None, "").check(value) == value


@pytest.mark.parametrize(
    "text",
    [
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0",
        'curl -C - "https://host/a?AWSAccessKeyId=A&Signature=c2VjcmV0&Expires=1" --output b',
        "https://host/a?X-Amz-Signature=c2VjcmV0",
        "https://host.blob.core.windows.net/datasets?sig=c2VjcmV0",
    ],
)
def test_secret_given_as_a_parameter_is_refused_and_not_repeated(text):
    field = Field("x", "str", "", "")
    for take in (field.check, field.read):  # headless, and typed into the form
        with pytest.raises(ValueError, match=r"^x=\*\*\*: .* environment variable$") as refused:
            take(text)
        assert "c2VjcmV0" not in str(refused.value)


@pytest.mark.parametrize("text", ["a\0b", "two\nlines", "x" * 256, "a/" + "é" * 128, "a\x1b[31m"])
def test_text_that_no_file_system_takes_is_refused(text):
    with pytest.raises(ValueError, match=r"^x=.*: give one line of text"):
        Field("x", "str", "", "").check(text)


def test_long_path_and_any_script_are_taken():
    for text in ("~/" + "folder/" * 50, "médecine/日本"):
        assert Field("x", "str", "", "").check(text) == text


@pytest.mark.parametrize(("kind", "name"), [("float", "lr"), ("str", "acceleration")])
def test_number_beyond_any_float_is_refused(kind, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        Field(name, kind, None, "").check(10**400)


def test_space_around_a_text_is_left_out_as_in_the_form():
    assert Field("x", "str", "a", "").check(" b ") == "b"
    assert Field("x", "str", None, "").check("  ") is None


def test_empty_text_is_an_empty_field():
    assert Field("x", "str", None, "").check("") is None
    assert Field("x", "int", None, "").check("") is None
    assert Field("x", "str", "", "").check("") == ""
