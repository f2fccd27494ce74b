"""The U-Net baseline against fastMRI's own: transform, network, un-normalising, loss."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastmri.data.transforms import UnetDataTransform
from fastmri.models import Unet
from fastmri.pl_modules import UnetModule

import workbench
from tests.recon.conftest import made, noise
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run
from workbench.data.cache import open_cache
from workbench.data.images import center_crop, crop_size
from workbench.data.slices import collate
from workbench.models import NETWORKS
from workbench.models.unet import UNet
from workbench.models.unet_baseline.network import UNetBaseline
from workbench.pages.train import TrainPage
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.run import datasets, fit
from workbench.recon.speed import compile_unets, kept_bytes
from workbench.recon.training import Training
from workbench.recon.weights import find_weights, load_network

SMALL = {"chans": 4, "pools": 3}
SHAPES = {
    "as wide as it is high": ((3, 64, 48), (40, 40)),
    "odd": ((2, 51, 37), (37, 31)),
    "FLAIR": ((4, 64, 33), (40, 40)),
    "a single coil": ((1, 56, 44), (32, 32)),
    "nothing to crop": ((2, 32, 40), (32, 40)),
}


def pair(dtype=torch.float32, chans=4, pools=3):
    torch.manual_seed(0)
    reference = Unet(1, 1, chans, pools).to(dtype).eval()
    ours = UNetBaseline(chans, pools).to(dtype).eval()
    ours.unet.load_state_dict(reference.state_dict(), strict=True)
    return reference, ours


def measured(shape, dtype=torch.float32, seed=0):
    """K-space of some coils with most of its energy at DC, a part of whose columns are zero."""
    height, width = shape[-2:]
    away = np.hypot(*np.meshgrid(*(np.arange(n) - n // 2 for n in (width, height))))
    columns = np.random.default_rng(seed).random(width) < 0.4
    columns[width // 2 - 3 : width // 2 + 3] = True
    kspace = 1e-4 * noise(*shape, seed=seed) / (1 + away) * columns
    precise = np.complex128 if dtype == torch.float64 else np.complex64
    return kspace.astype(precise), torch.from_numpy(columns).view(1, 1, 1, -1, 1)


def of_fastmri(network, kspace, recon, target=None):
    """What fastMRI's transform, network and un-normalising give, and the sample."""
    single = len(kspace) == 1
    transform = UnetDataTransform("singlecoil" if single else "multicoil")
    attributes = {"recon_size": recon, "max": 1.0}
    sample = transform(kspace[0] if single else kspace, None, target, attributes, "a.h5", 0)
    output = network(sample.image[None, None])[0, 0]
    return output * sample.std + sample.mean, output, sample


@pytest.mark.parametrize(("shape", "recon"), SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("dtype", "most"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["float32", "float64"]
)
@pytest.mark.parametrize("way", ["kernels", "torch alone"])
def test_equals_fastmris_transform_and_network(shape, recon, dtype, most, way, monkeypatch):
    if way == "torch alone":
        monkeypatch.setattr("workbench_kernels.functions.kernels", lambda _: None)
    reference, ours = pair(dtype)
    kspace, mask = measured(shape, dtype)
    with torch.inference_mode():
        expected, *_ = of_fastmri(reference, kspace, recon)
        size = crop_size(shape[-2:], recon)
        given = torch.view_as_real(torch.from_numpy(kspace))[None]
        image = ours.central_image(given, mask, None, size)[0]
    assert image.dtype == expected.dtype == dtype
    assert image.shape == expected.shape == size
    assert float((image - expected).norm() / expected.norm()) < most


def test_slices_of_a_batch_are_normalised_each_by_its_own():
    _, ours = pair(torch.float64)
    each = [measured((2, 51, 37), torch.float64, seed)[0] * 10**seed for seed in (0, 2)]
    kspace = torch.view_as_real(torch.from_numpy(np.stack(each)))
    together = ours.central_image(kspace, None, None, (37, 31))
    alone = [ours.central_image(one[None], None, None, (37, 31))[0] for one in kspace]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-10, atol=0)


def test_loss_and_gradient_are_fastmris_with_the_target_clamped():
    reference, ours = pair(torch.float64)
    kspace, mask = measured((3, 64, 48), torch.float64)
    target = np.abs(noise(40, 40, seed=5)).astype(np.float64) * 1e-5
    given = torch.view_as_real(torch.from_numpy(kspace))[None]
    losses = []
    for brightest in (1.0, 2.0):  # both far beyond six standard deviations
        target[3, 4] = brightest
        _, output, sample = of_fastmri(reference, kspace, (40, 40), target)
        reference.zero_grad()
        expected = F.l1_loss(output, sample.target)
        expected.backward()
        ours.zero_grad()
        loss = ours.own_loss(given, mask, None, (40, 40), torch.from_numpy(target)[None])
        loss.backward()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-10)
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            assert float((one.grad - other.grad).norm()) <= 1e-9 * float(other.grad.norm()) + 1e-14
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_recipe_is_fastmris(study):
    job = training_job(study, synthetic=False, model="brain", network="unet")
    assert (job.config.chans, job.config.pools) == (32, 4)
    (ours,), (schedule,) = Training(job).configure_optimizers()
    (reference,), (other,) = UnetModule().configure_optimizers()
    assert type(ours) is type(reference)
    chosen = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")
    assert [ours.defaults[k] for k in chosen] == [reference.defaults[k] for k in chosen]
    assert type(schedule) is type(other)
    assert (schedule.step_size, schedule.gamma) == (other.step_size, other.gamma)


