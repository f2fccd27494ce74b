import hashlib
import io
import lzma
import random
import shutil
import struct
import subprocess
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from workbench.ingest import xz


def number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def blocks_with_sizes(data: bytes, block_size: int) -> bytes:
    """Write data as ``xz -T`` does: blocks whose headers carry their sizes, CRC32 checks.

    Independent of the decoder under test: LZMA2 comes from liblzma raw, the rest from the format.
    """
    flags = b"\x00\x01"
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 20}]
    out, records = b"\xfd7zXZ\x00" + flags + struct.pack("<I", zlib.crc32(flags)), b""
    pieces = [data[i : i + block_size] for i in range(0, len(data), block_size)]
    for piece in pieces:
        body = lzma.compress(piece, lzma.FORMAT_RAW, filters=filters)
        header = b"\xc0" + number(len(body)) + number(len(piece)) + b"\x21\x01\x10"
        header += bytes(-(len(header) + 1) % 4)
        header = bytes([(len(header) + 1) // 4]) + header
        header += struct.pack("<I", zlib.crc32(header))
        out += header + body + bytes(-len(body) % 4) + struct.pack("<I", zlib.crc32(piece))
        records += number(len(header) + len(body) + 4) + number(len(piece))
    index = b"\x00" + number(len(pieces)) + records
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", len(index) // 4 - 1) + flags
    return out + index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


DATA = random.Random(1).randbytes(300_000) + bytes(200_000) + random.Random(2).randbytes(77)
BLOCKS = blocks_with_sizes(DATA, 64_000)
PLAIN = lzma.compress(DATA, preset=0)


class Trickle(io.BytesIO):
    """A file that gives few bytes at a time, as a socket may."""

    def read(self, size=-1):
        return super().read(min(size, 777) if size >= 0 else 777)


def test_the_written_blocks_are_true_xz():
    assert lzma.decompress(BLOCKS) == DATA


@pytest.mark.parametrize("opened", [io.BytesIO, Trickle])
def test_blocks_decode_in_order(opened):
    assert xz.open_xz(opened(BLOCKS)).read() == DATA


def test_blocks_are_decoded_by_several_threads_at_once(monkeypatch):
    meeting = threading.Barrier(2, timeout=20)
    decompress = lzma.decompress

    def meets(*args, **kwargs):
        meeting.wait()
        return decompress(*args, **kwargs)

    # Eight blocks, two at a time: a decoder on one thread would wait for its second for ever.
    monkeypatch.setattr(lzma, "decompress", meets)
    monkeypatch.setattr(xz, "cores", lambda: 2)
    assert xz.open_xz(io.BytesIO(BLOCKS)).read() == DATA


def test_blocks_ahead_are_bounded():
    taken = 0

    class Counting(io.BytesIO):
        def read(self, size=-1):
            nonlocal taken
            data = super().read(min(size, 3_000))
            taken += len(data)
            return data

    noise = random.Random(3).randbytes(600_000)
    with (
        ThreadPoolExecutor(2) as pool,
        xz.open_xz(Counting(blocks_with_sizes(noise, 6_000)), pool) as file,
    ):
        file.raw.readinto(bytearray(1))
        assert taken < 6_100 * (xz.cores() + 4)


def test_stream_without_sizes_decodes_too():
    assert xz.open_xz(io.BytesIO(lzma.compress(DATA))).read() == DATA


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC64, lzma.CHECK_SHA256])
def test_every_integrity_check_is_understood(check):
    assert xz.open_xz(io.BytesIO(lzma.compress(DATA, check=check))).read() == DATA


@pytest.mark.skipif(shutil.which("xz") is None, reason="the xz program is not installed")
@pytest.mark.parametrize("check", ["none", "crc32", "crc64", "sha256"])
@pytest.mark.parametrize("threads", ["-T1", "-T2"])
def test_what_the_xz_program_writes(threads, check):
    command = ["xz", "-c", "-1", threads, f"--check={check}", "--block-size=50000"]
    packed = subprocess.run(command, input=DATA, stdout=subprocess.PIPE, check=True).stdout
    assert xz.open_xz(io.BytesIO(packed)).read() == DATA
    assert xz.unpacked_size(len(packed), lambda o, n: packed[o : o + n]) == len(DATA)


@pytest.mark.parametrize("first", [BLOCKS, PLAIN], ids=["blocks", "plain"])
@pytest.mark.parametrize("second", [BLOCKS, PLAIN], ids=["blocks", "plain"])
@pytest.mark.parametrize("padding", [0, 4, 400])
def test_concatenated_and_padded_streams(first, second, padding):
    packed = first + bytes(padding) + second + bytes(padding)
    assert xz.open_xz(io.BytesIO(packed)).read() == DATA * 2


