"""What a demo takes from an earlier run: all, where that was made from the same, or nothing."""

import pytest

from workbench_demo import stages
from workbench_demo.sizes import SIZES
from workbench_demo.stages import Demo, Records


@pytest.fixture
def code(monkeypatch, tmp_path):
    """A folder of code that the demo runs."""
    code = tmp_path / "code"
    (code / "workbench_kernels").mkdir(parents=True)
    (code / "workbench_kernels/similarity.c").write_text("int a;")
    monkeypatch.setattr(stages, "_CODE", code)
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path / "root"))
    return code


def test_what_other_code_made_is_made_anew_all_of_it(code, capsys):
    demo = Demo(SIZES["tiny"])
    scans = demo.lanes[-1][0]
    weights = demo.folder / "brain/checkpoints/best.ckpt"
    with Records(demo).timed(scans):
        scans.leaves[0].mkdir(parents=True)
        weights.parent.mkdir(parents=True)
        weights.write_bytes(b"trained")
    assert Records(demo).done(scans)
    assert weights.exists()
    (code / "workbench_kernels/similarity.c").write_text("int b;")
    assert not Records(demo).done(scans)
    # A training that is finished is not trained anew, nor what is reconstructed.
    assert not weights.exists()
    assert "has changed since outputs/demo-tiny was made" in capsys.readouterr().out


def test_what_a_killed_run_left_before_its_first_stage_was_done_is_known_too(code):
    demo = Demo(SIZES["tiny"])
    Records(demo)
    half = demo.folder / "phantom/half.h5"
    half.parent.mkdir()
    half.write_bytes(b"of other code")
    (code / "workbench_kernels/similarity.c").write_text("int b;")
    Records(demo)
    assert not half.exists()
