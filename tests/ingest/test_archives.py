import contextlib
import gzip
import io
import lzma
import random
import tarfile

import pytest

from tests.ingest.conftest import members_in, packed, tar_of, volumes
from workbench.ingest import archives
from workbench.ingest.archives import ArchiveError, Unpacked, digest_of, sniff, unpack
from workbench.stores import DiskStore


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def unpacked(content: bytes, folder, name="a.tar", *, size=1 << 90, result=None) -> Unpacked:
    result = result or Unpacked()
    unpack(io.BytesIO(content), DiskStore(folder, sync=False), name, result, size=size)
    return result


def flipped(content: bytes, place: int) -> bytes:
    """Return bytes with one of them damaged."""
    damaged = bytearray(content)
    damaged[place] ^= 0xFF
    return bytes(damaged)


@pytest.mark.parametrize(("kind", "extension"), [("tar", ""), ("gz", ".gz"), ("xz", ".xz")])
def test_kind_is_told_by_the_first_bytes_and_unpacks(tmp_path, kind, extension):
    members = volumes("multicoil_val/a.h5", "multicoil_val/b.h5")
    archive = packed(kind, members)
    assert sniff(archive[:512]) == f".tar{extension}"
    result = unpacked(archive, tmp_path, "a.tar.gz")
    assert members_in(tmp_path) == members
    assert result.written == 2
    assert result.members == {path: len(data) for path, data in members.items()}


def test_tar_from_before_ustar_is_told_by_its_sum(tmp_path):
    old = bytearray(tar_of({"a.h5": b"1234"}))
    old[257:265] = bytes(8)
    old[148:156] = b"        "
    old[148:156] = b"%06o\0 " % sum(old[:512])
    assert sniff(bytes(old[:512])) == ".tar"
    assert unpacked(bytes(old), tmp_path).members == {"a.h5": 4}


@pytest.mark.parametrize(
    "head",
    [b"", b"<?xml version=", b"PK\x03\x04" + bytes(600), bytes(512)],
    ids=["nothing", "XML", "zip", "zeros"],
)
def test_anything_else_is_no_archive(tmp_path, head):
    assert sniff(head) is None
    with pytest.raises(ArchiveError, match=r"^a.tar.gz: neither tar nor gzip nor xz"):
        unpacked(head, tmp_path, "a.tar.gz")
    for compress in (gzip.compress, lzma.compress):
        with pytest.raises(ArchiveError, match=r"^a.tar.gz: decodes, but holds no tar"):
            unpacked(compress(head), tmp_path, "a.tar.gz")


@pytest.mark.parametrize(
    "bad",
    [
        member("../out.h5"),
        member("multicoil_val/../../out.h5"),
        member("/tmp/fastmri-out.h5"),
        member("..\\out.h5"),
        member("C:\\out.h5"),
        member("multicoil_val/link.h5", tarfile.SYMTYPE, "/etc/passwd"),
        member("multicoil_val/link.h5", tarfile.SYMTYPE, "a.h5"),
        member("multicoil_val/hard.h5", tarfile.LNKTYPE, "multicoil_val/a.h5"),
        member("multicoil_val/fifo", tarfile.FIFOTYPE),
        member("multicoil_val/null", tarfile.CHRTYPE),
        member("ingest.json"),
        member("./.ingest.lock"),
        member("ingest.json/a.h5"),
        member("dataset_cache.partial.json"),
        member("dataset_cache.pkl"),
        member("../up", tarfile.DIRTYPE),
    ],
    ids=lambda info: f"{info.name} {info.type!r}",
)
def test_unsafe_member_is_refused_by_name_and_nothing_leaves_the_folder(tmp_path, bad):
    members = volumes("multicoil_val/a.h5")
    destination = tmp_path / "inner" / "knee"
    with pytest.raises(ArchiveError) as error:
        unpacked(tar_of(members, bad), destination, "knee.tar.xz")
    assert str(error.value).startswith(f"knee.tar.xz: member {bad.name!r} is refused: ")
    assert members_in(destination) == members
    assert sorted(tmp_path.rglob("*.h5")) == [destination / "multicoil_val" / "a.h5"]


