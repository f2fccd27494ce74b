"""The dataset cache: what it holds, when it is read anew, and that nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError

import h5py
import numpy as np
import pytest

from workbench.compute.runs import keep_cache, kept_cache
from workbench.data import describe, index
from workbench.data.cache import (
    CacheFileError,
    build_cache,
    find_dataset,
    load_cache,
    open_cache,
)
from workbench.data.reading import read_kspace
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.stores import DiskStore


def paths(cache):
    return [volume.path for volume in cache]


@pytest.fixture
def reading(monkeypatch):
    """Calls a function with the name of each file that is opened for reading."""
    real = DiskStore.source

    def hook(call):
        def source(store, path, size=None):
            call(path.rpartition("/")[2])
            return real(store, path, size)

        monkeypatch.setattr(DiskStore, "source", source)

    return hook


@pytest.fixture
def read_files(reading):
    """The files that were opened for reading."""
    read = []
    reading(read.append)
    return read


def test_a_dataset_is_indexed_by_split_and_loaded_as_it_was_built(dataset):
    assert load_cache(dataset) is None
    built = build_cache(dataset)
    assert paths(built) == [
        "multicoil_test_v2/file20.h5",
        "multicoil_train/file0.h5",
        "multicoil_train/file1.h5",
        "multicoil_train/file2.h5",
        "multicoil_val/file10.h5",
        "multicoil_val/file11.h5",
    ]
    assert built.counts == {"train": (3, 6), "val": (2, 5), "test": (1, 2)}
    assert (len(built), built.slices, built.problems, built.synthetic) == (6, 13, (), True)
    cache = load_cache(dataset)
    assert cache == built
    document = json.loads((dataset / "dataset_cache.json").read_text())
    assert document["version"] == 2
    assert str(dataset) not in json.dumps(document)
    for volume in cache:
        path, layout = cache.file(volume), volume.kspace
        assert volume.mtime_ns == path.stat().st_mtime_ns
        values = np.fromfile(path, layout.dtype, np.prod(layout.shape), offset=layout.offset)
        with h5py.File(path) as file:
            np.testing.assert_array_equal(values.reshape(layout.shape), file["kspace"][()])


def test_the_cache_is_used_when_present_built_when_not_and_says_which(dataset, capsys, read_files):
    built = open_cache(dataset)
    assert capsys.readouterr().out.startswith("Built the dataset cache of ")
    assert len(read_files) == 6
    read_files.clear()
    written = (dataset / "dataset_cache.json").stat()
    assert open_cache(dataset) == built
    assert capsys.readouterr().out.startswith("Using the dataset cache of ")
    assert read_files == []
    assert (dataset / "dataset_cache.json").stat().st_ino == written.st_ino


def test_a_refresh_reads_what_changed_and_forgets_what_is_gone(
    dataset, make_volume, capsys, read_files
):
    build_cache(dataset)
    read_files.clear()
    make_volume(dataset / "multicoil_train/file3.h5")
    make_volume(dataset / "multicoil_train/file0.h5", slices=4)
    os.utime(dataset / "multicoil_val/file10.h5", ns=(1, 1))  # another time alone
    (dataset / "multicoil_val/file11.h5").unlink()
    cache = open_cache(dataset)
    assert sorted(read_files) == ["file0.h5", "file10.h5", "file3.h5"]
    assert cache.counts == {"train": (4, 10), "val": (1, 2), "test": (1, 2)}
    assert "read 3 files, forgot 1" in capsys.readouterr().out
    assert load_cache(dataset) == cache
    read_files.clear()
    build_cache(dataset, refresh=False)
    assert len(read_files) == 6


def test_unchecked_the_files_are_not_looked_at_and_moved_ones_not_read(
    dataset, tmp_path, capsys, read_files
):
    before = build_cache(dataset)
    read_files.clear()
    moved = dataset.rename(tmp_path / "elsewhere")
    after = open_cache(moved)
    assert read_files == []
    assert after.volumes == before.volumes
    assert all(after.file(volume).is_file() for volume in after)
    shutil.rmtree(moved / "multicoil_train")
    assert open_cache(moved, check=False) == after
    assert "unchecked" in capsys.readouterr().out


def test_a_split_folder_can_be_the_dataset_and_keeps_its_split_when_renamed(dataset, tmp_path):
    cache = build_cache(dataset / "multicoil_val")
    assert paths(cache) == ["file10.h5", "file11.h5"]
    assert cache.counts == {"val": (2, 5)}
    renamed = (dataset / "multicoil_val").rename(tmp_path / "mine")
    assert build_cache(renamed).counts == {"val": (2, 5)}


def test_batches_are_searched_and_litter_and_foreign_folders_passed_over(dataset):
    batch = dataset / "brain_multicoil_train_batch_0"
    batch.mkdir()
    (dataset / "multicoil_train").rename(batch / "multicoil_train")
    (batch / "multicoil_train/._file0.h5").write_bytes(b"\0\5\x16\7" + bytes(50))
    (batch / "multicoil_train/notes.txt").write_text("x")
    (dataset / "reconstructions").mkdir()
    shutil.copy(batch / "multicoil_train/file0.h5", dataset / "reconstructions/file0.h5")
    cache = build_cache(dataset)
    assert cache.counts == {"train": (3, 6), "val": (2, 5), "test": (1, 2)}
    assert [problem.path for problem in cache.problems] == ["reconstructions/"]


def test_files_that_are_no_volumes_are_listed_and_left_out(dataset, capsys):
    whole = (dataset / "multicoil_train/file0.h5").read_bytes()
    (dataset / "multicoil_train/cut.h5").write_bytes(whole[:-500])
    (dataset / "multicoil_train/empty.h5").touch()
    (dataset / "multicoil_val/page.h5").write_text("<html>403</html>")
    (dataset / "multicoil_val/gone.h5").symlink_to(dataset / "nowhere")
    (dataset / "stray.h5").write_bytes(whole)
    with h5py.File(dataset / "multicoil_val/other.h5", "w") as file:
        file["image"] = np.ones((2, 2))
    cache = build_cache(dataset)
    assert len(cache) == 6
    assert {problem.path: problem.reason for problem in cache.problems} == {
        "multicoil_train/cut.h5": (
            f"it is truncated ({len(whole) - 500} of {len(whole)} bytes): bring it in again"
        ),
        "multicoil_train/empty.h5": "it is empty (0 bytes): bring it in again",
        "multicoil_val/gone.h5": "it cannot be read: No such file or directory",
        "multicoil_val/other.h5": "it has no k-space (no dataset named kspace)",
        "multicoil_val/page.h5": "it is no HDF5 file",
        "stray.h5": "its folder names no split: move it to one such as multicoil_train",
    }
    assert "6 files left out" in capsys.readouterr().out
    assert load_cache(dataset) == cache
    (dataset / "multicoil_train/cut.h5").write_bytes(whole)
    assert len(open_cache(dataset)) == 7


def test_a_large_dataset_is_described_as_a_small_one_whatever_a_file_does(
    dataset, make_volume, monkeypatch
):
    for number in range(30, 60):
        make_volume(dataset / f"multicoil_train/file{number}.h5")
    whole = (dataset / "multicoil_train/file33.h5").read_bytes()
    (dataset / "multicoil_train/file33.h5").write_bytes(whole[:-500])
    real = describe._volume

    def crash(opened, size, path, *more):
        if path.endswith("file44.h5"):
            os.kill(os.getpid(), signal.SIGSEGV)
        return real(opened, size, path, *more)

    monkeypatch.setattr(describe, "_volume", crash)
    one_by_one = build_cache(dataset, refresh=False)
    monkeypatch.setattr(index, "WORKERS", 4)  # 32 files: eight at a time
    assert build_cache(dataset, refresh=False) == one_by_one
    assert len(one_by_one) == 34
    assert {problem.path: problem.reason for problem in one_by_one.problems} == {
        "multicoil_train/file33.h5": (
            f"it is truncated ({len(whole) - 500} of {len(whole)} bytes): bring it in again"
        ),
        "multicoil_train/file44.h5": (
            "reading its HDF5 structure crashes (SIGSEGV), as in damaged files: bring it in again"
        ),
    }


def test_a_file_that_may_not_be_read_is_a_problem(dataset, reading):
    # Root may read anything, so the refusal is made here.
    def refuse(name):
        if name == "file1.h5":
            raise PermissionError(13, "Permission denied", name)

    reading(refuse)
    cache = build_cache(dataset)
    assert [(p.path, p.reason) for p in cache.problems] == [
        ("multicoil_train/file1.h5", "it cannot be read: Permission denied")
    ]


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        ('{"format": "fastmri-workbench dataset cache", "version": 9}', "has version 9"),
        ('{"format": "something"}', "is no dataset cache"),
        ('{"format": "fastmri-work', "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[" * 100_000 + "]" * 100_000, "is damaged"),
        ("9" * 10_000, "is damaged"),
        ('{"format": "fastmri-workbench dataset cache", "version": true}', "has version True"),
        ("[]", "is damaged"),
        (b"\xff\xfe", "is damaged"),
    ],
)
def test_a_cache_file_that_cannot_be_used_is_refused(tmp_path, content, remark):
    place = tmp_path / "dataset_cache.json"
    place.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CacheFileError, match=remark):
        load_cache(tmp_path)


def test_a_cache_file_that_cannot_be_used_is_rebuilt(dataset, capsys):
    cache = build_cache(dataset)
    (dataset / "dataset_cache.json").write_text("[]")
    capsys.readouterr()
    assert open_cache(dataset) == cache
    said = capsys.readouterr().out
    assert re.search(r"is damaged.*so it is built anew\. Built the dataset cache", said)
    assert load_cache(dataset) == cache


@pytest.fixture(scope="module")
def content(made_once, tmp_path_factory):
    """The text of a dataset's cache file."""
    place = tmp_path_factory.mktemp("cache") / "dataset_cache.json"
    build_cache(made_once, path=place)
    return place.read_text()


