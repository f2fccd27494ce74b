"""``workbench lab``: JupyterLab on working copies, on this Python."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request

import pytest


@pytest.fixture
def lab(project):
    """Start it; return how to ask its server, and its process."""
    home = project.parent / "home"
    folders = {name: str(home / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    environment = os.environ | folders | {"HOME": str(home), "WORKBENCH_ROOT": str(project)}
    process = subprocess.Popen(
        [sys.executable, "-m", "workbench.command", "lab", "--no-browser", "--port=0"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(300, process.kill)
    timer.start()
    with process:
        try:
            lines = iter(process.stdout)
            pattern = r"http://127\.0\.0\.1:(\d+)(/lab\S*)\?token=(\w+)"
            port, page, token = next(filter(None, (re.search(pattern, x) for x in lines))).groups()

            def get(address):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/api/{address}",
                    headers={"Authorization": f"token {token}"},
                )
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.load(response)

            threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()
            get.page, get.process = page, process
            yield get
        finally:
            timer.cancel()
            process.kill()


def test_it_opens_copies_on_this_python_and_ends_when_asked(lab, project):
    assert lab.page == "/lab/tree/work"
    there = {each["name"] for each in lab("contents/work")["content"]}
    assert {"train.ipynb", "explore.ipynb"} <= there
    spec = lab("kernelspecs")["kernelspecs"]["python3"]["spec"]
    assert spec["argv"][0] == sys.executable
    assert {path.name for path in project.iterdir()} == {"datasets", "work"}
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait() is not None
