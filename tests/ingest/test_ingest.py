import gzip
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from tests.ingest.conftest import packed, sums_of, tar_of, volumes
from tests.programs import wait_for
from workbench.ingest.links import parse_links
from workbench.ingest.manifest import LOCK, read_records
from workbench.ingest.offer import read_sums, sum_of
from workbench.ingest.plan import Action
from workbench.ingest.report import (
    IngestError,
    IngestReport,
    count_volumes,
    plan_html,
    progress_html,
    report_html,
)
from workbench.ingest.run import ingest
from workbench.stores import DiskStore
from workbench_demo.bucket import Bucket, Faults

VAL = "knee_multicoil_val"


def pack(folder, name, content):
    (folder / name).write_bytes(content)


@pytest.mark.parametrize("keep", [True, False])
def test_every_kind_of_archive_comes_in_and_a_second_run_does_nothing(knee, keep):
    report = knee.ingest(keep=keep)
    report.raise_for_problems()
    assert knee.there() == knee.members
    assert knee.states() == {
        "knee_multicoil_test": ("unpacked", "verified"),
        "knee_multicoil_train_batch_0": ("unpacked", "not listed"),
        VAL: ("unpacked", "verified"),
    }
    assert knee.kept() == keep * [
        "knee_multicoil_test.tar.gz",
        "knee_multicoil_train_batch_0.tar",
        "knee_multicoil_val.tar.xz",
    ]
    assert report.volumes["knee_multicoil"]["val"] == (2, 199)
    knee.asked()
    # Links that ended, or archives that were removed, do no harm to what is there.
    for name in knee.kept():
        knee.store.delete(f"knee_multicoil_compressed/{name}")
    again = knee.ingest(knee.bucket.email(lifetime=timedelta(days=-1)), keep=keep)
    assert knee.asked() == []
    assert [outcome.state for outcome in again.outcomes] == ["was there"] * 3
    assert again.problems == []


def test_whoever_watches_sees_how_far_each_archive_is(on_disk):
    (on_disk.folder / "knee_multicoil_test.tar.xz").write_bytes(b"no archive")
    on_disk.bucket.faults.append(Faults("val", seconds_per_mb=0.5))
    report, seen, shown = IngestReport(), [], threading.Event()
    assert progress_html(report) == ""

    def watch():
        while not shown.wait(0.001):
            seen.append(progress_html(report))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert ingest(on_disk.plan(), report=report) is report
    shown.set()
    watcher.join()
    assert any("downloading" in html for html in seen)
    for outcome in report.outcomes:
        good = outcome.archive != "knee_multicoil_test.tar.xz"
        whole = outcome.size if good else 0
        assert (outcome.there, outcome.downloaded, outcome.through) == (0, whole, whole)
        assert outcome.state == ("unpacked" if good else "failed")
    assert progress_html(report).count("(100%)") == 4
    again = ingest(on_disk.plan())
    assert sorted(each.state for each in again.outcomes) == ["failed", "was there", "was there"]
    assert all(each.there == each.size for each in again.outcomes if each.state == "was there")


def test_links_of_2021_lead_to_the_same(on_disk):
    on_disk.ingest(on_disk.bucket.email("2021")).raise_for_problems()
    assert on_disk.there() == on_disk.members


def test_member_that_was_removed_comes_back_from_the_kept_archive_and_no_other_is_read(
    knee, monkeypatch
):
    knee.ingest()
    knee.store.delete("knee_multicoil/multicoil_val/a.h5")
    knee.asked()
    opened, kind = [], type(knee.store)
    before = kind.open
    monkeypatch.setattr(kind, "open", lambda self, path: opened.append(path) or before(self, path))
    report = knee.ingest()
    assert {path for path in opened if path.endswith(".h5")} == set()
    assert knee.asked() == []
    assert knee.there() == knee.members
    assert sum(outcome.written for outcome in report.outcomes) == 1


