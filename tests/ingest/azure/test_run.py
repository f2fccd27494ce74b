import math
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from azure.storage.blob import BlobLeaseClient

from tests.cloud.factory_copy import ShortCopy
from tests.ingest.azure.conftest import RELEASES
from tests.programs import wait_for
from workbench.azure_login import credential
from workbench.azure_resources import ResourceError
from workbench.ingest.factory import PREFIX, Factory, temporary_factory
from workbench.ingest.factory_documents import factory_documents
from workbench.ingest.manifest import LOCK
from workbench.ingest.plan import Action
from workbench.ingest.report import IngestError, report_html
from workbench_demo.bucket import Faults

VAL = "knee_multicoil_val.tar.xz"
KINDS = ("pipelineruns", "activityruns")
KILLED = """
import sys, time
from workbench.ingest.request import plan_ingest
from workbench.ingest.run import ingest
from workbench.settings import Secret

ingest(plan_ingest(Secret(sys.stdin.read()), destination="azure"))
"""


def check_landed(brought, cloud, report):
    """Check that a release lies whole in its datasets, and that its factory is gone."""
    assert report.problems == []
    for dataset, members in brought.members.items():
        assert brought.in_container(dataset) == members
    checks = sorted(outcome.check for outcome in report.outcomes)
    assert checks == ["not listed"] + ["verified"] * (len(checks) - 1)
    assert cloud.factory.names == []
    assert len(cloud.factory.deleted) == 1
    assert cloud.factory.deleted[0].startswith(PREFIX)
    assert cloud.network.refused == []


def test_release_of_2021_lands_whole_is_reported_and_a_second_run_makes_no_factory(release, cloud):
    brought = release("2021")
    cloud.factory.page = 1  # runs and activities come page by page
    report = brought.ingest()
    check_landed(brought, cloud, report)
    assert brought.files_of("knee_multicoil") == ["multicoil_train.tar", "multicoil_val.tar.gz"]
    assert brought.files_of("brain_multicoil") == ["brain_multicoil_val.tar"]
    assert brought.files_of("knee_DICOMs") == ["knee_mri_dicom_batch1.tar"]
    ran = {(a.archive, a.name, a.status) for a in report.activities}
    assert ("multicoil_train", "unpack", "Succeeded") in ran
    assert ("multicoil_val", "land", "Succeeded") in ran
    assert len(ran) == 8
    assert report.volumes["knee_multicoil"]["train"] == (2, 973)
    assert "4 archives brought in" in report.summary()
    assert all(a.read and a.written for a in report.activities)
    assert "Activities of the factory" in report_html(report)
    before = len(cloud.factory.requests)
    again = brought.ingest()
    assert {outcome.state for outcome in again.outcomes} == {"was there"}
    assert not [r for r in cloud.factory.requests[before:] if r.method == "PUT"]


def test_release_of_2025_lands_whole_and_a_lost_volume_is_unpacked_again(release, cloud):
    brought = release("2025")
    check_landed(brought, cloud, brought.ingest(secure_runs=False))
    assert brought.files_of("knee_multicoil") == [
        "knee_multicoil_test.tar",
        "knee_multicoil_train_batch_0.tar.xz",
        "knee_multicoil_val.tar.xz",
    ]
    cloud.storage.container().delete_blob("knee_multicoil/multicoil_val/b.h5")
    plan = brought.plan()
    assert [a.action for a in plan.archives].count(Action.UNPACK) == 1
    report = brought.run(plan)
    assert brought.in_container("knee_multicoil") == brought.members["knee_multicoil"]
    assert sum(outcome.written for outcome in report.outcomes) == 1
    assert len(cloud.factory.deleted) == 1


def test_archives_are_deleted_once_unpacked_where_they_are_not_to_be_kept(release):
    brought = release()
    brought.ingest(keep_archives=False)
    assert brought.files_of("knee_multicoil") == []
    assert {a.action for a in brought.plan().archives} == {Action.NOTHING}


# ---- trouble with one archive ------------------------------------------------------------


