"""A folder of a bucket, at Amazon S3 or Google Cloud Storage, through fsspec."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn, cast

from workbench.azure_resources import without_secrets
from workbench.settings import AWS_LOGIN, GOOGLE_LOGIN
from workbench.stores.base import CannotWriteError, Entry, RemoteFile, StorageError, Store
from workbench.stores.streams import Readable

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

CLOUDS: dict[str, tuple[str, str, str]] = {
    "s3": ("s3fs", AWS_LOGIN, "an AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    "gs": ("gcsfs", GOOGLE_LOGIN, "GOOGLE_APPLICATION_CREDENTIALS, or gcloud's login"),
}
"""An address's scheme -> the package that reads it, its login, and what lets us in.

Each package is an extra of ``pyproject.toml`` that is called like the scheme.
"""

_TIMES = ("LastModified", "mtime", "updated", "created")
_TAGS = ("ETag", "etag")


class BucketStore(Store):
    """A folder of a bucket, as a ``Store``, for datasets; it has no locks.

    Whatever lets the cloud's own tools in lets us in. Each process has connections of its own.

    Args:
        address: such as ``s3://BUCKET/FOLDER``; ValueError where it has no folder.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        if not re.fullmatch(r"\w+://[^/?#]+/[^?#]+", self.address):
            raise ValueError(f"{address.split('?')[0]!r}: give {address[:2]}://BUCKET/FOLDER")
        self._scheme, _, self._root = self.address.partition("://")
        self._shared: dict[int, AbstractFileSystem] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the address."""
        return BucketStore, (self.address,)

    @property
    def files(self) -> "AbstractFileSystem":
        """This process's file system."""
        process = os.getpid()
        if process not in self._shared:
            package = CLOUDS[self._scheme][0]
            if find_spec(package) is None:
                raise ValueError(
                    f"{self.address}: {self._scheme}:// is read by the package {package}, which "
                    f"is not installed: .venv/bin/python -m uv pip install -e '.[{self._scheme}]'"
                )
            import fsspec

            # Listings are kept by default, and a dataset may grow meanwhile.
            more = {"skip_instance_cache": True, "use_listings_cache": False}
            self._shared[process] = fsspec.filesystem(self._scheme, **more)
        return self._shared[process]

    def checked(self) -> "BucketStore":
        """Ask the bucket once whether it lets us in, and return the store."""
        with self._errors(""), suppress(FileNotFoundError):
            self.files.ls(self._root, detail=False)
        return self

    # ---- the interface of all stores ---------------------------------------------------------

    def list(self, under: str = "") -> Iterator[Entry]:
        """Yield the files in a folder and in all folders below."""
        with self._errors(under):
            start = self._name(under).rstrip("/")
            found = self.files.find(start, detail=True)
        for name, about in found.items():
            if name.strip("/").startswith(f"{start.strip('/')}/"):
                yield _entry(name.strip("/")[len(self._root.strip("/")) + 1 :], about)

    def entry(self, path: str) -> Entry | None:
        """Return one file's entry; None where it is missing."""
        with suppress(FileNotFoundError):
            about = self._about(path)
            return _entry(path, about) if about["type"] == "file" else None
        return None

    def source(self, path: str, size: int | None = None) -> RemoteFile:
        """Open a file to be read by byte range."""
        size = int(self._about(path)["size"]) if size is None else size
        return RemoteFile(f"{self.address}/{path}", size, partial(self._range, path))

    def read(self, path: str) -> bytes:
        """Return a file's bytes."""
        with self._errors(path):
            return bytes(self.files.cat_file(self._name(path)))

    def open(self, path: str) -> BinaryIO:
        """Open a file as a stream."""
        with self._errors(path):
            return cast(BinaryIO, self.files.open(self._name(path), "rb"))

    def write(
        self, path: str, content: bytes | Readable, size: int | None = None, *, md5: str = ""
    ) -> None:
        """Write a file whole or not at all; a stream is first brought to this machine's disk."""
        with tempfile.NamedTemporaryFile() as whole:
            if not isinstance(content, bytes):
                shutil.copyfileobj(content, whole, 1 << 20)
                if size not in (None, came := whole.tell()):
                    raise EOFError(f"the stream gave {came:,} bytes, not {size:,}")
                whole.flush()
            with self._errors(path, writing=True):
                if isinstance(content, bytes):
                    self.files.pipe_file(self._name(path), content)
                else:
                    self.files.put_file(whole.name, self._name(path))

    def delete(self, path: str) -> None:
        """Delete a file, if it is there."""
        with self._errors(path, writing=True), suppress(FileNotFoundError):
            self.files.rm_file(self._name(path))

    def lock(self, path: str, busy: str) -> NoReturn:
        """Refuse: a bucket has no locks."""
        raise CannotWriteError(
            f"{self.address} has no locks, so nothing is ingested there and no run is kept there: "
            "give a folder of this machine, or blob storage"
        )

    def free(self) -> None:
        """Return None: a bucket has no limit that one file would meet."""

    def folder(self, path: str) -> "BucketStore":
        """Return the same store as seen from a folder in it, over the same connections."""
        below = BucketStore(f"{self._scheme}://{self._name(path)}")
        below._shared = self._shared
        return below

    # ---- names and errors --------------------------------------------------------------------

    def _name(self, path: str) -> str:
        return f"{self._root}/{self.inside(path)}" if path else self._root

    def _about(self, path: str) -> dict[str, Any]:
        with self._errors(path):
            return dict(self.files.info(self._name(path)))

    def _range(self, path: str, offset: int, count: int) -> bytes:
        with self._errors(path):
            # By name: the libraries differ in what stands second.
            end = offset + count
            return bytes(self.files.cat_file(self._name(path), start=offset, end=end))

    @contextmanager
    def _errors(self, path: str, *, writing: bool = False) -> Iterator[None]:
        """Turn errors of the cloud's library, which need be no OSError, into ours."""
        what = f"{self.address}/{path}".rstrip("/")
        try:
            yield
            return
        except ValueError:
            raise
        except FileNotFoundError:
            problem: OSError = FileNotFoundError(f"{what} is not there")
        except Exception as error:
            said = f"{type(error).__name__}: {without_secrets(' '.join(str(error).split()))}"
            advice = f"what lets us in is {CLOUDS[self._scheme][2]}; check also the network"
            kind = CannotWriteError if writing else StorageError
            problem = kind(f"{what}: {said[:300]}; {advice}")
        raise problem from None


def _entry(path: str, about: dict[str, Any]) -> Entry:
    """Read what a cloud's library says of a file; each calls its time otherwise."""
    changed = next((about[name] for name in _TIMES if about.get(name)), 0)
    if isinstance(changed, str):
        changed = datetime.fromisoformat(changed)
    seconds = changed.timestamp() if isinstance(changed, datetime) else float(changed)
    tag = next((str(about[name]).strip('"') for name in _TAGS if about.get(name)), "")
    return Entry(path, int(about["size"]), int(seconds * 1e9), tag)
