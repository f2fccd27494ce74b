import gzip
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from demo.bucket import Bucket, Faults
from workbench.ingest.links import parse_links
from workbench.ingest.local import plan_ingest, run_ingest
from workbench.ingest.manifest import only_ingest, read_records
from workbench.ingest.offer import Sums, read_sums
from workbench.ingest.report import IngestError, plan_html, report_html


@pytest.fixture
def root(tmp_path):
    return tmp_path / "datasets"


def ingest(text, root, *, patience, datasets=(), keep=True, accept=(), connections=2):
    plan = plan_ingest(
        parse_links(text),
        root,
        datasets,
        keep_archives=keep,
        accept_mismatch=accept,
        patience=patience,
    )
    return run_ingest(plan, connections=connections, patience=patience)


def fetched(bucket, name="knee"):
    """Bytes were asked for beyond an archive's head and index."""
    return [
        path
        for _, path, asked in bucket.requests
        if name in path and asked and asked != "bytes=0-511" and not asked.endswith("-512")
    ]


def states(root, dataset="knee_multicoil"):
    content = json.loads((root / dataset / "ingest.json").read_text())["archives"]
    return {stem: (record["state"], record["check"]) for stem, record in content.items()}


@pytest.mark.parametrize("generation", ["2021", "2025"])
@pytest.mark.parametrize("keep", [True, False])
def test_every_kind_of_archive_comes_in(knee, root, hasty, members_in, keep, generation):
    folder, members = knee
    with Bucket(folder) as bucket:
        report = ingest(bucket.email(generation), root, patience=hasty, keep=keep)
    report.raise_for_problems()
    assert members_in(root / "knee_multicoil") == members
    assert states(root) == {
        "knee_multicoil_test": ("unpacked", "verified"),
        "knee_multicoil_train_batch_0": ("unpacked", "not listed"),
        "knee_multicoil_val": ("unpacked", "verified"),
    }
    kept = root / "knee_multicoil_compressed"
    names = sorted(path.name for path in kept.iterdir()) if kept.exists() else []
    assert names == keep * [
        "knee_multicoil_test.tar.gz",
        "knee_multicoil_train_batch_0.tar",
        "knee_multicoil_val.tar.xz",
    ]
    assert report.volumes["knee_multicoil"]["val"] == (2, 199)


@pytest.mark.parametrize("keep", [True, False])
def test_second_run_does_nothing(knee, root, hasty, keep):
    folder, _ = knee
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty, keep=keep)
        bucket.requests.clear()
        report = ingest(text, root, patience=hasty, keep=keep)
        assert [path for _, path, _ in bucket.requests if "knee" in path] == []
    assert [outcome.result for outcome in report.outcomes] == ["was there"] * 3


def test_done_archives_need_no_links_that_hold(knee, root, hasty):
    folder, _ = knee
    with Bucket(folder) as bucket:
        ingest(bucket.email(), root, patience=hasty)
        expired = bucket.email(lifetime=timedelta(days=-1))
        report = ingest(expired, root, patience=hasty)
    assert report.problems == []


def test_member_that_was_removed_comes_back_from_the_kept_archive(knee, root, hasty, members_in):
    folder, members = knee
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty)
        (root / "knee_multicoil" / "multicoil_val" / "a.h5").unlink()
        bucket.requests.clear()
        report = ingest(text, root, patience=hasty)
        assert [path for _, path, _ in bucket.requests if "knee" in path] == []
    assert members_in(root / "knee_multicoil") == members
    assert sum(outcome.written for outcome in report.outcomes) == 1


def test_removed_archives_are_not_fetched_again(knee, root, hasty):
    folder, _ = knee
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty)
        shutil.rmtree(root / "knee_multicoil_compressed")
        report = ingest(text, root, patience=hasty)
    assert {outcome.result for outcome in report.outcomes} == {"was there"}


@pytest.mark.parametrize("keep", [True, False])
def test_flaky_server_does_no_harm(knee, root, hasty, members_in, keep):
    folder, members = knee
    faults = Faults(drop_after=150_000, drops=2), Faults(status=503, times=2)
    with Bucket(folder, *faults) as bucket:
        ingest(bucket.email(), root, patience=hasty, keep=keep).raise_for_problems()
    assert members_in(root / "knee_multicoil") == members


