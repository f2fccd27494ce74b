import contextlib
import gzip
import io
import lzma
import random
import tarfile

import pytest

from workbench.ingest import archives
from workbench.ingest.archives import (
    ArchiveError,
    Unpacked,
    digest_of,
    sniff,
    unpack,
)
from workbench.stores import DiskStore


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


@pytest.mark.parametrize(("kind", "extension"), [("tar", ""), ("gz", ".gz"), ("xz", ".xz")])
def test_kind_is_told_by_the_first_bytes_and_unpacks(
    tmp_path, packed, volumes, members_in, kind, extension
):
    members = volumes("multicoil_val/a.h5", "multicoil_val/b.h5")
    archive = packed(kind, members)
    assert sniff(archive[:512]) == f".tar{extension}"
    result = unpack(io.BytesIO(archive), DiskStore(tmp_path), "a.tar.gz")
    assert members_in(tmp_path) == members
    assert result.written == 2
    assert result.members == {path: len(data) for path, data in members.items()}


def test_tar_from_before_ustar_is_told_by_its_sum(tmp_path, tar_of):
    old = bytearray(tar_of({"a.h5": b"1234"}))
    old[257:265] = bytes(8)
    old[148:156] = b"        "
    old[148:156] = b"%06o\0 " % sum(old[:512])
    assert sniff(bytes(old[:512])) == ".tar"
    assert unpack(io.BytesIO(bytes(old)), DiskStore(tmp_path), "a.tar").members == {"a.h5": 4}


@pytest.mark.parametrize(
    "head",
    [b"", b"<?xml version=", b"PK\x03\x04" + bytes(600), bytes(512)],
    ids=["nothing", "XML", "zip", "zeros"],
)
def test_anything_else_is_no_archive(tmp_path, head):
    assert sniff(head) is None
    with pytest.raises(ArchiveError, match=r"^a.tar.gz: neither tar nor gzip nor xz"):
        unpack(io.BytesIO(head), DiskStore(tmp_path), "a.tar.gz")


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress])
def test_compressed_but_no_tar(tmp_path, compress):
    with pytest.raises(ArchiveError, match=r"^a.tar.gz: decodes, but holds no tar"):
        unpack(io.BytesIO(compress(b"no tar" * 1000)), DiskStore(tmp_path), "a.tar.gz")


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
def test_unsafe_member_is_refused_by_name_and_nothing_leaves_the_folder(
    tmp_path, tar_of, volumes, members_in, bad
):
    members = volumes("multicoil_val/a.h5")
    archive = tar_of(members, bad)
    destination = tmp_path / "inner" / "knee"
    with pytest.raises(ArchiveError) as error:
        unpack(io.BytesIO(archive), DiskStore(destination), "knee.tar.xz")
    assert str(error.value).startswith(f"knee.tar.xz: member {bad.name!r} is refused: ")
    assert members_in(destination) == members
    assert sorted(tmp_path.rglob("*.h5")) == [destination / "multicoil_val" / "a.h5"]


def test_random_names_never_lead_outside(tmp_path, tar_of):
    draw = random.Random(0)
    pieces = ["..", ".", "a", "b.h5", "", "/", "\\", "...", "~", "C:", "-", " ", "é", "a\nb", "..."]
    destination = tmp_path / "home" / "knee"
    for round_ in range(200):
        name = "/".join(draw.choices(pieces, k=draw.randint(1, 5)))
        archive = tar_of({name: b"data %d" % round_})
        with contextlib.suppress(ArchiveError, OSError):
            unpack(io.BytesIO(archive), DiskStore(destination), "knee.tar")
        outside = [p for p in tmp_path.rglob("*") if destination not in (p, *p.parents)]
        assert outside in ([], [tmp_path / "home"])
    assert any(destination.rglob("*.h5"))


def test_litter_is_passed_over(tmp_path, tar_of, members_in):
    members = {"multicoil_val/a.h5": b"1"}
    litter = {
        "._multicoil_val": b"x",
        "multicoil_val/._a.h5": b"x",
        "multicoil_val/.DS_Store": b"x",
        "__MACOSX/multicoil_val/a.h5": b"x",
        "multicoil_val/Thumbs.db": b"x",
    }
    unpack(io.BytesIO(tar_of(litter | members)), DiskStore(tmp_path), "a.tar")
    assert members_in(tmp_path) == members


