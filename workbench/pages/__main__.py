"""``python -m workbench.pages``: write each notebook's parameters cell as its model has it.

Args on the command line:
    --check: write nothing; fail where a cell differs.
"""

import json
import sys
from pathlib import Path

from workbench.forms.parameters import Parameters
from workbench.pages.cache import CacheParameters
from workbench.pages.explore import ExploreParameters
from workbench.pages.ingest import IngestParameters
from workbench.pages.reconstruct import ReconstructParameters
from workbench.pages.storage import StorageParameters
from workbench.pages.train import TrainParameters
from workbench.settings import shown
from workbench.stores.disk import write_text

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
MODELS: tuple[type[Parameters], ...] = (
    IngestParameters,
    CacheParameters,
    ExploreParameters,
    TrainParameters,
    ReconstructParameters,
    StorageParameters,
)


def with_cell(model: type[Parameters], text: str) -> str:
    """Return a notebook's text with the parameters cell of its model.

    Raises:
        ValueError: it has no cell tagged parameters.
    """
    notebook = json.loads(text)
    for cell in notebook["cells"]:
        if "parameters" in cell["metadata"].get("tags", ()):
            cell["source"] = model.cell().splitlines(keepends=True)
            return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    raise ValueError(f"{model.notebook}.ipynb has no cell tagged parameters")


def main(arguments: list[str]) -> int:
    """Write the cells, or check them; return the exit code."""
    differing = 0
    for model in MODELS:
        path = NOTEBOOKS / f"{model.notebook}.ipynb"
        before = path.read_text()
        after = with_cell(model, before)
        if after == before:
            continue
        differing += 1
        if "--check" in arguments:
            print(f"{shown(path)}: its parameters cell differs from its model: make notebooks")
        else:
            write_text(path, after)
            print(f"{shown(path)}: parameters cell written")
    return int("--check" in arguments and differing > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