def test_plan_says_what_is_complete_missing_large_and_when_links_end(knee, root, hasty):
    folder, _ = knee
    now = datetime.now(UTC)
    with Bucket(folder) as bucket:
        plan = plan_ingest(parse_links(bucket.email()), root, patience=hasty)
    (dataset,) = plan.datasets
    assert dataset.missing == tuple(f"knee_multicoil_train_batch_{n}" for n in range(1, 5))
    sizes = {path.name: path.stat().st_size for path in folder.glob("knee*")}
    assert {a.link.name: a.size for a in plan.archives} == sizes
    by_stem = {archive.link.stem: archive for archive in plan.archives}
    xz, tar, gz = (by_stem[f"knee_multicoil_{x}"] for x in ("val", "train_batch_0", "test"))
    assert (xz.exact, tar.exact, gz.exact) == (True, True, False)
    assert 400_000 < xz.unpacked < 420_000
    assert tar.unpacked == tar.size
    assert plan.need == sum(sizes.values()) + sum(a.unpacked for a in plan.archives)
    assert timedelta(days=89) < xz.link.expires - now < timedelta(days=91)
    assert not root.exists()


def test_complete_release_is_said_complete(tmp_path, root, hasty, packed, volumes):
    folder = tmp_path / "bucket"
    folder.mkdir()
    for number in (1, 2):
        archive = packed("tar", volumes(f"knee{number}/1.dcm"))
        (folder / f"knee_DICOMs_batch{number}.tar.xz").write_bytes(archive)
    with Bucket(folder) as bucket:
        plan = plan_ingest(parse_links(bucket.email()), root, patience=hasty)
    assert [(d.name, d.missing) for d in plan.datasets] == [("knee_DICOMs", ())]
    assert "none: complete" in plan_html(plan)


def test_prostate_and_breast_land_in_folders_of_their_own(tmp_path, root, hasty, packed, volumes):
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name in ("fastMRI_prostate_T2", "fastMRI_breast_001"):
        (folder / f"{name}.tar.gz").write_bytes(packed("gz", volumes(f"{name}/a.h5")))
    with Bucket(folder) as bucket:
        ingest(bucket.email(), root, patience=hasty).raise_for_problems()
    assert (root / "prostate" / "fastMRI_prostate_T2" / "a.h5").is_file()
    assert (root / "breast" / "fastMRI_breast_001" / "a.h5").is_file()
    assert (root / "breast_compressed" / "fastMRI_breast_001.tar.gz").is_file()


def test_of_two_generations_the_complete_one_is_taken(tmp_path, root, hasty, packed, volumes):
    folder = tmp_path / "bucket"
    folder.mkdir()
    for name in ("knee_mri_dicom_batch1.tar", "knee_mri_dicom_batch2.tar"):
        (folder / name).write_bytes(packed("tar", volumes(f"{name}/1.dcm")))
    new = "knee_DICOMs_batch1.tar.xz"
    (folder / new).write_bytes(packed("xz", volumes("new/1.dcm")))
    with Bucket(folder) as bucket:
        old = [path.name for path in folder.glob("*.tar")]
        text = bucket.email("2021", names=old) + bucket.email("2025", names=[new])
        plan = plan_ingest(parse_links(text), root, patience=hasty)
    assert [(d.generation, len(d.archives), d.missing) for d in plan.datasets] == [("2021", 2, ())]
    assert any("knee_DICOMs" in note and "2021" in note for note in plan.notes)


def test_choosing_datasets(knee, root, hasty, packed, volumes):
    folder, _ = knee
    (folder / "brain_multicoil_val_batch_0.tar.xz").write_bytes(
        packed("xz", volumes("multicoil_val/brain.h5"))
    )
    with Bucket(folder) as bucket:
        links = parse_links(bucket.email())
        ingest(bucket.email(), root, patience=hasty, datasets=["brain_multicoil"])
        with pytest.raises(ValueError, match=r"datasets='knee': give one of knee_singlecoil, "):
            plan_ingest(links, root, ["knee"], patience=hasty)
        with pytest.raises(ValueError, match=r"no link for it; it has brain_multicoil, knee_mul"):
            plan_ingest(links, root, ["knee_DICOMs"], patience=hasty)
    assert sorted(path.name for path in root.iterdir()) == [
        "brain_multicoil",
        "brain_multicoil_compressed",
    ]


