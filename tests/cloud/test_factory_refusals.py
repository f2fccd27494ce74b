"""Data Factory refuses what the service refuses, and fails as it is told to."""

import math

import pytest
from azure.core.exceptions import HttpResponseError

from tests.cloud.sample_documents import NAME, binary, expression


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
