"""A notebook's parameters as one pydantic model.

The parameters cell, the check, the form, the papermill command and the names of 2021 come from it::

    class CacheParameters(Parameters):
        workers: int = Field(32, "threads that read files", ge=1, unit="threads")

A new parameter is one such line; ``make notebooks`` writes it into the notebook's cell.
"""

import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self, get_args, get_origin

import pydantic
from pydantic import AfterValidator, ConfigDict, ValidationInfo, field_validator

from workbench.data.sampling import numbers
from workbench.settings import shown

Choices = Sequence[str] | Callable[[], Sequence[str]]

_NOUNS = {str: "a text", int: "a whole number", float: "a number", bool: "True or False"}
_LONGEST = 255  # bytes; no file system takes a longer name
# "=", "?" and "&" may be quoted, as a gateway has them: %3D, %253D, -3D.
_SECRET = re.compile(
    r"(?i)accountkey\s*="
    r"|(?:sharedaccess\w+|signature|(?:(?<![a-z])|[%-](?:25)*(?:3f|26))sig)"
    r"\s*(?:=|[%-](?:25)*3d)\s*[\w+/%]{8}"
)


def _check_numbers(value: str, info: ValidationInfo) -> str:
    numbers(str(info.field_name), value)
    return value


Numbers = Annotated[str, AfterValidator(_check_numbers)]
"""One number or several, such as "4,8"."""


def Field(  # noqa: N802 - as pydantic's
    default: Any,
    help: str,
    *,
    section: str = "",
    label: str = "",
    unit: str = "",
    choices: Choices = (),
    several: bool = False,
    look_up: "Callable[[Any], Sequence[str]] | None" = None,
    also: tuple[type, ...] = (),
    meanings: Mapping[Any, str] | None = None,
    aliases: tuple[str, ...] = (),
    **bounds: Any,
) -> Any:
    """Describe a parameter.

    Args:
        default: what the notebook gives it.
        help: one line.
        section: title of the folded part of the form that begins with this field.
        label: what the form calls it; the name by default.
        unit: of the number.
        choices: a tuple allows nothing else; a function suggests what is there.
        several: whether several choices may be given, with commas between them.
        look_up: asks Azure for choices, given the parameters; a button in the form.
        also: types that may come for a text, because papermill's ``-p`` makes numbers of texts.
        meanings: values -> the text that they stand for.
        aliases: names of 2021.
        **bounds: pydantic's ge, gt, le, lt.
    """
    more = {
        "section": section, "label": label, "unit": unit, "choices": choices, "several": several,
        "look_up": look_up, "also": also, "meanings": meanings or {}, "aliases": aliases,
        "bounds": bounds,
    }  # fmt: skip
    extra: Any = more
    return pydantic.Field(default, description=help, json_schema_extra=extra, **bounds)


@dataclass(frozen=True)
class FormField:
    """A parameter, described; see ``Field``.

    Attributes:
        name: of the variable.
        kind: str, int, float or bool.
        optional: whether None is allowed.
    """

    name: str
    kind: type
    optional: bool
    default: Any
    help: str
    section: str
    label: str
    unit: str
    choices: Choices
    several: bool
    look_up: Callable[[Any], Sequence[str]] | None
    also: tuple[type, ...]
    meanings: Mapping[Any, str]
    aliases: tuple[str, ...]
    bounds: Mapping[str, float]

    @property
    def only(self) -> tuple[str, ...]:
        """The choices, where nothing else is allowed."""
        return () if callable(self.choices) else tuple(self.choices)

    @property
    def expected(self) -> str:
        """What the parameter takes, for an error."""
        if self.only:
            return f"one {'or several ' if self.several else ''}of {', '.join(self.only)}"
        low, high = self.bounds.get("ge"), self.bounds.get("le")
        if low is not None and high is not None:
            return f"{_NOUNS[self.kind]} from {low} to {high}"
        above = f" above {self.bounds['gt']}" if "gt" in self.bounds else ""
        least = f", {low} or more" if low is not None else ""
        most = f", up to {high}" if high is not None else ""
        below = f" below {self.bounds['lt']}" if "lt" in self.bounds else ""
        return f"{_NOUNS[self.kind]}{above}{least}{most}{below}"

    @property
    def explanation(self) -> str:
        """The help in a form's words: None in the notebook is an empty field here."""
        text = self.help.replace("(None)", "(default)").replace("None:", "empty:")
        if self.kind is bool and not self.optional:
            text = re.sub(r"\bFalse\b", "off", re.sub(r"\bTrue\b", "on", text))
        return text

    @property
    def placeholder(self) -> str:
        """What an empty field stands for, as the help says it."""
        if self.default not in (None, ""):
            return ""
        if found := re.search(r"([^\s,;]+) \(None\)", self.help):
            return found.group(1)
        found = re.search(r"\b(?:None|empty): ([^;]+)", self.help)
        return found.group(1).strip() if found else ""

    def refusal(self, value: Any) -> str:
        """Say that a value does not do, and what does; a secret is not repeated."""
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
        scalar = isinstance(value, str | int | float | None)
        # What is in another value may be long, or a secret.
        came = repr(value)[:60] if scalar else f"<{type(value).__name__}>"
        return f"{self.name}={came}: give {self.expected}{advice}"

    def clean(self, value: Any) -> Any:
        """Return a value as the model checks it: texts without space around, numbers for texts.

        Raises:
            ValueError: it is a secret, or a text or number that no parameter can be.
        """
        if isinstance(value, bool | str) and value in self.meanings:
            value = self.meanings[value]
        if isinstance(value, list | tuple) and list in self.also and _plain(value):
            value = ", ".join(map(str, value))
        elif isinstance(value, self.also) and not isinstance(value, bool | list | tuple):
            value = str(value) if _finite(value) else value
        if isinstance(value, int | float) and not _finite(value):
            raise ValueError(self.refusal(value))
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
        return None if self.optional and not value else value

    def read(self, entry: str | bool) -> Any:
        """Return what an entry of the form stands for; the model refuses what cannot be read."""
        if isinstance(entry, bool) or self.kind is str:
            return entry
        text = entry.strip()
        try:
            if self.kind is bool:
                return {"true": True, "false": False}[text.lower()]
            return self.kind(text)
        except (KeyError, ValueError):
            return text

    def entry(self, value: Any) -> str | bool:
        """Return how a value stands in the form."""
        if self.kind is bool and isinstance(value, bool) and not self.optional:
            return value
        return "" if value is None else str(value)


