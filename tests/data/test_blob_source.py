"""A dataset in blob storage: indexed and read by ranges, its cache published where jobs find it."""

import dataclasses
import json
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import papermill
import pytest
from azure.storage.blob import ContainerClient, generate_container_sas

from workbench.compute.cluster import Datastore
from workbench.data.blob_source import (
    Blob,
    BlobFolder,
    build_blob_cache,
    load_blob_cache,
    publish_cache,
)
from workbench.data.cache import build_cache, load_cache
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.settings import Secret, project_root


@pytest.fixture
def upload(cloud, monkeypatch):
    """Put a local dataset into the cloud's storage; return its folder there."""
    cloud.apply(monkeypatch)

    def put(root, path="brain_multicoil"):
        container = cloud.storage.container()
        for file in sorted(root.rglob("*")):
            if file.is_file() and file.name != "dataset_cache.json":
                blob = f"{path}/{file.relative_to(root)}"
                container.upload_blob(blob, file.read_bytes(), overwrite=True)
        return BlobFolder(datastore(cloud).client(), path)

    return put


def datastore(cloud, **changes):
    given = {"name": "blobs", "account": cloud.storage.account, "container": "datasets"}
    return Datastore(**given | {"key": Secret(cloud.storage.key)} | changes)


def without_times(volumes):
    return [dataclasses.replace(volume, mtime_ns=0) for volume in volumes]


def test_cache_built_from_blobs_is_the_one_built_from_files(dataset, upload, tmp_path, capsys):
    folder = upload(dataset)
    (dataset / "multicoil_val/broken.h5").write_bytes(b"no volume")
    folder.container.upload_blob(folder / "multicoil_val/broken.h5", b"no volume")
    folder.container.upload_blob(folder / "multicoil_val/._litter.h5", b"macOS")
    remote, local = build_blob_cache(folder), build_cache(dataset)
    assert without_times(remote) == without_times(local)
    assert [problem.path for problem in remote.problems] == ["multicoil_val/broken.h5"]
    assert "read 7 files by range, published" in capsys.readouterr().out
    # A job that mounts the folder finds it there and holds it against the files.
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    published = folder.container.download_blob(folder / "dataset_cache.json").readall()
    (mounted / "dataset_cache.json").write_bytes(published)
    assert load_cache(mounted).volumes == remote.volumes
    assert load_blob_cache(folder) == remote


def test_only_ranges_are_read_and_only_of_what_changed(dataset, upload, make_volume, cloud):
    make_volume(dataset / "multicoil_train/large.h5", slices=40, size=(96, 64))
    folder = upload(dataset)
    requests = cloud.storage.watch()
    build_blob_cache(folder)
    large = [request for request, _ in requests if "large.h5" in request.target]
    assert 1 < len(large) <= 3
    assert all(request.headers.get("x-ms-range") for request in large)
    requests.clear()
    changed = make_volume(dataset / "multicoil_train/file0.h5", slices=5)
    folder.container.upload_blob(
        folder / "multicoil_train/file0.h5", changed.read_bytes(), overwrite=True
    )
    folder.container.delete_blob(folder / "multicoil_train/large.h5")
    requests.clear()
    cache = build_blob_cache(folder)
    read = {request.target for request, _ in requests if request.headers.get("x-ms-range")}
    assert {target for target in read if ".h5" in target} == {
        target for target in read if "file0.h5" in target
    }
    assert cache.split("train").slices == 5 + 2 + 2


def test_slices_read_from_blobs_are_those_of_the_files(dataset, upload):
    folder = upload(dataset)
    cache = build_blob_cache(folder)
    sampling = Sampling()
    volumes = [volume for volume in cache if volume.target]
    here = SliceDataset(dataset, volumes, sampling)
    there = SliceDataset(cache.root, volumes, sampling, open_source=folder.blob)
    for number in range(len(here)):
        for ours, theirs in zip(here[number], there[number], strict=True):
            np.testing.assert_array_equal(np.asarray(theirs), np.asarray(ours))


def test_many_requests_are_under_way_at_a_time(dataset, upload, make_volume, cloud):
    for number in range(48):
        make_volume(dataset / f"multicoil_train/more{number}.h5")
    folder = upload(dataset)
    cloud.network.latency(cloud.storage.host, 0.2)
    began = time.monotonic()
    cache = build_blob_cache(folder)
    one_by_one = 2 * 0.2 * len(cache)
    assert time.monotonic() - began < one_by_one / 2
    assert len(cache) == 54


