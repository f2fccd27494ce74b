"""Unpack archives as they stream in: the kind by first bytes, each member whole or not at all."""

import errno
import gzip
import hashlib
import io
import lzma
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from workbench.ingest.links import WHERE_TO_ASK
from workbench.ingest.xz import MAGIC as XZ_MAGIC
from workbench.ingest.xz import open_xz
from workbench.stores.streams import CHUNK, Readable, as_file, chunks_of

GZIP_MAGIC = b"\x1f\x8b"
# How much of an archive's start tells what it is: one header of tar.
HEAD = tarfile.BLOCKSIZE
# What this package writes into a dataset's folder, so that no archive may.
RESERVED = ("ingest.json", ".ingest.lock", "dataset_cache.json")
_PART = ".ingest-part"
# Headers that hold names and attributes of the member after them, and how long they may be.
_ABOUT_THE_NEXT = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_ATTRIBUTES = 1 << 20
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db")


class ArchiveError(Exception):
    """An archive is not what it should be; the message names it and says what to do."""


@dataclass
class Unpacked:
    """What came out of an archive.

    Attributes:
        members: path (relative, with ``/``) -> bytes of every member that is there, whole.
        written: how many of them were written now; the others were there.
        replaced: members that took the place of a file of other content.
        bytes_written: their bytes.
        digests: path -> ``digest_of`` its content.
    """

    members: dict[str, int] = field(default_factory=dict)
    written: int = 0
    replaced: list[str] = field(default_factory=list)
    bytes_written: int = 0
    digests: dict[str, str] = field(default_factory=dict)


class Destination(Protocol):
    """Where members go: a folder on disk, or one in a storage container."""

    def size_of(self, path: str) -> int | None:
        """Return the bytes of what is there at a member's path, or None."""

    def read(self, path: str) -> BinaryIO | io.BufferedIOBase:
        """Open what is there at a member's path."""

    def free(self) -> int | None:
        """Return how many bytes fit; None where there is no limit."""

    def write(self, path: str, content: Readable, size: int) -> None:
        """Put a member there, whole or not at all; until then what was there stays.

        Raises:
            tarfile.ReadError: its content ends before ``size``.
        """


@dataclass(frozen=True)
class Folder:
    """A folder on disk as a destination."""

    root: Path

    def size_of(self, path: str) -> int | None:
        """Return the size of the file at a member's path."""
        final = self.root / path
        return final.stat().st_size if final.is_file() else None

    def read(self, path: str) -> BinaryIO:
        """Open the file at a member's path."""
        return (self.root / path).open("rb")

    def free(self) -> int:
        """Return the free bytes of the disk."""
        return shutil.disk_usage(existing(self.root)).free

    def write(self, path: str, content: Readable, size: int) -> None:
        """Write under a temporary name, then rename."""
        final = self.root / path
        final.parent.mkdir(parents=True, exist_ok=True)
        part = final.with_name(f".{final.name}{_PART}")
        try:
            with part.open("wb") as file:
                shutil.copyfileobj(content, file, CHUNK)
                if file.tell() != size:
                    raise tarfile.ReadError("unexpected end of data")
            part.replace(final)
        finally:
            part.unlink(missing_ok=True)


def existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists, or the path itself."""
    while not path.exists():
        path = path.parent
    return path


def sniff(head: bytes) -> str | None:
    """Return the extension that fits an archive's first bytes (``HEAD`` of them suffice).

    Returns:
        ".tar", ".tar.gz", ".tar.xz", or None for anything else.
    """
    if head.startswith(XZ_MAGIC):
        return ".tar.xz"
    if head.startswith(GZIP_MAGIC):
        return ".tar.gz"
    return ".tar" if _is_tar(head) else None


def _is_tar(head: bytes) -> bool:
    if head[257:262] == b"ustar":
        return True
    # Archives from before 1988 have no magic; their header's sum tells.
    try:
        tarfile.TarInfo.frombuf(head[:HEAD], "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


def unpack(
    source: Readable,
    destination: Path | Destination,
    archive: str,
    *,
    result: Unpacked | None = None,
    pool: Executor | None = None,
    on_member: Callable[[str, int], None] | None = None,
) -> Unpacked:
    """Unpack an archive into a folder, reading it once from start to end.

    At its own name a member is whole: on disk it is written under a temporary name and renamed. A
    member that is there with the same content is passed over, as are macOS's and Windows's litter.

    Args:
        source: the archive's bytes: tar, plain or in gzip or xz.
        destination: the folder; nothing is written outside it.
        archive: the archive's name, for messages.
        result: filled as members come out, so that it holds them too when the archive breaks off.
        pool: threads that decode xz.
        on_member: called with each member's path and bytes.

    Raises:
        ArchiveError: not an archive, truncated, damaged, or a member that is unsafe to write. What
            came out before stays.
        OSError: the disk refuses, as when it is full.
    """
    result = Unpacked() if result is None else result
    if isinstance(destination, Path):
        destination = Folder(destination)
    member = ""
    try:
        with (
            _decoded(source, archive, pool) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_StrictEntry) as tar,
        ):
            for entry in tar:
                member = entry.name
                path = _path_of(entry, archive)
                if path is None:
                    continue
                _write(tar, entry, destination, path, archive, result)
                if on_member:
                    on_member(path, entry.size)
            _finish(tar, archive)
    except (EOFError, tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        where = f"after {member}" if member else "at its start"
        raise ArchiveError(
            f"{archive}: truncated or damaged {where} ({error}); the {len(result.members)} members "
            "before that are unpacked and stay. If its download was verified, the archive is "
            f"broken at its source: tell {WHERE_TO_ASK}"
        ) from None
    return result


def clean_leftovers(folder: Path) -> int:
    """Remove the temporary files of a run that was killed; return how many there were."""
    leftovers = [*folder.rglob(f".*{_PART}"), *folder.glob(".ingest.json.*.part")]
    for path in leftovers:
        path.unlink(missing_ok=True)
    return len(leftovers)


# ---- reading -----------------------------------------------------------------------------


def _decoded(source: Readable, archive: str, pool: Executor | None) -> io.BufferedIOBase:
    """Return a file of the plain tar inside ``source``."""
    head = _head(source)
    kind = sniff(head)
    whole = as_file(chain([head], chunks_of(source)))
    if kind == ".tar":
        return whole
    if kind is None:
        what = "nothing" if not head else f"{head[:8]!r}..."
        raise ArchiveError(
            f"{archive}: neither tar nor gzip nor xz, it begins with {what}: download it again; "
            "if that does not help, it is broken at its source"
        )
    stream = open_xz(whole, pool) if kind == ".tar.xz" else gzip.GzipFile(fileobj=whole)
    inner = stream.read(HEAD)
    if not _is_tar(inner):
        raise ArchiveError(f"{archive}: decodes, but holds no tar")
    return as_file(_after(inner, stream))


def _after(head: bytes, stream: io.BufferedIOBase) -> Iterator[bytes]:
    with stream:
        yield head
        yield from chunks_of(stream)


def _head(source: Readable) -> bytes:
    head = b""
    while len(head) < HEAD and (piece := source.read(HEAD - len(head))):
        head += piece
    return head


class _StrictEntry(tarfile.TarInfo):
    """A header of tar that is right, or an error.

    tarfile takes a damaged header in the middle, or none at all where the end mark should be, for
    the end of the archive, and says nothing. It believes negative sizes, and reads names and
    attributes of any length into memory.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_StrictEntry":
        entry = super().frombuf(buf, encoding, errors)
        named = entry.type in _ABOUT_THE_NEXT and entry.size > _LONGEST_ATTRIBUTES
        if entry.size < 0 or named:
            raise tarfile.InvalidHeaderError(f"a size of {entry.size} bytes")  # type: ignore[attr-defined]
        return entry

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_StrictEntry":
        try:
            entry = super().fromtarfile(tar)
            if entry.size < 0:
                raise tarfile.HeaderError(f"a size of {entry.size} bytes")
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.HeaderError, ValueError, OverflowError, RecursionError) as error:
            raise tarfile.ReadError(f"{error}, where a member or the end should be") from None
        return entry


