"""One pass over a kept archive: hash it, and put there what it holds.

A cluster's job makes the same pass on mounted folders, where no key is needed:
``python -m workbench.ingest.unpacking ARCHIVES MEMBERS FILE SOURCE`` reads ARCHIVES/FILE, puts what
it holds into MEMBERS, says there every few seconds how far it is as ``.unpacking-FILE.json``, and
leaves what it found as ``.unpacked-FILE.json``.
"""

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Protocol

from workbench.ingest.archives import ArchiveError, Unpacked, unpack
from workbench.ingest.fetch import StoppedError
from workbench.progress import Progress
from workbench.stores import DiskStore, Store
from workbench.stores.streams import as_file, chunks_of, hashed

SECONDS_BETWEEN_NOTES = 5.0


class Unpacker(Protocol):
    """Makes the pass over an archive of a dataset, here or on a cluster."""

    def __call__(
        self,
        dataset: str,
        file: str,
        source: str,
        out: Unpacked,
        *,
        known: Mapping[str, str],
        stopped: threading.Event,
        on_bytes: Callable[[int], None],
    ) -> str:
        """Make it over one archive, and return its SHA256; see ``unpack_kept``."""


def unpack_stream(
    chunks: Iterator[bytes],
    members: Store,
    source: str,
    out: Unpacked,
    *,
    size: int,
    known: Mapping[str, str] | None = None,
) -> str:
    """Unpack an archive as it comes, and return the SHA256 of all its bytes, in hex.

    See ``unpack_kept``; ``size`` is the archive's, in bytes.
    """
    digest = hashlib.sha256()
    content = hashed(chunks, digest)
    with as_file(content) as file:
        unpack(file, members, source, out, size=size, known=known)
        for _ in content:  # What follows the tar's end belongs to the hash.
            pass
    return digest.hexdigest()


def unpack_kept(
    archives: Store,
    members: Store,
    file: str,
    source: str,
    out: Unpacked,
    *,
    known: Mapping[str, str] | None = None,
    stopped: threading.Event | None = None,
    on_bytes: Callable[[int], None] = lambda count: None,
) -> str:
    """Unpack an archive, and return the SHA256 of all its bytes, in hex.

    Args:
        archives: folder of the archives.
        members: folder of the dataset.
        file: the archive's name.
        source: its name in the email, for messages.
        out: filled as members come out.
        known: see ``unpack``.
        stopped: ends the pass.
        on_bytes: told how many more bytes of the archive were read.

    Raises:
        ArchiveError: it is no archive, truncated or damaged; the members before that stay.
        StoppedError: the run was stopped.
        OSError: a store refuses or cannot be reached.
    """
    entry = archives.entry(file)
    size = entry.size if entry else 0
    with archives.open(file) as opened:

        def read() -> Iterator[bytes]:
            for data in chunks_of(opened):
                if stopped and stopped.is_set():
                    raise StoppedError(f"{source}: stopped")
                on_bytes(len(data))
                yield data

        return unpack_stream(read(), members, source, out, size=size, known=known)


# ---- in a cluster's job ------------------------------------------------------------------


def result_name(file: str) -> str:
    """Name the file that tells what a job's pass over an archive found."""
    return f".unpacked-{file}.json"


def progress_name(file: str) -> str:
    """Name the file that tells how many bytes of an archive a job has read: ``{"bytes": 5}``."""
    return f".unpacking-{file}.json"


def main() -> None:
    """Make one pass, as the job's command names it."""
    archives, members = (DiskStore(folder, sync=False) for folder in sys.argv[1:3])
    file, source = sys.argv[3:]
    entry = archives.entry(file)
    out, error, digest, noted = Unpacked(), "", "", time.monotonic()
    with Progress(f"unpacking {file}", entry.size if entry else None) as progress:

        def note(count: int) -> None:
            nonlocal noted
            progress.advance(count)
            if time.monotonic() - noted >= SECONDS_BETWEEN_NOTES:
                noted = time.monotonic()
                members.write_json(progress_name(file), {"bytes": int(progress.done)})

        try:
            digest = unpack_kept(archives, members, file, source, out, on_bytes=note)
        except ArchiveError as problem:
            error = str(problem)
    found = {"error": error, "sha256": digest, "out": asdict(out)}
    members.write_json(result_name(file), found)
    print(error or f"{file}: {len(out.members)} members", flush=True)


if __name__ == "__main__":
    main()
