"""A dataset at its address in blob storage: opened, streamed, refused with what to do."""

import multiprocessing

import numpy as np
import pytest
import torch

from workbench.azure_login import LoginError, new_login
from workbench.data.cache import build_cache
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.data.stored import open_dataset, source_of, stored_folder

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


@pytest.fixture
def address(cloud, monkeypatch, dataset):
    """A dataset in storage, with this process let in by its login alone."""
    cloud.apply(monkeypatch)
    new_login()
    container = cloud.storage.container()
    for file in dataset.rglob("*.h5"):
        container.upload_blob(f"brain_multicoil/{file.relative_to(dataset)}", file.read_bytes())
    return f"{cloud.storage.url}/datasets/brain_multicoil"


def first_slice(address, cache):
    slices = SliceDataset(
        cache.root, cache.volumes, Sampling(), seed=0, open_source=source_of(address)
    )
    return slices[0].masked_kspace


def test_slices_at_an_address_equal_those_of_the_folder(address, dataset, capsys):
    where, stored = open_dataset(f"{address}/")
    assert where == address
    here = build_cache(dataset)
    streamed = first_slice(address, stored)
    assert torch.equal(streamed, first_slice(str(dataset), here))
    assert source_of(dataset) is None
    open_dataset(address)
    assert "as published" in capsys.readouterr().out


def _in_child(address, cache, answers):
    answers.put(np.asarray(first_slice(address, cache)))


def test_a_forked_loader_process_streams_by_connections_of_its_own(address):
    _, cache = open_dataset(address)
    expected = np.asarray(first_slice(address, cache))
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    children = [context.Process(target=_in_child, args=(address, cache, answers)) for _ in "ab"]
    for child in children:
        child.start()
    found = [answers.get(timeout=60) for _ in children]
    for child in children:
        child.join(30)
    assert all(np.array_equal(each, expected) for each in found)


def test_connection_string_of_the_account_comes_before_the_login(address, cloud, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", cloud.storage.connection_string)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "wrong")
    new_login()
    assert len(open_dataset(address)[1]) > 0


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AuthorizationPermissionMismatch", "the role Storage Blob Data Reader on the account"),
        ("AuthorizationFailure", "the account's firewall"),
    ],
)
def test_missing_role_on_the_storage_is_named(address, cloud, code, message):
    cloud.storage.fail("GET .*dataset_cache", status=403, code=code)
    with pytest.raises(OSError, match=message):
        open_dataset(address)


def test_no_login_names_what_a_node_needs(address, monkeypatch):
    for name in ("AZURE_TENANT_ID", "AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "dev")  # a managed identity is sought for 24 s
    new_login()
    with pytest.raises(LoginError, match=r"run `az login`.*managed identity of a cluster's nodes"):
        open_dataset(address)


@pytest.mark.parametrize(
    "wrong",
    [
        "https://example.org/data",
        "http://a.blob.core.windows.net/datasets/brain",
        "https://scans.blob.core.windows.net/datasets",
        "https://scans.blob.core.windows.net/datasets/brain?sig=secret",
        "azure://datasets/brain",
    ],
)
def test_what_is_no_address_is_refused_without_its_signature(wrong):
    with pytest.raises(ValueError, match="is no dataset's address: give https://ACCOUNT") as caught:
        stored_folder(wrong)
    assert "secret" not in str(caught.value)
