"""The cloud is as strict as Azure: it refuses documents that the service refuses."""

import pytest
from azure.core.exceptions import HttpResponseError
from azure.identity import ClientSecretCredential
from azure.mgmt.datafactory import DataFactoryManagementClient

NAME = "fastmri-copy-data-0123abcd"
WEB = {"url": "https://fastmri-dataset.s3.amazonaws.com/", "authenticationType": "Anonymous"}


@pytest.fixture
def client(cloud, monkeypatch):
    """A client with a factory that knows the bucket."""
    cloud.apply(monkeypatch)
    known = cloud.principal
    with (
        ClientSecretCredential(known.tenant, known.client, known.secret) as login,
        DataFactoryManagementClient(
            login, cloud.workspace.subscription_id, retry_total=0
        ) as client,
    ):
        group = cloud.workspace.resource_group
        client.factories.create_or_update(group, NAME, {"location": "westeurope"})
        service = {"properties": {"type": "HttpServer", "typeProperties": WEB}}
        client.linked_services.create_or_update(group, NAME, "Bucket", service)
        yield client


def refusal(call, *arguments):
    with pytest.raises(HttpResponseError) as error:
        call(*arguments)
    return error.value.status_code, error.value.error.code, error.value.message


def expression(text):
    return {"value": text, "type": "Expression"}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("d", lambda d: d.pop("type"), "'type' not found"),
        ("a-b", lambda d: None, "not a valid name"),
        ("d", lambda d: d["linkedServiceName"].update(referenceName="x"), "invalid reference 'x'"),
        (
            "d",
            lambda d: d["typeProperties"].update(compression={"type": "xz"}),
            "'xz' is not supported",
        ),
        (
            "d",
            lambda d: d["typeProperties"]["location"].update(
                relativeUrl=expression("@dataset().nothing")
            ),
            "there is no 'nothing'",
        ),
    ],
)
def test_wrong_documents_are_refused(cloud, client, name, change, said):
    location = {"type": "HttpServerLocation", "relativeUrl": expression("@dataset().file")}
    properties = {
        "type": "Binary",
        "linkedServiceName": {"referenceName": "Bucket", "type": "LinkedServiceReference"},
        "parameters": {"file": {"type": "String"}},
        "typeProperties": {"location": location},
    }
    change(properties)
    put, group = client.datasets.create_or_update, cloud.workspace.resource_group
    status, code, message = refusal(put, group, NAME, name, {"properties": properties})
    assert (status, code) in ((400, "BadRequest"), (400, "InvalidTemplate"))
    assert said in message


def test_the_clients_own_models_lose_their_types_and_are_refused(cloud, client):
    from azure.mgmt.datafactory import models

    web = models.HttpLinkedService(url="https://x", authentication_type="Anonymous")
    document = models.LinkedServiceResource(properties=web)
    put, group = client.linked_services.create_or_update, cloud.workspace.resource_group
    assert "'type' not found" in refusal(put, group, NAME, "x", document)[2]


def test_wrong_factories_are_refused(cloud, client):
    put, group = client.factories.create_or_update, cloud.workspace.resource_group
    assert refusal(put, group, NAME, {"location": "atlantis"})[1].startswith("LocationNotAvail")
    assert refusal(put, group, "a--b", {"location": "westeurope"})[1] == "InvalidResourceName"
    assert refusal(put, "other", NAME, {"location": "westeurope"})[1] == "ResourceGroupNotFound"
    assert refusal(client.factories.get, group, "fastmri-none")[0] == 404


def test_nobody_gets_a_secret_back(cloud, client):
    secret = {"type": "SecureString", "value": cloud.storage.connection_string}
    document = {
        "properties": {
            "type": "AzureBlobStorage",
            "typeProperties": {"connectionString": secret},
        }
    }
    group = cloud.workspace.resource_group
    client.linked_services.create_or_update(group, NAME, "Storage", document)
    found = client.linked_services.get(group, NAME, "Storage").as_dict()
    assert "**********" in str(found)
    assert cloud.storage.key not in str(found)
    (kept,) = (
        each
        for each in cloud.factory.documents(NAME, "linkedservices").values()
        if each["name"] == "Storage"
    )
    assert cloud.storage.key in str(kept)