def test_mismatch_fails_naming_the_archive_and_is_taken_only_on_demand(release, cloud):
    brought = release()
    (cloud.bucket.folder / "SHA256").write_text(f"{'0' * 64}  {VAL}\n")
    report = brought.ingest()
    assert [o.check for o in report.outcomes if o.archive == VAL] == ["mismatch"]
    with pytest.raises(IngestError, match=rf"{VAL}: its SHA256 is .* accept_mismatch="):
        report.raise_for_problems()
    again = brought.plan()
    assert [a.action for a in again.archives if a.link.name == VAL] == [Action.REFUSE]
    accepted = brought.ingest(accept_mismatch=["knee_multicoil_val"])
    assert accepted.problems == []
    # Accepted once, it stays so.
    assert {a.action for a in brought.plan().archives} == {Action.NOTHING}


def test_object_that_changes_and_link_that_is_refused_are_reported_with_what_to_do(release, cloud):
    brought = release()
    (cloud.bucket.folder / "SHA256").write_text("")
    plan = brought.plan()
    path = cloud.bucket.folder / VAL
    os.utime(path, (1, 1))  # the bucket's ETag
    path.write_bytes(path.read_bytes()[::-1])
    cloud.bucket.faults.append(Faults("knee_multicoil_test", status=403))
    report = brought.run(plan)
    refused, changed = sorted(report.problems)
    assert changed.startswith(f"{VAL}: ")
    assert "the object changed while it was copied: run again" in changed
    assert VAL not in brought.files_of("knee_multicoil")
    name = "knee_multicoil_test"
    assert refused.startswith(f"{name}.tar.xz: fastMRI's server refuses the link: paste the email")
    assert "(land failed in Data Factory: " in refused
    tried = [a for a in report.activities if a.archive == name]
    assert [a.status for a in tried] == ["Failed"] * 3
    assert cloud.factory.names == []


@pytest.mark.parametrize(
    ("generation", "archives"),
    [("2025", [VAL]), ("2021", ["multicoil_val.tar.gz", "knee_mri_dicom_batch1.tar"])],
)
def test_copy_that_ends_early_and_is_called_succeeded_is_copied_again(
    release, cloud, capsys, generation, archives
):
    brought = release(generation)
    for archive in archives:
        cloud.factory.short.append(ShortCopy(rf"(^|/){archive}$", keep=600, times=2))
    report = brought.ingest()
    assert report.problems == []
    printed = capsys.readouterr().out
    for archive in archives:
        size = (cloud.bucket.folder / archive).stat().st_size
        said = f"{archive}: 600 of {size:,} bytes landed, and Data Factory calls that Succeeded"
        assert printed.count(said) == 2
        (outcome,) = [each for each in report.outcomes if each.archive == archive]
        assert [a.name for a in outcome.activities].count("land") == 3
    for dataset, members in brought.members.items():
        assert brought.in_container(dataset) == members
    assert len(cloud.factory.deleted) == 1


def test_copy_that_always_ends_early_is_given_up_after_three(release, cloud):
    brought = release()
    cloud.factory.short.append(ShortCopy(VAL, keep=600, times=9))
    (problem,) = brought.ingest().problems
    size = (cloud.bucket.folder / VAL).stat().st_size
    assert problem.startswith(f"{VAL}: 600 of {size:,} bytes landed: Data Factory ended 3 copies")
    assert "monitor" not in problem
    assert VAL not in brought.files_of("knee_multicoil")
    cloud.factory.short.clear()
    assert brought.ingest().problems == []


@contextmanager
def meanwhile(cloud, act, runs=1):
    """Do something while the body runs, once the factory has so many runs."""

    def wait() -> None:
        wait_for(lambda: len(cloud.factory.runs) >= runs)
        act()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join()


def test_run_that_is_cancelled_from_outside_ends_and_says_so(release, cloud):
    brought = release()
    cloud.factory.pace.go.clear()

    def cancel() -> None:
        for run in list(cloud.factory.runs):
            run.cancel()
        cloud.factory.pace.go.set()

    with meanwhile(cloud, cancel, runs=3):
        report = brought.ingest()
    assert len(report.problems) == 3
    assert all("cancelled from outside: run again" in problem for problem in report.problems)
    assert cloud.factory.names == []


# ---- trouble with the factory ------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch):
    """The clients' own waits, cut short."""
    import azure.mgmt.core.policies._base as policy

    monkeypatch.setattr(policy, "time", type("time", (), {"sleep": staticmethod(lambda _: None)}))


def test_provider_that_is_not_registered_is_registered(release, cloud, impatient):
    cloud.management.unregister("Microsoft.DataFactory")
    # Listing what is left behind meets the provider first.
    assert release().ingest().problems == []