@pytest.mark.parametrize(
    ("damage", "remark"),
    [
        (lambda entry: entry.pop("padding_left"), "padding_left"),
        (lambda entry: entry.update(kspace=None), "kspace: Input should be an object, not None"),
        (
            lambda entry: entry["kspace"].update(shape=[2, "2", 3, 4]),
            "kspace.shape.1: .*integer, not '2'",
        ),
        (lambda entry: entry["kspace"].update(offset=1.5), "kspace.offset: "),
        (lambda entry: entry.update(split="elsewhere"), "has no split"),
        (lambda entry: entry.update(attributes=None), "attributes: "),
        (lambda entry: entry.update(mask=[0.5]), "mask.0: "),
        (
            lambda entry: entry.update(size="large"),
            "size: Input should be a valid integer, not 'large'",
        ),
        (lambda entry: entry["kspace"].update(dtype="|O"), r"type '\|O', not one of <c8"),
        (lambda entry: entry["kspace"].update(dtype="<f4"), "type '<f4', not one of <c8"),
        (lambda entry: entry["kspace"].update(dtype=["<c8"]), "kspace.dtype: "),
        (lambda entry: entry["kspace"].update(shape=[1, 3, -20, -14]), "its k-space"),
        (lambda entry: entry["kspace"].update(shape=[2**40, 3, 20, 14]), "too large"),
        (lambda entry: entry["kspace"].update(shape=[True, 3, 20, 14]), "kspace.shape.0: "),
        (lambda entry: entry["kspace"].update(shape=[100, 3, 20, 14]), "ends after the file"),
        (lambda entry: entry["kspace"].update(shape="2345"), "kspace.shape: "),
        (lambda entry: entry["kspace"].update(offset=-8), "ends after the file does"),
        (lambda entry: entry["kspace"].update(offset=10**30), "ends after the file does"),
        (lambda entry: entry["kspace"].update(offset=entry["size"]), "ends after the file does"),
        (lambda entry: entry.update(size=1000), "ends after the file does"),
        (lambda entry: entry.update(mask=[0, 14]), "mask samples columns outside"),
        (lambda entry: entry.update(mask=[-1]), "mask samples columns outside"),
        (lambda entry: entry.update(mask=[3, 3]), "mask does not rise"),
        (lambda entry: entry.update(encoded=[20, 14]), "encoded.2: Field required"),
        (lambda entry: entry.update(recon=[10, 10, 0]), "its matrix is"),
        (lambda entry: entry.update(recon=[10, 10, 10**9]), "its matrix is"),
        (lambda entry: entry.update(padding_left=10**12), "columns 1000000000000 to"),
        (lambda entry: entry.update(padding_left=14), "columns 14 to"),
        (lambda entry: entry.update(mtime_ns=float("nan")), "mtime_ns: "),
        (lambda entry: entry.update(target_name="mask"), "'mask' for its target"),
        (lambda entry: entry["attributes"].update(x={"y": 1}), "no text, number or list"),
        (lambda entry: entry["attributes"].update(x=10**300), "that a file can hold"),
        (lambda entry: entry.update(more=1), "more"),
        (lambda entry: entry.update(path="multicoil_train/file1.h5"), "stands there twice"),
        (lambda entry: entry.update(path="multicoil_train//file1.h5"), "is no volume's"),
        (lambda entry: entry.update(path="/etc/passwd.h5"), "leads out of the dataset"),
        (lambda entry: entry.update(path="a/../../b.h5"), "leads out of the dataset"),
        (lambda entry: entry.update(path="a\0.h5"), "is no volume's"),
        (lambda entry: entry.update(path="\ud800.h5"), "JSON"),
        (lambda entry: entry.update(path=["a.h5"]), "path: "),
    ],
)
def test_a_volume_entry_that_makes_no_sense_is_damage(content, tmp_path, damage, remark):
    document = json.loads(content)
    damage(document["volumes"][0])
    (tmp_path / "dataset_cache.json").write_text(json.dumps(document))
    with pytest.raises(CacheFileError, match=f"is damaged.*{remark}"):
        load_cache(tmp_path)


