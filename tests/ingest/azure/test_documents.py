import json
from datetime import UTC, datetime

import pytest

from workbench.ingest.factory_documents import CODECS, FactoryDocuments
from workbench.ingest.links import SignedLink
from workbench.settings import Secret

CONNECTION = Secret("AccountName=scans;AccountKey=KEY-THAT-NOBODY-SEES")


def link(name: str, host: str = "https://bucket.example") -> SignedLink:
    url = f"{host}/v2.0/{name}?AWSAccessKeyId=A&Signature=SIGNED%2B&Expires=1900000000"
    return SignedLink(
        name, Secret(url), f"/v2.0/{name}", "knee_multicoil", datetime(2030, 1, 1, tzinfo=UTC)
    )


ARCHIVES = [
    (link("knee_multicoil_val.tar.gz"), ".tar"),
    (link("knee_multicoil_test.tar.gz"), ".tar.gz"),
    (link("knee_multicoil_train_batch_0.tar.xz"), ".tar.xz"),
]


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
    return FactoryDocuments(ARCHIVES, CONNECTION)


def test_each_codec_has_one_pipeline_and_only_tar_and_gzip_are_unpacked(documents):
    steps = {
        name: [activity["name"] for activity in document["properties"]["activities"]]
        for name, document in documents.pipelines.items()
    }
    assert steps == {
        "ingest-tar-0": ["land", "unpack"],
        "ingest-targzip-0": ["land", "unpack"],
        "ingest-tarxz-0": ["land"],
    }


def test_every_copy_has_timeout_retries_and_a_hidden_input(documents):
    activities = named(documents.pipelines, "activities")
    for activity in [activity for found in activities for activity in found]:
        policy = activity["policy"]
        assert policy["timeout"] == "2.00:00:00"
        assert policy["retry"] == 2
        assert policy["retryIntervalInSeconds"] >= 30
        assert policy["secureInput"] == (activity["name"] == "land")


def test_signed_part_of_a_link_is_a_secure_parameter_of_the_run(documents):
    for document in documents.pipelines.values():
        assert document["properties"]["parameters"]["relativeUrl"] == {"type": "SecureString"}
    whole = json.dumps([documents.linked_services, documents.datasets, documents.pipelines])
    assert "Signature" not in whole
    run = FactoryDocuments(ARCHIVES, CONNECTION).run(
        *ARCHIVES[0], "datasets", "knee_multicoil_val.tar"
    )
    assert run.pipeline == "ingest-tar-0"
    assert run.parameters["relativeUrl"].startswith("v2.0/knee_multicoil_val.tar.gz?AWSAccess")
    assert run.parameters["relativeUrl"].endswith("Signature=SIGNED%2B&Expires=1900000000")
    assert run.parameters["folder"] == "knee_multicoil"


def test_links_can_stand_in_datasets_where_secure_parameters_are_refused():
    documents = FactoryDocuments(ARCHIVES, CONNECTION, secure_runs=False)
    paths = [
        document["properties"]["typeProperties"]["location"]["relativeUrl"]
        for name, document in documents.datasets.items()
        if name.startswith("SignedFile")
    ]
    assert paths == [
        f"v2.0/{a.name}?AWSAccessKeyId=A&Signature=SIGNED%2B&Expires=1900000000"
        for a, _ in ARCHIVES
    ]
    run = documents.run(*ARCHIVES[2], "datasets", "x.tar.xz")
    assert run.pipeline == "ingest-tarxz-2"
    assert "relativeUrl" not in run.parameters
    assert "SecureString" not in json.dumps(documents.pipelines)


def test_links_of_several_servers_have_a_linked_service_each():
    other = (link("brain_multicoil_val.tar", "https://another.example"), ".tar")
    plan = FactoryDocuments([*ARCHIVES, other], CONNECTION)
    services = plan.linked_services
    urls = [s["properties"]["typeProperties"].get("url") for s in services.values()]
    assert urls == ["https://another.example/", "https://bucket.example/", None]
    assert plan.run(*other, "datasets", "x.tar").pipeline == "ingest-tar-0"
    assert plan.run(*ARCHIVES[0], "datasets", "x.tar").pipeline == "ingest-tar-1"


def test_members_go_to_the_dataset_and_archives_beside_it(documents):
    locations = {
        name: document["properties"]["typeProperties"]["location"]
        for name, document in documents.datasets.items()
    }
    assert locations["DatasetFolder"]["folderPath"]["value"] == "@dataset().folder"
    assert locations["LandedArchive"]["folderPath"]["value"] == "@{dataset().folder}_compressed"
    keep = named(documents.pipelines, "preserveCompressionFileNameAsFolder")
    assert keep == [False, False]


def test_key_is_a_secure_string_and_neither_it_nor_a_link_is_in_any_repr(documents):
    storage = documents.linked_services["DatasetStorage"]["properties"]["typeProperties"]
    assert storage["connectionString"] == {"type": "SecureString", "value": CONNECTION.reveal()}
    run = FactoryDocuments(ARCHIVES, CONNECTION).run(*ARCHIVES[0], "datasets", "x.tar")
    assert "KEY-THAT" not in repr(documents)
    assert "SIGNED" not in repr(run)


def test_fully_sampled_test_scans_are_only_landed_and_cannot_overwrite_the_masked_ones():
    full = link("brain_multicoil_test_full_batch_0.tar.gz")
    documents = FactoryDocuments([(full, ".tar.gz")], CONNECTION)
    (pipeline,) = documents.pipelines.values()
    assert [each["name"] for each in pipeline["properties"]["activities"]] == ["land"]
    assert documents.run(full, ".tar.gz", "datasets", "x.tar.gz").pipeline in documents.pipelines


def test_names_of_linked_services_and_datasets_hold_no_dash(documents):
    assert not [n for n in [*documents.linked_services, *documents.datasets] if "-" in n]


def test_everything_polymorphic_has_its_type(documents):
    for key in ("source", "sink", "storeSettings", "compressionProperties", "linkedServiceName"):
        for found in named([documents.pipelines, documents.datasets], key):
            assert found["type"], key
    assert set(CODECS) == {".tar", ".tar.gz", ".tar.xz"}
