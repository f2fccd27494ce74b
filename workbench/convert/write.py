"""Write a scan as a volume in fastMRI's form, slice by slice."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from workbench.convert.scan import RefusedError, Scan
from workbench.data.images import crop_size, zero_filled
from workbench.stores.disk import naming, replacing


def write_scan(
    scan: Scan,
    path: Path,
    *,
    scale: float = 1.0,
    flip: bool = False,
    attributes: Mapping[str, Any] | None = None,
) -> Iterator[int]:
    """Write a volume; the file appears under its name only when it is whole.

    The target is the root sum of squares of the whole k-space, as fastMRI's, and stands only where
    the scan says that it is one. Memory holds one slice.

    Args:
        scan: what to write.
        path: the .h5 file; its folder is made.
        scale: by which k-space is multiplied.
        flip: whether images are turned over, top to bottom.
        attributes: of the volume, besides the scan's own.

    Yields:
        The number of each slice, once it is written.

    Raises:
        RefusedError: the source yields other slices than it said, a slice of zeros, or values
            that are not finite, in k-space or, at that scale, in images.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    said = {"acquisition": scan.acquisition, **scan.attributes, **(attributes or {})}
    said |= {"scale": scale, "flip": flip, "remarks": "\n".join(scan.remarks)}
    if scan.header.synthetic:
        said["synthetic"] = True
    recon, largest, squares = scan.header.recon[:2], 0.0, 0.0
    size = crop_size(scan.shape[2:], recon)
    with replacing(path) as new, h5py.File(new.name, "w") as file:
        header = scan.header.to_xml(scan.shape[0], scan.shape[1])
        file.create_dataset("ismrmrd_header", data=header)
        kspace = file.create_dataset("kspace", scan.shape, np.complex64)
        if scan.target:
            targets = file.create_dataset("reconstruction_rss", (scan.shape[0], *size), np.float32)
        for number, values in enumerate(slices_of(scan)):
            with np.errstate(over="ignore"):
                values = values * np.float32(scale)
            if not np.isfinite(values).all():
                raise RefusedError(f"has values that are not finite in slice {number}")
            kspace[number] = values = turned_over(values) if flip else values
            if scan.target:
                # Coil by coil: an FFT takes three times what it transforms.
                with np.errstate(over="ignore"):
                    power = sum((zero_filled(coil, recon) ** 2 for coil in values), np.float32(0))
                targets[number] = target = np.sqrt(power)
                largest = max(largest, float(target.max()))
                squares += float(np.sum(power, dtype=np.float64))
            yield number
        if scan.target:
            if not 0 < largest < math.inf:
                raise RefusedError(
                    f"has images of zeros or of values that are not finite, in single precision "
                    f"at scale={scale:g}: convert it into a dataset of its own, or bring it in "
                    "again"
                )
            said |= {"max": largest, "norm": math.sqrt(squares)}
        if scan.sampled is not None:
            file.create_dataset("mask", data=scan.sampled)
        if scan.calibration is not None:
            with np.errstate(over="ignore"):
                lines = scan.calibration() * np.float32(scale)
            if not np.isfinite(lines).all():
                raise RefusedError("has calibration lines of values that are not finite")
            file.create_dataset("calibration_data", data=turned_over(lines) if flip else lines)
        file.attrs.update(said)


def slices_of(scan: Scan, numbers: tuple[int, ...] | None = None) -> Iterator[NDArray]:
    """Yield k-space of some slices, or of all, and check that they are what the scan promised."""
    wanted = tuple(range(scan.shape[0])) if numbers is None else numbers
    found = 0
    for values in scan.read(wanted):
        if values.shape != scan.shape[1:]:
            raise RefusedError(f"holds a slice of {values.shape}, not of {scan.shape[1:]}")
        if not values.any():
            raise RefusedError(
                f"holds nothing but zeros in slice {wanted[found]}, as where a copy broke off: "
                "bring it in again, or leave that slice out"
            )
        found += 1
        yield values.astype(np.complex64, copy=False)
    if found != len(wanted):
        raise RefusedError(f"ends after {found} of {len(wanted)} slices")


def turned_over(kspace: NDArray) -> NDArray:
    """Turn images over, top to bottom, in k-space (..., H, W): k becomes -k along the readout."""
    turned = np.flip(kspace, -2)
    # Of an even number of samples the first is its own mirror.
    return np.roll(turned, 1, -2) if kspace.shape[-2] % 2 == 0 else turned