@pytest.mark.parametrize("name", ["knee_multicoil_test.tar.xz", "knee_multicoil_test.tar.gz"])
def test_archive_brought_by_hand_is_hashed_and_used(knee, root, hasty, members_in, name):
    folder, members = knee
    kept = root / "knee_multicoil_compressed"
    kept.mkdir(parents=True)
    shutil.copy(folder / "knee_multicoil_test.tar.xz", kept / name)
    with Bucket(folder) as bucket:
        ingest(bucket.email(), root, patience=hasty).raise_for_problems()
        assert len([p for _, p, _ in bucket.requests if "multicoil_test" in p]) == 1
    assert members_in(root / "knee_multicoil") == members
    assert states(root)["knee_multicoil_test"] == ("unpacked", "verified")
    assert sorted(path.name for path in kept.iterdir())[0] == "knee_multicoil_test.tar.gz"


def test_sums_of_the_archive_s_own_folder_come_first(tmp_path):
    text = []
    with Bucket(tmp_path) as bucket:
        for path in ("/brain_fastMRI_DICOM.tar.gz", "/v2.0/brain_fastMRI_DICOM.tar.gz"):
            text += parse_links(bucket.link(path))
    sums = Sums(
        {
            ("/v2.0", "brain_fastMRI_DICOM.tar.gz"): "new",
            ("", "brain_fastMRI_DICOM.tar.gz"): "old",
            ("/v3.0", "elsewhere.tar"): "other",
        }
    )
    assert [sums.of(link) for link in text] == ["old", "new"]


def test_list_of_sums_is_read_as_sha256sum_writes_it(tmp_path, hasty):
    a, b, c = "a" * 64, "B" * 64, "c" * 64
    (tmp_path / "SHA256").write_text(f"{a}  one.tar\r\n{b} *./sub/two.tar\n\n# x\n{c}\tthree.tar")
    with Bucket(tmp_path) as bucket:
        sums = read_sums(parse_links(bucket.link("/v3.0/SHA256")), hasty, datetime.now(UTC))
    assert sums.listed == {
        ("/v3.0", "one.tar"): a,
        ("/v3.0", "two.tar"): b.lower(),
        ("/v3.0", "three.tar"): c,
    }


# ---- killed ------------------------------------------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
from workbench.ingest.links import parse_links
from workbench.ingest.local import plan_ingest, run_ingest
links, root, keep = parse_links(os.environ["LINKS"]), Path(sys.argv[1]), sys.argv[2] == "keep"
plan = plan_ingest(links, root, keep_archives=keep)
run_ingest(plan, connections=1).raise_for_problems()
"""


def killed_when(condition, text, root, keep):
    """Run an ingest in a process of its own and kill it as soon as a condition holds."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root), "keep" if keep else "stream"],
        env=os.environ | {"LINKS": text},
    )
    try:
        deadline = time.monotonic() + 60
        while not condition():
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL


def test_leftovers_of_a_killed_run_are_gone_after_the_next(knee, root, hasty, members_in):
    folder, members = knee
    left = root / "knee_multicoil" / "multicoil_val" / ".gone.h5.ingest-part"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    with Bucket(folder) as bucket:
        ingest(bucket.email(), root, patience=hasty)
    assert members_in(root / "knee_multicoil") == members