@pytest.mark.parametrize("keep", [True, False])
def test_flaky_server_does_no_harm(knee, keep):
    knee.bucket.faults += [Faults(drop_after=150_000, drops=2), Faults(status=503, times=2)]
    knee.ingest(keep=keep).raise_for_problems()
    assert knee.there() == knee.members


def test_plan_says_what_is_complete_missing_large_and_when_links_end(on_disk):
    now = datetime.now(UTC)
    plan = on_disk.plan()
    (dataset,) = plan.datasets
    assert dataset.missing == tuple(f"knee_multicoil_train_batch_{n}" for n in range(1, 5))
    sizes = {path.name: path.stat().st_size for path in on_disk.folder.glob("knee*")}
    assert {a.link.name: a.size for a in plan.archives} == sizes
    by_stem = {archive.link.stem: archive for archive in plan.archives}
    xz, tar, gz = (by_stem[f"knee_multicoil_{x}"] for x in ("val", "train_batch_0", "test"))
    assert (xz.exact, tar.exact, gz.exact) == (True, True, False)
    assert 400_000 < xz.unpacked < 420_000
    assert tar.unpacked == tar.size
    assert plan.need == sum(sizes.values()) + sum(a.unpacked for a in plan.archives)
    assert timedelta(days=89) < xz.link.expires - now < timedelta(days=91)
    assert "3 archives to fetch" in repr(plan)
    assert len(repr(plan)) < 300
    assert [*on_disk.store.list()] == []


def test_of_two_generations_the_complete_one_is_taken_and_said_complete(on_disk):
    old = [f"knee_mri_dicom_batch{number}.tar" for number in (1, 2)]
    new = "knee_DICOMs_batch1.tar.xz"
    for name in [*old, new]:
        pack(on_disk.folder, name, packed("tar", volumes(f"{name}/1.dcm")))
    email = on_disk.bucket.email
    plan = on_disk.plan(email("2021", names=old) + email("2025", names=[new]))
    assert [(d.generation, len(d.archives), d.missing) for d in plan.datasets] == [("2021", 2, ())]
    assert any("knee_DICOMs" in note and "2021" in note for note in plan.notes)
    assert "none: complete" in plan_html(plan)
    assert "knee: 2 of 10 lines of 2021; brain: the whole section is missing" in plan_html(plan)


def test_prostate_and_breast_land_in_folders_of_their_own(on_disk):
    names = [f"fastMRI_{stem}.tar.gz" for stem in ("prostate_T2", "breast_001")]
    for name in names:
        pack(on_disk.folder, name, packed("gz", volumes(f"{name}/a.h5")))
    on_disk.ingest(on_disk.bucket.email(names=names)).raise_for_problems()
    assert sorted(entry.path for entry in on_disk.store.list() if "fast" in entry.path) == [
        "breast/fastMRI_breast_001.tar.gz/a.h5",
        "breast_compressed/fastMRI_breast_001.tar.gz",
        "prostate_raw/fastMRI_prostate_T2.tar.gz/a.h5",
        "prostate_raw_compressed/fastMRI_prostate_T2.tar.gz",
    ]


def test_fully_sampled_test_scans_and_masked_ones_of_the_same_names_both_stay(on_disk):
    masked, full = volumes("multicoil_test/a.h5"), volumes("multicoil_test/a.h5", size=60_000)
    names = [f"brain_multicoil_{split}_batch_0.tar.xz" for split in ("test", "test_full")]
    for name, members in zip(names, (masked, full), strict=True):
        pack(on_disk.folder, name, packed("xz", members))
    for _ in range(2):
        report = on_disk.ingest(on_disk.bucket.email(names=names))
        assert report.problems == []
    assert on_disk.there("brain_multicoil") == masked | {
        "multicoil_test_full/a.h5": full["multicoil_test/a.h5"]
    }
    assert {outcome.state for outcome in report.outcomes} == {"was there"}


