"""What a run is made of: slices from loader processes, and an epoch of training and validation."""

import statistics
import time
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastmri import evaluate
from fastmri.data.transforms import VarNetSample
from fastmri.losses import SSIMLoss
from fastmri.models import VarNet as Reference
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.pairs import Pair, require, returned
from benchmarks.reading import quiet_cache
from benchmarks.sizes import Size
from benchmarks.study import FOLDER, SAMPLING, Study, reference_dataset, require_same
from workbench.data.images import cropped
from workbench.data.slices import SliceDataset, collate
from workbench.models import VarNet
from workbench.recon.scoring import score_slice
from workbench.recon.ssim import ssim_loss
from workbench_demo.phantom.study import write_study

_PROCESSES = 2
_SLICES = 24
_SSIM = SSIMLoss()
_NETWORK = {"num_cascades": 4, "chans": 8, "sens_chans": 4}  # as the demo trains


def feed_pair(size: Size, study: Study) -> Pair:
    """Return the pair of what loader processes deliver: beside it stands what a GPU takes."""
    ours = SliceDataset(quiet_cache(study.few), SAMPLING)
    reference = reference_dataset(study.few / FOLDER)
    again = [number % len(ours) for number in range(_PROCESSES + _SLICES)]
    shape = "x".join(map(str, ours.volumes[0].kspace.shape[1:]))

    def milliseconds_a_slice(dataset: Dataset, how: Any) -> float:
        loader = DataLoader(dataset, 1, sampler=again, num_workers=_PROCESSES, collate_fn=how)
        batches = iter(loader)
        for _ in range(_PROCESSES):  # they take a while to begin
            next(batches)
        began = time.perf_counter()
        for _ in batches:
            pass
        return 1000 * (time.perf_counter() - began) / _SLICES

    return Pair(
        "feed/local",
        f"deliver a slice {shape} by {_PROCESSES} loader processes, from the local disk, warm",
        partial(milliseconds_a_slice, reference, None),
        partial(milliseconds_a_slice, ours, collate),
        lambda: require_same("feed/local", ours[1], reference[1]),
        size.repeats,
        figure=returned,
    )


class _Epoch:
    """An epoch of training and validation on a phantom, in one process.

    fastMRI's own Lightning module asks for an older Lightning: this runs the steps that it runs.
    """

    def __init__(self, root: Path, *, reference: bool) -> None:
        torch.manual_seed(0)
        begin = Reference(**_NETWORK)
        self._begin, self._reference = deepcopy(begin.state_dict()), reference
        self.network: nn.Module = begin if reference else VarNet(**_NETWORK)
        if reference:
            parts = [reference_dataset(root / f"multicoil_{split}") for split in ("train", "val")]
        else:
            cache = quiet_cache(root)
            parts = [SliceDataset(cache.split(split), SAMPLING) for split in ("train", "val")]
        how = None if reference else collate
        self.train, self.val = (DataLoader(part, 1, collate_fn=how) for part in parts)

    def __call__(self) -> tuple[float, float]:
        """Return the mean training loss and the mean SSIM of the validation slices."""
        self.network.load_state_dict(self._begin)
        fused = None if self._reference else True
        optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=fused)
        losses = []
        for batch in self.train:
            optimizer.zero_grad()
            image, target = self._reconstruct(batch)
            span = batch.max_value.float()
            if self._reference:
                loss = _SSIM(image[:, None], target[:, None], data_range=span)
            else:
                loss = ssim_loss(image, target, span)
            loss.backward()
            optimizer.step()
            losses.append(float(loss.detach()))
        with torch.no_grad():
            scores = [self._score(batch) for batch in self.val]
        return statistics.mean(losses), statistics.mean(scores)

    def _reconstruct(self, batch: VarNetSample) -> tuple[Tensor, Tensor]:
        image = self.network(batch.masked_kspace, batch.mask, batch.num_low_frequencies)
        image, target = cropped(image, batch.target)
        return image, target

    def _score(self, batch: VarNetSample) -> float:
        [image], [target] = self._reconstruct(batch)
        span = float(batch.max_value)
        if not self._reference:
            return score_slice(image, target, batch.fname[0], 0, span).parts["ssim"]
        truth, guess = target.numpy(), image.numpy()
        evaluate.mse(truth, guess)
        evaluate.mse(truth, np.zeros_like(truth))
        return float(evaluate.ssim(truth[None], guess[None], maxval=span).item())


def epoch_pair(size: Size, folder: Path) -> Pair:
    """Return the pair of an epoch of the demo's network on a small brain."""
    recon = min(size.recon, 160)
    root = folder / "study" / f"epoch{recon}"
    write_study(
        root,
        "brain_multicoil",
        volumes={"train": 2, "val": 1},
        recon=recon,
        slices=2,
        coils=(4, 8),
        workers=1,
    )
    reference, ours = _Epoch(root, reference=True), _Epoch(root, reference=False)

    def check() -> None:
        # Adam turns rounding into steps: in float32 two trainings drift apart, exact as each is.
        for what, one, other in zip(("loss", "SSIM"), reference(), ours(), strict=True):
            require(f"epoch/demo, {what}", abs(one - other), 2e-2)

    slices = len(ours.train), len(ours.val)
    return Pair(
        "epoch/demo",
        f"train {slices[0]} slices and validate {slices[1]} of a brain of {recon}x{recon}, "
        f"{_NETWORK['num_cascades']} cascades",
        reference,
        ours,
        check,
        size.repeats,
    )
