"""A wheel, installed where no checkout is in sight, does what the checkout does."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from workbench_demo.phantom.writing import write_volume

ROOT = Path(__file__).parents[1]
PACKAGES = ("workbench", "workbench_kernels", "workbench_demo")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", str(folder)], cwd=ROOT, check=True, capture_output=True)
    [made] = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Run a program of a fresh environment with the wheel in it, in an empty folder.

    It sees the packages that are here, and not the checkout: of a path in a ``.pth`` file the
    ``.pth`` files are not read, and so not the editable installation's.
    """
    venv, folder = tmp_path_factory.mktemp("venv"), tmp_path_factory.mktemp("empty")
    python = str(venv / "bin/python")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    [packages] = venv.glob("lib/python*/site-packages")
    (packages / "packages.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    offline = ["--no-deps", "--no-index", "--ignore-installed", "--disable-pip-version-check"]
    subprocess.run([*pip, *offline, str(wheel)], check=True)
    ours = ("PYTHON", "WORKBENCH_", "JUPYTER", "PYTEST_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}

    def run(program, *words):
        done = subprocess.run(
            [str(venv / "bin" / program), *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run.folder, run.packages = folder, packages
    return run


def files(folder):
    litter = {"__pycache__", ".ipynb_checkpoints"}
    found = (path for path in (ROOT / folder).rglob("*") if path.is_file())
    return {path.relative_to(ROOT).as_posix() for path in found if litter.isdisjoint(path.parts)}


def test_it_holds_all_files_of_the_packages_every_notebook_and_the_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    info = {name for name in names if ".dist-info/" in name}
    ours = set().union(*map(files, PACKAGES)) | {f"workbench/{each}" for each in files("notebooks")}
    assert names - info == ours
    assert {Path(name).name for name in info} >= {"METADATA", "entry_points.txt", "LICENSE"}
    assert {Path(name).suffix for name in ours} >= {".py", ".ipynb", ".css", ".js", ".c", ".j2"}


def test_everything_comes_from_the_wheel(installed):
    code = """
import workbench, workbench_demo, workbench_kernels
from workbench.settings import notebooks, project_root
print(workbench.__file__, workbench_demo.__file__, workbench_kernels.__file__, notebooks())
print(project_root())
"""
    *places, root = installed("python", "-c", code).split()
    assert all(Path(place).is_relative_to(installed.packages) for place in places)
    assert Path(root) == installed.folder


def test_its_commands_answer(installed):
    assert "Commands:" in installed("workbench", "--help")
    assert "nodes" in installed("workbench", "train", "--help")
    assert "tiny" in installed("python", "-m", "workbench_demo", "--help")


def test_a_page_runs_in_the_working_folder(installed):
    random = np.random.default_rng(1)
    write_volume(
        installed.folder / "datasets/knee_multicoil/multicoil_val/file1.h5",
        kspace=(1e-4 * random.normal(size=(2, 2, 32, 24))).astype(np.complex64),
        target=random.random(size=(2, 16, 16), dtype=np.float32),
        recon=(16, 16),
        acquisition="CORPD_FBK",
        patient_id="1",
    )
    assert "(1 volume" in installed("workbench", "cache")
    assert (installed.folder / "outputs/cache.ipynb").exists()


def test_a_node_gets_code_notebooks_and_the_list_of_packages(installed):
    code = """
from workbench.compute.cluster_job import conda_specification, snapshot
with snapshot() as folder:
    sent = ["notebooks/train.ipynb", "workbench/recon/run.py", "workbench_kernels/convolution.c"]
    print([(folder / name).is_file() for name in sent])
print(any(line.startswith("torch==") for line in conda_specification()["dependencies"][-1]["pip"]))
"""
    assert installed("python", "-c", code).splitlines() == ["[True, True, True]", "True"]
