"""A reconstructed volume as a DICOM series, and back.

The objects are of the class MR Image Storage, which every viewer opens, derived and secondary, with
UIDs of their own (PS3.5 B.2: 2.25 and a UUID) that are functions of volume, weights and sampling:
exporting again gives the same objects. They are marked as research reconstructions.

Nobody here knows whose data it is. The patient's name is empty, the patient's ID a pseudonym that
is made of the volume (its path in the dataset included, its ``patient_id`` not), and nothing claims
that a person's identity was removed: names of sequences, of runs and the images themselves are
passed on as they are.

fastMRI's values are of the order of 1e-4, and viewers expect windows of 1 or more (PS3.3
C.11.2.1.2). So the rescale slope gives the images' values times a power of ten, named in
RescaleType; the Real World Value Mapping gives the values themselves.
"""

import math
import re
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from workbench.views.export.exported import NOTICE, ReconstructedVolume
from workbench.views.orientation import upright
from workbench.views.style import window_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset, FileMetaDataset

_OURS = uuid.uuid5(uuid.NAMESPACE_URL, "fastmri-workbench")
_EDITION = 2  # raised when the same volume comes to be written otherwise: other objects, other UIDs
_LARGEST = 65535
# PS3.3 C.7.3.1.1.2, patients on their back, belly or side.
_POSITIONS = tuple(f"{first}{how}" for first in ("HF", "FF") for how in ("S", "P", "DR", "DL"))
# Scanners write an inversion time for sequences that have none, so that the name has to say it.
_INVERSION = re.compile(r"FLAIR|STIR|TIRM|MP2?RAGE|(?<![A-Z])IR(?![A-Z])", re.IGNORECASE)
# PS3.16, defined terms of BodyPartExamined, by how fastMRI names sequences and files.
_FASTMRI_PARTS = (
    (re.compile(r"CORPD(FS)?_FBK$"), "KNEE"),
    (re.compile(r"file_brain_"), "BRAIN"),
    (re.compile(r"file_prostate_"), "PROSTATE"),
)
# Bytes of the texts that are limited (PS3.5 6.2, LO and ST), the others being short.
_LONGEST = {"SeriesDescription": 64, "ProtocolName": 64, "DerivationDescription": 1024}
# Parts that PS3.16 annex L calls unpaired: a series of these has no place for a side, one of any
# other part has to have one.
_UNPAIRED = """
ABDOMEN ABDOMENPELVIS AORTA BLADDER BRAIN CEREBELLUM CERVIX CHEST CHESTABDOMEN CHESTABDPELVIS
CIRCLEOFWILLIS COCCYX COLON CORONARYARTERY CSPINE CTSPINE DUODENUM ESOPHAGUS GALLBLADDER HEAD
HEADNECK HEART ILEUM ILIUM JAW JEJUNUM LARYNX LIVER LSPINE LSSPINE MAXILLA MEDIASTINUM MOUTH
NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE PANCREAS PELVIS PENIS PHARYNX PROSTATE
RECTUM SCALP SKULL SPINE SPLEEN SSPINE STERNUM STOMACH THYMUS THYROID TLSPINE TONGUE TRACHEA
TSPINE URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY
"""


def uid(*parts: object) -> str:
    """Make a UID from what it names: the same parts always give the same."""
    return f"2.25.{uuid.uuid5(_OURS, repr(parts)).int}"


def write_dicom_series(source: ReconstructedVolume, folder: Path) -> None:
    """Write a volume as a new folder of DICOM files, one a slice, ``0001.dcm`` first.

    Values that are no finite numbers, which DICOM cannot hold, become 0, and the comments say how
    many.
    """
    from pydicom import config, dcmwrite

    folder.mkdir(parents=True)
    shown = upright(source.images).astype(np.float64)
    finite = np.where(np.isfinite(shown), shown, 0)
    lowest = min(float(finite.min()), 0.0)
    slope = (float(finite.max()) - lowest) / _LARGEST or 1.0
    common = _common(source, slope, lowest, window_of(finite)[1], int((~np.isfinite(shown)).sum()))
    before = config.settings.writing_validation_mode
    config.settings.writing_validation_mode = config.RAISE
    try:
        for number, image in enumerate(finite):
            dataset = _slice(source, common, number, image, slope, lowest)
            dcmwrite(folder / f"{number + 1:04d}.dcm", dataset, enforce_file_format=True)
    finally:
        config.settings.writing_validation_mode = before


