"""The whole demo, at its tiny size, as a person runs it: interrupted once, and run again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from workbench.settings import project_root
from workbench_demo.pages import pictures
from workbench_demo.report import SPREAD
from workbench_demo.sizes import SIZES

ROOT = project_root()
PAGES = [
    *(f"{part.model}_{page}.ipynb" for part in SIZES["tiny"].parts for page in part.pages),
    *("own_convert.ipynb", "own_reconstruct.ipynb"),
]
OTHERS = {"phantom", "pack", "scanner"}
"""Stages that are no notebooks."""


def start(home):
    # A person's own links must stay out of the demo.
    own = {"WORKBENCH_ROOT": str(home), "FASTMRI_LINKS": "curl https://example.org/own"}
    return subprocess.Popen(
        [sys.executable, "-m", "workbench_demo", "tiny"],
        cwd=ROOT,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    with process:
        try:
            out, err = process.communicate(timeout=1800)
        except BaseException:
            process.terminate()
            raise
    return SimpleNamespace(code=process.returncode, out=out, err=err)


def descendants(pid):
    """Return the processes that a process has started, and those that they have."""
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = [child for thread in threads for child in thread.read_text().split()]
    return [int(child) for child in children] + [x for c in children for x in descendants(int(c))]


def running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # ended, and only not yet collected by whoever inherited it


def left_after(seconds, pids):
    """Return those of some processes that still run when so much time is over."""
    end = time.monotonic() + seconds
    while (left := [pid for pid in pids if running(pid)]) and time.monotonic() < end:
        time.sleep(0.1)
    return left


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    process = start(home)
    for line in process.stdout:
        if "brain train | training on" in line:
            break
    started = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    interrupted = finish(process)
    orphans = left_after(30, started)
    return SimpleNamespace(
        home=home,
        folder=home / "outputs" / "demo-tiny",
        interrupted=interrupted,
        orphans=orphans,
        started=started,
        done=finish(start(home)),
    )


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_interrupt_ends_it_at_once_without_orphans(demo):
    assert demo.interrupted.code == 130
    assert "run it again to go on" in demo.interrupted.err
    assert "Traceback" not in demo.interrupted.err
    assert len(demo.started) >= 2
    assert demo.orphans == []


def test_next_run_goes_on_where_it_was_interrupted(demo):
    assert demo.done.code == 0, demo.done.err
    for stage in ("phantom", "pack", "brain ingest"):
        assert f"{stage}: done before" in demo.done.out
    assert "brain train: done before" not in demo.done.out


def test_summary_holds_means_sizes_and_seconds(demo):
    summary = json.loads((demo.folder / "summary.json").read_text())
    assert set(summary) == {"brain", "knee", "seconds"}
    for model in ("brain", "knee"):
        part = summary[model]
        methods = ["zero_filled", "sense", "wavelet", "tv", "varnet"]
        assert list(part) == [*methods, "counted", "volumes", "slices"]
        assert (part["volumes"], part["slices"]) == (1, 2)
        for kind in methods:
            assert set(part[kind]) == {"ssim", "psnr", "nmse"}
            assert 0 < part[kind]["ssim"] < 1
            assert 0 < part[kind]["nmse"] < 1
    assert set(summary["seconds"]) == OTHERS | {
        page.removesuffix(".ipynb").replace("_", " ") for page in PAGES
    }


def test_page_shows_table_pictures_and_every_notebook(demo):
    page = (demo.folder / "index.html").read_text()
    summary = json.loads((demo.folder / "summary.json").read_text())
    for model in ("brain", "knee"):
        for method in ("zero_filled", "sense", "wavelet", "tv", "varnet"):
            for text in (page, demo.done.out):
                assert f"{summary[model][method]['ssim']:.3f}" in text
                assert f"{summary[model][method]['psnr']:.1f}" in text
    for label in ("zero-filled", "CG-SENSE", "L1-wavelet", "TV", "VarNet"):
        assert demo.done.out.count(f"\n    {label} ") == 2
    assert SPREAD in demo.done.out
    for name in PAGES:
        assert f'href="{name}"' in page
        rendered = demo.folder / name.replace(".ipynb", ".html")
        assert f'href="{rendered.name}"' in page
        assert "<html" in rendered.read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "not patient data" in page
    assert "http://" not in page
    assert "https://" not in page


def test_notebooks_ran_to_their_end(demo):
    for name in PAGES:
        cells = nbformat.read(demo.folder / name, as_version=4).cells
        assert all(c.execution_count for c in cells if c.cell_type == "code"), name
    assert list(pictures(demo.folder / "brain_reconstruct.ipynb"))


def test_nothing_holds_a_signed_link(demo):
    for path in demo.folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not re.search(rb"AKIA[0-9A-F]{16}", content), path  # pictures are base64
            assert b"Signature=" not in content, path
    for text in (demo.done.out, demo.done.err, demo.interrupted.out, demo.interrupted.err):
        assert "AKIA" not in text


def test_datasets_of_one_s_own_are_not_touched(demo):
    assert not (demo.home / "datasets").exists()
    assert [path.name for path in demo.home.iterdir()] == ["outputs"]
    assert [path.name for path in (demo.home / "outputs").iterdir()] == ["demo-tiny"]


def test_run_that_finds_all_done_changes_neither_data_nor_weights(demo):
    before = times(demo.folder)
    again = finish(start(demo.home))
    assert again.code == 0, again.err
    stages = again.out.count(": done before, in ")
    assert stages == len(PAGES) + len(OTHERS)
    after = times(demo.folder)
    changed = {path.name for path in after if after[path] != before.get(path)}
    assert changed == {"summary.json", "index.html"}


def test_stage_whose_result_is_gone_is_done_again(demo):
    name = "brain_cache.ipynb"
    (demo.folder / name).unlink()
    again = finish(start(demo.home))
    assert again.code == 0, again.err
    assert "brain cache: done before" not in again.out
    assert "brain train: done before" in again.out
    assert (demo.folder / name).exists()
