"""Own code travels to the nodes of a cluster, or is refused before anything is sent."""

import os
import subprocess
import sys

import pytest

from workbench.compute.cluster_job import snapshot
from workbench.compute.own_code import code_for, digest_of


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project's folder, which Python forgets afterwards."""
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder, **files):
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_file_comes_with_what_it_imports_from_the_project(project):
    network = "import torch, os\nimport trip_parts\nfrom trip_pack.blocks import Block\n"
    write(project, trip_net=network, trip_parts="import numpy\n", trip_other="")
    write(project, trip_pack__blocks="from . import deep\nBlock = 1\n", trip_pack__deep="")
    (project / "trip_pack/__init__.py").touch()
    found = code_for({"network": "trip_net:Net"})
    assert found.keys() == {"trip_net.py", "trip_parts.py", "trip_pack"}
    with snapshot(found) as folder:
        assert (folder / "trip_pack/deep.py").exists()
        assert (folder / "workbench/compute/node.py").exists()
        code = "import trip_net; print(trip_net.__file__, trip_net.trip_parts.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd="/", env={"PYTHONPATH": str(folder)},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.split() == [str(folder / "trip_net.py"), str(folder / "trip_parts.py")]


def test_code_is_other_code_once_something_of_it_changed_and_the_same_elsewhere(project):
    write(project, trip_net="import torch\nimport trip_parts, trip_kit\n", trip_parts="A = 1\n")
    write(project, trip_kit____init__="", trip_kit__of_python_2="print 1\n")
    hidden = project / "trip_kit/.ipynb_checkpoints"  # where JupyterLab keeps what was saved
    before = digest_of("trip_net:Net")
    write(hidden, deep="import trip_nowhere\n")
    assert digest_of("trip_net:Net") == before
    with snapshot(code_for({"network": "trip_net:Net"})) as folder:
        script = (
            "from workbench.compute.own_code import digest_of; print(digest_of('trip_net:Net'))"
        )
        away = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "WORKBENCH_ROOT": str(folder / "workbench"),
        }
        done = subprocess.run(
            [sys.executable, "-c", script], cwd="/", env=away, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
    assert done.stdout.split() == [before]
    write(project, trip_parts="A = 2\n")
    assert digest_of("trip_net:Net") != before
    assert digest_of("fastmri.models:VarNet") == ""


def test_modules_in_plain_folders_keep_their_place(project):
    folder = "trip_work/examples"
    write(project / folder, net="from trip_work.examples import loss\nfrom . import more\n")
    write(project / folder, loss="", more="")
    found = code_for({"network": "trip_work.examples.net:Net"})
    assert found.keys() == {f"{folder}/{name}.py" for name in ("net", "loss", "more")}


def test_what_the_nodes_install_stays_here(project):
    assert code_for({"network": "fastmri.models:VarNet", "loss": "torch.nn:L1Loss"}) == {}


def test_what_no_node_can_import_is_refused(project, tmp_path_factory, monkeypatch):
    with pytest.raises(ValueError, match=r"cannot import pytest\. It is"):
        code_for({"loss": "pytest:fail"})
    write(project, trip_net="import hypothesis\n")
    with pytest.raises(ValueError, match=r"cannot import hypothesis.* is installed here"):
        code_for({"network": "trip_net:Net"})
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, trip_far="")
    sys.path.append(str(elsewhere))
    with pytest.raises(ValueError, match=r"cannot import trip_far\. It lies at .* move it there"):
        code_for({"network": "trip_far:Net"})
    with pytest.raises(ValueError, match="no module is called trip_nowhere"):
        code_for({"network": "trip_nowhere:Net"})
