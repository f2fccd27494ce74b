"""Both stores keep the same promises: this machine's disk, and blob storage."""

import io
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time

import pytest
from azure.storage.blob import BlobLeaseClient

from workbench.azure_login import LoginError, new_login
from workbench.azure_storage import parse_connection
from workbench.settings import AZURE_LOGIN, Secret, child_environment
from workbench.stores import (
    CannotWriteError,
    DiskStore,
    StorageError,
    credentials_for,
    open_store,
)
from workbench.stores.blob import BlobStore, configured_store, open_container
from workbench.stores.bucket import CLOUDS, BucketStore

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def blobs(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    return open_container(parse_connection(Secret(cloud.storage.connection_string))).folder("knee")


@pytest.fixture
def bucket(monkeypatch):
    """A folder that is read as those of S3 and Google are, in this process's memory."""
    import fsspec

    monkeypatch.setitem(CLOUDS, "memory", ("fsspec", "nothing", "nothing"))
    files = fsspec.filesystem("memory")
    whole = type(files).cat_file

    def cat_file(self, path, version_id=None, start=None, end=None):  # as s3fs has it
        return whole(self, path, start=start, end=end)

    monkeypatch.setattr(type(files), "cat_file", cat_file)
    files.mkdir("/bucket")
    yield BucketStore("memory://bucket/knee")
    files.rm("/bucket", recursive=True)


@pytest.fixture(params=["disk", "blob", "bucket"])
def store(request, tmp_path):
    if request.param == "bucket":
        return request.getfixturevalue("bucket")
    return locking(request.param, request, tmp_path)


@pytest.fixture(params=["disk", "blob"])
def locking_store(request, tmp_path):
    """A store that other processes see, and that has locks."""
    return locking(request.param, request, tmp_path)


def locking(kind, request, tmp_path):
    return DiskStore(tmp_path / "knee") if kind == "disk" else request.getfixturevalue("blobs")


def paths(store, under=""):
    return [entry.path for entry in store.list(under)]


def test_files_are_listed_with_sizes_and_read_back(store):
    assert paths(store) == []
    store.write("b/two.bin", b"22")
    store.write("a.bin", b"")
    store.write("b/c/three.bin", io.BytesIO(b"333"), 3)
    assert {entry.path: entry.size for entry in store.list()} == {
        "a.bin": 0,
        "b/two.bin": 2,
        "b/c/three.bin": 3,
    }
    assert sorted(paths(store, "b")) == ["b/c/three.bin", "b/two.bin"]
    assert paths(store, "b/c") == ["b/c/three.bin"]
    assert paths(store, "b/tw") == paths(store, "nowhere") == []
    assert store.read("b/c/three.bin") == b"333"
    entry = store.entry("b/two.bin")
    assert entry == next(each for each in store.list("b") if each.path == "b/two.bin")
    assert entry.mtime_ns > 1e18
    assert store.entry("b") is store.entry("nowhere") is None


def test_a_file_is_replaced_whole_and_deleted(store):
    store.write("a", b"before")
    before = store.entry("a")
    with pytest.raises(EOFError):
        store.write("a", io.BytesIO(b"half"), 8)
    assert store.read("a") == b"before"
    assert paths(store) == ["a"]
    store.write("a", b"after!")
    assert store.read("a") == b"after!"
    assert store.entry("a") != before
    store.delete("a")
    store.delete("a")
    assert store.entry("a") is None


def test_ranges_and_streams_give_the_same_bytes(store):
    content = os.urandom(20 << 20)
    store.write("a", io.BytesIO(content), len(content))
    for size in (None, len(content)):
        source = store.source("a", size)
        assert source.size == len(content)
        assert source.read(1000, 70_000) == content[1000:71_000]
        assert source.read(len(content) - 3, 100) == content[-3:]
        assert source.read(len(content), 5) == b""
        source.close()
    with store.open("a") as stream:
        assert stream.read(10) == content[:10]
        assert stream.read() == content[10:]


def test_what_is_missing_is_named(store):
    for read in (store.read, store.open, store.source, store.read_json):
        with pytest.raises(FileNotFoundError, match="b/missing"):
            read("b/missing").read(1)


def test_json_is_read_as_written_or_named_as_damaged(store):
    store.write_json("x.json", {"version": 1, "name": "é"})
    assert store.read_json("x.json") == {"version": 1, "name": "é"}
    for damaged in (b"{", b"\xff\xfe", b"[" * 100_000):
        store.write("x.json", damaged)
        with pytest.raises(ValueError, match=r"x.json is damaged"):
            store.read_json("x.json")


def test_a_folder_of_a_store_is_a_store(store):
    below = store.folder("b").folder("c")
    below.write("x", b"1")
    assert store.read("b/c/x") == b"1"
    assert paths(below) == ["x"]
    assert below.address == f"{store.address}/b/c"
    assert open_store(below.address).read("x") == b"1"
    assert store.free() is None or store.free() > 0


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x"])
def test_no_path_leads_out(store, path):
    for use in (store.entry, store.read, lambda path: store.write(path, b""), store.delete):
        with pytest.raises(ValueError, match="leads out of"):
            use(path)


def test_one_process_holds_a_lock(locking_store, monkeypatch):
    store = locking_store
    store.write("x", b"1")
    monkeypatch.setattr("workbench.stores.blob._LEASE_PATIENCE", 0.5)
    with store.lock(".lock", "busy"):
        assert store.read("x") == b"1"
        with pytest.raises(RuntimeError, match="busy"), store.lock(".lock", "busy"):
            pass
    with store.lock(".lock", "busy"):
        pass


def _in_child(store, answers):
    answers.put(store.source("x").read(1, 2))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_reads_by_connections_of_its_own(locking_store, method):
    store = locking_store
    store.write("x", b"0123")
    assert pickle.loads(pickle.dumps(store)) == store
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    child = context.Process(target=_in_child, args=(store, answers))
    child.start()
    assert answers.get(timeout=120) == b"12"
    child.join(60)
    assert child.exitcode == 0


def test_half_written_files_are_not_listed(tmp_path):
    (tmp_path / ".x.json.0123456789ab.part").write_text("half")
    (tmp_path / ".hidden").write_text("whole")
    assert paths(DiskStore(tmp_path)) == [".hidden"]


def test_importing_stores_brings_no_azure_package_in():
    program = "import sys, workbench.stores; print([n for n in sys.modules if n[:6] == 'azure.'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


# ---- buckets of Amazon's and Google's ----------------------------------------------------


def test_a_bucket_has_no_locks_and_says_so(bucket):
    with pytest.raises(CannotWriteError, match=r"memory://bucket/knee has no locks"):
        bucket.lock(".lock", "busy")


def test_what_a_bucket_s_library_says_is_in_our_words(bucket, monkeypatch):
    class NoCredentialsError(Exception):  # of a library: no OSError
        pass

    def refuse(*_, **__):
        raise NoCredentialsError("Unable to locate X-Amz-Signature=secret")

    bucket.write("x", b"1")
    monkeypatch.setattr(bucket.files, "cat_file", refuse)
    monkeypatch.setattr(bucket.files, "pipe_file", refuse)
    with pytest.raises(StorageError, match=r"knee/x: NoCredentialsError: .*what lets us in is"):
        bucket.read("x")
    with pytest.raises(CannotWriteError, match="NoCredentialsError") as caught:
        bucket.write("x", b"2")
    assert "secret" not in str(caught.value)


def test_a_file_that_is_cut_short_while_it_is_read_is_an_error(bucket):
    bucket.write("x", b"0123")
    source = bucket.source("x")
    bucket.write("x", b"01")
    with pytest.raises(StorageError, match="1 of 3 bytes came"):
        source.read(1, 3)


@pytest.mark.parametrize(("scheme", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_the_package_that_reads_a_bucket_is_named_where_it_is_missing(scheme, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("workbench.stores.bucket.find_spec", lambda name: None)
    wanted = rf"read by the package {package}, which is not installed: .*-e '.\[{scheme}\]'"
    with pytest.raises(ValueError, match=wanted):
        open_store(f"{scheme}://scans/brain_multicoil")
    with pytest.raises(ValueError, match=f"give {scheme}://BUCKET/FOLDER"):
        open_store(f"{scheme}://scans")


@pytest.mark.parametrize(
    ("place", "variable"),
    [
        ("s3://scans/brain", "AWS_SECRET_ACCESS_KEY"),
        ("gs://scans/brain", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_a_process_gets_a_bucket_s_login_only_where_it_reads_it(place, variable, monkeypatch):
    monkeypatch.setenv(variable, "secret")
    assert variable not in child_environment()
    assert variable not in child_environment(AZURE_LOGIN)
    assert variable in child_environment(*credentials_for(place))


# ---- what only blob storage can refuse ---------------------------------------------------


def test_refusals_of_storage_are_in_our_words(blobs, cloud):
    blobs.write("x", b"1")
    cloud.storage.fail("GET .*/x", status=403, code="AuthorizationPermissionMismatch")
    with pytest.raises(StorageError, match=r"knee/x: .*needs the role Storage Blob Data") as caught:
        blobs.read("x")
    assert caught.value.__suppress_context__
    with pytest.raises(StorageError, match="needs the role"):
        blobs.open("x").read()
    cloud.recover()
    cloud.storage.fail("GET .*/x", status=403, code="AuthorizationFailure")
    with pytest.raises(StorageError, match="the account's firewall"):
        blobs.read("x")
    cloud.storage.fail("PUT .*/x", status=403, code="AuthorizationPermissionMismatch")
    with pytest.raises(CannotWriteError, match=r"knee/x cannot be written: .*needs the role"):
        blobs.write("x", b"2")
    cloud.recover()
    assert blobs.read("x") == b"1"


def test_a_lock_that_may_be_a_killed_process_s_is_waited_for(blobs, capsys):
    came = threading.Event()

    def wait():
        with blobs.lock(".lock", "somebody works there"):
            came.set()

    with blobs.lock(".lock", "busy"):
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        while "killed process's: somebody works there" not in capsys.readouterr().out:
            assert not came.wait(0.05)
    thread.join(60)
    assert came.is_set()


def test_a_held_lock_is_asked_for_its_lease_alone(blobs, cloud, monkeypatch):
    monkeypatch.setattr("workbench.stores.blob._LEASE_PATIENCE", 0.5)
    with blobs.lock(".lock", "busy"):
        # Azure answers so, and Azurite 409, where a leased blob is to be made without its lease.
        cloud.storage.fail(r"PUT .*/\.lock$", status=412, code="LeaseIdMissing")
        with pytest.raises(RuntimeError, match="busy"), blobs.lock(".lock", "busy"):
            pass


def test_who_lost_a_lock_to_another_process_is_told(blobs, cloud, capsys):
    with blobs.lock(".lock", "another ingest works there"):
        blob = cloud.storage.container().get_blob_client("knee/.lock")
        BlobLeaseClient(blob).break_lease(0)
        other = blob.acquire_lease(15)  # as after the lease has run out
        said = ""
        while "/.lock was lost: another ingest works there" not in (
            said := capsys.readouterr().out
        ):
            other.renew()
            time.sleep(0.2)
    assert said.count("was lost") == 1


def test_a_wrong_key_or_container_shows_at_once(blobs, cloud):
    endpoint = cloud.storage.url
    wrong = BlobStore(endpoint, "datasets", key=Secret("QUFB" * 21 + "QQ=="))
    with pytest.raises(StorageError, match="refuses the key") as caught:
        list(wrong.list())
    assert "QUFBQUFB" not in str(caught.value)
    elsewhere = BlobStore(endpoint, "elsewhere", key=Secret(cloud.storage.key))
    with pytest.raises(FileNotFoundError, match="has no container elsewhere"):
        list(elsewhere.list())


def test_a_stream_of_a_blob_that_becomes_another_one_ends(blobs, cloud):
    blobs.write("x", bytes(40 << 20))
    blobs.connections = 1
    with blobs.open("x") as stream:
        stream.read(1)
        blobs.write("x", bytes(41 << 20))
        with pytest.raises(StorageError, match="changed while it was read"):
            stream.read()


def test_blobs_that_stand_for_folders_are_no_files(blobs, cloud):
    blobs.write("multicoil_val/a.h5", b"1")
    for name, key in (("knee", "hdi_isfolder"), ("knee/multicoil_val", "Hdi_isfolder")):
        blob = cloud.storage.container().get_blob_client(name)
        blob.upload_blob(b"", metadata={key: "true"})
    assert paths(blobs) == paths(blobs, "multicoil_val") == ["multicoil_val/a.h5"]
    assert blobs.entry("multicoil_val") is None


def test_a_signature_or_a_login_lets_in_too(blobs, cloud, monkeypatch):
    blobs.write("x", b"0123")
    query = cloud.storage.signed("datasets", permissions="rl").partition("?")[2]
    signed = BlobStore(cloud.storage.url, "datasets", "knee", key=Secret(query))
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    new_login()
    for store in (signed, open_store(blobs.address)):
        assert paths(store) == ["x"]
        assert store.source("x").read(1, 2) == b"12"
        assert "sig=" not in store.address + repr(store)


def test_without_any_key_or_login_the_role_is_named(blobs, monkeypatch):
    monkeypatch.delenv("AZURE_STORAGE_CONNECTION_STRING")
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")  # a managed identity is sought for 24 s
    new_login()
    with pytest.raises(LoginError, match=r"run `az login`.*managed identity of a cluster's nodes"):
        open_store(blobs.address)


@pytest.mark.parametrize(
    "wrong",
    [
        "https://example.org/data",
        "http://a.blob.core.windows.net/datasets/brain",
        "https://scans.blob.core.windows.net/datasets",
        "https://scans.blob.core.windows.net/datasets/brain?sig=secret",
        "azure://datasets/brain",
    ],
)
def test_what_is_no_address_is_refused_without_its_signature(wrong):
    with pytest.raises(ValueError, match="is no dataset's address: give https://ACCOUNT") as caught:
        open_store(wrong)
    assert "secret" not in str(caught.value)


def test_an_account_that_is_not_there_shows_before_anything_is_waited_for(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    key = cloud.storage.connection_string.replace("AccountName=", "AccountName=no")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", key)
    with pytest.raises(StorageError, match="cannot be reached: check AccountName"):
        configured_store("knee_multicoil")