@pytest.mark.parametrize(("kind", "scans"), [("multicoil", 118), ("singlecoil", 108)])
def test_a_whole_test_set_of_the_knee_is_counted_whole(tmp_path, kind, scans):
    folder = tmp_path / f"knee_{kind}" / f"{kind}_test_v2"
    folder.mkdir(parents=True)
    for number in range(scans):
        (folder / f"file{1_000_000 + number}.h5").touch()
    assert count_volumes(DiskStore(tmp_path), f"knee_{kind}")["test"] == (scans, scans)


def test_choosing_datasets(on_disk):
    name = "brain_multicoil_val_batch_0.tar.xz"
    pack(on_disk.folder, name, packed("xz", volumes("multicoil_val/brain.h5")))
    on_disk.ingest(datasets=["brain_multicoil"])
    with pytest.raises(ValueError, match=r"datasets='knee': give one of knee_singlecoil, "):
        on_disk.plan(datasets=["knee"])
    with pytest.raises(ValueError, match=r"no link for it; it has brain_multicoil, knee_mul"):
        on_disk.plan(datasets=["knee_DICOMs"])
    folders = {entry.path.partition("/")[0] for entry in on_disk.store.list()}
    assert folders == {"brain_multicoil", "brain_multicoil_compressed"}


@pytest.mark.parametrize("name", ["knee_multicoil_test.tar.xz", "knee_multicoil_test.tar.gz"])
def test_archive_brought_by_hand_is_hashed_and_used(knee, name):
    content = (knee.folder / "knee_multicoil_test.tar.xz").read_bytes()
    knee.store.write(f"knee_multicoil_compressed/{name}", content)
    knee.ingest().raise_for_problems()
    assert len([path for path, _ in knee.asked() if "multicoil_test" in path]) == 1
    assert knee.there() == knee.members
    assert knee.states()["knee_multicoil_test"] == ("unpacked", "verified")
    if isinstance(knee.store, DiskStore):
        assert knee.kept()[0] == "knee_multicoil_test.tar.gz"


def test_sums_of_the_archive_s_own_folder_come_first(tmp_path):
    text = []
    with Bucket(tmp_path) as bucket:
        for path in ("/brain_fastMRI_DICOM.tar.gz", "/v2.0/brain_fastMRI_DICOM.tar.gz"):
            text += parse_links(bucket.link(path))
    sums = {
        ("/v2.0", "brain_fastMRI_DICOM.tar.gz"): "new",
        ("", "brain_fastMRI_DICOM.tar.gz"): "old",
        ("/v3.0", "elsewhere.tar"): "other",
    }
    assert [sum_of(link, sums) for link in text] == ["old", "new"]


@pytest.mark.parametrize("coded", ["utf-8", "utf-8-sig"])
def test_list_of_sums_is_read_as_sha256sum_writes_it(tmp_path, coded):
    a, b, c = "a" * 64, "B" * 64, "c" * 64
    text = f"{a}  one.tar\r\n{b} *./sub/two.tar\n\n# x\n{c}\tthree.tar"
    (tmp_path / "SHA256").write_bytes(text.encode(coded))
    with Bucket(tmp_path) as bucket:
        sums, _ = read_sums(parse_links(bucket.link("/v3.0/SHA256")))
    assert sums == {
        ("/v3.0", "one.tar"): a,
        ("/v3.0", "two.tar"): b.lower(),
        ("/v3.0", "three.tar"): c,
    }


# ---- killed ------------------------------------------------------------------------------

SCRIPT = """
import os, sys
from workbench.ingest.links import parse_links
from workbench.ingest.plan import make_plan
from workbench.ingest.run import ingest
from workbench.stores import DiskStore
links, root, keep = parse_links(os.environ["LINKS"]), sys.argv[1], sys.argv[2] == "keep"
plan = make_plan(links, DiskStore(root), keep_archives=keep)
ingest(plan, connections=1).raise_for_problems()
"""


