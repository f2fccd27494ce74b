import hashlib
import io
import random
import sys
import tarfile
import threading
import time

import pytest

from workbench.azure_login import Workspace
from workbench.azure_storage import parse_connection
from workbench.compute import unpacking
from workbench.compute.cluster import SDKS
from workbench.compute.unpacking import cluster_unpacker
from workbench.ingest import unpacking as job
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.fetch import StoppedError
from workbench.settings import Secret
from workbench.stores import DiskStore
from workbench.stores.blob import open_container

pytestmark = pytest.mark.filterwarnings("ignore")  # the SDKs' own

MEMBERS = {f"multicoil_val/{n}.h5": random.Random(n).randbytes(10_000) for n in range(2)}


@pytest.fixture
def landed(workspace, monkeypatch):
    """A container where an archive has landed: packed, cut short where that is asked for."""
    monkeypatch.setattr(unpacking, "SECONDS_BETWEEN_LOOKS", 0.3)
    container = open_container(parse_connection(Secret(workspace.storage.connection_string)))

    def land(keep: int | None = None):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as tar:
            for name, data in MEMBERS.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        container.write("knee_multicoil_compressed/val.tar.xz", buffer.getvalue()[:keep])
        return container

    return land


def unpack_on_cluster(
    workspace, container, *, sdk="v1", stopped=None, on_bytes=lambda count: None
) -> tuple[Unpacked, str]:
    out = Unpacked()
    address = Workspace(**vars(workspace.workspace))
    unpacker = cluster_unpacker(address, container, "cpu-cluster", sdk)
    digest = unpacker(
        "knee_multicoil",
        "val.tar.xz",
        "val.tar.xz",
        out,
        known={},
        stopped=stopped or threading.Event(),
        on_bytes=on_bytes,
    )
    return out, digest


def traces(workspace):
    """Names of what jobs leave in the dataset's folder besides members and manifest."""
    names = workspace.storage.names(prefix="knee_multicoil/.")
    return [name.removeprefix("knee_multicoil/") for name in names]


@pytest.mark.parametrize("sdk", SDKS)
def test_job_on_a_cluster_unpacks_and_verifies_without_any_key(workspace, landed, sdk):
    container = landed()
    out, digest = unpack_on_cluster(workspace, container, sdk=sdk)
    assert out.written == 2
    assert (
        digest == hashlib.sha256(container.read("knee_multicoil_compressed/val.tar.xz")).hexdigest()
    )
    assert traces(workspace) == []
    for name, data in MEMBERS.items():
        assert container.read(f"knee_multicoil/{name}") == data
    sent = " ".join(repr(request) for request in workspace.azureml.requests)
    assert workspace.storage.key not in sent


def test_damaged_archive_or_unknown_container_is_named(workspace, landed):
    with pytest.raises(ArchiveError, match=r"^val\.tar\.xz: truncated or damaged"):
        unpack_on_cluster(workspace, landed(keep=9000))
    storage = parse_connection(Secret(workspace.storage.connection_string))
    with pytest.raises(ValueError, match=r"the workspace has no datastore of .*/elsewhere"):
        unpack_on_cluster(workspace, open_container(storage, "elsewhere"))


def test_job_that_a_killed_notebook_left_is_waited_for_and_not_sent_again(workspace, landed):
    """The first notebook is killed while its job waits for machines, which come to the second."""
    container = landed()
    paused = workspace.azureml.clusters["cpu-cluster"].paused
    paused.set()

    class Killed(threading.Event):
        def wait(self, timeout=None):
            raise SystemExit

    with pytest.raises(SystemExit):
        unpack_on_cluster(workspace, container, stopped=Killed())
    assert traces(workspace) == [".unpack-job-val.tar.xz.json"]
    timer = threading.Timer(2, paused.clear)
    timer.start()
    assert unpack_on_cluster(workspace, container)[0].written == 2
    timer.join()
    assert len(workspace.azureml.jobs) == 1
    assert traces(workspace) == []


def test_job_for_an_archive_that_was_copied_anew_since_is_not_waited_for(workspace, landed):
    container = landed()
    note = {"run": "unpack_1", "archive": "another"}
    container.write_json("knee_multicoil/.unpack-job-val.tar.xz.json", note)
    assert unpack_on_cluster(workspace, container)[0].written == 2


def test_bytes_are_counted_while_a_job_is_at_work(workspace, landed):
    """The job has yet to get a machine: what it would note is noted in its place."""
    container, counted, stopped = landed(), [], threading.Event()
    workspace.azureml.clusters["cpu-cluster"].paused.set()

    def look() -> None:
        while not workspace.azureml.jobs:
            time.sleep(0.05)
        for total in (1000, 1500):
            name = f"knee_multicoil/{job.progress_name('val.tar.xz')}"
            container.write_json(name, {"bytes": total})
            end = time.monotonic() + 60
            while sum(counted) < total and time.monotonic() < end:
                time.sleep(0.05)
        stopped.set()

    thread = threading.Thread(target=look)
    thread.start()
    with pytest.raises(StoppedError):
        unpack_on_cluster(workspace, container, stopped=stopped, on_bytes=counted.append)
    thread.join()
    assert sum(counted) == 1500
    workspace.azureml.job.join()
    assert workspace.azureml.job.status == "Canceled"
    assert traces(workspace) == []


def test_a_pass_notes_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "SECONDS_BETWEEN_NOTES", 0.0)
    counts = []
    write_json = DiskStore.write_json

    def watched(self, path, content):
        counts.append(content.get("bytes"))
        write_json(self, path, content)

    monkeypatch.setattr(DiskStore, "write_json", watched)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        info = tarfile.TarInfo("multicoil_val/a.h5")
        info.size = 3_000_000
        tar.addfile(info, io.BytesIO(bytes(info.size)))
    (tmp_path / "val.tar").write_bytes(packed.getvalue())
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path), str(tmp_path / "out"), "val.tar", "val"])
    job.main()
    assert counts.pop() is None
    assert counts == sorted(counts)
    assert counts[-1] == len(packed.getvalue())
    assert len(counts) > 1
