"""Pack studies as fastMRI ships them: every kind of archive, and SHA256.

Brain archives take the names and the format of 2025 (``.tar.xz`` in batches); knee archives those
of 2021, where most files called ``.tar.gz`` are plain tar. None of them holds DICOM.
"""

import gzip
import hashlib
import io
import lzma
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# K-space is noise in all but its exponents: this finds what there is to find (to 85 %) at 10 MB/s a
# processor, where lzma's own fastest preset finds less (to 91 %) at 7 MB/s.
_XZ = {"preset": 0, "mf": "hc3", "mode": "fast", "nice": 8, "depth": 1, "lc": 0, "lp": 2, "pb": 2}
# The files that macOS leaves in archives: resource forks and folder settings.
_APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(88)
_DS_STORE = b"\x00\x00\x00\x01Bud1" + bytes(120)


@dataclass(frozen=True)
class Archive:
    """One archive to be packed.

    Attributes:
        name: as the email's links call it.
        dataset: the dataset that it belongs to.
        folder: sub-folder of the study that it holds.
        kind: "tar.xz", "tar.gz" or "tar"; the name may say otherwise.
        batch: which share of the folder's volumes, and of how many.
        inside: the folder's name in the archive, where it is another.
        listed: whether SHA256 lists it.
        littered: whether macOS left its files in it.
    """

    name: str
    dataset: str
    folder: str
    kind: str
    batch: tuple[int, int] = (0, 1)
    inside: str = ""
    listed: bool = True
    littered: bool = False


_BRAIN, _KNEE, _SINGLE = "brain_multicoil", "knee_multicoil", "knee_singlecoil"
_BATCH = "brain_multicoil_train_batch"
ARCHIVES = (
    Archive(f"{_BATCH}_0.tar.xz", _BRAIN, "multicoil_train", "tar.xz", (0, 2), littered=True),
    Archive(f"{_BATCH}_1.tar.xz", _BRAIN, "multicoil_train", "tar.xz", (1, 2)),
    Archive("brain_multicoil_val_batch_0.tar.xz", _BRAIN, "multicoil_val", "tar.xz"),
    Archive(
        "brain_multicoil_test_batch_0.tar.xz", _BRAIN, "multicoil_test", "tar.xz", listed=False
    ),
    Archive("multicoil_train.tar.gz", _KNEE, "multicoil_train", "tar", littered=True),
    Archive("multicoil_val.tar.gz", _KNEE, "multicoil_val", "tar.gz", listed=False),
    Archive(
        "knee_multicoil_test_v2.tar.gz", _KNEE, "multicoil_test", "tar", inside="multicoil_test_v2"
    ),
    Archive("knee_singlecoil_train.tar.gz", _SINGLE, "singlecoil_train", "tar", listed=False),
    Archive("knee_singlecoil_val.tar.gz", _SINGLE, "singlecoil_val", "tar.gz"),
    Archive(
        "knee_singlecoil_test_v2.tar.gz",
        _SINGLE,
        "singlecoil_test",
        "tar",
        inside="singlecoil_test_v2",
    ),
)


def packed_names(dataset: str, volumes: Mapping[str, int]) -> list[str]:
    """Return the names of the archives that a study is packed into.

    Args:
        dataset: name of the dataset.
        volumes: split -> number of volumes.
    """
    return [
        archive.name
        for archive in ARCHIVES
        if archive.dataset == dataset
        and volumes.get(archive.folder.rpartition("_")[2], 0) > archive.batch[0]
    ]


def pack(studies: Mapping[str, Path], folder: str | Path) -> list[Archive]:
    """Pack studies into a folder, with ``SHA256`` in the form of GNU sha256sum beside them.

    The same studies give the same bytes.

    Args:
        studies: dataset name -> its folder, which holds ``multicoil_train`` and so on.
        folder: where archives go, flat; it is made.

    Returns:
        The archives that were packed: those of ``ARCHIVES`` that any volume belongs to.

    Raises:
        ValueError: a study's name is none of a dataset that is shipped so, or it has no volumes.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shipped = {archive.dataset for archive in ARCHIVES}
    packed = []
    for dataset, root in studies.items():
        if dataset not in shipped:
            raise ValueError(f"studies: {dataset!r}: give some of {', '.join(sorted(shipped))}")
        found = []
        for archive in (each for each in ARCHIVES if each.dataset == dataset):
            first, batches = archive.batch
            volumes = sorted((Path(root) / archive.folder).glob("*.h5"))[first::batches]
            if volumes:
                path = folder / archive.name
                partial = path.with_name(path.name + ".partial")
                _write(archive, volumes, partial)
                partial.replace(path)
                found.append(archive)
        if not found:
            raise ValueError(f"studies: {dataset!r}: no volumes in {root}")
        packed += found
    lines = []
    for archive in (each for each in packed if each.listed):
        with (folder / archive.name).open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {archive.name}\n")
    (folder / "SHA256").write_text("".join(lines), encoding="ascii")
    return packed


def _write(archive: Archive, volumes: Sequence[Path], path: Path) -> None:
    """Write one archive of the volumes."""
    if archive.kind == "tar":
        with path.open("wb") as target:
            _write_tar(archive, volumes, target)
    elif archive.kind == "tar.gz":
        # No time and no name in gzip's header: the same studies give the same bytes.
        with (
            path.open("wb") as target,
            gzip.GzipFile("", "wb", compresslevel=1, fileobj=target, mtime=0) as squeezed,
        ):
            _write_tar(archive, volumes, squeezed)
    else:
        with tempfile.TemporaryFile(dir=path.parent) as plain, path.open("wb") as target:
            _write_tar(archive, volumes, plain)
            plain.seek(0)
            _squeeze(plain, target)


def _squeeze(plain: BinaryIO, target: BinaryIO) -> None:
    """Compress as fastMRI does, in blocks; without the xz program, by Python in one."""
    if program := shutil.which("xz"):
        filters = ",".join(f"{name}={value}" for name, value in _XZ.items())
        command = [program, "-zc", "-T0", "--block-size=1MiB", f"--lzma2={filters}"]
        subprocess.run(command, stdin=plain, stdout=target, check=True, env={"LC_ALL": "C"})
        return
    with lzma.open(target, "wb", preset=0) as squeezed:
        shutil.copyfileobj(plain, squeezed)


def _write_tar(
    archive: Archive, volumes: Sequence[Path], target: io.BufferedIOBase | io.BufferedRandom
) -> None:
    inside = archive.inside or archive.folder
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.GNU_FORMAT) as tar:
        entry = tarfile.TarInfo(inside)
        entry.type, entry.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(entry)
        if archive.littered:
            _add(tar, f"{inside}/.DS_Store", io.BytesIO(_DS_STORE), len(_DS_STORE))
        for volume in volumes:
            if archive.littered:
                fork = io.BytesIO(_APPLE_DOUBLE)
                _add(tar, f"{inside}/._{volume.name}", fork, len(_APPLE_DOUBLE))
            with volume.open("rb") as file:
                _add(tar, f"{inside}/{volume.name}", file, volume.stat().st_size)


def _add(tar: tarfile.TarFile, name: str, file: io.BufferedIOBase, size: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o644, 1_540_000_000
    tar.addfile(entry, file)
