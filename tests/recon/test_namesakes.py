"""Volumes of one file name in several folders of a dataset: never one in place of the other."""

import shutil
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from tests.recon.conftest import TINY, made, make_volume
from workbench.catalog import split_of_folder
from workbench.compute.training import plan_training
from workbench.data.cache import build_cache, load_cache
from workbench.data.legacy_cache import compare, read_pickle, write_pickle
from workbench.data.sampling import Sampling, seed_of_file
from workbench.data.slices import SliceDataset
from workbench.models import VarNet
from workbench.recon.cluster_reconstruction import ReconstructionRun
from workbench.recon.orders import begin
from workbench.recon.reconstruction_plan import plan_reconstruction, reconstruct
from workbench.recon.results import Results, find_result
from workbench.recon.run import evaluate, fit
from workbench.recon.tables import read_scores
from workbench.stores import DiskStore
from workbench.views.explored import find_volume, open_slice
from workbench.views.export.results import export_results

SITES = ("site_a_val/file1.h5", "site_b_val/file1.h5")


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    torch.manual_seed(0)
    network = VarNet(num_cascades=1, chans=3, pools=1, sens_chans=2, sens_pools=1)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    return tmp_path


@pytest.fixture
def sites(tmp_path):
    """Two sites with a validation volume of one name, and one that is alone."""
    root = tmp_path / "brain"
    make_volume(root / "site_a_val/file1.h5", 1, slices=3)
    make_volume(root / "site_b_val/file1.h5", 2, slices=4)
    make_volume(root / "site_b_val/file2.h5", 3, slices=2)
    make_volume(root / "multicoil_train/file1.h5", 4, slices=2)
    return root


def planned(root, **more):
    return plan_reconstruction(weights="weights.pt", local_dataset=str(root), **more)


def alone(root, path, folder):
    """Reconstruct a volume in a dataset where nothing else is; return its result."""
    (folder / path).parent.mkdir(parents=True)
    (folder / path).write_bytes((root / path).read_bytes())
    (result,) = made(planned(folder, run=folder.name))
    return result


def test_each_of_two_sites_has_its_own_result_and_figures(project, sites):
    plan = planned(sites)
    assert "2 volumes are called file1.h5: site_a_val/file1.h5, site_b_val/file1.h5" in str(plan)
    found = made(plan)
    assert [each.name for each in found] == [*SITES, "file2.h5"]
    assert [each.path for each in found] == [plan.folder / name for name in (*SITES, "file2.h5")]
    for number, path in enumerate(SITES):
        expected = alone(sites, path, project / f"alone{number}")
        assert expected.path.name == expected.name == "file1.h5"
        assert expected.path.parent.parent.name == "reconstructions"
        np.testing.assert_array_equal(found[number].images(), expected.images())
        assert found[number].scores == expected.scores
        assert found[number].slice_ssim == expected.slice_ssim
    assert planned(sites).order.volumes == ()
    assert Results(plan.folder).items == found.items


def test_results_of_a_volume_before_it_was_converted_anew_are_none_of_the_new_one(project, sites):
    """Where making them anew was broken off, tables, means and archives were of both."""
    before = made(planned(sites))
    make_volume(sites / SITES[0], 9, slices=3)
    plan = planned(sites)
    assert plan.order.volumes == SITES[:1]
    begin(plan.order, plan.cache, plan.folder)
    assert [each.name for each in Results(plan.folder)] == [SITES[1], "file2.h5"]
    assert planned(sites).order.volumes == SITES[:1]
    found = made(planned(sites))
    assert found[0].scores != before[0].scores
    assert [each.scores for each in found[1:]] == [each.scores for each in before[1:]]


