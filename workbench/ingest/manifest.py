"""The manifest: what was brought into a dataset's folder, from which archives, and in what state.

It is ``datasets/NAME/ingest.json``, in the folder that stays when the compressed archives are
removed to free the disk. It never holds a link.
"""

import contextlib
import json
import threading
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from workbench.disk import only_one, write_text
from workbench.ingest.archives import digest_of
from workbench.settings import shown

FILE = "ingest.json"
LOCK = ".ingest.lock"
_VERSION = 1


@dataclass(frozen=True)
class ArchiveRecord:
    """The state of one archive.

    Attributes:
        source: name in the email, such as ``knee_multicoil_val.tar.xz``.
        object_path: path of the object in fastMRI's bucket.
        size: bytes of the archive.
        version: the server's name for the object's content (ETag), or None.
        state: "downloading", then "downloaded" (kept, hash known), then "unpacked".
        sha256: hash of what came, in hex; "" until it is whole.
        listed: the hash that fastMRI lists for it, or "".
        check: "verified", "mismatch" or "not listed"; "" until it is whole.
        archive: name of the file kept in ``NAME_compressed``, or None.
        members: path -> bytes of what was unpacked.
        digests: path -> ``digest_of`` the member as it was unpacked.
        times: path -> when the member was changed last, as it was unpacked: ns since 1970.
        problem: what went wrong last, or "".
    """

    source: str
    object_path: str
    size: int
    version: str | None
    state: str = "downloading"
    sha256: str = ""
    listed: str = ""
    check: str = ""
    archive: str | None = None
    members: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    times: dict[str, int] = field(default_factory=dict)
    problem: str = ""

    def same_object(self, size: int, version: str | None) -> bool:
        """Say whether this record surely speaks of the content that the server offers now."""
        return version is not None and (self.size, self.version) == (size, version)

    def is_unpacked_for(self, listed: str | None) -> bool:
        """Say whether the archive was unpacked, and no newer list has another hash for it."""
        return self.state == "unpacked" and listed in (None, self.listed, self.sha256)

    def is_as_unpacked(self, folder: Path, path: str) -> bool:
        """Say whether a member is in the folder with the content that was unpacked.

        Only a file whose time changed is read; records from before digests tell its size alone.
        """
        file = folder / path
        if not file.is_file():
            return False
        found = file.stat()
        if found.st_size != self.members[path]:
            return False
        same_time = found.st_mtime_ns == self.times.get(path)
        return path not in self.digests or same_time or digest_of(file) == self.digests[path]


class Manifest:
    """The archives of one dataset by stem; every change is on disk before ``update`` returns."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._records = self._read()

    def _read(self) -> dict[str, ArchiveRecord]:
        try:
            content = json.loads(self.path.read_text())
            return {stem: ArchiveRecord(**record) for stem, record in content["archives"].items()}
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{shown(self.path)} cannot be read ({type(error).__name__}): move it away and run "
                "again; members that are there whole will not be written anew"
            ) from None

    def get(self, stem: str) -> ArchiveRecord | None:
        """Return the record of an archive, or None."""
        return self._records.get(stem)

    def members(self, without: Collection[str] = ()) -> set[str]:
        """Return the paths of all members of all archives, without those of some stems."""
        records = [record for stem, record in self._records.items() if stem not in without]
        return {path for record in records for path in record.members}

    def update(self, stem: str, record: ArchiveRecord | None = None, **changes: Any) -> None:
        """Set an archive's record, or change fields of the one that is there."""
        with self._lock:
            base = self._records[stem] if record is None else record
            self._records[stem] = replace(base, **changes)
            self._write()

    def _write(self) -> None:
        archives = {stem: asdict(record) for stem, record in sorted(self._records.items())}
        write_text(self.path, json.dumps({"version": _VERSION, "archives": archives}, indent=1))


@contextlib.contextmanager
def only_ingest(folder: Path) -> Iterator[None]:
    """Hold a dataset's folder for one ingest at a time; the system lets go when a process ends.

    Raises:
        RuntimeError: another ingest works on it.
    """
    busy = f"another ingest works on {shown(folder)}: wait for it, or end it first"
    with only_one(folder / LOCK, busy):
        yield