def test_cache_of_version_1_is_rebuilt_with_its_splits_and_kept_in_runs(
    dataset, tmp_path, capsys, read_files
):
    built = build_cache(dataset / "multicoil_val")
    renamed = (dataset / "multicoil_val").rename(tmp_path / "mine")
    place = renamed / "dataset_cache.json"
    document = json.loads(place.read_text()) | {"version": 1}
    place.write_text(json.dumps(document))
    with pytest.raises(CacheFileError, match="has version 1, this workbench reads 2"):
        load_cache(renamed)
    assert load_cache(renamed, earlier=True).volumes == built.volumes
    read_files.clear()
    capsys.readouterr()
    assert open_cache(renamed, check=False).volumes == built.volumes
    assert len(read_files) == 2
    assert "has version 1, this workbench reads 2, so it is built anew. Built" in (
        capsys.readouterr().out
    )
    assert load_cache(renamed).volumes == built.volumes
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "dataset_cache.json").write_text(json.dumps(document))
    assert kept_cache(renamed, folder).volumes == built.volumes
    keep_cache(built, folder, goes_on=True)
    assert load_cache(folder).volumes == built.volumes


def test_damaged_cache_in_a_runs_folder_is_said_and_does_not_stop_a_new_run(dataset, tmp_path):
    cache = build_cache(dataset)
    (tmp_path / "dataset_cache.json").write_text("[")
    with pytest.raises(ValueError, match=r"is damaged .*remove that file"):
        keep_cache(cache, tmp_path, goes_on=True)
    keep_cache(cache, tmp_path, goes_on=False)
    assert load_cache(tmp_path).volumes == cache.volumes


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_caches_place_is_said(dataset, capsys, make):
    make(dataset / "dataset_cache.json")
    said = r"dataset_cache\.json is no dataset cache: it is no file"
    with pytest.raises(CacheFileError, match=said):
        load_cache(dataset)
    if make is os.mkdir:
        assert len(open_cache(dataset)) == 6
        assert "it is no file, so it is built anew. Built" in capsys.readouterr().out


