import pytest


@pytest.mark.parametrize("generation", ["2021", "2025"])
def test_release_lands_whole_in_the_seed_s_layout(release, cloud, generation):
    brought = release(generation)
    report = brought.ingest()
    assert report.problems == []
    for dataset, members in brought.members.items():
        assert brought.in_container(dataset) == members
    kinds = {"tar": ".tar", "gz": ".tar.gz", "xz": ".tar.xz"}
    assert cloud.factory.names == []