def read_dicom_series(folder: Path) -> np.ndarray:
    """Read a series that was exported back, as stored: (slices, h, w) float64, upside down."""
    from pydicom import dcmread

    datasets = sorted(
        (dcmread(file) for file in folder.glob("*.dcm")), key=lambda each: each.InstanceNumber
    )
    images = [
        each.pixel_array * mapping.RealWorldValueSlope + mapping.RealWorldValueIntercept
        for each in datasets
        for mapping in each.RealWorldValueMappingSequence
    ]
    return upright(np.stack(images))


def first_pixel(source: ReconstructedVolume, number: int) -> np.ndarray:
    """Return where the centre of a slice's upper left pixel lies, mm in DICOM's patient axes.

    The middle of the volume is taken for the scanner's centre: no file says where it was.
    """
    slices, height, width = source.images.shape
    rows, columns = source.geometry.pixel
    plane = source.plane
    return (
        np.array(plane.right) * (-columns * (width - 1) / 2)
        + np.array(plane.down) * (-rows * (height - 1) / 2)
        + np.array(plane.next) * (source.geometry.thickness * (number - (slices - 1) / 2))
    )


def _common(
    source: ReconstructedVolume, slope: float, lowest: float, brightest: float, broken: int
) -> dict[str, Any]:
    """Return the attributes that all slices share, by DICOM keyword."""
    from pydicom.uid import MRImageStorage
    from pydicom.valuerep import format_number_as_ds

    volume, geometry = source.volume, source.geometry
    attributes = volume.attributes
    # What tells one volume from another; never whose it is.
    known = (_EDITION, volume.path, volume.size, attributes.get("max"), attributes.get("norm"))
    # Values from a thousand to a million, for viewers' windows.
    span = slope * _LARGEST
    power = 0 if 1e3 <= span < 1e6 else 3 - math.floor(math.log10(span))
    wide = brightest * 10.0**power
    zeroed = f" {broken} values were no finite numbers and are 0." if broken else ""
    inverts = _INVERSION.search(f"{volume.acquisition} {geometry.protocol}") is not None
    part = _body_part(source)
    text = {
        "SpecificCharacterSet": "ISO_IR 192",
        "SOPClassUID": MRImageStorage,
        "ImageType": ["DERIVED", "SECONDARY", "OTHER"],
        "Modality": "MR",
        "StudyInstanceUID": uid("study", *known),
        "SeriesInstanceUID": uid("series", *known, source.run, source.digest),
        "FrameOfReferenceUID": uid("frame", *known),
        "PositionReferenceIndicator": "",
        "PatientName": "",
        "PatientID": f"VOLUME-{uuid.uuid5(_OURS, repr(known)).hex[:16]}",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "",
        "StudyTime": "",
        "StudyID": "",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDescription": "Research reconstruction"
        + (", synthetic phantom" if volume.synthetic else ""),
        "SeriesNumber": 1,
        "SeriesDescription": f"RESEARCH, not clinical: {source.run}",
        "ProtocolName": geometry.protocol or volume.acquisition,
        "Manufacturer": "fastmri-workbench",
        "ManufacturerModelName": source.result.label,
        "SoftwareVersions": version("fastmri-workbench"),
        "ContentQualification": "RESEARCH",
        "BurnedInAnnotation": "NO",
        "LossyImageCompression": "00",
        "ImageComments": f"{NOTICE} {source.assumptions}{zeroed}",
        "DerivationDescription": (
            f"{NOTICE} {source.result.label} {source.run}, k-space sampled {source.sampling}"
        ),
        "ScanningSequence": ["RM", "IR"] if inverts else "RM",
        "SequenceVariant": "NONE",
        "ScanOptions": "",
        "MRAcquisitionType": "3D" if geometry.partitions > 1 else "2D",
        "ImageOrientationPatient": [*source.plane.right, *source.plane.down],
        "PatientPosition": geometry.position if geometry.position in _POSITIONS else "",
        "PixelSpacing": [_decimal(size) for size in geometry.pixel],
        "SliceThickness": _decimal(geometry.thickness),
        "RescaleIntercept": format_number_as_ds(lowest * 10.0**power + 0.0),
        "RescaleSlope": format_number_as_ds(slope * 10.0**power),
        "RescaleType": f"value * 1E{power}" if power else "US",
        "WindowCenter": _decimal(wide / 2),
        "WindowWidth": _decimal(max(wide, 1.0)),
    }
    if part:
        text["BodyPartExamined"] = part
    if part not in _UNPAIRED.split():
        text["Laterality"] = ""  # no file says which side
    text = {
        name: _plain(value, _LONGEST.get(name, 10240)) if isinstance(value, str) else value
        for name, value in text.items()
    }
    # Where a scan's times are not known they are there, and empty.
    timing = {
        "RepetitionTime": geometry.repetition_time,
        "EchoTime": geometry.echo_time,
        "EchoTrainLength": None,
        **({"InversionTime": geometry.inversion_time} if inverts else {}),
    }
    optional = {
        "FlipAngle": geometry.flip_angle,
        "MagneticFieldStrength": geometry.field_strength,
        "ImagingFrequency": geometry.frequency and geometry.frequency / 1e6,
    }
    timing |= {name: value for name, value in optional.items() if value is not None}
    return text | {n: None if value is None else _decimal(value) for n, value in timing.items()}


