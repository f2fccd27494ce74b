"""How a page's parameters are laid out, and what there is to choose from."""

from collections.abc import Iterator, Sequence
from typing import Any

from workbench.catalog import DATASETS
from workbench.compute.jobs import run_folder
from workbench.forms.fields import Field
from workbench.forms.page import Look, Page
from workbench.settings import resolve, shown

_REST = "More"


def layout_of(page: Page, fields: Sequence[Field]) -> list[dict[str, Any]]:
    """Return the groups of fields as the form draws them; every parameter is in one."""
    by_name = {field.name: field for field in fields}
    groups = {"": page.common, **page.groups}
    placed = {name for names in groups.values() for name in names}
    rest = tuple(name for name in by_name if name not in placed)
    groups[_REST] = (*groups.get(_REST, ()), *rest)
    return [
        {
            "title": title or "The usual choices",
            "folded": bool(title),
            "fields": [
                _drawn(by_name[name], page.looks.get(name, Look()))
                for name in names
                if name in by_name
            ],
        }
        for title, names in groups.items()
        if any(name in by_name for name in names)
    ]


def choices_of(page: Page) -> dict[str, list[str]]:
    """Return what there is to choose from, for each field that says so."""
    return {name: list(look.choices()) for name, look in page.looks.items()}


def _drawn(field: Field, look: Look) -> dict[str, Any]:
    if field.type == "bool":
        kind = "bool" if field.default is not None else "choice"
    elif look.several:
        kind = "several"
    elif look.only_these:
        kind = "choice"
    else:
        kind = "number" if field.type in ("int", "float") else "text"
    return {
        "name": field.name,
        "label": look.label or field.name.replace("_", " "),
        "help": "" if field.explanation == look.label else field.explanation,
        "unit": look.unit,
        "kind": kind,
        "optional": field.default is None,
        "usual": field.entry(field.default),
        "placeholder": field.placeholder,
        "suggests": look.choices is not tuple or look.look_up is not None,
        "look_up": look.look_up is not None,
    }


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


def _folders(name: str) -> Iterator[Any]:
    folder = resolve(name)
    if folder.is_dir():
        yield from sorted(p for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
