"""The plan and the conversion: nobody in two splits, nothing of a name, killed runs go on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.convert.mrd_files import cartesian, fft2, images
from tests.convert.mrd_files import write as mrd_file
from tests.convert.test_calgary import write as calgary_file
from workbench.convert.plan import (
    RECORD,
    Ask,
    plan_conversion,
    remember,
)
from workbench.convert.run import LOCK, convert
from workbench.convert.scan import Choices
from workbench.convert.source import files_of_source
from workbench.convert.telling import lines_of
from workbench.data.cache import open_cache
from workbench.data.images import centered_fft2
from workbench.stores.disk import only_one

AXES = Choices(axes=("slice", "coil", "readout", "phase"))


def head(number, size=32):
    """Return k-space (slices, coils, readout, phase) of a disc, another one each time."""
    y, x = np.mgrid[:size, :size] - size // 2
    disc = (np.hypot(x - number % 5, y) < size // 3) * (1.0 + number)
    coils = np.stack([disc * np.exp(x / size), disc * np.exp(-y / size)])
    return centered_fft2(np.stack([coils, coils / 2]).astype(np.complex64))


@pytest.fixture
def source(tmp_path):
    for person in range(5):
        folder = tmp_path / f"raw/Doe_Jane_{person}"
        folder.mkdir(parents=True)
        for scan in range(2):
            np.save(folder / f"t{scan}.npy", head(10 * person + scan))
    return tmp_path / "raw"


def ask(source, **more):
    dataset, private = source.parent / "datasets/own", source.parent / "private"
    return Ask(source, dataset, private, **{"choices": AXES, **more})


def planned(source, **more):
    return plan_conversion(ask(source, **more))


def test_folder_of_people_becomes_a_dataset_that_keeps_each_in_one_split(source):
    (source / "notes.txt").write_text("a file of another kind")
    plan = planned(source)
    assert plan.told_apart == "folder"
    assert [
        (problem.path, "holds no raw data of a form" in problem.reason) for problem in plan.refusals
    ] == [("notes.txt", True)]
    assert list(convert(plan)) == []
    cache = open_cache(plan.ask.dataset)
    assert (len(cache), cache.problems) == (10, ())
    people = {}
    for volume in cache:
        people.setdefault(volume.attributes["patient_id"], []).append(volume.split)
    assert [len(splits) for splits in people.values()] == [2] * 5
    assert all(len(set(splits)) == 1 for splits in people.values())
    counts = [len(cache.split(split)) for split in ("train", "val", "test")]
    assert counts == [6, 2, 2]
    assert planned(source).to_do == ()
    # Images have fastMRI's scale.
    assert 1e-4 < np.median([volume.largest for volume in cache]) < 1e-3


def test_nothing_in_the_dataset_says_who_it_is_and_the_private_table_does(source):
    plan = planned(source)
    list(convert(plan))
    files = [path for path in plan.ask.dataset.rglob("*") if path.is_file()]
    assert len(files) == 12  # volumes, record, lock
    for path in files:
        content = str(path.relative_to(plan.ask.dataset)).encode() + path.read_bytes()
        assert not any(word in content for word in (b"Doe", b"Jane", b"t1.npy"))
    with (plan.ask.private / "names.csv").open() as table:
        rows = list(csv.DictReader(table))
    assert {row["file"] for row in rows} == {
        f"Doe_Jane_{p}/t{s}.npy" for p in range(5) for s in (0, 1)
    }
    assert all((plan.ask.dataset / row["volume"]).is_file() for row in rows)


def test_a_link_to_a_folder_of_raw_data_is_refused_by_name(source, tmp_path):
    (source / "Doe_Jane_3").rename(tmp_path / "disk2")
    (source / "Doe_Jane_3").symlink_to(tmp_path / "disk2")
    (source / ".kept").symlink_to(tmp_path / "disk2")
    refused = {problem.path: problem.reason for problem in planned(source).refusals}
    assert refused.pop("Doe_Jane_3").startswith("is a link to a folder, behind which nothing is")
    assert refused == {}


def test_link_to_a_file_that_is_not_there_is_named(source):
    (source / "Doe_Jane_2/t7.npy").symlink_to(source / "elsewhere.npy")
    assert [(problem.path, problem.reason) for problem in planned(source).refusals] == [
        ("Doe_Jane_2/t7.npy", "is a link to a file that is not there: bring that in")
    ]


def test_file_and_a_link_to_it_are_one_scan_and_not_of_two_people(source):
    (source / "Doe_Jane_0/latest.npy").symlink_to("t1.npy")
    (source / "Aaron").mkdir()
    (source / "Aaron/first.npy").symlink_to(source / "Doe_Jane_0/t0.npy")
    plan = planned(source)
    assert len(plan.items) == 10
    assert {problem.path: problem.reason for problem in plan.refusals} == {
        "Aaron/first.npy": "is a link to Doe_Jane_0/t0.npy, which is converted once",
        "Doe_Jane_0/latest.npy": "is a link to Doe_Jane_0/t1.npy, which is converted once",
    }


def test_copies_of_a_file_are_one_scan_and_not_of_two_people(source):
    for folder, link in (("Aaron", shutil.copy), ("backup", os.link)):
        (source / folder).mkdir()
        link(source / "Doe_Jane_0/t0.npy", source / folder / "scan.npy")
    plan = planned(source)
    assert len(plan.items) == 10
    assert [problem.path for problem in plan.refusals] == ["Doe_Jane_0/t0.npy", "backup/scan.npy"]
    assert {problem.reason for problem in plan.refusals} == {
        "is a copy of Aaron/scan.npy, which is converted once"
    }


def test_file_that_differs_somewhere_is_no_copy(source):
    values = np.load(source / "Doe_Jane_0/t0.npy")
    values[0, 0, 16, 16] *= 2
    np.save(source / "Doe_Jane_1/t2.npy", values)
    assert len(planned(source).items) == 11


def test_folder_that_cannot_be_listed_is_named():
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    (folder / "Doe_Jane").mkdir(mode=0)
    user = os.geteuid()
    try:
        if user == 0:  # who may list everything
            os.seteuid(65534)
        _, (problem,) = files_of_source(folder)
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)
    reason = "cannot be listed (Permission denied): see to its permissions"
    assert (problem.path, problem.reason) == ("Doe_Jane", reason)


def test_later_files_leave_splits_scale_and_files_as_they_are(source):
    first = planned(source)
    list(convert(first))
    before = {item.path: (first.ask.dataset / item.path).read_bytes() for item in first.items}
    (source / "Doe_Jane_9").mkdir()
    np.save(source / "Doe_Jane_9/t0.npy", 100 * head(3))
    np.save(source / "Doe_Jane_1/t0.npy", 2 * head(10))  # as measured anew
    os.utime(source / "Doe_Jane_1/t0.npy", ns=(1, 1))
    plan = planned(source)
    assert {item.source for item in plan.to_do} == {"Doe_Jane_9/t0.npy", "Doe_Jane_1/t0.npy"}
    assert plan.scale == first.scale
    list(convert(plan))
    for path, content in before.items():
        changed = next(item for item in first.items if item.path == path).source
        same = (plan.ask.dataset / path).read_bytes() == content
        assert same == (changed != "Doe_Jane_1/t0.npy")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flip": True}, "flip=True: .* was made with flip=False"),
        ({"scale": 2.0}, "scale=2: .* was made with scale="),
        ({"seed": 7}, "seed=7: .* was made with seed=42"),
        ({"person": "file"}, "person=file: .* was made with person=folder"),
    ],
)
def test_what_does_not_belong_together_is_refused(source, change, message):
    list(convert(planned(source)))
    with pytest.raises(ValueError, match=message):
        planned(source, **change)


@pytest.mark.parametrize("inside", ["", "private"])
def test_who_is_who_does_not_go_along_with_the_dataset(source, inside):
    asked = ask(source)
    with pytest.raises(ValueError, match="it lies in the dataset"):
        plan_conversion(replace(asked, private=asked.dataset / inside))
    assert not asked.dataset.exists()


def test_lost_key_gives_nobody_a_second_name(source):
    plan = planned(source)
    list(convert(plan))
    (plan.ask.private / "key").unlink()
    with pytest.raises(ValueError, match="its key is not the one that"):
        planned(source)


def test_other_folder_s_file_of_the_same_name_replaces_nothing(source):
    list(convert(planned(source)))
    other = source.parent / "other"
    (other / "Doe_Jane_0").mkdir(parents=True)
    np.save(other / "Doe_Jane_0/t0.npy", head(7, size=40))
    from_other = replace(ask(source), source=other)
    with pytest.raises(ValueError, match=r"t0.npy: .* holds a file of that name from another"):
        plan_conversion(from_other)
    (other / "Doe_Jane_0/t0.npy").rename(other / "Doe_Jane_0/t9.npy")
    more = plan_conversion(from_other)
    list(convert(more))
    table = (more.ask.private / "names.csv").read_text()
    assert table.count("t9.npy") == 1
    assert table.count("t0.npy") == 5


def test_source_of_nothing_is_refused_before_anything_is_written(source, tmp_path):
    (tmp_path / "notes").mkdir()
    nothing = replace(ask(source), source=tmp_path / "notes")
    with pytest.raises(ValueError, match="nothing of it becomes a volume, it holds no file"):
        plan_conversion(nothing)
    (tmp_path / "notes/a.txt").write_text("a")
    with pytest.raises(ValueError, match=r"becomes a volume: a.txt holds no raw data of a form"):
        plan_conversion(nothing)
    assert not nothing.dataset.exists()


def test_nameless_files_cannot_be_told_apart_by_their_headers(source):
    with pytest.raises(ValueError, match=r"person=header: .* does not say whose it is"):
        planned(source, person="header")


def test_turned_over_scaled_and_told(source):
    plan = planned(source, flip=True, scale=2.0, acquisition="AXT1")
    list(convert(plan))
    item = plan.items[0]
    with h5py.File(plan.ask.dataset / item.path) as file:
        assert (file.attrs["flip"], file.attrs["scale"]) == (True, 2.0)
        assert file.attrs["acquisition"] == "AXT1"
        found = file["kspace"][()]
    expected = 2 * np.roll(np.flip(np.load(source / item.source), -2), 1, -2)
    np.testing.assert_allclose(found, expected)


def test_source_that_is_not_there_and_dataset_that_is_full_are_told_first(source, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        planned(source / "nowhere")
    plan = planned(source)
    monkeypatch.setattr("workbench.stores.disk.DiskStore.free", lambda _: 1000)
    with pytest.raises(OSError, match="free some, or give another dataset"):
        list(convert(plan))
    assert not plan.ask.dataset.exists()


KILLED = """
import sys
from pathlib import Path
from tests.convert.test_plan import planned
from workbench.convert import run, write
slices = write.slices_of
def slow(scan, numbers=None):
    for number, values in enumerate(slices(scan, numbers)):
        if numbers is None and number:
            print("half", flush=True)
            sys.stdin.read()
        yield values
