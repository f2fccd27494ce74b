"""Sensitivity maps from the fully sampled centre of k-space, normalised: S^H S = 1 in every pixel.

No pixel is masked. Outside the object maps say little, but an image that were zero there would be
unlike every root-sum-of-squares target, which has noise.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from workbench.models.operator import parts_of, power, root, zero_filled

_KERNEL = 6  # ESPIRiT's windows of k-space, in samples
_SIGNAL = 0.02  # share of the largest singular value from which one is signal
_POWERS = 25  # of the power iteration
_VALUES = 2**24  # of the matrices that are formed at a time


def centre_maps(kspace: Tensor, centre: Tensor, rows: int | None) -> Tensor:
    """Return images of k-space's centre under a smooth window, over their root sum of squares.

    Each map keeps the phase of the object.

    Args:
        kspace: (batch, coils, H, W) complex.
        centre: (batch or 1, 1, 1, W) bool, the fully sampled columns about DC.
        rows: of the maps about the centre; None for all.
    """
    images, _ = zero_filled(kspace * _window(kspace, centre), None, rows)
    return normalised(images)


def espirit_maps(kspace: Tensor, centre: Tensor, rows: int | None) -> Tensor:
    """Return maps by ESPIRiT (Uecker et al. 2014, doi:10.1002/mrm.24751), one set, not cropped.

    Their phase is the object's at low resolution. Arguments as ``centre_maps``.

    Raises:
        ValueError: the centre has fewer columns than a kernel.
    """
    smooth = centre_maps(kspace, centre, rows)
    return torch.stack([_espirit(*each) for each in _slices(kspace, centre, smooth)])


def best_maps(kspace: Tensor, centre: Tensor, rows: int | None) -> Tensor:
    """Return ESPIRiT's maps of slices whose centre has room for its kernels, else the others."""
    smooth = centre_maps(kspace, centre, rows)
    found = [
        _espirit(values, columns, maps) if columns.sum() >= _KERNEL else maps
        for values, columns, maps in _slices(kspace, centre, smooth)
    ]
    return torch.stack(found)


def _slices(
    kspace: Tensor, centre: Tensor, smooth: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield what ``_espirit`` wants of each slice."""
    columns = centre.expand(len(kspace), -1, -1, -1)[:, 0, 0]
    return zip(kspace, columns, smooth, strict=True)


def normalised(images: Tensor) -> Tensor:
    """Divide coil images (batch, coils, H, W) by their root sum of squares."""
    return images / root(power(parts_of(images)), empty=1.0).unsqueeze(1)


def _window(kspace: Tensor, centre: Tensor) -> Tensor:
    """Return a bell about DC, (batch or 1, 1, H, W), as wide as the centre and as high."""
    height, width = kspace.shape[-2:]
    count = centre.sum(-1, keepdim=True).to(kspace.real)

    def bell(size: int, wide: Tensor) -> Tensor:
        away = (torch.arange(size, device=kspace.device) - size // 2).abs()
        return (away / (wide / 2 + 1) * (math.pi / 2)).clamp(max=math.pi / 2).cos().square()

    return bell(height, count * height / width).transpose(-1, -2) * bell(width, count) * centre


def _espirit(kspace: Tensor, columns: Tensor, smooth: Tensor) -> Tensor:
    """Return the maps of one slice, (coils, rows, W).

    Args:
        kspace: (coils, H, W).
        columns: (W,) bool, those of the centre.
        smooth: (coils, rows, W), where the power iteration begins and what gives the phase.
    """
    height, width = kspace.shape[-2:]
    count = int(columns.sum())
    if count < _KERNEL:
        raise ValueError(
            f"maps=espirit wants {_KERNEL} fully sampled columns about the centre of k-space, and "
            f"there are {count}: give maps=centre"
        )
    tall = min(height, max(_KERNEL, round(2 * count * height / width)))
    top = (height - tall + 1) // 2
    calibration = kspace[:, top : top + tall, columns]
    if not torch.isfinite(calibration).all():  # which has no singular values, and no image
        return smooth
    return _eigenvectors(_gram(_kernels(calibration)), height, smooth)


def _kernels(calibration: Tensor) -> Tensor:
    """Return an orthonormal basis (n, coils, kernel, kernel) of the windows of k-space."""
    coils = len(calibration)
    windows = calibration.unfold(1, _KERNEL, 1).unfold(2, _KERNEL, 1)
    matrix = windows.movedim(0, 2).reshape(-1, coils * _KERNEL**2)
    _, values, basis = torch.linalg.svd(matrix, full_matrices=False)
    return basis[values >= _SIGNAL * values[0]].view(-1, coils, _KERNEL, _KERNEL)


def _gram(kernels: Tensor) -> Tensor:
    """Return the kernels' correlations by coils and lag, (coils, coils, 2 kernel, 2 kernel)."""
    sizes = (2 * _KERNEL, 2 * _KERNEL)
    spectrum = torch.fft.fft2(kernels, s=sizes)
    return torch.fft.ifft2(torch.einsum("nchw,ndhw->cdhw", spectrum, spectrum.conj()))


def _eigenvectors(gram: Tensor, height: int, smooth: Tensor) -> Tensor:
    """Return the first eigenvector in every pixel, by power iteration from ``smooth``."""
    coils, rows, width = smooth.shape
    first = (height - rows) // 2

    def phases(size: int, start: int, count: int) -> Tensor:
        lag = torch.fft.fftfreq(2 * _KERNEL, 1 / (2 * _KERNEL), device=smooth.device)
        place = torch.arange(start, start + count, device=smooth.device) - size // 2
        angle = 2 * math.pi / size * place[:, None] * lag
        return torch.polar(torch.ones_like(angle), angle).to(smooth.dtype)

    down, across = phases(height, first, rows), phases(width, 0, width)
    at_once = max(1, _VALUES // (coils**2 * width))
    found = []
    for some, start in zip(down.split(at_once), smooth.split(at_once, 1), strict=True):
        matrix = torch.einsum("cdij,hi,wj->cdhw", gram, some, across)
        vector = start
        for _ in range(_POWERS):
            vector = normalised((matrix * vector).sum(1)[None])[0]
        turn = (vector.conj() * start).sum(0)
        found.append(vector * torch.where(turn == 0, 1, turn / turn.abs()))
    return torch.cat(found, dim=1)
