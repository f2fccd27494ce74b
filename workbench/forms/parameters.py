"""A notebook's parameters as one pydantic model.

The parameters cell, the check, the form, the papermill command and the names of 2021 come from it::

    class CachePage(Parameters):
        notebook = "cache"
        workers: int = Field(32, ge=1, unit="threads")
        \"\"\"threads that read files\"\"\"

A new parameter is two such lines; ``make notebooks`` writes it into the notebook's cell.
"""

import difflib
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import get_annotations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

import pydantic
from pydantic import AfterValidator, ConfigDict, ValidationInfo, field_validator

from workbench.data.sampling import numbers
from workbench.settings import notebooks, shown

_NOUNS = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
_BOUNDS = {"gt": " above {}", "ge": ", {} or more", "le": ", up to {}", "lt": " below {}"}
_DEFAULT = r"([^\s,;]+) \(None\)"  # as a help text says it
_LONGEST = 255  # bytes; no file system takes a longer name
# "=", "?" and "&" may be quoted, as a gateway has them: %3D, %253D, -3D.
_SECRET = re.compile(
    r"(?i)accountkey\s*=|://[^/@\s]+:[^/@\s]+@"
    r"|(?:sharedaccess\w+|signature|(?:(?<![a-z])|[%-](?:25)*(?:3f|26))sig)"
    r"\s*(?:=|[%-](?:25)*3d)\s*[\w+/%]{8}"
)
_OF_IPYTHON = {"In", "Out"}  # plain variables that IPython puts beside a notebook's


def _check_numbers(value: str, info: ValidationInfo) -> str:
    numbers(str(info.field_name), value)
    return value


Numbers = Annotated[str, AfterValidator(_check_numbers)]
"""One number or several, such as "4,8"."""


@dataclass(frozen=True, kw_only=True)
class FormField:
    """A parameter: what ``Field`` was told by name, and below it what pydantic knows."""

    section: str = ""  # title of the folded part of the form that begins with this field
    label: str = ""  # what the form calls it; the name by default
    unit: str = ""  # of the number
    # A function of the parameters only suggests.
    choices: Sequence[str] | Callable[[Any], Sequence[str]] = ()
    several: bool = False  # whether several choices may be given, with commas between them
    look_up: Callable[[Any], Sequence[str]] | None = None  # asks Azure, given the parameters
    numeric: bool = False  # whether a number stands for its text
    meanings: Mapping[Any, str] = field(default_factory=dict)  # values -> the text they stand for
    aliases: tuple[str, ...] = ()  # names of 2021

    name: str = ""
    kind: type = str  # or int, float, bool
    optional: bool = False  # whether None is allowed
    default: Any = None
    help: str = ""
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def only(self) -> tuple[str, ...]:
        """The choices, where nothing else is allowed."""
        return () if callable(self.choices) else tuple(self.choices)

    @property
    def expected(self) -> str:
        """What the parameter takes, for an error."""
        if self.only:
            return f"one {'or several ' if self.several else ''}of {', '.join(self.only)}"
        if {"ge", "le"} <= self.bounds.keys():
            return f"{_NOUNS[self.kind]} from {self.bounds['ge']} to {self.bounds['le']}"
        bounds = [text.format(self.bounds[k]) for k, text in _BOUNDS.items() if k in self.bounds]
        return _NOUNS[self.kind] + "".join(bounds)

    def explanation(self, usual: str = "") -> str:
        """Return the help in a form's words: None in the notebook is an empty field here.

        Args:
            usual: what an empty field stands for, where that is not what the help says.
        """
        text = re.sub(_DEFAULT, lambda _: f"{usual} (None)", self.help) if usual else self.help
        text = text.replace("(None)", "(default)").replace("None:", "empty:")
        if self.kind is bool and not self.optional:
            text = re.sub(r"\bFalse\b", "off", re.sub(r"\bTrue\b", "on", text))
        return text

    @property
    def placeholder(self) -> str:
        """What an empty field stands for, as the help says it."""
        if self.default not in (None, ""):
            return ""
        found = re.search(rf"{_DEFAULT}|\b(?:None|empty): ([^;]+)", self.help)
        return (found[1] or found[2]).strip() if found else ""

    def refusal(self, value: Any, *, typed: bool = True) -> str:
        """Say that a value is not valid, and what is; ``typed`` is as in ``Parameters.of``."""
        if isinstance(value, str) and _SECRET.search(value):
            return (
                f"{self.name}=***: this holds a signature or a key, and parameters are stored in "
                "the notebook: give secrets by a file or an environment variable"
            )
        advice = ""
        if self.kind is str and not self.only and isinstance(value, int | float):
            example = "2024_11_05" if type(value) is int else value
            advice = (
                "; papermill's -p makes numbers, True and False of such texts, -r does not: "
                f"write -r {self.name} {example}"
            )
        came = f"<{type(value).__name__}>"  # what is in it may be long, or a secret
        if isinstance(value, str | int | float | None):
            came = (repr if typed or not value else str)(value)[:60]
        return f"{self.name}={came}: give {self.expected}{advice}"

    def clean(self, value: Any) -> Any:
        """Return a value as the model checks it: texts without space around, numbers for texts.

        Raises:
            ValueError: it is a secret, or what no such parameter can be.
        """
        told = {"True": True, "False": False}.get(value, value) if isinstance(value, str) else value
        if isinstance(told, bool | str) and told in self.meanings:
            value = self.meanings[told]
        if isinstance(value, bool | int) and str(value) in self.only:
            value = str(value)  # papermill's -p makes numbers and truth values of texts
        if type(value) in (int, float):
            if not abs(value) <= sys.float_info.max:
                raise ValueError(self.refusal(value))
            value = str(value) if self.numeric else value
        elif self.numeric and isinstance(value, list | tuple):
            plain = all(type(each) in (str, int, float) for each in value)
            value = ", ".join(map(str, value)) if plain and value else value
        if not isinstance(value, str):
            return value
        value = value.strip()
        if _SECRET.search(value):
            raise ValueError(self.refusal(value))
        if not value.isprintable() or max(map(len, value.encode().split(b"/"))) > _LONGEST:
            raise ValueError(
                f"{self.name}={value[:40]!r}: give one line of text, with at most {_LONGEST} bytes "
                'between two "/"'
            )
        if self.only and (value or not (self.optional or self.default == "")):
            chosen = [each.strip() for each in value.split(",")] if self.several else [value]
            if not set(filter(None, chosen)) <= set(self.only) or not any(chosen):
                raise ValueError(self.refusal(value))
        return None if self.optional and not value else value

    def entry(self, value: Any) -> str | bool:
        """Return how a value stands in the form."""
        on_or_off = self.kind is bool and isinstance(value, bool) and not self.optional
        return value if on_or_off else "" if value is None else str(value)


