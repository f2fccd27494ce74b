"""Storage that takes its time to answer: a loopback server with 20 ms a request."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import fsspec
import urllib3
from fastmri.data import SliceDataset as Reference
from fastmri.data.mri_data import FastMRIRawDataSample
from fastmri.data.transforms import VarNetSample

from benchmarks.pairs import Pair
from benchmarks.reading import quiet_cache, require_same_volumes
from benchmarks.sizes import Size
from benchmarks.study import FOLDER, SAMPLING, Study, reference_transform, require_same
from workbench.data.cache import DatasetCache
from workbench.data.describe import describe
from workbench.data.fetched import END_BYTES
from workbench.data.index import WORKERS
from workbench.data.slices import SliceDataset
from workbench.data.volume import Volume
from workbench.stores import DiskStore

SECONDS_A_REQUEST = 0.02


@contextmanager
def storage(folder: Path, seconds: float = SECONDS_A_REQUEST) -> Iterator[str]:
    """Serve a folder in a process of its own, so that client and server share no lock: its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.server", str(folder), str(seconds)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


class RangedFile:
    """A file behind ranged requests, as a ``Source``; the request for its head tells its size.

    Args:
        server: connections, kept alive.
        path: of the file there.
    """

    def __init__(self, server: urllib3.HTTPConnectionPool, path: str) -> None:
        self._server, self._path = server, path
        self._size: int | None = None
        self._head = b""

    @property
    def size(self) -> int:
        """Bytes in the whole file."""
        if self._size is None:
            self._head = self._fetch(0, END_BYTES)
        assert self._size is not None
        return self._size

    def read(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only where the file ends."""
        if offset + count <= len(self._head):
            return self._head[offset : offset + count]
        return self._fetch(offset, count)

    def close(self) -> None:
        """Do nothing: the connections belong to the server."""

    def _fetch(self, offset: int, count: int) -> bytes:
        answer = self._server.urlopen(
            "GET",
            self._path,
            headers={"Range": f"bytes={offset}-{offset + count - 1}"},
            retries=False,
        )
        if answer.status != 206:
            raise OSError(f"{self._path}: the server answered {answer.status}, not with a range")
        self._size = int(answer.headers["Content-Range"].rpartition("/")[2])
        return answer.data


class RemoteReference(Reference):
    """fastMRI's dataset with each file opened through fsspec, as adlfs or s3fs would open it."""

    def __init__(self, folder: Path, url: str) -> None:
        self._url = url
        self._files = fsspec.filesystem("http", skip_instance_cache=True)
        super().__init__(folder, "multicoil", reference_transform())

    def _retrieve_metadata(self, fname: Path) -> tuple[dict, int]:
        with self._open(fname) as file:
            return super()._retrieve_metadata(file)

    def __getitem__(self, i: int) -> VarNetSample:
        path, number, metadata = self.raw_samples[i]
        with self._open(path) as file:
            file.name = path.name
            one = copy(self)
            one.raw_samples = [FastMRIRawDataSample(file, number, metadata)]
            return Reference.__getitem__(one, 0)

    def _open(self, path: Path) -> Any:
        return self._files.open(f"{self._url}/{path.parent.name}/{path.name}")


class RangedStore(DiskStore):
    """A folder behind ranged requests, which lies here as well."""

    def __init__(self, root: Path, server: urllib3.HTTPConnectionPool) -> None:
        super().__init__(root)
        self._server = server

    def source(self, path: str, size: int | None = None) -> Any:
        """Return a file's bytes by request."""
        return RangedFile(self._server, f"/{path}")


def remote_cache(
    root: Path, paths: Iterable[str], server: urllib3.HTTPConnectionPool
) -> DatasetCache:
    """Index the volumes at ``paths`` of a server as a dataset in storage is indexed."""

    def volume(path: str) -> Volume:
        return describe(RangedFile(server, f"/{path}"), path=path, split="train")

    with ThreadPoolExecutor(WORKERS) as executor:
        return DatasetCache(RangedStore(root, server), tuple(executor.map(volume, paths)))


def remote_pairs(size: Size, study: Study, url: str) -> Iterator[Pair]:
    """Yield cache creation and a sample from the storage at ``url``, which serves the study."""
    server = urllib3.connection_from_url(url, maxsize=WORKERS)
    local = quiet_cache(study.root)

    def index() -> DatasetCache:
        paths = [f"{FOLDER}/{path.name}" for path in study.files]
        return remote_cache(study.root, paths, server)

    def reference_index() -> Reference:
        return RemoteReference(study.root / FOLDER, url)

    milliseconds = round(1000 * SECONDS_A_REQUEST)
    yield Pair(
        "cache/remote",
        f"index {size.volumes} volumes in storage of {milliseconds} ms a request",
        reference_index,
        index,
        lambda: require_same_volumes("cache/remote", index(), reference_index().raw_samples),
        size.repeats,
    )

    ours = SliceDataset(DatasetCache(RangedStore(study.root, server), local.volumes), SAMPLING)
    reference = reference_index()
    shape = "x".join(map(str, local.volumes[0].kspace.shape[1:]))
    yield Pair(
        "sample/remote",
        f"fetch and mask a slice {shape} from storage of {milliseconds} ms a request",
        lambda: reference[1],
        lambda: ours[1],
        lambda: require_same("sample/remote", ours[1], reference[1]),
        size.short_repeats,
    )
