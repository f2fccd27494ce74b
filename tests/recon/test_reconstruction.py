"""Weights from anywhere, and results in the leaderboard's form."""

import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pytest
import torch
from fastmri import evaluate
from fastmri.data import SliceDataset as ReferenceDataset
from fastmri.data.transforms import VarNetDataTransform, center_crop_to_smallest

from tests.recon.conftest import made, make_volume, noise
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run
from workbench.data.masks import _FUNCTIONS
from workbench.data.volume import ArrayLayout, Volume
from workbench.models.varnet import VARNET
from workbench.recon import reconstruction, weights
from workbench.recon.orders import begin
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.results import Results
from workbench.views.ranking import rank_slices
from workbench.views.reconstructions import data_range_of, slice_scores
from workbench_demo.phantom.writing import write_volume


def test_file_that_holds_no_varnet_is_refused(tmp_path):
    torch.save({"state_dict": {"unet.conv.weight": torch.ones(1)}}, tmp_path / "unet.pt")
    with pytest.raises(ValueError, match="holds no weights of a VarNet"):
        weights.load_network(tmp_path / "unet.pt")


@pytest.fixture
def weights_server(monkeypatch):
    """Serves files by name; "short" ones end before the length that was announced."""
    files = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            content, missing = files.get(self.path.lstrip("/"), (b"", 0))
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content) + missing))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        for name, url in VARNET.released.items():
            file = url.rpartition("/")[2]
            here = f"http://127.0.0.1:{server.server_port}/{file}"
            monkeypatch.setitem(VARNET.released, name, here)
        yield files
        server.shutdown()
        thread.join()


def test_released_weights_are_fetched_once(project, released, weights_server):
    _, file = released
    weights_server["knee_leaderboard_state_dict.pt"] = file.read_bytes(), 0
    path = weights.find_weights("fastmri-knee")
    assert path.parent == project / "outputs" / "weights" / "varnet"
    assert path.read_bytes() == file.read_bytes()
    weights_server.clear()
    assert weights.find_weights("fastmri-knee") == path
    with pytest.raises(OSError, match=r"download it by other means and put it at outputs/weights"):
        weights.find_weights("fastmri-brain")


def test_released_weights_that_end_early_are_not_kept(project, weights_server):
    weights_server["knee_leaderboard_state_dict.pt"] = b"half", 1000
    with pytest.raises(OSError, match="could not be fetched"):
        weights.find_weights("fastmri-knee")
    assert not list((project / "outputs/weights/varnet").iterdir())


def test_results_equal_fastmris_own_reconstruction_and_figures(study, project, released):
    network, file = released
    plan = plan_reconstruction(run="r", weights=str(file), local_dataset=str(study))
    found = made(plan)
    mask = _FUNCTIONS["equispaced"]((0.08,), (4,))
    reference = ReferenceDataset(study / "multicoil_val", "multicoil", VarNetDataTransform(mask))
    images, targets = {}, {}
    for sample in reference:
        with torch.no_grad():
            image = network(
                sample.masked_kspace[None], sample.mask[None], sample.num_low_frequencies
            )
        target, image = center_crop_to_smallest(sample.target, image[0])
        images.setdefault(sample.fname, []).append(image.numpy())
        targets.setdefault(sample.fname, []).append(target.numpy())
    assert [result.path.name for result in found] == sorted(images)
    for result in found:
        expected = np.stack(images[result.path.name])
        truth = np.stack(targets[result.path.name])
        with h5py.File(result.path) as written:
            values = written["reconstruction"][()]
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, expected, atol=2e-5 * expected.max())
        scores = result.reconstruction
        assert scores["ssim"] == pytest.approx(evaluate.ssim(truth, expected).item(), abs=1e-4)
        assert scores["psnr"] == pytest.approx(evaluate.psnr(truth, expected), abs=1e-2)
        assert scores["nmse"] == pytest.approx(evaluate.nmse(truth, expected).item(), rel=1e-3)
        assert np.mean(result.slice_ssim) == pytest.approx(result.reconstruction["ssim"])
        assert result.acceleration > 2


def test_second_run_makes_only_what_is_missing_or_of_other_weights(study, project, released):
    network, file = released
    plan = plan_reconstruction(run="r", weights=str(file), local_dataset=str(study))
    first, second = (result.path for result in made(plan))
    written = first.stat().st_mtime_ns
    second.write_bytes(second.read_bytes()[:100])
    plan = plan_reconstruction(run="r", weights=str(file), local_dataset=str(study))
    assert plan.order.volumes == ("multicoil_val/file11.h5",)
    made(plan)
    assert first.stat().st_mtime_ns == written
    assert len(Results(plan.folder)) == 2
    torch.save({name: value * 1.01 for name, value in network.state_dict().items()}, file)
    plan = plan_reconstruction(run="r", weights=str(file), local_dataset=str(study))
    assert len(plan.order.volumes) == 2


