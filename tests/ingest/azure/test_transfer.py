"""Datasets to and from a container."""

import hashlib
import random
from itertools import pairwise

import pytest

from workbench.azure_storage import parse_connection
from workbench.ingest.azure.transfer import (
    TransferError,
    choose,
    download_dataset,
    upload_dataset,
)
from workbench.ingest.blobs import open_container, read_blob
from workbench.settings import Secret

FILES = {
    f"multicoil_{split}/file{n}.h5": random.Random(f"{split}{n}").randbytes(1000 + n)
    for split, count in (("train", 8), ("val", 4), ("test_v2", 2))
    for n in range(count)
}


@pytest.fixture
def container(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    return open_container(parse_connection(Secret(cloud.storage.connection_string)))


@pytest.fixture
def dataset(tmp_path):
    """A dataset's folder on this machine."""
    for path, data in (FILES | {"ingest.json": b"{}", "dataset_cache.json": b"{}"}).items():
        file = tmp_path / "here" / "knee_multicoil" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "here"


@pytest.fixture
def stored(container, dataset):
    """The same dataset in the container."""
    upload_dataset(container, "knee_multicoil", dataset)
    return container


def files_in(folder) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_dataset_comes_back_as_it_was_sent_without_the_workbench_s_own_files(stored, tmp_path):
    done = download_dataset(stored, "knee_multicoil", tmp_path)
    assert files_in(tmp_path / "knee_multicoil") == FILES
    assert (done.files, done.moved, done.size) == (14, 14, sum(map(len, FILES.values())))
    assert "14 files" in str(done)


def test_what_is_there_is_passed_over_in_both_directions(stored, dataset, tmp_path):
    assert upload_dataset(stored, "knee_multicoil", dataset).moved == 0
    download_dataset(stored, "knee_multicoil", tmp_path)
    lost = tmp_path / "knee_multicoil" / "multicoil_val" / "file0.h5"
    lost.write_bytes(b"half")
    leftover = lost.with_name(".file0.h5.transfer-part")
    leftover.write_bytes(b"of a killed run")
    assert download_dataset(stored, "knee_multicoil", tmp_path).moved == 1
    assert files_in(tmp_path / "knee_multicoil") == FILES


def test_part_of_a_dataset_is_chosen_by_split_and_fraction(stored, tmp_path):
    done = download_dataset(stored, "knee_multicoil", tmp_path, splits=("train",), fraction=0.25)
    first = set(files_in(tmp_path / "knee_multicoil"))
    assert done.files == len(first) == 2
    assert all(path.startswith("multicoil_train/") for path in first)
    download_dataset(stored, "knee_multicoil", tmp_path, splits=("train", "test"), fraction=0.5)
    assert first < set(files_in(tmp_path / "knee_multicoil"))
    assert len(files_in(tmp_path / "knee_multicoil")) == 4 + 1


def test_larger_share_holds_a_smaller_one():
    paths = list(FILES)
    shares = [set(choose(paths, (), fraction)) for fraction in (0.1, 0.3, 0.6, 1.0)]
    assert all(small < large for small, large in pairwise(shares))
    assert shares[-1] == set(paths)


def test_damage_on_the_way_is_seen_by_the_sum_and_leaves_nothing(stored, tmp_path):
    blob = stored.get_blob_client("knee_multicoil/multicoil_val/file1.h5")
    from azure.storage.blob import ContentSettings

    wrong = hashlib.md5(b"other").digest()
    blob.set_http_headers(ContentSettings(content_md5=bytearray(wrong)))
    with pytest.raises(TransferError, match=r"1 of 4 files .*file1.h5: what came is not what"):
        download_dataset(stored, "knee_multicoil", tmp_path, splits=("val",))
    there = files_in(tmp_path / "knee_multicoil")
    assert sorted(there) == [f"multicoil_val/file{n}.h5" for n in (0, 2, 3)]


def test_failing_storage_is_asked_again(stored, cloud, tmp_path):
    cloud.storage.fail("GET .*file1.h5", status=500, times=1)
    download_dataset(stored, "knee_multicoil", tmp_path, splits=("val",))
    assert len(files_in(tmp_path / "knee_multicoil")) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": ("validation",)}, r"splits='validation': give one of train, val"),
        ({"fraction": 0}, "fraction=0: give a number above 0, up to 1"),
        ({"fraction": 1.5}, "fraction=1.5: give"),
        ({"connections": 0}, "connections=0: give a whole number from 1 to 128"),
        ({"splits": ("challenge",)}, "knee_multicoil has no files of challenge"),
    ],
)
def test_wrong_choice_is_refused(stored, tmp_path, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        download_dataset(stored, "knee_multicoil", tmp_path, **change)


def test_empty_folder_is_told_on_either_side(container, tmp_path):
    with pytest.raises(ValueError, match="holds nothing under brain_multicoil/: ingest it first"):
        download_dataset(container, "brain_multicoil", tmp_path)
    with pytest.raises(ValueError, match="no files to upload"):
        upload_dataset(container, "brain_multicoil", tmp_path)


def test_blob_is_read_in_order_by_ranges(container):
    data = random.Random(1).randbytes(20 << 20)
    container.upload_blob("big", data)
    parts = list(read_blob(container.get_blob_client("big"), connections=3))
    assert [len(part) for part in parts] == [8 << 20, 8 << 20, 4 << 20]
    assert b"".join(parts) == data


def test_blob_that_changes_while_it_is_read_is_not_mixed(container):
    from azure.core.exceptions import ResourceModifiedError

    container.upload_blob("big", bytes(40 << 20))
    parts = read_blob(container.get_blob_client("big"), connections=1)
    next(parts)
    container.upload_blob("big", b"other", overwrite=True)
    with pytest.raises(ResourceModifiedError):
        list(parts)
