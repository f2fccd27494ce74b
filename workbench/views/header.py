"""What a volume's ISMRMRD header says: all of it as a table, and the geometry that exports need."""

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from workbench.dataset.source import FetchedFile, Source

if TYPE_CHECKING:
    from pandas import DataFrame

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
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise ValueError(f"{file}: its ismrmrd_header is no XML: {error}") from None
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
        thickness: of a slice, mm; also the distance between slices, of which the header says
            nothing.
        position: of the patient in the scanner, such as "HFS".
        repetition_time: TR, ms.
        echo_time: TE, ms.
        inversion_time: TI, ms.
        flip_angle: degrees.
        field_strength: T.
        frequency: of protons, Hz.
        protocol: the sequence's name at the scanner.
        assumed: what was assumed because the header does not say it, for people.
    """

    pixel: tuple[float, float]
    thickness: float
    position: str | None
    repetition_time: float | None
    echo_time: float | None
    inversion_time: float | None
    flip_angle: float | None
    field_strength: float | None
    frequency: float | None
    protocol: str
    assumed: tuple[str, ...]


def scan_geometry(file: Path | Source) -> ScanGeometry:
    """Read the geometry and timing of a volume off its header."""
    fields = dict(header_fields(file))

    def number(*ends: str) -> float | None:
        for path, value in fields.items():
            if any(f"/{_plain(path)}".endswith(f"/{end}") for end in ends):
                try:
                    return float(value)
                except ValueError:
                    return None
        return None

    def size(axis: str) -> float | None:
        extent = number(f"reconSpace/fieldOfView_mm/{axis}")
        count = number(f"reconSpace/matrixSize/{axis}")
        return extent / count if extent and count and extent > 0 and count > 0 else None

    rows, columns, thickness = size("x"), size("y"), size("z")
    assumed = ["slices lie side by side, the scan's centre at the scanner's"]
    if rows is None or columns is None:
        assumed.append("pixels of 1 mm")
    if thickness is None:
        assumed.append("slices of 1 mm")
    position = [value for path, value in fields.items() if path.endswith("patientPosition")]
    protocol = [value for path, value in fields.items() if path.endswith("protocolName")]
    return ScanGeometry(
        pixel=(rows or 1.0, columns or 1.0),
        thickness=thickness or 1.0,
        position=position[0] if position else None,
        repetition_time=number("sequenceParameters/TR"),
        echo_time=number("sequenceParameters/TE"),
        inversion_time=number("sequenceParameters/TI"),
        flip_angle=number("sequenceParameters/flipAngle_deg"),
        field_strength=number("systemFieldStrength_T"),
        frequency=number("H1resonanceFrequency_Hz"),
        protocol=protocol[0] if protocol else "",
        assumed=tuple(assumed),
    )
