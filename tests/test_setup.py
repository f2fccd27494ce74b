import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
import yaml
from packaging.requirements import Requirement

from workbench.settings import project_root

ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def pip_list():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    return next(entry["pip"] for entry in conda if isinstance(entry, dict))


def names(requirements):
    return {canonical(Requirement(line).name) for line in requirements}


def imports(folder):
    """Return what a folder's modules import directly, each as the distributions that bring it."""
    ours = {"workbench", "workbench_kernels", "demo"}
    distributions = packages_distributions()
    found = {}
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                modules = [node.module]
            for module in modules:
                top = module.partition(".")[0]
                if top not in sys.stdlib_module_names and top not in ours:
                    owners = {canonical(name) for name in distributions.get(top, [top])}
                    found.setdefault(frozenset(owners), path.relative_to(ROOT))
    return found


@pytest.fixture
def checkout(tmp_path):
    """What make reads, in a folder with a space in its name."""
    folder = tmp_path / "check out"
    folder.mkdir()
    for name in ("Makefile", "environment.yml", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    return folder


def bare_path(folder, **scripts):
    """Make a PATH of make's own tools and some scripts, and nothing else of this machine."""
    folder.mkdir()
    for tool in ("make", "cat", "sed", "grep", "pwd"):
        (folder / tool).symlink_to(shutil.which(tool))
    for name, script in scripts.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    return folder


def make(checkout, target, path=None):
    # The make that runs these tests passes its own flags on.
    environment = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "PYTHON")}
    if path:
        environment |= {"PATH": str(path), "HOME": str(path)}
    return subprocess.run(
        ["make", target], cwd=checkout, env=environment, capture_output=True, text=True
    )


def test_environment_yml_is_the_only_list_of_what_runs():
    assert PROJECT["dependencies"] == []
    again = {
        name
        for extra in PROJECT["optional-dependencies"].values()
        for name in names(extra) & names(pip_list())
    }
    assert not again


def test_make_installs_the_list_that_conda_reads(checkout):
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "made-in").write_text(f"{checkout}\n")
    done = make(checkout, ".venv/requirements.txt")
    assert done.returncode == 0, done.stderr
    lines = (checkout / ".venv" / "requirements.txt").read_text().splitlines()
    assert [line.partition(" #")[0].strip() for line in lines] == pip_list()


def test_every_package_that_the_workbench_imports_is_listed():
    for owners, path in (imports("workbench") | imports("workbench_kernels")).items():
        assert owners & names(pip_list()), f"{path} imports {set(owners)}"


def test_every_package_that_the_demo_imports_is_listed():
    allowed = names(pip_list()) | names(PROJECT["optional-dependencies"]["demo"])
    for owners, path in imports("demo").items():
        assert owners & allowed, f"{path} imports {set(owners)}"


def test_torchvision_which_would_break_lightning_is_not_installed():
    assert importlib.util.find_spec("torchvision") is None


def test_importing_the_workbench_imports_nothing_heavy():
    heavy = ("torch", "numpy", "h5py", "matplotlib", "pandas", "requests", "azureml")
    code = f"import sys, workbench; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("scripts", "missing", "command"),
    [
        ({"python3": "exit 1"}, "Python 3.11 is missing", "uv python install 3.11"),
        (
            {"python3": "exit 1", "apt-cache": "exit 0"},
            "Python 3.11 is missing",
            "sudo apt-get install -y python3.11 python3.11-venv",
        ),
        (
            {"python3": 'case "$2" in *ensurepip*) exit 1;; esac', "apt-cache": "exit 0"},
            "venv module of python3 is missing",
            "sudo apt-get install -y python3.11-venv",
        ),
    ],
    ids=["no python 3.11", "no python 3.11 on Debian", "no venv on Debian"],
)
def test_what_the_machine_lacks_is_said_in_one_line(checkout, tmp_path, scripts, missing, command):
    done = make(checkout, "lab", bare_path(tmp_path / "bin", **scripts))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("make:", "make["))]
    assert len(lines) == 1
    assert missing in lines[0]
    assert command in lines[0]
    assert not (checkout / ".venv").exists()


def test_python3_alone_serves_where_it_is_3_11(checkout, tmp_path):
    # It stands in for a Python 3.11 and tells what is asked of it.
    asked = tmp_path / "asked"
    script = f'echo "$@" >> "{asked}"'
    make(checkout, ".venv/made-in", bare_path(tmp_path / "bin", python3=script))
    assert "-m venv --clear .venv" in asked.read_text()
