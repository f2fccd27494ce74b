"""Where a reconstruction is not to be trusted: what changes with the mask, what contradicts data.

Two maps of one slice. The *deviation*: the same slice is reconstructed from several draws of the
mask, each of which leaves out other lines; what was measured comes out alike every time, what the
network made up does not. The *residual*: the reconstruction's own k-space, minus what was measured,
on the measured lines alone; it says how far the data was overruled. Neither is a probability, and
an error that every mask and every cascade makes alike is seen by neither.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from workbench.data.images import (
    center_crop,
    centered_fft2,
    centered_ifft2,
    crop_size,
    root_sum_of_squares,
)
from workbench.data.reading import keep_columns
from workbench.data.sampling import Sampling, seed_of_file
from workbench.data.volume import Volume

if TYPE_CHECKING:  # torch takes seconds to import, and a form checks its parameters here
    from workbench.models.reconstructor import Reconstructor

_TRIES_A_MASK = 20
_SAME_RATE = 0.2  # lines of two masks of one acceleration differ by less


Mask = tuple[np.ndarray, int]
"""The columns (W,) that are kept, and how many around DC are ACS (0: read it off)."""


@dataclass(frozen=True)
class Uncertainty:
    """Maps of one slice, each (h, w) float32, in the image's unit."""

    image: np.ndarray  # the reconstruction from the first mask, which all else here uses
    mean: np.ndarray  # over all masks
    deviation: np.ndarray  # standard deviation over the masks
    residual: np.ndarray  # root sum of squares over coils of the k-space residual's image
    overruled: float  # norm of the residual over that of what was measured
    masks: int  # how many different ones


def check_masks_wanted(uncertainty: object) -> int:
    """Read the parameter ``uncertainty``: how many masks to draw; 0 for no maps.

    Raises:
        ValueError: it is no whole number, or just one.
    """
    if isinstance(uncertainty, bool) or not isinstance(uncertainty, int) or uncertainty < 0:
        raise ValueError(f"uncertainty={uncertainty!r}: give a number of masks, or 0 for no maps")
    if uncertainty == 1:
        raise ValueError("uncertainty=1: one mask has no deviation; give 2 or more, such as 8")
    return uncertainty


def masks_for(
    volume: Volume, sampling: Sampling | None, count: int, kspace: np.ndarray
) -> list[Mask]:
    """Draw different masks for a slice (coils, H, W), the one of its reconstruction first.

    Of full k-space they are drawn as that one was, from other seeds; there may be fewer of them
    than the 2 or more asked for, as equispaced masks differ in their offset alone. Of a volume that
    was measured undersampled (``sampling`` is None), each leaves out another part of the measured
    lines beside the ACS.
    """
    from workbench.data.masks import as_measured, mask_of

    if sampling is None:
        return _left_out(mask_of(volume, None)[0], count)
    masks: dict[bytes, Mask] = {}
    seed = seed_of_file(volume.name)
    lines = 0  # of the first mask
    for number in range(_TRIES_A_MASK * count):
        drawn = mask_of(volume, sampling, (*seed, number) if number else seed)
        columns, low_frequencies = as_measured(volume, *drawn, kspace)
        lines = lines or int(columns.sum())
        # Of several accelerations each draw takes one: only those of the first one's compare.
        if len(sampling.accelerations) > 1 and abs(columns.sum() / lines - 1) > _SAME_RATE:
            continue
        masks.setdefault(columns.tobytes(), (columns, low_frequencies))
        if len(masks) == count:
            break
    return list(masks.values())


def _left_out(own: np.ndarray, count: int) -> list[Mask]:
    """Leave out of a volume's own lines every (count - 1)-th beside the ACS, each in turn."""
    middle = len(own) // 2
    missing = np.flatnonzero(~own)
    start = max(missing[missing < middle], default=-1) + 1
    stop = min(missing[missing >= middle], default=len(own))
    outer = np.flatnonzero(own)
    outer = outer[(outer < start) | (outer >= stop)]
    masks = [(own, 0)]
    parts = max(2, count - 1)
    for part in range(min(count - 1, len(outer))):
        kept = own.copy()
        kept[outer[part::parts]] = False
        masks.append((kept, 0))
    return masks


def map_uncertainty(
    network: "Reconstructor",
    kspace: np.ndarray,
    masks: Sequence[Mask],
    recon: tuple[int, int],
) -> Uncertainty:
    """Reconstruct a slice from several masks and map what does not agree.

    Args:
        network: on any device.
        kspace: (coils, H, W) complex64, as much as was measured; of as many slices as the network
            sees, the coils of each in turn.
        masks: the reconstruction's own first.
        recon: the header's matrix, which images are cropped to.

    Raises:
        ValueError: there are fewer than 2 masks.
    """
    if len(masks) < 2:
        raise ValueError(f"{len(masks)} masks: give 2 or more different ones")
    size = crop_size((kspace.shape[-2], kspace.shape[-1]), recon)
    coils_a_slice = len(kspace) // network.neighbours
    first = coils_a_slice * (network.neighbours // 2)
    middle = slice(first, first + coils_a_slice)
    images = []
    residual, overruled = np.zeros(size, np.float32), 0.0
    for number, (columns, low_frequencies) in enumerate(masks):
        measured = keep_columns(kspace, columns)
        coils = _coil_images(network, measured, columns, low_frequencies, size[0])
        images.append(center_crop(root_sum_of_squares(coils), size))
        if number == 0:
            # Of as many rows as the network keeps of the readout.
            rows = center_crop(centered_ifft2(measured[middle]), coils.shape[1:])
            kept = centered_fft2(rows)
            difference = (centered_fft2(coils) - kept) * columns
            overruled = float(np.linalg.norm(difference) / (np.linalg.norm(kept) or 1.0))
            residual = center_crop(root_sum_of_squares(centered_ifft2(difference)), size)
    stack = np.stack(images)
    return Uncertainty(
        image=stack[0],
        mean=stack.mean(axis=0),
        deviation=stack.std(axis=0, ddof=1),
        residual=residual.astype(np.float32),
        overruled=overruled,
        masks=len(masks),
    )


def _coil_images(
    network: "Reconstructor",
    measured: np.ndarray,
    columns: np.ndarray,
    low_frequencies: int,
    rows: int,
) -> np.ndarray:
    """Reconstruct as for an image of so many rows; ``measured`` is (coils, H, W) complex64."""
    import torch

    device = network.device
    kspace = torch.view_as_real(torch.from_numpy(measured))[None].to(device)
    mask = torch.from_numpy(columns).view(1, 1, 1, -1, 1).to(device)
    low = torch.tensor([low_frequencies], device=device)
    with torch.inference_mode():
        return network.coil_images(kspace, mask, low, rows)[0].cpu().numpy()


def rank_correlation(deviation: np.ndarray, error: np.ndarray) -> float:
    """Return Spearman's rank correlation of two maps over their pixels, -1 to 1.

    1 says that where one is larger, so is the other. NaN where one is the same everywhere.
    """
    from scipy.stats import spearmanr

    if np.ptp(deviation) == 0 or np.ptp(error) == 0:
        return float("nan")
    return float(spearmanr(deviation, error, axis=None).statistic)