def test_steps_follow_fastmris_own(study):
    """Fifteen steps of RMSprop on the slices of one epoch, in float64."""
    choices = {**SMALL, "network": "unet", "name": "u", "epochs": 1}
    job = training_job(study, synthetic=False, model="brain", **choices)
    module = Training(job).double()
    reference = Unet(1, 1, *SMALL.values()).double()
    reference.load_state_dict(module.network.unet.state_dict())
    (ours,), _ = module.configure_optimizers()
    theirs = torch.optim.RMSprop(reference.parameters(), lr=1e-3)
    data, _ = datasets(job, open_cache(study))
    for index in [*range(len(data)), *range(6)]:
        sample = data[index]
        kspace = torch.view_as_complex(sample.masked_kspace.double()).numpy()
        recon, target = sample.crop_size, sample.target.double().numpy()
        _, output, transformed = of_fastmri(reference, kspace, recon, target)
        expected = F.l1_loss(output, transformed.target)
        batch = collate([sample])
        batch = batch._replace(
            masked_kspace=batch.masked_kspace.double(), target=batch.target.double()
        )
        loss = module.training_step(batch, index)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-8)
        for optimizer, value in ((theirs, expected), (ours, loss)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()


def test_another_loss_is_in_the_images_unit_and_touches_no_target(study):
    choices = {**SMALL, "network": "unet", "loss": "l1"}
    module = Training(training_job(study, synthetic=False, model="brain", **choices))
    data, _ = datasets(module.job, open_cache(study))
    batch = collate([data[0]])
    image = center_crop(module(batch), tuple(batch.target.shape[-2:]))
    expected = (image - batch.target).abs().mean() / batch.max_value[0]
    assert module.training_step(batch, 0).item() == pytest.approx(expected.item(), rel=1e-6)


def test_validation_sees_the_untouched_target(study):
    job = training_job(study, synthetic=False, model="brain", network="unet", **SMALL)
    module = Training(job).eval()
    _, val = datasets(job, open_cache(study))
    scores = []
    for brightest in (1.0, 2.0):
        batch = collate([val[0]])
        batch.target[0, 3, 4] = brightest
        with torch.inference_mode():
            module.validation_step(batch, 0)
        module.on_validation_epoch_end()
        scores.append(module.volume_scores[0]["psnr"])
    assert scores[0] != scores[1]


def test_a_slice_of_zeros_has_a_finite_loss_and_stays_zero():
    _, ours = pair()
    kspace = torch.zeros(1, 2, 40, 40, 2)
    assert not ours(kspace, None).any()
    loss = ours.own_loss(kspace, None, None, (32, 32), torch.zeros(1, 32, 32))
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters())


# ---- weights -----------------------------------------------------------------------------


def test_numbers_are_read_off_the_released_weights():
    with torch.device("meta"):
        released = Unet(1, 1, 256, 4)
    assert sum(p.numel() for p in released.parameters()) == 496_372_225
    entry = NETWORKS["unet"]
    state = {f"{entry.inside}{name}": value for name, value in released.state_dict().items()}
    config = entry.config_of(state)
    assert (config.chans, config.pools) == (256, 4)
    with torch.device("meta"):
        assert entry.build(config).state_dict().keys() == state.keys()


@pytest.mark.parametrize("prefix", ["", "unet.", "module.", "model.unet.", "_orig_mod."])
def test_weights_choose_their_network_under_any_prefix(prefix, tmp_path):
    reference, _ = pair(chans=6, pools=2)
    content = {f"{prefix}{name}": value for name, value in reference.state_dict().items()}
    # The name that fastMRI gave to a file of its VarNet, too.
    path = tmp_path / "brain_leaderboard_state_dict.pt"
    torch.save({"state_dict": content, "epoch": 3}, path)
    network = load_network(path)
    assert (network.name, network.unet.conv.layers["0"].in_channels) == ("unet", 12)
    for name, value in network.unet.state_dict().items():
        assert torch.equal(value, reference.state_dict()[name])