@pytest.fixture
def sdk_reads(monkeypatch):
    """Names of the blobs that are asked for through the SDK."""
    names = []
    plain = ContainerClient.download_blob

    def noted(self, blob, *arguments, **more):
        names.append(blob)
        return plain(self, blob, *arguments, **more)

    monkeypatch.setattr(ContainerClient, "download_blob", noted)
    return names


@pytest.mark.parametrize("rights", ["key", "signature", "login"])
def test_ranges_come_without_the_sdk_by_every_kind_of_rights(
    dataset, upload, cloud, sdk_reads, rights
):
    folder = upload(dataset)
    if rights == "signature":
        signature = generate_container_sas(
            cloud.storage.account,
            "datasets",
            cloud.storage.key,
            permission="rwl",
            expiry=datetime.now(UTC) + timedelta(minutes=5),
        )
        folder = BlobFolder(datastore(cloud, key=None, signature=Secret(signature)).client(), "x")
    elif rights == "login":
        folder = BlobFolder(datastore(cloud, key=None).client(), "x")
    folder = dataclasses.replace(folder, path="brain_multicoil")
    cache = build_blob_cache(folder)
    assert len(cache) == 6
    assert [name for name in sdk_reads if name.endswith(".h5")] == []


def test_a_range_that_is_refused_once_comes_through_the_sdk(dataset, upload, cloud, sdk_reads):
    folder = upload(dataset)
    cloud.storage.fail("GET .*file11", status=503, times=1)
    assert len(build_blob_cache(folder)) == 6
    assert len([name for name in sdk_reads if "file11" in name]) == 1


def test_signatures_stay_out_of_the_log(dataset, upload, caplog):
    caplog.set_level("DEBUG")
    build_blob_cache(upload(dataset))
    assert "file11" in caplog.text
    assert "sig=" not in caplog.text


@pytest.mark.parametrize(
    ("changes", "path", "error", "message"),
    [
        ({"container": "elsewhere"}, "brain_multicoil", FileNotFoundError, "no container elsewh"),
        ({}, "knee_multicoil", FileNotFoundError, "nothing in /datasets/knee_multicoil"),
        ({"key": Secret("QUFB" * 21 + "QQ==")}, "brain_multicoil", OSError, "refuses the key"),
    ],
    ids=["container", "folder", "key"],
)
def test_what_is_missing_or_refused_is_said(dataset, upload, cloud, changes, path, error, message):
    upload(dataset)
    folder = BlobFolder(datastore(cloud, **changes).client(), path)
    with pytest.raises(error, match=message) as caught:
        build_blob_cache(folder)
    assert "QUFBQUFB" not in str(caught.value)


def test_storage_that_fails_in_the_middle_publishes_nothing(dataset, upload, cloud):
    folder = upload(dataset)
    cloud.storage.fail("GET .*file11", status=403)
    with pytest.raises(OSError, match="file11"):
        build_blob_cache(folder)
    cloud.recover()
    assert load_blob_cache(folder) is None
    assert len(build_blob_cache(folder)) == 6


def test_a_damaged_cache_is_built_anew(dataset, upload, capsys):
    folder = upload(dataset)
    folder.container.upload_blob(folder / "dataset_cache.json", b"{", overwrite=True)
    assert len(build_blob_cache(folder)) == 6
    assert "is damaged" in capsys.readouterr().out
    cache = load_blob_cache(folder)
    publish_cache(folder, dataclasses.replace(cache, volumes=cache.volumes[:1]))
    assert len(load_blob_cache(folder)) == 1


def test_a_read_past_the_end_is_short(upload, dataset):
    folder = upload(dataset)
    folder.container.upload_blob("x", b"0123456789")
    blob = Blob(folder.container, "x", 10)
    assert blob.read(7, 100) == b"789"
    assert blob.read(10, 5) == b""


def test_the_cache_page_indexes_storage_in_one_cell(dataset, upload, cloud, monkeypatch, tmp_path):
    folder = upload(dataset)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    page = papermill.execute_notebook(
        project_root() / "notebooks/cache.ipynb",
        tmp_path / "page.ipynb",
        {"dataset": folder.path, "in_storage": True},
        progress_bar=False,
    )
    shown = json.dumps(page)
    assert "Built the dataset cache of /datasets/brain_multicoil (6 volumes, 13 slices)" in shown
    assert cloud.storage.key not in shown
    assert len(load_blob_cache(folder)) == 6
