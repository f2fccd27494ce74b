"""A wrong cluster or datastore is refused with what the workspace has."""

import sys
from types import SimpleNamespace

import pytest

from workbench.compute import cluster as offers
from workbench.compute.cluster import choose_cluster, choose_datastore, connect
from workbench.compute.sender import Cluster, ClusterError, Datastore, LostContactError, refusal

BIG = Cluster("big", "STANDARD_ND96ASR_V4", False, 8)
CHEAP = Cluster("cheap", "STANDARD_NC24ADS_A100_V4", True, 4)
PLAIN = Cluster("plain", "STANDARD_D4S_V3", False, 2)
EMPTY = Cluster("empty", "STANDARD_NC24ADS_A100_V4", False, 0)


@pytest.mark.parametrize(
    ("name", "nodes", "low_priority", "chosen"),
    [
        ("big", 8, None, BIG),
        ("BIG", 1, False, BIG),
        (None, 8, None, BIG),
        (None, 2, True, CHEAP),
        ("cheap", 4, None, CHEAP),
    ],
)
def test_the_cluster_that_was_asked_for_or_the_only_one_that_fits(
    name, nodes, low_priority, chosen
):
    assert choose_cluster([BIG, CHEAP, EMPTY], name, nodes, low_priority) == chosen


def test_of_several_that_fit_a_network_takes_the_one_with_gpus_and_reading_the_other():
    assert choose_cluster([BIG, PLAIN, EMPTY], None, 2, None) == BIG
    assert choose_cluster([BIG, PLAIN, EMPTY], None, 2, None, gpus=False) == PLAIN
    assert choose_cluster([PLAIN], None, 2, None) == PLAIN
    assert choose_cluster([BIG, PLAIN], None, 3, None, gpus=False) == BIG
    with pytest.raises(ValueError, match="several clusters fit"):
        choose_cluster([BIG, CHEAP, PLAIN], None, 1, None)


@pytest.mark.parametrize(
    ("clusters", "name", "nodes", "low_priority", "message"),
    [
        ([BIG, CHEAP], "gpu", 1, None, "cluster='gpu': the workspace has big .*; cheap"),
        ([BIG, CHEAP], None, 1, None, "several clusters fit; give one of these: big"),
        ([CHEAP], None, 9, None, "no cluster takes 9 nodes"),
        ([], None, 1, None, "none: make one in the studio"),
        ([BIG], "big", 9, None, "nodes=9: cluster big .*up to 8 nodes.*give fewer"),
        ([EMPTY], "empty", 1, None, "has zero nodes"),
        ([BIG], "big", 1, True, "low_priority=True: a cluster's priority is fixed"),
        ([Cluster("x", "Y", False, 2, state="Failed")], "x", 1, None, "cluster x is Failed"),
    ],
)
def test_a_cluster_that_cannot_take_the_job_is_refused(
    clusters, name, nodes, low_priority, message
):
    with pytest.raises(ValueError, match=message):
        choose_cluster(clusters, name, nodes, low_priority)


def test_the_datastore_of_the_container_datasets_is_taken():
    default = Datastore("default", "account", "azureml", default=True)
    data = Datastore("fastmri", "account", "datasets")
    assert choose_datastore([default, data], None) == data
    assert choose_datastore([default], None) == default
    assert choose_datastore([default, data], "default") == default
    with pytest.raises(ValueError, match=r"datastore='x': the workspace has default \(account/"):
        choose_datastore([default], "x")
    with pytest.raises(ValueError, match="several hold 'datasets'; give one of fastmri, again"):
        choose_datastore([data, Datastore("again", "b", "datasets")], None)


@pytest.mark.parametrize(
    ("status", "message", "said"),
    [
        (401, "", "az login"),
        (403, "no", "AzureML Data Scientist"),
        (404, "gone", "not found: check subscription"),
        (400, "Quota exceeded", "Quotas"),
        (None, "broken", "broken"),
        (429, "", "AzureML answers 429"),
        (503, "", "AzureML answers 503"),
    ],
)
def test_refusals_say_what_to_do_and_whether_they_may_pass(status, message, said):
    error = refusal(status, message)
    assert said in str(error)
    assert isinstance(error, LostContactError) == (status in (429, 503))


def test_the_sdk_is_the_first_that_python_has_and_the_workspace_accepts(monkeypatch):
    def workspace_with(**answers):
        """Have some SDKs, each of which reaches the workspace or fails: name -> error or None."""

        def sender(name):
            def open_workspace():
                if answers[name]:
                    raise answers[name]

            return lambda _: SimpleNamespace(sdk=name, open=open_workspace)

        known = {name: (package, name, sender(name)) for name, package in packages.items()}
        monkeypatch.setattr(offers, "_SENDERS", known)
        monkeypatch.setattr(offers, "_installed", answers.__contains__)

    packages = {name: package for name, (package, *_) in offers._SENDERS.items()}
    workspace_with(v1=None, v2=None)
    assert [connect(None, sdk).sdk for sdk in (None, "v1", "v2")] == ["v1", "v1", "v2"]
    workspace_with(v2=None)
    assert connect(None).sdk == "v2"
    for last, said in ((sys.version_info[:2], "install it with"), ((3, 10), "leave sdk out")):
        monkeypatch.setitem(offers._LAST_PYTHON, "v1", last)
        with pytest.raises(
            ValueError, match=rf"sdk='v1': Python 3\..* lacks azureml-core; .*{said}"
        ):
            connect(None, "v1")
    workspace_with(v1=ClusterError("this workspace takes SDK v2"), v2=None)
    assert connect(None).sdk == "v2"
    with pytest.raises(ClusterError, match="takes SDK v2"):
        connect(None, "v1")
    workspace_with(v1=ClusterError("no more"))
    with pytest.raises(ClusterError, match=r"^no more \(.*install SDK v2: `.* azure-ai-ml`\)"):
        connect(None)
    with pytest.raises(ClusterError, match=r"^no more$"):
        connect(None, "v1")
    workspace_with(v1=LostContactError("AzureML answers 503"), v2=None)
    with pytest.raises(LostContactError):
        connect(None)
    workspace_with(v1=ImportError("no module named imp"), v2=None)
    assert connect(None).sdk == "v2"
    with pytest.raises(
        ValueError, match=r"sdk='v1': Python .* cannot import azureml-core \(no mod"
    ):
        connect(None, "v1")
    workspace_with()
    with pytest.raises(ValueError, match=r"sdk=None: Python .* lacks azure-ai-ml"):
        connect(None)
