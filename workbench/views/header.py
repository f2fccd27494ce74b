"""What a volume's ISMRMRD header says: all of it as a table, and the geometry that exports need."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from workbench.data.describe import UnusableVolumeError, parse_xml
from workbench.data.fetched import FetchedFile
from workbench.data.volume import Volume
from workbench.stores import Source

if TYPE_CHECKING:
    from pandas import DataFrame

# Fields of view in mm that can be: an oversampled body at most. 0.44 is one in metres.
_NARROWEST, _WIDEST = 1.0, 5000.0
_THINNEST = 0.01

# The names are those of the schema, https://github.com/ismrmrd/ismrmrd (schema/ismrmrd.xsd).
_MEANINGS = {
    "encodedSpace/matrixSize/x": "readout samples, oversampling included",
    "encodedSpace/matrixSize/y": "phase-encode lines of the full matrix",
    "encodedSpace/matrixSize/z": "partitions; 1 in 2D scans",
    "encodedSpace/fieldOfView_mm/x": "mm; wider than the image by the readout's oversampling",
    "encodedSpace/fieldOfView_mm/y": "mm; wider than the image by the phase encode's oversampling",
    "encodedSpace/fieldOfView_mm/z": "mm",
    "reconSpace/matrixSize/x": "rows of the image",
    "reconSpace/matrixSize/y": "columns of the image",
    "reconSpace/matrixSize/z": "partitions; 1 in 2D scans",
    "reconSpace/fieldOfView_mm/x": "mm, height of the image",
    "reconSpace/fieldOfView_mm/y": "mm, width of the image",
    "reconSpace/fieldOfView_mm/z": "mm, thickness of a slice",
    "kspace_encoding_step_1/minimum": "number of the first acquired phase-encode line",
    "kspace_encoding_step_1/maximum": "number of the last one",
    "kspace_encoding_step_1/center": "number of the one through the centre of k-space",
    "slice/maximum": "number of the last slice, from 0",
    "trajectory": "path through k-space",
    "systemFieldStrength_T": "T, of the magnet",
    "receiverChannels": "coils",
    "H1resonanceFrequency_Hz": "Hz, at which protons answer",
    "patientPosition": "HFS: head first, on the back; FFS: feet first",
    "protocolName": "what the scanner's console calls the sequence",
    "TR": "ms, repetition time",
    "TE": "ms, echo time",
    "TI": "ms, inversion time",
    "flipAngle_deg": "degrees",
    "echo_spacing": "ms between the echoes of one train",
}


def header_fields(file: Path | Source) -> list[tuple[str, str]]:
    """Read every field of a volume's ISMRMRD header, in its order.

    Args:
        file: the volume, here or far away.

    Returns:
        (path such as ``encoding/reconSpace/matrixSize/x``, value) pairs; names that come again
        are numbered.

    Raises:
        ValueError: it is no XML.
        KeyError: the file has none.
    """

    def read(opened: Any) -> Any:
        with h5py.File(opened, "r") as volume:
            return volume["ismrmrd_header"][()]

    text = read(file) if isinstance(file, Path) else FetchedFile(file).parse(read)
    if isinstance(text, np.ndarray):
        text = text.item()
    try:
        root = parse_xml(text)
    except UnusableVolumeError as error:
        raise ValueError(f"{file}: {error}") from None
    return list(_leaves(root, ""))


def _leaves(element: ElementTree.Element, path: str) -> Iterator[tuple[str, str]]:
    names = [child.tag.rpartition("}")[2] for child in element]
    for number, (name, child) in enumerate(zip(names, element, strict=True)):
        again = names.count(name) > 1
        where = f"{path}{name}" + (f"[{names[:number].count(name)}]" if again else "")
        if len(child):
            yield from _leaves(child, f"{where}/")
        else:
            yield where, (child.text or "").strip()


def header_table(file: Path) -> "DataFrame":
    """Return the ISMRMRD header of a volume as a table: field, value, and what it means."""
    from pandas import DataFrame

    rows = [(path, value, _meaning(path)) for path, value in header_fields(file)]
    return DataFrame(rows, columns=["field", "value", "meaning"]).set_index("field")


def attribute_table(file: Path) -> "DataFrame":
    """Return the HDF5 attributes and arrays of a volume as a table: name, value or shape, type."""
    from pandas import DataFrame

    with h5py.File(file) as volume:
        rows = [
            (name, _shortened(value), type(value).__name__)
            for name, value in sorted(volume.attrs.items())
        ]
        rows += [
            (name, " × ".join(map(str, found.shape)) or "one value", str(found.dtype))
            for name, found in sorted(volume.items())
            if isinstance(found, h5py.Dataset)
        ]
    return DataFrame(rows, columns=["name", "value or shape", "type"]).set_index("name")


def _shortened(value: object, most: int = 64) -> str:
    text = f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _plain(path: str) -> str:
    """Leave out the numbers of elements that occur several times."""
    return re.sub(r"\[\d+\]", "", path)


def _meaning(path: str) -> str:
    plain = _plain(path)
    return next((text for end, text in _MEANINGS.items() if f"/{plain}".endswith(f"/{end}")), "")


@dataclass(frozen=True)
class ScanGeometry:
    """Sizes and timing of a scan, as its header says; None, and a note, where it does not.

    Attributes:
        pixel: distance between rows and between columns of the image, mm.
        thickness: of a slice, mm; also the distance between slices, which the header of a 2-D scan
            does not give.
        partitions: encoded along the slice direction; 1 in 2-D scans.
        body_part: that was examined, such as "KNEE"; "" where the header does not say.
        position: of the patient in the scanner, such as "HFS".
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms; some scanners write one for sequences without an inversion.
        flip_angle: degrees.
        field_strength: T.
        frequency: of protons, Hz.
        protocol: the sequence's name at the scanner.
        assumed: what was assumed because the header does not say it, for people.
    """

    pixel: tuple[float, float]
    thickness: float
    partitions: int
    body_part: str
    position: str | None
    repetition_time: float | None
    echo_time: float | None
    inversion_time: float | None
    flip_angle: float | None
    field_strength: float | None
    frequency: float | None
    protocol: str
    assumed: tuple[str, ...]


def scan_geometry(volume: Volume, file: Path | Source) -> ScanGeometry:
    """Read the geometry and timing of a volume off its header.

    Args:
        volume: what the dataset cache knows of it.
        file: its file, here or far away.
    """
    fields = [(f"/{_plain(path)}", value) for path, value in header_fields(file)]

    def text(end: str) -> str:
        return next((value for path, value in fields if path.endswith(f"/{end}")), "")

    def number(end: str, least: float = 0.0, most: float = math.inf) -> float | None:
        try:
            value = float(text(end))
        except ValueError:
            return None
        return value if math.isfinite(value) and least <= value <= most else None

    def extent(space: str, axis: str, least: float) -> float | None:
        return number(f"{space}/fieldOfView_mm/{axis}", least, _WIDEST)

    pixel, assumed = pixel_size(
        volume,
        encoded=(extent("encodedSpace", "x", _NARROWEST), extent("encodedSpace", "y", _NARROWEST)),
        readout=extent("reconSpace", "x", _NARROWEST),
    )
    thickness = None
    for space, count in (("reconSpace", volume.recon[2]), ("encodedSpace", volume.encoded[2])):
        if thickness is None and (slab := extent(space, "z", _THINNEST)) and count > 0:
            thickness = slab / count
    if thickness is None:
        assumed.append("slices of 1 mm, for the header gives no usable thickness")
    if volume.encoded[2] <= 1:
        assumed.append("no gap between slices, for the header does not give it")
    return ScanGeometry(
        pixel=pixel,
        thickness=thickness or 1.0,
        partitions=max(volume.encoded[2], 1),
        body_part=text("studyInformation/bodyPartExamined"),
        position=text("patientPosition") or None,
        repetition_time=number("sequenceParameters/TR"),
        echo_time=number("sequenceParameters/TE"),
        inversion_time=number("sequenceParameters/TI"),
        flip_angle=number("sequenceParameters/flipAngle_deg"),
        field_strength=number("systemFieldStrength_T"),
        frequency=number("H1resonanceFrequency_Hz"),
        protocol=text("protocolName"),
        assumed=(*assumed, "the middle of the volume lies at the scanner's centre"),
    )


def pixel_size(
    volume: Volume, *, encoded: tuple[float | None, float | None], readout: float | None
) -> tuple[tuple[float, float], list[str]]:
    """Return the distance between rows and between columns of a volume's images.

    The samples of k-space lie 1 / FOV apart, where FOV is the encoded field of view. So the image
    of all H x W samples is as large as that field, and cropping it does not change its pixels: FOV
    / H by FOV / W, whatever the matrix of the scanner's own reconstruction, and whether k-space was
    filled with zeros or cut. One exception: a readout whose oversampling was taken off in image
    space covers the field of view of as many samples as are left.

    Args:
        volume: the volume, for the sizes of its k-space and matrices.
        encoded: field of view of the encoded space (x, y), mm; None where the header gives none.
        readout: field of view of the reconstructed space along x, mm, or None.

    Returns:
        (between rows, between columns) in mm, and what was assumed, for people.
    """
    assumed = []
    if not (encoded[0] and encoded[1]):
        return (1.0, 1.0), ["pixels of 1 mm, for the header gives no usable encoded field of view"]
    rows, columns = encoded[0], encoded[1]
    height, width = volume.matrix
    full_x, full_y = volume.encoded[:2]
    kept = rows * height / full_x if full_x > height == volume.recon[0] else None
    if kept and readout and math.isclose(kept, readout, rel_tol=0.01):
        rows = kept
        assumed.append(
            f"the readout of {height} samples, encoded as {full_x}, lost its oversampling in image "
            "space"
        )
    elif height != full_x:
        assumed.append(f"the {height} rows cover the field of view of the encoded {full_x}")
    if width != full_y:
        assumed.append(f"the {width} columns cover the field of view of the encoded {full_y}")
    return (rows / height, columns / width), assumed