def _plain(text: str, longest: int) -> str:
    """Return a text that DICOM takes: of one value, on one line, cut to a number of bytes."""
    line = re.sub(r"[\x00-\x1f\x7f]", " ", text.replace("\\", "/"))
    return line.encode()[:longest].decode(errors="ignore")


def _body_part(source: ReconstructedVolume) -> str:
    """Return the part of the body, as the header or fastMRI's names say it; "" where none does."""
    volume = source.volume
    said = source.geometry.body_part.upper()
    if re.fullmatch(r"[A-Z0-9_ ]{1,16}", said):
        return said.strip()
    return next(
        (
            part
            for pattern, part in _FASTMRI_PARTS
            if pattern.match(volume.acquisition) or pattern.match(volume.name)
        ),
        "",
    )


def _slice(
    source: ReconstructedVolume,
    common: dict[str, Any],
    number: int,
    image: np.ndarray,
    slope: float,
    lowest: float,
) -> "Dataset":
    from pydicom.dataset import Dataset

    stored = np.rint((image - lowest) / slope).clip(0, _LARGEST).astype("<u2")
    place = first_pixel(source, number)
    dataset = Dataset()
    for name, value in common.items():
        setattr(dataset, name, value)
    dataset.SOPInstanceUID = uid("image", common["SeriesInstanceUID"], number)
    dataset.InstanceNumber = number + 1
    dataset.ImagePositionPatient = [_decimal(value) for value in place]
    dataset.SliceLocation = _decimal(float(place @ np.array(source.plane.next)))
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.RealWorldValueMappingSequence = [_real_world(slope, lowest)]
    dataset.PixelData = stored.tobytes()
    dataset.file_meta = _meta(dataset)
    return dataset


def _real_world(slope: float, lowest: float) -> "Dataset":
    """Map stored values to the reconstruction's, exactly (PS3.3 C.7.6.16.2.11)."""
    from pydicom.dataset import Dataset

    unit, mapping = Dataset(), Dataset()
    unit.CodeValue, unit.CodingSchemeDesignator, unit.CodeMeaning = "1", "UCUM", "no units"
    mapping.RealWorldValueFirstValueMapped, mapping.RealWorldValueLastValueMapped = 0, _LARGEST
    mapping.RealWorldValueIntercept, mapping.RealWorldValueSlope = lowest, slope
    mapping.LUTExplanation, mapping.LUTLabel = "values of the reconstruction", "RECONSTRUCTION"
    mapping.MeasurementUnitsCodeSequence = [unit]
    return mapping


def _meta(dataset: "Dataset") -> "FileMetaDataset":
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(uid("implementation"))
    meta.ImplementationVersionName = "FASTMRIWORKBENCH"
    return meta


def _decimal(value: float) -> str:
    """Write a number as a DICOM decimal string, 16 characters at most."""
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(f"{value:.9g}") + 0.0)
