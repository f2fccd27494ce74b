"""Exports read back, as stored (upside down)."""

from dataclasses import replace

import nibabel
import numpy as np
import pydicom

from workbench.views.export.dicom import write_dicom_series
from workbench.views.export.geometry import upright


def datasets(folder):
    """Return the DICOM objects of a series in the order of its slices."""
    return [pydicom.dcmread(file) for file in sorted(folder.glob("*.dcm"))]


def written(source, folder, known=(), **changes):
    """Write a changed volume as DICOM; return its first object."""
    geometry = changes.pop("geometry", source.geometry)
    geometry = replace(geometry, known=dict(geometry.known) | dict(known))
    write_dicom_series(replace(source, geometry=geometry, **changes), folder)
    return datasets(folder)[0]


def read_dicom_series(folder):
    """Return (slices, h, w) float64."""
    images = [
        each.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
        for each in datasets(folder)
        for mapping in each.RealWorldValueMappingSequence
    ]
    return upright(np.stack(images))


def read_nifti(file):
    """Return (slices, h, w) float32."""
    values = np.asarray(nibabel.load(file).dataobj, dtype=np.float32)
    return upright(values.transpose(2, 1, 0))
