"""A dataset in blob storage: indexed and read by ranges, its cache published where jobs find it."""

import dataclasses
import json
import multiprocessing
import re

import numpy as np
import papermill
import pytest
import torch

from workbench.azure_login import new_login
from workbench.data.cache import build_cache, load_cache, open_dataset
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.settings import Secret, project_root
from workbench.stores import DiskStore
from workbench.stores.blob import BlobStore

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def upload(cloud, monkeypatch):
    """Put a local dataset into the cloud's storage; return its folder there."""
    cloud.apply(monkeypatch)
    cloud.storage.container()

    def put(root):
        key = Secret(cloud.storage.key)
        folder = BlobStore(cloud.storage.url, "datasets", "brain_multicoil", key=key)
        for entry in DiskStore(root).list():
            if entry.path != "dataset_cache.json":
                folder.write(entry.path, (root / entry.path).read_bytes())
        return folder

    return put


@pytest.fixture
def address(upload, dataset):
    """A dataset in storage, with this process let in by its login alone."""
    new_login()
    return upload(dataset).address


def without_times(volumes):
    return [dataclasses.replace(volume, mtime_ns=0) for volume in volumes]


def test_cache_built_from_blobs_is_the_one_built_from_files(
    dataset, upload, tmp_path, capsys, cloud
):
    folder = upload(dataset)
    (dataset / "multicoil_val/broken.h5").write_bytes(b"no volume")
    folder.write("multicoil_val/broken.h5", b"no volume")
    folder.write("multicoil_val/._litter.h5", b"macOS")
    remote, local = build_cache(folder), build_cache(dataset)
    assert without_times(remote) == without_times(local)
    assert [problem.path for problem in remote.problems] == ["multicoil_val/broken.h5"]
    assert f"read 7 files, saved as {folder.address}/dataset_cache.json" in capsys.readouterr().out
    # A job that mounts the folder finds it there and holds it against the files.
    (tmp_path / "mounted").mkdir()
    (tmp_path / "mounted/dataset_cache.json").write_bytes(folder.read("dataset_cache.json"))
    assert load_cache(tmp_path / "mounted").volumes == remote.volumes
    assert load_cache(folder) == remote
    assert str(remote).startswith(f"https://{cloud.storage.account}.blob.core.windows.net/datasets")
    assert str(remote).endswith(f"({len(remote)} volumes, {remote.slices} slices, 1 file left out)")


def test_only_ranges_are_read_and_only_of_what_changed(dataset, upload, make_volume, cloud):
    make_volume(dataset / "multicoil_train/large.h5", slices=40, size=(96, 64))
    folder = upload(dataset)
    requests = cloud.storage.watch()
    build_cache(folder)
    large = [request for request, _ in requests if "large.h5" in request.target]
    assert 1 < len(large) <= 3
    assert all(request.headers.get("x-ms-range") for request in large)
    changed = make_volume(dataset / "multicoil_train/file0.h5", slices=5)
    folder.write("multicoil_train/file0.h5", changed.read_bytes())
    folder.delete("multicoil_train/large.h5")
    requests.clear()
    cache = build_cache(folder)
    read = {request.target for request, _ in requests if request.headers.get("x-ms-range")}
    assert {target.partition("?")[0].rpartition("/")[2] for target in read if ".h5" in target} == {
        "file0.h5"
    }
    assert cache.split("train").slices == 5 + 2 + 2


def test_slices_read_from_blobs_are_those_of_the_files(dataset, address, capsys):
    cache = open_dataset(f"{address}/")
    assert cache.store.address == address
    assert open_dataset(address) == cache
    assert "Using the dataset cache of https://" in capsys.readouterr().out
    targeted = [volume for volume in cache if volume.target]
    there = SliceDataset(cache.with_volumes(targeted), Sampling())
    here = SliceDataset(build_cache(dataset).with_volumes(targeted), Sampling())
    for number in range(len(here)):
        for ours, theirs in zip(here[number], there[number], strict=True):
            np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))


def first_slice(cache):
    return SliceDataset(cache, Sampling(), seed=0)[0].masked_kspace


def _in_child(cache, answers):
    answers.put(np.asarray(first_slice(cache)))


def test_a_forked_loader_process_streams_by_connections_of_its_own(address):
    cache = open_dataset(address)
    expected = first_slice(cache)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=_in_child, args=(cache, answers)) for _ in "ab"]
    for child in children:
        child.start()
    found = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(30)
    assert all(torch.equal(torch.from_numpy(each), expected) for each in found)


def test_many_requests_are_under_way_at_a_time(dataset, upload, make_volume, cloud):
    for number in range(48):
        make_volume(dataset / f"multicoil_train/more{number}.h5")
    folder = upload(dataset)
    cloud.network.latency(cloud.storage.host, 0.2)
    before = len(cloud.network.connected)
    assert len(build_cache(folder)) == 54
    # Each request that finds no connection free opens one.
    assert len(cloud.network.connected) - before > 8


