import gzip
import hashlib
import io
import lzma
import random
import tarfile
from pathlib import Path

import pytest

from workbench.azure_storage import parse_connection
from workbench.ingest import fetch
from workbench.ingest.links import parse_links
from workbench.ingest.manifest import LOCK
from workbench.ingest.plan import make_plan
from workbench.ingest.run import ingest
from workbench.settings import Secret
from workbench.stores import DiskStore
from workbench.stores.blob import open_container
from workbench_demo.bucket import Bucket


def volumes(*paths: str, size: int = 50_000) -> dict[str, bytes]:
    """Make members: path -> bytes, random but the same each time."""
    return {path: random.Random(path).randbytes(size) for path in paths}


def tar_of(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """Make a tar of members; a TarInfo stands for itself."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for info in extra:
            tar.addfile(info, io.BytesIO(bytes(info.size)))
    return buffer.getvalue()


def packed(kind: str, members: dict[str, bytes]) -> bytes:
    """Make an archive of a kind: "tar", "gz" or "xz"."""
    tar = tar_of(members)
    if kind == "gz":
        return gzip.compress(tar, 1)
    return lzma.compress(tar, preset=0) if kind == "xz" else tar


def sums_of(*files: Path) -> str:
    """Write a list in the form of sha256sum for files."""
    return "".join(f"{hashlib.sha256(f.read_bytes()).hexdigest()}  {f.name}\n" for f in files)


class Knee:
    """A small knee release behind signed links, and a store that it is brought into.

    Attributes:
        folder: the bucket's.
        bucket: serves it.
        members: path -> bytes of what the archives hold.
        store: the store of the datasets.
    """

    def __init__(self, folder, members, bucket, store):
        self.folder, self.members = folder, members
        self.bucket, self.store = bucket, store
        self.val = folder / "knee_multicoil_val.tar.xz"

    def plan(self, text="", datasets=(), *, store=None, keep=True, accept=()):
        return make_plan(
            parse_links(text or self.bucket.email()),
            store or self.store,
            datasets,
            keep_archives=keep,
            accept_mismatch=accept,
        )

    def ingest(self, text="", datasets=(), *, connections=2, **more):
        return ingest(self.plan(text, datasets, **more), connections=connections)

    def there(self, dataset="knee_multicoil"):
        """Path -> bytes of every file in a dataset's folder but the workbench's own."""
        folder = self.store.folder(dataset)
        paths = [entry.path for entry in folder.list()]
        return {path: folder.read(path) for path in paths if path not in ("ingest.json", LOCK)}

    def kept(self):
        """Names of the archives that are kept."""
        folder = self.store.folder("knee_multicoil_compressed")
        return sorted(entry.path for entry in folder.list())

    def states(self):
        """Stem -> state and check of the archives in the manifest."""
        archives = self.store.read_json("knee_multicoil/ingest.json")["archives"]
        return {stem: (each["state"], each["check"]) for stem, each in archives.items()}

    def asked(self):
        """Requests for archives since the last time."""
        found = [(path, asked) for _, path, asked in self.bucket.requests if "knee" in path]
        self.bucket.requests.clear()
        return found


@pytest.fixture
def blobs(cloud, monkeypatch):
    """A container."""
    cloud.apply(monkeypatch)
    return open_container(parse_connection(Secret(cloud.storage.connection_string)))


@pytest.fixture(params=["disk", "blobs"])
def store(request, tmp_path):
    """Each kind of store."""
    if request.param == "disk":
        return DiskStore(tmp_path / "datasets")
    return request.getfixturevalue("blobs")


@pytest.fixture
def release(tmp_path):
    """A knee release in three kinds of archive: the bucket's folder, and what it holds."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    val = volumes("multicoil_val/a.h5", "multicoil_val/b.h5", size=200_000)
    test = volumes("multicoil_test/c.h5")
    train = volumes("multicoil_train/d.h5")
    litter = {"multicoil_val/._a.h5": b"litter", ".DS_Store": b"litter"}
    (folder / "knee_multicoil_val.tar.xz").write_bytes(packed("xz", litter | val))
    (folder / "knee_multicoil_test.tar.xz").write_bytes(packed("gz", test))
    (folder / "knee_multicoil_train_batch_0.tar.xz").write_bytes(packed("tar", train))
    listed = [folder / "knee_multicoil_val.tar.xz", folder / "knee_multicoil_test.tar.xz"]
    (folder / "SHA256").write_text(sums_of(*listed))
    return folder, val | test | train


@pytest.fixture
def knee(release, store, hasty):
    """The release, to be brought into each kind of store."""
    with Bucket(release[0]) as bucket:
        yield Knee(*release, bucket, store)


@pytest.fixture
def on_disk(release, tmp_path, hasty):
    """The release, to be brought to this machine's disk."""
    with Bucket(release[0]) as bucket:
        yield Knee(*release, bucket, DiskStore(tmp_path / "datasets"))


def members_in(folder: Path) -> dict[str, bytes]:
    """Read a folder: path -> bytes of every file."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def hasty(monkeypatch):
    """Have fetch give up soon; by other numbers where it is called with them."""

    def set_patience(**more):
        plain = {"attempts": 4, "first_delay": 0.01, "longest_delay": 0.02, "timeout": 5}
        monkeypatch.setattr(fetch, "PATIENCE", fetch.Patience(**plain | more))

    set_patience()
    return set_patience


@pytest.fixture
def small_disk(small_disk):
    """A disk of 512 KiB."""
    return small_disk("512k")
