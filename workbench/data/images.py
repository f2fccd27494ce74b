"""From k-space to images without a network: coil images, zero-filled reconstructions, coil maps.

K-space is centred, DC at (H // 2, W // 2), and the transforms are orthonormal, as in fastMRI.
"""

from typing import Any, TypeVar

import numpy as np

Image = TypeVar("Image", bound=Any)
"""An array or a tensor (..., H, W)."""


def centered_fft2(image: np.ndarray) -> np.ndarray:
    """Transform images (..., H, W) to k-space, complex64 to complex64."""
    from scipy import fft  # keeps single precision whatever NumPy's version; takes a moment

    moved = fft.ifftshift(image, axes=(-2, -1))
    return fft.fftshift(fft.fft2(moved, norm="ortho"), axes=(-2, -1))


def centered_ifft2(kspace: np.ndarray) -> np.ndarray:
    """Transform k-space (..., H, W) to complex images, complex64 to complex64."""
    from scipy import fft

    moved = fft.ifftshift(kspace, axes=(-2, -1))
    return fft.fftshift(fft.ifft2(moved, norm="ortho"), axes=(-2, -1))


def root_sum_of_squares(images: np.ndarray) -> np.ndarray:
    """Combine coil images (coils, H, W), complex or real, to one magnitude image (H, W)."""
    return np.sqrt(np.sum(images.real**2 + images.imag**2, axis=0))


def finite(values: np.ndarray) -> np.ndarray:
    """Return values with 0 in place of all that are NaN or infinite, so that the rest is seen."""
    return np.where(np.isfinite(values), values, 0)


def crop_size(matrix: tuple[int, int], recon: tuple[int, int]) -> tuple[int, int]:
    """Return the size that images of a k-space matrix are cropped to.

    It is the header's reconstruction matrix, but never more than there is. Where k-space has fewer
    columns than that, as in some FLAIR volumes of 512x213, fastMRI's target is W x W.

    Args:
        matrix: k-space size (readout, phase encode).
        recon: the header's reconstruction matrix (x, y); more dimensions are left out.
    """
    height, width = recon[0], recon[1]
    if matrix[1] < width:
        height = width = matrix[1]
    return min(height, matrix[0]), min(width, matrix[1])


def center_crop(image: Image, size: tuple[int, int]) -> Image:
    """Return the central (..., h, w) of an image (..., H, W), as a view.

    Raises:
        ValueError: the image is smaller than that.
    """
    (rows, columns), (height, width) = image.shape[-2:], size
    if not (0 < height <= rows and 0 < width <= columns):
        raise ValueError(f"an image of {rows}x{columns} has no centre of {height}x{width}")
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[..., top : top + height, left : left + width]


def cropped(*images: Image) -> list[Image]:
    """Crop images (..., H, W) around their centres to the smallest height and width among them."""
    size = min(image.shape[-2] for image in images), min(image.shape[-1] for image in images)
    return [center_crop(image, size) for image in images]


def zero_filled(kspace: np.ndarray, crop: tuple[int, int]) -> np.ndarray:
    """Reconstruct a slice as if what was not sampled were zero; from full k-space, the target.

    Args:
        kspace: (coils, H, W) complex64, or (H, W) of a single coil.
        crop: the reconstruction matrix (x, y); see ``crop_size`` for where k-space is smaller.

    Returns:
        The root sum of squares of the coil images, centre-cropped, (h, w) float32.
    """
    if kspace.ndim not in (2, 3):
        raise ValueError(f"kspace of shape {kspace.shape}: give one slice, ([coils,] H, W)")
    coils = kspace if kspace.ndim == 3 else kspace[None]
    size = crop_size((coils.shape[-2], coils.shape[-1]), crop)
    images = center_crop(centered_ifft2(coils), size)
    return root_sum_of_squares(images).astype(np.float32, copy=False)


def sensitivity_maps(
    kspace: np.ndarray, low_frequencies: int, *, threshold: float = 0.05
) -> np.ndarray:
    """Estimate what each coil hears from where, from the centre of k-space alone.

    Low-resolution coil images, divided by their root sum of squares: a simple estimate, in which
    each map keeps the phase of the object. ESPIRiT (Uecker et al. 2014, doi:10.1002/mrm.24751) and
    a network's estimates do better.

    Args:
        kspace: (coils, H, W) complex64.
        low_frequencies: number of ACS columns around DC; the readout is cut to the same resolution.
        threshold: share of the brightest value below which there is no object, and the map is 0.

    Returns:
        (coils, H, W) complex64, of root sum of squares 1 inside the object.

    Raises:
        ValueError: the ACS columns are fewer than 1 or more than there are.
    """
    if kspace.ndim != 3:
        raise ValueError(f"kspace of shape {kspace.shape}: give (coils, H, W)")
    height, width = kspace.shape[-2:]
    if not 1 <= low_frequencies <= width:
        raise ValueError(f"low_frequencies={low_frequencies}: give 1 to {width}")
    rows = max(1, round(height * low_frequencies / width))
    window = np.outer(_hann(height, rows), _hann(width, low_frequencies))
    images = centered_ifft2(kspace * window)
    combined = root_sum_of_squares(images)
    inside = combined > threshold * combined.max()
    return np.divide(images, combined, out=np.zeros_like(images), where=inside)


def _hann(size: int, width: int) -> np.ndarray:
    """Return a bell (size,) float32 around the DC sample, zero from ``width / 2`` on."""
    away = np.abs(np.arange(size) - size // 2) / (width / 2 + 1)
    return np.where(away < 1, np.cos(np.pi / 2 * np.minimum(away, 1)) ** 2, 0).astype(np.float32)
