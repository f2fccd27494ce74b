"""The ICBM 152 atlas of the brain, as nilearn ships it: tissue maps, and the hull around them.

The atlas (Fonov et al., NeuroImage 54, 2011) is the average of 152 brains without their skulls.
"""

import importlib.util
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workbench_demo.phantom.fields import Array

COARSE = 4  # mm, of the grid on which the distance to the brain is measured
_MARGIN = 8  # samples of that grid around the brain
_BRIDGED = 16  # mm, half the width of the fissures that the hull passes over
_BOTTOM = -34.0  # mm, MNI; lower than any slice reaches


@dataclass(frozen=True)
class Atlas:
    """Tissue maps on a 1 mm grid, and the distance from the brain's smooth hull.

    Attributes:
        grey: cubic spline coefficients of the grey matter map, ``(x, y, z)``.
        white: those of the white matter map.
        corner: MNI position of the maps' first voxel, mm.
        hull: mm, negative inside, on a grid of ``COARSE / 2`` mm.
        hull_corner: MNI position of its first sample, mm.
    """

    grey: NDArray[np.float32]
    white: NDArray[np.float32]
    corner: Array
    hull: NDArray[np.float32]
    hull_corner: Array


@cache
def atlas() -> Atlas:
    """Load the atlas that nilearn ships; nothing is downloaded.

    The files are read in place, because importing nilearn itself takes seconds.

    Raises:
        ModuleNotFoundError: nilearn is not installed, or holds no atlas.
    """
    package = importlib.util.find_spec("nilearn")
    folder = (
        Path(package.origin).parent / "datasets" / "data" if package and package.origin else None
    )
    files = {
        name: folder / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
        for name in ("t1", "gm", "wm")
        if folder
    }
    if not files or not all(file.is_file() for file in files.values()):
        raise ModuleNotFoundError(
            "the phantom's brain needs nilearn's atlas: pip install -e \".[demo]\""
        )
    import nibabel
    from scipy import ndimage

    images = {name: nibabel.Nifti1Image.from_filename(file) for name, file in files.items()}
    corner = np.asarray(images["t1"].affine)[:3, 3]
    bottom = int(_BOTTOM - corner[2])
    maps = {name: np.asarray(image.dataobj)[:, :, bottom:] for name, image in images.items()}
    corner = corner + np.array([0, 0, bottom])

    # Measured coarsely: the closing that bridges fissures leaves nothing fine in the hull.
    brain = maps["t1"][::COARSE, ::COARSE, ::COARSE] > 0
    margins = [(_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, _MARGIN)]
    brain = np.pad(brain, margins)
    near = ndimage.distance_transform_edt(~brain) * COARSE <= _BRIDGED
    near[:, :, 0] = near[:, :, 1]
    depth = ndimage.distance_transform_edt(np.pad(near, [(0, 0), (0, 0), (9, 0)], "edge"))[..., 9:]
    closed = depth * COARSE > _BRIDGED
    hull = ndimage.distance_transform_edt(~closed) - ndimage.distance_transform_edt(closed)
    hull = ndimage.gaussian_filter(COARSE * hull.astype(np.float32), 1.6)
    fine = np.indices(tuple(2 * size for size in hull.shape), dtype=np.float32) / 2
    hull = ndimage.map_coordinates(hull, fine, order=3, mode="nearest")

    grey, white = (
        ndimage.spline_filter(maps[name] / np.float32(255), output=np.float32)
        for name in ("gm", "wm")
    )
    margin = np.array([_MARGIN, _MARGIN, 0]) * COARSE
    return Atlas(grey, white, corner, hull, corner - margin)
