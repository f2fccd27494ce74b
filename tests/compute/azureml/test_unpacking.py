import hashlib
import io
import random
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cloud.sdks import OLDEST, SDKS
from workbench.azure_login import Workspace, credential
from workbench.azure_storage import parse_connection
from workbench.compute import unpacking
from workbench.compute.unpacking import with_unpacker
from workbench.ingest import unpacking as job
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.factory_copy import FactoryPlace
from workbench.ingest.fetch import StoppedError
from workbench.ingest.links import SignedLink
from workbench.ingest.passing import measured_speeds
from workbench.ingest.plan import Action, DatasetPlan, IngestPlan, PlannedArchive
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

    def land(keep: int | None = None, name: str = "val.tar.xz", members=MEMBERS):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:xz", preset=0) as tar:
            for path, data in members.items():
                info = tarfile.TarInfo(path)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        container.write(f"knee_multicoil_compressed/{name}", buffer.getvalue()[:keep])
        return container

    return land


def planned(workspace, container):
    """A plan of one archive that has landed, as far as choosing who unpacks it goes."""
    storage = parse_connection(Secret(workspace.storage.connection_string))
    place = FactoryPlace(
        Workspace(**vars(workspace.workspace)), storage, "datasets", credential(), "westeurope"
    )
    link = SignedLink.__new__(SignedLink)
    archive = PlannedArchive(link, Action.UNPACK, ".tar.xz", 10**12, unpacked=2 * 10**12)
    datasets = (DatasetPlan("knee_multicoil", "2025", (archive,), ()),)
    return IngestPlan(container, place, datasets, True, (), 0, 0, None, ())


def unpack_on_cluster(
    workspace, container, *names, sdk=OLDEST, stopped=None, on_bytes=lambda count: None
) -> list[tuple[Unpacked, str]]:
    """Unpack archives, val.tar.xz where none is named, side by side; return what each gave."""
    unpacker = with_unpacker(planned(workspace, container), "azureml", sdk=sdk).unpacker
    how = {"known": {}, "stopped": stopped or threading.Event(), "on_bytes": on_bytes}

    def unpack(name):
        out = Unpacked()
        return out, unpacker("knee_multicoil", name, name, out, **how)

    if not names:
        return [unpack("val.tar.xz")]
    with ThreadPoolExecutor(len(names)) as threads:
        return list(threads.map(unpack, names))


def traces(workspace):
    """Names of what jobs leave in the dataset's folder besides members and manifest."""
    names = workspace.storage.names(prefix="knee_multicoil/.")
    return [name.removeprefix("knee_multicoil/") for name in names]


@pytest.mark.parametrize("sdk", SDKS)
def test_jobs_on_a_cluster_unpack_and_verify_side_by_side_without_any_key(workspace, landed, sdk):
    """SDK v1 changes the process's working folder while it packs a job's code.

    For one of the archives a job is noted that unpacked what was there before it was copied anew.
    """
    archives = {
        f"val{number}.tar.xz": {path: data} for number, (path, data) in enumerate(MEMBERS.items())
    }
    for name, members in archives.items():
        container = landed(name=name, members=members)
    note = {"run": "unpack_1", "archive": "another"}
    container.write_json("knee_multicoil/.unpack-job-val1.tar.xz.json", note)
    found = unpack_on_cluster(workspace, container, *archives, sdk=sdk)
    assert [out.written for out, _ in found] == [1, 1]
    for (name, members), (_, digest) in zip(archives.items(), found, strict=True):
        packed = container.read(f"knee_multicoil_compressed/{name}")
        assert digest == hashlib.sha256(packed).hexdigest()
        for path, data in members.items():
            assert container.read(f"knee_multicoil/{path}") == data
    assert traces(workspace) == []
    sent = " ".join(repr(request) for request in workspace.azureml.requests)
    assert workspace.storage.key not in sent


@pytest.mark.parametrize("unpack_on", [None, "here"])
def test_where_a_cluster_without_gpus_is_it_unpacks_unless_this_machine_is_to(
    workspace, landed, unpack_on
):
    workspace.azureml.add_cluster("cheap", vm_size="Standard_D4_v3", nodes=2, low_priority=True)
    plan = with_unpacker(planned(workspace, landed()), unpack_on)
    (note,) = plan.notes
    assert (plan.unpacker is None) == (unpack_on == "here")
    if unpack_on is None:
        assert plan.unpacker.cluster.name == "cheap"
        assert note.startswith("jobs on the cluster cheap (STANDARD_D4_V3, low priority, up to 2")
    else:
        assert note.startswith("this machine verifies and unpacks (unpack_on='here')")


def test_where_there_is_none_the_plan_says_what_passes_through_here(workspace, landed, monkeypatch):
    """A terabyte of xz that unpacks to two, over a line of 100 and 50 MB/s."""
    del workspace.azureml.clusters["cpu-cluster"]
    container = landed()
    before = workspace.storage.names()
    monkeypatch.setattr("workbench.ingest.passing.cores", lambda: 8)
    assert all(speed > 0 for speed in measured_speeds(container))
    monkeypatch.setattr("workbench.ingest.passing.measured_speeds", lambda store: (100e6, 50e6))
    (note,) = with_unpacker(planned(workspace, container), None).notes
    assert "(the workspace has no cluster without GPUs): 1.0 TB come here from storage" in note
    assert "and 2.0 TB go back, some 11 h 06 min at what was measured" in note
    assert "(100 MB/s from storage, 50.0 MB/s to it, 14 MB/s of xz on each of 8 cores)" in note
    assert "Azure bills the 1.0 TB as egress, about 78 US dollars by its list" in note
    assert "unless this machine is in its region westeurope" in note
    assert workspace.storage.names() == before
    with pytest.raises(ValueError, match="cluster='none-such': the workspace has gpu-cluster"):
        with_unpacker(planned(workspace, container), None, "none-such")


def test_damaged_archive_or_unknown_container_is_named(workspace, landed):
    with pytest.raises(ArchiveError, match=r"^val\.tar\.xz: truncated or damaged"):
        unpack_on_cluster(workspace, landed(keep=9000))
    storage = parse_connection(Secret(workspace.storage.connection_string))
    elsewhere = open_container(storage, "elsewhere")
    with pytest.raises(ValueError, match=r"the workspace has no datastore of .*/elsewhere"):
        unpack_on_cluster(workspace, elsewhere)
    (note,) = with_unpacker(planned(workspace, elsewhere), None).notes
    assert "this machine verifies and unpacks (unpack_on='azureml': the workspace has no" in note


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
    ((out, _),) = unpack_on_cluster(workspace, container)
    assert out.written == 2
    timer.join()
    assert len(workspace.azureml.jobs) == 1
    assert traces(workspace) == []


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

    thread = threading.Thread(target=look, daemon=True)
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