def test_unet_of_other_channels_or_with_a_part_missing_is_refused(tmp_path):
    state = Unet(2, 2, 4, 2).state_dict()
    torch.save(state, tmp_path / "two.pt")
    with pytest.raises(ValueError, match=r"not a whole U-Net's: .*layers.0.weight has the shape"):
        load_network(tmp_path / "two.pt")
    state = Unet(1, 1, 4, 2).state_dict()
    del state["conv.layers.4.weight"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(ValueError, match=r"not a whole U-Net's: unet.conv.layers.4.weight is miss"):
        load_network(tmp_path / "part.pt")


def test_files_of_one_name_lie_in_a_folder_for_each_network(project):
    names = {"unet": "fastmri-unet-brain", "varnet": "fastmri-brain"}
    file = "brain_leaderboard_state_dict.pt"
    for network, name in names.items():
        path = project / "outputs/weights" / network / file
        path.parent.mkdir(parents=True)
        path.touch()
        assert find_weights(name) == path
    earlier = project / "outputs/weights" / file  # where earlier versions have put VarNet's
    earlier.touch()
    assert find_weights(names["varnet"]) == earlier
    assert find_weights(names["unet"]) == project / "outputs/weights/unet" / file


# ---- as a network like any other ---------------------------------------------------------


@pytest.mark.parametrize("model", ["brain", "knee_singlecoil"])
def test_trains_and_reconstructs(model, study, single, project):
    root = study if model == "brain" else single
    choices = {**SMALL, "pools": 2, "name": "u", "epochs": 2, "ema": 0.9}
    job = training_job(root, synthetic=False, model=model, network="unet", **choices)
    run = prepare_run(job, resume=True)
    fit(job, run.folder)
    assert run.finished
    network = workbench.load_model("outputs/u")
    assert (network.name, network.unet.conv.layers["0"].out_channels) == ("unet", 16)
    found = made(plan_reconstruction(run="u"))
    assert found.labels["reconstruction"] == "U-Net"
    # The network sees the image as it is cropped, here as in training.
    sample = datasets(job, open_cache(root))[1][0]
    single_coil = len(sample.masked_kspace) == 1
    assert single_coil == (model != "brain")
    with torch.inference_mode():
        kspace = torch.view_as_complex(sample.masked_kspace).numpy()
        expected, *_ = of_fastmri(network.unet, kspace, sample.crop_size)
    image = workbench.reconstruct(network, sample)
    np.testing.assert_allclose(image, expected, rtol=0, atol=1e-5 * float(expected.max()))
    with pytest.raises(ValueError, match=r"uncertainty=8: U-Net forms no images of single coils"):
        plan_reconstruction(run="u", uncertainty=8)


def test_form_shows_the_recipe_beside_the_phantoms_own(study):
    values = {name: each.default for name, each in TrainPage.fields.items()}
    asked = TrainPage.of(values | {"network": "unet", "local_dataset": str(study), "lr_step": 7})
    recipe = {"optimizer": "rmsprop", "lr": 1e-3, "chans": 16}
    assert asked.usual() == {"epochs": 8, **recipe}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"crop_readout": True}, "crop_readout=True: U-Net cannot: it sees the cropped image"),
        ({"low_memory": "True"}, "low_memory=True: U-Net cannot: .*give auto or False"),
        ({"first_estimate": "sense"}, "first_estimate=sense: U-Net cannot: it has no image"),
        ({"cascades": 3}, "cascades: no such parameter"),
        ({"pools": 0}, "pools=0: give a whole number, 1 or more"),
    ],
    ids=str,
)
def test_what_it_cannot_do_is_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        training_job("d", synthetic=False, model="brain", network="unet", **choices)


def test_bfloat16_and_compiling_run_the_same_network(study):
    _, ours = pair()
    kspace, mask = measured((3, 64, 48))
    given = torch.view_as_real(torch.from_numpy(kspace))[None], mask, None, (40, 40)
    with torch.inference_mode():
        plain = ours.central_image(*given)
        ours.bf16 = True
        rounded = ours.central_image(*given)
        ours.bf16 = False
        compile_unets(ours, backend="eager")
        compiled = ours.central_image(*given)
    assert rounded.dtype == torch.float32
    assert 1e-6 < float((rounded - plain).norm() / plain.norm()) < 0.05
    torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-4 * float(plain.max()))
    job = training_job(study, synthetic=False, model="brain", network="unet", **SMALL)
    assert kept_bytes(job, (4, 64, 48), (40, 40)) < kept_bytes(job, (4, 64, 48))


def test_one_seed_gives_fastmris_weights():
    torch.manual_seed(3)
    reference = Unet(1, 1, 4, 3).state_dict()
    torch.manual_seed(3)
    ours = UNet(1, 1, 4, 3).state_dict()
    assert list(ours) == list(reference)
    assert all(torch.equal(ours[name], reference[name]) for name in ours)
