"""Which files of a folder are volumes, and that every other HDF5 file is named with its reason."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest

from workbench.catalog import split_of_folder
from workbench.data.cache import build_cache, load_cache


def problems(cache):
    return {problem.path: problem.reason for problem in cache.problems}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        ("multicoil_train", "train"),
        ("Train", "train"),
        ("training", "train"),
        ("multicoil-train", "train"),
        ("Multicoil Val", "val"),
        ("validation", "val"),
        ("valid.set", "val"),
        ("TEST", "test"),
        ("testing_1", "test"),
        ("multicoil-test-full", "test_full"),
        ("brain_multicoil_test_full_batch_0", "test_full"),
        ("multicoil_challenge_transfer", "challenge"),
        ("train_val", None),
        ("trainer", None),
        ("latest", None),
        ("contest", None),
        ("reconstructions", None),
        ("", None),
    ],
)
def test_folder_names_one_split_in_any_spelling(folder, split):
    assert split_of_folder(folder) == split


def test_folders_in_other_spellings_are_read(dataset):
    (dataset / "multicoil_train").rename(dataset / "Train")
    (dataset / "multicoil_val").rename(dataset / "validation")
    assert build_cache(dataset).counts == {"train": (3, 6), "val": (2, 5), "test": (1, 2)}


def test_hdf5_files_that_are_passed_over_are_named(dataset):
    whole = (dataset / "multicoil_train/file0.h5").read_bytes()
    for path in (
        "multicoil_train/upper.H5",
        "multicoil_train/long.hdf5",
        "multicoil_train/LONG.HDF5",
        "multicoil_train/site_a/one.h5",
        "multicoil_train/site_a/deep/two.h5",
        "old/three.h5",
    ):
        place = dataset / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(whole)
    (dataset / "notes").mkdir()
    (dataset / "notes/text.txt").touch()
    cache = build_cache(dataset)
    assert len(cache) == 6
    reason = "passed over: the folder does not name one split, as multicoil_train does"
    assert problems(cache) == {
        "multicoil_train/LONG.HDF5": "its name ends in .HDF5: rename it to LONG.h5",
        "multicoil_train/long.hdf5": "its name ends in .hdf5: rename it to long.h5",
        "multicoil_train/upper.H5": "its name ends in .H5: rename it to upper.h5",
        "multicoil_train/site_a/": f"2 HDF5 files {reason}",
        "old/": f"an HDF5 file {reason}",
    }


def test_what_is_no_file_is_named_and_not_waited_for(dataset, monkeypatch):
    os.mkfifo(dataset / "multicoil_train/fifo.h5")
    (dataset / "multicoil_train/folder.h5").mkdir()
    (dataset / "multicoil_train/device.h5").symlink_to("/dev/zero")
    (dataset / "multicoil_train/self.h5").symlink_to("self.h5")
    with socket.socket(socket.AF_UNIX) as server:
        with monkeypatch.context() as here:  # a socket's path must be short
            here.chdir(dataset / "multicoil_train")
            server.bind("socket.h5")
        cache = build_cache(dataset)
    assert len(cache) == 6
    assert problems(cache) == {
        "multicoil_train/device.h5": "it is a device, not a file",
        "multicoil_train/fifo.h5": "it is a FIFO, not a file",
        "multicoil_train/folder.h5": "it is a folder, not a file",
        "multicoil_train/self.h5": "it cannot be read: Too many levels of symbolic links",
        "multicoil_train/socket.h5": "it is a socket, not a file",
    }


def test_each_folder_is_read_once_and_each_file_by_each_name(dataset, tmp_path):
    train = dataset / "multicoil_train"
    (train / "multicoil_train").symlink_to(dataset)
    (train / "up").symlink_to("..")
    (dataset / "multicoil_val_again").symlink_to("multicoil_val")
    (dataset / "machine").symlink_to("/")
    (train / "again.h5").symlink_to("file0.h5")
    os.link(train / "file1.h5", train / "twin.h5")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(train / "file0.h5", elsewhere / "file30.h5")
    (dataset / "multicoil_train_b").symlink_to(elsewhere)
    cache = build_cache(dataset)
    assert len(cache) == 9
    assert cache.volumes[-1].path == "multicoil_val/file11.h5"
    once = "it leads to a folder that is read already"
    assert problems(cache) == {
        "multicoil_train/multicoil_train/": once,
        "multicoil_train/up/": once,
        "multicoil_val_again/": once,
    }


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"two\nlines.h5", "two\\nlines.h5"),
        (b"latin\xe9.h5", "latin\\udce9.h5"),
        (b"\x1b[31mred.h5", "\\x1b[31mred.h5"),
    ],
)
def test_names_that_cannot_be_shown_are_escaped_and_refused(dataset, capsys, name, shown):
    folder = os.fsencode(dataset / "multicoil_train")
    shutil.copy(folder + b"/file0.h5", folder + b"/" + name)
    cache = build_cache(dataset)
    assert len(cache) == 6
    assert problems(cache) == {
        f"multicoil_train/{shown}": "its name holds characters that cannot be shown: rename it"
    }
    assert load_cache(dataset) == cache
    assert shown.encode() in capsys.readouterr().out.encode()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody who may not read")
def test_files_and_folders_that_may_not_be_read_are_named(dataset):
    with tempfile.TemporaryDirectory() as place:  # pytest's own is closed to others
        Path(place).chmod(0o755)
        _read_as_somebody(Path(shutil.copytree(dataset, f"{place}/brain_multicoil")))


def _read_as_somebody(dataset):
    (dataset / "multicoil_train/file1.h5").chmod(0)
    (dataset / "multicoil_val").chmod(0)
    before = os.geteuid()
    os.seteuid(65534)
    try:
        cache = build_cache(dataset, path=dataset / "cache.json")
    finally:
        os.seteuid(before)
    assert len(cache) == 3
    assert problems(cache) == {
        "multicoil_train/file1.h5": "it cannot be read: Permission denied",
        "multicoil_val/": "it cannot be read: Permission denied",
    }


def test_folder_without_volumes_says_what_it_holds(tmp_path):
    (tmp_path / "scans").mkdir()
    (tmp_path / "readme.txt").touch()
    with pytest.raises(
        FileNotFoundError, match=r"such as multicoil_train.*found readme.txt, scans"
    ):
        build_cache(tmp_path)


def test_what_was_left_out_is_said_with_the_index(dataset, capsys):
    for number in range(7):
        (dataset / f"multicoil_train/empty{number}.h5").touch()
    build_cache(dataset)
    said = capsys.readouterr().out
    assert "7 files left out" in said
    assert "multicoil_train/empty0.h5: it is empty (0 bytes): bring it in again" in said
    assert "and 2 more" in said
