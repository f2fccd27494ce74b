"""The manifest: what was brought into a dataset's folder, from which archives, and in what state.

It is ``NAME/ingest.json`` in the store of the datasets, in the folder that stays when the
compressed archives are removed. It never holds a link.
"""

import json
import threading
from collections.abc import Collection
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    model_validator,
)

from workbench.ingest.archives import digest_of
from workbench.settings import shown
from workbench.stores import Entry, Store

FILE = "ingest.json"
LOCK = ".ingest.lock"


def _text(value: Any) -> str:
    """Check for a text; pydantic's own check refuses names of files that are not UTF-8."""
    if not isinstance(value, str):
        raise ValueError("it is no text")
    return value


def _file_name(value: Any) -> str:
    if _text(value) in ("", ".", "..") or set(value) & set("/\\\0"):
        raise ValueError("it is no file's name")
    return str(value)


def _inside(value: Any) -> str:
    if not _text(value) or value.startswith("/") or ".." in value.split("/"):
        raise ValueError("it is no path inside the folder")
    return str(value)


_Text = Annotated[str, PlainValidator(_text)]
_Path = Annotated[str, PlainValidator(_inside)]
_Count = Annotated[int, Field(ge=0, lt=1 << 62)]
_Hash = Annotated[str, Field(pattern="^([0-9a-f]{64})?$")]


class ArchiveRecord(BaseModel):
    """The state of one archive; a record is never changed, but replaced."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    source: _Text  # name in the email, such as ``knee_multicoil_val.tar.xz``
    object_path: _Text  # path of the object in fastMRI's bucket
    size: _Count  # bytes of the archive
    version: _Text | None  # the server's name for the object's content (ETag)
    state: Literal["downloading", "downloaded", "unpacked"] = "downloading"
    """A downloaded one is kept, and its hash is known."""
    sha256: _Hash = ""
    """Hash of what came, in hex; "" until it is whole."""
    listed: _Hash = ""
    """The hash that fastMRI lists for it."""
    check: Literal["", "verified", "mismatch", "not listed"] = ""
    archive: Annotated[str, PlainValidator(_file_name)] | None = None
    """Name of the file kept in ``NAME_compressed``."""
    members: dict[_Path, _Count] = {}  # path -> bytes of what was unpacked
    digests: dict[_Path, _Text] = {}  # path -> ``digest_of`` the member as it was unpacked
    marks: dict[_Path, int | _Text] = {}  # path -> ``mark_of`` the member as it was unpacked
    problem: _Text = ""
    """What went wrong last."""

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_versions(cls, fields: Any) -> Any:
        if isinstance(fields, dict) and "times" in fields:
            fields = {("marks" if name == "times" else name): fields[name] for name in fields}
        return fields

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.digests.keys() | self.marks.keys()) - self.members.keys():
            raise ValueError("digests or marks of no member")
        if self.state == "unpacked" and not self.sha256:
            raise ValueError("unpacked, but without a sha256")
        if (self.state, self.check) == ("unpacked", "verified") and self.sha256 != self.listed:
            raise ValueError("verified, but with another sha256 than listed")
        return self

    def same_object(self, size: int, version: str | None) -> bool:
        """Say whether this record surely speaks of the content that the server offers now."""
        return version is not None and (self.size, self.version) == (size, version)

    def is_unpacked_for(self, listed: str | None) -> bool:
        """Say whether the archive was unpacked, and no newer list has another hash for it."""
        return self.state == "unpacked" and listed in (None, self.listed, self.sha256)

    def is_as_unpacked(self, folder: Store, path: str, entry: Entry | None) -> bool:
        """Say whether a member, of which the folder lists ``entry``, has the unpacked content.

        Only a file whose mark changed is read; records from before digests tell its size alone.
        """
        if entry is None or entry.size != self.members[path]:
            return False
        if path not in self.digests or mark_of(entry) == self.marks.get(path):
            return True
        with folder.open(path) as file:
            return digest_of(file) == self.digests[path]


class _Content(BaseModel):
    model_config = ConfigDict(strict=True)

    version: Literal[1] = 1
    archives: dict[_Text, ArchiveRecord]


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
        if not isinstance(content, dict) or "version" not in content:
            raise ValueError("it is no manifest of version 1")
        return _Content.model_validate(content).archives
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part)[:80] for part in first["loc"])
        raise ValueError(f"{where}: {first['msg'][:200]}") from None


class Manifest:
    """The archives of one dataset by stem; every change is stored before ``update`` returns.

    Attributes:
        folder: the dataset's folder.
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
            self.problem = (
                f"{shown(folder.address)}/{FILE} is damaged ({error}): it is put aside, and each "
                "archive of the dataset is checked anew; members that are there whole are not "
                "written again"
            )

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
            changed = base.model_copy(update=changes)
            if changed == self._records.get(stem):
                return
            self._records[stem] = changed
            if self.problem:
                self.folder.write(f"{FILE}.damaged", self.folder.read(FILE))
                self.problem = ""
            archives = {name: dict(each) for name, each in sorted(self._records.items())}
            self.folder.write_json(FILE, {"version": 1, "archives": archives})
