import os
import signal
import subprocess
import threading

# Before torch is imported, and for every process that a test starts: threads that wait for each
# other on busy cores take six times the processor time.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

pytest_plugins = ["tests.cloud.plugin"]

# Side by side (pytest-xdist) tests of one group share a process, and so what starts slowly: a
# JupyterLab, an Azurite. Long groups come first, so that both processes end at the same time.
_GROUPS = ("tests/compute/azureml", "tests/browser", "tests/ingest/azure", "tests/demo")

# azureml-core calls what is deprecated on threads of its own, at any time: also while pytest sets
# its filters of warnings, one after the other, and "error" comes before what is ignored.
threading.Thread.setDaemon = lambda thread, daemonic: setattr(thread, "daemon", daemonic)

# A shell's background job ignores interrupts, and so would every process that a test interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Put tests into groups for pytest-xdist: those of ``_GROUPS`` by folder, others by file."""

    def group(item):
        file = item.nodeid.partition("::")[0]
        return next((folder for folder in _GROUPS if file.startswith(folder)), file)

    def place(item):
        name = group(item)
        return _GROUPS.index(name) if name in _GROUPS else len(_GROUPS)

    for item in items:
        item.add_marker(pytest.mark.xdist_group(group(item)))
    items.sort(key=place)


@pytest.fixture
def torch_threads():
    """Sets torch's number of threads for one test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def small_disk(tmp_path):
    """Mounts a disk of so many bytes at a new folder."""
    mounted = []

    def mount(size, folder=tmp_path / "small"):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"a small disk is mounted by root alone: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
