"""Notebooks to open: copies of the project's, or new ones of some cells."""

from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import nbformat
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook

from tests.browser.jupyterlab import NOTEBOOKS

_numbers = count(1)


def write_notebook(
    source: str | Sequence[str],
    parameters: Mapping[str, Any] | None,
    folder: Path,
    name: str = "cells",
) -> Path:
    """Write a project's notebook by its name, or one of code cells, under a name of its own."""
    if isinstance(source, str):
        name, notebook = source, load_notebook_node(str(NOTEBOOKS / f"{source}.ipynb"))
    else:
        notebook = nbformat.v4.new_notebook()
        notebook.cells = [nbformat.v4.new_code_cell(text) for text in source]
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
    if parameters:
        # Papermill asks the kernel's metadata for its language.
        notebook.metadata.kernelspec.setdefault("language", "python")
        notebook = parameterize_notebook(notebook, dict(parameters))
    path = folder / f"{name}-{next(_numbers)}.ipynb"
    nbformat.write(notebook, path)
    return path
