"""How a page's parameters are laid out, and what there is to choose from."""

from collections.abc import Iterator
from typing import Any

from workbench.catalog import DATASETS
from workbench.compute.jobs import run_folder
from workbench.forms.page import Page
from workbench.forms.parameters import FormField
from workbench.settings import resolve, shown

_OF_BOOL = ("True", "False")


def layout_of(page: Page) -> list[dict[str, Any]]:
    """Return the groups of fields as the form draws them; every parameter is in one."""
    groups: list[dict[str, Any]] = [
        {"title": "The usual choices", "folded": False, "fields": []},
    ]
    for field in page.parameters.fields().values():
        if field.section:
            groups.append({"title": field.section, "folded": True, "fields": []})
        groups[-1]["fields"].append(_drawn(field))
    return groups


def choices_of(page: Page) -> dict[str, list[str]]:
    """Return what there is to choose from, for each field that says so."""
    fields = page.parameters.fields().items()
    return {
        name: list(field.choices() if callable(field.choices) else field.choices or _OF_BOOL)
        for name, field in fields
        if field.choices or field.kind is bool
    }


def _drawn(field: FormField) -> dict[str, Any]:
    if field.kind is bool:
        kind = "choice" if field.optional else "bool"
    elif field.several:
        kind = "several"
    elif field.only:
        kind = "choice"
    else:
        kind = "text" if field.kind is str else "number"
    return {
        "name": field.name,
        "label": field.label or field.name.replace("_", " "),
        "help": field.explanation,
        "unit": field.unit,
        "kind": kind,
        "optional": field.optional or field.default == "",
        "usual": field.entry(field.default),
        "placeholder": field.placeholder,
        "suggests": callable(field.choices) or field.look_up is not None,
        "look_up": field.look_up is not None,
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
