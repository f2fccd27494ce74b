"""PromptMR equals its k-space form and the authors' network; its data are several slices."""

import importlib.util
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastmri import fft2c, ifft2c, rss_complex
from fastmri.data.transforms import batched_mask_center
from torch._dynamo.utils import counters

import workbench
from tests.recon.conftest import made, make_volume
from tests.recon.test_network import distance
from tests.recon.test_network import measurement as measured
from workbench.compute.jobs import training_job
from workbench.compute.runs import prepare_run
from workbench.data.cache import build_cache
from workbench.data.images import zero_filled
from workbench.data.sampling import Sampling
from workbench.data.slices import SliceDataset, collate
from workbench.models import NETWORKS, build
from workbench.models.promptmr import PROMPTMR, PromptMRConfig
from workbench.models.promptmr.network import PromptMR, UpBlock
from workbench.recon.reconstruction_plan import plan_reconstruction
from workbench.recon.run import datasets, fit
from workbench.recon.speed import compile_unets, kept_bytes
from workbench.recon.training import Training
from workbench.recon.weights import load_network
from workbench.views.uncertainty import uncertainty_figures

TOY = {"cascades": 3, "neighbours": 3, "chans": 4, "sens_chans": 4}
UPSTREAM = "PROMPTMR_UPSTREAM"  # path of a checkout of the authors' repository


def network(seed=0, **sizes):
    torch.manual_seed(seed)
    made = PromptMR(**{**TOY, **sizes}).double()
    for cascade in made.cascades:  # λ = 1 everywhere would hide a wrong recursion
        torch.nn.init.uniform_(cascade.dc_weight, 0.3, 1.7)
    return made


def measurement(batch, coils, height, width, slices=3):
    kspace, mask = measured(batch, slices * coils, height, width)
    return kspace.double(), mask


def to_kspace(images):
    return torch.view_as_complex(fft2c(torch.view_as_real(images.contiguous())))


def to_images(kspace):
    return torch.view_as_complex(ifft2c(torch.view_as_real(kspace.contiguous())))


