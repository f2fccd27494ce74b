"""Data Factory under azure-mgmt-datafactory: plain documents go in, files are really copied."""

import io
import math
import tarfile
import time
from datetime import UTC, datetime, timedelta

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.datafactory import DataFactoryManagementClient
from azure.mgmt.datafactory.models import RunFilterParameters

NAME = "fastmri-copy-data-0123abcd"


@pytest.fixture
def client(cloud, monkeypatch):
    cloud.apply(monkeypatch)
    known = cloud.principal
    with (
        ClientSecretCredential(known.tenant, known.client, known.secret) as login,
        DataFactoryManagementClient(
            login, cloud.workspace.subscription_id, retry_total=0
        ) as client,
    ):
        yield client


@pytest.fixture
def group(cloud):
    return cloud.workspace.resource_group


def binary(service, location, compression=None, **parameters):
    details = {"location": location}
    if compression:
        details["compression"] = {"type": compression}
    return {
        "properties": {
            "type": "Binary",
            "linkedServiceName": {"referenceName": service, "type": "LinkedServiceReference"},
            "parameters": {key: {"type": "String"} for key in parameters or ("file",)},
            "typeProperties": details,
        }
    }


def expression(text):
    return {"value": text, "type": "Expression"}


def copying(source, sink, *, unpack=None, retry=0, after=None, link="link"):
    def reference(name, value):
        parameters = {"file": expression(f"@pipeline().parameters.{value}")}
        if name == "folder":
            parameters = {"folder": "knee_multicoil"}
        return {"referenceName": name, "type": "DatasetReference", "parameters": parameters}

    settings = {"type": "HttpReadSettings" if source == "web" else "AzureBlobStorageReadSettings"}
    reading = {"type": "BinarySource", "storeSettings": settings}
    if unpack:
        reading["formatSettings"] = {
            "type": "BinaryReadSettings",
            "compressionProperties": {
                "type": unpack,
                "preserveCompressionFileNameAsFolder": False,
            },
        }
    writing = {
        "type": "BinarySink",
        "storeSettings": {"type": "AzureBlobStorageWriteSettings"},
    }
    return {
        "name": f"copy to {sink}",
        "type": "Copy",
        "dependsOn": [{"activity": after, "dependencyConditions": ["Succeeded"]}] if after else [],
        "policy": {
            "timeout": "1.00:00:00",
            "retry": retry,
            "retryIntervalInSeconds": 30,
            "secureInput": source == "web",
        },
        "inputs": [reference(source, link if source == "web" else "file")],
        "outputs": [reference(sink, "file")],
        "typeProperties": {"source": reading, "sink": writing},
    }


@pytest.fixture
def factory(cloud, client, group):
    """A factory with the documents to land an archive and to unpack it."""
    client.factories.create_or_update(group, NAME, {"location": "westeurope"})
    put = client.linked_services.create_or_update
    web = {
        "type": "HttpServer",
        "typeProperties": {
            "url": "https://fastmri-dataset.s3.amazonaws.com/",
            "authenticationType": "Anonymous",
        },
    }
    put(group, NAME, "Bucket", {"properties": web})
    secret = {"type": "SecureString", "value": cloud.storage.connection_string}
    blobs = {"type": "AzureBlobStorage", "typeProperties": {"connectionString": secret}}
    put(group, NAME, "Storage", {"properties": blobs})
    put = client.datasets.create_or_update
    location = {"type": "HttpServerLocation", "relativeUrl": expression("@dataset().file")}
    put(group, NAME, "web", binary("Bucket", location))
    landed = {
        "type": "AzureBlobStorageLocation",
        "container": "datasets",
        "folderPath": "knee_multicoil_compressed",
        "fileName": expression("@dataset().file"),
    }
    put(group, NAME, "file", binary("Storage", landed))
    put(group, NAME, "tar", binary("Storage", landed, "Tar"))
    put(group, NAME, "targz", binary("Storage", landed, "TarGzip"))
    folder = {
        "type": "AzureBlobStorageLocation",
        "container": "datasets",
        "folderPath": expression("@{dataset().folder}"),
    }
    put(group, NAME, "folder", binary("Storage", folder, folder=1))
    for codec, settings in (("tar", "TarReadSettings"), ("targz", "TarGZipReadSettings")):
        activities = [
            copying("web", "file", retry=1),
            copying(codec, "folder", unpack=settings, after="copy to file"),
        ]
        parameters = {"link": {"type": "SecureString"}, "file": {"type": "String"}}
        pipeline = {"properties": {"parameters": parameters, "activities": activities}}
        client.pipelines.create_or_update(group, NAME, codec, pipeline)
    return client