def test_kill_in_the_middle_of_the_download_is_gone_on_from(knee, root, hasty, members_in):
    folder, members = knee
    part = root / "knee_multicoil_compressed" / "knee_multicoil_val.part"
    with Bucket(folder, Faults("val", seconds_per_mb=2)) as bucket:
        text = bucket.email()
        killed_when(lambda: part.exists() and part.stat().st_size > 100_000, text, root, keep=True)
        there = part.stat().st_size
        bucket.faults.clear()
        bucket.requests.clear()
        plan = plan_ingest(parse_links(text), root, patience=hasty)
        by_stem = {archive.link.stem: archive for archive in plan.archives}
        assert by_stem["knee_multicoil_val"].action == "resume"
        run_ingest(plan, patience=hasty).raise_for_problems()
        starts = [
            int(asked.removeprefix("bytes=").split("-")[0])
            for _, path, asked in bucket.requests
            if "val" in path
        ]
    assert there in starts
    assert members_in(root / "knee_multicoil") == members
    assert states(root)["knee_multicoil_val"] == ("unpacked", "verified")
    assert not part.exists()


@pytest.mark.parametrize("keep", [True, False])
def test_kill_in_the_middle_of_unpacking_leaves_whole_members_only(
    tmp_path, root, hasty, packed, members_in, keep
):
    members = {f"multicoil_val/{n:02}.h5": bytes([n]) * 8_000_000 for n in range(16)}
    folder = tmp_path / "bucket"
    folder.mkdir()
    (folder / "knee_multicoil_val.tar.xz").write_bytes(packed("gz", members))
    unpacked = root / "knee_multicoil" / "multicoil_val"
    with Bucket(folder) as bucket:
        text = bucket.email()
        killed_when(lambda: (unpacked / "02.h5").exists(), text, root, keep)
        whole = {path.name for path in unpacked.glob("*.h5")}
        assert 3 <= len(whole) < len(members)
        for name in whole:
            assert (unpacked / name).read_bytes() == members[f"multicoil_val/{name}"]
        report = ingest(text, root, patience=hasty, keep=keep)
    report.raise_for_problems()
    assert members_in(root / "knee_multicoil") == members
    assert report.outcomes[0].written == len(members) - len(whole)


# ---- changed -----------------------------------------------------------------------------


def changed(members, path="multicoil_val/a.h5"):
    """Return members with one bit of one of them flipped."""
    damaged = bytearray(members[path])
    damaged[len(damaged) // 2] ^= 1
    return members | {path: bytes(damaged)}


def val_of(members):
    return {path: data for path, data in members.items() if "val" in path}


@pytest.mark.parametrize("keep", [True, False])
def test_members_of_a_bad_archive_are_replaced_by_the_good_one(
    knee, root, hasty, packed, members_in, keep
):
    folder, members = knee
    val = folder / "knee_multicoil_val.tar.xz"
    good = val.read_bytes()
    bad = changed(val_of(members)) | {"multicoil_val/never.h5": b"only in the bad one"}
    val.write_bytes(packed("xz", bad))
    with Bucket(folder) as bucket:
        text = bucket.email()
        first = ingest(text, root, patience=hasty, keep=False)
        assert members_in(root / "knee_multicoil") == members | bad
        val.write_bytes(good)
        second = ingest(text, root, patience=hasty, keep=keep)
    assert [problem[:26] for problem in first.problems] == ["knee_multicoil_val.tar.xz:"]
    assert second.problems == []
    assert members_in(root / "knee_multicoil") == members
    assert states(root)["knee_multicoil_val"] == ("unpacked", "verified")
    assert any("multicoil_val/never.h5 was removed" in note for note in second.notes)


def test_list_that_names_another_hash_since_brings_the_archive_anew(
    knee, root, hasty, packed, sums_of, members_in
):
    folder, members = knee
    val = folder / "knee_multicoil_val.tar.xz"
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty, keep=False)
        new = members | changed(val_of(members))
        val.write_bytes(packed("xz", val_of(new)))
        (folder / "SHA256").write_text(sums_of(val))
        report = ingest(text, root, patience=hasty, keep=False)
    assert report.problems == []
    assert members_in(root / "knee_multicoil") == new


def test_archive_not_listed_is_verified_once_a_list_names_it(knee, root, hasty, sums_of):
    folder, _ = knee
    listed = (folder / "SHA256").read_text()
    (folder / "SHA256").write_text("")
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty)
        assert states(root)["knee_multicoil_val"] == ("unpacked", "not listed")
        (folder / "SHA256").write_text(listed)
        ingest(text, root, patience=hasty)
    assert states(root)["knee_multicoil_val"] == ("unpacked", "verified")


