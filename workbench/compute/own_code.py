"""Which files somebody's own network or loss consists of: a job on a cluster takes them along."""

import ast
import hashlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path

from workbench.models.own import check_there
from workbench.settings import project_root

_BROUGHT = ("workbench", "workbench_kernels")  # by every job


def code_for(names: Mapping[str, str]) -> dict[str, Path]:
    """Find the files and packages that own code needs on a node.

    A package is taken whole. Modules that the code imports from the project's folder come too.

    Args:
        names: parameter and name, such as ``{"network": "my_code:MyNetwork"}``.

    Returns:
        Place below a folder that Python searches, such as ``my_code.py``, and the file or package.

    Raises:
        ValueError: a module lies where a node cannot have it from; the message says what to do.
    """
    found: dict[str, Path] = {}
    for parameter, name in names.items():
        check_there(parameter, name)
        said = f"{parameter}={name!r}"
        module = name.partition(":")[0]
        if _outermost(module) is None:
            raise ValueError(f"{said}: there is no module {module}")
        found |= _walk(module, partial(_stays, said))
    return found


def digest_of(name: str, parameter: str = "network") -> str:
    """Return what tells somebody's own network or loss from what it was before its code changed.

    It is made of the module, or package, and of those that it imports, wherever they lie; what is
    installed is left out. "" where that is all.
    """
    check_there(parameter, name)
    content = {}
    for place, path in _walk(name.partition(":")[0], lambda _, path: _is_installed(path)).items():
        for file in _files(path):
            inside = file.relative_to(path).as_posix()
            content[f"{place}/{inside}"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return hashlib.sha256(repr(sorted(content.items())).encode()).hexdigest() if content else ""


def _walk(module: str, stays: Callable[[str, Path], bool]) -> dict[str, Path]:
    """Return the files and packages of a module and of all that it imports, but for what stays."""
    found: dict[str, Path] = {}
    todo, seen = [module], set[str]()
    while todo:
        module = todo.pop()
        if module in seen or module.partition(".")[0] in (*_BROUGHT, *sys.stdlib_module_names):
            continue
        seen.add(module)
        place, path = _outermost(module) or ("", Path())  # such as an import that is only tried
        if place and place not in found and not stays(module, path):
            found[place] = path
            todo += _imports(path, module)
    return found


def _outermost(module: str) -> tuple[str, Path] | None:
    """Return a module's place and file, or those of the outermost real package that it is in."""
    parts = module.split(".")
    for count in range(1, len(parts) + 1):
        name = ".".join(parts[:count])
        with suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(name)
            if spec is None:
                return None
            if spec.origin and spec.origin.endswith("__init__.py"):
                return "/".join(parts[:count]), Path(spec.origin).parent
            if spec.origin:
                return f"{'/'.join(parts[:count])}{Path(spec.origin).suffix}", Path(spec.origin)
    return None  # of folders alone


def _stays(said: str, module: str, path: Path) -> bool:
    """Say whether a module need not be taken along, as the nodes install it.

    Raises:
        ValueError: a node cannot have it.
    """
    installed = _is_installed(path)
    if not installed and path.is_relative_to(project_root()) and path.suffix in ("", ".py"):
        return False
    owners = _owners().get(module.partition(".")[0], [])
    if {_canonical(owner) for owner in owners} & _packages_of_nodes():
        return True
    root = project_root()
    way = (
        f"is installed here, and nodes have the packages of pyproject.toml alone: copy it into the "
        f"project's folder {root}, or add it there"
        if installed
        else f"lies at {path}, outside of the project's folder {root}: move it there"
    )
    raise ValueError(f"{said}: the nodes of a cluster cannot import {module}. It {way}")


def _is_installed(path: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(path.parts)


def _files(path: Path) -> list[Path]:
    """List a module's file, or a package's; hidden ones, such as JupyterLab's copies, are none."""
    if not path.is_dir():
        return [path]
    return [
        file
        for file in sorted(path.rglob("*.py"))
        if not any(part.startswith(".") for part in file.relative_to(path).parts)
    ]


def _imports(path: Path, module: str) -> Iterator[str]:
    """Yield the modules that a file, or a package's files, import by their whole names."""
    for file in (each for each in _files(path) if each.suffix == ".py"):
        package = module.rpartition(".")[0]
        try:
            nodes = ast.walk(ast.parse(file.read_bytes()))
        except (SyntaxError, ValueError):  # whoever imports it is told
            continue
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from (each.name for each in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                yield from (f"{node.module}.{each.name}" for each in node.names)
            elif isinstance(node, ast.ImportFrom) and not path.is_dir():  # beside it, in a folder
                below = [node.module] if node.module else [each.name for each in node.names]
                yield from (importlib.util.resolve_name(f".{each}", package) for each in below)


@cache
def _owners() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


@cache
def _packages_of_nodes() -> set[str]:
    """Return the packages that a node installs, and all that they need."""
    todo, known = ["fastmri-workbench"], {"fastmri-workbench"}
    while todo:
        with suppress(importlib.metadata.PackageNotFoundError):
            for line in importlib.metadata.requires(todo.pop()) or []:
                name = _canonical(re.split(r"[^\w.-]", line, maxsplit=1)[0])
                if "extra ==" not in line and name not in known:
                    known.add(name)
                    todo.append(name)
    return known


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