def test_earlier_results_in_a_cluster_s_storage_are_not_brought_back(project, sites, tmp_path):
    before = made(planned(sites))
    kept = tmp_path / "kept"
    shutil.copytree(before.folder, kept)
    make_volume(sites / SITES[0], 9, slices=3)
    plan = planned(sites)
    cloud = SimpleNamespace(store=DiskStore(kept))
    work = ReconstructionRun(cloud, plan.order, plan.cache, plan.folder)
    work.take_up()
    assert work.bring(work.wanted)
    assert [each.name for each in Results(plan.folder)] == [SITES[1], "file2.h5"]
    assert work.lacking == 1


def test_several_ranks_leave_a_result_for_each(project, sites):
    plan = planned(sites, nodes=2)
    lines = list(reconstruct(plan))
    assert {line[:7] for line in lines if line.startswith("rank ")} == {"rank 0:", "rank 1:"}
    assert [each.volume.path for each in Results(plan.folder)] == [*SITES, "site_b_val/file2.h5"]


def test_half_done_reconstruction_goes_on_with_what_is_missing(project, sites):
    made(planned(sites))
    (planned(sites).folder / SITES[1]).unlink()
    plan = planned(sites)
    assert plan.order.volumes == (SITES[1],)
    assert len(made(plan)) == 3


def test_results_from_before_a_namesake_came_still_count(project, sites, tmp_path):
    second = tmp_path / "later.h5"
    (sites / SITES[1]).rename(second)
    plan = planned(sites)
    first = made(plan)[0]
    assert first.path == plan.folder / "file1.h5"
    second.rename(sites / SITES[1])
    plan = planned(sites)
    assert plan.order.volumes == (SITES[1],)
    found = made(plan)
    assert [each.path for each in found[:2]] == [first.path, plan.folder / SITES[1]]
    assert [each.volume.path for each in found[:2]] == [*SITES]


def test_a_result_never_replaces_that_of_another_volume(project, sites, tmp_path):
    (sites / SITES[0]).rename(tmp_path / "away.h5")
    made(planned(sites))
    (tmp_path / "away.h5").rename(sites / SITES[0])
    made(planned(sites, volumes=1))  # the first alone: in this part no other is called so
    plan = planned(sites)
    assert plan.order.volumes == ()
    assert [each.volume.path for each in Results(plan.folder)] == [*SITES, "site_b_val/file2.h5"]


def test_a_file_that_held_both_counts_for_the_one_that_it_is_of(project, sites):
    plan = planned(sites)
    found = made(plan)
    found[1].path.replace(plan.folder / "file1.h5")  # as it was written in one place, one by one
    found[0].path.unlink()
    volumes = {volume.path: volume for volume in plan.cache}
    assert find_result(plan.folder, volumes[SITES[0]]) is None
    assert planned(sites).order.volumes == (SITES[0],)
    assert [each.volume.path for each in Results(plan.folder)] == [
        SITES[1],
        "site_b_val/file2.h5",
    ]


def test_validation_scores_each_volume_and_the_table_names_it(project, sites):
    plan = plan_training(
        model="brain", local_dataset=str(sites), reconstruct="val", epochs=1, **TINY
    )
    fit(plan.job, plan.run.folder)
    evaluate(plan.run.folder, ["val"])
    rows = {row["volume"]: row for row in plan.run.volumes}
    assert {path: int(row["slices"]) for path, row in rows.items()} == {
        SITES[0]: 3,
        SITES[1]: 4,
        "site_b_val/file2.h5": 2,
    }
    mean = np.mean([float(row["ssim"]) for row in rows.values()])
    assert plan.run.metrics[-1]["val_ssim"] == pytest.approx(mean)
    (folder,) = (plan.run.folder / "reconstructions").iterdir()
    scored = {row["volume"]: int(row["slices"]) for row in read_scores(folder)}
    assert scored == {path: int(row["slices"]) for path, row in rows.items()}


def test_masks_stay_fastmris_whatever_the_folder(sites):
    cache = build_cache(sites).split("val")
    data = SliceDataset(cache, Sampling())
    samples = [data[0], data[3]]
    assert [sample.volume for sample in samples] == [*SITES]
    assert [sample.fname for sample in samples] == ["file1.h5", "file1.h5"]
    assert torch.equal(samples[0].mask, samples[1].mask)
    assert seed_of_file("file1.h5") == tuple(map(ord, "file1.h5"))


