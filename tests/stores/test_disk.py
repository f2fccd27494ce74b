"""Writing on disks as they are: full, read-only, without locks."""

import errno
import os
import resource
import subprocess
import threading
from contextlib import contextmanager

import pytest

from workbench.stores.disk import CannotWriteError, naming, only_one, replacing, write_text


@contextmanager
def refused(path, words):
    """Expect a refusal that names the path in one line."""
    with pytest.raises(CannotWriteError) as info:
        yield info
    text = str(info.value)
    assert str(path) in text
    assert words in text
    assert "\n" not in text


def test_full_disk_is_named_and_the_file_that_was_there_stays(small_disk):
    file = small_disk(65536) / "x.json"
    write_text(file, "before")
    with refused(file, "No space left on device: free some space and run again"):
        write_text(file, "x" * 100_000)
    assert file.read_text() == "before"
    assert os.listdir(file.parent) == ["x.json"]  # noqa: PTH208 - hidden ones too


def test_a_limit_of_the_user_is_named(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with refused(tmp_path / "x.json", "File too large"):
            write_text(tmp_path / "x.json", "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES])
def test_refusals_of_a_disk_are_named(tmp_path, number):
    with refused(tmp_path / "x", os.strerror(number)) as info, naming(tmp_path / "x"):
        raise OSError(number, os.strerror(number))
    assert info.value.errno == number


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        PermissionError(errno.EACCES, "refused", "/data/volume.h5"),
        OSError("a library's own words"),
    ],
    ids=repr,
)
def test_errors_of_something_else_stay_as_they_are(tmp_path, error):
    with pytest.raises(OSError, match=r".") as info, replacing(tmp_path / "x"):
        raise error
    assert info.value is error


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "knee").write_text("")
    with refused(tmp_path / "knee", "File exists"), only_one(tmp_path / "knee/.lock", "busy"):
        pass
    with refused(tmp_path / "knee", "cannot be written"):
        write_text(tmp_path / "knee" / "x.json", "{}")


def test_a_read_only_folder_is_named(small_disk):
    folder = small_disk(65536)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    with refused(folder / "knee", "Read-only file system"), only_one(folder / "knee/.lock", ""):
        pass


def flock_failing_with(number):
    def flock(*_):
        raise OSError(number, os.strerror(number))

    return flock


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of_and_gone_on_with(
    tmp_path, monkeypatch, capsys, number
):
    monkeypatch.setattr("fcntl.flock", flock_failing_with(number))
    with only_one(tmp_path / ".lock", "busy"):
        pass
    assert "knows no locks: see to it yourself that no second" in capsys.readouterr().out


def test_a_lock_that_fails_otherwise_is_no_lock(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", flock_failing_with(errno.EIO))
    with refused(tmp_path, "Input/output error"), only_one(tmp_path / ".lock", "busy"):
        pass


def test_who_waits_gets_the_lock_when_it_is_free(tmp_path, capsys):
    got = threading.Event()

    def wait():
        with only_one(tmp_path / ".lock", "waiting for it", wait=True):
            got.set()

    with only_one(tmp_path / ".lock", "busy"):
        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        while "waiting for it" not in capsys.readouterr().out:
            pass
        assert not got.is_set()
    thread.join(60)
    assert got.is_set()


@pytest.mark.parametrize("name", ["x.json", "a**b.json", "[x.json"])
def test_what_a_killed_writer_left_is_swept_up_later(tmp_path, name):
    left, of_another = tmp_path / f".{name}.0123.part", tmp_path / ".aXb.json.0123.part"
    for file in (left, of_another):
        file.write_text("half")
        os.utime(file, (0, 0))
    write_text(tmp_path / name, "{}")
    assert not left.exists()
    assert of_another.exists()


def test_a_mount_that_knows_no_renames_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(errno.ENOSYS, "no renames")

    monkeypatch.setattr(os, "replace", refuse)
    for text in ("longer", "short"):
        write_text(tmp_path / "x.json", text)
    assert (tmp_path / "x.json").read_text() == "short"
    assert os.listdir(tmp_path) == ["x.json"]  # noqa: PTH208 - hidden ones too