@pytest.mark.parametrize("keep", [True, False])
def test_member_edited_since_comes_back(knee, root, hasty, members_in, keep):
    folder, members = knee
    edited = root / "knee_multicoil" / "multicoil_val" / "a.h5"
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty, keep=keep)
        edited.write_bytes(changed(members)["multicoil_val/a.h5"])
        report = ingest(text, root, patience=hasty, keep=keep)
        bucket.requests.clear()
        os.utime(edited, (1, 1))  # another time alone is no change
        again = ingest(text, root, patience=hasty, keep=keep)
        assert fetched(bucket) == []
    assert (report.problems, again.problems) == ([], [])
    assert members_in(root / "knee_multicoil") == members
    assert sum(outcome.replaced for outcome in report.outcomes) == 1
    assert {outcome.result for outcome in again.outcomes} == {"was there"}


def test_kept_archive_edited_since_is_named_and_not_unpacked(knee, root, hasty, members_in):
    folder, members = knee
    kept = root / "knee_multicoil_compressed" / "knee_multicoil_train_batch_0.tar"
    member = root / "knee_multicoil" / "multicoil_train" / "d.h5"
    with Bucket(folder) as bucket:
        text = bucket.email()
        ingest(text, root, patience=hasty)
        content = bytearray(kept.read_bytes())
        content[5000] ^= 1
        kept.write_bytes(content)
        member.unlink()
        (problem,) = ingest(text, root, patience=hasty).problems
        assert "knee_multicoil_train_batch_0.tar changed since it was downloaded" in problem
        assert "remove that file and run again" in problem
        assert not member.exists()
        kept.unlink()
        assert ingest(text, root, patience=hasty).problems == []
    assert members_in(root / "knee_multicoil") == members


# ---- trouble -----------------------------------------------------------------------------


def test_mismatch_is_kept_aside_and_not_unpacked_until_accepted(knee, root, hasty, members_in):
    folder, members = knee
    (folder / "SHA256").write_text(f"{'0' * 64}  knee_multicoil_val.tar.xz\n")
    kept = root / "knee_multicoil_compressed" / "knee_multicoil_val.mismatch.tar.xz"
    with Bucket(folder) as bucket:
        text = bucket.email()
        report = ingest(text, root, patience=hasty)
        assert len(report.problems) == 1
        assert report.problems[0].startswith("knee_multicoil_val.tar.xz: its SHA256 is ")
        assert "accept_mismatch='knee_multicoil_val'" in report.problems[0]
        with pytest.raises(IngestError, match="1 of 3 archives could not be brought in"):
            report.raise_for_problems()
        assert kept.is_file()
        assert not (root / "knee_multicoil" / "multicoil_val").exists()
        assert states(root)["knee_multicoil_val"] == ("downloaded", "mismatch")
        bucket.requests.clear()
        assert len(ingest(text, root, patience=hasty).problems) == 1
        without_list = bucket.email(names=["knee_multicoil_val.tar.xz"])
        assert len(ingest(without_list, root, patience=hasty).problems) == 1
        accepted = ingest(text, root, patience=hasty, accept=["knee_multicoil_val"])
        assert [path for _, path, _ in bucket.requests if "knee" in path] == []
    assert accepted.problems == []
    assert members_in(root / "knee_multicoil") == members


def test_mismatch_while_streaming_is_a_problem_and_recorded(knee, root, hasty):
    folder, _ = knee
    (folder / "SHA256").write_text(f"{'0' * 64}  knee_multicoil_val.tar.xz\n")
    with Bucket(folder) as bucket:
        text = bucket.email()
        report = ingest(text, root, patience=hasty, keep=False)
        before = states(root)["knee_multicoil_val"]
        bucket.requests.clear()
        accepted = ingest(text, root, patience=hasty, keep=False, accept=["knee_multicoil_val"])
        assert [path for _, path, _ in bucket.requests if "knee" in path] == []
    assert accepted.problems == []
    assert before == ("downloading", "mismatch")
    assert [problem[:42] for problem in report.problems] == [
        "knee_multicoil_val.tar.xz: its SHA256 is "
        + hashlib.sha256((folder / "knee_multicoil_val.tar.xz").read_bytes()).hexdigest()[:1]
    ]
    assert states(root)["knee_multicoil_val"] == ("unpacked", "mismatch")


