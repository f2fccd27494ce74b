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
from packaging.specifiers import SpecifierSet

from workbench.compute.cluster_job import CHANNELS, CONDA, conda_specification
from workbench.settings import project_root
from workbench_demo.sizes import SIZES

ROOT = project_root()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def names(requirements):
    return {canonical(Requirement(line).name) for line in requirements}


def imports(folder):
    """Return what a folder's modules import directly, each as the distributions that bring it."""
    ours = {"workbench", "workbench_kernels", "workbench_demo"}
    # Python 3.13 lacks that one, see tests/cloud/sdks.py.
    distributions = {"azureml": ["azureml-core"]} | packages_distributions()
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
    for name in ("Makefile", "pyproject.toml"):
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


def test_pyproject_is_the_only_list_of_what_runs():
    assert (ROOT / "pyproject.toml").exists()
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert conda["dependencies"] == [*CONDA, {"pip": ["--editable ."]}]
    assert conda["channels"] == [*CHANNELS]
    always = [line for line in PROJECT["dependencies"] if not Requirement(line).marker]
    for extra in PROJECT["optional-dependencies"].values():
        assert names(extra).isdisjoint(names(always))


def test_each_python_gets_an_sdk_of_azureml_that_it_can_import():
    sdks = [Requirement(line) for line in PROJECT["dependencies"] if line.startswith("azure")]
    by_python = {
        python: [
            each.name
            for each in sdks
            if each.marker and each.marker.evaluate({"python_version": python})
        ]
        for python in ("3.11", "3.12", "3.13")
    }
    assert by_python == {
        "3.11": ["azureml-core"], "3.12": ["azureml-core"], "3.13": ["azure-ai-ml"]
    }  # fmt: skip


def test_a_node_gets_that_list_and_python_of_the_kind_that_pyproject_asks_for():
    (pip,) = [each["pip"] for each in conda_specification()["dependencies"] if type(each) is dict]
    assert names(pip) == names(PROJECT["dependencies"])
    assert sum(re.fullmatch(r"torch==[\d.]+", line) is not None for line in pip) == 1
    assert SpecifierSet(PROJECT["requires-python"]).contains(CONDA[0].removeprefix("python="))


def test_conda_asks_no_channel_whose_terms_nobody_accepts_on_a_node():
    assert conda_specification()["channels"] == ["conda-forge", "nodefaults"]


def test_nothing_is_listed_that_only_the_makefile_s_exception_makes_installable():
    # pip and conda have no such exception: what it takes out may come only through others.
    makefile = (ROOT / "Makefile").read_text()
    (excepted,) = re.findall(r"'%s; sys_platform == \"never\"\\n' (.+) > \.venv/over", makefile)
    excepted = set(excepted.split())
    assert excepted == {"torchvision", "rfc3987-syntax"}
    extras = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *(line for extra in extras for line in extra)]
    assert names(every).isdisjoint(excepted)
    assert not any("+" in line or "@" in line for line in every), "PyPI has no such build"


def test_environment_yml_resolves_at_the_package_index_without_that_exception():
    """As conda's pip would, but from metadata alone: no wheel is downloaded."""
    (pip,) = [
        each["pip"]
        for each in yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
        if type(each) is dict
    ]
    # Settings of this machine, such as a folder of wheels or an override, are not conda's.
    ours = ("UV_", "PIP_")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "uv", "pip", "compile", "--no-config", "--no-header", "-"),
            *("--python-version", CONDA[0].removeprefix("python=")),
            *("--python-platform", "x86_64-manylinux_2_28", "--no-annotate"),
        ],
        cwd=ROOT,
        input="\n".join(pip),
        env={k: v for k, v in os.environ.items() if not k.startswith(ours) or "INDEX" in k},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if "error sending request" in done.stderr:
        pytest.skip("no package index can be reached from here")
    assert done.returncode == 0, done.stderr
    found = dict(
        line.split("==") for line in done.stdout.splitlines() if not line.startswith(("#", "-"))
    )
    assert names(PROJECT["dependencies"]) - {"azure-ai-ml"} <= found.keys()
    assert f"torch=={found['torch']}" in PROJECT["dependencies"]
    assert "torchvision" in found, "fastmri asks for it, and here nothing takes it out"


