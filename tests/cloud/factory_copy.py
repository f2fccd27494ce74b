"""Data Factory's Copy activity on binary datasets: it really copies, and unpacks tar and tar.gz."""

import io
import re
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests.cloud.network import Network


class CopyError(Exception):
    """A copy failed, for a reason that the user can do something about.

    Attributes:
        code: Data Factory's number of the error.
    """

    def __init__(self, kind: str, message: str, code: str = "2200") -> None:
        shared = "Microsoft.DataTransfer.Common.Shared.HybridDeliveryException"
        super().__init__(
            f"ErrorCode={kind},'Type={shared},Message={message},Source=Microsoft.DataTransfer'"
        )
        self.code = code


class CancelledCopyError(Exception):
    """The run was cancelled."""


@dataclass(frozen=True)
class End:
    """One end of a copy: a dataset and its linked service, all expressions evaluated.

    Attributes:
        service: type of the linked service.
        access: the linked service's properties.
        location: the dataset's location.
        codec: the dataset's compression, in lower case; "" for none.
    """

    service: str
    access: dict[str, Any]
    location: dict[str, Any]
    codec: str


@dataclass
class Copied:
    """How far a copy is."""

    read: int = 0
    written: int = 0
    files: int = 0
    began: float = field(default_factory=time.monotonic)

    def output(self) -> dict[str, Any]:
        """Return it as the output of an activity run."""
        seconds = max(1, round(time.monotonic() - self.began))
        return {
            "dataRead": self.read,
            "dataWritten": self.written,
            "filesRead": 1,
            "filesWritten": self.files,
            "sourcePeakConnections": 1,
            "sinkPeakConnections": 1,
            "copyDuration": seconds,
            "throughput": round(self.read / 1024 / seconds, 3),
            "errors": [],
            "effectiveIntegrationRuntime": "AutoResolveIntegrationRuntime (West Europe)",
            "usedDataIntegrationUnits": 4,
            "usedParallelCopies": 1,
            "dataConsistencyVerification": {"VerificationResult": "NotVerified"},
        }


@dataclass
class ShortCopy:
    """A copy from HTTP that ends early, and counts as one that succeeded all the same.

    Attributes:
        pattern: regular expression, found anywhere in the source's path.
        keep: bytes that come.
        times: how many copies more end so.
    """

    pattern: str
    keep: int
    times: int = 1