def test_archive_broken_at_its_source_is_named_and_the_others_come_in(
    knee, root, hasty, packed, volumes, sums_of, members_in
):
    folder, members = knee
    broken = folder / "knee_multicoil_val.tar.xz"
    extra = volumes("multicoil_val/a.h5", "multicoil_val/z.h5", size=2_500_000)
    broken.write_bytes(packed("xz", extra)[:4_000_000])
    (folder / "SHA256").write_text(sums_of(broken))
    with Bucket(folder) as bucket:
        report = ingest(bucket.email(), root, patience=hasty)
    (problem,) = report.problems
    assert problem.startswith("knee_multicoil_val.tar.xz: truncated or damaged after multicoil_val")
    assert "knee_multicoil_val.tar.xz and run again" in problem
    del members["multicoil_val/a.h5"], members["multicoil_val/b.h5"]
    del extra["multicoil_val/z.h5"]
    assert members_in(root / "knee_multicoil") == members | extra
    assert states(root)["knee_multicoil_val"] == ("downloaded", "verified")


def test_unsafe_archive_is_named_and_the_others_come_in(knee, root, hasty, tar_of, tmp_path):
    folder, _ = knee
    evil = tar_of({"multicoil_val/a.h5": b"1", "../../evil.h5": b"2"})
    (folder / "knee_multicoil_val.tar.xz").write_bytes(evil)
    (folder / "SHA256").unlink()
    with Bucket(folder) as bucket:
        report = ingest(bucket.email(), root, patience=hasty)
    (problem,) = report.problems
    assert "knee_multicoil_val.tar.xz: member '../../evil.h5' is refused" in problem
    assert not list(tmp_path.rglob("evil*"))
    assert [o.result for o in report.outcomes] == ["unpacked", "unpacked", "failed"]


def test_web_page_instead_of_an_archive_is_found_before_the_download(knee, root, hasty):
    folder, _ = knee
    (folder / "knee_multicoil_val.tar.xz").write_bytes(b"<html>" * 1000)
    with Bucket(folder) as bucket:
        plan = plan_ingest(parse_links(bucket.email()), root, patience=hasty)
    assert [a.action for a in plan.archives] == ["download", "download", "refuse"]


def test_all_links_expired_is_an_error_before_anything_is_done(knee, root, hasty):
    folder, _ = knee
    with Bucket(folder) as bucket:
        text = bucket.email(lifetime=timedelta(days=-3))
        with pytest.raises(ValueError, match=r"the link expired on .* ask anew at https://fastmri"):
            plan_ingest(parse_links(text), root, patience=hasty)
        assert [path for _, path, _ in bucket.requests if "knee" in path] == []
    assert not root.exists()


def test_refused_and_missing_archives_stop_no_other(knee, root, hasty):
    folder, _ = knee
    with Bucket(folder) as bucket:
        text = bucket.email()
        text = text.replace("_val.tar.xz?", "_val_batch_0.tar.xz?", 1)
        (folder / "knee_multicoil_test.tar.xz").unlink()
        report = ingest(text, root, patience=hasty)
    problems = sorted(report.problems)
    assert "knee_multicoil_test.tar.xz: the server answers 404 NoSuchKey" in problems[0]
    assert "403 SignatureDoesNotMatch" in problems[1]
    assert sorted(outcome.result for outcome in report.outcomes) == ["failed", "failed", "unpacked"]


