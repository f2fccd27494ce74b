"""The names at the top of the package, as a script uses them."""

import pydoc
import shutil

import fastmri
import h5py
import numpy as np
import pytest
import torch
from fastmri import evaluate
from fastmri.data.subsample import EquiSpacedMaskFunc
from fastmri.data.transforms import VarNetDataTransform

import workbench
from tests.recon.conftest import SMALL, made, noise, released, study  # noqa: F401
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run
from workbench.recon.metrics import METRICS
from workbench.recon.reconstruction import reconstruct_volume
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.run import fit


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The project of this module's tests."""
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("project")
        patch.setenv("WORKBENCH_ROOT", str(root))
        yield root


@pytest.fixture(scope="module")
def trained(study, root):  # noqa: F811
    """A run of one epoch, and its results on the validation split."""
    job = training_job(
        study, synthetic=False, model="brain", name="team/small", epochs=1, cascades=2, chans=3,
        pools=2, sens_chans=2, sens_pools=1,
    )  # fmt: skip
    run = prepare_run(job, resume=True)
    fit(job, run.folder)
    return made(plan_reconstruction(run="team/small"))


def test_every_public_name_is_listed_and_explained():
    text = pydoc.render_doc(workbench, renderer=pydoc.plaintext)
    for name in workbench.__all__:
        assert name in dir(workbench)
        assert name in workbench.__doc__
        value = getattr(workbench, name)
        assert name == "NETWORKS" or len(value.__doc__.splitlines()) > 2, name
        assert name in text
    with pytest.raises(AttributeError, match="no attribute 'Sampler'"):
        workbench.Sampler  # noqa: B018


def test_a_slice_and_a_volume_are_those_of_the_results(trained, study):  # noqa: F811
    dataset = workbench.open_dataset(study).split("val")
    model = workbench.load_model("outputs/team/small")
    for volume, result in zip(dataset, trained, strict=True):
        slices = workbench.SliceDataset(dataset, trained.order.sampling)
        samples = [slices.slice_of(volume, number) for number in range(volume.slices)]
        images = np.stack([workbench.reconstruct(model, sample) for sample in samples])
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, result.images())
        targets = np.stack([dataset.read(volume, number)[1] for number in range(volume.slices)])
        assert workbench.score(images, targets) == result.reconstruction
        of_slices = [
            workbench.score(image, sample.target, max_value=targets.max())["ssim"]
            for image, sample in zip(images, samples, strict=True)
        ]
        np.testing.assert_allclose(of_slices, result.slice_ssim, rtol=1e-6)


def test_arrays_give_what_samples_give(trained, study):  # noqa: F811
    dataset = workbench.open_dataset(study).split("val")
    model, volume = workbench.load_model("team/small"), dataset[0]
    sample = workbench.SliceDataset(dataset, trained.order.sampling).slice_of(volume, 1)
    kspace, _ = dataset.read(volume, 1)
    how = {"crop": volume.recon[:2], "num_low_frequencies": sample.num_low_frequencies}
    wanted = workbench.reconstruct(model, sample)
    for mask in (sample.mask, sample.mask.numpy().reshape(-1), sample.mask.reshape(-1).float()):
        np.testing.assert_array_equal(workbench.reconstruct(model, kspace, mask, **how), wanted)
    both = workbench.reconstruct(model, np.stack([kspace, kspace]), sample.mask, **how)
    np.testing.assert_array_equal(both, np.stack([wanted, wanted]))
    assert workbench.reconstruct(model, torch.from_numpy(kspace), sample.mask).shape == (48, 32)


def test_what_lies_outside_the_mask_is_never_read(trained, study):  # noqa: F811
    dataset = workbench.open_dataset(study).split("val")
    kspace, _ = dataset.read(dataset[0], 1)
    mask = np.arange(32) % 3 != 0
    wanted = workbench.reconstruct(workbench.load_model("team/small"), kspace, mask)
    kspace[..., ~mask] = np.nan  # as some write what was not measured
    found = workbench.reconstruct(workbench.load_model("team/small"), kspace, mask)
    np.testing.assert_array_equal(found, wanted)