@dataclass(frozen=True)
class Copier:
    """Performs copies.

    Attributes:
        network: the cloud's own network.
        ca: the certificate to trust on it.
        short: the copies that end early.
    """

    network: Network
    ca: Path
    short: list[ShortCopy] = field(default_factory=list)

    def copy(
        self,
        source: End,
        sink: End,
        done: Copied,
        *,
        keep_archive_name: bool,
        cancelled: threading.Event,
        seconds: float,
    ) -> None:
        """Copy a file, or what an archive holds.

        Args:
            source: where to read.
            sink: where to write.
            done: counts as it goes.
            keep_archive_name: put what is unpacked into a folder named as the archive.
            cancelled: when set, the copy stops.
            seconds: after which it times out.

        Raises:
            CopyError: it failed.
            CancelledCopyError: it was cancelled.
        """
        from azure.core.exceptions import AzureError

        deadline = time.monotonic() + seconds

        def read(size: int) -> None:
            done.read += size
            if cancelled.is_set():
                raise CancelledCopyError
            if time.monotonic() > deadline:
                raise CopyError("UserErrorActivityTimeout", "The activity timed out.", "2107")

        try:
            with _Reader(self._bytes(source), read) as reader:
                self._write(reader, source, sink, done, keep_archive_name)
        except (requests.RequestException, AzureError) as error:
            if cancelled.is_set():
                raise CancelledCopyError from None
            name = type(error).__name__
            raise CopyError("UserErrorFailedToTransfer", f"{name}: the transfer broke") from None

    def _bytes(self, source: End) -> Iterator[bytes]:
        if source.service == "HttpServer":
            url = (
                source.access["url"].rstrip("/") + "/" + source.location["relativeUrl"].lstrip("/")
            )
            with requests.get(
                url,
                stream=True,
                timeout=20,
                proxies={"https": self.network.url, "http": self.network.url},
                verify=str(self.ca),
            ) as response:
                if response.status_code != 200:
                    raise CopyError(
                        "UserErrorFailedFileOperation",
                        "Upload file failed. Http request failed with status code "
                        f"{response.status_code} {response.reason}, please check your url.",
                    )
                left = self._bytes_that_come(source.location["relativeUrl"])
                for piece in response.iter_content(1 << 18):
                    yield piece[:left]
                    left -= len(piece)
                    if left <= 0:
                        break
            return
        with self._storage(source.access) as service:
            location = source.location
            parts = (location.get("folderPath"), location["fileName"])
            path = "/".join(part.strip("/") for part in parts if part)
            blob = service.get_blob_client(location["container"], path)
            if not blob.exists():
                message = f"The required Blob is missing: {location['container']}/{path}."
                raise CopyError("UserErrorSourceBlobNotExist", message)
            yield from blob.download_blob().chunks()

    def _bytes_that_come(self, address: str) -> int:
        for each in self.short:
            if each.times and re.search(each.pattern, address.partition("?")[0]):
                each.times -= 1
                return each.keep
        return sys.maxsize

    def _write(
        self, reader: "_Reader", source: End, sink: End, done: Copied, keep_archive_name: bool
    ) -> None:
        folder = (sink.location.get("folderPath") or "").strip("/")
        archive = source.location.get("fileName") or ""
        with self._storage(sink.access) as service:
            container = service.get_container_client(sink.location["container"])
            if not container.exists():
                container.create_container()
            buffered = io.BufferedReader(reader, 1 << 20)
            if not source.codec:
                name = _join(folder, sink.location.get("fileName") or archive)
                container.upload_blob(name, buffered, overwrite=True, max_concurrency=1)
                done.written, done.files = done.read, 1
                return
            if source.codec not in ("tar", "targzip"):
                message = f"The emulator does not unpack {source.codec}."
                raise CopyError("EmulatorNotImplemented", message)
            if keep_archive_name:
                folder = _join(folder, re.sub(r"\.(tar\.gz|tgz|tar)$", "", archive))
            mode = "r|gz" if source.codec == "targzip" else "r|"
            try:
                with tarfile.open(fileobj=buffered, mode=mode) as tar:  # type: ignore[call-overload]
                    for member in tar:
                        if member.isfile():
                            self._member(container, folder, tar, member)
                            done.written += member.size
                            done.files += 1
            except (tarfile.TarError, EOFError, OSError) as error:
                message = f"The file is not a valid {source.codec} archive: {error}"
                raise CopyError("UserErrorInvalidCompressedFile", message) from None

    def _member(
        self, container: Any, folder: str, tar: tarfile.TarFile, member: tarfile.TarInfo
    ) -> None:
        data = tar.extractfile(member)
        name = _join(folder, re.sub(r"^(\.?/)+", "", member.name))
        container.upload_blob(name, data, length=member.size, overwrite=True)

    def _storage(self, access: dict[str, Any]) -> Any:
        from azure.storage.blob import BlobServiceClient

        try:
            return BlobServiceClient.from_connection_string(
                access["connectionString"],
                connection_verify=str(self.ca),
                proxies={"https": self.network.url},
                retry_total=1,
            )
        except (ValueError, KeyError):
            message = "The storage connection string is invalid."
            raise CopyError("AzureBlobInvalidConnectionString", message) from None


class _Reader(io.RawIOBase):
    """Pieces of bytes as a file, each reported before it is handed on."""

    def __init__(self, pieces: Iterator[bytes], report: Callable[[int], None]) -> None:
        self._pieces, self._report, self._rest = pieces, report, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._report(len(piece))
            self._rest = memoryview(piece)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        close = getattr(self._pieces, "close", None)
        if close is not None:
            close()
        super().close()


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