def test_object_that_changed_since_the_first_run_is_fetched_anew(
    knee, root, hasty, packed, volumes, members_in
):
    folder, members = knee
    val = folder / "knee_multicoil_val.tar.xz"
    (folder / "SHA256").unlink()
    part = root / "knee_multicoil_compressed" / "knee_multicoil_val.part"
    with Bucket(folder, Faults("val", seconds_per_mb=2)) as bucket:
        text = bucket.email()
        killed_when(lambda: part.exists() and part.stat().st_size > 50_000, text, root, keep=True)
        bucket.faults.clear()
        new = volumes("multicoil_val/new.h5", size=val.stat().st_size)
        val.write_bytes(packed("xz", new))
        ingest(text, root, patience=hasty).raise_for_problems()
    old = {"multicoil_val/a.h5", "multicoil_val/b.h5"}
    expected = {path: data for path, data in members.items() if path not in old} | new
    assert members_in(root / "knee_multicoil") == expected


def test_disk_that_is_too_small_is_said_before_anything_is_done(knee, small_disk, hasty):
    folder, _ = knee
    (folder / "knee_multicoil_test.tar.xz").unlink()
    with Bucket(folder) as bucket:
        plan = plan_ingest(parse_links(bucket.email()), small_disk / "datasets", patience=hasty)
        with pytest.raises(
            ValueError, match=r"needs at least 9\d\d kB of disk and 52\d kB are free: keep_archives"
        ):
            run_ingest(plan, patience=hasty)
    assert not (small_disk / "datasets").exists()


@pytest.mark.parametrize("keep", [True, False])
def test_disk_that_fills_up_is_a_clear_problem_and_gone_on_from(
    tmp_path, small_disk, hasty, packed, members_in, keep
):
    # Zeros in gzip: no plan can know how large they become.
    members = {f"multicoil_val/{n}.h5": bytes(150_000) for n in range(5)}
    folder = tmp_path / "bucket"
    folder.mkdir()
    (folder / "knee_multicoil_val.tar.gz").write_bytes(packed("gz", members))
    with Bucket(folder) as bucket:
        text = bucket.email()
        report = ingest(text, small_disk / "datasets", patience=hasty, keep=keep)
        (problem,) = report.problems
        assert "is full: free some space and run again" in problem
        there = members_in(small_disk / "datasets" / "knee_multicoil")
        assert 1 <= len(there) < 5
        subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
        report = ingest(text, small_disk / "datasets", patience=hasty, keep=keep)
    report.raise_for_problems()
    assert report.outcomes[0].written == 5 - len(there)
    assert members_in(small_disk / "datasets" / "knee_multicoil") == members


def test_disk_that_fills_up_during_the_download_keeps_the_part(
    tmp_path, small_disk, hasty, packed, volumes, members_in
):
    folder, members = tmp_path / "bucket", volumes("multicoil_val/a.h5", size=200_000)
    folder.mkdir()
    (folder / "knee_multicoil_val.tar.gz").write_bytes(packed("gz", members))
    root = small_disk / "datasets"
    with Bucket(folder) as bucket:
        text = bucket.email()
        plan = plan_ingest(parse_links(text), root, patience=hasty)
        (small_disk / "someone else's").write_bytes(bytes(400_000))
        (problem,) = run_ingest(plan, patience=hasty).problems
        assert "is full: free some space and run again" in problem
        (small_disk / "someone else's").unlink()
        again = plan_ingest(parse_links(text), root, patience=hasty)
        assert [archive.action for archive in again.archives] == ["resume"]
        run_ingest(again, patience=hasty).raise_for_problems()
    assert members_in(root / "knee_multicoil") == members


def test_one_ingest_at_a_time(knee, root, hasty):
    folder, _ = knee
    with Bucket(folder) as bucket:
        plan = plan_ingest(parse_links(bucket.email()), root, patience=hasty)
        with (
            only_ingest(root / "knee_multicoil"),
            pytest.raises(RuntimeError, match=r"another ingest works on .*knee_multicoil"),
        ):
            run_ingest(plan, patience=hasty)


RECORD = {"source": "x.tar", "object_path": "/x.tar", "size": 5, "version": None}
UNPACKED = RECORD | {"state": "unpacked", "sha256": "a" * 64, "members": {"a.h5": 3}}


