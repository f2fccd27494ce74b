"""The VarNet against fastMRI's own, on the same weights and inputs."""

import fastmri
import numpy as np
import pytest
import torch
from fastmri.data.transforms import batched_mask_center
from fastmri.models import VarNet as Reference
from torch._dynamo.utils import counters

from benchmarks.networks import rounding
from workbench.compute.jobs import training_job
from workbench.data.sampling import acs_count
from workbench.models import VarNet, build
from workbench.models.operator import center_columns
from workbench.recon.speed import compile_unets, kept_bytes, saves_memory
from workbench_kernels import compiled
from workbench_kernels import functions as kernels

SMALL = {"num_cascades": 3, "sens_chans": 3, "sens_pools": 2, "chans": 4, "pools": 2}


def pair(seed=0, **sizes):
    torch.manual_seed(seed)
    reference = Reference(**{**SMALL, **sizes})
    for cascade in reference.cascades:  # λ = 1 everywhere would hide a wrong recursion
        torch.nn.init.uniform_(cascade.dc_weight, 0.3, 1.7)
    ours = VarNet(**{**SMALL, **sizes})
    ours.load_state_dict(reference.state_dict(), strict=True)
    return reference, ours


def measurement(batch, coils, height, width, seed=0, acs=6, two_dimensional=False):
    generator = torch.Generator().manual_seed(seed)
    kspace = torch.randn(batch, coils, height, width, 2, generator=generator)
    rows = height if two_dimensional else 1
    mask = torch.rand(batch, 1, rows, width, 1, generator=generator) < 0.4
    middle = width // 2
    mask[:, :, :, middle - acs // 2 : middle + acs // 2] = True
    return kspace * mask, mask


def both(reference, ours, kspace, mask, low):
    results = []
    for network in (reference, ours):
        network.zero_grad()
        image = network(kspace.clone(), mask, low)
        (image * torch.linspace(0.5, 2, image.shape[-1], dtype=image.dtype)).sum().backward()
        gradient = torch.cat([p.grad.flatten() for p in network.parameters()])
        results.append((image.detach(), gradient))
    return results


def distance(first, second):
    return float(((first - second).norm() / second.norm()).detach())


@pytest.mark.parametrize(
    ("shape", "sizes", "low"),
    [
        ((1, 4, 64, 48), {}, 6),
        ((2, 3, 48, 64), {}, 6),
        ((1, 5, 51, 37), {}, 6),
        ((2, 2, 40, 53), {}, 6),
        ((1, 3, 32, 32), {"num_cascades": 1}, None),
        ((1, 3, 32, 32), {"num_cascades": 2}, None),
        ((2, 3, 32, 48), {"mask_center": False}, 6),
    ],
    ids=["even", "two masks", "odd sizes", "odd width", "1 cascade", "2 cascades", "2-D mask"],
)
@pytest.mark.parametrize("way", ["kernels", "torch alone", "a coil at a time"])
def test_equals_fastmri_in_output_and_gradient(shape, sizes, low, way, monkeypatch):
    if way == "torch alone":
        monkeypatch.setattr("workbench_kernels.functions.kernels", lambda _: None)
    if way == "a coil at a time":  # as slices of real size are worked on
        monkeypatch.setattr("workbench.models.operator._PART", 1)
        monkeypatch.setattr("workbench.models.unrolled._ACTIVATION", 1)
    reference, ours = pair(**sizes)
    kspace, mask = measurement(*shape, two_dimensional="mask_center" in sizes)
    expected, found = both(reference.double(), ours.double(), kspace.double(), mask, low)
    assert distance(found[0], expected[0]) < 1e-10
    assert distance(found[1], expected[1]) < 1e-10


def test_low_memory_keeps_less_and_gives_the_same_image_and_gradient():
    ours = pair()[1].double()
    kspace, mask = measurement(2, 3, 51, 37)
    kspace = kspace.double()
    results, kept = [], []
    for low_memory in (False, True):
        ours.low_memory = low_memory
        kept.append([])
        with torch.autograd.graph.saved_tensors_hooks(kept[-1].append, lambda _: None):
            ours(kspace, mask, 6)
        results.append(both(ours, ours, kspace, mask, 6)[0])
    assert distance(results[1][0], results[0][0]) < 1e-10
    assert distance(results[1][1], results[0][1]) < 1e-10
    assert len(kept[1]) < len(kept[0]) / 2


def test_float32_is_no_further_from_float64_than_twice_fastmri():
    (image, gradient), (our_image, our_gradient) = rounding(pair(), (4, 64, 48))
    assert our_image < 2 * image < 1e-5
    assert our_gradient < 2 * gradient < 1e-4


def test_one_seed_gives_both_networks_the_same_weights():
    torch.manual_seed(3)
    reference = Reference(**SMALL).state_dict()
    torch.manual_seed(3)
    ours = VarNet(**SMALL).state_dict()
    assert list(ours) == list(reference)
    assert all(torch.equal(ours[name], reference[name]) for name in reference)


def test_default_network_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in VarNet().parameters()) == sum(
        p.numel() for p in Reference().parameters()
    )