def test_provider_that_may_not_be_registered_names_role_and_command(release, cloud, impatient):
    cloud.management.unregister("Microsoft.DataFactory")
    cloud.management.deny("*/register/action")
    with pytest.raises(ResourceError, match=r"Contributor .* `az provider register --namespace M"):
        release().ingest()


def test_missing_role_names_it_and_the_command(release, cloud):
    cloud.management.deny("Microsoft.DataFactory/factories/write")
    with pytest.raises(
        ResourceError, match=r'role "Data Factory Contributor": an owner runs `az r'
    ):
        release().ingest()


def test_factory_that_is_never_ready_is_given_up_and_deleted(release, cloud, monkeypatch):
    monkeypatch.setattr("workbench.ingest.factory._PATIENCE_SECONDS", 1.0)
    cloud.factory.provisioning_seconds = math.inf
    with pytest.raises(ResourceError, match=r"is not ready after 1 s \(it is Creating\)"):
        release().ingest()
    assert cloud.factory.names == []
    assert len(cloud.factory.deleted) == 1


def test_document_that_is_refused_ends_the_run_deletes_the_factory_and_shows_no_key(release, cloud):
    cloud.fail("PUT .*/linkedservices/DatasetStorage", status=400, code="BadRequest")
    with pytest.raises(ResourceError, match=r"^Data Factory document DatasetStorage: ") as caught:
        release().ingest()
    assert cloud.storage.key not in str(caught.value)
    assert cloud.factory.names == []


def test_failures_that_pass_are_borne_with(release, cloud):
    brought = release()
    plan = brought.plan()
    cloud.bucket.faults.append(Faults("knee_multicoil_val", status=500, times=2))
    cloud.fail("POST .*/queryPipelineRuns", status=429, retry_after=0.1, times=3)
    cloud.fail("POST .*/queryActivityruns", status=500, times=1)
    cloud.fail("PUT .*/pipelines/", drop=True, times=1)
    cloud.fail("POST .*/createRun", drop=True, times=2)
    assert brought.run(plan).problems == []
    assert len(cloud.factory.runs) == 3


def test_run_that_started_without_our_knowing_is_not_started_twice(release, cloud):
    plan = release().plan()
    cloud.factory.pace.go.clear()
    factory = Factory(plan.factory.workspace, credential())
    archive = plan.archives[0]
    copy = (archive.link, archive.kind, "x.tar")
    documents = factory_documents([copy], "datasets", plan.factory.storage.connection)
    with temporary_factory(factory, "westeurope", "account/container"):
        factory.put(documents)
        run = documents.runs[archive.link.stem]
        first = factory.start(run)
        assert factory.start(run, again=True).id == first.id
        assert factory.start(run).id != first.id
        cloud.factory.pace.go.set()
    assert cloud.factory.names == []


def test_network_that_is_lost_while_watching_does_not_end_the_run(release, cloud, capsys):
    brought = release()
    plan = brought.plan()
    cloud.bucket.faults.append(Faults("knee_multicoil_val", seconds_per_mb=0.8))

    def lose() -> None:
        with cloud.network.offline("management.azure.com"):
            time.sleep(1.5)

    with meanwhile(cloud, lose):
        report = brought.run(plan)
    assert report.problems == []
    assert "Data Factory answers again" in capsys.readouterr().out
    assert cloud.factory.names == []


@pytest.mark.parametrize("how", ["in time", "withdrawn"])
def test_token_that_ends_during_the_copy_is_renewed(release, cloud, how):
    brought = release()
    if how == "in time":
        cloud.login.lifetime = 2
    plan = brought.plan()
    pace = 1.0 if how == "in time" else 0.3  # 3 MB outlast the token
    cloud.bucket.faults.append(Faults("knee_multicoil_val", seconds_per_mb=pace))
    with meanwhile(cloud, cloud.login.expire if how == "withdrawn" else lambda: None):
        report = brought.run(plan)
    assert report.problems == []


# ---- killed, interrupted -----------------------------------------------------------------


def begin(cloud, brought) -> subprocess.Popen:
    """Start an ingest in a process of its own, with copies that take a while."""
    cloud.bucket.faults.append(Faults("knee_multicoil_val", seconds_per_mb=3))
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ
        | cloud.environment
        | {"AZURE_STORAGE_CONNECTION_STRING": cloud.storage.connection_string},
        text=True,
    )
    process.stdin.write(brought.email)
    process.stdin.close()
    wait_for(lambda: len(cloud.factory.runs) >= 3 or process.poll() is not None)
    assert process.poll() is None, process.stdout.read()
    return process


