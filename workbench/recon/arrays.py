"""Reconstruction and scores of arrays at hand, as a script calls them; no run's folder is needed.

The same functions reconstruct and score for ``reconstruct.ipynb``, so the numbers are the same.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from workbench.data.images import center_crop, crop_size
from workbench.data.slices import Sample, collate
from workbench.data.volume import neighbours_of
from workbench.models.reconstructor import as_reconstructor
from workbench.recon.metrics import Scores
from workbench.recon.scoring import score_volume
from workbench.recon.speed import use_tf32


def reconstruct(
    model: nn.Module,
    kspace: "Sample | np.ndarray | Tensor",
    mask: "np.ndarray | Tensor | None" = None,
    *,
    crop: tuple[int, int] | None = None,
    num_low_frequencies: int = 0,
) -> np.ndarray:
    """Reconstruct a slice, or every slice of a volume.

    Args:
        model: from ``load_model``, or any network with fastMRI's forward
            ``(masked_kspace, mask, num_low_frequencies) -> image``. It runs where its weights are.
        kspace: an item of a ``SliceDataset``, which brings mask and size of its own. Or a complex
            array (coils, H, W) or (slices, coils, H, W), H the readout and W the phase encode,
            with DC at (H // 2, W // 2); single-coil data has 1 coil. A network that sees
            neighbouring slices (``model.neighbours`` is 3, say) wants a dataset of as many, or an
            array of adjacent slices in order; it takes the outermost for those beyond the ends,
            and a slice alone, (1, coils, H, W), for its own neighbours. An array does not say its
            sequence: ``model.for_acquisition(volume.acquisition)`` does, where ``tv`` goes by it.
        mask: (W,) bool or 0 and 1, the columns that were sampled; all others are set to zero.
            Only for arrays.
        crop: (height, width) of the image, as ``volume.recon[:2]`` has it; None keeps (H, W).
            Where k-space has fewer columns than that, the image has (W, W), as in fastMRI.
            Only for arrays.
        num_low_frequencies: number of ACS columns around DC; 0 reads it off the mask.
            Only for arrays.

    Returns:
        The magnitude image (height, width), or images (slices, height, width), float32, in the
        unit of the target.

    Raises:
        TypeError: ``kspace`` is neither a sample nor an array.
        ValueError: a shape or a type is wrong, the mask is missing, the model is in training mode
            or sees more slices than are given; the message says what to do.
    """
    if isinstance(kspace, Sample):
        if not mask is crop is None or num_low_frequencies:
            raise ValueError("a sample brings its mask, crop and ACS: give the sample alone")
        if kspace.masked_kspace.ndim != 4:
            raise ValueError(
                f"a batch of shape {tuple(kspace.masked_kspace.shape)}: give one slice, an item of "
                "a SliceDataset"
            )
        return reconstruct_sample(model, kspace)
    values = _kspace(kspace)
    sampled = _mask(mask, values.shape[-1])
    measured = torch.view_as_real(torch.where(sampled, values, 0))  # NaN times 0 is NaN
    matrix = int(values.shape[-2]), int(values.shape[-1])
    size = matrix if crop is None else crop_size(matrix, _size(crop))
    acs = torch.tensor([num_low_frequencies])
    columns = sampled.view(1, 1, 1, -1, 1)
    count = as_reconstructor(model).neighbours
    if not 0 <= num_low_frequencies <= matrix[1]:
        raise ValueError(
            f"num_low_frequencies={num_low_frequencies}: give 1 to {matrix[1]}, the ACS columns, "
            "or 0 to read them off the mask"
        )
    if values.ndim == 3 and count > 1:
        raise ValueError(
            f"kspace of shape {tuple(values.shape)} is one slice, and the model sees {count} "
            "adjacent ones: give (slices, coils, H, W), the volume's slices in order"
        )
    slices = measured if values.ndim == 4 else measured[None]
    stacks = (
        slices[neighbours_of(number, len(slices), count)].flatten(0, 1)
        for number in range(len(slices))
    )
    images = np.stack([_run(model, each[None], columns, acs, size) for each in stacks])
    return images if values.ndim == 4 else images[0]


def reconstruct_sample(model: nn.Module, sample: Sample) -> np.ndarray:
    """Reconstruct an item of a ``SliceDataset``; (height, width) float32, as its header has it."""
    network = as_reconstructor(model).for_acquisition(sample.acquisition)
    count = network.neighbours
    if sample.neighbours != count:
        raise ValueError(
            f"a sample of {sample.neighbours} slice(s), and the model sees {count}: make it by "
            f"SliceDataset(..., neighbours={count})"
        )
    return _run(network, *given_of(collate([sample])))


def given_of(batch: Sample) -> tuple[Tensor, Tensor, Tensor, tuple[int, int]]:
    """Return what ``Reconstructor.central_image`` is given of a batch."""
    matrix = int(batch.masked_kspace.shape[2]), int(batch.masked_kspace.shape[3])
    heights, widths = zip(*(crop_size(matrix, size) for size in batch.crop_size), strict=True)
    return batch.masked_kspace, batch.mask, batch.num_low_frequencies, (max(heights), max(widths))


@torch.inference_mode()
def _run(
    model: nn.Module, kspace: Tensor, mask: Tensor, acs: Tensor, size: tuple[int, int]
) -> np.ndarray:
    """Reconstruct a batch of one, (1, coils, H, W, 2), and crop it to ``size``."""
    if model.training:
        raise ValueError("the model is in training mode: call model.eval() first")
    network = as_reconstructor(model)
    use_tf32(network.tf32)
    kspace, mask, acs = (each.to(network.device) for each in (kspace, mask, acs))
    image = network.central_image(kspace, mask, acs, size)
    if image.ndim != 3 or not image.is_floating_point():  # of complex ones, one part would be left
        raise ValueError(
            f"the model returns {_type(image)} of shape {tuple(image.shape)}: return magnitude "
            "images (batch, height, width)"
        )
    return center_crop(image[0].float().cpu().numpy(), size)


def score(
    image: "np.ndarray | Tensor", target: "np.ndarray | Tensor", max_value: float | None = None
) -> Scores:
    """Measure an image against its target, as fastMRI's leaderboard does.

    A volume gets the leaderboard's own figures: SSIM is the mean over slices, PSNR and NMSE are
    of the whole volume, and the data range of SSIM and PSNR is the volume's largest target value.
    A slice gets the same of itself alone. Its range is then its own largest target value, unless
    ``max_value`` gives the volume's (``sample.max_value``); only then is the mean of its slices'
    SSIM a volume's SSIM. As on the leaderboard, both are first cropped to the target's width
    squared.

    Args:
        image: (height, width) of a slice or (slices, height, width) of a volume, real.
        target: the same shape.
        max_value: the data range of SSIM and PSNR; None takes the target's largest value.

    Returns:
        Name of each metric of ``workbench.recon.metrics.METRICS`` and its value: ``ssim``,
        ``psnr`` in dB (infinite without an error), ``nmse``.

    Raises:
        ValueError: shapes differ, a value is complex, NaN or infinite, or the image is smaller
            than the window of SSIM, 7x7.
    """
    images, targets = _images("image", image), _images("target", target)
    if images.shape != targets.shape:
        raise ValueError(
            f"image of {tuple(images.shape)} and target of {tuple(targets.shape)}: give both in "
            "one shape; reconstruct's crop, or workbench.data.images.cropped, makes them equal"
        )
    if max_value is not None and not max_value > 0:
        raise ValueError(f"max_value={max_value!r}: give a number above 0, or None")
    if images.ndim == 2:
        images, targets = images[None], targets[None]
    return score_volume(images, targets, "the image", max_value)


def _kspace(values: Any) -> Tensor:
    """Return k-space as a complex64 tensor ([slices,] coils, H, W)."""
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(np.ascontiguousarray(values))
    if not isinstance(values, Tensor):
        raise TypeError(
            f"kspace is {type(values).__name__}: give an item of a SliceDataset, or a complex "
            "array (coils, H, W)"
        )
    values = values.detach()
    if not values.is_complex():
        hint = "; torch.view_as_complex makes it of (..., 2)" if values.shape[-1:] == (2,) else ""
        raise ValueError(
            f"kspace of type {_type(values)} and shape {tuple(values.shape)}: give complex numbers"
            f", (coils, H, W) or (slices, coils, H, W){hint}"
        )
    if values.ndim not in (3, 4) or 0 in values.shape:
        hint = ": a single coil is (1, H, W)" if values.ndim == 2 else ""
        raise ValueError(
            f"kspace of shape {tuple(values.shape)}: give (coils, H, W) or (slices, coils, H, W)"
            f"{hint}"
        )
    return values.cpu().to(torch.complex64)


def _mask(mask: Any, width: int) -> Tensor:
    """Return a mask as a tensor (W,) bool."""
    if mask is None:
        raise ValueError(
            f"mask=None: give the columns that were sampled, ({width},) bool; np.ones({width}, "
            "bool) where all were"
        )
    columns = mask if isinstance(mask, Tensor) else torch.as_tensor(np.asarray(mask))
    if columns.numel() != width or max(columns.shape, default=0) != width:
        raise ValueError(
            f"mask of shape {tuple(columns.shape)}: give ({width},), one value for each column of "
            "k-space"
        )
    sampled = columns.detach().cpu().reshape(width) != 0
    if columns.is_complex() or not torch.equal(sampled.to(columns.dtype), columns.reshape(width)):
        raise ValueError(f"mask of type {_type(columns)}: give True and False, or 1 and 0")
    if not sampled.any():
        raise ValueError("mask samples no column: nothing was measured")
    return sampled


def _size(crop: Any) -> tuple[int, int]:
    """Read (height, width)."""
    try:
        height, width = (int(length) for length in crop)
    except (TypeError, ValueError):
        raise ValueError(f"crop={crop!r}: give (height, width), as volume.recon[:2]") from None
    if min(height, width) < 1:
        raise ValueError(f"crop={crop!r}: give (height, width) of 1 or more")
    return height, width


def _images(name: str, values: Any) -> Tensor:
    """Return real images as a tensor on the CPU."""
    found = values if isinstance(values, Tensor) else torch.as_tensor(np.asarray(values))
    if found.is_complex():
        raise ValueError(f"{name} of type {_type(found)}: give magnitudes, abs({name})")
    if found.ndim not in (2, 3) or 0 in found.shape:
        raise ValueError(
            f"{name} of shape {tuple(found.shape)}: give a slice (height, width) or a volume "
            "(slices, height, width)"
        )
    if not torch.isfinite(found).all():
        raise ValueError(f"{name} holds values that are NaN or infinite: nothing can be measured")
    return found.detach().cpu()


def _type(values: Tensor) -> str:
    return str(values.dtype).removeprefix("torch.")