@pytest.mark.parametrize("low", [None, 0, 5, 6], ids=str)
@pytest.mark.parametrize("width", [32, 33])
def test_center_columns_are_fastmris(low, width):
    _, mask = measurement(3, 1, 1, width)
    reference = Reference(**SMALL).sens_net
    pad, count = reference.get_pad_and_num_low_freqs(mask, low)
    ones = torch.ones(3, 1, 1, width, 2)
    expected = batched_mask_center(ones, pad, pad + count)[..., 0].bool()
    assert torch.equal(center_columns(mask[..., 0], low), expected)


@pytest.mark.parametrize("width", [32, 33])
@pytest.mark.parametrize(("first", "last"), [(0, 40), (0, 20), (11, 40), (10, 21), (20, 30)])
def test_centre_of_a_mask_with_a_whole_side_is_found(width, first, last):
    """Full masks, and those of partial Fourier, of which fastMRI takes one column."""
    columns = np.arange(width)
    mask = (columns >= first) & (columns < last)
    found = center_columns(torch.from_numpy(mask)[None, None, None], None).flatten().numpy()
    reach = max(0, min(16 - first, min(last, width) - 16))
    assert found.sum() == max(1, 2 * reach)
    assert mask[found].all() or width % 2 or not reach
    assert acs_count(mask) == 2 * reach


@pytest.mark.parametrize("empty", ["one coil", "every coil"])
def test_zero_coils_give_finite_output_and_gradient(empty):
    _, ours = pair()
    kspace, mask = measurement(1, 3, 32, 32)
    kspace[:, 1 if empty == "one coil" else slice(None)] = 0
    image = ours(kspace, mask, 6)
    image.sum().backward()
    assert torch.isfinite(image).all()
    assert all(torch.isfinite(p.grad).all() for p in ours.parameters() if p.grad is not None)
    if empty == "every coil":
        assert not image.any()


