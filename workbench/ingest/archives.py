"""Unpack archives as they stream in: the kind by first bytes, each member whole or not at all."""

import errno
import gzip
import hashlib
import io
import lzma
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import PurePosixPath
from typing import Any, BinaryIO

from workbench.ingest.links import WHERE_TO_ASK
from workbench.ingest.xz import MAGIC as XZ_MAGIC
from workbench.ingest.xz import open_xz
from workbench.stores import Store
from workbench.stores.streams import CHUNK, Readable, as_file, chunks_of, digested, hashed

GZIP_MAGIC = b"\x1f\x8b"
# How much of an archive's start tells what it is: one header of tar.
HEAD = tarfile.BLOCKSIZE
KINDS = (".tar", ".tar.gz", ".tar.xz")
# What this package writes into a dataset's folder, so that no archive may.
RESERVED = (
    *("ingest.json", "ingest.json.damaged", ".ingest.lock"),
    *("dataset_cache.json", "dataset_cache.partial.json", "dataset_cache.pkl"),
)
# fastMRI's archives unpack to at most some ten times their size. Beyond this many times it is a
# bomb, or nothing that belongs here; up to so many bytes any archive may.
_LARGEST_RATIO, _SMALL = 50, 1 << 30
# Headers that hold names and attributes of the member after them, and how long they may be.
_ABOUT_THE_NEXT = (
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)
_LONGEST_ATTRIBUTES = 1 << 20
_DIGEST = partial(hashlib.blake2b, digest_size=16)
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db")


class ArchiveError(Exception):
    """An archive is not what it should be; the message names it and says what to do."""


@dataclass
class Unpacked:
    """What came out of an archive.

    Attributes:
        members: path (relative, with ``/``) -> bytes of every member that is there, whole.
        digests: path -> ``digest_of`` its content.
        written: how many members were written now; the others were there.
        bytes_written: their bytes.
        replaced: members that took the place of a file of other content.
    """

    members: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    written: int = 0
    bytes_written: int = 0
    replaced: list[str] = field(default_factory=list)


