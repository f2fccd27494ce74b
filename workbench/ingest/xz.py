"""Decode .xz on all cores while it streams in.

An .xz stream is a header, blocks, an index and a footer (https://tukaani.org/xz/xz-file-format.txt).
``xz -T`` writes each block's sizes into its header, so that blocks can be cut from the stream as
it arrives. Each is then dressed up as a stream of its own, which liblzma decodes, integrity check
included, without holding Python's global lock.
"""

import io
import lzma
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, nullcontext

from workbench.stores.streams import CHUNK, Readable, as_file

MAGIC = b"\xfd7zXZ\x00"
_HEADER, _FOOTER = 12, 12
# A block above this is decoded as it streams, on one core; below it, blocks ahead share the budget.
_LARGEST_BLOCK = 512 << 20
_AHEAD_BYTES = 1 << 30
# What a decoder may take for its dictionary; xz -9 needs 65 MiB.
_MEMORY = 512 << 20
# More bytes than these do not come out of one byte of xz, whatever an index claims.
_LARGEST_RATIO = 10_000
# Bytes of the integrity check by its number in the stream header (section 2.1.1.2).
_CHECK_SIZE = (0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_xz(source: Readable, pool: Executor | None = None) -> io.BufferedReader:
    """Return a file of what the .xz file ``source`` holds.

    Args:
        source: the compressed bytes, read once from start to end.
        pool: threads that decode; by default as many as there are cores, ended on close.

    Reading raises EOFError where the data ends too early and lzma.LZMAError where it is damaged.
    """
    return as_file(_decoded(source, pool))


def unpacked_size(size: int, read_at: Callable[[int, int], bytes]) -> int | None:
    """Return how many bytes an .xz file of ``size`` bytes decodes to, by the index at its end.

    Args:
        size: bytes of the compressed file.
        read_at: returns ``count`` bytes from ``offset``: ``read_at(offset, count)``.

    Returns:
        The size, or None where the file does not end in the footer of its only stream.
    """
    if size < _HEADER + _FOOTER + 8:
        return None
    footer = read_at(size - _FOOTER, _FOOTER)
    if footer[10:] != b"YZ":
        return None
    index_size = (int.from_bytes(footer[4:8], "little") + 1) * 4
    start = size - _FOOTER - index_size
    if start < _HEADER or index_size > 64 << 20:
        return None
    try:
        records = _parse_index(read_at(start, index_size))
    except (lzma.LZMAError, EOFError):
        return None
    blocks = sum(unpadded + -unpadded % 4 for unpadded, _ in records)
    # A file of several streams has more before this one than this index speaks of.
    total = sum(count for _, count in records)
    return total if start - blocks == _HEADER and total <= size * _LARGEST_RATIO else None


# ---- streams, blocks ---------------------------------------------------------------------


class _Source:
    """Exact reads from a file, with what a decoder did not use put back in front."""

    def __init__(self, source: Readable) -> None:
        self._source, self._front = source, b""

    def some(self) -> bytes:
        front, self._front = self._front, b""
        return front or self._source.read(CHUNK)

    def put_back(self, data: bytes) -> None:
        self._front = data + self._front

    def up_to(self, count: int) -> bytes:
        pieces, missing = [], count
        while missing:
            piece = self.some()
            if not piece:
                break
            pieces.append(piece[:missing])
            self._front = piece[missing:]
            missing -= len(pieces[-1])
        return b"".join(pieces)

    def exactly(self, count: int) -> bytes:
        data = self.up_to(count)
        if len(data) < count:
            raise EOFError("the xz data ends too early")
        return data


def _decoded(raw: Readable, pool: Executor | None) -> Iterator[bytes]:
    source = _Source(raw)
    with ThreadPoolExecutor(cores(), "xz") if pool is None else nullcontext(pool) as threads:
        header = source.exactly(_HEADER)
        while True:
            if not header.startswith(MAGIC) or zlib.crc32(header[6:8]) != _uint32(header, 8):
                raise lzma.LZMAError("no xz stream begins here")
            with closing(_stream(header, source, threads)) as chunks:
                yield from chunks
            # Between streams and at the end there may be zeros, in fours.
            while (padding := source.up_to(4)) == b"\0\0\0\0":
                pass
            if not padding:
                return
            header = padding + source.exactly(_HEADER - len(padding))


def _stream(header: bytes, source: _Source, threads: Executor) -> Generator[bytes, None, None]:
    check_size = _CHECK_SIZE[header[7] & 0x0F]
    records: list[tuple[int, int]] = []
    pending: deque[tuple[Future[bytes], int]] = deque()
    try:
        while (first := source.exactly(1)) != b"\0":
            block = first + source.exactly((first[0] + 1) * 4 - 1)
            sizes = _block_sizes(block)
            if sizes is None:
                if records:
                    raise lzma.LZMAError("blocks with and without sizes in one xz stream")
                yield from _sequential(header + block, source)
                return
            compressed, count = sizes
            unpadded = len(block) + compressed + check_size
            data = source.exactly(compressed + -compressed % 4 + check_size)
            records.append((unpadded, count))
            alone = b"".join((header, block, data, _ending(header, unpadded, count)))
            pending.append((threads.submit(_decode, alone, count), count + len(alone)))
            while len(pending) > cores() + 1 or sum(held for _, held in pending) > _AHEAD_BYTES:
                yield pending.popleft()[0].result()
        while pending:
            yield pending.popleft()[0].result()
        _check_ending(header, source, records)
    finally:
        for future, _ in pending:
            future.cancel()


def _decode(stream: bytes, count: int) -> bytes:
    data = lzma.decompress(stream, format=lzma.FORMAT_XZ, memlimit=_MEMORY)
    if len(data) != count:
        raise lzma.LZMAError("a block's size differs from its header")
    return data


def _sequential(head: bytes, source: _Source) -> Iterator[bytes]:
    """Decode one whole stream on one core: nothing tells where its blocks end."""
    decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
    data = head
    while not decoder.eof:
        if not data and decoder.needs_input:
            data = source.some()
            if not data:
                raise EOFError("the xz data ends too early")
        yield decoder.decompress(data, max_length=4 * CHUNK)
        data = b""
    source.put_back(decoder.unused_data)


# ---- the format's small parts ------------------------------------------------------------


def _uint32(data: bytes, offset: int) -> int:
    return int(struct.unpack_from("<I", data, offset)[0])


def _vli(data: bytes, offset: int) -> tuple[int, int]:
    """Read a variable-length integer (section 1.2); return it and the offset after it."""
    value = 0
    for place in range(9):
        if offset + place >= len(data):
            break
        byte = data[offset + place]
        value |= (byte & 0x7F) << (7 * place)
        if not byte & 0x80:
            return value, offset + place + 1
    raise lzma.LZMAError("a damaged number in the xz data")


def _as_vli(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _block_sizes(block: bytes) -> tuple[int, int] | None:
    """Return (compressed, uncompressed) bytes of a block by its header (section 3.1).

    None where the header does not say, or where the block is too large to be held in memory.
    """
    if zlib.crc32(block[:-4]) != _uint32(block, len(block) - 4):
        raise lzma.LZMAError("a damaged block header in the xz data")
    if block[1] & 0xC0 != 0xC0:
        return None
    compressed, offset = _vli(block, 2)
    uncompressed, _ = _vli(block, offset)
    return None if max(compressed, uncompressed) > _LARGEST_BLOCK else (compressed, uncompressed)


def _index(records: list[tuple[int, int]]) -> bytes:
    body = b"\0" + _as_vli(len(records))
    body += b"".join(_as_vli(unpadded) + _as_vli(count) for unpadded, count in records)
    body += bytes(-len(body) % 4)
    return body + struct.pack("<I", zlib.crc32(body))


def _parse_index(index: bytes) -> list[tuple[int, int]]:
    if index[:1] != b"\0" or zlib.crc32(index[:-4]) != _uint32(index, len(index) - 4):
        raise lzma.LZMAError("a damaged index in the xz data")
    count, offset = _vli(index, 1)
    records = []
    for _ in range(count):
        unpadded, offset = _vli(index, offset)
        size, offset = _vli(index, offset)
        records.append((unpadded, size))
    return records


def _footer(header: bytes, index_size: int) -> bytes:
    body = struct.pack("<I", index_size // 4 - 1) + header[6:8]
    return struct.pack("<I", zlib.crc32(body)) + body + b"YZ"


def _ending(header: bytes, unpadded: int, count: int) -> bytes:
    """Return index and footer of a stream that holds one block."""
    index = _index([(unpadded, count)])
    return index + _footer(header, len(index))


def _check_ending(header: bytes, source: _Source, records: list[tuple[int, int]]) -> None:
    """Compare a stream's index and footer (its first byte is read) with the blocks that came."""
    index = _index(records)
    rest = source.exactly(len(index) - 1 + _FOOTER)
    if rest != index[1:] + _footer(header, len(index)):
        raise lzma.LZMAError("the xz index does not fit the blocks before it")
