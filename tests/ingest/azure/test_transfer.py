"""Datasets copied between a disk and a container."""

import hashlib
import os
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from tests.ingest.conftest import members_in
from workbench.azure_storage import parse_connection
from workbench.ingest.transfer import TransferError, choose, copy_dataset
from workbench.settings import Secret
from workbench.stores import DiskStore
from workbench.stores.blob import open_container

FILES = {
    f"multicoil_{split}/file{n}.h5": random.Random(f"{split}{n}").randbytes(1000 + n)
    for split, count in (("train", 8), ("val", 4), ("test_v2", 2))
    for n in range(count)
}


@pytest.fixture
def dataset(tmp_path):
    """A dataset's folder on this machine."""
    own = {"ingest.json": b"{}", "dataset_cache.json": b"{}", ".git/config": b"hidden"}
    for path, data in (FILES | own).items():
        file = tmp_path / "here" / "knee_multicoil" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "here"


@pytest.fixture
def stored(blobs, dataset):
    """The same dataset in the container."""
    copy_dataset(DiskStore(dataset), blobs, "knee_multicoil")
    return blobs


def test_dataset_comes_back_as_it_was_sent_without_the_workbench_s_own_files(stored, tmp_path):
    done = copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil")
    assert members_in(tmp_path / "knee_multicoil") == FILES
    assert (done.files, done.moved, done.size) == (14, 14, sum(map(len, FILES.values())))
    assert "14 files" in str(done)


def test_what_is_there_is_passed_over_in_both_directions(stored, dataset, tmp_path):
    assert copy_dataset(DiskStore(dataset), stored, "knee_multicoil").moved == 0
    copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil")
    lost = tmp_path / "knee_multicoil" / "multicoil_val" / "file0.h5"
    lost.write_bytes(b"half")
    leftover = lost.with_name(".file0.h5.transfer-part")
    leftover.write_bytes(b"of a killed run")
    assert copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil").moved == 1
    assert members_in(tmp_path / "knee_multicoil") == FILES


def test_file_that_changed_since_is_brought_over_again_whatever_its_size(stored, dataset, tmp_path):
    path, name = dataset / "knee_multicoil/multicoil_val/file1.h5", "knee_multicoil"
    copy_dataset(stored, DiskStore(tmp_path), name)
    path.write_bytes(path.read_bytes()[::-1])
    later = time.time() + 60
    os.utime(path, (later, later))
    os.utime(dataset / name / "multicoil_val/file2.h5", (later, later))  # its content is the same
    assert copy_dataset(DiskStore(dataset), stored, name).moved == 1
    os.utime(tmp_path / name / "multicoil_val/file1.h5", (0, 0))
    os.utime(tmp_path / name / "multicoil_val/file3.h5", (0, 0))
    assert copy_dataset(stored, DiskStore(tmp_path), name).moved == 1
    assert (tmp_path / name / "multicoil_val/file1.h5").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("summed", [True, False])
def test_newer_file_of_other_content_is_no_copy(stored, tmp_path, summed):
    from azure.storage.blob import ContentSettings

    name, path = "knee_multicoil", "multicoil_val/file1.h5"
    if not summed:  # as what a Data Factory brought
        blob = stored.client.get_blob_client(f"{name}/{path}")
        blob.set_http_headers(ContentSettings())
    copy_dataset(stored, DiskStore(tmp_path), name)
    assert copy_dataset(stored, DiskStore(tmp_path), name).moved == 0
    file = tmp_path / name / path
    file.write_bytes(FILES[path][::-1])
    assert copy_dataset(stored, DiskStore(tmp_path), name).moved == 1
    assert members_in(tmp_path / name) == FILES


def test_older_file_of_other_content_replaces_a_later_copy(stored, dataset):
    name, path = "knee_multicoil", "multicoil_val/file1.h5"
    file = dataset / name / path
    file.write_bytes(FILES[path][::-1])
    os.utime(file, (0, 0))  # as what was unpacked, or copied with its time
    assert copy_dataset(DiskStore(dataset), stored, name).moved == 1
    assert stored.folder(name).read(path) == FILES[path][::-1]


def test_what_the_source_no_longer_has_is_named(stored, tmp_path):
    first = copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil")
    assert first.others == ()
    stored.folder("knee_multicoil").delete("multicoil_val/file1.h5")  # as a withdrawn volume
    done = copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil", splits=("train",))
    assert done.others == ("multicoil_val/file1.h5",)
    assert str(done).endswith(
        "; 1 file more there, such as multicoil_val/file1.h5, the source does not have"
    )