class ParametersError(ValueError):
    """Parameters that do not do; the message lists all of them.

    Attributes:
        errors: name -> what is wrong; under "" what concerns no one field.
        hidden: whether a wrong value may not be shown.
    """

    def __init__(self, errors: Mapping[str, str], *, hidden: bool = False) -> None:
        super().__init__("\n".join(errors.values()))
        self.errors, self.hidden = dict(errors), hidden


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
        strict=True, frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )
    notebook: ClassVar[str]

    @classmethod
    def fields(cls) -> dict[str, FormField]:
        """Return the parameters in the notebook's order."""
        return _fields(cls)

    @field_validator("*", mode="before")
    @classmethod
    def _clean(cls, value: Any, info: ValidationInfo) -> Any:
        return cls.fields()[str(info.field_name)].clean(value)

    @field_validator("*")
    @classmethod
    def _choose(cls, value: Any, info: ValidationInfo) -> Any:
        field = cls.fields()[str(info.field_name)]
        if field.only and value not in (None, ""):
            chosen = [part.strip() for part in value.split(",")] if field.several else [value]
            if not set(filter(None, chosen)) <= set(field.only):
                raise ValueError(field.refusal(value))
        return value

    @classmethod
    def given(cls, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Return the parameters among a notebook's variables, also under their names of 2021.

        Raises:
            NameError: the parameters cell was not run.
            ParametersError: a parameter is given under two names.
        """
        fields = cls.fields()
        if missing := [name for name in fields if name not in variables]:
            raise NameError(f"{', '.join(missing)}: run the parameters cell at the top first")
        values = {name: variables[name] for name in fields}
        for name, field in fields.items():
            for alias in field.aliases:
                if alias not in variables:
                    continue
                if values[name] not in (field.default, variables[alias]):
                    raise ParametersError({name: f"{name} and {alias}: give one of the two"})
                values[name] = variables[alias]
        return values

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Check values.

        Raises:
            ParametersError: names every parameter that does not do, and what does.
        """
        fields = cls.fields()
        errors: dict[str, str] = {}
        hidden = False
        try:
            return cls(**values)
        except pydantic.ValidationError as error:
            for each in error.errors(include_url=False):
                name = str(each["loc"][0]) if each["loc"] else ""
                cause = each.get("ctx", {}).get("error")
                if isinstance(cause, WrongValueError):
                    name = cause.field
                message = str(cause) if cause else ""
                if not message and name in fields:
                    message = fields[name].refusal(each["input"])
                    hidden |= not isinstance(each["input"], str | int | float | None)
                hidden |= "=***:" in message
                errors.setdefault(name, message or f"{name}: no such parameter")
        raise ParametersError(errors, hidden=hidden)

    @classmethod
    def read(cls, variables: Mapping[str, Any]) -> Self:
        """Check the parameters among a notebook's variables; see ``given`` and ``of``."""
        return cls.of(cls.given(variables))

    def command(self) -> str:
        """Write the papermill command for these values, ready for a shell.

        Only values that differ from the notebook's own are named.
        """
        papermill = shlex.quote(shown(Path(sys.prefix, "bin", "papermill")))
        start = f"{papermill} notebooks/{self.notebook}.ipynb outputs/{self.notebook}.ipynb"
        given = [
            f"{'-r' if _would_be_guessed(value) else '-p'} {name} {shlex.quote(str(value))}"
            for name, value in self.model_dump().items()
            if value != self.fields()[name].default
        ]
        return " \\\n    ".join([start, *given])

    @classmethod
    def cell(cls) -> str:
        """Write the notebook's parameters cell."""
        return "\n".join(
            f"{name}: {each.kind.__name__} = {_literal(each.default)}  # {each.help}"
            for name, each in cls.fields().items()
        )


@cache
def _fields(model: type[Parameters]) -> dict[str, FormField]:
    found = {}
    for name, info in model.model_fields.items():
        kinds = [each for each in get_args(info.annotation) if each is not type(None)]
        kind: Any = kinds[0] if kinds else info.annotation
        kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
        extra: Any = info.json_schema_extra
        optional = bool(kinds)
        found[name] = FormField(name, kind, optional, info.default, info.description or "", **extra)
    return found


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _plain(values: Sequence[Any]) -> bool:
    """Say whether a list holds numbers and texts, and at least one."""
    return bool(values) and all(
        isinstance(each, str) or (isinstance(each, int | float) and not isinstance(each, bool))
        for each in values
    )


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def _would_be_guessed(value: Any) -> bool:
    """Say whether papermill's ``-p`` would take a text for something else; ``-r`` never does."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return value in ("True", "False", "None")
    return True