def test_where_the_dataset_cannot_be_written_the_cache_is_returned_all_the_same(
    dataset, tmp_path, capsys
):
    # A file where a folder should be refuses root as well, as a read-only mount would.
    (tmp_path / "file").touch()
    cache = build_cache(dataset, path=tmp_path / "file" / "dataset_cache.json")
    said = capsys.readouterr().out
    assert len(cache) == 6
    assert "not saved: " in said
    assert "dataset_cache.json cannot be written: " in said
    assert "give another `path`" in said


def test_a_cache_without_a_volume_is_a_cache(dataset, capsys):
    for file in dataset.rglob("*.h5"):
        file.write_bytes(b"")
    cache = build_cache(dataset)
    assert (len(cache), len(cache.problems), cache.counts) == (0, 6, {})
    capsys.readouterr()
    assert open_cache(dataset) == open_cache(dataset, check=False) == cache
    assert capsys.readouterr().out.count("Using the dataset cache") == 2


def test_the_cache_file_can_lie_elsewhere(dataset, tmp_path, read_files):
    elsewhere = tmp_path / "brain.json"
    cache = open_cache(dataset, path=elsewhere)
    assert not (dataset / "dataset_cache.json").exists()
    read_files.clear()
    assert open_cache(dataset, path=elsewhere) == cache
    assert load_cache(dataset, elsewhere) == cache
    assert read_files == []