def test_exports_hold_each_volume(project, sites):
    plan = planned(sites)
    endings = {"png": ".png", "gif": ".gif", "dicom": "", "nifti": ".nii.gz"}
    list(export_results(made(plan), [*endings, "leaderboard"]))
    folder = plan.folder / "export"
    with zipfile.ZipFile(folder / "leaderboard.zip") as archive:
        assert sorted(archive.namelist()) == [
            "reconstructions/file2.h5",
            "reconstructions/site_a_val/file1.h5",
            "reconstructions/site_b_val/file1.h5",
        ]
    for kind, ending in endings.items():
        start = "slices-" if kind == "png" else ""
        names = [f"site_a_val/{start}file1", f"site_b_val/{start}file1", f"{start}file2"]
        assert all((folder / kind / f"{name}{ending}").exists() for name in names)


def test_a_volume_of_an_unclear_name_is_asked_for_by_its_path(project, sites):
    cache = build_cache(sites)
    with pytest.raises(ValueError, match=r"3 volumes match, give one of .*site_a_val/file1"):
        find_volume(cache, "file1.h5")
    assert find_volume(cache, "site_b_val/file1").path == SITES[1]
    look = open_slice(str(sites), SITES[1])
    assert look.title == f"{SITES[1]}, slice 2"


def test_the_brains_full_test_release_is_a_split_of_its_own(project, tmp_path):
    root = tmp_path / "brain"
    full = make_volume(root / "multicoil_test_full/file1.h5", 1)
    masked = make_volume(root / "multicoil_test/file1.h5", 1, target=False)
    columns = np.arange(32) % 3 == 0
    columns[13:19] = True
    with h5py.File(masked, "r+") as file:
        file["kspace"][...] = file["kspace"][()] * columns
        file["mask"] = columns
    assert split_of_folder("multicoil_test_full") == "test_full"
    assert split_of_folder("multicoil_test_full_batch_0") == "test_full"
    assert split_of_folder("multicoil_test_v2") == "test"
    cache = build_cache(root)
    assert cache.counts == {"test": (1, 3), "test_full": (1, 3)}
    older = [replace(volume, split="test") for volume in cache]
    cache.with_volumes(older).save(root)
    assert load_cache(root).counts == cache.counts
    own = planned(root, split="test")
    with_targets = planned(root, split="test_full")
    assert (own.order.sampling, with_targets.order.sampling) == (None, Sampling())
    (first,), (second,) = made(own), made(with_targets)
    assert first.scores == {}
    assert 0 < second.reconstruction["ssim"] < 1
    assert second.volume.path == str(full.relative_to(root))
    assert own.folder != with_targets.folder


def test_fastmris_own_cache_is_compared_file_by_file(tmp_path):
    for number, site in enumerate(("a", "b"), start=2):
        make_volume(tmp_path / f"{site}_val/multicoil_val/file1.h5", 1, slices=number)
    cache = build_cache(tmp_path)
    write_pickle(cache, tmp_path / "dataset_cache.pkl")
    assert compare(read_pickle(tmp_path / "dataset_cache.pkl"), cache) == ()


def test_two_files_of_weights_of_one_name_keep_their_results_apart(project, sites):
    files = [project / name / "best.pt" for name in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        network = VarNet(num_cascades=1, chans=3, pools=1, sens_chans=2, sens_pools=1)
        torch.save(network.state_dict(), file)
    first, second = (
        made(plan_reconstruction(weights=str(file), local_dataset=str(sites))) for file in files
    )
    assert all(each.path.exists() for each in (*first, *second))
    assert {each.path for each in first}.isdisjoint(each.path for each in second)
    for file in files:
        assert not plan_reconstruction(weights=str(file), local_dataset=str(sites)).order.volumes
