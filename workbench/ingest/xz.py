"""Decode .xz while it streams in: by the ``xz`` program on all cores, else by Python on one."""

import io
import lzma
import os
import shutil
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator

from workbench.stores.streams import CHUNK, Readable, as_file

MAGIC = b"\xfd7zXZ\x00"
_HEADER, _FOOTER = 12, 12
# What a decoder may take; xz -9 needs 65 MiB, and its blocks of 192 MiB beside that on each core.
_MEMORY = 1 << 30
# More bytes than these do not come out of one byte of xz, whatever an index claims.
_LARGEST_RATIO = 10_000


def open_xz(source: Readable) -> io.BufferedReader:
    """Return a file of what the .xz file ``source``, read once from start to end, holds.

    Reading raises lzma.LZMAError where the data ends too early or is damaged, and whatever
    ``source`` raises. Closing the file ends the decoder.
    """
    program = shutil.which("xz")
    return as_file(_by_program(program, source) if program else _by_python(source))


def _by_program(program: str, source: Readable) -> Iterator[bytes]:
    trouble: list[BaseException] = []
    # Nothing of our environment, which may hold secrets or options for xz. Since 5.4 it decodes
    # blocks side by side, and waits where that would take more memory than is good here.
    process = subprocess.Popen(
        [program, "-dc", "-F", "xz", "-T0", f"--memlimit-decompress={_MEMORY}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"LC_ALL": "C"},
        process_group=0,  # an interrupt is for us to handle
        bufsize=0,
    )
    into, out, said = process.stdin, process.stdout, process.stderr
    assert into is not None
    assert out is not None
    assert said is not None

    def feed() -> None:
        try:
            while data := memoryview(source.read(CHUNK)):
                while data:
                    data = data[os.write(into.fileno(), data) :]
        except BrokenPipeError:  # it has ended, and says why
            pass
        except BaseException as error:
            trouble.append(error)
        finally:
            into.close()

    feeder = threading.Thread(target=feed, name="xz")
    feeder.start()
    try:
        while data := os.read(out.fileno(), CHUNK):
            yield data
        problem = said.read().decode(errors="replace").strip().rpartition("(stdin): ")[2]
        code = process.wait()
    finally:
        process.kill()
        feeder.join()
        process.wait()
        out.close()
        said.close()
    if trouble:
        raise trouble[0]
    if code < 0:
        raise OSError(f"the xz program was ended by signal {-code}")
    if code:
        raise lzma.LZMAError(problem)


def _by_python(source: Readable) -> Iterator[bytes]:
    data = source.read(CHUNK)
    while True:
        decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY)
        while not decoder.eof:
            if not data and decoder.needs_input and not (data := source.read(CHUNK)):
                raise lzma.LZMAError("the data ends too early")
            yield decoder.decompress(data, max_length=4 * CHUNK)
            data = b""
        # Between streams and at the end there may be zeros, in fours.
        data, zeros = decoder.unused_data, 0
        while data or (data := source.read(CHUNK)):
            rest = data.lstrip(b"\0")
            zeros, data = zeros + len(data) - len(rest), rest
            if data:
                break
        if zeros % 4:
            raise lzma.LZMAError("no xz stream begins here")
        if not data:
            return


def unpacked_size(size: int, read_at: Callable[[int, int], bytes]) -> int | None:
    """Return how many bytes an .xz file of ``size`` bytes decodes to, by the index at its end.

    The format: https://tukaani.org/xz/xz-file-format.txt, sections 2 and 4.

    Args:
        size: bytes of the compressed file.
        read_at: returns ``count`` bytes from ``offset``: ``read_at(offset, count)``.

    Returns:
        The size, or None where the file does not end in the footer of its only stream.
    """
    if size < _HEADER + _FOOTER + 8:
        return None
    footer = read_at(size - _FOOTER, _FOOTER)
    length = (int.from_bytes(footer[4:8], "little") + 1) * 4
    start = size - _FOOTER - length
    if footer[10:] != b"YZ" or start < _HEADER or length > 64 << 20:
        return None
    index = read_at(start, length)
    if index[:1] != b"\0" or zlib.crc32(index[:-4]) != int.from_bytes(index[-4:], "little"):
        return None
    numbers = _numbers(index[1:-4])
    blocks = total = 0
    try:
        for _ in range(next(numbers)):
            unpadded = next(numbers)
            blocks, total = blocks + unpadded + -unpadded % 4, total + next(numbers)
    except StopIteration:
        return None
    # A file of several streams has more before this one than this index speaks of.
    return total if start - blocks == _HEADER and total <= size * _LARGEST_RATIO else None


def _numbers(data: bytes) -> Iterator[int]:
    """Yield the index's numbers of variable length (section 1.2), as long as they are right."""
    value = place = 0
    for byte in data:
        value |= (byte & 0x7F) << (7 * place)
        place += 1
        if not byte & 0x80:
            yield value
            value = place = 0
        elif place == 9:
            return