def archive(cloud, name, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"multicoil_val/file{number}.h5")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    (cloud.bucket.folder / name).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def start(client, group, pipeline, link, file):
    relative = link.split(".com/")[1]
    given = {"link": relative, "file": file}
    return client.pipelines.create_run(group, NAME, pipeline, parameters=given).run_id


def finish(client, group, run):
    ended = time.monotonic() + 30
    while (found := client.pipeline_runs.get(group, NAME, run)).status in (
        *("Queued", "InProgress", "Canceling"),
    ):
        assert time.monotonic() < ended
        time.sleep(0.05)
    now = datetime.now(UTC)
    window = RunFilterParameters(
        last_updated_after=now - timedelta(days=1), last_updated_before=now + timedelta(days=1)
    )
    return found, client.activity_runs.query_by_pipeline_run(group, NAME, run, window).value


@pytest.mark.parametrize(("pipeline", "mode"), [("tar", "w"), ("targz", "w:gz")])
def test_an_archive_is_landed_and_unpacked(cloud, factory, group, pipeline, mode):
    data = archive(cloud, "multicoil_val.tar.gz", mode)
    link = cloud.bucket.link("/multicoil_val.tar.gz")
    run, activities = finish(factory, group, start(factory, group, pipeline, link, "val.tar"))
    assert run.status == "Succeeded"
    assert cloud.storage.names() == [
        *(f"knee_multicoil/multicoil_val/file{number}.h5" for number in range(3)),
        "knee_multicoil_compressed/val.tar",
    ]
    container = cloud.storage.container()
    assert container.download_blob("knee_multicoil_compressed/val.tar").readall() == data
    assert [a.output["filesWritten"] for a in activities] == [1, 3]
    assert activities[0].output["dataRead"] == len(data)
    assert cloud.network.refused == []


def test_secure_values_are_not_shown(cloud, factory, group):
    archive(cloud, "a.tar")
    link = cloud.bucket.link("/a.tar")
    run, activities = finish(factory, group, start(factory, group, "tar", link, "a.tar"))
    signature = link.split("Signature=")[1].split("&")[0]
    assert signature not in str(run.as_dict()) + str([a.as_dict() for a in activities])
    assert run.parameters["file"] == "a.tar"


def test_an_expired_link_fails_with_403_after_its_retries(cloud, factory, group):
    archive(cloud, "a.tar")
    link = cloud.bucket.link("/a.tar", lifetime=timedelta(seconds=-1))
    run, activities = finish(factory, group, start(factory, group, "tar", link, "a.tar"))
    assert run.status == "Failed"
    assert "status code 403" in run.message
    assert [(a.activity_name, a.status) for a in activities] == [("copy to file", "Failed")] * 2


def test_what_is_no_archive_of_its_kind_fails_to_unpack(cloud, factory, group):
    archive(cloud, "a.tar")
    link = cloud.bucket.link("/a.tar")
    run, activities = finish(factory, group, start(factory, group, "targz", link, "a.tar"))
    assert run.status == "Failed"
    assert "UserErrorInvalidCompressedFile" in activities[-1].error["message"]


def test_a_retry_mends_a_server_error(cloud, factory, group):
    from demo.bucket import Faults

    archive(cloud, "a.tar")
    cloud.bucket.faults.append(Faults("a.tar", status=500, times=1))
    link = cloud.bucket.link("/a.tar")
    run, activities = finish(factory, group, start(factory, group, "tar", link, "a.tar"))
    assert run.status == "Succeeded"
    assert [a.status for a in activities] == ["Failed", "Succeeded", "Succeeded"]


def test_a_run_is_cancelled_in_the_middle_of_a_copy(cloud, factory, group):
    from demo.bucket import Faults

    (cloud.bucket.folder / "a.tar").write_bytes(bytes(20_000_000))
    cloud.bucket.faults.append(Faults("a.tar", seconds_per_mb=0.5))
    run = start(factory, group, "tar", cloud.bucket.link("/a.tar"), "a.tar")
    while not cloud.bucket.sent:
        time.sleep(0.02)
    factory.pipeline_runs.cancel(group, NAME, run, is_recursive=True)
    found, activities = finish(factory, group, run)
    assert (found.status, activities[0].status) == ("Cancelled", "Cancelled")


def test_deleting_a_factory_ends_its_runs(cloud, factory, group):
    cloud.factory.pace.go.clear()
    start(factory, group, "tar", cloud.bucket.link("/a.tar"), "a.tar")
    factory.factories.delete(group, NAME)
    cloud.factory.runs[0].join()
    assert cloud.factory.runs[0].status == "Cancelled"
    assert (cloud.factory.names, cloud.factory.deleted) == ([], [NAME])


