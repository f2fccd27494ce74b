r"""Learning without targets: some sampled lines are kept from the network, and it is judged there.

Self-supervision by data undersampling (SSDU; Yaman et al. 2020, doi:10.1002/mrm.28378) splits the
sampled lines Omega of a slice into Theta, which the network sees, and Lambda, which the loss reads.
Here whole phase-encode lines are split, as whole lines are measured. The ACS lines stay in Theta,
so that the sensitivity maps are estimated as ever. A slice is split anew in each epoch.

Weights (Millard and Chiew 2023, arXiv:2205.10278): a line is sampled with a probability p, and a
sampled one stays in Theta with q. The lines outside Theta are then in Lambda with the probability
p (1 - q) / (1 - p q). Errors on Lambda are weighted by its inverse, so that on average they count
as if each line outside Theta had been measured. Theta's own lines count once: the network has to
agree with what it was shown. p and q are read off the slice's mask: all masks of
``workbench.data.masks`` have one density outside of the ACS lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from workbench.data.images import center_crop
from workbench.data.sampling import acs_count, seed_of_file
from workbench.data.slices import Sample
from workbench.models.operator import inverse, transform
from workbench.models.reconstructor import Reconstructor

HELD_OUT = 0.4
"""Share of the sampled lines that are in Lambda, as in SSDU."""
HELD_OUT_IN_VALIDATION = 0.1
"""That share where volumes without targets are validated."""


@dataclass(frozen=True)
class Split:
    """How a slice's sampled lines are split.

    Attributes:
        shown: (phase encode,) bool, the lines that the network sees.
        held_out: (phase encode,) bool, those that it does not.
        weight: of a squared error on a line that is held out.
    """

    shown: np.ndarray
    held_out: np.ndarray
    weight: float


def split_lines(sampled: np.ndarray, acs: int, share: float, rng: np.random.Generator) -> Split:
    """Draw the lines that are held out.

    Args:
        sampled: (phase encode,) bool.
        acs: number of ACS columns; 0 reads them off ``sampled``.
        share: of the sampled lines that are held out; at least one line, and never all but the
            ACS lines.
        rng: draws them, each set of lines alike likely.

    Raises:
        ValueError: there are less than two sampled lines beside the ACS lines.
    """
    width = len(sampled)
    acs = acs or acs_count(sampled)
    first = (width - acs + 1) // 2
    centre = (np.arange(width) >= first) & (np.arange(width) < first + acs)
    free = np.flatnonzero(sampled & ~centre)
    if len(free) < 2:
        raise ValueError(
            f"{len(free)} lines are sampled beside the {acs} ACS lines, too few to hold some out: "
            "give a smaller acceleration or center_fraction, or learning=supervised"
        )
    count = min(max(1, round(share * int(sampled.sum()))), len(free) - 1)
    held_out = np.zeros(width, bool)
    held_out[rng.choice(free, count, replace=False)] = True
    # Beyond the first and the last sampled line lies padding, which nobody measures.
    within = slice(free[0], free[-1] + 1)
    p = min(1.0, len(free) / int((~centre[within]).sum()))
    q = 1 - count / len(free)
    return Split(sampled & ~held_out, held_out, (1 - p * q) / (p * (1 - q)))


def training_loss(network: Reconstructor, batch: Sample, rows: int, seed: Sequence[int]) -> Tensor:
    """Hold lines out, reconstruct, and compare k-space on the lines that were sampled.

    Args:
        network: forms coil images.
        batch: of slices; their targets are not read.
        rows: of the image that are wanted, for ``crop_readout``.
        seed: of the run and the epoch; with the slice it decides which lines are held out.

    Returns:
        The mean over the batch of half the ratio of the norms of error and measurement, and half
        that of the sums of absolute values (real and imaginary parts apart), () float32.
    """
    splits = [
        split_lines(*lines, HELD_OUT, np.random.default_rng([*seed, number, *seed_of_file(name)]))
        for lines, number, name in zip(_lines_of(batch), batch.slice_num, batch.volume, strict=True)
    ]
    weights = np.stack([each.shown + each.weight * each.held_out for each in splits])
    return _distance(network, batch, splits, weights, rows).mean()


def held_out_error(network: Reconstructor, batch: Sample, rows: int) -> list[float]:
    """Measure each slice of a batch on lines that the network is not shown.

    They are drawn from the name of the volume's file: all slices of a volume, and all epochs, have
    the same. The value is that of ``training_loss``, on those lines alone.
    """
    splits = [
        split_lines(*lines, HELD_OUT_IN_VALIDATION, np.random.default_rng(seed_of_file(name)))
        for lines, name in zip(_lines_of(batch), batch.fname, strict=True)
    ]
    weights = np.stack([each.held_out.astype(float) for each in splits])
    with torch.no_grad():
        return _distance(network, batch, splits, weights, rows).tolist()


def _lines_of(batch: Sample) -> list[tuple[np.ndarray, int]]:
    masks = batch.mask[:, 0, 0, :, 0].cpu().numpy()
    return list(zip(masks, batch.num_low_frequencies.tolist(), strict=True))


def _distance(
    network: Reconstructor, batch: Sample, splits: list[Split], weights: np.ndarray, rows: int
) -> Tensor:
    """Compare the network's lines with the measured ones; (batch,).

    The readout is compared as an image: it is sampled whole, and may be cropped.
    """
    kspace = batch.masked_kspace
    shown = torch.from_numpy(np.stack([each.shown for each in splits])).to(kspace.device)
    mask = shown[:, None, None, :, None]
    images = network.coil_images(kspace * mask, mask, batch.num_low_frequencies, rows)
    images = images.to(torch.promote_types(images.dtype, torch.complex64))
    lines = transform(images, (-1,))
    measured = inverse(torch.view_as_complex(batch.middle.contiguous()), (-2,))
    measured = center_crop(measured, (lines.shape[-2], lines.shape[-1]))
    weight = torch.from_numpy(weights).to(lines.real)[:, None, None, :, None]
    error, known = (torch.view_as_real(each) for each in (lines - measured, measured))
    return 0.5 * _ratio(
        (weight * error.square()).sum((1, 2, 3, 4)), (weight * known.square()).sum((1, 2, 3, 4))
    ).sqrt() + 0.5 * _ratio(
        (weight * error.abs()).sum((1, 2, 3, 4)), (weight * known.abs()).sum((1, 2, 3, 4))
    )


def _ratio(error: Tensor, known: Tensor) -> Tensor:
    """Divide; a slice that is all zero counts by its error alone."""
    tiny = torch.finfo(error.dtype).tiny
    return error.clamp(min=tiny) / torch.where(known > 0, known, torch.ones_like(known))
