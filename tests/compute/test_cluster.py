"""A wrong cluster or datastore is refused with what the workspace has."""

import pytest

from workbench.compute.cluster import (
    Cluster,
    Datastore,
    choose_cluster,
    choose_datastore,
    explain,
    is_passing,
)

BIG = Cluster("big", "STANDARD_ND96ASR_V4", False, 8)
CHEAP = Cluster("cheap", "STANDARD_NC24ADS_A100_V4", True, 4)
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


def test_refusals_say_what_to_do():
    assert "az login" in explain(401, "")
    assert "AzureML Data Scientist" in explain(403, "no")
    assert "Quotas" in explain(400, "Quota exceeded")
    assert [is_passing(status) for status in (None, 429, 503, 403)] == [True, True, True, False]
