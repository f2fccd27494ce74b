"""What tests of several readers do with a file: convert its only scan, or have it refused."""

import h5py
import pytest

from workbench.convert.readers import scans_of
from workbench.convert.scan import Choices, RefusedError
from workbench.convert.write import write_scan


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