def killed_when(condition, knee, text, *, keep=True):
    """Run an ingest in a process of its own and kill it as soon as a condition holds."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, knee.store.address, "keep" if keep else "stream"],
        env=os.environ | {"LINKS": text},
    )
    try:
        wait_for(lambda: condition() or process.poll() is not None)
    finally:
        process.kill()
        assert process.wait() == -signal.SIGKILL


def killed_while_downloading(knee, text):
    """Kill an ingest after 100 kB of an archive; return the partial file."""
    part = knee.store.path(f"knee_multicoil_compressed/{VAL}.part")
    knee.bucket.faults.append(Faults("val", seconds_per_mb=2))
    killed_when(lambda: part.exists() and part.stat().st_size > 100_000, knee, text)
    knee.bucket.faults.clear()
    return part


def test_leftovers_of_a_killed_run_are_gone_after_the_next(on_disk):
    for left in (".gone.h5.ingest-part", ".gone.h5.0123456789ab.part"):
        on_disk.store.write(f"knee_multicoil/multicoil_val/{left}", b"half")
    on_disk.ingest()
    assert on_disk.there() == on_disk.members
    assert not [*on_disk.store.root.rglob("*gone*")]


def test_kill_in_the_middle_of_the_download_is_gone_on_from(on_disk):
    text = on_disk.bucket.email()
    part = killed_while_downloading(on_disk, text)
    there = part.stat().st_size
    on_disk.asked()
    plan = on_disk.plan(text)
    by_stem = {archive.link.stem: archive for archive in plan.archives}
    assert by_stem[VAL].there == there
    ingest(plan).raise_for_problems()
    assert (f"/v2.0/{VAL}.tar.xz", f"bytes={there}-{by_stem[VAL].size - 1}") in on_disk.asked()
    assert on_disk.there() == on_disk.members
    assert on_disk.states()[VAL] == ("unpacked", "verified")
    assert not part.exists()


@pytest.mark.parametrize("keep", [True, False])
def test_kill_in_the_middle_of_unpacking_leaves_whole_members_only(on_disk, keep):
    members = {f"multicoil_val/{n:02}.h5": bytes([n]) * 8_000_000 for n in range(16)}
    pack(on_disk.folder, on_disk.val.name, packed("gz", members))
    text = on_disk.bucket.email(names=[on_disk.val.name])
    unpacked = on_disk.store.path("knee_multicoil/multicoil_val")
    killed_when(lambda: (unpacked / "02.h5").exists(), on_disk, text, keep=keep)
    whole = {path.name for path in unpacked.glob("*.h5")}
    assert 3 <= len(whole) < len(members)
    for name in whole:
        assert (unpacked / name).read_bytes() == members[f"multicoil_val/{name}"]
    report = on_disk.ingest(text, keep=keep)
    report.raise_for_problems()
    assert on_disk.there() == members
    assert report.outcomes[0].written == len(members) - len(whole)


def test_object_that_changed_since_the_first_run_is_fetched_anew(on_disk):
    (on_disk.folder / "SHA256").unlink()
    text = on_disk.bucket.email()
    killed_while_downloading(on_disk, text)
    new = volumes("multicoil_val/new.h5", size=on_disk.val.stat().st_size)
    on_disk.val.write_bytes(packed("xz", new))
    on_disk.ingest(text).raise_for_problems()
    old = val_of(on_disk.members)
    others = {path: data for path, data in on_disk.members.items() if path not in old}
    assert on_disk.there() == others | new


# ---- changed -----------------------------------------------------------------------------


def changed(members, path="multicoil_val/a.h5"):
    """Return members with one bit of one of them flipped."""
    damaged = bytearray(members[path])
    damaged[len(damaged) // 2] ^= 1
    return members | {path: bytes(damaged)}


def val_of(members):
    return {path: data for path, data in members.items() if "val" in path}


@pytest.mark.parametrize("keep", [True, False])
def test_members_of_a_bad_archive_are_replaced_by_the_good_one(knee, keep):
    good = knee.val.read_bytes()
    bad = changed(val_of(knee.members)) | {"multicoil_val/never.h5": b"only in the bad one"}
    knee.val.write_bytes(packed("xz", bad))
    first = knee.ingest(keep=False)
    assert knee.there() == knee.members | bad
    knee.val.write_bytes(good)
    second = knee.ingest(keep=keep)
    assert [problem[:26] for problem in first.problems] == [f"{VAL}.tar.xz:"]
    assert second.problems == []
    assert knee.there() == knee.members
    assert knee.states()[VAL] == ("unpacked", "verified")
    assert any("multicoil_val/never.h5 was removed" in note for note in second.notes)
    assert "multicoil_val/never.h5 was removed" in report_html(second)


def test_list_that_names_another_hash_since_brings_the_archive_anew(knee):
    knee.ingest(keep=False)
    new = knee.members | changed(val_of(knee.members))
    knee.val.write_bytes(packed("xz", val_of(new)))
    (knee.folder / "SHA256").write_text(sums_of(knee.val))
    assert knee.ingest(keep=False).problems == []
    assert knee.there() == new


@pytest.mark.parametrize("by_hand", [True, False])
def test_new_archive_whose_members_have_the_sizes_of_before_takes_the_kept_one_s_place(
    knee, by_hand
):
    knee.ingest()
    new = knee.members | changed(val_of(knee.members))
    knee.val.write_bytes(packed("xz", val_of(new)))
    (knee.folder / "SHA256").write_text(sums_of(knee.val))
    kept = f"knee_multicoil_compressed/{VAL}.tar.xz"
    assert f"{VAL}.tar.xz and run again to fetch it anew" in knee.ingest().problems[0]
    knee.store.delete(kept)
    if by_hand:
        knee.store.write(kept, knee.val.read_bytes())
    assert knee.ingest().problems == []
    assert knee.there() == new


def test_archive_not_listed_is_verified_once_a_list_names_it(on_disk):
    listed = (on_disk.folder / "SHA256").read_text()
    (on_disk.folder / "SHA256").write_text("")
    on_disk.ingest()
    assert on_disk.states()[VAL] == ("unpacked", "not listed")
    (on_disk.folder / "SHA256").write_text(listed)
    on_disk.ingest()
    assert on_disk.states()[VAL] == ("unpacked", "verified")


@pytest.mark.parametrize("keep", [True, False])
def test_member_edited_since_comes_back(knee, keep):
    edited, content = "multicoil_val/a.h5", changed(knee.members)["multicoil_val/a.h5"]
    knee.ingest(keep=keep)
    knee.store.write(f"knee_multicoil/{edited}", content)
    report = knee.ingest(keep=keep)
    assert report.problems == []
    assert knee.there() == knee.members
    (note,) = [note for note in report.notes if "took the place of a file" in note]
    assert note.startswith(f"{VAL}.tar.xz: {edited} took")
    assert f"Note: {note}" in report_html(report)
    # Written anew with the same content is no change.
    knee.store.write(f"knee_multicoil/{edited}", knee.members[edited])
    knee.asked()
    again = knee.ingest(keep=keep)
    assert knee.asked() == []
    assert {outcome.state for outcome in again.outcomes} == {"was there"}


def test_member_edited_between_plan_and_run_comes_back_with_the_next_run(knee):
    knee.ingest()
    plan = knee.plan()
    edited, content = "multicoil_val/a.h5", changed(knee.members)["multicoil_val/a.h5"]
    knee.store.write(f"knee_multicoil/{edited}", content)
    assert ingest(plan).problems == []
    assert knee.ingest().problems == []
    assert knee.there() == knee.members


def test_kept_archive_edited_since_is_named_and_not_unpacked(knee):
    knee.ingest()
    kept = "knee_multicoil_compressed/knee_multicoil_train_batch_0.tar"
    content = bytearray(knee.store.read(kept))
    content[5000] ^= 1
    knee.store.write(kept, bytes(content))
    knee.store.delete("knee_multicoil/multicoil_train/d.h5")
    (problem,) = knee.ingest().problems
    assert "knee_multicoil_train_batch_0.tar changed since it was downloaded" in problem
    assert "remove that file and run again" in problem
    assert "multicoil_train/d.h5" not in knee.there()
    knee.store.delete(kept)
    assert knee.ingest().problems == []
    assert knee.there() == knee.members


# ---- trouble -----------------------------------------------------------------------------


def test_mismatch_is_kept_aside_and_not_unpacked_until_accepted(knee):
    (knee.folder / "SHA256").write_text(f"{'0' * 64}  {VAL}.tar.xz\n")
    report = knee.ingest()
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{VAL}.tar.xz: its SHA256 is ")
    assert f"accept_mismatch='{VAL}'" in report.problems[0]
    with pytest.raises(IngestError, match="1 of 3 archives could not be brought in"):
        report.raise_for_problems()
    assert not val_of(knee.there())
    assert knee.states()[VAL] == ("downloaded", "mismatch")
    if isinstance(knee.store, DiskStore):
        assert f"{VAL}.mismatch.tar.xz" in knee.kept()
    knee.asked()
    assert len(knee.ingest().problems) == 1
    without_list = knee.bucket.email(names=[f"{VAL}.tar.xz"])
    assert len(knee.ingest(without_list).problems) == 1
    assert knee.ingest(accept=[VAL]).problems == []
    assert knee.asked() == []
    assert knee.there() == knee.members


def test_mismatch_while_streaming_is_a_problem_and_recorded(knee):
    (knee.folder / "SHA256").write_text(f"{'0' * 64}  {VAL}.tar.xz\n")
    report = knee.ingest(keep=False)
    came = hashlib.sha256(knee.val.read_bytes()).hexdigest()
    assert [p[:46] for p in report.problems] == [f"{VAL}.tar.xz: its SHA256 is {came[:5]}"]
    assert knee.states()[VAL] == ("downloading", "mismatch")
    knee.asked()
    assert knee.ingest(keep=False, accept=[VAL]).problems == []
    assert knee.asked() == []
    assert knee.states()[VAL] == ("unpacked", "mismatch")


def test_archive_broken_at_its_source_is_named_and_the_others_come_in(knee):
    extra = volumes("multicoil_val/a.h5", "multicoil_val/z.h5", size=2_500_000)
    knee.val.write_bytes(packed("xz", extra)[:4_000_000])
    (knee.folder / "SHA256").write_text(sums_of(knee.val))
    (problem,) = knee.ingest().problems
    assert problem.startswith(f"{VAL}.tar.xz: truncated or damaged after multicoil_val")
    assert f"{VAL}.tar.xz and run again" in problem
    others = knee.members.keys() - val_of(knee.members).keys() | {"multicoil_val/a.h5"}
    assert knee.there() == {path: (knee.members | extra)[path] for path in others}
    assert knee.states()[VAL] == ("downloaded", "verified")


def test_unsafe_archive_is_named_and_the_others_come_in(knee, tmp_path):
    knee.val.write_bytes(tar_of({"multicoil_val/a.h5": b"1", "../../evil.h5": b"2"}))
    (knee.folder / "SHA256").unlink()
    report = knee.ingest()
    (problem,) = report.problems
    assert f"{VAL}.tar.xz: member '../../evil.h5' is refused" in problem
    assert not list(tmp_path.rglob("evil*"))
    assert not [entry for entry in knee.store.list() if "evil" in entry.path]
    assert [o.state for o in report.outcomes] == ["unpacked", "unpacked", "failed"]


def test_archive_that_unpacks_to_far_more_than_it_may_is_refused(on_disk, monkeypatch):
    monkeypatch.setattr("workbench.ingest.archives._SMALL", 100_000)
    bomb = tar_of({"multicoil_val/a.h5": b"1", "multicoil_val/zeros.h5": bytes(5_000_000)})
    on_disk.val.write_bytes(gzip.compress(bomb))
    (on_disk.folder / "SHA256").unlink()
    (problem,) = on_disk.ingest(on_disk.bucket.email(names=[on_disk.val.name])).problems
    assert "it unpacks to 5,001,025 bytes or more, over 50 times its own size" in problem
    assert on_disk.there() == {"multicoil_val/a.h5": b"1"}


def test_web_page_instead_of_an_archive_is_found_before_the_download(on_disk):
    on_disk.val.write_bytes(b"<html>" * 1000)
    actions = [archive.action for archive in on_disk.plan().archives]
    assert actions == [Action.FETCH, Action.FETCH, Action.REFUSE]


def test_all_links_expired_is_an_error_before_anything_is_done(on_disk):
    text = on_disk.bucket.email(lifetime=timedelta(days=-3))
    with pytest.raises(ValueError, match=r"the link expired on .* ask anew at https://fastmri"):
        on_disk.plan(text)
    assert on_disk.asked() == []
    assert [*on_disk.store.list()] == []


def test_refused_and_missing_archives_stop_no_other(on_disk):
    text = on_disk.bucket.email().replace("_val.tar.xz?", "_val_batch_0.tar.xz?", 1)
    (on_disk.folder / "knee_multicoil_test.tar.xz").unlink()
    report = on_disk.ingest(text)
    problems = sorted(report.problems)
    assert "knee_multicoil_test.tar.xz: the server answers 404 NoSuchKey" in problems[0]
    assert "403 SignatureDoesNotMatch" in problems[1]
    assert sorted(outcome.state for outcome in report.outcomes) == ["failed", "failed", "unpacked"]


def test_disk_that_is_too_small_is_said_before_anything_is_done(on_disk, small_disk):
    (on_disk.folder / "knee_multicoil_test.tar.xz").unlink()
    plan = on_disk.plan(store=DiskStore(small_disk / "datasets"))
    with pytest.raises(
        ValueError, match=r"needs at least 9\d\d kB of disk and 52\d kB are free: keep_archives"
    ):
        ingest(plan)
    assert not (small_disk / "datasets").exists()


@pytest.mark.parametrize("keep", [True, False])
def test_disk_that_fills_up_is_a_clear_problem_and_gone_on_from(on_disk, small_disk, keep):
    # Zeros in gzip: no plan can know how large they become.
    members = {f"multicoil_val/{n}.h5": bytes(150_000) for n in range(5)}
    pack(on_disk.folder, on_disk.val.name, packed("gz", members))
    (on_disk.folder / "SHA256").unlink()
    on_disk.store = DiskStore(small_disk / "datasets")
    text = on_disk.bucket.email(names=[on_disk.val.name])
    (problem,) = on_disk.ingest(text, keep=keep).problems
    assert "is full: free some space and run again" in problem
    there = on_disk.there()
    assert 1 <= len(there) < 5
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True)
    report = on_disk.ingest(text, keep=keep)
    report.raise_for_problems()
    assert report.outcomes[0].written == 5 - len(there)
    assert on_disk.there() == members


def test_disk_that_fills_up_during_the_download_keeps_the_part(on_disk, small_disk):
    on_disk.store = DiskStore(small_disk / "datasets")
    text = on_disk.bucket.email(names=["knee_multicoil_test.tar.xz"])
    plan = on_disk.plan(text)
    (small_disk / "someone else's").write_bytes(bytes(490_000))
    (problem,) = ingest(plan).problems
    assert "is full: free some space and run again" in problem
    (small_disk / "someone else's").unlink()
    again = on_disk.plan(text)
    assert [0 < archive.there < archive.size for archive in again.archives] == [True]
    ingest(again).raise_for_problems()
    assert on_disk.there().keys() == {"multicoil_test/c.h5"}


def test_one_ingest_at_a_time(knee, monkeypatch):
    monkeypatch.setattr("workbench.stores.blob._LEASE_PATIENCE", 0.0)
    plan = knee.plan()
    with (
        knee.store.folder("knee_multicoil").lock(LOCK, ""),
        pytest.raises(RuntimeError, match=r"another ingest works on .*knee_multicoil: wait"),
    ):
        ingest(plan)


# ---- the manifest ------------------------------------------------------------------------

RECORD = {"source": "x.tar", "object_path": "/x.tar", "size": 5, "version": None}
UNPACKED = RECORD | {"state": "unpacked", "sha256": "a" * 64, "members": {"a.h5": 3}}


def with_val(record):
    return json.dumps({"version": 1, "archives": {VAL: record}})


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
        *(with_val(UNPACKED | {name: {"b": "c"}}) for name in ("digests", "times", "marks")),
        b"\xff\xfe",
    ],
    ids=range(49),
)
def test_what_no_ingest_writes_is_no_manifest(content):
    with pytest.raises(
        ValueError, match=r"^it is|^archives?\b|^version|line 1|can't decode|limit|null"
    ):
        read_records(content if isinstance(content, bytes) else content.encode())


def test_manifests_of_earlier_versions_still_open():
    times = {"a.h5": 10**18}
    records = read_records(with_val(UNPACKED | {"times": times}).encode())
    assert records[VAL].marks == times
    assert read_records(with_val(UNPACKED).encode())[VAL].marks == {}


def test_damaged_manifest_is_said_kept_aside_and_everything_checked_anew(knee):
    content = "[" * 100_000
    knee.store.write("knee_multicoil/ingest.json", content.encode())
    report = knee.ingest()
    assert report.problems == []
    (note,) = [note for note in report.notes if "ingest.json is damaged" in note]
    assert len(note) < 500
    assert {check for _, check in knee.states().values()} == {"verified", "not listed"}
    aside = "knee_multicoil/ingest.json.damaged"
    assert knee.store.read(aside) == content.encode()
    knee.store.delete(aside)
    assert knee.there() == knee.members


# ---- what is shown -----------------------------------------------------------------------


@pytest.mark.parametrize("coded", ["utf-16", "utf-8"])
def test_list_without_a_sum_is_a_note(tmp_path, coded):
    text = f"{'a' * 64}  one.tar" if coded == "utf-16" else f"SHA256 (one.tar) = {'a' * 64}"
    (tmp_path / "SHA256").write_bytes(text.encode(coded))
    with Bucket(tmp_path) as bucket:
        sums, (note,) = read_sums(parse_links(bucket.link("/v3.0/SHA256")))
    assert sums == {}
    assert note.startswith("SHA256: no line of it is a SHA256 sum and a file's name. Without this")


def test_list_of_sums_that_cannot_be_read_is_a_note(on_disk):
    on_disk.bucket.faults.append(Faults("SHA256", status=503))
    report = on_disk.ingest()
    assert report.problems == []
    assert {outcome.check for outcome in report.outcomes} == {"not listed"}
    assert any("SHA256" in note for note in report.notes)


def test_no_link_reaches_manifest_report_or_log(knee, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    pack(knee.folder, "knee_multicoil_test.tar.xz", gzip.compress(b"no tar" * 200))
    knee.bucket.faults.append(Faults("val", drop_after=100_000, drops=2))
    plan = knee.plan()
    report = ingest(plan)
    assert report.problems
    shown = capsys.readouterr()
    everything = [
        knee.store.read("knee_multicoil/ingest.json").decode(),
        *(repr(each) for each in (plan, report)),
        *(plan_html(plan), report_html(report), report.summary()),
        *(caplog.text, shown.out, shown.err),
    ]
    for content in everything:
        for secret in ("Expires=", "AKIA", "Signature="):
            assert secret not in content.replace("%3D", "=").replace("sig=", "")


def test_tables_escape_what_names_hold(on_disk):
    name = "knee_multicoil_<b>.tar"
    pack(on_disk.folder, name, b"<script>alert(1)</script>" * 99)
    plan = on_disk.plan(on_disk.bucket.email(names=[name]))
    shown = plan_html(plan) + report_html(ingest(plan))
    assert "<script>" not in shown
    assert "<b>" not in shown