def test_random_names_never_lead_outside(tmp_path):
    draw = random.Random(0)
    pieces = ["..", ".", "a", "b.h5", "", "/", "\\", "...", "~", "C:", "-", " ", "é", "a\nb", "..."]
    destination = tmp_path / "home" / "knee"
    for round_ in range(200):
        name = "/".join(draw.choices(pieces, k=draw.randint(1, 5)))
        with contextlib.suppress(ArchiveError, OSError):
            unpacked(tar_of({name: b"data %d" % round_}), destination)
        outside = [p for p in tmp_path.rglob("*") if destination not in (p, *p.parents)]
        assert outside in ([], [tmp_path / "home"])
    assert any(destination.rglob("*.h5"))


def test_litter_is_passed_over(tmp_path):
    members = {"multicoil_val/a.h5": b"1"}
    names = ("._m", "m/._a.h5", "m/.DS_Store", "__MACOSX/m/a.h5", "m/Thumbs.db")
    unpacked(tar_of(dict.fromkeys(names, b"x") | members), tmp_path)
    assert members_in(tmp_path) == members


def test_whole_members_are_passed_over_and_others_replaced(tmp_path):
    members = volumes("multicoil_val/a.h5", "multicoil_val/b.h5", "multicoil_val/c.h5")
    folder = tmp_path / "multicoil_val"
    folder.mkdir()
    (folder / "a.h5").write_bytes(members["multicoil_val/a.h5"])
    (folder / "b.h5").write_bytes(b"half")
    stamp = (folder / "a.h5").stat().st_mtime_ns
    result = unpacked(tar_of(members), tmp_path)
    assert members_in(tmp_path) == members
    assert (folder / "a.h5").stat().st_mtime_ns == stamp
    assert (result.written, result.replaced) == (2, ["multicoil_val/b.h5"])
    assert len(result.members) == 3


@pytest.mark.parametrize("place", [0, 1_048_576, 2_499_999])
def test_member_of_the_same_size_with_other_content_is_replaced(tmp_path, place):
    members = volumes("m/a.h5", "m/b.h5", size=2_500_000)
    unpacked(tar_of(members | {"m/a.h5": flipped(members["m/a.h5"], place)}), tmp_path)
    result = unpacked(tar_of(members), tmp_path)
    assert members_in(tmp_path) == members
    assert (result.written, result.replaced) == (1, ["m/a.h5"])
    assert result.digests == {path: digest_of(io.BytesIO(members[path])) for path in members}


def test_good_member_stays_until_its_replacement_is_whole(tmp_path):
    good = {"multicoil_val/a.h5": bytes(2_500_000)}
    unpacked(tar_of(good), tmp_path)
    other = tar_of(volumes("multicoil_val/a.h5", size=2_500_000))
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        unpacked(other[:2_000_000], tmp_path)
    assert members_in(tmp_path) == good


def test_member_that_is_there_twice_is_refused_where_its_content_differs(tmp_path):
    first = tar_of({"a.h5": b"ones"})[:1024]
    for second in (b"twos", b"another size"):
        with pytest.raises(ArchiveError, match=r"^a.tar: member 'a.h5' is there twice with diff"):
            unpacked(first + tar_of({"a.h5": second}), tmp_path)
        assert (tmp_path / "a.h5").read_bytes() == b"ones"
    assert unpacked(first + tar_of({"a.h5": b"ones"}), tmp_path).members == {"a.h5": 4}


SIZE = 2_500_096  # fills blocks of tar
SECOND = 512 + SIZE


