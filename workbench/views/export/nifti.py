"""A reconstructed volume as NIfTI: float32, exactly the reconstruction's values, axes in mm."""

from pathlib import Path

import numpy as np

from workbench.views.export.dicom import first_pixel
from workbench.views.export.exported import ReconstructedVolume
from workbench.views.orientation import upright

_ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT: not the scanner's own axes, which no file holds
_TO_RAS = np.array([-1.0, -1.0, 1.0])  # DICOM's axes point left and back


def affine(source: ReconstructedVolume) -> np.ndarray:
    """Return the matrix (4, 4) from (column, upright row, slice) to right, anterior, superior, mm.

    Sizes are the header's, directions those that the acquisition's name suggests, and the middle of
    the volume is the origin.
    """
    rows, columns = source.geometry.pixel
    plane = source.plane
    matrix = np.eye(4)
    matrix[:3, 0] = np.array(plane.right) * columns * _TO_RAS
    matrix[:3, 1] = np.array(plane.down) * rows * _TO_RAS
    matrix[:3, 2] = np.array(plane.next) * source.geometry.thickness * _TO_RAS
    matrix[:3, 3] = first_pixel(source, 0) * _TO_RAS
    return matrix


def write_nifti(source: ReconstructedVolume, file: Path) -> None:
    """Write a volume as one NIfTI-1 file (.nii or .nii.gz), array (column, upright row, slice)."""
    import nibabel

    image = nibabel.Nifti1Image(upright(source.images).transpose(2, 1, 0), affine(source))
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, _ALIGNED)
    image.set_qform(image.affine, _ALIGNED)
    image.header["descrip"] = b"research reconstruction, not for clinical use; orientation assumed"
    nibabel.save(image, file)


def read_nifti(file: Path) -> np.ndarray:
    """Read an exported file back, as stored: (slices, h, w) float32, upside down."""
    import nibabel

    values = np.asarray(nibabel.load(file).dataobj, dtype=np.float32)  # type: ignore[attr-defined]
    return upright(values.transpose(2, 1, 0))