def test_whole_members_are_passed_over_and_others_replaced(tmp_path, tar_of, volumes, members_in):
    members = volumes("multicoil_val/a.h5", "multicoil_val/b.h5", "multicoil_val/c.h5")
    folder = tmp_path / "multicoil_val"
    folder.mkdir()
    (folder / "a.h5").write_bytes(members["multicoil_val/a.h5"])
    (folder / "b.h5").write_bytes(b"half")
    stamp = (folder / "a.h5").stat().st_mtime_ns
    result = unpack(io.BytesIO(tar_of(members)), DiskStore(tmp_path), "a.tar")
    assert members_in(tmp_path) == members
    assert (folder / "a.h5").stat().st_mtime_ns == stamp
    assert (result.written, result.replaced) == (2, ["multicoil_val/b.h5"])
    assert len(result.members) == 3


@pytest.mark.parametrize("place", [0, 1_048_576, 2_499_999])
def test_member_of_the_same_size_with_other_content_is_replaced(
    tmp_path, tar_of, volumes, members_in, place
):
    members = volumes("multicoil_val/a.h5", "multicoil_val/b.h5", size=2_500_000)
    damaged = bytearray(members["multicoil_val/a.h5"])
    damaged[place] ^= 1
    unpack(
        io.BytesIO(tar_of(members | {"multicoil_val/a.h5": bytes(damaged)})),
        DiskStore(tmp_path),
        "a.tar",
    )
    result = unpack(io.BytesIO(tar_of(members)), DiskStore(tmp_path), "a.tar")
    assert members_in(tmp_path) == members
    assert (result.written, result.replaced) == (1, ["multicoil_val/a.h5"])
    assert result.digests == {path: digest_of(io.BytesIO(members[path])) for path in members}


def test_good_member_stays_until_its_replacement_is_whole(tmp_path, tar_of, volumes, members_in):
    good = {"multicoil_val/a.h5": bytes(2_500_000)}
    unpack(io.BytesIO(tar_of(good)), DiskStore(tmp_path), "a.tar")
    other = tar_of(volumes("multicoil_val/a.h5", size=2_500_000))
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        unpack(io.BytesIO(other[:2_000_000]), DiskStore(tmp_path), "a.tar")
    assert members_in(tmp_path) == good


def test_member_that_is_there_twice_is_refused_where_its_content_differs(tmp_path, tar_of):
    def twice(first: bytes, second: bytes) -> bytes:
        cut = tar_of({"a.h5": first})[:1024]
        return cut + tar_of({"a.h5": second})

    for second in (b"twos", b"another size"):
        with pytest.raises(ArchiveError, match=r"^a.tar: member 'a.h5' is there twice with diff"):
            unpack(io.BytesIO(twice(b"ones", second)), DiskStore(tmp_path), "a.tar")
        assert (tmp_path / "a.h5").read_bytes() == b"ones"
    assert unpack(io.BytesIO(twice(b"ones", b"ones")), DiskStore(tmp_path), "a.tar").members == {
        "a.h5": 4
    }


