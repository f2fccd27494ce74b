"""A notebook's parameters as the fields of a form, read from the parameters cell itself.

A parameter that is added to the cell is a field at once: name, type, default and help stand there.
"""

import ast
import io
import json
import re
import shlex
import sys
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.settings import shown


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
            what = "a whole number" if self.type == "int" else "a number"
            raise ValueError(f"{self.name}={text!r}: give {what}") from None

    def entry(self, value: Any) -> str | bool:
        """Return how a value stands in the form."""
        if isinstance(value, bool) and self.default is not None:
            return value
        if isinstance(value, list | tuple):
            return ", ".join(map(str, value))
        return "" if value is None else str(value)


def notebook_path(notebook: str) -> Path:
    """Return the file of one of the project's notebooks, which lie beside the package."""
    return Path(__file__).resolve().parents[3] / "notebooks" / f"{notebook}.ipynb"


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