def kspace_form(net, masked_kspace, mask, low):
    """The network as the paper has it: multi-coil k-space of all slices, one step after another."""
    slices, batch = net.neighbours, len(masked_kspace)
    first = (mask.shape[-2] - low + 1) // 2
    centre = batched_mask_center(masked_kspace, torch.tensor([first]), torch.tensor([first + low]))
    maps = net.sens_net.norm_unet(to_images(torch.view_as_complex(centre)).flatten(0, 1))
    maps = maps.view(batch, slices, -1, *maps.shape[-2:])
    maps = maps / maps.abs().square().sum(2, keepdim=True).sqrt()
    measured = torch.view_as_complex(masked_kspace).view(maps.shape)
    sampled = mask[..., 0][:, None]
    kspace = measured
    for cascade in net.cascades:
        combined = (maps.conj() * to_images(kspace)).sum(2)
        refined = to_kspace(maps * cascade.model(combined)[:, :, None])
        kspace = kspace - sampled * (kspace - measured) * cascade.dc_weight - refined
    return rss_complex(torch.view_as_real(to_images(kspace[:, slices // 2])), dim=1)


def image_and_gradient(forward, net, *inputs):
    net.zero_grad()
    image = forward(*inputs)
    (image * torch.linspace(0.5, 2, image.shape[-1], dtype=image.dtype)).sum().backward()
    gradients = [p.grad.flatten() for p in net.parameters() if p.requires_grad]
    return image.detach(), torch.cat(gradients)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((1, 3, 40, 32), {}),
        ((2, 2, 37, 45), {}),
        ((2, 3, 32, 24), {"neighbours": 1, "attention": True}),
        ((1, 2, 32, 24), {"neighbours": 5, "cascades": 2}),
    ],
    ids=["one", "two masks, odd sizes", "attention, one slice", "five slices"],
)
def test_equals_the_kspace_form_in_output_and_gradient(shape, sizes):
    net = network(**sizes)
    kspace, mask = measurement(*shape, slices=net.neighbours)
    expected = image_and_gradient(lambda *given: kspace_form(net, *given), net, kspace, mask, 6)
    for low_memory in (False, True):
        net.low_memory = low_memory
        found = image_and_gradient(net, net, kspace, mask, 6)
        assert distance(found[0], expected[0]) < 1e-10
        assert distance(found[1], expected[1]) < 1e-10


def test_mixing_channels_before_doubling_changes_nothing():
    torch.manual_seed(0)
    block = UpBlock(6, 4, 2, 2, attention=False).double()
    image, prompt, skip = (
        torch.randn(2, *shape).double() for shape in ((6, 8, 5), (2, 8, 5), (4, 16, 10))
    )
    fused = block.reduce(block.fuse(torch.cat([image, prompt], 1)))
    doubled = F.interpolate(fused, scale_factor=2, mode="bilinear", align_corners=False)
    expected = block.ca(block.up["1"](doubled) + skip)
    assert distance(block(image, prompt, skip), expected) < 1e-12


def test_middle_slice_is_reconstructed_and_its_neighbours_are_seen():
    net = network().eval()
    kspace, mask = measurement(1, 2, 32, 24)
    before, own, after = kspace.chunk(3, dim=1)
    image = net(kspace, mask, 6)
    coils = net.coil_images(kspace, mask, 6)
    assert coils.shape == (1, 2, 32, 24)
    assert distance(rss_complex(torch.view_as_real(coils), dim=1), image) < 1e-12
    assert distance(net(torch.cat([after, own, after], 1), mask, 6), image) > 1e-3
    # Without a cascade there is nothing but the slice's own zero-filled image.
    bare = PromptMR(**{**TOY, "cascades": 0}).double()
    torch.testing.assert_close(bare(kspace, mask, 6), rss_complex(ifft2c(own), dim=1))
    with pytest.raises(ValueError, match="has 4 coils, and the network sees 3 slices"):
        net(torch.cat([before, own], 1), mask, 6)


def test_maps_of_slices_seen_before_are_kept_and_change_nothing():
    net = network().eval()
    kspace, mask = measurement(1, 2, 32, 24, slices=5)
    slices = kspace.chunk(5, dim=1)
    stacks = [torch.cat(slices[first : first + 3], 1) for first in range(3)]
    estimated = []
    net.sens_net.register_forward_hook(lambda *_: estimated.append(1))
    with torch.no_grad():
        found = [net(stack, mask, 6) for stack in stacks]
        assert len(estimated) == 5
        for stack, image in zip(stacks, found, strict=True):
            assert torch.equal(network().eval()(stack, mask, 6), image)
        net(stacks[2], mask, 6)
        assert len(estimated) == 5
        for change in (
            lambda: net.sens_net.norm_unet.unet.conv_last.weight.mul_(1.5),
            lambda: net.train().eval(),
            lambda: net.load_state_dict(network(seed=1).state_dict()),
        ):
            change()
            before = len(estimated)
            image = net(stacks[2], mask, 6)
            assert len(estimated) == before + 3
            fresh = network().eval()
            fresh.load_state_dict(net.state_dict())
            assert torch.equal(fresh(stacks[2], mask, 6), image)
        before = len(estimated)
        net(stacks[2], mask, 4)
        assert len(estimated) == before + 3
    net(stacks[2], mask, 6).sum().backward()  # a gradient is never of maps that were kept
    assert all(p.grad is not None for p in net.sens_net.parameters() if p.requires_grad)


def test_empty_slices_give_a_finite_image_and_gradient():
    net = network()
    kspace, mask = measurement(1, 2, 32, 24)
    kspace[:, 4:] = 0
    net(kspace, mask, 6).sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in net.parameters())
    assert not net(kspace * 0, mask, 6).any()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, as it looks at a tensor
def test_compiled_unets_give_the_same():
    net = network(cascades=0).float()  # that of the maps: those of cascades are like it
    images = torch.view_as_complex(measurement(1, 2, 32, 24)[0].float())[0]
    torch._dynamo.reset()
    counters.clear()
    expected = net.sens_net.norm_unet(images)
    compile_unets(net, backend="eager")
    assert distance(net.sens_net.norm_unet(images), expected) < 1e-4
    assert counters["stats"]["unique_graphs"] > 0
    torch._dynamo.reset()


def test_full_network_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net = build("promptmr", PromptMRConfig())
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(79.6, abs=0.1)


def test_weights_say_which_network_and_of_which_numbers(tmp_path):
    config = PromptMRConfig(**{**TOY, "cascades": 1, "neighbours": 5, "attention": True})
    net = build("promptmr", config)
    state = {f"promptmr.{name}": value for name, value in net.state_dict().items()}
    torch.save({"state_dict": {**state, "loss.w": torch.ones(1, 1, 7, 7)}}, tmp_path / "w.ckpt")
    loaded = load_network(tmp_path / "w.ckpt")
    assert (loaded.name, loaded.neighbours) == ("promptmr", config.neighbours)
    assert PROMPTMR.config_of(loaded.state_dict()) == config
    assert all(torch.equal(v, net.state_dict()[n]) for n, v in loaded.state_dict().items())


def test_numbers_outside_what_is_allowed_are_refused():
    for wrong, message in (
        ({"neighbours": 2}, "neighbours=2: give an odd number of slices, 1 or more"),
        ({"chans": 7}, "chans=7: give an even number"),
        ({"sens_chans": 2}, "sens_chans=2: give a whole number, 4 or more"),
        ({"cascades": 0}, "cascades=0: give a whole number, 1 or more"),
        ({"attention": 1}, "attention=1: give True or False"),
    ):
        with pytest.raises(ValueError, match=message):
            PromptMRConfig(**wrong)


# ---- beside the authors' code -------------------------------------------------------------


@pytest.mark.skipif(UPSTREAM not in os.environ, reason=f"{UPSTREAM} names no checkout of PromptMR")
@pytest.mark.parametrize("sizes", [{}, {"neighbours": 5, "attention": True}], ids=str)
def test_equals_the_authors_network_in_output_and_gradient(sizes):
    path = Path(os.environ[UPSTREAM]) / "models/promptmr.py"
    spec = importlib.util.spec_from_file_location("promptmr_upstream", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    net = network(**sizes)
    torch.manual_seed(1)
    reference = module.PromptMR(
        num_cascades=len(net.cascades), num_adj_slices=net.neighbours,
        n_feat0=4, feature_dim=[6, 8, 10], prompt_dim=[2, 4, 6],
        sens_n_feat0=4, sens_feature_dim=[6, 8, 10], sens_prompt_dim=[2, 4, 6],
        no_use_ca="attention" not in sizes,
    )  # fmt: skip
    torch.manual_seed(1)
    same = PromptMR(**{**TOY, **sizes}).state_dict()
    assert all(torch.equal(same[name], value) for name, value in reference.state_dict().items())
    reference = reference.double()
    reference.load_state_dict(net.state_dict(), strict=True)
    kspace, mask = measurement(1, 3, 45, 37, slices=net.neighbours)
    expected = image_and_gradient(reference, reference, kspace, mask, 6)
    found = image_and_gradient(net, net, kspace, mask, 6)
    assert distance(found[0], expected[0]) < 1e-10
    theirs = {n: p.grad for n, p in reference.named_parameters() if p.grad is not None}
    shared = 0.0  # they share one slope among most blocks: its gradient is the sum of ours
    for name, parameter in net.named_parameters():
        if name.endswith("body.1.weight") and "enc_level1.encoder.0" not in name:
            shared = shared + parameter.grad
        elif parameter.requires_grad:
            torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-9, atol=1e-9)
    of_slopes = [n for n in theirs if n.endswith("body.1.weight")]
    (slope,) = (theirs[n] for n in of_slopes if "enc_level1.encoder.0" not in n)
    torch.testing.assert_close(shared, slope, rtol=1e-9, atol=1e-9)
    single = net.float()(kspace.float(), mask, 6), reference.float()(kspace.float(), mask, 6)
    assert distance(single[0].double(), expected[0]) < max(
        1e-6, 2 * distance(single[1].double(), expected[0])
    )


# ---- its data -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """A multi-coil and a single-coil dataset."""
    root = tmp_path_factory.mktemp("stacked")
    make_volume(root / "multicoil_val/file1.h5", 1, slices=4)
    make_volume(root / "multicoil_val/file2.h5", 2, slices=2)
    return root


def test_samples_hold_a_slice_between_its_neighbours(stacked):
    cache = build_cache(stacked)
    one = SliceDataset(cache, Sampling())
    three = SliceDataset(cache, Sampling(), neighbours=3)
    for index, (volume, number) in enumerate(three.slices):
        found, own = three[index], one[index]
        last = cache[volume].slices - 1
        around = [max(number - 1, 0), number, min(number + 1, last)]
        expected = [one.slice_of(cache[volume], n).masked_kspace for n in around]
        assert torch.equal(found.masked_kspace, torch.cat(expected))
        assert torch.equal(found.middle, own.masked_kspace)
        assert torch.equal(found.mask, own.mask)
        assert torch.equal(found.target, own.target)
        assert (found.slice_num, found.neighbours, own.neighbours) == (number, 3, 1)
        assert three.values(index) == 3 * one.values(index)


def test_in_order_each_slice_is_read_once_and_training_draws_one_mask_for_all(stacked, monkeypatch):
    cache = build_cache(stacked)
    read = []
    inner = workbench.data.reading.read_slice
    monkeypatch.setattr(
        "workbench.data.reading.read_slice",
        lambda file, name, layout, number, **how: (
            read.append((name, number)) or inner(file, name, layout, number, **how)
        ),
    )
    assert len(list(SliceDataset(cache, Sampling(), neighbours=3))) == 6
    assert [number for name, number in read if name == "kspace"] == [0, 1, 2, 3, 0, 1]
    train = SliceDataset(cache, Sampling("random", 2, 0.2), seed=1, neighbours=3)
    first, again = train[1, 0], train[1, 5]
    assert not torch.equal(first.mask, again.mask)
    assert torch.equal(train[1, 0].masked_kspace, first.masked_kspace)
    for sample in (first, again):
        assert not sample.masked_kspace[..., ~sample.mask.flatten(), :].any()
        assert sample.masked_kspace[:, 20, sample.mask.flatten()].any(-1).all()


def test_what_is_done_to_a_sample_does_not_reach_the_next(stacked):
    data = SliceDataset(build_cache(stacked), Sampling(), neighbours=3)
    expected = [sample.masked_kspace.clone() for sample in data]
    for index, each in enumerate(expected):
        sample = data[index]
        assert torch.equal(sample.masked_kspace, each)
        sample.masked_kspace.zero_()


def test_number_of_neighbours_is_odd(stacked):
    for wrong in (0, 2, -1, 3.0, True):
        with pytest.raises(ValueError, match="give an odd number of slices, 1 or more"):
            SliceDataset(build_cache(stacked), Sampling(), neighbours=wrong)


def test_arrays_are_stacked_and_one_slice_alone_is_refused(stacked):
    net = network().float().eval()
    cache = build_cache(stacked)
    data = SliceDataset(cache, Sampling(), neighbours=3)
    volume = cache[0]
    full = np.stack([cache.read(volume, number)[0] for number in range(volume.slices)])
    mask = data[0].mask.numpy().ravel()
    images = workbench.reconstruct(
        net, full, mask, crop=volume.recon[:2], num_low_frequencies=data[0].num_low_frequencies
    )
    for number in range(volume.slices):
        expected = workbench.reconstruct(net, data[number])
        np.testing.assert_allclose(images[number], expected, rtol=1e-5, atol=1e-12)
    with pytest.raises(ValueError, match="is one slice, and the model sees 3 adjacent ones"):
        workbench.reconstruct(net, full[0], mask)
    with pytest.raises(ValueError, match=r"a sample of 1 slice\(s\), and the model sees 3"):
        workbench.reconstruct(net, SliceDataset(cache, Sampling())[0])
    other = build("varnet", NETWORKS["varnet"].config(1, 2, 1, 2, 1)).eval()
    with pytest.raises(ValueError, match=r"a sample of 3 slice\(s\), and the model sees 1"):
        workbench.reconstruct(other, data[0])


def test_what_a_step_keeps_is_counted_of_all_slices(stacked):
    one, three = (
        training_job(
            stacked, synthetic=True, model="brain", network="promptmr",
            network_options={"cascades": 2, "neighbours": n, "chans": 4, "sens_chans": 4},
        )
        for n in (1, 3)
    )  # fmt: skip
    assert kept_bytes(three, (3, 48, 32)) > 1.5 * kept_bytes(one, (3, 48, 32))


# ---- its way through the workbench ----------------------------------------------------------


def test_trains_resumes_and_reconstructs(study, tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_ROOT", str(tmp_path))
    options = {"cascades": 1, "chans": 4, "sens_chans": 4}

    def job(name, epochs):
        return training_job(
            study, synthetic=False, model="brain", name=name, network="promptmr", epochs=epochs,
            sample_rate=0.4, **options,
        )  # fmt: skip

    whole = prepare_run(job("whole", 2), resume=True)
    fit(whole.job, whole.folder)
    parts = prepare_run(job("parts", 1), resume=True)
    fit(parts.job, parts.folder)
    fit(job("parts", 2), parts.folder)
    states = [load_network(run.last).state_dict() for run in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    plan = plan_reconstruction(run="whole")
    found = made(plan)
    assert {each.network for each in found} == {"promptmr"}
    assert found.labels["reconstruction"] == "PromptMR"
    result = found[0]
    model = workbench.load_model(whole.best)
    assert asdict(PROMPTMR.config_of(model.state_dict())) == {
        **options, "neighbours": 3, "attention": False,
    }  # fmt: skip
    data = SliceDataset(
        build_cache(study).split("val").with_volumes([result.volume]), Sampling(), neighbours=3
    )
    np.testing.assert_allclose(
        workbench.reconstruct(model, data[1]), result.images()[1], rtol=1e-5, atol=1e-12
    )
    own = torch.view_as_complex(data[1].middle).numpy()
    np.testing.assert_array_equal(
        result.zero_fill(result.measured(1)[0]), zero_filled(own, result.volume.recon[:2])
    )
    assert len(list(uncertainty_figures(found, 3))) >= 1


def test_learns_from_stacks_without_targets_and_augmented(study):
    job = training_job(
        study, synthetic=False, model="brain", network="promptmr", learning="self-supervised",
        augment="flips", cascades=1, chans=4, sens_chans=4,
    )  # fmt: skip
    module = Training(job)
    train, _ = datasets(job, build_cache(study), module.network.neighbours)
    loss = module.training_step(collate([train[0, job.epochs], train[1, job.epochs]]), 0)
    loss.backward()
    assert torch.isfinite(loss)
    assert module.network.cascades[0].model.unet.conv_last.weight.grad.any()
