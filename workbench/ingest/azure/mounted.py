"""The pass over an archive as a cluster's job makes it, on mounted folders: no key is needed there.

``python -m workbench.ingest.azure.mounted ARCHIVES MEMBERS FILE SOURCE`` reads ARCHIVES/FILE, puts
what it holds into MEMBERS, and leaves there what it found as ``.unpacked-FILE.json``.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.ingest.archives import ArchiveError, Unpacked, unpack
from workbench.ingest.streams import as_file, chunks_of
from workbench.progress import Progress


def result_name(file: str) -> str:
    """Name the file that tells what a pass over an archive found."""
    return f".unpacked-{file}.json"


def unpack_mounted(archives: Path, members: Path, file: str, source: str) -> dict[str, Any]:
    """Unpack a mounted archive into a mounted folder; return what was found.

    Args:
        archives: folder of the archives.
        members: folder of the dataset.
        file: the archive's name.
        source: its name in the email, for messages.
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
                yield data

        chunks = hashed()
        try:
            unpack(as_file(chunks), members, source, result=out)
            for _ in chunks:  # What follows the tar's end belongs to the hash.
                pass
        except ArchiveError as error:
            found["error"] = str(error)
    return found | {"sha256": digest.hexdigest(), "out": asdict(out)}


def main() -> None:
    """Run one pass, as the job's command names it."""
    archives, members, file, source = sys.argv[1:]
    folder = Path(members)
    folder.mkdir(parents=True, exist_ok=True)
    found = unpack_mounted(Path(archives), folder, file, source)
    result = folder / result_name(file)
    part = result.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.replace(result)
    print(found["error"] or f"{file}: {len(found['out']['members'])} members", flush=True)


if __name__ == "__main__":
    main()
