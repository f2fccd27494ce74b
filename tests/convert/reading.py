"""What tests of several readers do with a file, and Fourier transforms by numpy alone."""

import h5py
import numpy as np
import pytest
from numpy.fft import fft2, fftshift, ifft2, ifftshift

from workbench.convert.readers import scans_of
from workbench.convert.scan import Choices, RefusedError
from workbench.convert.write import write_scan


def kspace_of(images):
    """Transform images (..., readout, phase encode) to centred k-space."""
    axes = (-2, -1)
    return fftshift(fft2(ifftshift(images, axes=axes), norm="ortho"), axes=axes)


def image_of(kspace):
    """Return the root sum of squares of the coil images of k-space (..., coils, height, width)."""
    axes = (-2, -1)
    coils = fftshift(ifft2(ifftshift(kspace, axes=axes), norm="ortho"), axes=axes)
    return np.sqrt((np.abs(coils) ** 2).sum(-3))


def only_scan(path):
    (scan,) = scans_of(path, Choices())
    return scan


def converted(path, choices=None, out=None):
    """Convert a file's only scan; return it, k-space, and the file's content by name."""
    (scan,) = scans_of(path, choices or Choices())
    out = (out or path.parent) / "ds/multicoil_train/v.h5"
    assert list(write_scan(scan, out)) == list(range(scan.shape[0]))
    with h5py.File(out) as file:
        return scan, {name: value[()] for name, value in file.items()}


def refusal(path, choices=None):
    with pytest.raises(RefusedError) as refused:
        scans_of(path, choices or Choices())
    return str(refused.value)
