"""A reconstructed volume as a DICOM series.

The objects are of the class MR Image Storage, which every viewer opens, derived and secondary, with
UIDs of their own (PS3.5 B.2: 2.25 and a UUID) that are functions of volume, weights and sampling:
exporting again gives the same objects. They are marked as research reconstructions.

The patient's name is empty, and the patient's ID is a pseudonym made from the volume (with its path
in the dataset, without its ``patient_id``). Nothing claims that a person's identity was removed:
names of sequences and runs and the images themselves are passed on as they are.

fastMRI's values are of the order of 1e-4, and viewers expect windows of 1 or more (PS3.3
C.11.2.1.2). The rescale slope therefore gives the images' values times a power of ten, named in
RescaleType; the Real World Value Mapping gives the values themselves.
"""

import math
import re
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from workbench.views.export.exported import NOTICE, ReconstructedVolume
from workbench.views.export.geometry import affine, upright
from workbench.views.style import window_of

_OURS = uuid.uuid5(uuid.NAMESPACE_URL, "fastmri-workbench")
_EDITION = 3  # raised when the same volume is written differently: other objects, other UIDs
_LARGEST = 65535
# PS3.3 C.7.3.1.1.2, patients on their back, belly or side.
_POSITIONS = tuple(f"{first}{how}" for first in ("HF", "FF") for how in ("S", "P", "DR", "DL"))
# The name decides: scanners write an inversion time for sequences without an inversion, too.
_INVERSION = re.compile(r"FLAIR|STIR|TIRM|MP2?RAGE|(?<![A-Z])IR(?![A-Z])", re.IGNORECASE)
# PS3.16, defined terms of BodyPartExamined, by how fastMRI names sequences and files.
_FASTMRI_PARTS = (
    (re.compile(r"CORPD(FS)?_FBK$"), "KNEE"),
    (re.compile(r"file_brain_"), "BRAIN"),
    (re.compile(r"file_prostate_"), "PROSTATE"),
)
# Limits in bytes (PS3.5 6.2, LO and ST) of texts that may be long.
_LONGEST = {"SeriesDescription": 64, "ProtocolName": 64, "DerivationDescription": 1024}
# Parts that PS3.16 annex L calls unpaired: their series have no laterality, all others must.
_UNPAIRED = """
ABDOMEN ABDOMENPELVIS AORTA BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS
CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS GALLBLADDER HEAD
HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH
NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE
RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA
TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY
"""


def uid(*parts: object) -> str:
    """Make a UID; the same parts always give the same UID."""
    return f"2.25.{uuid.uuid5(_OURS, repr(parts)).int}"