def refusal(call, *arguments):
    with pytest.raises(HttpResponseError) as error:
        call(*arguments)
    return error.value.status_code, error.value.error.code, error.value.message


@pytest.mark.parametrize(
    ("kind", "name", "change", "said"),
    [
        ("datasets", "d", lambda d: d["properties"].pop("type"), "'type' not found"),
        ("datasets", "a-b", lambda d: None, "not a valid name"),
        (
            "datasets",
            "d",
            lambda d: d["properties"]["linkedServiceName"].update(referenceName="nobody"),
            "invalid reference 'nobody'",
        ),
        (
            "datasets",
            "d",
            lambda d: d["properties"]["typeProperties"].update(compression={"type": "xz"}),
            "'xz' is not supported",
        ),
        (
            "datasets",
            "d",
            lambda d: d["properties"]["typeProperties"]["location"].update(
                relativeUrl=expression("@dataset().nothing")
            ),
            "there is no 'nothing'",
        ),
    ],
)
def test_wrong_documents_are_refused(factory, group, kind, name, change, said):
    document = binary(
        "Bucket", {"type": "HttpServerLocation", "relativeUrl": expression("@dataset().file")}
    )
    change(document)
    put = getattr(factory, kind).create_or_update
    status, code, message = refusal(put, group, NAME, name, document)
    assert (status, code) in ((400, "BadRequest"), (400, "InvalidTemplate"))
    assert said in message


def test_the_clients_own_models_lose_their_types_and_are_refused(factory, group):
    from azure.mgmt.datafactory import models

    web = models.HttpLinkedService(url="https://x", authentication_type="Anonymous")
    document = models.LinkedServiceResource(properties=web)
    put = factory.linked_services.create_or_update
    assert "'type' not found" in refusal(put, group, NAME, "x", document)[2]


def test_wrong_factories_are_refused(client, group):
    put = client.factories.create_or_update
    assert refusal(put, group, NAME, {"location": "atlantis"})[1].startswith("LocationNotAvail")
    assert refusal(put, group, "a--b", {"location": "westeurope"})[1] == "InvalidResourceName"
    assert refusal(put, "other", NAME, {"location": "westeurope"})[1] == "ResourceGroupNotFound"
    assert refusal(client.factories.get, group, NAME)[0] == 404


def test_a_factory_may_never_be_ready(cloud, client, group):
    cloud.factory.provisioning_seconds = math.inf
    made = client.factories.create_or_update(group, NAME, {"location": "westeurope"})
    assert made.provisioning_state == "Creating"
    assert client.factories.get(group, NAME).provisioning_state == "Creating"


def test_the_client_registers_a_provider_by_itself(cloud, client, group, monkeypatch):
    from azure.mgmt.core.policies import _base

    monkeypatch.setattr(_base.time, "sleep", lambda seconds: None)
    cloud.management.unregister("Microsoft.DataFactory")
    client.factories.create_or_update(group, NAME, {"location": "westeurope"})
    assert cloud.factory.names == [NAME]
    assert cloud.management.sent("POST", "/providers/Microsoft.DataFactory/register")


def test_registration_may_be_refused(cloud, client, group):
    cloud.management.unregister("Microsoft.DataFactory")
    cloud.management.deny("*/register/action")
    put = client.factories.create_or_update
    status, code, message = refusal(put, group, NAME, {"location": "westeurope"})
    assert (status, code) == (409, "MissingSubscriptionRegistration")
    assert "not registered to use namespace 'Microsoft.DataFactory'" in message


def test_a_role_may_be_missing(cloud, client, group):
    cloud.management.deny("Microsoft.DataFactory/factories/write")
    put = client.factories.create_or_update
    status, code, message = refusal(put, group, NAME, {"location": "westeurope"})
    assert (status, code) == (403, "AuthorizationFailed")
    assert "action 'Microsoft.DataFactory/factories/write'" in message
    assert refusal(client.factories.get, group, NAME)[0] == 404


def test_throttling_names_the_time_to_wait(cloud, client, group):
    cloud.fail("PUT management.*/factories/", status=429, retry_after=7, times=1)
    with pytest.raises(HttpResponseError) as error:
        client.factories.create_or_update(group, NAME, {"location": "westeurope"})
    assert error.value.response.headers["Retry-After"] == "7"
    client.factories.create_or_update(group, NAME, {"location": "westeurope"})


def test_an_expired_token_is_refused(cloud, client, group):
    list(client.factories.list())
    cloud.login.expire()
    with pytest.raises(HttpResponseError) as error:
        list(client.factories.list())
    assert error.value.status_code == 401
