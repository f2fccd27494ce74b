"""The manifest: what was brought into a dataset's folder, from which archives, and in what state.

It is ``NAME/ingest.json`` in the store of the datasets, in the folder that stays when the
compressed archives are removed. It never holds a link.
"""

import json
import re
import threading
from collections.abc import Collection
from dataclasses import asdict, dataclass, field, replace
from dataclasses import fields as dataclass_fields
from typing import Any

from workbench.ingest.archives import digest_of
from workbench.settings import shown
from workbench.stores import Entry, Store

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
        marks: path -> ``mark_of`` the member as it was unpacked.
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
    marks: dict[str, int | str] = field(default_factory=dict)
    problem: str = ""

    def same_object(self, size: int, version: str | None) -> bool:
        """Say whether this record surely speaks of the content that the server offers now."""
        return version is not None and (self.size, self.version) == (size, version)

    def is_unpacked_for(self, listed: str | None) -> bool:
        """Say whether the archive was unpacked, and no newer list has another hash for it."""
        return self.state == "unpacked" and listed in (None, self.listed, self.sha256)

    def is_as_unpacked(self, folder: Store, path: str, entry: Entry | None) -> bool:
        """Say whether a member is in the folder with the content that was unpacked.

        Only a file whose mark changed is read; records from before digests tell its size alone.

        Args:
            folder: the dataset's folder.
            path: the member.
            entry: what the folder lists for it, or None.
        """
        if entry is None or entry.size != self.members[path]:
            return False
        if path not in self.digests or mark_of(entry) == self.marks.get(path):
            return True
        with folder.open(path) as file:
            return digest_of(file) == self.digests[path]


def mark_of(entry: Entry) -> int | str:
    """Return what changes with a file's content: its ETag in a container, its time on a disk."""
    return entry.etag or entry.mtime_ns


def read_records(text: bytes) -> dict[str, ArchiveRecord]:
    """Read the records of a manifest: stem -> record.

    Raises:
        ValueError: it is no manifest, or holds what no ingest writes; the message says where.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    archives = content.get("archives") if isinstance(content, dict) else None
    if not isinstance(archives, dict) or content.get("version") != _VERSION:
        raise ValueError(f"it is no manifest of version {_VERSION}")
    return {stem: _record(stem, fields) for stem, fields in archives.items()}


def unreadable(name: str, error: Exception) -> str:
    """Say that a manifest is not believed, and what follows."""
    return (
        f"{name} is damaged ({error}): it is put aside, and each archive of the dataset is checked "
        "anew; members that are there whole are not written again"
    )


def _record(stem: str, fields: Any) -> ArchiveRecord:
    def wrong(name: str) -> ValueError:
        return ValueError(f"archive {stem[:80]!r}: {name} is missing or wrong")

    if not isinstance(fields, dict):
        raise wrong("its record")
    if "times" in fields:  # the name of earlier versions
        fields = {("marks" if name == "times" else name): fields[name] for name in fields}
    names = {each.name for each in dataclass_fields(ArchiveRecord)}
    if unknown := sorted(fields.keys() - names):
        raise wrong(repr(unknown[0][:80]))
    for name in ("source", "object_path", "size", "version"):
        if name not in fields:
            raise wrong(name)
    record = ArchiveRecord(**fields)
    for name in ("source", "object_path", "state", "sha256", "listed", "check", "problem"):
        if not isinstance(getattr(record, name), str):
            raise wrong(name)
    for name in ("members", "digests", "marks"):
        if not isinstance(getattr(record, name), dict):
            raise wrong(name)
    hexadecimal = re.compile("[0-9a-f]{64}|").fullmatch
    right = {
        "size": _is_count(record.size),
        "version": record.version is None or isinstance(record.version, str),
        "state": record.state in ("downloading", "downloaded", "unpacked"),
        "check": record.check in ("", "verified", "mismatch", "not listed"),
        "sha256": hexadecimal(record.sha256),
        "listed": hexadecimal(record.listed),
        "archive": record.archive is None or _is_file_name(record.archive),
        "members": all(_is_inside(p) and _is_count(n) for p, n in record.members.items()),
        "digests": record.digests.keys() <= record.members.keys()
        and all(isinstance(digest, str) for digest in record.digests.values()),
        "marks": record.marks.keys() <= record.members.keys()
        and all(type(mark) in (int, str) for mark in record.marks.values()),
    }
    for name, is_right in right.items():
        if not is_right:
            raise wrong(name)
    if record.state == "unpacked":  # What is through has a hash, and its check speaks of that.
        if not record.sha256:
            raise wrong("sha256")
        if record.check == "verified" and record.sha256 != record.listed:
            raise wrong("check")
    return record


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and value not in ("", ".", "..") and not set(value) & set("/\\\0")


def _is_inside(path: str) -> bool:
    return bool(path) and not path.startswith("/") and ".." not in path.split("/")


class Manifest:
    """The archives of one dataset by stem; every change is stored before ``update`` returns.

    Args:
        folder: the dataset's folder.

    Attributes:
        problem: why what lay there is not believed, or "".
    """

    def __init__(self, folder: Store) -> None:
        self.folder, self.problem = folder, ""
        self._lock = threading.Lock()
        self._records: dict[str, ArchiveRecord] = {}
        try:
            self._records = read_records(folder.read(FILE))
        except FileNotFoundError:
            pass
        except (ValueError, IsADirectoryError) as error:
            self.problem = unreadable(f"{shown(folder.address)}/{FILE}", error)

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
            changed = replace(base, **changes)
            if changed == self._records.get(stem):
                return
            self._records[stem] = changed
            if self.problem:
                self.folder.write(f"{FILE}.damaged", self.folder.read(FILE))
                self.problem = ""
            archives = {name: asdict(each) for name, each in sorted(self._records.items())}
            self.folder.write_json(FILE, {"version": _VERSION, "archives": archives})
