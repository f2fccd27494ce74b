"""Rooms import one way, modules without circles, and the files that the docs name exist."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = re.findall(r"^\| `(\w+)/`", (ROOT / "ARCHITECTURE.md").read_text(), re.MULTILINE)
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("workbench", "workbench_kernels")
    for path in (ROOT / package).rglob("*.py")
}


def imports_of(module):
    """Return the modules that a module imports, in functions too, but not for types alone."""
    found = set()
    tree = ast.parse(MODULES[module].read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                found.add(inner if inner in MODULES else node.module)
    return found & MODULES.keys()


def place_of(module):
    """Return how far down in ARCHITECTURE's table a module's room stands."""
    package, _, rest = module.partition(".")
    room = rest.partition(".")[0]
    if package == "workbench_kernels":
        return -1
    return ROOMS.index(room) if room in ROOMS else 0


def test_the_table_of_rooms_is_complete():
    packages = {path.parent.name for path in (ROOT / "workbench").glob("*/__init__.py")}
    assert set(ROOMS) == packages | {"workbench", "workbench_kernels"}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_room_imports_only_from_the_rooms_above_it(module):
    below = {other for other in imports_of(module) if place_of(other) > place_of(module)}
    assert below == set()


def test_no_module_imports_itself_by_a_detour():
    graph = {module: imports_of(module) - {module} for module in MODULES}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


@pytest.mark.parametrize("page", ["docs/changing.md", "ARCHITECTURE.md", "README.md"])
def test_files_that_the_docs_name_exist(page):
    named = re.findall(r"`((?:[\w.]+/)+[\w.]*)`", (ROOT / page).read_text())
    homes = ("", "workbench", "workbench/models", "workbench/views", "workbench_demo")
    made = ("outputs/", "datasets/", ".venv/")
    missing = [
        name
        for name in named
        if not name.startswith(made) and not any((ROOT / home / name).exists() for home in homes)
    ]
    assert missing == []
