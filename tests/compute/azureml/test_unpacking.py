import hashlib
import io
import random
import tarfile

import pytest

from workbench.azure_login import Workspace
from workbench.azure_storage import parse_connection
from workbench.compute import unpacking
from workbench.compute.unpacking import cluster_unpacker
from workbench.ingest.archives import ArchiveError, Unpacked
from workbench.ingest.azure.manifest import BlobManifest
from workbench.ingest.blobs import open_container
from workbench.ingest.manifest import ArchiveRecord
from workbench.settings import Secret

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
        packed = buffer.getvalue()[:keep]
        container.upload_blob("knee_multicoil_compressed/val.tar.xz", packed)
        digest = hashlib.sha256(packed).hexdigest()
        record = ArchiveRecord(
            "val.tar.xz", "/v2.0/val.tar.xz", len(packed), None, "downloaded",
            listed=digest, archive="val.tar.xz",
        )  # fmt: skip
        BlobManifest(container, "knee_multicoil").update("val", record)
        return container

    return land


def unpack_on_cluster(workspace, container) -> Unpacked:
    import threading

    out = Unpacked()
    address = Workspace(**vars(workspace.workspace))
    unpacker = cluster_unpacker(address, container, "cpu-cluster")
    unpacker(
        "knee_multicoil",
        "val",
        out,
        accept_mismatch=False,
        keep_archive=True,
        stopped=threading.Event(),
        on_bytes=lambda count: None,
    )
    return out


def test_job_on_a_cluster_unpacks_and_verifies_without_any_key(workspace, landed):
    container = landed()
    out = unpack_on_cluster(workspace, container)
    assert out.written == 2
    for name, data in MEMBERS.items():
        assert container.download_blob(f"knee_multicoil/{name}").readall() == data
    record = BlobManifest(container, "knee_multicoil").get("val")
    assert (record.state, record.check) == ("unpacked", "verified")
    sent = " ".join(repr(request) for request in workspace.azureml.requests)
    assert workspace.storage.key not in sent


def test_damaged_archive_is_named_by_the_job(workspace, landed):
    with pytest.raises(ArchiveError, match=r"^val\.tar\.xz: truncated or damaged"):
        unpack_on_cluster(workspace, landed(keep=9000))


def test_container_that_the_workspace_does_not_know_is_refused(workspace):
    storage = parse_connection(Secret(workspace.storage.connection_string))
    with pytest.raises(ValueError, match=r"the workspace has no datastore of .*/elsewhere"):
        unpack_on_cluster(workspace, open_container(storage, "elsewhere"))
