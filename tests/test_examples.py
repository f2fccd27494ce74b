"""The example notebooks run from top to bottom in a fresh kernel, on a tiny dataset."""

import ast

import nbformat
import papermill
import pytest
import torch

import workbench
from tests.recon.conftest import SMALL, project, study  # noqa: F401
from workbench.settings import notebooks

EXAMPLES = notebooks() / "examples"


@pytest.fixture
def executed(study, project):  # noqa: F811
    """Runs an example with some parameters, and returns what its cells have printed."""
    torch.manual_seed(0)
    torch.save(workbench.VarNet(**SMALL).state_dict(), project / "weights.pt")

    def run(name, **parameters):
        out = project / f"{name}.ipynb"
        given = {"dataset": str(study), **parameters}
        done = papermill.execute_notebook(
            EXAMPLES / f"{name}.ipynb", out, given, cwd=project, progress_bar=False
        )
        outputs = [each for cell in done.cells for each in cell.get("outputs", ())]
        return "".join(each.get("text", "") for each in outputs), outputs

    return run


def test_first_slice(executed):
    text, outputs = executed("first-slice", model="weights.pt", number=1, acceleration=4)
    assert "(24, 24) float32" in text
    assert text.count("'ssim'") == 2
    assert any("image/png" in each.get("data", {}) for each in outputs)


def test_first_slice_takes_twelve_lines_or_fewer():
    cells = nbformat.read(EXAMPLES / "first-slice.ipynb", as_version=4).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"][1]
    assert "workbench.score" in code
    assert len(code.splitlines()) <= 12
    assert ast.parse(code)


def test_own_network(executed, project):  # noqa: F811
    text, _ = executed("own-network", epochs=1)
    assert "SmallNetwork(width=16)" in text
    assert "'ssim'" in text
    assert workbench.Run("outputs/examples/own-network").finished


def test_own_loss(executed, project):  # noqa: F811
    text, _ = executed("own-loss", epochs=1, cascades=1, chans=2)
    assert "loss       outputs.examples.mixed_loss:ssim_and_l1" in text
    assert workbench.Run("outputs/examples/own-loss").finished


def test_own_metric(executed):
    text, _ = executed("own-metric", model="weights.pt", slices=2)
    assert [line.split()[0] for line in text.splitlines()[-4:]] == ["ssim", "psnr", "nmse", "hfen"]


def test_every_example_is_tried_here():
    tried = {name[5:].replace("_", "-") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} <= tried