@pytest.fixture
def twins(tmp_path, make_volume):
    """Two datasets whose files have the same names, sizes and times, and other masks."""
    roots = tmp_path / "one", tmp_path / "two"
    for step, root in enumerate(roots, start=2):
        for name in ("file0.h5", "file1.h5"):
            mask = np.arange(14) % step == 0
            file = make_volume(root / "multicoil_val" / name, mask=mask)
            os.utime(file, ns=(1, 1))
    return roots


@pytest.mark.parametrize("check", [True, False])
def test_a_cache_file_elsewhere_is_not_taken_for_another_dataset_s(twins, tmp_path, capsys, check):
    place = tmp_path / "caches/knee.json"
    one, two = (build_cache(root, path=root / "own.json").volumes for root in twins)
    assert one != two
    assert [(v.path, v.size, v.mtime_ns) for v in one] == [
        (v.path, v.size, v.mtime_ns) for v in two
    ]
    open_cache(twins[0], path=place)
    capsys.readouterr()
    assert open_cache(twins[1], path=place, check=check).volumes == two
    said = capsys.readouterr().out
    assert f"is the cache of {twins[0]}, not of {twins[1]}, so it is built anew. Built" in said
    assert open_cache(twins[1], path=place, check=check).volumes == two
    assert "Using the dataset cache" in capsys.readouterr().out


@pytest.mark.parametrize("names", [("one.json", "two.json"), ("same.json", "same.json")])
def test_what_an_interrupted_build_left_is_not_taken_for_another_dataset_s(
    twins, tmp_path, reading, names
):
    expected = build_cache(twins[1], path=twins[1] / "own.json").volumes
    first, second = (tmp_path / "caches" / name for name in names)

    def interrupt(name):
        if name == "file1.h5" and not partial.exists():
            raise KeyboardInterrupt

    partial = first.with_name(f"{first.stem}.partial.json")
    reading(interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_cache(twins[0], path=first, workers=1)
    assert len(json.loads(partial.read_text())["volumes"]) == 1
    assert build_cache(twins[1], path=second).volumes == expected


def test_a_file_of_another_size_than_the_cache_says_is_not_read(dataset, make_volume):
    before = build_cache(dataset)
    make_volume(dataset / "multicoil_val/file10.h5", coils=5, slices=4)
    stale = open_cache(dataset, check=False)
    assert stale == before
    said = r"file10\.h5 has [\d,]+ bytes and had [\d,]+ when it was indexed: it was changed since"
    volume = stale["file10.h5"]
    with pytest.raises(OSError, match=said):
        stale.read(volume, 0)
    with pytest.raises(OSError, match=said):
        read_kspace(stale.file(volume), volume, 0)
    with pytest.raises(OSError, match=said):
        SliceDataset(stale, Sampling()).slice_of(volume, 0)
    assert open_cache(dataset).read(open_cache(dataset)["file10.h5"], 3)[0].shape == (5, 20, 14)


def test_a_missing_or_empty_dataset_and_workers_below_one_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        open_cache(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"expected \.h5 files in folders such as"):
        build_cache(tmp_path)
    with pytest.raises(ValueError, match="workers=0: give 1 or more"):
        build_cache(tmp_path, workers=0)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_build_goes_on_where_it_stopped(dataset, reading):
    read_files = []

    def interrupt(name):
        if len(read_files) == 4:
            raise KeyboardInterrupt
        read_files.append(name)

    reading(interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_cache(dataset, workers=1)
    assert load_cache(dataset) is None
    read_files.clear()
    assert len(build_cache(dataset)) == 6
    assert 1 <= len(read_files) < 6
    assert [path.name for path in dataset.glob("*.json")] == ["dataset_cache.json"]


BUILD = """
import sys
from workbench.data import cache, index
real = index.describe
def slow(source, **more):
    import time
    print("reading", flush=True)
    time.sleep(0.2)
    return real(source, **more)
index.describe = slow
index.SECONDS_BETWEEN_SAVES = 0
cache.build_cache(sys.argv[1], workers=1)
"""


def test_a_killed_build_leaves_no_cache_and_is_continued(dataset, read_files):
    with subprocess.Popen(
        [sys.executable, "-c", BUILD, dataset], stdout=subprocess.PIPE, text=True
    ) as process:
        for _ in range(4):
            assert process.stdout.readline() == "reading\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert load_cache(dataset) is None
    cache = build_cache(dataset)
    assert len(cache) == 6
    assert 1 <= len(read_files) < 6
    assert load_cache(dataset) == cache


def test_builds_at_the_same_time_do_not_harm_each_other(dataset):
    start = threading.Barrier(4)

    def build(_):
        start.wait()
        return build_cache(dataset, refresh=False, workers=2)

    with ThreadPoolExecutor(4) as executor:
        caches = list(executor.map(build, range(4)))
    assert all(cache == load_cache(dataset) for cache in caches)
    assert sorted(path.name for path in dataset.iterdir() if path.is_file()) == [
        "dataset_cache.json"
    ]


def test_what_killed_writers_left_is_swept_up_once_it_is_old(dataset):
    old, new = (dataset / f".dataset_cache.json.{name}.part" for name in ("old", "new"))
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 7200,) * 2)
    build_cache(dataset)
    assert not old.exists()
    assert new.exists()


