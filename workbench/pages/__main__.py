"""``python -m workbench.pages``: write each notebook's parameters cell as its model has it."""

import json

from workbench.forms.parameters import Parameters
from workbench.pages.cache import CachePage
from workbench.pages.convert import ConvertPage
from workbench.pages.explore import ExplorePage
from workbench.pages.ingest import IngestPage
from workbench.pages.reconstruct import ReconstructPage
from workbench.pages.storage import StoragePage
from workbench.pages.train import TrainPage
from workbench.settings import notebooks, shown
from workbench.stores.disk import write_text

NOTEBOOKS = notebooks()
PAGES = (
    IngestPage,
    ConvertPage,
    CachePage,
    ExplorePage,
    TrainPage,
    ReconstructPage,
    StoragePage,
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
            # Folded in JupyterLab: the form below is what people fill in.
            cell["metadata"].setdefault("jupyter", {})["source_hidden"] = True
            return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    raise ValueError(f"{model.notebook}.ipynb has no cell tagged parameters")


def main() -> None:
    """Write the cells."""
    for model in PAGES:
        path = NOTEBOOKS / f"{model.notebook}.ipynb"
        before = path.read_text()
        after = with_cell(model, before)
        if after != before:
            write_text(path, after)
            print(f"{shown(path)}: parameters cell written")


if __name__ == "__main__":
    main()
