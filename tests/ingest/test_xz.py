import io
import lzma
import os
import random
import struct
import threading
import time
import zlib

import psutil
import pytest

from workbench.ingest import xz


def number(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def blocks_with_sizes(data: bytes, block_size: int) -> bytes:
    """Write data as ``xz -T`` does: blocks whose headers carry their sizes, CRC32 checks."""
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
    return out + ending(number(len(pieces)) + records)


def ending(records: bytes) -> bytes:
    """Write the index and the footer of a stream."""
    index = b"\x00" + records
    index += bytes(-len(index) % 4)
    index += struct.pack("<I", zlib.crc32(index))
    tail = struct.pack("<I", len(index) // 4 - 1) + b"\x00\x01"
    return index + struct.pack("<I", zlib.crc32(tail)) + tail + b"YZ"


DATA = random.Random(1).randbytes(300_000) + bytes(200_000) + random.Random(2).randbytes(77)
BLOCKS = blocks_with_sizes(DATA, 64_000)
PLAIN = lzma.compress(DATA, preset=0)
BOTH = pytest.mark.parametrize("packed", [BLOCKS, PLAIN], ids=["blocks", "plain"])


def programs():
    """Return this process's xz programs."""
    return [child for child in psutil.Process().children() if child.name() == "xz"]


@pytest.fixture(params=["xz", "python"], autouse=True)
def decoder(request, monkeypatch):
    """Each decoder: the program where it is installed, and Python's own."""
    if request.param == "python":
        monkeypatch.setattr(xz.shutil, "which", lambda _: None)
    elif xz.shutil.which("xz") is None:
        pytest.skip("the xz program is not installed")
    return request.param


def decoded(packed: bytes) -> bytes:
    return xz.open_xz(io.BytesIO(packed)).read()


class Trickle(io.BytesIO):
    """A file that gives few bytes at a time, as a socket may."""

    def read(self, size=-1):
        return super().read(min(size, 777) if size >= 0 else 777)


@pytest.mark.parametrize("opened", [io.BytesIO, Trickle])
@BOTH
def test_bytes_come_in_order(packed, opened):
    assert lzma.decompress(packed) == DATA
    assert xz.open_xz(opened(packed)).read() == DATA


@pytest.mark.parametrize("check", [lzma.CHECK_NONE, lzma.CHECK_CRC64, lzma.CHECK_SHA256])
def test_every_integrity_check_is_understood(check):
    assert decoded(lzma.compress(DATA, check=check)) == DATA
    assert decoded(lzma.compress(b"", check=check)) == b""


@pytest.mark.parametrize("second", [BLOCKS, PLAIN], ids=["blocks", "plain"])
@pytest.mark.parametrize("padding", [0, 4, 400])
@BOTH
def test_concatenated_and_padded_streams(packed, second, padding):
    assert decoded(packed + bytes(padding) + second + bytes(padding)) == DATA * 2


@BOTH
def test_truncation_anywhere_is_an_error(packed):
    few = [0, 5, 12, 13, 100, *range(1000, len(packed), 90_000)]
    for cut in [*few, *range(len(packed) - 30, len(packed), 3), len(packed) - 1]:
        with pytest.raises(lzma.LZMAError):
            decoded(packed[:cut])


@BOTH
def test_a_flipped_bit_is_an_error(packed):
    places = [0, 7, 9, 13, 14, 20, *range(50, len(packed), 90_000)]
    for place in [*places, *range(len(packed) - 40, len(packed), 3)]:
        damaged = bytearray(packed)
        damaged[place] ^= 0x10
        with pytest.raises(lzma.LZMAError):
            decoded(bytes(damaged))


@pytest.mark.parametrize("rubbish", [b"rubbish that is long enough", bytes(5), bytes(4) + b"x"])
def test_rubbish_after_a_stream_is_an_error(rubbish):
    with pytest.raises(lzma.LZMAError):
        decoded(BLOCKS + rubbish)


def test_closing_early_ends_the_decoder_and_reads_no_further():
    file = xz.open_xz(io.BytesIO(lzma.compress(bytes(1 << 28), preset=0)))
    file.read(10)
    file.close()
    assert "xz" not in {thread.name for thread in threading.enumerate()}
    assert programs() == []


def test_what_breaks_the_source_is_what_reading_raises():
    class Broken(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 100_000:
                raise ConnectionError("gone")
            return super().read(10_000)

    with pytest.raises(ConnectionError, match="gone"):
        xz.open_xz(Broken(BLOCKS)).read()
    assert programs() == []


def test_bytes_ahead_are_bounded(decoder):
    packed = lzma.compress(random.Random(3).randbytes(1 << 20) * 16, preset=0)
    source = io.BytesIO(packed * 4)
    with xz.open_xz(source) as file:
        file.read(10)
        time.sleep(0.5)
        assert source.tell() < len(packed) * 2


def test_secrets_and_options_of_the_environment_do_not_reach_the_program(monkeypatch, decoder):
    if decoder == "python":
        pytest.skip("no program")
    monkeypatch.setenv("FASTMRI_LINKS", "a secret")
    monkeypatch.setenv("XZ_OPT", "--memlimit-decompress=1")
    release, source = threading.Event(), io.BytesIO(BLOCKS)
    source.read = lambda size, read=source.read: release.wait(20) and read(size)
    file = xz.open_xz(source)
    reading = threading.Thread(target=file.read, daemon=True)
    reading.start()
    while not (found := programs()):
        time.sleep(0.01)
    assert found[0].environ() == {"LC_ALL": "C"}
    release.set()
    reading.join()


def test_program_that_is_killed_is_no_damaged_archive(decoder):
    if decoder == "python":
        pytest.skip("no program")
    file = xz.open_xz(io.BytesIO(lzma.compress(bytes(1 << 28), preset=0)))
    file.read(10)
    os.kill(programs()[0].pid, 9)
    with pytest.raises(OSError, match="ended by signal 9"):
        file.read()


def with_header(packed: bytes, before: bytes, after: bytes) -> bytes:
    """Change the header of an xz file's first block, its sum made right again."""
    stop = 12 + (packed[12] + 1) * 4
    header = packed[12 : stop - 4].replace(before, after, 1).ljust(stop - 16, b"\0")
    return packed[:12] + header + struct.pack("<I", zlib.crc32(header)) + packed[stop:]


@BOTH
def test_dictionary_that_takes_all_memory_is_refused(packed):
    size = packed.index(b"\x21\x01") + 2
    huge = with_header(packed, packed[size - 2 : size + 1], b"\x21\x01\x28")
    with pytest.raises(lzma.LZMAError, match=r"[Mm]emory"):
        decoded(huge)


@pytest.mark.parametrize("claimed", [1, 4999, 5001, (1 << 21) - 1])
def test_block_that_claims_another_size_is_damaged(claimed):
    changed = with_header(blocks_with_sizes(b"x" * 5000, 5000), number(5000), number(claimed))
    with pytest.raises(lzma.LZMAError):
        decoded(changed)


# ---- the size by the index ---------------------------------------------------------------


def size_of(packed: bytes) -> tuple[int | None, int]:
    """Return the unpacked size by the index, and how many bytes were read for it."""
    asked = []
    found = xz.unpacked_size(len(packed), lambda o, n: asked.append(n) or packed[o : o + n])
    return found, sum(asked)


@BOTH
def test_unpacked_size_by_the_index(packed):
    found, read = size_of(packed)
    assert found == len(DATA)
    assert read < 200


CLAIMS = blocks_with_sizes(b"x" * 5000, 5000)
INDEX = CLAIMS.rindex(b"\0\x01", 0, len(CLAIMS) - 12)
MORE = CLAIMS[:INDEX] + ending(number(1) + number(INDEX - 12) + number(1 << 60))


@pytest.mark.parametrize(
    "packed",
    [BLOCKS + BLOCKS, BLOCKS[:-5], b"", b"x" * 100, MORE, CLAIMS[:INDEX] + ending(number(9))],
    ids=["two streams", "cut", "empty", "rubbish", "more than xz can hold", "no records"],
)
def test_unpacked_size_is_none_where_the_index_does_not_cover_the_file(packed):
    assert size_of(packed)[0] is None
