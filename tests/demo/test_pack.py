import hashlib
import shutil
import subprocess
import tarfile

import numpy as np
import pytest

from workbench.catalog import dataset_of_archive
from workbench_demo.pack import pack

MAGIC = {"tar.xz": b"\xfd7zXZ\x00", "tar.gz": b"\x1f\x8b"}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Folders as a study's; packing does not look into the files."""
    root = tmp_path_factory.mktemp("studies")
    draw = np.random.default_rng(0)
    for dataset, kind in (("brain_multicoil", "multicoil"), ("knee_multicoil", "multicoil")):
        for split, count in (("train", 3), ("val", 1), ("test", 1)):
            folder = root / dataset / f"{kind}_{split}"
            folder.mkdir(parents=True)
            for number in range(count):
                (folder / f"file{number}.h5").write_bytes(draw.bytes(700_000))
    return {name: root / name for name in ("brain_multicoil", "knee_multicoil")}


@pytest.fixture(scope="module")
def bucket(studies, tmp_path_factory):
    """The packed studies' folder."""
    return tmp_path_factory.mktemp("bucket")


@pytest.fixture(scope="module")
def packed(studies, bucket):
    """What ``pack`` says of the archives in ``bucket``."""
    return pack(studies, bucket)


def members(path):
    with tarfile.open(path) as tar:
        return {entry.name: tar.extractfile(entry).read() for entry in tar if entry.isfile()}


def test_every_volume_is_packed_once_and_unchanged(bucket, studies, packed):
    for dataset, root in studies.items():
        found = {}
        for archive in packed:
            if archive.dataset == dataset:
                real = {
                    name.replace("_v2/", "/"): data
                    for name, data in members(bucket / archive.name).items()
                    if not name.rpartition("/")[2].startswith(".")
                }
                assert found.keys().isdisjoint(real)
                found |= real
        expected = {
            str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.h5"))
        }
        assert found == expected


def test_names_are_fastmri_s_and_some_lie_about_what_they_are(bucket, packed):
    kinds = {}
    for archive in packed:
        assert dataset_of_archive(archive.name) == archive.dataset
        start = (bucket / archive.name).read_bytes()[:512]
        kind = next((kind for kind, magic in MAGIC.items() if start.startswith(magic)), "tar")
        assert kind == archive.kind
        if kind == "tar":
            assert start[257:262] == b"ustar"
        kinds.setdefault(kind, []).append(archive.name)
    assert kinds["tar"] == ["multicoil_train.tar.gz", "knee_multicoil_test_v2.tar.gz"]
    assert kinds["tar.gz"] == ["multicoil_val.tar.gz"]
    assert len(kinds["tar.xz"]) == 4
    names = set(members(bucket / "multicoil_train.tar.gz"))  # with litter of macOS
    assert {"multicoil_train/.DS_Store", "multicoil_train/._file0.h5"} <= names


def test_sha256_lists_some_archives_in_gnu_form(bucket, packed):
    lines = (bucket / "SHA256").read_text().splitlines()
    listed = dict(reversed(line.split("  ")) for line in lines)
    assert 0 < len(listed) < len(packed)
    for name, digest in listed.items():
        data = (bucket / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest


def test_packing_again_gives_the_same_bytes(tmp_path, studies, bucket, packed):
    pack(studies, tmp_path)
    for path in sorted(bucket.iterdir()):
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("name", ["spleen", "brain_multicoil"])
def test_study_that_cannot_be_packed_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        pack({name: tmp_path / "empty"}, tmp_path / "bucket")


@pytest.mark.skipif(not shutil.which("xz"), reason="needs the xz command")
def test_xz_finds_the_sizes_in_the_headers(bucket, packed):
    path = bucket / "brain_multicoil_train_batch_0.tar.xz"
    listing = subprocess.run(
        ["xz", "--list", "-vv", str(path)], check=True, capture_output=True, text=True
    ).stdout
    blocks = [line.split() for line in listing.splitlines() if "CRC64" in line and "cu" in line]
    # "cu" in the flags' column: the header holds the compressed and the uncompressed size.
    assert len(blocks) == 2


def test_a_machine_without_xz_packs_the_same_members(
    tmp_path, studies, bucket, packed, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    for archive in pack(studies, tmp_path / "without"):
        without = members(tmp_path / "without" / archive.name)
        assert without == members(bucket / archive.name)
