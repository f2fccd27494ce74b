import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.datafactory import DataFactoryManagementClient

from tests.cloud.sample_documents import NAME, binary, copying, expression


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