def write_dicom_series(source: ReconstructedVolume, folder: Path) -> None:
    """Write a volume as a new folder of DICOM files, one a slice, ``0001.dcm`` first.

    Values that are not finite, which DICOM cannot hold, become 0, and the comments say how many.
    """
    from pydicom import config, dcmwrite
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    folder.mkdir(parents=True)
    shown = upright(source.images).astype(np.float64)
    finite = np.where(np.isfinite(shown), shown, 0)
    lowest = min(float(finite.min()), 0.0)
    slope = (float(finite.max()) - lowest) / _LARGEST or 1.0
    common = _common(source, slope, lowest, window_of(finite)[1], int((~np.isfinite(shown)).sum()))
    # Maps stored values to the reconstruction's, exactly (PS3.3 C.7.6.16.2.11).
    unit, mapping = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "1", "UCUM", "no units"
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, _LARGEST
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = lowest, slope
    mapping.LUTExplanation, mapping.LUTLabel = "values of the reconstruction", "RECONSTRUCTION"
    mapping.MeasurementUnitsCodeSequence = [unit]
    axes, step = affine(source.geometry, source.images.shape), source.geometry.plane.next
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.RAISE
    try:
        for number, image in enumerate(finite):
            stored = np.rint((image - lowest) / slope).clip(0, _LARGEST).astype("<u2")
            place = (axes @ [0, 0, number, 1])[:3]
            own = {
                "SOPInstanceUID": uid("image", common["SeriesInstanceUID"], number),
                "InstanceNumber": number + 1,
                "ImagePositionPatient": [_decimal(value) for value in place],
                "SliceLocation": _decimal(float(place @ np.array(step))),
                "RealWorldValueMappingSequence": [mapping],
                "PixelData": stored.tobytes(),
            }
            dataset = Dataset()
            for name, value in (common | own).items():
                setattr(dataset, name, value)
            dataset.file_meta = meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID = dataset.SOPClassUID
            meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            meta.TransferSyntaxUID = ExplicitVRLittleEndian
            meta.ImplementationClassUID = UID(uid("implementation"))
            meta.ImplementationVersionName = "FASTMRIWORKBENCH"
            dcmwrite(folder / f"{number + 1:04d}.dcm", dataset, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = before


def _common(
    source: ReconstructedVolume, slope: float, lowest: float, brightest: float, broken: int
) -> dict[str, Any]:
    """Return the attributes that all slices share, by DICOM keyword."""
    from pydicom.uid import MRImageStorage
    from pydicom.valuerep import format_number_as_ds

    volume, geometry, label = source.volume, source.geometry, source.result.label
    known, attributes = geometry.known, volume.attributes
    protocol, position = known["ProtocolName"], known["PatientPosition"]
    # What tells one volume from another, without telling whose it is.
    identity = (
        *(_EDITION, volume.path, volume.size, attributes.get("max"), attributes.get("norm")),
        source.result.fingerprint,
    )
    # Values from a thousand to a million, for viewers' windows.
    span = slope * _LARGEST
    power = 0 if 1e3 <= span < 1e6 else 3 - math.floor(math.log10(span))
    wide = brightest * 10.0**power
    zeroed = f" {broken} values were not finite and are 0." if broken else ""
    inverts = _INVERSION.search(f"{volume.acquisition} {protocol}") is not None
    part = _body_part(source)
    empty = (
        "PositionReferenceIndicator PatientName PatientBirthDate PatientSex StudyDate StudyTime "
        "StudyID AccessionNumber ReferringPhysicianName ScanOptions"
    )
    text = dict.fromkeys(empty.split(), "") | {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": MRImageStorage,
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "Modality": "MR",
        "StudyInstanceUID": uid("study", *identity),
        "SeriesInstanceUID": uid("series", *identity, source.run, source.digest),
        "FrameOfReferenceUID": uid("frame", *identity),
        "PatientID": f"VOLUME-{uuid.uuid5(_OURS, repr(identity)).hex[:16]}",
        "StudyDescription": "Research reconstruction"
        + (", synthetic phantom" if volume.synthetic else ""),
        "SeriesNumber": 1,
        "SeriesDescription": f"RESEARCH, not clinical: {source.run}",
        "ProtocolName": protocol or volume.acquisition,
        "Manufacturer": "fastmri-workbench",
        "ManufacturerModelName": label,
        "SoftwareVersions": version("fastmri-workbench"),
        "ContentQualification": "RESEARCH",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "ImageComments": f"{NOTICE} {source.assumptions}{zeroed}",
        "DerivationDescription": (
            f"{NOTICE} {label} {source.run}, k-space sampled {source.sampling}"
        ),
        "ScanningSequence": ["RM", "IR"] if inverts else "RM",
        "SequenceVariant": "NONE",
        "MRAcquisitionType": "3D" if geometry.volumetric else "2D",
        "ImageOrientationPatient": [*geometry.plane.right, *geometry.plane.down],
        "PatientPosition": position if position in _POSITIONS else "",
        "PixelSpacing": [_decimal(size) for size in geometry.pixel],
        "SliceThickness": _decimal(geometry.thickness),
        "RescaleIntercept": format_number_as_ds(lowest * 10.0**power + 0.0),
        "RescaleSlope": format_number_as_ds(slope * 10.0**power),
        "RescaleType": f"value * 1E{power}" if power else "US",
        "WindowCenter": _decimal(wide / 2),
        "WindowWidth": _decimal(max(wide, 1.0)),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": source.images.shape[1],
        "Columns": source.images.shape[2],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
    }
    if part:
        text["BodyPartExamined"] = part
    if part not in _UNPAIRED.split():
        text["Laterality"] = ""  # no file says which side
    # Times that are required are present and empty where the header does not give them.
    required = ("RepetitionTime", "EchoTime", "EchoTrainLength", *["InversionTime"] * inverts)
    optional = ("FlipAngle", "MagneticFieldStrength", "ImagingFrequency")
    times = {name: known[name] for name in (*required, *optional) if name in known}
    return (
        {n: _plain(v, _LONGEST.get(n, 10240)) if isinstance(v, str) else v for n, v in text.items()}
        | dict.fromkeys(required)
        | {name: _decimal(value) for name, value in times.items()}
    )


def _plain(text: str, longest: int) -> str:
    """Return a text that DICOM takes: of one value, on one line, cut to a number of bytes."""
    line = re.sub(r"[\x00-\x1f\x7f]", " ", text.replace("\\", "/"))
    return line.encode()[:longest].decode(errors="ignore")


def _body_part(source: ReconstructedVolume) -> str:
    """Return the part of the body from the header or fastMRI's names; "" where neither says."""
    volume = source.volume
    said = source.geometry.known["BodyPartExamined"].upper()
    if re.fullmatch(r"[A-Z0-9_ ]{1,16}", said):
        return said.strip()
    names = (volume.acquisition, volume.name)
    fitting = (part for pattern, part in _FASTMRI_PARTS if any(map(pattern.match, names)))
    return next(fitting, "")


def _decimal(value: float) -> str:
    """Write a number as a DICOM decimal string, 16 characters at most."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(f"{value:.9g}") + 0.0)
