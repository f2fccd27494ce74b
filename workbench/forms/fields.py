"""A notebook's parameters as the fields of a form, read from the parameters cell itself.

A parameter that is added to the cell is a field at once: name, type, default and help stand there.
"""

import ast
import io
import json
import math
import re
import shlex
import sys
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.settings import shown

# What some parameters take besides the type that the notebook says: "4, 8" as a list of YAML, and
# what papermill's -p makes of a text that means a number, True or False.
_NUMBERS = (int, float, list, tuple)
_ALSO: Mapping[str, tuple[type, ...]] = {
    "acceleration": _NUMBERS,
    "center_fraction": _NUMBERS,
    "precision": (int,),
    "volume": (int,),
    "low_memory": (bool,),
    "compile": (bool,),
}
_TYPES: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "bool": (bool,),
}
_EXPECTED = {
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
}
_LONGEST = 255  # bytes; no file system takes a longer name
_SECRET = re.compile(r"(?i)accountkey=|sharedaccesssignature=|[?&](?:sig|[\w-]*signature)=")


@dataclass(frozen=True)
class Field:
    """One parameter of a notebook.

    Attributes:
        name: of the variable.
        type: "str", "int", "float" or "bool".
        default: what the notebook gives it.
        help: the comment beside it.
    """

    name: str
    type: str
    default: Any
    help: str

    @property
    def placeholder(self) -> str:
        """What stands in the empty field: what the help says that None or nothing means."""
        if self.default not in (None, ""):
            return ""
        if found := re.search(r"([^\s,;]+) \(None\)", self.help):
            return found.group(1)
        found = re.search(r"\b(?:None|empty): ([^;]+)", self.help)
        return found.group(1).strip() if found else ""

    @property
    def explanation(self) -> str:
        """The help, in a form's words: what is None in the notebook is an empty field here."""
        text = self.help.replace("(None)", "(default)").replace("None:", "empty:")
        if self.type == "bool" and self.default is not None:
            text = re.sub(r"\bFalse\b", "off", re.sub(r"\bTrue\b", "on", text))
        return text

    def read(self, text: str | bool) -> Any:
        """Return the value that a person's entry stands for.

        Raises:
            ValueError: it is none of this type.
        """
        if isinstance(text, bool):
            return text
        text = text.strip()
        self._check_text(text)
        if not text and self.default is None:
            return None
        if self.type == "bool":
            if text.lower() in ("true", "false"):
                return text.lower() == "true"
            raise ValueError(f"{self.name}={text!r}: give True or False")
        if self.type == "str":
            return text
        try:
            return int(text) if self.type == "int" else float(text)
        except ValueError:
            raise ValueError(f"{self.name}={text!r}: give {_EXPECTED[self.type]}") from None

    def check(self, value: Any) -> Any:
        """Return a value that came without the form, if it is of this type, as the form reads it.

        Texts lose the space around them. An empty one stands for None where that is the default.

        Raises:
            ValueError: it is of another type; names the field, what came, and what is expected.
        """
        if isinstance(value, str):
            value = value.strip()
            self._check_text(value)
        if self.default is None and (value is None or (isinstance(value, str) and not value)):
            return None
        allowed = (*_TYPES[self.type], *_ALSO.get(self.name, ()))
        fits = bool in allowed if isinstance(value, bool) else isinstance(value, allowed)
        if fits and not (isinstance(value, int | float) and not _is_finite(value)):
            return value
        came, advice = repr(value), ""
        if isinstance(value, int | float) and self.type == "str":
            example = "2024_11_05" if type(value) is int else value
            advice = (
                "; papermill's -p makes numbers, True and False of such texts, -r does not: "
                f"write -r {self.name} {example}"
            )
        elif not isinstance(value, str | int | float | None):
            came = f"<{type(value).__name__}>"  # what is in it may be long, or a secret
        raise ValueError(f"{self.name}={came}: give {_EXPECTED[self.type]}{advice}")

    def _check_text(self, text: str) -> None:
        """Refuse what no parameter is; such a text is not repeated."""
        if _SECRET.search(text):
            raise ValueError(
                f"{self.name}=***: this holds a signature or a key, and parameters are stored in "
                "the notebook: give secrets by a file or an environment variable"
            )
        if not text.isprintable() or max(map(len, text.encode().split(b"/"))) > _LONGEST:
            raise ValueError(
                f"{self.name}={text[:40]!r}: give one line of text, with at most {_LONGEST} bytes "
                'between two "/"'
            )

    def entry(self, value: Any) -> str | bool:
        """Return how a value stands in the form."""
        if isinstance(value, bool) and self.default is not None:
            return value
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return "" if value is None else str(value)


def notebook_path(notebook: str) -> Path:
    """Return the file of one of the project's notebooks, which lie beside the package."""
    return Path(__file__).resolve().parents[2] / "notebooks" / f"{notebook}.ipynb"


def fields_of(notebook: Path) -> tuple[Field, ...]:
    """Read the fields from the cell tagged ``parameters``, in its order.

    Raises:
        ValueError: there is no such cell, or a line of it is no ``name: type = default  # help``.
    """
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    for cell in cells:
        if "parameters" in cell["metadata"].get("tags", ()):
            source = cell["source"]
            return fields_in(source if isinstance(source, str) else "".join(source))
    raise ValueError(f"{shown(notebook)} has no cell tagged parameters")


def fields_in(source: str) -> tuple[Field, ...]:
    """Read the fields from the source of a parameters cell; see ``fields_of``."""
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    fields = []
    for node in ast.parse(source).body:
        if not (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(node.annotation, ast.Name)
            and node.value is not None
        ):
            raise ValueError(f"{ast.unparse(node)}: write name: type = default  # help")
        text = comments.get(node.end_lineno or node.lineno, "")
        default = ast.literal_eval(node.value)
        fields.append(Field(node.target.id, node.annotation.id, default, text))
    return tuple(fields)


def checked(fields: Sequence[Field], variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of fields among a notebook's variables, each of its field's type.

    Raises:
        NameError: the parameters cell was not run.
        ValueError: a value is of another type, see ``Field.check``.
    """
    missing = [each.name for each in fields if each.name not in variables]
    if missing:
        raise NameError(f"{', '.join(missing)}: run the parameters cell at the top first")
    return {each.name: each.check(variables[each.name]) for each in fields}


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond any float
        return False


def command(notebook: str, fields: Sequence[Field], values: Mapping[str, Any]) -> str:
    """Write the papermill command that runs a notebook with these values, ready for a shell.

    Only values that differ from the notebook's own are named.
    """
    papermill = shown(Path(sys.prefix, "bin", "papermill"))
    start = f"{shlex.quote(papermill)} notebooks/{notebook}.ipynb outputs/{notebook}.ipynb"
    given = [
        f"{'-r' if _would_be_guessed(values[field.name]) else '-p'} {field.name} "
        f"{shlex.quote(str(values[field.name]))}"
        for field in fields
        if field.name in values and values[field.name] != field.default
    ]
    return " \\\n    ".join([start, *given])


def _would_be_guessed(value: Any) -> bool:
    """Say whether papermill's ``-p`` would take a text for something else; ``-r`` never does."""
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return value in ("True", "False", "None")
    return True