def sniff(head: bytes) -> str | None:
    """Return ".tar", ".tar.gz", ".tar.xz" or None by an archive's first ``HEAD`` bytes."""
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
    store: Store,
    archive: str,
    result: Unpacked,
    *,
    size: int,
    known: Mapping[str, str] | None = None,
) -> None:
    """Unpack an archive into a store, reading it once from start to end.

    A member is written whole or not at all. One that is there with the same content is passed
    over, as are macOS's and Windows's litter. Nothing is written outside the store.

    Args:
        source: the archive's bytes: tar, plain or in gzip or xz.
        store: the folder.
        archive: the archive's name, for messages.
        result: filled as members come out, also where the archive breaks off.
        size: the archive's bytes, by which what it unpacks to is bounded.
        known: path -> digest of members that are there as the archive holds them, for certain.

    Raises:
        ArchiveError: not an archive, truncated, damaged, larger than it may be, or a member that
            is unsafe to write. What came out before stays.
        OSError: the store refuses, as when a disk is full.
    """
    writer = _Writer(store, archive, result, known or {})
    largest, content, member = largest_content(size), 0, ""

    def count(more: int) -> None:
        """Bound what comes out: members, their headers, zeros at the end."""
        nonlocal content
        content += more
        if content > largest:
            raise ArchiveError(too_large(archive, content))

    try:
        with (
            _decoded(source, archive) as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=CHUNK, tarinfo=_StrictEntry) as tar,
        ):
            for entry in tar:
                member = entry.name
                path = _path_of(entry, archive)
                count(tarfile.BLOCKSIZE + entry.size)
                if path is not None:
                    writer.write(tar, entry, path)
            # What follows the end mark is read too, which checks the sums behind it.
            rest: Any = tar.fileobj
            while data := rest.read(CHUNK):
                count(len(data))
                if any(data):
                    raise ArchiveError(
                        f"{archive}: more data follows after the tar's end; it was not unpacked"
                    )
    except (EOFError, tarfile.TarError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        shown = "".join(
            letter if letter.isprintable() else ascii(letter)[1:-1] for letter in member
        )
        where = f"after {shown}" if member else "at its start"
        raise ArchiveError(
            f"{archive}: truncated or damaged {where} ({error}); the {len(result.members)} members "
            "before that are unpacked and stay. If its download was verified, the archive is "
            f"broken at its source: tell {WHERE_TO_ASK}"
        ) from None


def largest_content(size: int) -> int:
    """Return the most bytes that an archive of ``size`` bytes may unpack to."""
    return max(_SMALL, _LARGEST_RATIO * size)


def too_large(archive: str, content: int) -> str:
    """Say that an archive unpacks to more than it may."""
    return (
        f"{archive}: it unpacks to {content:,} bytes or more, over {_LARGEST_RATIO} times its own "
        "size, and is refused: fastMRI's archives hold at most some ten times theirs. Make sure "
        "where this one is from; if it is right, unpack it by hand"
    )


# ---- reading -----------------------------------------------------------------------------


def _decoded(source: Readable, archive: str) -> io.BufferedIOBase:
    """Return a file of the plain tar inside ``source``."""
    head = b""
    while len(head) < HEAD and (piece := source.read(HEAD - len(head))):
        head += piece
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
    stream = open_xz(whole) if kind == ".tar.xz" else gzip.GzipFile(fileobj=whole)

    def content() -> Iterator[bytes]:
        with stream:
            inner = stream.read(HEAD)
            if not _is_tar(inner):
                raise ArchiveError(f"{archive}: decodes, but holds no tar")
            yield inner
            yield from chunks_of(stream)

    return as_file(content())


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
    if path.parts[:1] and path.parts[0] in RESERVED and entry.isreg():
        fault = "the workbench keeps a file of that name"
    if fault:
        raise ArchiveError(
            f"{archive}: member {name!r} is refused: {fault}. Nothing was written outside the "
            "dataset's folder, the members before it stay. fastMRI's own archives hold no such "
            "member: make sure where this one is from"
        )
    litter = any(part in _LITTER or part.startswith("._") for part in path.parts)
    if litter or entry.isdir() or not path.parts:
        return None
    # The fully sampled test scans have the names of the masked ones. Whether their archives call
    # the folder ``multicoil_test_full`` is not known for certain.
    test = r"^((?:multi|single)coil_test)(?=/)"
    return re.sub(test, r"\1_full", str(path)) if "test_full" in archive else str(path)


class _Writer:
    """Writes the members of one archive into a store."""

    def __init__(
        self, store: Store, archive: str, result: Unpacked, known: Mapping[str, str]
    ) -> None:
        self.store, self.archive, self.result, self.known = store, archive, result, known
        self.there = {entry.path: entry.size for entry in store.list()}

    def write(self, tar: tarfile.TarFile, entry: tarfile.TarInfo, path: str) -> None:
        """Write one member, or find that it is there."""
        member = tar.extractfile(entry)
        if member is None:
            raise tarfile.ReadError(f"{path} has no content")
        digest = _DIGEST()
        with member, as_file(hashed(chunks_of(member), digest)) as content:
            new: Readable | None = content
            if self.there.get(path) == entry.size and path in self.known:
                new = None
                for _ in chunks_of(content):
                    pass
                if digest.hexdigest() != self.known[path]:
                    raise ArchiveError(
                        f"{self.archive}: its member {path!r} is another one than when it was "
                        "unpacked before: the kept archive changed since"
                    )
            elif self.there.get(path) == entry.size:
                new = _unless_same(self.store, path, content)
            if new is not None:
                self._put(path, new, entry.size)
        self.result.members[path] = entry.size
        self.result.digests[path] = digest.hexdigest()

    def _put(self, path: str, content: Readable, size: int) -> None:
        if path in self.result.members:
            raise ArchiveError(
                f"{self.archive}: member {path!r} is there twice with different content: tell "
                f"{WHERE_TO_ASK}; the first one stays"
            )
        free = self.store.free()
        if free is not None and size > free:
            raise OSError(
                errno.ENOSPC, f"No space left for {size:,} bytes of {path}, {free:,} free"
            )
        self.store.write(path, content, size)
        self.result.written += 1
        self.result.bytes_written += size
        if path in self.there:
            self.result.replaced.append(path)
        self.there[path] = size


def _unless_same(store: Store, path: str, content: Readable) -> Readable | None:
    """Compare a member with what is there; return all of its content, or None where it is equal."""
    equal = 0
    with store.open(path) as old:
        while (data := content.read(CHUNK)) == old.read(CHUNK):
            if not data:
                return None
            equal += len(data)

    def whole() -> Iterator[bytes]:
        with store.open(path) as old:
            for _ in range(equal // CHUNK):
                yield old.read(CHUNK)
        yield data
        yield from chunks_of(content)

    return as_file(whole())


def digest_of(file: BinaryIO) -> str:
    """Return the digest of a file as ``Unpacked`` holds it: BLAKE2b of 16 bytes, in hex."""
    return digested(file, _DIGEST())