def with_val(record):
    return json.dumps({"version": 1, "archives": {"knee_multicoil_val": record}})


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "null", "7", "[" * 100_000, '{"a":' * 100_000, "9" * 5000, "\0", "NaN"),
        *('{"archives": {}}', '{"version": 2, "archives": {}}', '{"version": 1, "archives": []}'),
        *(with_val(record) for record in (None, [], 5, {}, {"b": 1}, RECORD | {"b": 1})),
        *(with_val(RECORD | {"size": size}) for size in (-1, True, 1.5, "5", None, 1 << 70)),
        *(with_val(RECORD | {name: 5}) for name in ("version", "state", "archive", "problem")),
        *(with_val(UNPACKED | {"members": members}) for members in ([], {"a": "b"}, {"a": -1})),
        *(
            with_val(UNPACKED | {"members": {path: 1}})
            for path in ("/etc/passwd", "../x", "a/../b")
        ),
        *(
            with_val(UNPACKED | {"archive": name})
            for name in ("../x", "/x", "", "..", "a/b", "a\0b")
        ),
        *(with_val(UNPACKED | change) for change in ({"sha256": ""}, {"check": "verified"})),
        *(with_val(UNPACKED | change) for change in ({"state": "done"}, {"sha256": "A" * 64})),
        *(with_val(UNPACKED | {name: {"b": "c"}}) for name in ("digests", "times")),
        b"\xff\xfe",
    ],
    ids=range(48),
)
def test_what_no_ingest_writes_is_no_manifest(content):
    with pytest.raises(ValueError, match=r"^it is|^archive|line 1|can't decode|limit|null"):
        read_records(content if isinstance(content, bytes) else content.encode())


@pytest.mark.parametrize(
    "content", ["", "[" * 100_000, with_val(UNPACKED | {"members": {"../x": 1}})], ids=range(3)
)
def test_damaged_manifest_is_said_kept_aside_and_everything_checked_anew(
    knee, root, hasty, members_in, content
):
    folder, members = knee
    path = root / "knee_multicoil" / "ingest.json"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with Bucket(folder) as bucket:
        report = ingest(bucket.email(), root, patience=hasty)
    assert report.problems == []
    (note,) = [note for note in report.notes if "ingest.json is damaged" in note]
    assert len(note) < 500
    assert {check for _, check in states(root).values()} == {"verified", "not listed"}
    aside = path.with_name("ingest.json.damaged")
    assert aside.read_text() == content
    aside.unlink()
    assert members_in(root / "knee_multicoil") == members


def test_list_of_sums_that_cannot_be_read_is_a_note(knee, root, hasty):
    folder, _ = knee
    with Bucket(folder, Faults("SHA256", status=503)) as bucket:
        report = ingest(bucket.email(), root, patience=hasty)
    assert report.problems == []
    assert {outcome.check for outcome in report.outcomes} == {"not listed"}
    assert any("SHA256" in note for note in report.notes)


def test_no_link_reaches_manifest_report_or_log(knee, root, hasty, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    folder, _ = knee
    (folder / "knee_multicoil_test.tar.xz").write_bytes(gzip.compress(b"no tar" * 200))
    with Bucket(folder, Faults("val", drop_after=100_000, drops=2)) as bucket:
        text = bucket.email()
        plan = plan_ingest(parse_links(text), root, patience=hasty)
        report = run_ingest(plan, patience=hasty)
    assert report.problems
    written = [p.read_text(errors="replace") for p in root.rglob("*") if p.suffix == ".json"]
    shown = capsys.readouterr()
    everything = [
        *written,
        repr(plan),
        repr(report),
        plan_html(plan),
        report_html(report),
        report.summary(),
        caplog.text,
        shown.out,
        shown.err,
    ]
    assert len(written) == 1
    for content in everything:
        assert "Expires=" not in content
        assert "AKIA" not in content
        assert "Signature=" not in content


def test_tables_escape_what_names_hold(knee, root, hasty):
    folder, _ = knee
    name = "knee_multicoil_<b>.tar"
    (folder / name).write_bytes(b"<script>alert(1)</script>" * 99)
    with Bucket(folder) as bucket:
        plan = plan_ingest(parse_links(bucket.email(names=[name])), root, patience=hasty)
        report = run_ingest(plan, patience=hasty)
    assert "<script>" not in plan_html(plan) + report_html(report)
    assert "<b>" not in plan_html(plan) + report_html(report)
