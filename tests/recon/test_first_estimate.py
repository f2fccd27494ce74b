"""What an unrolled network begins with: alike in training and after it, whatever is around it."""

import json
import re
from dataclasses import asdict

import pytest
import torch

from tests.recon.test_classical import slice_of
from tests.recon.test_training import small_job
from workbench.compute.jobs import TrainingJob, training_job
from workbench.compute.start import Start
from workbench.models import build, find_network, first_estimate
from workbench.models.operator import central_rows, inverse
from workbench.models.reconstructor import Reconstructor
from workbench.recon.weights import load_network, untrained


class Filled(Reconstructor):
    """Returns the zero-filled coil images, and checks that each slice came with its own mask."""

    def coil_images(self, masked_kspace, mask, num_low_frequencies=None, rows=None):
        """Return what ``Reconstructor`` says."""
        kspace = torch.view_as_complex(masked_kspace.contiguous())
        assert len(mask) in (1, len(kspace))
        assert len(num_low_frequencies) in (1, len(kspace))
        assert not kspace[~mask[..., 0].expand(kspace.shape)].any()
        hybrid = inverse(kspace, (-2,))
        if rows is not None:
            hybrid = central_rows(hybrid, rows + 2 * self.readout_margin)
        return inverse(hybrid, (-1,))


class Remembered(Reconstructor):
    """Keeps what a classical reconstruction has returned."""

    def __init__(self, first):
        super().__init__()
        self.first, self.seen = first, []

    def coil_images(self, *given, **named):
        """Return what ``Reconstructor`` says."""
        self.seen.append(self.first.coil_images(*given, **named))
        return self.seen[-1]


def unrolled(network):
    torch.manual_seed(0)
    sizes = {"varnet": {"pools": 2, "sens_pools": 2}, "promptmr": {"neighbours": 3}}[network]
    sizes |= {"cascades": 2, "chans": 4, "sens_chans": 4}
    return build(network, find_network(network).configured(sizes)).eval()


def batch_for(network, *, along_readout=False):
    """Two samples with masks of their own, of as many slices as the network sees."""
    torch.manual_seed(1)
    kspace = torch.randn(2, network.neighbours * 3, 48, 40, 2)
    mask = torch.zeros(2, 1, 48 if along_readout else 1, 40, 1, dtype=torch.bool)
    mask[0, ..., ::3, :] = mask[1, ..., 1::2, :] = True
    if along_readout:
        mask &= torch.rand(mask.shape) < 0.8
    mask[0, ..., 16:24, :] = mask[1, ..., 14:26, :] = True
    return kspace * mask, mask, torch.tensor([8, 12])


@pytest.mark.parametrize("network", ["varnet", "promptmr"])
@pytest.mark.parametrize("how", ["plain", "one mask", "along readout", "cropped", "bf16"])
def test_zero_filled_images_given_as_first_estimate_change_nothing(network, how):
    made = unrolled(network)
    kspace, mask, acs = batch_for(made, along_readout=how == "along readout")
    if how == "one mask":
        kspace, mask, acs = kspace * mask[:1], mask[:1], acs[:1]
    made.crop_readout, made.readout_margin, made.bf16 = how == "cropped", 4, how == "bf16"
    rows = 20 if how == "cropped" else None
    with torch.no_grad():
        expected = made(kspace, mask, acs, rows)
        made.begin_with(Filled())
        torch.testing.assert_close(made(kspace, mask, acs, rows), expected)


