"""A reconstructed volume as NIfTI: float32, exactly the reconstruction's values, axes in mm."""

from pathlib import Path

import numpy as np

from workbench.views.export.exported import ReconstructedVolume
from workbench.views.export.geometry import affine, upright

_ALIGNED = 2  # NIFTI_XFORM_ALIGNED_ANAT: not the scanner's own axes, which no file holds
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's axes point left and back


def write_nifti(source: ReconstructedVolume, file: Path) -> None:
    """Write a volume as one NIfTI-1 file (.nii or .nii.gz), array (column, upright row, slice)."""
    import nibabel

    axes = _TO_RAS @ affine(source.geometry, source.images.shape)
    image = nibabel.Nifti1Image(upright(source.images).transpose(2, 1, 0), axes)
    image.header.set_xyzt_units("mm")
    image.set_sform(image.affine, _ALIGNED)
    image.set_qform(image.affine, _ALIGNED)
    image.header["descrip"] = b"research reconstruction, not for clinical use; orientation assumed"
    nibabel.save(image, file)
