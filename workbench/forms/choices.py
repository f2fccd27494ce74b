"""What there is to choose from in this project's folders."""

from collections.abc import Iterator
from pathlib import Path

from workbench.catalog import DATASETS
from workbench.compute.jobs import run_folder
from workbench.settings import resolve, shown


def datasets_here() -> list[str]:
    """Return the datasets that are here: names under ``datasets/``, paths of the demo's."""
    real = [path.name for path in _folders("datasets") if not path.name.endswith("_compressed")]
    demo = [
        shown(path)
        for outputs in _folders("outputs")
        for path in _folders(f"{shown(outputs)}/datasets")
        if path.name in DATASETS
    ]
    return [*real, *demo]


def runs_here() -> list[str]:
    """Return the training runs under ``outputs/``, the latest first."""
    outputs = run_folder("x").parent
    jobs = sorted(outputs.rglob("job.json"), key=lambda path: -path.stat().st_mtime)
    return [str(path.parent.relative_to(outputs)) for path in jobs]


def _folders(name: str) -> Iterator[Path]:
    folder = resolve(name)
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