def test_others_may_read_the_cache_file(dataset):
    before = os.umask(0o022)
    try:
        build_cache(dataset)
    finally:
        os.umask(before)
    assert (dataset / "dataset_cache.json").stat().st_mode & 0o777 == 0o644


def test_a_part_is_another_cache_and_leaves_the_file(dataset):
    cache = build_cache(dataset)
    written = (dataset / "dataset_cache.json").read_bytes()
    part = cache.split("train").only(acquisition=["AXT1", "AXT2"])
    assert paths(part) == ["multicoil_train/file0.h5", "multicoil_train/file1.h5"]
    assert cache.acquisitions == ("AXFLAIR", "AXT1", "AXT2")
    assert (len(cache), len(cache.split("challenge"))) == (6, 0)
    assert (dataset / "dataset_cache.json").read_bytes() == written
    with pytest.raises(FrozenInstanceError):
        cache.volumes = ()
    with pytest.raises(ValueError, match="split='valid': give one of train, val"):
        cache.split("valid")
    with pytest.raises(ValueError, match=r"acquisition='AXT9': .* has AXFLAIR, AXT1, AXT2"):
        cache.only(acquisition="AXT9")


def test_sampling_is_seeded_nested_and_its_own(dataset):
    cache = build_cache(dataset)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    half = cache.sample_volumes(0.5, seed=1)
    assert len(half) == 3
    assert half == cache.sample_volumes(0.5, seed=1)
    assert len({tuple(paths(cache.sample_volumes(0.5, seed))) for seed in range(20)}) > 5
    assert set(paths(half)) < set(paths(cache.sample_volumes(0.9, seed=1)))
    assert paths(half) == sorted(paths(half))
    assert cache.sample_volumes(1, seed=3) == cache
    assert len(cache.sample_volumes(0.01, seed=3)) == 1
    assert (np.random.get_state()[1] == state).all()  # noqa: NPY002
    for fraction in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match=f"fraction={fraction}: give more than 0 and at most"):
            cache.sample_volumes(fraction, seed=0)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    return tmp_path


def test_a_dataset_is_found_by_path_then_name_then_the_demo_s(project, capsys):
    demo = project / "outputs/demo/datasets/knee_multicoil"
    demo.mkdir(parents=True)
    assert find_dataset("knee_multicoil").root == demo
    assert "the demo's synthetic phantom. It is not patient data." in capsys.readouterr().out
    real = project / "datasets/knee_multicoil"
    real.mkdir(parents=True)
    assert find_dataset("knee_multicoil").root == real
    other = project / "disk/knee"
    other.mkdir(parents=True)
    for place in ("disk/knee", other, str(other)):
        assert find_dataset(place) == DiskStore(other)
    assert capsys.readouterr().out == ""


def test_a_missing_dataset_says_how_to_get_it(project):
    with pytest.raises(FileNotFoundError, match=r"datasets/brain_multicoil is missing.*ingest"):
        find_dataset("brain_multicoil")
    with pytest.raises(FileNotFoundError, match="or one of knee_singlecoil, knee_multicoil"):
        find_dataset("brian_multicoil")
    (project / "volume.h5").touch()
    with pytest.raises(NotADirectoryError, match="is a file: give the dataset's folder"):
        find_dataset("volume.h5")
    with pytest.raises(ValueError, match="give a name such as"):
        find_dataset(" ")
    with pytest.raises(ValueError, match=r"~no-such-user/data: no user of that name is known here"):
        find_dataset("~no-such-user/data")