@pytest.mark.parametrize("network", ["varnet", "promptmr"])
@pytest.mark.parametrize("method", ["sense", "tv", None])
def test_network_that_has_not_learned_returns_its_first_estimate(network, method):
    made = unrolled(network)
    made.start_at_zero_filled()
    first = untrained(method, {"iterations": 3}) if method else Filled()
    made.begin_with(untrained(method, {"iterations": 3}) if method else None)
    kspace, mask, acs = batch_for(made)
    with torch.no_grad():
        found = made(kspace, mask, acs)
        middle = kspace.unflatten(1, (made.neighbours, -1))[:, made.neighbours // 2]
        estimate = first.coil_images(middle, mask, acs).abs().square().sum(1).sqrt()
    torch.testing.assert_close(found, estimate, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(first(middle, mask, acs), estimate)  # the forward of any of them


def test_first_estimate_is_as_precise_under_autocast():
    made, remembered = unrolled("varnet"), Remembered(untrained("wavelet", {"iterations": 3}))
    made.begin_with(remembered)
    given = batch_for(made)
    with torch.no_grad():
        made(*given)
        with torch.autocast("cpu", torch.bfloat16):
            made(*given)
    plain, under = remembered.seen
    assert torch.equal(plain, under)


@pytest.mark.parametrize("method", ["sense", "wavelet", "tv"])
def test_slice_does_not_depend_on_what_else_is_in_the_batch(method):
    network = untrained(method, {"iterations": 3, "maps": "auto"})
    masked, mask, *_ = slice_of()
    narrow = mask.clone()
    narrow[..., 24 - 5 : 24 + 5, :] = mask[..., :10, :]
    narrow[..., 24 - 2 : 24 + 2, :] = True  # too narrow for ESPIRiT
    each = [(masked, mask, torch.tensor([10])), (masked * narrow, narrow, torch.tensor([4]))]
    both = network.coil_images(*(torch.cat(parts) for parts in zip(*each, strict=True)))
    for found, given in zip(both, each, strict=True):
        torch.testing.assert_close(found, network.coil_images(*given)[0])


def test_network_that_takes_no_first_estimate_refuses_one():
    class Own(Reconstructor):
        def start_at_zero_filled(self):
            """Do nothing."""

    Own().begin_with(None)
    with pytest.raises(ValueError, match="first_estimate: Own begins with no image"):
        Own().begin_with(untrained("sense"))


def test_weights_go_on_with_what_they_learned_with_on_the_phantom_too(study):
    config = asdict(find_network("varnet").configured({"cascades": 2}))
    given = {"asked": "first", "weights_sha256": "0", "network": "varnet", "config": config}

    def estimate(learned_with, **choices):
        start = Start(**given, first_estimate=learned_with)
        job = training_job(study, synthetic=True, model="brain", start_from=start, **choices)
        return job.first_estimate

    assert training_job(study, synthetic=True, model="brain").first_estimate.startswith("tv")
    assert estimate(None) is None
    assert estimate("sense") == "sense"
    assert estimate("sense", first_estimate="wavelet") == "wavelet"


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        (" published", None),
        ("zero-filled ", "zero-filled"),
        ("sense , iterations=20", "sense"),
        ("tv,regularisation=0.002", "tv, regularisation=0.002"),
        ("wavelet, wavelet='db2', iterations=9", "wavelet, iterations=9, wavelet=db2"),
    ],
)
def test_first_estimate_is_written_in_one_way(study, asked, kept):
    job = small_job(study, first_estimate=asked)
    assert job.first_estimate == kept
    again = TrainingJob.from_json(job.model_dump_json())
    assert again.first_estimate == kept
    if kept and kept != "zero-filled":
        assert first_estimate(kept).config == first_estimate(asked).config


@pytest.mark.parametrize(("before", "now"), [(True, "zero-filled"), (False, None)])
def test_job_of_an_earlier_version_begins_as_it_did(study, before, now):
    values = json.loads(small_job(study).model_dump_json())
    values.pop("first_estimate")
    assert TrainingJob.from_json(json.dumps(values | {"zero_start": before})).first_estimate == now


def test_network_without_an_image_may_be_trained_as_published(study):
    asked = {"network": "unet", "first_estimate": "published"}
    assert training_job(study, synthetic=True, model="brain", **asked).first_estimate is None


@pytest.mark.parametrize("begins", [5, "varnet", "tv, weight=2"])
def test_checkpoint_that_begins_with_something_unknown_is_named(tmp_path, begins):
    path, network = tmp_path / "last.ckpt", unrolled("varnet")
    state = {f"network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "job": {"first_estimate": begins}}, path)
    with pytest.raises(ValueError, match=re.escape(f"{path} begins with {begins!r}: ")):
        load_network(path)