@pytest.mark.parametrize("package", ["workbench", "workbench_kernels", "workbench_demo"])
def test_every_package_that_is_imported_is_listed(package):
    extras = PROJECT["optional-dependencies"]
    optional = (extras[name] for name in ("mlflow", "s3", "sdkv2", "twix", "wandb"))
    listed = names(PROJECT["dependencies"]).union(*map(names, optional))
    for owners, path in imports(package).items():
        assert owners & listed, f"{path} imports {set(owners)}"


def test_torchvision_which_would_break_lightning_is_not_installed():
    assert importlib.util.find_spec("torchvision") is None


def test_importing_the_workbench_imports_nothing_heavy():
    heavy = ("torch", "numpy", "h5py", "matplotlib", "pandas", "requests", "azureml")
    code = f"import sys, workbench; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_notebooks_imports_wait_for_nothing_that_only_some_need():
    slow = ("torch", "fastmri", "nbformat", "jsonschema", "papermill", "azure.core", "azureml")
    code = (
        "import sys; from workbench.pages.__main__ import PAGES; "
        f"print([m for m in {slow} if m in sys.modules], len(PAGES))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] 7"


@pytest.mark.parametrize(
    ("scripts", "missing", "command"),
    [
        ({"python3": "exit 1"}, "Python 3.11, 3.12 or 3.13 is missing", "uv python install 3.11"),
        (
            {"python3": "exit 1", "apt-cache": "exit 0"},
            "Python 3.11, 3.12 or 3.13 is missing",
            "sudo apt-get install -y python3.11 python3.11-venv",
        ),
        (
            {"python3": "exit 1", "apt-cache": 'case "$*" in *3.11*) exit 1;; esac'},
            "Python 3.11, 3.12 or 3.13 is missing",
            "sudo apt-get install -y python3.12 python3.12-venv",
        ),
        (
            {
                "python3": 'case "$2" in *ensurepip*) exit 1;; *print*) echo 3.12;; esac',
                "apt-cache": "exit 0",
            },
            "venv module of python3 is missing",
            "sudo apt-get install -y python3.12-venv",
        ),
    ],
    ids=["no python", "no python on Debian", "no 3.11 on Ubuntu", "no venv on Debian"],
)
def test_what_the_machine_lacks_is_said_in_one_line(checkout, tmp_path, scripts, missing, command):
    done = make(checkout, "lab", bare_path(tmp_path / "bin", **scripts))
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if not line.startswith(("make:", "make["))]
    assert len(lines) == 1
    assert missing in lines[0]
    assert command in lines[0]
    assert not (checkout / ".venv").exists()


def test_python3_alone_serves_where_its_version_does(checkout, tmp_path):
    # It stands in for a Python of a version that does, and tells what is asked of it.
    asked = tmp_path / "asked"
    script = f'echo "$@" >> "{asked}"'
    make(checkout, ".venv/made-in", bare_path(tmp_path / "bin", python3=script))
    assert "-m venv --clear .venv" in asked.read_text()


def test_hosted_ci_tries_every_python_and_calls_what_is_there():
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    tried = jobs["pip"]["strategy"]["matrix"]["python"]
    versions = [f"3.{minor}" for minor in range(30)]
    assert tried == list(SpecifierSet(PROJECT["requires-python"]).filter(versions))
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    makefile = (ROOT / "Makefile").read_text()
    for command in commands:
        first, *words = command.split()
        if first == "make":
            assert f"\n{words[0]}:" in makefile
        elif "/" in first and not first.startswith("$"):
            assert os.access(ROOT / first, os.X_OK)
        if "workbench" in command.split():
            assert words[-2:] == ["demo", "tiny"]
    assert (ROOT / "environment.yml").exists()
    assert "tiny" in SIZES
    assert {"make docs", ".ci/run", "pip install ."} < set(commands)