@pytest.fixture
def sdk_reads(monkeypatch):
    """Names of the blobs that are asked for through the SDK."""
    from azure.storage.blob import BlobClient

    names = []
    plain = BlobClient.download_blob

    def noted(self, *arguments, **more):
        names.append(self.blob_name)
        return plain(self, *arguments, **more)

    monkeypatch.setattr(BlobClient, "download_blob", noted)
    return names


def test_ranges_come_without_the_sdk_by_every_kind_of_rights(
    dataset, upload, cloud, sdk_reads, caplog
):
    caplog.set_level("DEBUG")
    upload(dataset)
    signature = cloud.storage.signed("datasets", permissions="rwlc").partition("?")[2]
    for key in (Secret(cloud.storage.key), Secret(signature), None):  # None: by the login
        caplog.clear()
        folder = BlobStore(cloud.storage.url, "datasets", "brain_multicoil", key=key)
        assert len(build_cache(folder, refresh=False)) == 6
        assert [name for name in sdk_reads if name.endswith(".h5")] == []
        assert "file11" in caplog.text
        assert not re.search("sig=(?!REDACTED)", caplog.text)


def test_a_range_that_is_refused_once_comes_through_the_sdk(dataset, upload, cloud, sdk_reads):
    folder = upload(dataset)
    cloud.storage.fail("GET .*file11", status=503, times=1)
    assert len(build_cache(folder)) == 6
    assert len([name for name in sdk_reads if "file11" in name]) == 1


def test_what_is_missing_is_said(upload, dataset, cloud):
    upload(dataset)
    for container, path, message in (
        ("elsewhere", "brain_multicoil", "no container elsewhere"),
        ("datasets", "knee_multicoil", "no volumes in https://.*ingest the"),
    ):
        folder = BlobStore(cloud.storage.url, container, path, key=Secret(cloud.storage.key))
        with pytest.raises(FileNotFoundError, match=message):
            build_cache(folder)


def test_storage_that_fails_in_the_middle_publishes_nothing_and_is_continued(
    dataset, upload, cloud, sdk_reads
):
    folder = upload(dataset)
    cloud.storage.fail("GET .*file11", status=403)
    with pytest.raises(OSError, match="file11"):
        build_cache(folder, workers=1)
    cloud.recover()
    assert load_cache(folder) is None
    assert len(build_cache(folder)) == 6
    assert {entry.path for entry in folder.list() if entry.path.endswith("json")} == {
        "dataset_cache.json"
    }


def test_the_cache_page_indexes_storage_in_one_cell(dataset, upload, cloud, monkeypatch, tmp_path):
    folder = upload(dataset)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    page = papermill.execute_notebook(
        project_root() / "notebooks/cache.ipynb",
        tmp_path / "page.ipynb",
        {"dataset": "brain_multicoil", "in_storage": True},
        progress_bar=False,
    )
    shown = json.dumps(page)
    assert f"Built the dataset cache of {folder.address} (6 volumes, 13 slices)" in shown
    assert cloud.storage.key not in shown
    assert len(load_cache(folder)) == 6


def test_connection_string_of_the_account_comes_before_the_login(address, cloud, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    new_login()
    assert len(open_dataset(address)) > 0


def test_a_file_of_another_size_than_the_cache_knows_is_not_read(upload, dataset, make_volume):
    folder = upload(dataset)
    build_cache(folder)
    larger = make_volume(dataset / "multicoil_val/file10.h5", slices=5)
    folder.write("multicoil_val/file10.h5", larger.read_bytes())
    cache = open_dataset(folder.address, check=False)  # as a cluster's node opens it
    volume = cache["multicoil_val/file10.h5"]
    expected = f"file10.h5 has .* bytes and had {volume.size:,} when it was indexed: .*refresh"
    with pytest.raises(OSError, match=expected):
        cache.read(volume, 0)
    folder.write("multicoil_val/file10.h5", larger.read_bytes()[: volume.size // 8])
    with pytest.raises(OSError, match=r"file10.h5 (has .* bytes and had|changed while it was)"):
        cache.read(volume, volume.slices - 1)


def test_a_file_that_becomes_another_one_while_it_is_indexed_is_left_out(
    upload, dataset, make_volume, monkeypatch
):
    folder = upload(dataset)
    larger = make_volume(dataset / "multicoil_val/file10.h5", slices=5).read_bytes()
    listed = list(folder.list())
    folder.write("multicoil_val/file10.h5", larger)
    with monkeypatch.context() as patch:
        patch.setattr(BlobStore, "list", lambda self, under="": iter(listed))
        (problem,) = build_cache(folder).problems
    assert problem.path == "multicoil_val/file10.h5"
    assert "changed since; refresh the dataset cache" in problem.reason
    assert build_cache(folder)["multicoil_val/file10.h5"].slices == 5
