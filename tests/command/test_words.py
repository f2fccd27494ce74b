"""Parameters as words of a command line."""

import pytest

from workbench.command.words import explained, read_words
from workbench.forms.parameters import Field, Parameters, ParametersError
from workbench.pages.__main__ import PAGES
from workbench.pages.train import TrainPage


class Kinds(Parameters):
    notebook = "kinds"

    text: str | None = None
    """a text; None: none at all"""
    number: int = Field(2, ge=1, unit="pieces", aliases=("num_pieces",))
    """how many"""
    share: float | None = Field(None, section="More", gt=0, le=1)
    """share of them, 1 (None)"""
    keep: bool = True
    """True: keep them"""
    color: str = Field("red", choices=("red", "green"))
    """their colour"""


def read(*words):
    return read_words(Kinds, words).model_dump()


def errors(*words, model=Kinds):
    with pytest.raises(ParametersError) as refused:
        read_words(model, words)
    return refused.value.errors


def test_words_are_values_of_the_parameters_types():
    found = read("text=a = b", "number=8", "share=1e-5", "keep=False", "color=green")
    assert found == {
        "text": "a = b",
        "number": 8,
        "share": 1e-5,
        "keep": False,
        "color": "green",
    }


def test_what_is_not_named_has_its_default_and_none_is_none():
    assert read() == {"text": None, "number": 2, "share": None, "keep": True, "color": "red"}
    assert read("text=None", "share=") == read()


def test_names_of_2021_are_taken():
    assert read("num_pieces=5")["number"] == 5
    assert read_words(TrainPage, ["model=KneeMulticoil", "num_nodes=8"]).nodes == 8
    assert errors("num_pieces=5", "number=6") == {
        "number": "number and num_pieces: give one of the two"
    }


def test_unknown_name_is_told_with_those_that_are_close():
    assert errors("nubmer=5") == {"nubmer": "nubmer: no such parameter; did you mean number?"}
    assert errors("xyz=5") == {"xyz": "xyz: no such parameter; workbench kinds --help lists all"}


@pytest.mark.parametrize("word", ["number", "--number", "--number=5"])
def test_another_way_of_writing_is_told_the_right_one(word):
    [message] = errors(word).values()
    assert "give it as one word, such as number=2" in message


def test_wrong_values_are_told_as_the_form_tells_them_all_at_once():
    assert errors("number=0", "color=blue", "share=much") == {
        "number": "number=0: give a whole number, 1 or more",
        "color": "color='blue': give one of red, green",
        "share": "share=much: give a number above 0, up to 1",
    }
    assert errors("keep=1", "keep=0") == {"keep": "keep: give it once"}


@pytest.mark.parametrize(
    "word",
    [
        "https://fastmri.s3.amazonaws.com/knee.tar.xz?AWSAccessKeyId=AKIA&Signature=abcd1234abcd",
        "text=https://fastmri.s3.amazonaws.com/knee.tar.xz?Signature=abcd1234abcd",
    ],
)
def test_a_secret_is_refused_and_not_repeated(word):
    assert "abcd1234" not in str(errors(word))
    assert "AKIA" not in str(errors(word))


@pytest.mark.parametrize("model", PAGES, ids=lambda model: model.notebook)
def test_every_parameter_is_explained(model):
    names = [name for _, rows in explained(model) for name, _ in rows]
    assert names == list(model.fields)
    assert not any("None" in text for _, rows in explained(model) for _, text in rows)


def test_explanation_has_help_unit_bounds_default_and_names_of_2021():
    sections = dict(explained(Kinds))
    assert list(sections) == ["Parameters", "More"]
    assert dict(sections["Parameters"])["number"] == (
        "how many  [a whole number, 1 or more; in pieces; default 2; also num_pieces]"
    )
    assert dict(sections["More"])["share"] == (
        "share of them, 1 (default)  [a number above 0, up to 1]"
    )
