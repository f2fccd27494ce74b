"""A dataset in a bucket of S3's or Google's kind: indexed, and its slices read by ranges."""

import dataclasses

import fsspec
import pytest
import torch

from workbench.data.cache import build_cache, open_dataset
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset
from workbench.pages.cache import CachePage
from workbench.stores.bucket import CLOUDS


@pytest.fixture
def address(dataset, monkeypatch):
    """The dataset in a bucket that this process holds in its memory."""
    monkeypatch.setitem(CLOUDS, "memory", ("fsspec", "nothing", "nothing"))
    files = fsspec.filesystem("memory")
    files.put(str(dataset), "/scans/brain_multicoil", recursive=True)
    yield "memory://scans/brain_multicoil"
    files.rm("/scans", recursive=True)


def test_a_dataset_in_a_bucket_gives_the_slices_of_its_files(dataset, address, capsys):
    remote, local = open_dataset(address), build_cache(dataset)
    assert f"saved as {address}/dataset_cache.json" in capsys.readouterr().out
    again = open_dataset(address)
    assert "Using the dataset cache of memory://scans" in capsys.readouterr().out
    assert again == remote
    assert [dataclasses.replace(each, mtime_ns=0) for each in remote] == [
        dataclasses.replace(each, mtime_ns=0) for each in local
    ]
    train = (SliceDataset(each.split("train"), Sampling(), seed=1) for each in (remote, local))
    for there, here in zip(*train, strict=True):
        assert torch.equal(there.masked_kspace, here.masked_kspace)
        assert torch.equal(there.target, here.target)


def test_what_came_into_a_bucket_since_it_was_indexed_is_found(dataset, address, make_volume):
    page = CachePage(dataset=address)
    page.work(page.plan())
    changed = make_volume(dataset / "multicoil_val/file10.h5", slices=4)
    new = make_volume(dataset / "multicoil_val/file12.h5")
    for file in (changed, new):
        fsspec.filesystem("memory").put(
            str(file), f"/scans/brain_multicoil/multicoil_val/{file.name}"
        )
    assert len(open_dataset(address, check=False)) == 6
    assert page.result(page.work(page.plan())).cache.counts["val"] == (3, 4 + 3 + 2)
    assert open_dataset(address).counts["val"] == (3, 4 + 3 + 2)
