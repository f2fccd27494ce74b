"""A notebook that was executed elsewhere, and what each of its cells showed there."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from workbench.settings import shown


class Executed:
    """An executed notebook, whose cells stand for those of the same notebook here.

    Args:
        path: the notebook.
    """

    def __init__(self, path: Path) -> None:
        import nbformat  # takes a second: its schema's checks

        self.path = path
        self._cells = [
            (re.findall(r"page\.show\([\w.]*?(\w+)\)", cell.source), cell.outputs)
            for cell in nbformat.read(path, as_version=4).cells
            if cell.cell_type == "code"
        ]

    def outputs(self, view: Callable[[Any], Any]) -> Iterator[str | dict[str, Any]]:
        """Yield what the cell of a view showed: texts, and MIME data by its type."""
        found = next((outputs for views, outputs in self._cells if view.__name__ in views), None)
        if found is None:
            yield f"{shown(self.path)} has no such cell"
        for output in found or ():
            if output.output_type == "stream":
                yield output.text.rstrip("\n")
            elif output.output_type in ("display_data", "execute_result"):
                yield dict(output.data)
