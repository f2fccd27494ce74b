"""Data Factory under azure-mgmt-datafactory: files are really copied, and archives unpacked."""

import io
import tarfile
import time
from datetime import UTC, datetime, timedelta

import pytest
from azure.mgmt.datafactory.models import RunFilterParameters

from demo.bucket import Faults
from tests.cloud.sample_documents import NAME


def archive(cloud, name, mode="w"):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as tar:
        for number in range(3):
            info = tarfile.TarInfo(f"multicoil_val/file{number}.h5")
            info.size = 100_000
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    (cloud.bucket.folder / name).write_bytes(buffer.getvalue())
    return buffer.getvalue()


def start(client, group, pipeline, link, file):
    relative = link.split(".com/")[1]
    given = {"link": relative, "file": file}
    return client.pipelines.create_run(group, NAME, pipeline, parameters=given).run_id


def finish(client, group, run):
    ended = time.monotonic() + 30
    while (found := client.pipeline_runs.get(group, NAME, run)).status in (
        *("Queued", "InProgress", "Canceling"),
    ):
        assert time.monotonic() < ended
        time.sleep(0.05)
    now = datetime.now(UTC)
    window = RunFilterParameters(
        last_updated_after=now - timedelta(days=1), last_updated_before=now + timedelta(days=1)
    )
    return found, client.activity_runs.query_by_pipeline_run(group, NAME, run, window).value


@pytest.mark.parametrize(("pipeline", "mode"), [("tar", "w"), ("targz", "w:gz")])
def test_an_archive_is_landed_and_unpacked(cloud, factory, group, pipeline, mode):
    data = archive(cloud, "multicoil_val.tar.gz", mode)
    link = cloud.bucket.link("/multicoil_val.tar.gz")
    run, activities = finish(factory, group, start(factory, group, pipeline, link, "val.tar"))
    assert run.status == "Succeeded"
    assert cloud.storage.names() == [
        *(f"knee_multicoil/multicoil_val/file{number}.h5" for number in range(3)),
        "knee_multicoil_compressed/val.tar",
    ]
    container = cloud.storage.container()
    assert container.download_blob("knee_multicoil_compressed/val.tar").readall() == data
    assert [a.output["filesWritten"] for a in activities] == [1, 3]
    assert activities[0].output["dataRead"] == len(data)
    assert cloud.network.refused == []


def test_secure_values_are_not_shown(cloud, factory, group):
    archive(cloud, "a.tar")
    link = cloud.bucket.link("/a.tar")
    run, activities = finish(factory, group, start(factory, group, "tar", link, "a.tar"))
    signature = link.split("Signature=")[1].split("&")[0]
    assert signature not in str(run.as_dict()) + str([a.as_dict() for a in activities])
    assert run.parameters["file"] == "a.tar"


def test_an_expired_link_fails_with_403_after_its_retries(cloud, factory, group):
    archive(cloud, "a.tar")
    link = cloud.bucket.link("/a.tar", lifetime=timedelta(seconds=-1))
    run, activities = finish(factory, group, start(factory, group, "tar", link, "a.tar"))
    assert run.status == "Failed"
    assert "status code 403" in run.message
    assert [(a.activity_name, a.status) for a in activities] == [("copy to file", "Failed")] * 2


def test_what_is_no_archive_of_its_kind_fails_to_unpack(cloud, factory, group):
    archive(cloud, "a.tar")
    link = cloud.bucket.link("/a.tar")
    run, activities = finish(factory, group, start(factory, group, "targz", link, "a.tar"))
    assert run.status == "Failed"
    assert "UserErrorInvalidCompressedFile" in activities[-1].error["message"]


def test_a_retry_mends_a_server_error(cloud, factory, group):
    archive(cloud, "a.tar")
    cloud.bucket.faults.append(Faults("a.tar", status=500, times=1))
    link = cloud.bucket.link("/a.tar")
    run, activities = finish(factory, group, start(factory, group, "tar", link, "a.tar"))
    assert run.status == "Succeeded"
    assert [a.status for a in activities] == ["Failed", "Succeeded", "Succeeded"]


def test_a_run_is_cancelled_in_the_middle_of_a_copy(cloud, factory, group):
    (cloud.bucket.folder / "a.tar").write_bytes(bytes(20_000_000))
    cloud.bucket.faults.append(Faults("a.tar", seconds_per_mb=0.5))
    run = start(factory, group, "tar", cloud.bucket.link("/a.tar"), "a.tar")
    while not cloud.bucket.sent:
        time.sleep(0.02)
    factory.pipeline_runs.cancel(group, NAME, run, is_recursive=True)
    found, activities = finish(factory, group, run)
    assert (found.status, activities[0].status) == ("Cancelled", "Cancelled")


def test_deleting_a_factory_ends_its_runs(cloud, factory, group):
    cloud.factory.pace.go.clear()
    start(factory, group, "tar", cloud.bucket.link("/a.tar"), "a.tar")
    factory.factories.delete(group, NAME)
    cloud.factory.runs[0].join()
    assert cloud.factory.runs[0].status == "Cancelled"
    assert (cloud.factory.names, cloud.factory.deleted) == ([], [NAME])
