"""``workbench lab``: JupyterLab on working copies, on this Python."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import pytest


@pytest.fixture
def lab(project):
    """Start it; return how to ask its server, and its process."""
    home = project.parent / "home"
    folders = {name: str(home / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR")}
    environment = os.environ | folders | {"HOME": str(home), "WORKBENCH_ROOT": str(project)}
    log = project.parent / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.command", "lab", "--no-browser", "--port=0"],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    pattern = r"http://127\.0\.0\.1:(\d+)(/lab\S*)\?token=(\w+)"
    with process:
        try:
            while not (found := re.search(pattern, log.read_text())):
                assert process.poll() is None, log.read_text()
                time.sleep(0.1)
            port, page, token = found.groups()

            def get(address):
                request = urllib.request.Request(
                    f"http://127.0.0.1:{port}/{address}",
                    headers={"Authorization": f"token {token}"},
                )
                while process.poll() is None:
                    try:
                        with urllib.request.urlopen(request, timeout=60) as response:
                            return json.load(response)
                    except urllib.error.URLError as error:
                        if not isinstance(error.reason, ConnectionRefusedError):
                            raise
                        time.sleep(0.1)  # it tells its address before it listens there
                raise AssertionError(log.read_text())

            get.page, get.process = page, process
            yield get
        finally:
            process.kill()


def test_it_opens_copies_on_this_python_without_notices_and_ends_when_asked(lab, project):
    assert lab.page == "/lab/tree/work"
    there = {each["name"] for each in lab("api/contents/work")["content"]}
    assert {"train.ipynb", "explore.ipynb"} <= there
    spec = lab("api/kernelspecs")["kernelspecs"]["python3"]["spec"]
    assert spec["argv"][0] == sys.executable
    notices = lab("lab/api/settings/@jupyterlab/apputils-extension:notification")["schema"]
    assert notices["properties"]["fetchNews"]["default"] == "false"
    assert notices["properties"]["checkForUpdates"]["default"] is False
    assert {path.name for path in project.iterdir()} == {"datasets", "work"}
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait() is not None
