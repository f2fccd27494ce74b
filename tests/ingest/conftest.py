import gzip
import hashlib
import io
import lzma
import os
import random
import subprocess
import tarfile
from pathlib import Path

import pytest

from workbench.ingest.server import Patience


@pytest.fixture
def volumes():
    """Make members: path -> bytes, random but the same each time."""

    def make(*paths: str, size: int = 50_000) -> dict[str, bytes]:
        return {path: random.Random(path).randbytes(size) for path in paths}

    return make


@pytest.fixture
def tar_of():
    """Make a tar of members; a TarInfo stands for itself."""

    def make(members: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
            for info in extra:
                tar.addfile(info, io.BytesIO(bytes(info.size)))
        return buffer.getvalue()

    return make


@pytest.fixture
def packed(tar_of):
    """Make an archive of a kind: "tar", "gz" or "xz"."""

    def make(kind: str, members: dict[str, bytes]) -> bytes:
        tar = tar_of(members)
        if kind == "gz":
            return gzip.compress(tar, 1)
        return lzma.compress(tar, preset=0) if kind == "xz" else tar

    return make


@pytest.fixture
def sums_of():
    """Write a list in the form of sha256sum for files."""

    def make(*files: Path) -> str:
        return "".join(
            f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files
        )

    return make


@pytest.fixture
def knee(tmp_path, packed, volumes, sums_of):
    """A small knee release in three kinds of archive; the folder and what it holds."""
    folder = tmp_path / "bucket"
    folder.mkdir()
    val = volumes("multicoil_val/a.h5", "multicoil_val/b.h5", size=200_000)
    test = volumes("multicoil_test/c.h5")
    train = volumes("multicoil_train/d.h5")
    litter = {"multicoil_val/._a.h5": b"litter", ".DS_Store": b"litter"}
    (folder / "knee_multicoil_val.tar.xz").write_bytes(packed("xz", litter | val))
    (folder / "knee_multicoil_test.tar.xz").write_bytes(packed("gz", test))
    (folder / "knee_multicoil_train_batch_0.tar.xz").write_bytes(packed("tar", train))
    listed = [folder / "knee_multicoil_val.tar.xz", folder / "knee_multicoil_test.tar.xz"]
    (folder / "SHA256").write_text(sums_of(*listed))
    return folder, val | test | train


@pytest.fixture
def members_in():
    """Read a dataset's folder: path -> bytes of every file but the workbench's own."""

    def read(folder: Path) -> dict[str, bytes]:
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file() and path.name not in ("ingest.json", ".ingest.lock")
        }

    return read


@pytest.fixture
def hasty():
    """Patience that gives up soon."""
    return Patience(attempts=4, first_delay=0.01, longest_delay=0.02, timeout=5)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 512 KiB, which needs root to mount."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "none", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)