@pytest.mark.parametrize(
    ("kind", "damage", "whole"),
    [
        *((kind, lambda packed: packed[: len(packed) * 3 // 4], 1) for kind in ("tar", "gz", "xz")),
        ("tar", lambda packed: packed[:SECOND], 1),
        ("tar", lambda packed: flipped(packed, SECOND + 20), 1),
        *((kind, lambda packed: packed[:-6], 1) for kind in ("gz", "xz")),
        # Gzip's own sum stands at its end: only the hash of the whole tells in time.
        *((kind, lambda packed: flipped(packed, len(packed) // 4), None) for kind in ("gz", "xz")),
    ],
    ids=range(9),
)
def test_damaged_archive_is_named_and_what_came_before_stays(tmp_path, kind, damage, whole):
    members, result = volumes("a.h5", "b.h5", size=SIZE), Unpacked()
    with pytest.raises(ArchiveError, match=r"^knee.tar.xz: truncated or damaged"):
        unpacked(damage(packed(kind, members)), tmp_path, "knee.tar.xz", result=result)
    there = members_in(tmp_path)
    assert list(result.members) == list(there)
    if whole is not None:
        assert there == dict(list(members.items())[:whole])


def test_second_tar_behind_the_first_is_not_lost_in_silence(tmp_path):
    twice = tar_of(volumes("a.h5")) + tar_of(volumes("b.h5", size=3_000_000))
    with pytest.raises(ArchiveError, match=r"^knee.tar: more data follows"):
        unpacked(twice, tmp_path, "knee.tar")


def test_full_disk_is_an_os_error_and_leaves_no_half_member(small_disk):
    members = volumes("a.h5", "b.h5", size=300_000)
    with pytest.raises(OSError, match="No space left"):
        unpacked(tar_of(members), small_disk / "knee")
    assert [path.name for path in (small_disk / "knee").iterdir()] == ["a.h5"]
    with pytest.raises(OSError, match=r"No space left for 900,000 bytes of large.h5"):
        unpacked(gzip.compress(tar_of({"large.h5": bytes(900_000)})), small_disk / "knee")


# ---- headers that claim too much ---------------------------------------------------------


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Write a header of tar that claims a size, negative and above 8 GiB in base 256."""
    info = member(name, kind)
    info.size = max(size, 0)
    content = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        content[124:136] = (size % (1 << 96)).to_bytes(12, "big")
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-1, -(1 << 40), 50 << 30, 1 << 62, (1 << 88) - 1])
def test_size_that_cannot_be_is_refused_and_what_was_there_stays(tmp_path, size, kind):
    (tmp_path / "bad.h5").write_bytes(b"good")
    archive = tar_of({"a.h5": b"1"})[:1024] + header("bad.h5", size, kind) + bytes(10_240)
    with pytest.raises((ArchiveError, OSError), match=r"truncated or damaged|No space left"):
        unpacked(archive, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "bad.h5"]
    assert (tmp_path / "bad.h5").read_bytes() == b"good"


@pytest.mark.parametrize(
    "content",
    [
        b"".join(member(f"m/{number}.h5").tobuf() for number in range(50)) + bytes(1024),
        member("a.h5").tobuf() + bytes(50_000),
    ],
    ids=["empty members", "zeros at the end"],
)
def test_bomb_without_content_is_refused(tmp_path, content, monkeypatch):
    monkeypatch.setattr(archives, "_SMALL", 20_000)
    with pytest.raises(ArchiveError, match="and is refused"):
        unpacked(lzma.compress(content), tmp_path, size=100)


def test_attributes_in_a_long_chain_are_an_error(tmp_path):
    chain = (header("x", 512, tarfile.XGLTYPE) + b"9 a=bcde\n".ljust(512, b"\0")) * 2000
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        unpacked(chain + bytes(1024), tmp_path)


def test_sparse_member_is_refused_by_name(tmp_path):
    archive = bytearray(header("a.h5", 0, tarfile.GNUTYPE_SPARSE))
    archive[483:495] = b"%011o\0" % (1 << 30)
    archive[148:156] = b"        "
    archive[148:156] = b"%06o\0 " % sum(archive)
    with pytest.raises(ArchiveError, match=r"member 'a.h5' is refused: it is sparse"):
        unpacked(bytes(archive) + bytes(10_240), tmp_path)


def test_name_that_cannot_be_shown_is_escaped(tmp_path):
    cut = tar_of({"caf\udce9\n\x1b[31m.h5": bytes(3000)})[:2000]
    with pytest.raises(ArchiveError, match=r"damaged after caf\\udce9\\n\\x1b\[31m\.h5 "):
        unpacked(cut, tmp_path, "knee.tar")
