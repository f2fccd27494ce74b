"""One pass over an archive that lies in the container: hash it, and put there what it holds.

The same pass serves every kind of archive. Of a tar that Data Factory unpacked it only reads the
hash and compares the members; of a ``.tar.xz``, which the factory cannot read, it writes them. A
pass that was killed is made again, and passes over the members that are there.
"""

import hashlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextlib import closing
from typing import TYPE_CHECKING, Any, Protocol

from workbench.ingest.archives import ArchiveError, Unpacked, unpack
from workbench.ingest.azure.manifest import BlobManifest
from workbench.ingest.blobs import BlobFolder, blob_sizes, read_blob
from workbench.stores.streams import as_file

if TYPE_CHECKING:
    from azure.storage.blob import ContainerClient


class MismatchError(Exception):
    """An archive's hash differs from the listed one."""


class StoppedError(Exception):
    """The run was stopped."""


class Unpacker(Protocol):
    """Verifies and unpacks archives that have landed: on this machine, or on a cluster."""

    def __call__(
        self,
        dataset: str,
        stem: str,
        out: Unpacked,
        *,
        accept_mismatch: bool,
        keep_archive: bool,
        stopped: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> None:
        """Do it for one archive; see ``unpack_archive`` for what is raised."""


def archive_blob(dataset: str, archive: str) -> str:
    """Return the name of the blob of an archive."""
    return f"{dataset}_compressed/{archive}"


def unpack_archive(
    container: "ContainerClient",
    dataset: str,
    stem: str,
    out: Unpacked,
    *,
    accept_mismatch: bool = False,
    keep_archive: bool = True,
    connections: int = 8,
    decoders: Executor | None = None,
    stopped: threading.Event | None = None,
    on_bytes: Callable[[int], None] | None = None,
) -> None:
    """Verify and unpack an archive that the manifest says has landed.

    Args:
        container: the container.
        dataset: the dataset that the archive belongs to.
        stem: the archive's name without extension, as the manifest knows it.
        out: filled as members come out.
        accept_mismatch: whether a hash that differs from the list is to be taken.
        keep_archive: False deletes the archive once all of it is unpacked.
        connections: connections that read the archive, and that write a member.
        decoders: threads that decode xz.
        stopped: ends the pass.
        on_bytes: called with the bytes of the archive as they are read.

    Raises:
        ArchiveError: it is no archive, truncated or damaged; the members before that stay.
        MismatchError: its hash is not the listed one; its members are there all the same.
        StoppedError: the run was stopped.
        azure.core.exceptions.AzureError: storage failed for longer than the client bears with.
    """
    manifest = BlobManifest(container, dataset)
    record = manifest.get(stem)
    if record is None or record.archive is None:
        raise ArchiveError(f"{stem}: the manifest {manifest.name} knows of no archive that landed")
    stopped = stopped or threading.Event()
    digest = hashlib.sha256()
    blob = container.get_blob_client(archive_blob(dataset, record.archive))

    def hashed() -> Generator[bytes, None, None]:
        with closing(read_blob(blob, connections=connections, stopped=stopped)) as parts:
            for data in parts:
                digest.update(data)
                if on_bytes:
                    on_bytes(len(data))
                yield data
        if stopped.is_set():
            raise StoppedError(f"{record.source}: stopped")

    folder = BlobFolder(container, dataset, blob_sizes(container, dataset), connections)
    with closing(hashed()) as chunks:
        unpack(as_file(chunks), folder, record.source, result=out, pool=decoders)
        for _ in chunks:  # What follows the tar's end belongs to the hash.
            pass
    settle(
        container,
        dataset,
        stem,
        digest.hexdigest(),
        out,
        accept_mismatch=accept_mismatch,
        keep_archive=keep_archive,
    )


def settle(
    container: "ContainerClient",
    dataset: str,
    stem: str,
    came: str,
    out: Unpacked,
    *,
    accept_mismatch: bool,
    keep_archive: bool,
) -> None:
    """Take note of a pass over an archive that is through.

    Args:
        container: the container.
        dataset: the dataset that the archive belongs to.
        stem: the archive's name without extension.
        came: the SHA256 that was found, in hex.
        out: what came out.
        accept_mismatch: whether a hash that differs from the list is to be taken.
        keep_archive: False deletes the archive.

    Raises:
        MismatchError: the hash is not the listed one.
    """
    manifest = BlobManifest(container, dataset)
    record = manifest.get(stem)
    assert record is not None
    listed, archive = record.listed, str(record.archive)
    check = "not listed" if not listed else "verified" if listed == came else "mismatch"
    manifest.update(stem, sha256=came, check=check, members=out.members)
    blob = archive_blob(dataset, archive)
    if check == "mismatch" and not accept_mismatch:
        raise MismatchError(mismatch_message(record.source, came, listed, blob, stem))
    manifest.update(stem, state="unpacked", problem="")
    if not keep_archive:
        container.delete_blob(blob)
        manifest.update(stem, archive=None)


def unpack_here(container: "ContainerClient", decoders: Executor) -> Unpacker:
    """Return an unpacker that works on this machine: archives stream through it."""

    def unpacker(dataset: str, stem: str, out: Unpacked, **more: Any) -> None:
        unpack_archive(container, dataset, stem, out, decoders=decoders, **more)

    return unpacker


def mismatch_message(source: str, came: str, listed: str, blob: str, stem: str) -> str:
    """Say that an archive's hash differs from the list, and what to do."""
    return (
        f"{source}: its SHA256 is {came[:12]}... and fastMRI lists {listed[:12]}...; it lies in "
        f"the container as {blob}, and its members are unpacked: delete that blob and run again to "
        "copy it anew; where it stays so and you trust the archive all the same, give "
        f"accept_mismatch={stem!r}"
    )