def test_results_of_the_weights_before_are_none_of_the_new_ones(study, project, released):
    """Where making them anew was broken off, means were over images of both."""
    network, file = released
    asked = {"run": "r", "weights": str(file), "local_dataset": str(study)}
    before = made(plan_reconstruction(**asked))
    torch.save({name: value * 1.01 for name, value in network.state_dict().items()}, file)
    plan = plan_reconstruction(**asked)
    begin(plan.order, plan.cache, plan.folder)
    with pytest.raises(FileNotFoundError, match="holds no results of what was asked for last"):
        Results(plan.folder)
    first = replace(plan.order, volumes=plan.order.volumes[:1])
    for _ in reconstruction.reconstruct_share(
        first, plan.cache, plan.folder, weights.load_network(file)
    ):
        pass
    (only,) = Results(plan.folder)
    assert only.volume == before[0].volume
    assert only.reconstruction != before[0].reconstruction
    assert len(plan_reconstruction(**asked).order.volumes) == 1
    assert len(made(plan_reconstruction(**asked))) == 2


def test_test_volumes_take_their_own_mask_and_need_no_target(project, released, tmp_path):
    mask = np.zeros(32, bool)
    mask[::3] = mask[14:18] = True
    dataset = tmp_path / "brain"
    write_volume(
        dataset / "multicoil_test/a.h5",
        kspace=noise(2, 2, 40, 32) * mask,
        target=None,
        recon=(20, 20),
        acquisition="AXT1",
        patient_id="p",
        mask=mask,
    )
    plan = plan_reconstruction(
        run="r", weights=str(released[1]), split="test", local_dataset=str(dataset)
    )
    assert plan.order.sampling is None
    (result,) = made(plan)
    assert result.scores == {}
    assert result.slice_ssim == ()
    assert result.acceleration == pytest.approx(32 / mask.sum())


def test_odd_flair_is_cropped_and_a_volume_that_changed_is_made_again(project, released):
    path = project / "brain/multicoil_val/flair.h5"
    for slices in (1, 2):
        write_volume(
            path,
            kspace=noise(slices, 2, 48, 21),
            target=np.abs(noise(slices, 21, 21)),
            recon=(24, 24),
            acquisition="AXFLAIR",
            patient_id="p",
        )
        plan = plan_reconstruction(
            run="r", weights=str(released[1]), local_dataset=str(project / "brain")
        )
        assert plan.order.volumes == ("multicoil_val/flair.h5",)
        (result,) = made(plan)
        assert result.images().shape == (slices, 21, 21)


def test_slices_are_measured_by_what_their_volume_is_measured_by(project, released):
    """The leaderboard sees the square of the target's width, whatever lies above and below."""
    path = make_volume(project / "tall/multicoil_val/file1.h5", 1, recon=(44, 24))
    plan = plan_reconstruction(
        run="r", weights=str(released[1]), local_dataset=str(path.parent.parent)
    )
    found = made(plan)
    (result,) = found
    truth, image = result.targets()[:, 10:34], result.images()[:, 10:34]
    assert result.images().shape == (3, 44, 24)
    for number, ssim in enumerate(result.slice_ssim):
        one = (each[number : number + 1] for each in (truth, image))
        assert ssim == pytest.approx(evaluate.ssim(*one, maxval=truth.max()), abs=1e-4)
    assert np.mean(result.slice_ssim) == pytest.approx(result.reconstruction["ssim"])
    with h5py.File(result.path, "r+") as file:  # as earlier versions measured slices: as a whole
        file.attrs["slice_ssim"] = np.array(result.slice_ssim) - 0.01
    assert Results(plan.folder)[0].slice_ssim == ()
    plan = plan_reconstruction(
        run="r", weights=str(released[1]), local_dataset=str(path.parent.parent)
    )
    assert plan.order.volumes == ("multicoil_val/file1.h5",)
    assert made(plan)[0].slice_ssim == result.slice_ssim
    by_nmse = rank_slices(found, "nmse").set_index("slice")
    for number in range(3):
        assert by_nmse["ssim"][number] == pytest.approx(result.slice_ssim[number])
        shown = slice_scores(result.image(number), result.targets()[number], truth.max())
        assert shown["ssim"] == pytest.approx(result.slice_ssim[number])