def test_empty_stream():
    assert xz.open_xz(io.BytesIO(lzma.compress(b""))).read() == b""


@pytest.mark.parametrize("packed", [BLOCKS, PLAIN], ids=["blocks", "plain"])
def test_truncation_anywhere_is_an_error(packed):
    for cut in [0, 5, 12, 13, 100, *range(1000, len(packed), 25_000), len(packed) - 20]:
        with pytest.raises(EOFError):
            xz.open_xz(io.BytesIO(packed[:cut])).read()
    for cut in range(len(packed) - 30, len(packed)):
        with pytest.raises(EOFError):
            xz.open_xz(io.BytesIO(packed[:cut])).read()


@pytest.mark.parametrize("packed", [BLOCKS, PLAIN], ids=["blocks", "plain"])
def test_a_flipped_bit_is_an_error(packed):
    places = [0, 7, 9, 13, 14, 20, *range(50, len(packed), 40_000)]
    for place in [*places, *range(len(packed) - 40, len(packed))]:
        damaged = bytearray(packed)
        damaged[place] ^= 0x10
        with pytest.raises((lzma.LZMAError, EOFError)):
            xz.open_xz(io.BytesIO(bytes(damaged))).read()


def test_rubbish_after_a_stream_is_an_error():
    with pytest.raises((lzma.LZMAError, EOFError)):
        xz.open_xz(io.BytesIO(BLOCKS + b"rubbish that is long enough")).read()


def test_closing_early_ends_the_threads():
    before = threading.active_count()
    file = xz.open_xz(io.BytesIO(BLOCKS))
    file.read(10)
    file.close()
    assert threading.active_count() == before


def test_large_data_equals_lzma_s():
    data = random.Random(4).randbytes(1 << 18) * 12
    packed = blocks_with_sizes(data, 400_000)
    digest = hashlib.sha256()
    with xz.open_xz(io.BytesIO(packed)) as file:
        while chunk := file.read(100_001):
            digest.update(chunk)
    assert digest.digest() == hashlib.sha256(lzma.decompress(packed)).digest()


@pytest.mark.parametrize("packed", [BLOCKS, PLAIN], ids=["blocks", "plain"])
def test_unpacked_size_by_the_index(packed):
    asked = []

    def read(offset, count):
        asked.append(count)
        return packed[offset : offset + count]

    assert xz.unpacked_size(len(packed), read) == len(DATA)
    assert sum(asked) < 200


@pytest.mark.parametrize(
    "packed",
    [BLOCKS + BLOCKS, BLOCKS[:-5], b"", b"x" * 100],
    ids=["two streams", "cut", "empty", "rubbish"],
)
def test_unpacked_size_is_none_where_the_index_does_not_cover_the_file(packed):
    assert xz.unpacked_size(len(packed), lambda o, n: packed[o : o + n]) is None


def with_header(packed: bytes, before: bytes, after: bytes) -> bytes:
    """Change the header of an xz file's first block, its sum made right again."""
    stop = 12 + (packed[12] + 1) * 4
    header = packed[12 : stop - 4].replace(before, after, 1).ljust(stop - 16, b"\0")
    return packed[:12] + header + struct.pack("<I", zlib.crc32(header)) + packed[stop:]


@pytest.mark.parametrize("packed", [BLOCKS, PLAIN], ids=["blocks", "plain"])
def test_dictionary_that_takes_all_memory_is_refused(packed):
    size = packed.index(b"\x21\x01") + 2
    huge = with_header(packed, packed[size - 2 : size + 1], b"\x21\x01\x28")
    with pytest.raises(lzma.LZMAError, match=r"[Mm]emory"):
        xz.open_xz(io.BytesIO(huge)).read()


@pytest.mark.parametrize("claimed", [1, 4999, 5001, (1 << 21) - 1])
def test_block_that_claims_another_size_is_damaged(claimed):
    changed = with_header(blocks_with_sizes(b"x" * 5000, 5000), number(5000), number(claimed))
    with pytest.raises((lzma.LZMAError, EOFError)):
        xz.open_xz(io.BytesIO(changed)).read()


def test_index_that_claims_more_than_xz_can_hold_is_not_believed():
    packed = blocks_with_sizes(b"x" * 5000, 5000)
    start = packed.rindex(b"\0\x01", 0, len(packed) - 12)
    index = b"\0\x01" + number(start - 12) + number(1 << 60)
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    footer = struct.pack("<I", len(index) // 4 - 1) + b"\0\x01"
    claims = packed[:start] + index + struct.pack("<I", zlib.crc32(footer)) + footer + b"YZ"
    assert xz.unpacked_size(len(claims), lambda at, count: claims[at : at + count]) is None