def test_numbers_that_depend_on_the_sequence_are_a_sample_s_own(study, tmp_path):  # noqa: F811
    path = tmp_path / "knee/multicoil_val/file1.h5"
    path.parent.mkdir(parents=True)
    shutil.copy(study / "multicoil_val/file10.h5", path)
    with h5py.File(path, "a") as file:
        file.attrs["acquisition"] = "CORPDFS_FBK"
    dataset = workbench.open_dataset(tmp_path / "knee")
    data = workbench.SliceDataset(dataset, workbench.Sampling("equispaced", 4, 0.2))
    network, sample = workbench.load_model("tv"), data[1]
    images, *_ = reconstruct_volume(network, data)
    np.testing.assert_array_equal(workbench.reconstruct(network, sample), images[1])
    others = network.for_acquisition("CORPD_FBK")
    assert (
        workbench.reconstruct(network, sample._replace(acquisition="CORPD_FBK")) != images[1]
    ).any()
    kspace = torch.view_as_complex(sample.masked_kspace)
    how = {"crop": sample.crop_size, "num_low_frequencies": sample.num_low_frequencies}
    for each, same in (
        (network, False),
        (others, False),
        (network.for_acquisition("CORPDFS_FBK"), True),
    ):
        found = workbench.reconstruct(each, kspace, sample.mask, **how)
        assert np.array_equal(found, images[1]) == same


def test_a_model_of_fastmri_reconstructs_as_fastmri_does(released, study):  # noqa: F811
    reference, path = released
    dataset = workbench.open_dataset(study).split("val")
    volume = dataset[0]
    sample = workbench.SliceDataset(dataset, workbench.Sampling("equispaced", 4, 0.08))[1]
    kspace, target = dataset.read(volume, 1)
    attributes = {
        **volume.attributes,
        "padding_left": 0,
        "padding_right": 32,
        "recon_size": (24, 24),
    }
    theirs = VarNetDataTransform(EquiSpacedMaskFunc([0.08], [4]))(
        kspace, None, target, attributes, volume.name, 1
    )
    torch.testing.assert_close(theirs.masked_kspace, sample.masked_kspace)
    with torch.no_grad():
        image = reference(theirs.masked_kspace[None], theirs.mask[None], theirs.num_low_frequencies)
    wanted = fastmri.data.transforms.center_crop(image[0], (24, 24)).numpy()
    scale = {"rtol": 1e-3, "atol": 1e-4 * wanted.max()}
    np.testing.assert_allclose(workbench.reconstruct(reference, sample), wanted, **scale)
    model = workbench.load_model(path, device="cpu")
    np.testing.assert_allclose(workbench.reconstruct(model, sample), wanted, **scale)


def test_scores_are_those_of_fastmri():
    rng = np.random.default_rng(0)
    target = rng.random((3, 20, 16)).astype(np.float32)
    image = target + 0.1 * rng.standard_normal(target.shape).astype(np.float32)
    square = slice(2, 18)
    truth, made_of = target[:, square], image[:, square]
    found = workbench.score(image, torch.from_numpy(target))
    assert found.keys() == {metric.name for metric in METRICS}
    for name in ("ssim", "psnr", "nmse"):
        theirs = getattr(evaluate, name)(truth, made_of)
        assert found[name] == pytest.approx(float(np.mean(theirs)), rel=1e-5), name
    alone = workbench.score(image[1], target[1], max_value=float(truth.max()))
    assert alone["ssim"] == pytest.approx(
        float(np.mean(evaluate.ssim(truth[1:2], made_of[1:2], truth.max()))), rel=1e-5
    )


def test_a_model_is_found_by_run_folder_name_or_file(trained, root):
    run = workbench.Run("outputs/team/small")
    shutil.copy(run.best, root / "mine.pt")
    torch.save(workbench.load_model(run).state_dict(), root / "exported.pt")
    for source in (run, run.folder, "outputs/team/small", "team/small", "mine.pt", "exported.pt"):
        model = workbench.load_model(source)
        assert (model.name, model.training) == ("varnet", False)
    (root / "outputs/empty").mkdir()
    for source, message in (
        ("team/smal", "no run in outputs/team/smal: .* or take one of team/small"),
        ("outputs/empty", "outputs/empty is no run's folder"),
    ):
        with pytest.raises(FileNotFoundError, match=message):
            workbench.load_model(source)


