"""A notebook's parameters: what is taken, what is refused, and how it is said."""

import pytest

from tests.forms.turning import TurningPage, values
from workbench.forms.parameters import Field, Numbers, Parameters, ParametersError


class Kinds(Parameters):
    notebook = "kinds"

    text: str = "a"
    """a text"""
    maybe: str | None = None
    """a text; None: none"""
    whole: int = 1
    """a whole number"""
    number: float | None = Field(None, gt=0)
    """a rate, 3e-4 (None)"""
    on: bool = True
    """True: on"""
    either: bool | None = None
    """True or False"""
    rates: Numbers | None = Field(None, numeric=True)
    """such as 4,8"""
    name: str = Field("", numeric=True)
    """empty: all of them"""
    mode: str | None = Field(
        None, choices=("auto", "on", "off"), meanings={True: "on", False: "off"}
    )
    """a mode"""
    place: str = Field("here", choices=("here", "there"))
    """a place"""


def of(typed=True, **changed):
    return Kinds.of(values(Kinds, **changed), typed=typed)


def refusal(typed=True, **changed):
    with pytest.raises(ParametersError) as refused:
        of(typed, **changed)
    return str(refused.value)


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"text": " b "}, "b"),
        ({"text": "~/" + "folder/" * 50}, "~/" + "folder/" * 50),
        ({"text": "médecine/日本"}, "médecine/日本"),
        ({"text": ""}, ""),
        ({"maybe": "  "}, None),
        ({"whole": 12}, 12),
        ({"number": 1}, 1.0),
        ({"either": False}, False),
        ({"rates": 4}, "4"),
        ({"rates": [4, 8.5]}, "4, 8.5"),
        ({"rates": "4,8"}, "4,8"),
        ({"name": 1000001}, "1000001"),
        ({"mode": True}, "on"),
    ],
)
def test_value_that_does_is_taken(given, value):
    (name,) = given
    assert getattr(of(**given), name) == value


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"whole": 10**400}, "whole=1000"),
        ({"rates": 10**400}, "rates=1000"),
        ({"rates": "fast"}, "rates='fast': give a number, or several such as 4,8"),
        ({"rates": [True]}, "rates=<list>: give a text"),
        ({"number": 0}, "number=0: give a number above 0"),
        ({"mode": "later"}, "mode='later': give one of auto, on, off"),
        ({"place": " "}, "place='': give one of here, there"),
        ({"text": 20241105}, "text=20241105: give a text; papermill's -p makes numbers"),
        ({"text": 20241105}, "write -r text 2024_11_05"),
        ({"text": True}, "write -r text True"),
        ({"text": 0.5}, "text=0.5: give a text"),
        ({"text": ["https://host/?sig=secret"]}, "text=<list>: give a text"),
        ({"none": 1}, "none: no such parameter"),
        *(
            ({"text": text}, ": give one line of text")
            for text in ("a\0b", "two\nlines", "x" * 256, "a/" + "é" * 128, "a\x1b[31m")
        ),
    ],
)
def test_value_that_does_not_is_refused_by_name(given, message):
    assert message in refusal(**given)


@pytest.mark.parametrize(
    "text",
    [
        "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=c2VjcmV0",
        'curl -C - "https://host/a?AWSAccessKeyId=A&Signature=c2VjcmV0&Expires=1" --output b',
        "https://host/a?X-Amz-Signature=c2VjcmV0",
        "https://host.blob.core.windows.net/datasets?sig=c2VjcmV0",
        "https://host/a?AWSAccessKeyId=A&amp;Signature=c2VjcmV0&amp;Expires=1",
        "https://gate.example/?url=https%3A%2F%2Fhost%2Fa%3FExpires%3D1%26Signature%3Dc2VjcmV0",
        "https%253A%252F%252Fhost%252Fa%253Fsig%253Dc2VjcmV0",
        "https://urldefense.proofpoint.com/v2/url?u=https-3A__host_a-3FSignature-3Dc2VjcmV0",
        "Signature=c2VjcmV0",
        "https://user:c2VjcmV0@host.blob.core.windows.net/datasets",
        "SharedAccessSignature = sv=1&sig=c2VjcmV0",
    ],
)
@pytest.mark.parametrize("name", list(Kinds.fields))
def test_secret_given_as_a_parameter_is_refused_and_not_repeated(name, text):
    with pytest.raises(
        ParametersError, match=rf"^{name}=\*\*\*: .* environment variable$"
    ) as refused:
        of(**{name: text})
    assert "c2VjcmV0" not in f"{refused.value!r} {refused.value.__context__}"
    assert refused.value.hidden


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ParametersError) as refused:
        TurningPage.of(values(rounds=0, other="x", several="a, d"))
    assert refused.value.errors == {
        "rounds": "rounds=0: give a whole number from 1 to 1000",
        "other": "other='x': give a whole number from 1 to 1000",
        "several": "several='a, d': give one or several of a, b, c",
    }


def test_value_is_taken_under_its_name_of_2021_and_two_values_are_refused():
    assert TurningPage.given(values() | {"num_rounds": 5})["rounds"] == 5
    with pytest.raises(ParametersError, match="rounds and num_rounds: give one of the two"):
        TurningPage.given(values(rounds=3) | {"num_rounds": 5})


@pytest.mark.parametrize(
    ("name", "entry", "value"),
    [
        ("whole", " 12 ", 12),
        ("number", "3e-4", 3e-4),
        ("text", "007", "007"),
        ("on", False, False),
        ("either", "False", False),
        *((name, "", None) for name in ("maybe", "number", "either", "rates", "mode")),
        *(
            ("number", str(Kinds.fields["number"].entry(number)), number)
            for number in (0.00012345678, 3e-4, 1 / 3, 1e300)
        ),
    ],
)
def test_entry_of_a_form_is_read_as_the_type_says(name, entry, value):
    found = getattr(of(typed=False, **{name: entry}), name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("whole", "1.5", "whole=1.5: give a whole number"),
        ("whole", "", "whole='': give a whole number"),
        ("number", "much", "number=much: give a number above 0"),
        ("number", "nan", "number=nan: give a number above 0"),
        ("either", "maybe", "either=maybe: give True or False"),
    ],
)
def test_entry_that_cannot_be_read_is_refused(name, entry, message):
    assert refusal(typed=False, **{name: entry}) == message


def test_empty_field_says_what_it_stands_for():
    fields = Kinds.fields
    assert fields["number"].placeholder == "3e-4"
    assert fields["name"].placeholder == "all of them"
    assert fields["text"].placeholder == ""


def test_command_names_only_what_differs_and_papermill_guesses_no_text():
    assert of().command().endswith("papermill notebooks/kinds.ipynb outputs/kinds.ipynb")
    assert of(whole=2, text="007").command().splitlines()[1:] == [
        "    -r text 007 \\",
        "    -p whole 2",
    ]


def test_cell_says_name_type_default_and_help():
    assert Kinds.cell().splitlines()[:3] == [
        'text: str = "a"  # a text',
        "maybe: str = None  # a text; None: none",
        "whole: int = 1  # a whole number",
    ]