write.slices_of = slow
list(run.convert(planned(Path(sys.argv[1]))))
"""


def test_killed_conversion_leaves_whole_volumes_alone_and_goes_on(source):
    command = [sys.executable, "-c", KILLED, str(source)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert any(b"half" in line for line in process.stdout)
        process.send_signal(signal.SIGKILL)
    dataset = source.parent / "datasets/own"
    assert list(dataset.rglob("*.h5")) == []
    assert list(dataset.rglob("*.part")) != []
    plan = planned(source)
    assert len(plan.to_do) == 10
    list(convert(plan))
    assert list(dataset.rglob("*.part")) == []
    assert len(open_cache(dataset)) == 10
    assert json.loads((dataset / RECORD).read_text())["scale"] == plan.scale


def test_volume_that_a_conversion_killed_behind_it_left_is_known(source, monkeypatch):
    """It keeps its choices: by other ones its person would go to another split as well."""

    def killed(plan, item, *, whole):
        if whole:
            raise KeyboardInterrupt
        remember(plan, item, whole=whole)

    monkeypatch.setattr("workbench.convert.run.remember", killed)
    with pytest.raises(KeyboardInterrupt):
        list(convert(planned(source)))
    assert len(list((source.parent / "datasets/own").rglob("*.h5"))) == 1
    with pytest.raises(ValueError, match=r"seed=7: .* was made with seed=42"):
        planned(source, seed=7)
    assert len(planned(source).to_do) == 10


def test_choices_of_a_conversion_that_left_nothing_bind_nobody(source):
    for file in source.rglob("*.npy"):
        kspace = np.load(file)
        np.save(file, np.concatenate([kspace, kspace[:1] * np.nan, kspace, kspace]))
    assert len(list(convert(planned(source)))) == 10
    assert len(planned(source, flip=True).to_do) == 10


def test_folder_of_volumes_that_no_conversion_wrote_is_left_alone(source):
    (folder := source.parent / "datasets/own/multicoil_train").mkdir(parents=True)
    (folder / "file1000001.h5").write_bytes(b"of another dataset")
    with pytest.raises(ValueError, match=r"holds file1000001.h5, which no conversion wrote"):
        planned(source)
    (source.parent / "datasets/own/raw").mkdir()
    folder.rename(source.parent / "datasets/own/raw/files")
    assert len(planned(source).to_do) == 10


def test_file_that_is_refused_by_now_names_what_is_there_of_it(source):
    list(convert(planned(source)))
    kept = {item.source: item.path for item in planned(source).items}
    np.save(source / "Doe_Jane_0/t0.npy", np.abs(head(0)))
    wrong = np.load(source / "Doe_Jane_1/t0.npy")
    wrong[1] = np.nan
    broken = np.concatenate([wrong, *[wrong[:1]] * 8])
    np.save(source / "Doe_Jane_1/t0.npy", broken)
    plan = planned(source)
    said = "; of it as it was before {} is still there"
    (refusal,) = plan.refusals
    assert refusal.reason.endswith(said.format(kept["Doe_Jane_0/t0.npy"]))
    (refusal,) = convert(plan)
    assert refusal.reason.endswith(said.format(kept["Doe_Jane_1/t0.npy"]))


def test_file_that_is_still_being_copied_is_refused_until_it_is_there(source):
    plan = planned(source)
    np.save(source / "Doe_Jane_1/t0.npy", 2 * head(10))
    (problem,) = convert(plan)
    assert (problem.path, problem.reason[:29]) == (
        "Doe_Jane_1/t0.npy",
        "was changed after this began,",
    )
    assert len(open_cache(plan.ask.dataset)) == 9
    assert [item.source for item in planned(source).to_do] == ["Doe_Jane_1/t0.npy"]


def test_two_conversions_into_one_folder_do_not_meet(source):
    plan = planned(source)
    running = convert(plan)
    busy = pytest.raises(RuntimeError, match="another conversion writes into")
    with only_one(plan.ask.dataset / LOCK, "x"), busy:
        next(running)


def test_plan_says_what_will_be_made(source):
    text = "\n".join(lines_of(planned(source)))
    assert "10 volumes" in text
    assert "people     5, told apart by folder" in text
    assert "10 volumes, 328 kB of k-space" in text


def test_images_of_another_scanner_s_scale_are_told(source):
    plan = planned(source)
    assert "images reach" not in "\n".join(lines_of(plan))
    list(convert(plan))
    (source / "Doe_Jane_7").mkdir()
    np.save(source / "Doe_Jane_7/t0.npy", 1e6 * head(3))
    said = "\n".join(lines_of(planned(source)))
    assert "by it, and fastMRI's 0.0003: give scans of another scanner's scale" in said


def test_scan_whose_middle_slice_is_refused_costs_itself_alone(tmp_path):
    (source := tmp_path / "raw").mkdir()
    kspace = fft2(images(3))
    late = cartesian(kspace, repetition=1)
    for each in late:
        if each.idx.kspace_encode_step_1 == 9:
            each.data[:] = 0
    mrd_file(source / "a.h5", cartesian(kspace) + late)
    plan = planned(source, choices=Choices())
    assert len(plan.items) == 2
    (problem,) = convert(plan)
    assert problem.reason.startswith("holds zeros, or next to nothing, in 1 of a slice's 24 lines")


def test_scan_with_a_nan_is_refused_alone_and_decides_no_scale(tmp_path):
    for number in range(3):
        kspace = fft2(images(seed=number))
        if number == 1:
            kspace[0, 0, 3, 3] = np.nan
        mrd_file(tmp_path / f"raw{number}.h5", cartesian(kspace))
    (source := tmp_path / "raw").mkdir()
    for file in tmp_path.glob("raw*.h5"):
        file.rename(source / file.name)
    plan = planned(source, choices=Choices(), person="file")
    assert [problem.path for problem in convert(plan)] == ["raw1.h5"]
    for path in plan.ask.dataset.rglob("*.h5"):
        with h5py.File(path) as file:
            assert np.isfinite(file["kspace"][()]).all()
            assert 1e-4 < file.attrs["max"] < 1e-3


@pytest.mark.parametrize("size", [1e25, 1e-30])
def test_values_whose_squares_no_float_holds_come_to_the_usual_scale(source, size):
    for file in source.rglob("*.npy"):
        np.save(file, (np.load(file) * size).astype(np.complex64))
    plan = planned(source)
    assert list(convert(plan)) == []
    assert all(1e-5 < volume.largest < 1e-2 for volume in open_cache(plan.ask.dataset))


def test_file_that_is_there_from_a_folder_below_does_not_come_twice(source):
    below = replace(ask(source), source=source / "Doe_Jane_0")
    list(convert(plan_conversion(below)))
    with pytest.raises(ValueError, match=r"Doe_Jane_0/t0.npy: .* of the same file"):
        planned(source)
    assert len(open_cache(below.dataset)) == 2


def test_file_under_another_name_does_not_come_twice(source):
    plan = planned(source)
    assert list(convert(plan)) == []
    (source / "Doe_Jane_0/t0.npy").rename(source / "Doe_Jane_0/renamed.npy")
    with pytest.raises(ValueError, match=r"renamed.npy: .* of the same file") as refused:
        planned(source)
    there = str(refused.value).split(" holds ")[1].split()[0]
    (plan.ask.dataset / there).unlink()
    assert len(planned(source).to_do) == 1


def test_file_that_another_one_replaced_with_its_size_and_time_is_converted_anew(source):
    plan = planned(source)
    assert list(convert(plan)) == []
    file = source / "Doe_Jane_0/t0.npy"
    before = file.stat()
    np.save(file, head(3))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert [item.source for item in planned(source).to_do] == ["Doe_Jane_0/t0.npy"]


def test_what_is_said_of_a_scan_later_is_written(source):
    list(convert(planned(source)))
    plan = planned(source, acquisition="AXT2")
    assert len(plan.to_do) == 10
    list(convert(plan))
    assert {volume.acquisition for volume in open_cache(plan.ask.dataset)} == {"AXT2"}
    assert planned(source, acquisition="AXT2").to_do == ()


def test_plan_made_before_another_s_conversion_writes_nothing(source):
    other = source.parent / "other"
    other.mkdir()
    np.save(other / "a.npy", 1000 * head(3))
    late = planned(source, person="file")
    list(convert(plan_conversion(replace(ask(source), source=other))))
    with pytest.raises(RuntimeError, match=r"has written into .* since this one was planned"):
        list(convert(late))
    assert len(open_cache(late.ask.dataset)) == 1


@pytest.mark.parametrize("key", range(4))
@pytest.mark.parametrize("person", ["", "/Doe_{}"])
def test_split_that_a_folder_names_is_kept_and_nobody_s_name(tmp_path, key, person):
    """All of a folder train had been one person, who went to val as often as not."""
    for number, split in enumerate(("train", "train", "val", "val")):
        folder = tmp_path / f"raw/{split}{person.format(number)}"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f"{number}.npy", head(number))
    plan = plan_conversion(replace(ask(tmp_path / "raw"), private=tmp_path / str(key)))
    assert [item.split for item in plan.items] == ["train", "train", "val", "val"]
    assert plan.told_apart == ("folder" if person else "file")
    assert len({item.person for item in plan.items}) == 4


def test_person_whom_folders_give_to_two_splits_is_in_one(tmp_path):
    for split, name in (("Train", "e7s1_P1.7.h5"), ("Val", "e7s2_P2.7.h5"), ("", "e7s3_P3.7.h5")):
        (folder := tmp_path / "raw" / split).mkdir(parents=True, exist_ok=True)
        calgary_file(folder / name, strength=1 + len(split))
    plan = planned(tmp_path / "raw", choices=Choices(), person="header")
    assert len({item.split for item in plan.items}) == 1
    assert "moved      1 volume from the split that the source gives them" in "\n".join(
        lines_of(plan)
    )
    other = next(item for item in plan.items if item.source.startswith("Val/"))
    said = "its source gives it to val; of the same person are scans in train"
    assert other.scan.remarks[-1] == said
