"""Taking results away: figures, animations, DICOM, NIfTI, a report."""