def end(process: subprocess.Popen, sign: int) -> str:
    process.send_signal(sign)
    output = process.stdout.read()
    process.wait(30)
    process.stdout.close()
    return output


def test_interrupt_cancels_what_runs_and_deletes_the_factory(release, cloud):
    process = begin(cloud, release())
    output = end(process, signal.SIGINT)
    assert "KeyboardInterrupt" in output
    assert cloud.factory.names == []
    # What was cancelled may still be on its way to its end, as in Azure.
    assert {"Canceling", "Cancelled"} & {run.status for run in cloud.factory.runs}


def test_factory_of_a_killed_run_is_offered_and_deleted_on_demand(release, cloud):
    """That it is taken over otherwise is tried in ``test_notebook``."""
    brought = release()
    process = begin(cloud, brought)
    (left,) = cloud.factory.names
    wait_for(lambda: sum(run.status == "Succeeded" for run in cloud.factory.runs) >= 2)
    end(process, signal.SIGKILL)
    cloud.bucket.faults.clear()
    lock = cloud.storage.container().get_blob_client(LOCK)
    BlobLeaseClient(lock).break_lease(0)  # else it ends by itself, a quarter of a minute later
    plan = brought.plan(leftover="delete")
    assert any(f"left the factory {left}" in note for note in plan.notes)
    asked = cloud.bucket.requests[:]
    report = brought.run(plan)
    assert report.problems == []
    assert brought.in_container("knee_multicoil") == brought.members["knee_multicoil"]
    assert cloud.factory.names == []
    assert left in cloud.factory.deleted
    again = {path for _, path, part in cloud.bucket.requests[len(asked) :] if part is None}
    assert again == {f"/v2.0/{VAL}"}
    assert len(cloud.factory.deleted) == 2


def test_two_ingests_into_one_container_are_not_let(release, cloud, monkeypatch):
    monkeypatch.setattr("workbench.stores.blob._LEASE_PATIENCE", 0.0)
    brought = release()
    plan = brought.plan()
    with (
        plan.store.lock(LOCK, ""),
        pytest.raises(RuntimeError, match=r"another ingest works on https://.*/datasets: wait"),
    ):
        brought.run(plan)
    assert cloud.factory.deleted == []


def test_one_look_asks_for_all_runs_at_once_and_for_one_copy_s_activities(release, cloud):
    brought = release("2021")
    cloud.factory.pace.go.clear()
    started = len(RELEASES["2021"])

    def asked():
        paths = [request.path.lower() for request in cloud.factory.requests]
        return [sum(path.endswith(f"query{what}") for path in paths) for what in KINDS]

    def go() -> None:
        wait_for(lambda: min(asked()) >= 3)  # looks, while all runs are queued
        cloud.factory.pace.go.set()

    with meanwhile(cloud, go, runs=started):
        assert brought.ingest().problems == []
    runs, activities = asked()
    assert activities <= runs + started
    paths = [request.path.lower() for request in cloud.factory.requests]
    assert not [path for path in paths if "/pipelineruns/" in path and "query" not in path]


def test_an_archive_that_landed_is_unpacked_though_the_look_at_another_got_no_answer(
    release, cloud
):
    brought = release()
    cloud.factory.pace.go.clear()

    def go() -> None:
        last = list(cloud.factory.runs)[-1].id
        # As often as the client asks by itself, so that one look fails.
        cloud.fail(f"{last}/queryActivityruns", status=429, retry_after=0.01, times=5)
        cloud.factory.pace.go.set()

    with meanwhile(cloud, go, runs=3):
        report = brought.ingest()
    assert [outcome.state for outcome in report.outcomes] == ["unpacked"] * 3
    assert brought.in_container("knee_multicoil") == brought.members["knee_multicoil"]


def test_an_ingest_asks_no_sooner_than_it_is_told(release, cloud):
    """More refusals than the SDK bears with by itself."""
    asked = (
        *("POST .*/queryPipelineRuns", "POST .*/createRun"),
        *(r"PUT .*/factories/[^/]+\?", "PUT .*/pipelines/"),
    )
    faults = [cloud.fail(each, status=429, retry_after=0.25, times=6) for each in asked]
    assert release().ingest().problems == []
    assert [(fault.struck, fault.early) for fault in faults] == [(6, 0)] * 4