def test_results_open_by_the_run_s_folder(trained):
    found = workbench.Results("outputs/team/small")
    assert found.folder == trained.folder
    assert [each.path for each in found] == [each.path for each in trained]
    second = made(plan_reconstruction(run="team/small", acceleration=2))
    with pytest.raises(ValueError, match=r"several results: give one of .*equispaced-2x-0\.08"):
        workbench.Results("outputs/team/small")
    shutil.rmtree(second.folder)


def test_volumes_are_found_by_number_and_name(study):  # noqa: F811
    dataset = workbench.open_dataset(study)
    val = dataset.split("val")
    assert dataset["file10.h5"] == dataset["multicoil_val/file10.h5"] == val[0]
    assert [each.name for each in val[1:]] == ["file11.h5"]
    with pytest.raises(KeyError, match=r"file9\.h5: no volumes"):
        dataset["file9.h5"]
    with pytest.raises(IndexError, match="has slices 0 to 2"):
        dataset.read(val[0], 3)
    slices = workbench.SliceDataset(val, workbench.Sampling("random", [4, 8], [0.08, 0.04]))
    with pytest.raises(IndexError, match="this dataset has slices 0 to 2"):
        slices.slice_of(val[0], 3)
    with pytest.raises(IndexError, match="none of that volume"):
        slices.slice_of(dataset["file1.h5"], 0)


class Returning(torch.nn.Module):
    """A network of fastMRI's form that returns something else than a magnitude image."""

    def __init__(self, image):
        super().__init__()
        self.image = image

    def forward(self, masked_kspace, mask, num_low_frequencies):
        return self.image


def test_wrong_input_is_refused_with_what_to_do(study):  # noqa: F811
    model = workbench.VarNet(**SMALL)
    mask = np.ones(16, bool)
    with pytest.raises(ValueError, match=r"training mode: call model\.eval\(\)"):
        workbench.reconstruct(model, noise(2, 32, 16), mask)
    model.eval()
    for kspace, given, message in (
        (noise(2, 32, 16), None, r"mask=None: give the columns that were sampled, \(16,\) bool"),
        (noise(2, 32, 16), mask[:15], r"mask of shape \(15,\): give \(16,\)"),
        (noise(2, 32, 16), mask * 0.5, "mask of type float64: give True and False"),
        (noise(2, 32, 16), mask & False, "samples no column"),
        (noise(32, 16), mask, r"kspace of shape \(32, 16\).*a single coil is \(1, H, W\)"),
        (noise(2, 32, 16).real, mask, "kspace of type float32 .*give complex numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            workbench.reconstruct(model, kspace, given)
    with pytest.raises(TypeError, match="kspace is str"):
        workbench.reconstruct(model, "file.h5", mask)
    with pytest.raises(ValueError, match=r"crop=24: give \(height, width\)"):
        workbench.reconstruct(model, noise(2, 32, 16), mask, crop=24)
    for count in (-4, 17):
        with pytest.raises(ValueError, match=f"num_low_frequencies={count}: give 1 to 16"):
            workbench.reconstruct(model, noise(2, 32, 16), mask, num_low_frequencies=count)
    sample = workbench.SliceDataset(workbench.open_dataset(study), workbench.Sampling())[0]
    for image, message in (
        # Of a complex image its real part was left, and a second channel was taken for columns.
        (torch.ones(1, 48, 32) * 1j, r"complex64 of shape \(1, 48, 32\): return magnitude images"),
        (torch.ones(1, 48, 32, 2), r"float32 of shape \(1, 48, 32, 2\): return magnitude"),
        (torch.ones(1, 1, 48, 32), r"float32 of shape \(1, 1, 48, 32\): return magnitude"),
    ):
        with pytest.raises(ValueError, match=message):
            workbench.reconstruct(Returning(image).eval(), sample)
    with pytest.raises(ValueError, match="a sample brings its mask"):
        workbench.reconstruct(model, sample, mask)
    image = np.ones((16, 16))
    for given, target, message in (
        (image, image[:, :8], r"image of \(16, 16\) and target of \(16, 8\)"),
        (image + 0j, image, r"image of type complex128: give magnitudes"),
        (image * np.nan, image, "image holds values that are NaN"),
        (image[0], image[0], r"image of shape \(16,\): give a slice"),
        (image[:5, :5], image[:5, :5], "below the window of SSIM, 7x7"),
    ):
        with pytest.raises(ValueError, match=message):
            workbench.score(given, target)