def test_splits_that_are_links_belong_to_a_dataset_and_other_links_do_not(dataset, tmp_path):
    folder, big = dataset / "knee_multicoil", tmp_path / "big"
    (folder / "multicoil_train").rename(big)
    (folder / "multicoil_train").symlink_to(big)
    (folder / "home").symlink_to(tmp_path)
    (big / "train").symlink_to(dataset)  # leads back
    done = copy_dataset(DiskStore(dataset), DiskStore(tmp_path / "there"), "knee_multicoil")
    assert members_in(tmp_path / "there/knee_multicoil") == FILES
    assert done.files == len(FILES)
    assert [path for path, _ in done.passed_over] == ["home"]


def test_what_a_copy_passes_over_is_named(dataset, tmp_path):
    folder = dataset / "knee_multicoil"
    (folder / "multicoil_val/gone.h5").symlink_to(tmp_path / "elsewhere/gone.h5")
    (folder / ".hidden").symlink_to(tmp_path)
    closed, user = folder / "multicoil_challenge", os.geteuid()
    closed.mkdir()
    (closed / "file0.h5").write_bytes(b"volume")
    open_to_all = [folder, *folder.parents][: -len(Path("/tmp").parts)]
    for each in open_to_all:
        each.chmod(0o755)
    closed.chmod(0)
    target = tmp_path / "there"
    target.mkdir(mode=0o777)
    target.chmod(0o777)
    try:
        if user == 0:  # who may list everything
            os.seteuid(65534)
        done = copy_dataset(DiskStore(dataset), DiskStore(target), "knee_multicoil")
    finally:
        os.seteuid(user)
    assert dict(done.passed_over) == {
        "multicoil_challenge": "cannot be listed (Permission denied): see to its permissions",
        "multicoil_val/gone.h5": "is a link to a file that is not there: bring that in",
    }
    assert "passed over: multicoil_challenge cannot be listed" in str(done)


def test_part_of_a_dataset_is_chosen_by_split_and_fraction(stored, tmp_path):
    done = copy_dataset(
        stored, DiskStore(tmp_path), "knee_multicoil", splits=("train",), fraction=0.25
    )
    first = set(members_in(tmp_path / "knee_multicoil"))
    assert done.files == len(first) == 2
    assert all(path.startswith("multicoil_train/") for path in first)
    copy_dataset(
        stored, DiskStore(tmp_path), "knee_multicoil", splits=("train", "test"), fraction=0.5
    )
    assert first < set(members_in(tmp_path / "knee_multicoil"))
    assert len(members_in(tmp_path / "knee_multicoil")) == 4 + 1


def test_larger_share_holds_a_smaller_one():
    paths = list(FILES)
    shares = [set(choose(paths, (), fraction)) for fraction in (0.1, 0.3, 0.6, 1.0)]
    assert all(small < large for small, large in pairwise(shares))
    assert shares[-1] == set(paths)


def test_damage_on_the_way_is_seen_by_the_sum_and_leaves_nothing(stored, tmp_path):
    from azure.storage.blob import ContentSettings

    blob = stored.client.get_blob_client("knee_multicoil/multicoil_val/file1.h5")
    wrong = hashlib.md5(b"other").digest()
    blob.set_http_headers(ContentSettings(content_md5=bytearray(wrong)))
    with pytest.raises(TransferError, match=r"1 of 4 files .*file1.h5: what came is not what"):
        copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil", splits=("val",))
    there = members_in(tmp_path / "knee_multicoil")
    assert sorted(there) == [f"multicoil_val/file{n}.h5" for n in (0, 2, 3)]


def test_failing_storage_is_asked_again(stored, cloud, tmp_path):
    cloud.storage.fail("GET .*file1.h5", status=500, times=1)
    copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil", splits=("val",))
    assert len(members_in(tmp_path / "knee_multicoil")) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"splits": ("validation",)}, r"splits='validation': give one of train, val"),
        ({"fraction": 0}, "fraction=0: give a number above 0, up to 1"),
        ({"fraction": 1.5}, "fraction=1.5: give"),
        ({"splits": ("challenge",)}, "knee_multicoil has no files of challenge"),
    ],
)
def test_wrong_choice_is_refused(stored, tmp_path, change, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        copy_dataset(stored, DiskStore(tmp_path), "knee_multicoil", **change)


def test_empty_folder_is_told_on_either_side(blobs, tmp_path):
    for source, target in ((blobs, DiskStore(tmp_path)), (DiskStore(tmp_path), blobs)):
        with pytest.raises(ValueError, match="brain_multicoil: no files to copy: ingest the data"):
            copy_dataset(source, target, "brain_multicoil")


def test_dataset_is_copied_between_containers(stored, cloud, tmp_path):
    storage = parse_connection(Secret(cloud.storage.connection_string))
    other = open_container(storage, "elsewhere")
    assert copy_dataset(stored, other, "knee_multicoil").moved == len(FILES)
    copy_dataset(other, DiskStore(tmp_path), "knee_multicoil")
    assert members_in(tmp_path / "knee_multicoil") == FILES
