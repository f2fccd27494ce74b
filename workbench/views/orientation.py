"""How images are turned for the eye, and what is assumed of where they lie in the patient.

fastMRI stores images upside down: row 0 is the patient's feet (coronal) or back (axial). fastMRI+'s
readers turned them over before they drew their boxes
(https://github.com/microsoft/fastmri-plus), and so does everything here that shows or exports one.
Arrays in memory and in HDF5 files stay as stored.
"""

from dataclasses import dataclass

import numpy as np


def upright(images: np.ndarray) -> np.ndarray:
    """Turn stored images (..., H, W) over, so that row 0 is on top; the same call turns them back.

    Returns:
        A view.
    """
    return images[..., ::-1, :]


@dataclass(frozen=True)
class Plane:
    """A plane of the patient's body, with directions in DICOM's axes (left, posterior, superior).

    fastMRI's files hold neither the position nor the direction of a slice, so that this is what
    such scans usually are, no measurement: nothing in a file tells left from right.

    Attributes:
        name: "axial", "coronal" or "sagittal".
        right: unit vector from left to right in an upright image.
        down: unit vector from its top to its bottom.
        next: unit vector from a slice to the one after it.
    """

    name: str
    right: tuple[int, int, int]
    down: tuple[int, int, int]
    next: tuple[int, int, int]


AXIAL = Plane("axial", (1, 0, 0), (0, 1, 0), (0, 0, 1))
CORONAL = Plane("coronal", (1, 0, 0), (0, 0, -1), (0, 1, 0))
SAGITTAL = Plane("sagittal", (0, 1, 0), (0, 0, -1), (-1, 0, 0))


def plane_of(acquisition: str) -> Plane:
    """Return the plane that an acquisition's name begins with: AXT2, CORPD_FBK, SAGT1; else axial.

    Each is seen as radiologists see it: from the feet, from the front, from the patient's left.
    """
    name = acquisition.upper()
    return CORONAL if name.startswith("COR") else SAGITTAL if name.startswith("SAG") else AXIAL