def _finish(tar: tarfile.TarFile, archive: str) -> None:
    """Read what follows the end mark, which also checks it: nothing but zeros."""
    rest: Any = tar.fileobj
    while data := rest.read(CHUNK):
        if any(data):
            raise ArchiveError(
                f"{archive}: more data follows after the tar's end; it was not unpacked"
            )


# ---- writing -----------------------------------------------------------------------------


def _path_of(entry: tarfile.TarInfo, archive: str) -> str | None:
    """Return where a member goes, relative to the folder; None where it is passed over.

    Raises:
        ArchiveError: its name leads outside, or it is a link, a device or a reserved file.
    """
    name = entry.name
    pieces = re.split(r"[/\\]", name)
    fault = None
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or "\0" in name:
        fault = "its name is absolute"
    elif ".." in pieces:
        fault = "its name leads upwards"
    elif entry.issym() or entry.islnk():
        fault = "it is a link"
    elif entry.issparse():
        fault = "it is sparse: its holes are not in the archive"
    elif not entry.isreg() and not entry.isdir():
        fault = "it is neither file nor folder"
    path = PurePosixPath(name)
    if len(path.parts) == 1 and path.name in RESERVED and entry.isreg():
        fault = "the workbench keeps a file of that name"
    if fault:
        raise ArchiveError(
            f"{archive}: member {name!r} is refused: {fault}. Nothing was written outside the "
            "dataset's folder, the members before it stay. fastMRI's own archives hold no such "
            "member: make sure where this one is from"
        )
    litter = any(part in _LITTER or part.startswith("._") for part in path.parts)
    return None if litter or entry.isdir() or not path.parts else str(path)


def _write(
    tar: tarfile.TarFile,
    entry: tarfile.TarInfo,
    destination: Destination,
    path: str,
    archive: str,
    result: Unpacked,
) -> None:
    member = tar.extractfile(entry)
    if member is None:
        raise tarfile.ReadError(f"{path} has no content")
    digest = _digest()

    def hashed() -> Iterator[bytes]:
        for data in chunks_of(member):
            digest.update(data)
            yield data

    with member, as_file(hashed()) as content:
        there = destination.size_of(path)
        new: Readable | None = content
        if there == entry.size:
            new = _unless_same(destination, path, content)
        if new is not None:
            if path in result.members:
                raise ArchiveError(
                    f"{archive}: member {path!r} is there twice with different content: tell "
                    f"{WHERE_TO_ASK}; the first one stays"
                )
            free = destination.free()
            if free is not None and entry.size > free:
                raise OSError(
                    errno.ENOSPC, f"No space left for {entry.size:,} bytes of {path}, {free:,} free"
                )
            destination.write(path, new, entry.size)
            result.written += 1
            result.bytes_written += entry.size
            if there is not None:
                result.replaced.append(path)
    result.members[path] = entry.size
    result.digests[path] = digest.hexdigest()


def _unless_same(destination: Destination, path: str, content: Readable) -> Readable | None:
    """Compare a member with what is there; return all of its content, or None where it is equal."""
    equal = 0
    with destination.read(path) as old:
        while (data := content.read(CHUNK)) == old.read(CHUNK):
            if not data:
                return None
            equal += len(data)

    def whole() -> Iterator[bytes]:
        with destination.read(path) as old:
            for _ in range(equal // CHUNK):
                yield old.read(CHUNK)
        yield data
        yield from chunks_of(content)

    return as_file(whole())


def _digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def digest_of(path: Path) -> str:
    """Return the digest of a file as ``Unpacked`` holds it: BLAKE2b of 16 bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _digest).hexdigest()
