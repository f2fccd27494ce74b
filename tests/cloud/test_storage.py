"""Blob storage under azure-storage-blob: it keeps what is laid there, and fails when told to."""

import os
import random

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.identity import DefaultAzureCredential
from azure.storage.blob import BlobServiceClient

NO_RETRIES = {"retry_total": 0, "max_single_put_size": 1 << 20}


@pytest.fixture(autouse=True)
def inside(cloud, monkeypatch):
    cloud.apply(monkeypatch)


@pytest.fixture
def container(cloud):
    service = BlobServiceClient.from_connection_string(
        cloud.storage.connection_string, **NO_RETRIES
    )
    with service:
        yield service.create_container("datasets")


def test_blobs_go_up_and_down_in_blocks_and_ranges(cloud, container):
    data = random.Random(0).randbytes(9_000_000)
    blob = container.get_blob_client("knee_multicoil/multicoil_val/a b.h5")
    blob.upload_blob(data, max_concurrency=2)
    assert blob.download_blob(max_concurrency=2).readall() == data
    assert blob.download_blob(offset=8_999_990, length=5).readall() == data[-10:-5]
    assert cloud.storage.names() == ["knee_multicoil/multicoil_val/a b.h5"]
    assert cloud.network.refused == []


def test_clouds_do_not_see_each_others_blobs(cloud, container, ground, tmp_path):
    container.upload_blob("mine", b"x")
    with type(cloud)(tmp_path / "other", ground) as other:
        assert other.storage.names() == []


def test_a_wrong_key_is_refused(cloud, container):
    wrong = cloud.storage.connection_string.replace(cloud.storage.key[:6], "AAAAAA")
    with (
        BlobServiceClient.from_connection_string(wrong, **NO_RETRIES) as service,
        pytest.raises(ClientAuthenticationError),
    ):
        service.get_container_client("datasets").exists()


def test_the_login_opens_storage_too(cloud, container):
    container.upload_blob("a", b"x")
    with (
        DefaultAzureCredential() as login,
        BlobServiceClient(cloud.storage.url, credential=login) as service,
    ):
        assert service.get_blob_client("datasets", "a").download_blob().readall() == b"x"


def test_signed_addresses_open_a_blob_or_a_container(cloud, container, tmp_path):
    container.upload_blob("folder/a b", b"x")
    from azure.storage.blob import BlobClient, ContainerClient

    with BlobClient.from_blob_url(cloud.storage.signed("datasets", "folder/a b")) as blob:
        assert blob.download_blob().readall() == b"x"
    url = cloud.storage.signed("datasets", permissions="rl")
    with ContainerClient.from_container_url(url) as signed:
        assert [b.name for b in signed.list_blobs()] == ["folder/a b"]


def test_requests_fail_as_told_and_recover(cloud, container):
    cloud.storage.fail("PUT .*/datasets/a", status=503, times=1)
    with pytest.raises(HttpResponseError) as error:
        container.upload_blob("a", b"x")
    assert error.value.status_code == 503
    container.upload_blob("a", os.urandom(100_000))
    assert container.get_blob_client("a").get_blob_properties().size == 100_000
    assert len(container.download_blob("a").readall()) == 100_000
    recorded = [(r.method, status) for r, status in cloud.storage.watch()]
    assert recorded[:2] == [("PUT", 503), ("PUT", 201)]
    cloud.storage.recover()
    assert len(container.download_blob("a").readall()) == 100_000


def test_a_dropped_connection_is_one(cloud, container):
    cloud.storage.fail("GET .*/datasets/a", drop=True)
    container.upload_blob("a", b"x")
    with pytest.raises((ServiceRequestError, ServiceResponseError)):
        container.download_blob("a")


def test_the_record_of_a_session_holds_the_bodies(cloud, container):
    record = cloud.storage.watch()
    container.upload_blob("a", b"hello")
    assert [r.body for r, _ in record if r.method == "PUT"] == [b"hello"]
