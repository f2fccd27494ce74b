"""Working copies of the notebooks: people work in these, and an update of ours loses no work."""

import hashlib
import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from workbench.settings import shown
from workbench.stores.disk import naming, replacing, write_text

RECORD = ".made-of.json"


def update_copies(shipped: Path, folder: Path) -> list[str]:
    """Copy what is new among the shipped notebooks to a folder; return what people should know.

    A copy that nobody has changed is replaced when the notebook that it was made of has changed.
    One with a person's edits or outputs is kept then, beside the new one, with the date of its last
    change in its name. ``folder/.made-of.json`` holds the version that each copy was made of.

    Args:
        shipped: the notebooks, in any folders below.
        folder: where the copies lie.
    """
    record = folder / RECORD
    made_of: dict[str, str] = {}
    with suppress(FileNotFoundError, ValueError):  # without it every changed copy is a person's
        made_of = json.loads(record.read_text())
    before, told = dict(made_of), []
    for source in sorted(path for path in shipped.rglob("[!._]*") if path.is_file()):
        name = source.relative_to(shipped).as_posix()
        if any(part.startswith((".", "__")) for part in name.split("/")):
            continue
        copy, version = folder / name, _version(source)
        there = _version(copy) if copy.exists() else None
        if there not in (None, version) and made_of.get(name) == version:
            continue  # the person's, of this very version
        if there not in (None, version, made_of.get(name)):
            kept = shown(_kept(copy))
            told.append(f"{name} has changed: yours is kept as {kept}, beside the new one")
        if there != version:
            with naming(copy):
                copy.parent.mkdir(parents=True, exist_ok=True)
            with replacing(copy) as file:
                file.write(source.read_bytes())
        made_of[name] = version
    if made_of != before:
        write_text(record, json.dumps(made_of, indent=1))
    return told


def _version(path: Path) -> str:
    """Return a digest of a file; a notebook's is of its cells, however they are written down.

    JupyterLab notes at a notebook's end which Python it ran on; nobody's work is lost with that.
    """
    data = path.read_bytes()
    if path.suffix == ".ipynb":
        try:
            cells = json.loads(data)["cells"]
            for cell in cells:
                cell["source"] = "".join(cell["source"])
            data = json.dumps(cells, sort_keys=True).encode()
        except (ValueError, KeyError, TypeError):
            pass  # none that can be read: each of its bytes counts
    return hashlib.sha256(data).hexdigest()


def _kept(copy: Path) -> Path:
    """Rename a person's copy by the date of its last change; return its new path."""
    date = datetime.fromtimestamp(copy.stat().st_mtime).strftime("%Y-%m-%d")
    number, path = 1, copy.with_name(f"{copy.stem}.{date}{copy.suffix}")
    while path.exists():
        number += 1
        path = copy.with_name(f"{copy.stem}.{date}-{number}{copy.suffix}")
    with naming(path):
        return copy.rename(path)
