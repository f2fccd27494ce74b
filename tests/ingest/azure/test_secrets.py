"""Nothing that is secret shows up anywhere: the run is made with known secrets, then searched."""

import logging
import threading
import traceback
from pathlib import Path

import pytest

from tests.ingest.azure.conftest import found_in, notebook, secrets_of
from tests.programs import wait_for
from workbench.azure_resources import ResourceError


class CommandLines:
    """The arguments of all processes, looked at while a block runs."""

    def __enter__(self):
        self.seen, self._over = set(), threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join()

    def _look(self):
        while not self._over.wait(0.2):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    self.seen.add(path.read_bytes().decode("utf-8", "replace"))
                except OSError:
                    continue


def test_notebook_with_an_archive_that_fails_leaves_no_secret_anywhere(release, cloud, tmp_path):
    """That one where all goes well leaves none is tried in ``test_notebook``."""
    brought = release("2021")
    (cloud.bucket.folder / "SHA256").write_text(f"{'0' * 64}  multicoil_val.tar.gz\n")
    email = brought.email
    secrets = secrets_of(cloud, email)
    with CommandLines() as lines:
        failed = notebook(cloud, email, tmp_path).wait(240)
    out, log = tmp_path / "out.ipynb", (tmp_path / "log").read_text()
    assert failed, log
    assert "Activities of the factory" in out.read_text()
    assert "accept_mismatch" in log
    assert cloud.factory.names == []
    left = {
        str(path): path.read_text(errors="replace")
        for folder in (cloud.home, cloud.cache, tmp_path)
        for path in folder.rglob("*")
        if path.is_file() and cloud.bucket.folder not in path.parents
    }
    assert str(out) in left
    texts = {"arguments": "\n".join(lines.seen)}
    names = cloud.storage.names()
    container = cloud.storage.container()
    manifests = {n: container.download_blob(n).readall().decode() for n in names if ".json" in n}
    assert manifests
    for where, text in (left | texts | manifests).items():
        assert not found_in(secrets, text), where


def test_what_the_factory_stores_of_a_run_and_the_most_talkative_log_hold_no_secret(
    release, cloud, caplog
):
    caplog.set_level(logging.DEBUG)
    brought = release()
    for name in list(logging.root.manager.loggerDict):  # AzureML's SDKs have silenced some
        caplog.set_level(logging.DEBUG, name)
    documents = {}
    cloud.factory.pace.go.clear()

    def look() -> None:
        wait_for(lambda: len(cloud.factory.runs) >= 3)
        for kind in ("linkedservices", "datasets", "pipelines"):
            documents[kind] = repr(cloud.factory.documents(cloud.factory.names[0], kind))
        cloud.factory.pace.go.set()

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    secrets = secrets_of(cloud, brought.email)
    report = brought.ingest()
    thread.join()
    assert report.problems == []
    activities = repr([run.activities for run in cloud.factory.runs])
    for where, text in (documents | {"activities": activities, "report": repr(report)}).items():
        # The account's key is a SecureString there: that is where the service keeps it.
        known = [secret for secret in secrets if secret != cloud.storage.key]
        assert not found_in(known, text), where
    assert "Request URL" in caplog.text
    assert not found_in(secrets, caplog.text)


@pytest.mark.parametrize(
    "pattern",
    ["PUT .*/linkedservices/DatasetStorage", "POST .*/createRun", "PUT .*/factories/fastmri[^/]*$"],
)
def test_traceback_with_all_that_led_to_it_holds_no_secret(release, cloud, pattern):
    brought = release()
    plan = brought.plan()
    secrets = secrets_of(cloud, brought.email)
    whole = f"refused: {cloud.storage.connection_string} {brought.email}"
    cloud.fail(pattern, status=400, code="BadRequest", message=whole)
    text = ""
    try:
        text = "\n".join(brought.run(plan).problems)
    except ResourceError as error:
        text = "".join(traceback.format_exception(error))
    assert "BadRequest" in text
    assert not found_in(secrets, text)
