"""The pass over an archive as a cluster's job makes it, on mounted folders: no key is needed there.

``python -m workbench.ingest.azure.mounted ARCHIVES MEMBERS FILE SOURCE`` reads ARCHIVES/FILE, puts
what it holds into MEMBERS, says there every few seconds how far it is as ``.unpacking-FILE.json``,
and leaves what it found as ``.unpacked-FILE.json``.
"""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.ingest.archives import ArchiveError, Unpacked, unpack
from workbench.progress import Progress
from workbench.stores.streams import as_file, chunks_of

SECONDS_BETWEEN_NOTES = 5.0


def result_name(file: str) -> str:
    """Name the file that tells what a pass over an archive found."""
    return f".unpacked-{file}.json"


def progress_name(file: str) -> str:
    """Name the file that tells how many bytes of an archive a pass has read: ``{"bytes": 5}``."""
    return f".unpacking-{file}.json"


def unpack_mounted(
    archives: Path,
    members: Path,
    file: str,
    source: str,
    on_bytes: Callable[[int], None] = lambda total: None,
) -> dict[str, Any]:
    """Unpack a mounted archive into a mounted folder; return what was found.

    Args:
        archives: folder of the archives.
        members: folder of the dataset.
        file: the archive's name.
        source: its name in the email, for messages.
        on_bytes: called with all the bytes that have been read so far.
    """
    digest, out = hashlib.sha256(), Unpacked()
    path = archives / file
    size = path.stat().st_size
    found: dict[str, Any] = {"size": size, "error": ""}
    with path.open("rb") as opened, Progress(f"unpacking {file}", size) as progress:

        def hashed() -> Iterator[bytes]:
            for data in chunks_of(opened):
                digest.update(data)
                progress.advance(len(data))
                on_bytes(opened.tell())
                yield data

        chunks = hashed()
        try:
            unpack(as_file(chunks), members, source, result=out)
            for _ in chunks:  # What follows the tar's end belongs to the hash.
                pass
        except ArchiveError as error:
            found["error"] = str(error)
    return found | {"sha256": digest.hexdigest(), "out": asdict(out)}


def _leave(path: Path, content: dict[str, Any]) -> None:
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)


def main() -> None:
    """Run one pass, as the job's command names it."""
    archives, members, file, source = sys.argv[1:]
    folder = Path(members)
    folder.mkdir(parents=True, exist_ok=True)
    noted = time.monotonic()

    def note(total: int) -> None:
        nonlocal noted
        if time.monotonic() - noted >= SECONDS_BETWEEN_NOTES:
            noted = time.monotonic()
            _leave(folder / progress_name(file), {"bytes": total})

    found = unpack_mounted(Path(archives), folder, file, source, note)
    _leave(folder / result_name(file), found)
    print(found["error"] or f"{file}: {len(found['out']['members'])} members", flush=True)


if __name__ == "__main__":
    main()
