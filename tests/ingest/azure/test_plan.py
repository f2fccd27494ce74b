"""What a plan finds out and refuses before anything starts."""

from datetime import timedelta

import pytest

from workbench.azure_login import LoginError, check_login
from workbench.azure_resources import ResourceError, without_secrets
from workbench.azure_storage import parse_connection
from workbench.ingest.plan import Action
from workbench.ingest.report import plan_html
from workbench.settings import Secret
from workbench.stores import StorageError
from workbench.stores.blob import open_container


def test_plan_says_what_is_to_be_copied_and_shows_no_secret(release, cloud):
    brought = release()
    plan = brought.plan()
    assert [(a.action, a.kind) for a in plan.archives] == [
        (Action.FETCH, ".tar"),
        (Action.FETCH, ".tar.xz"),
        (Action.FETCH, ".tar.xz"),
    ]
    assert plan.factory.location == "westeurope"
    assert plan.notes == ()
    assert "3 archives to fetch" in plan.space()
    assert "side by side, by a Data Factory in westeurope" in plan.space()
    shown = plan_html(plan) + repr(plan)
    assert "copy by Data Factory" in shown
    assert "knee_multicoil_train_batch_1" in shown
    for secret in (cloud.storage.key, "Signature", "AWSAccessKeyId"):
        assert secret not in shown
    assert cloud.factory.deleted == []


def test_missing_container_is_made_and_a_name_that_cannot_be_one_is_refused(release, cloud):
    brought = release()
    brought.plan(container="other-data")
    assert cloud.storage.client().get_container_client("other-data").exists()
    for name in ("Datasets", "a", "a--b", "-ab", "x" * 64):
        with pytest.raises(ValueError, match=f"^container='{name}': give 3 to 63"):
            brought.plan(container=name)


def test_location_is_one_that_exists_and_another_than_the_data_s_is_warned_of(release):
    brought = release()
    with pytest.raises(ValueError, match=r"^location='atlantis': give one of eastus, .*westeurope"):
        brought.plan(location="atlantis")
    plan = brought.plan(location="East US")
    assert plan.factory.location == "eastus"
    assert any("the storage account" in n and "in westeurope" in n for n in plan.notes)
    assert any("the workspace" in note for note in plan.notes)


def test_links_that_may_end_before_the_copy_does_are_named_and_expired_ones_refused(
    release, cloud, monkeypatch
):
    monkeypatch.setattr("workbench.ingest.plan.COPY_SPEED", 1000.0)
    brought = release()
    email = cloud.bucket.email("2025", lifetime=timedelta(minutes=10))
    notes = brought.plan(email=email).notes
    assert [n for n in notes if n.startswith("knee_multicoil_val.tar.xz: its link ends in ")]
    assert "new links are safer" in notes[0]
    email = cloud.bucket.email("2025", lifetime=timedelta(0))
    with pytest.raises(ValueError, match=r"the link expired on .*: ask anew at https://fastmri"):
        brought.plan(email=email)


# ---- the login ---------------------------------------------------------------------------


def test_no_login_says_how_to_log_in(release, monkeypatch):
    brought = release()
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")  # a managed identity is sought for 24 s
    with pytest.raises(LoginError, match=r"run `az login`, or set\s+AZURE_TENANT_ID"):
        brought.plan()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("AZURE_CLIENT_SECRET", "wrong-secret", "secret is wrong: mind that it is the secret's"),
        ("AZURE_CLIENT_ID", "44444444-4444-4444-4444-000000000000", "check AZURE_CLIENT_ID"),
        ("AZURE_TENANT_ID", "33333333-3333-4333-8333-000000000000", "check AZURE_TENANT_ID"),
        ("AZURE_TENANT_ID", "no tenant", "AZURE_TENANT_ID='no tenant': give the tenant's GUID"),
    ],
)
def test_wrong_login_says_which_part_and_shows_none(release, monkeypatch, name, value, message):
    release()
    monkeypatch.setenv(name, value)
    with pytest.raises(LoginError, match=message) as caught:
        check_login()
    assert "wrong-secret" not in str(caught.value)


def test_workspace_of_another_subscription_or_group_is_named(release, cloud):
    brought = release()
    with pytest.raises(ResourceError, match="there is no resource group elsewhere"):
        brought.plan(location="eastus", workspace={"resource_group": "elsewhere"})
    other = "00000000-0000-4000-8000-00000000ffff"
    with pytest.raises(ResourceError, match=f"does not see the subscription {other}"):
        brought.plan(location="eastus", workspace={"subscription_id": other})


# ---- the storage account -----------------------------------------------------------------


def test_wrong_key_and_container_that_is_being_deleted_are_told_without_the_key(release, cloud):
    release()
    right, wrong = cloud.storage.connection_string, "A" * 86 + "=="
    with pytest.raises(StorageError, match=r"refuses .*key.*copy the connection string anew") as e:
        open_container(parse_connection(Secret(right.replace(cloud.storage.key, wrong))))
    assert wrong not in str(e.value)
    assert e.value.__cause__ is e.value.__context__ is None
    cloud.storage.fail("PUT .*restype=container", status=409, code="ContainerBeingDeleted")
    with pytest.raises(StorageError, match="is still deleting a container of that name"):
        open_container(parse_connection(Secret(right)), "fresh-one")


def test_message_of_a_service_is_cut_where_it_quotes_a_link_or_key():
    text = "GET https://b.example/x.tar?AWSAccessKeyId=A&Signature=S failed; AccountKey=abc==;x"
    assert without_secrets(text) == "GET https://b.example/x.tar?*** failed; AccountKey=***;x"
