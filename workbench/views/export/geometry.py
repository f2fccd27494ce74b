"""Where the pixels of a volume lie: which way up, how large, and in which plane of the patient.

fastMRI stores images upside down: row 0 is the patient's feet (coronal) or back (axial). The
readers of fastMRI+ turned them over before they drew their boxes
(https://github.com/microsoft/fastmri-plus), and so does everything here that shows or exports an
image. Arrays in memory and in HDF5 files stay as stored.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from workbench.data.volume import Volume
from workbench.stores import Source
from workbench.views.header import header_fields, schema_name

# Fields of view in mm that can be: at most an oversampled body. 0.44 is one in metres.
_NARROWEST, _WIDEST = 1.0, 5000.0
_THINNEST = 0.01
# DICOM keyword -> field of the header, for numbers and for texts.
_NUMBERS = {
    "RepetitionTime": "sequenceParameters/TR",
    "EchoTime": "sequenceParameters/TE",
    "InversionTime": "sequenceParameters/TI",
    "FlipAngle": "sequenceParameters/flipAngle_deg",
    "MagneticFieldStrength": "systemFieldStrength_T",
    "ImagingFrequency": "H1resonanceFrequency_Hz",  # in MHz for DICOM
}
_TEXTS = {
    "ProtocolName": "protocolName",
    "PatientPosition": "patientPosition",
    "BodyPartExamined": "studyInformation/bodyPartExamined",
}


def upright(images: np.ndarray) -> np.ndarray:
    """Return a view of stored images (..., H, W) with row 0 on top; a second call turns it back."""
    return images[..., ::-1, :]


@dataclass(frozen=True)
class Plane:
    """A plane of the patient's body, with directions in DICOM's axes (left, posterior, superior).

    ``right`` and ``down`` lead along an upright image, ``next`` to the slice after it. fastMRI's
    files hold neither position nor direction of a slice. This is what such scans usually have, not
    a measurement: nothing in a file tells left from right.
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
    return {"COR": CORONAL, "SAG": SAGITTAL}.get(acquisition.upper()[:3], AXIAL)


@dataclass(frozen=True)
class Geometry:
    """Sizes and timing of a scan, from its header.

    Attributes:
        pixel: distance between rows and between columns of the image, mm.
        thickness: of a slice, mm; also the distance between slices, which the header of a 2-D scan
            does not give.
        plane: assumed from the acquisition's name.
        volumetric: whether the slice direction is phase encoded, as in 3-D scans.
        known: other values of the header by DICOM keyword; missing where the header has none.
            Some scanners write an inversion time for sequences without an inversion.
        assumed: assumptions in place of what the header does not say, for people.
    """

    pixel: tuple[float, float]
    thickness: float
    plane: Plane
    volumetric: bool
    known: Mapping[str, Any]
    assumed: tuple[str, ...]


def scan_geometry(volume: Volume, file: Path | Source) -> Geometry:
    """Read the geometry and timing of a volume from its header.

    The samples of k-space lie 1 / FOV apart, where FOV is the encoded field of view. The image of
    all H x W samples is therefore as large as that field, and cropping does not change its pixels:
    FOV / H by FOV / W, whatever the matrix of the scanner's own reconstruction, and whether k-space
    was filled with zeros or cut. One exception: a readout that lost its oversampling in image space
    covers the field of view of as many samples as are left.
    """
    fields = [(f"/{schema_name(path)}", value) for path, value in header_fields(file)]

    def text(end: str) -> str:
        return next((value for path, value in fields if path.endswith(f"/{end}")), "")

    def number(end: str, least: float = 0.0, most: float = math.inf) -> float | None:
        try:
            value = float(text(end))
        except ValueError:
            return None
        return value if math.isfinite(value) and least <= value <= most else None

    def extent(space: str, axis: str, least: float = _NARROWEST) -> float | None:
        return number(f"{space}Space/fieldOfView_mm/{axis}", least, _WIDEST)

    assumed, pixel = [], (1.0, 1.0)
    rows, columns = extent("encoded", "x"), extent("encoded", "y")
    (height, width), (full_x, full_y) = volume.matrix, volume.encoded[:2]
    if not (rows and columns):
        assumed.append("pixels of 1 mm, for the header gives no usable encoded field of view")
    else:
        kept = rows * height / full_x if full_x > height == volume.recon[0] else None
        readout = extent("recon", "x")
        if kept and readout and math.isclose(kept, readout, rel_tol=0.01):
            rows = kept
            lost = f"the readout of {height} samples, encoded as {full_x}, lost its oversampling"
            assumed.append(f"{lost} in image space")
        elif height != full_x:
            assumed.append(f"the {height} rows cover the field of view of the encoded {full_x}")
        if width != full_y:
            assumed.append(f"the {width} columns cover the field of view of the encoded {full_y}")
        pixel = rows / height, columns / width
    slabs = (
        (extent(space, "z", _THINNEST), matrix[2])
        for space, matrix in (("recon", volume.recon), ("encoded", volume.encoded))
    )
    thickness = next((slab / count for slab, count in slabs if slab and count > 0), None)
    if thickness is None:
        assumed.append("slices of 1 mm, for the header gives no usable thickness")
    if volume.encoded[2] <= 1:
        assumed.append("no gap between slices, for the header does not give it")
    assumed.append("the middle of the volume lies at the scanner's centre")
    numbers = {name: value for name, end in _NUMBERS.items() if (value := number(end)) is not None}
    if "ImagingFrequency" in numbers:
        numbers["ImagingFrequency"] /= 1e6
    return Geometry(
        pixel,
        thickness or 1.0,
        plane_of(volume.acquisition),
        volume.encoded[2] > 1,
        numbers | {name: text(end) for name, end in _TEXTS.items()},
        tuple(assumed),
    )


def affine(geometry: Geometry, shape: tuple[int, ...]) -> np.ndarray:
    """Return the matrix (4, 4) from (column, upright row, slice) to mm along DICOM's patient axes.

    The middle of the volume is taken for the scanner's centre: no file says where it was.
    """
    plane, (rows, columns) = geometry.plane, geometry.pixel
    matrix = np.eye(4)
    directions = np.transpose([plane.right, plane.down, plane.next])
    matrix[:3, :3] = directions * (columns, rows, geometry.thickness)
    matrix[:3, 3] = -matrix[:3, :3] @ (np.subtract(shape[::-1], 1) / 2)
    return matrix