def Field(default: Any, **told: Any) -> Any:  # noqa: N802 - as pydantic's
    """Describe a parameter: its default, its bounds (ge, gt, le, lt), what ``FormField`` takes."""
    bounds: dict[str, Any] = {key: told.pop(key) for key in _BOUNDS if key in told}
    extra: Any = {"form": FormField(**told)}
    return pydantic.Field(default, json_schema_extra=extra, **bounds)


class ParametersError(ValueError):
    """Parameters are not valid; the message lists all of them.

    Attributes:
        errors: name -> what is wrong; under "" what concerns no one field.
        hidden: whether a wrong value may not be shown.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        super().__init__("\n".join(errors.values()))
        self.errors = dict(errors)
        self.hidden = any(re.match(r"\w+=(\*{3}|<\w+>):", each) for each in errors.values())


class WrongValueError(ValueError):
    """A check of several fields failed; the error stands beside one of them."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@contextmanager
def concerning(field: str) -> Iterator[None]:
    """Have a failed check stand beside a field.

    Raises:
        WrongValueError: the check raised a ValueError or an OSError.
    """
    try:
        yield
    except (ValueError, OSError) as error:
        raise WrongValueError(field, str(error)) from None


class Parameters(pydantic.BaseModel):
    """A notebook's parameters, checked; see the module."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )
    notebook: ClassVar[str]

    fields: ClassVar[dict[str, FormField]]
    """The parameters in the notebook's order."""

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls.fields = {}
        # What several pages share comes after what is a page's own.
        own = [name for name in cls.model_fields if name in get_annotations(cls)]
        for name in dict.fromkeys([*own, *cls.model_fields]):
            info = cls.model_fields[name]
            kinds = [each for each in get_args(info.annotation) if each is not type(None)]
            kind: Any = kinds[0] if kinds else info.annotation
            extra: Any = info.json_schema_extra or {"form": FormField()}
            cls.fields[name] = replace(
                extra["form"],
                name=name,
                kind=get_args(kind)[0] if get_origin(kind) is Annotated else kind,
                optional=bool(kinds),
                default=info.default,
                help=info.description or "",
                bounds={k: getattr(m, k) for m in info.metadata for k in _BOUNDS if hasattr(m, k)},
            )

    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.fields[str(info.field_name)].clean(value)

    @classmethod
    def given(cls, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters among a notebook's variables, also under their names of 2021.

        Raises:
            NameError: the parameters cell was not run.
            ParametersError: a parameter is given under two names.
        """
        if missing := [name for name in cls.fields if name not in variables]:
            raise NameError(f"{', '.join(missing)}: run the parameters cell at the top first")
        values = {name: variables[name] for name in cls.fields}
        for name, each in cls.fields.items():
            for alias in filter(variables.__contains__, each.aliases):
                if values[name] not in (each.default, variables[alias]):
                    raise ParametersError({name: f"{name} and {alias}: give one of the two"})
                values[name] = variables[alias]
        return values

    @classmethod
    def names(cls) -> list[str]:
        """Return what parameters are called, now and in 2021."""
        return [name for each in cls.fields.values() for name in (each.name, *each.aliases)]

    @classmethod
    def unknown(cls, name: str) -> str:
        """Say that there is no such parameter, and which may be meant."""
        near = difflib.get_close_matches(name, cls.names(), n=3)
        lists = f"workbench {cls.notebook} --help lists all"
        advice = f"did you mean {', '.join(near)}?" if near else lists
        if "network_options" in cls.fields and not near:
            advice += f'; a number of the network: network_options="{name}=..."'
        return f"{name}: no such parameter; {advice}"

    @classmethod
    def refuse_unknown(cls, variables: Mapping[str, Any]) -> None:
        """Refuse a plain value among a notebook's variables that is no parameter of it.

        papermill only warns of a parameter that a notebook does not have, and runs it all the same
        with the defaults.

        Raises:
            ParametersError: names each, and the parameter that it may stand for.
        """
        known, errors = {*cls.names(), *_OF_IPYTHON}, {}
        for name, value in variables.items():
            plain = value is None or isinstance(value, str | int | float | list | dict)
            if plain and name not in known and not name.startswith("_"):
                errors[name] = cls.unknown(name)
        if errors:
            raise ParametersError(errors)

    @classmethod
    def of(cls, values: Mapping[str, Any], *, typed: bool = True) -> Self:
        """Check values.

        Args:
            values: all parameters.
            typed: whether a number has to be one; in a form's entries its text will do.

        Raises:
            ParametersError: names every parameter that is not valid, and what it takes.
        """
        errors: dict[str, str] = {}
        try:
            return cls.model_validate(dict(values), strict=typed)
        except pydantic.ValidationError as error:
            for each in error.errors(include_url=False):
                name = str(each["loc"][0]) if each["loc"] else ""
                cause = each.get("ctx", {}).get("error")
                if cause is not None:
                    errors.setdefault(getattr(cause, "field", name), str(cause))
                elif name in cls.fields:
                    errors.setdefault(name, cls.fields[name].refusal(each["input"], typed=typed))
                else:
                    errors[name] = cls.unknown(name)
        raise ParametersError(errors)

    def command(self) -> str:
        """Write the papermill command for these values, ready for a shell.

        Only values that differ from the notebook's own are named; texts by ``-r``, because ``-p``
        makes numbers, True and False of texts that look so.
        """
        papermill = shlex.quote(shown(Path(sys.prefix, "bin", "papermill")))
        notebook = shlex.quote(shown(notebooks() / f"{self.notebook}.ipynb"))
        start = f"{papermill} {notebook} outputs/{self.notebook}.ipynb"
        given = [
            f"{'-r' if isinstance(value, str) else '-p'} {name} {shlex.quote(str(value))}"
            for name, value in self
            if value != self.fields[name].default
        ]
        return " \\\n    ".join([start, *given])

    @classmethod
    def cell(cls) -> str:
        """Write the notebook's parameters cell."""
        lines = []
        for name, each in cls.fields.items():
            text = isinstance(each.default, str)
            default = json.dumps(each.default, ensure_ascii=False) if text else each.default
            lines.append(f"{name}: {each.kind.__name__} = {default}  # {each.help}")
        return "\n".join(lines)