@pytest.mark.parametrize("kind", ["tar", "gz", "xz"])
def test_truncated_archive_is_named_and_what_came_before_stays(
    tmp_path, packed, volumes, members_in, kind
):
    members = volumes("multicoil_val/a.h5", "multicoil_val/b.h5", size=2_500_000)
    archive = packed(kind, members)
    result = Unpacked()
    with pytest.raises(ArchiveError, match=r"^knee.tar.xz: truncated or damaged"):
        unpack(
            io.BytesIO(archive[: len(archive) * 3 // 4]),
            DiskStore(tmp_path),
            "knee.tar.xz",
            result=result,
        )
    first = {"multicoil_val/a.h5": members["multicoil_val/a.h5"]}
    assert members_in(tmp_path) == first
    assert list(result.members) == list(first)


def test_tar_cut_off_between_two_members_is_truncated(tmp_path, tar_of, volumes, members_in):
    members = volumes("a.h5", "b.h5", size=51_200)
    cut = tar_of(members)[: 512 + 51_200]
    with pytest.raises(ArchiveError, match=r"^knee.tar: truncated or damaged after a.h5"):
        unpack(io.BytesIO(cut), DiskStore(tmp_path), "knee.tar")
    assert list(members_in(tmp_path)) == ["a.h5"]


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_cut_off_after_the_last_member_is_truncated_too(tmp_path, packed, volumes, kind):
    archive = packed(kind, volumes("a.h5"))
    with pytest.raises(ArchiveError, match=r"^knee.tar: truncated or damaged"):
        unpack(io.BytesIO(archive[:-6]), DiskStore(tmp_path), "knee.tar")


def test_second_tar_behind_the_first_is_not_lost_in_silence(tmp_path, tar_of, volumes):
    twice = tar_of(volumes("a.h5")) + tar_of(volumes("b.h5", size=3_000_000))
    with pytest.raises(ArchiveError, match=r"^knee.tar: more data follows"):
        unpack(io.BytesIO(twice), DiskStore(tmp_path), "knee.tar")


@pytest.mark.parametrize("kind", ["gz", "xz"])
def test_damaged_bytes_are_an_error(tmp_path, packed, volumes, kind):
    archive = bytearray(packed(kind, volumes("a.h5")))
    archive[len(archive) // 2] ^= 0xFF
    with pytest.raises(ArchiveError, match=r"^knee.tar: truncated or damaged"):
        unpack(io.BytesIO(bytes(archive)), DiskStore(tmp_path), "knee.tar")


def test_damaged_header_in_the_middle_is_an_error(tmp_path, tar_of, volumes):
    archive = bytearray(tar_of(volumes("a.h5", "b.h5", size=51_200)))
    archive[512 + 51_200 + 20] ^= 0xFF
    with pytest.raises(ArchiveError, match=r"^knee.tar: truncated or damaged after a.h5"):
        unpack(io.BytesIO(bytes(archive)), DiskStore(tmp_path), "knee.tar")


def test_leftovers_of_a_killed_run_are_removed(tmp_path, volumes):
    folder = tmp_path / "multicoil_val"
    folder.mkdir()
    for left in (".a.h5.ingest-part", ".a.h5.0123456789ab.part", ".a.h5.transfer-part"):
        (folder / left).write_bytes(b"half")
    (folder / "b.h5").write_bytes(b"whole")
    DiskStore(tmp_path).sweep()
    assert [path.name for path in folder.iterdir()] == ["b.h5"]
    DiskStore(tmp_path / "none").sweep()


def test_disk_full_is_an_os_error_and_leaves_no_half_member(small_disk, tar_of, volumes):
    members = volumes("a.h5", "b.h5", size=300_000)
    with pytest.raises(OSError, match="No space left"):
        unpack(io.BytesIO(tar_of(members)), DiskStore(small_disk / "knee"), "knee.tar")
    assert [path.name for path in (small_disk / "knee").iterdir()] == ["a.h5"]


# ---- headers that claim too much ---------------------------------------------------------


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Write a header of tar that claims a size, negative and above 8 GiB in base 256."""
    info = member(name, kind)
    content = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    content[124:136] = (size % (1 << 96)).to_bytes(12, "big") if size < 0 else content[124:136]
    if size >= 0:
        info.size = size
        content = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    content[148:156] = b"        "
    content[148:156] = b"%06o\0 " % sum(content)
    return bytes(content)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
@pytest.mark.parametrize("size", [-1, -(1 << 40), 50 << 30, 1 << 62, (1 << 88) - 1])
def test_size_that_cannot_be_is_refused_and_what_was_there_stays(tmp_path, size, kind, tar_of):
    (tmp_path / "bad.h5").write_bytes(b"good")
    archive = tar_of({"a.h5": b"1"})[:1024] + header("bad.h5", size, kind) + bytes(10_240)
    with pytest.raises((ArchiveError, OSError), match=r"truncated or damaged|No space left"):
        unpack(io.BytesIO(archive), DiskStore(tmp_path), "a.tar")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "bad.h5"]
    assert (tmp_path / "bad.h5").read_bytes() == b"good"


def test_member_larger_than_the_disk_is_refused_before_it_is_written(small_disk, tar_of):
    archive = gzip.compress(tar_of({"a.h5": bytes(900_000)}))
    with pytest.raises(OSError, match=r"No space left for 900,000 bytes of a.h5"):
        unpack(io.BytesIO(archive), DiskStore(small_disk / "knee"), "a.tar.gz")


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
    packed = lzma.compress(content)
    with pytest.raises(ArchiveError, match="and is refused"):
        unpack(io.BytesIO(packed), DiskStore(tmp_path, sync=False), "a.tar", size=100)


def test_attributes_in_a_long_chain_are_an_error(tmp_path):
    chain = (header("x", 512, tarfile.XGLTYPE) + b"9 a=bcde\n".ljust(512, b"\0")) * 2000
    with pytest.raises(ArchiveError, match="truncated or damaged"):
        unpack(io.BytesIO(chain + bytes(1024)), DiskStore(tmp_path), "a.tar")


def test_sparse_member_is_refused_by_name(tmp_path):
    archive = bytearray(header("a.h5", 0, tarfile.GNUTYPE_SPARSE))
    archive[483:495] = b"%011o\0" % (1 << 30)
    archive[148:156] = b"        "
    archive[148:156] = b"%06o\0 " % sum(archive)
    with pytest.raises(ArchiveError, match=r"member 'a.h5' is refused: it is sparse"):
        unpack(io.BytesIO(bytes(archive) + bytes(10_240)), DiskStore(tmp_path), "a.tar")
