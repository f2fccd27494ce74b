from datetime import UTC, datetime

import pytest

from workbench.ingest.factory_documents import factory_documents
from workbench.ingest.links import SignedLink
from workbench.settings import Secret

CONNECTION = Secret("AccountName=scans;AccountKey=KEY-THAT-NOBODY-SEES")


def archive(name: str, kind: str, host: str = "https://bucket.example"):
    url = f"{host}/v2.0/{name}?AWSAccessKeyId=A&Signature=SIGNED%2B&Expires=1900000000"
    link = SignedLink(
        name, Secret(url), f"/v2.0/{name}", "knee_multicoil", datetime(2030, 1, 1, tzinfo=UTC)
    )
    return link, kind, link.stem + kind


ARCHIVES = [
    archive("knee_multicoil_val.tar.gz", ".tar"),
    archive("knee_multicoil_test.tar.gz", ".tar.gz"),
    archive("knee_multicoil_train_batch_0.tar.xz", ".tar.xz"),
]


def documents_of(*archives, **how):
    return factory_documents(archives, "datasets", CONNECTION, **how)


def named(document: object, key: str) -> list:
    """All values of a key, anywhere in a document."""
    if isinstance(document, dict):
        own = [document[key]] if key in document else []
        return own + [v for value in document.values() for v in named(value, key)]
    return (
        [v for value in document for v in named(value, key)] if isinstance(document, list) else []
    )


@pytest.fixture
def documents():
    return documents_of(*ARCHIVES)


def test_every_copy_has_timeout_retries_and_a_hidden_input(documents):
    activities = named(documents.pipelines, "activities")
    for activity in [activity for found in activities for activity in found]:
        policy = activity["policy"]
        assert policy["timeout"] == "2.00:00:00"
        assert policy["retry"] == 2
        assert policy["retryIntervalInSeconds"] >= 30
        assert policy["secureInput"] == (activity["name"] == "land")


def test_links_of_several_servers_have_a_linked_service_each():
    other = archive("brain_multicoil_val.tar", ".tar", "https://another.example")
    documents = documents_of(*ARCHIVES, other)
    services = documents.linked_services.values()
    urls = [service["properties"]["typeProperties"].get("url") for service in services]
    assert urls == ["https://another.example/", "https://bucket.example/", None]
    assert documents.runs["brain_multicoil_val"].pipeline == "ingest-tar-0"
    assert documents.runs["knee_multicoil_val"].pipeline == "ingest-tar-1"


def test_key_is_a_secure_string_and_neither_it_nor_a_link_is_in_any_repr(documents):
    storage = documents.linked_services["DatasetStorage"]["properties"]["typeProperties"]
    assert storage["connectionString"] == {"type": "SecureString", "value": CONNECTION.reveal()}
    for shown in (repr(documents), repr(documents_of(*ARCHIVES, secure_runs=False))):
        assert "KEY-THAT" not in shown
        assert "SIGNED" not in shown


def test_fully_sampled_test_scans_are_only_landed_and_cannot_overwrite_the_masked_ones():
    documents = documents_of(archive("brain_multicoil_test_full_batch_0.tar.gz", ".tar.gz"))
    ((name, pipeline),) = documents.pipelines.items()
    assert [each["name"] for each in pipeline["properties"]["activities"]] == ["land"]
    assert documents.runs["brain_multicoil_test_full_batch_0"].pipeline == name