def test_fully_sampled_kspace_with_no_cascade_is_the_rss():
    ours = VarNet(num_cascades=0, sens_chans=2, sens_pools=1)
    kspace, mask = measurement(1, 3, 32, 32)
    expected = fastmri.rss_complex(fastmri.ifft2c(kspace), dim=1)
    torch.testing.assert_close(ours(kspace, mask, 6), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own, as it looks at a tensor
def test_compiled_unets_give_the_same_and_few_graphs_serve_every_width_and_coil_count():
    _, ours = pair(num_cascades=2, chans=2, sens_chans=2)
    widths, coils = range(32, 62, 5), (2, 4, 5, 8, 10, 12, 16, 20)
    kspace, mask = measurement(1, 2, 48, 36)
    torch._dynamo.reset()
    counters.clear()
    expected = both(ours, ours, kspace, mask, 6)[0]
    compile_unets(ours, backend="eager")
    found = both(ours, ours, kspace, mask, 6)[0]
    assert distance(found[0], expected[0]) < 1e-4
    assert distance(found[1], expected[1]) < 1e-3
    for number, width in enumerate(widths):
        for count in (coils[number % 8], coils[number * 3 % 8]):
            kspace, mask = measurement(1, count, 48, width)
            ours(kspace, mask, 6)
            with torch.no_grad():
                ours(kspace, mask, 6)
    assert 0 < counters["stats"]["unique_graphs"] < 5
    assert not counters["graph_break"]
    torch._dynamo.reset()


def test_cropped_readout_leaves_the_rows_that_are_wanted_where_they_were():
    ours = VarNet(num_cascades=0, sens_chans=2, sens_pools=1)
    kspace, mask = measurement(1, 3, 101, 32)
    whole = ours(kspace, mask, 6)
    ours.crop_readout = True
    cropped = ours(kspace, mask, 6, rows=40)
    margin = VarNet.readout_margin
    assert cropped.shape == (1, 40 + 2 * margin, 32)
    first = (101 - 40) // 2
    expected = whole[:, first : first + 40]
    found = cropped[:, margin : margin + 40]
    torch.testing.assert_close(found, expected)
    assert torch.equal(ours(kspace, mask, 6), whole)
    assert torch.equal(ours(kspace, mask, 6, rows=101), whole)


def test_readout_is_not_cropped_under_a_mask_that_varies_along_it():
    _, ours = pair(mask_center=False)
    ours.crop_readout = True
    kspace, mask = measurement(1, 3, 32, 48, two_dimensional=True)
    with pytest.raises(ValueError, match="varies along the readout"):
        ours(kspace, mask, 6, rows=16)


@pytest.mark.parametrize("by", ["kernels", "torch"])
def test_bf16_changes_the_convolutions_alone(by, monkeypatch):
    if by == "torch":
        monkeypatch.setattr(kernels, "fit", lambda image: False)
    elif (found := compiled.kernels(torch.float32)) is None or not found.tiles:
        pytest.skip("this processor multiplies no tiles (AMX)")
    _, ours = pair()
    kspace, mask = measurement(1, 3, 48, 32)
    exact = ours(kspace, mask, 6)
    ours.bf16 = True
    seen = []
    for module in ours.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    image = ours(kspace, mask, 6)
    image.sum().backward()
    assert set(seen) == ({torch.bfloat16} if by == "torch" else set())
    assert image.dtype == torch.float32
    assert all(p.grad.dtype == torch.float32 for p in ours.parameters())
    assert 1e-6 < distance(image.detach(), exact.detach()) < 0.3
    kept = torch.cat([p.grad.flatten() for p in ours.parameters()])
    ours.zero_grad()
    ours.low_memory = True
    ours(kspace, mask, 6).sum().backward()
    again = torch.cat([p.grad.flatten() for p in ours.parameters()])
    assert distance(again, kept) < 1e-2  # without bfloat16 it is 0.4


def test_low_memory_is_chosen_where_activations_would_not_fit(tmp_path):
    job = training_job(tmp_path, synthetic=True, model="brain")
    kept = kept_bytes(job, (4, 64, 48))
    assert kept_bytes(job, (8, 64, 48)) > kept
    assert not saves_memory(job, (4, 64, 48), 100 * kept)
    assert saves_memory(job, (4, 64, 48), kept)
    never = training_job(tmp_path, synthetic=True, model="brain", low_memory=False)
    assert not saves_memory(never, (4, 64, 48), kept)


def test_average_of_the_weights_counts_as_memory(tmp_path):
    shape = (2, 32, 32)
    jobs = {
        ema: training_job(tmp_path, synthetic=True, model="brain", ema=ema) for ema in (0, 0.999)
    }
    count = sum(each.numel() for each in build("varnet", jobs[0].config).parameters())
    memory = round((1.25 * kept_bytes(jobs[0], shape) + 18 * count) / 0.8)
    assert [saves_memory(job, shape, memory) for job in jobs.values()] == [False, True]