def test_figures_of_a_slice_have_the_figures_of_the_tables(project, released):
    """They took the file's max for data range, which is what lies above or below, or is wrong."""
    path = make_volume(project / "tall/multicoil_val/file1.h5", 1, recon=(44, 24))
    with h5py.File(path, "r+") as file:
        file.attrs["max"] = 3 * file["reconstruction_rss"][()].max()
        file["reconstruction_rss"][1, 2, 5] = file.attrs["max"]  # above the square that is judged
    plan = plan_reconstruction(
        run="r", weights=str(released[1]), local_dataset=str(path.parent.parent)
    )
    (result,) = found = made(plan)
    assert result.peak == result.targets()[:, 10:34].max() < 0.5 * result.volume.largest
    by_psnr = rank_slices(found, "psnr").set_index("slice")
    for number, target in enumerate(result.targets()):
        shown = slice_scores(result.image(number), target, data_range_of(result, target))
        assert shown["ssim"] == pytest.approx(result.slice_ssim[number])
        assert shown["psnr"] == pytest.approx(by_psnr["psnr"][number])


@pytest.mark.parametrize("storage", [{}, {"chunks": True, "compression": "gzip"}])
@pytest.mark.parametrize("same_place", [True, False])
def test_other_kspace_of_the_same_name_and_size_is_made_again(
    same_place, storage, project, released
):
    """Converted anew, or another site's file: without a target nothing else tells them apart."""
    mask = np.arange(32) % 2 == 0
    first = noise(3, 2, 40, 32) * mask
    paths = [project / name / "multicoil_test/scan1.h5" for name in ("one", "one", "two")]
    path, other = paths[0], paths[1 if same_place else 2]

    def write(place, kspace):
        about = {"recon": (20, 20), "acquisition": "AXT1", "patient_id": "p", "mask": mask}
        write_volume(place, kspace=kspace, target=None, **about, **storage)

    def plan(place):
        return plan_reconstruction(
            run="r",
            weights=str(released[1]),
            split="test",
            local_dataset=str(place.parent.parent),
        )

    write(path, first)
    before = made(plan(path))[0]
    before.measured(0)
    assert plan(path).order.volumes == ()
    write(other, first[::-1])  # the same slices from the other end
    if same_place:
        (stale,) = Results(before.path.parent)
        with pytest.raises(ValueError, match=r"scan1.h5 of .* was written anew since"):
            stale.measured(0)
    again = plan(other)
    assert again.folder == before.path.parent
    assert again.order.volumes == ("multicoil_test/scan1.h5",)
    images = before.images()
    (after,) = made(again)
    np.testing.assert_allclose(after.images(), images[::-1], rtol=1e-5)
    after.measured(0)
    assert plan(other).order.volumes == ()


def test_largest_volumes_are_shared_out_first_and_none_is_lost():
    def volume(name, slices):
        layout = ArrayLayout((slices, 2, 4, 4), "<c8", 0)
        sizes = ((4, 4, 1), (4, 4, 1))
        return Volume(name, "val", 0, 0, layout, None, None, None, *sizes, 0, 4, {})

    volumes = [volume("a", 2), volume("b", 10), volume("c", 4), volume("d", 5)]
    shares = [reconstruction.share(volumes, rank, 2) for rank in range(2)]
    assert [[each.path for each in part] for part in shares] == [["b"], ["d", "c", "a"]]


def test_bad_parameters_are_refused_before_anything_runs(study, project, released):
    _, file = released
    known = {"run": "r", "weights": str(file), "local_dataset": str(study)}
    for changed, message in [
        ({"weights": "no.pt"}, "no such file"),
        ({"split": "tset"}, "split='tset': give one of"),
        ({"split": "test"}, "has no test volumes; it has train, val$"),
        ({"acceleration": 0.5}, "acceleration=0.5: give 1 or more"),
        ({"mask": "spiral"}, "mask='spiral': give one of"),
        ({"volumes": 0}, "volumes=0"),
        ({"nodes": 0}, "nodes=0: give a whole number, 1 or more"),
        ({"run": "../x"}, "name='../x'"),
        ({"mask": "magic_fraction", "center_fraction": 0.9}, "cannot be drawn"),
        ({"weights": None}, "no run in outputs/r"),
        ({"local_dataset": None}, "name the dataset"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            plan_reconstruction(**known | changed)
    job = training_job(study, synthetic=True, model="brain", name="r")
    prepare_run(job, resume=True)
    with pytest.raises(FileNotFoundError, match="has no checkpoint yet"):
        plan_reconstruction(run="r")


def test_results_of_other_weights_do_not_replace_a_runs_own(study, project, released):
    job = training_job(study, synthetic=True, model="brain", name="r")
    run = prepare_run(job, resume=True)
    run.best.parent.mkdir(parents=True)
    shutil.copy(released[1], run.best)
    own = plan_reconstruction(run="r")
    other = plan_reconstruction(run="r", weights=str(released[1]))
    alone = plan_reconstruction(weights=str(released[1]), local_dataset=str(study))
    assert len({own.folder, other.folder, alone.folder}) == 3
    assert alone.folder.is_relative_to(project / "outputs" / "released")
