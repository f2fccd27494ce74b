"""What a volume's file says of itself, as tables: ISMRMRD header, attributes, arrays."""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from pandas import DataFrame

from workbench.data.fetched import FetchedFile
from workbench.data.header import parse_xml
from workbench.data.volume import UnusableVolumeError, Volume
from workbench.stores import Source

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
    "echoTrainLength": "lines that one repetition measures",
    "sequence_type": "TurboSpinEcho: several lines in each repetition",
}
_ATTRIBUTES = {
    "max": "largest target value, arbitrary units; the data range of SSIM and PSNR",
    "norm": "Euclidean norm of the target",
    "patient_id": "a hash",
    "pirads": "PI-RADS grade of each slice, from 1 (very low risk) to 5",
    "acceleration": "of its own mask",
    "num_low_frequency": "ACS lines of its own mask",
}
_ECHO_TRAIN = {"echotrainlength", "etl", "turbofactor", "lturbofactor", "sfastimaginglturbofactor"}


def header_fields(file: Path | Source) -> list[tuple[str, str]]:
    """Read every field of a volume's ISMRMRD header, in its order, from here or far away.

    Returns:
        (path such as ``encoding/reconSpace/matrixSize/x``, value) pairs; repeated names are
        numbered.

    Raises:
        ValueError: the header is not XML.
        KeyError: the file has no header.
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


def schema_name(path: str) -> str:
    """Return a field's path without the numbers of repeated elements."""
    return re.sub(r"\[\d+\]", "", path)


def header_table(file: Path) -> DataFrame:
    """Return the ISMRMRD header of a volume as a table: field, value, and what it means."""
    rows = []
    for path, value in header_fields(file):
        name = f"/{schema_name(path)}"
        meaning = next((text for end, text in _MEANINGS.items() if name.endswith(f"/{end}")), "")
        rows.append((path, *_readable(value, meaning)))
    return DataFrame(rows, columns=["field", "value", "meaning"]).set_index("field")


def attribute_table(file: Path) -> DataFrame:
    """Return the HDF5 attributes and arrays of a volume as a table: name, value or shape, type."""
    with h5py.File(file) as volume:
        rows = [
            (name, _readable(value)[0], type(value).__name__)
            for name, value in sorted(volume.attrs.items())
        ]
        rows += [
            (name, " × ".join(map(str, found.shape)) or "one value", str(found.dtype))
            for name, found in sorted(volume.items())
            if isinstance(found, h5py.Dataset)
        ]
    return DataFrame(rows, columns=["name", "value or shape", "type"]).set_index("name")


def echo_train(fields: Iterable[tuple[str, str]]) -> int | None:
    """Return how many lines a repetition measures, where a header (``header_fields``) says so.

    The schema has a place for it in ``encoding``; converters also write it as a user's parameter.
    fastMRI's own headers have neither.
    """
    user = ""
    for path, value in fields:
        name = schema_name(path).rpartition("/")[2]
        if name == "name" and "/userParameter" in f"/{path}":
            user = re.sub("[^a-z]", "", value.lower())
            continue
        known = name == "echoTrainLength" or (name == "value" and user in _ECHO_TRAIN)
        user = ""
        with suppress(ValueError):
            if known and float(value) >= 1 and float(value).is_integer():
                return int(float(value))
    return None


def repetitions_in_words(file: Path, volume: Volume) -> str:
    """Say how many of a slice's phase-encode lines each repetition of the experiment measures.

    From the volume's header, which is read; what it does not say is said to be unknown.
    """
    fields = header_fields(file)
    said = {schema_name(path).rpartition("/")[2]: value for path, value in fields}
    train, sequence = echo_train(fields), said.get("sequence_type", "")
    turbo = bool(re.search("turbo|fast|tse|fse|rare", sequence, re.IGNORECASE))
    kind = f"Sequence: {sequence}." if sequence else "The header does not name the sequence."
    if train is None:
        several = " A turbo spin echo measures several lines in each repetition." if turbo else ""
        return f"{kind}{several} How many: not known, the header has no echo train length."
    count = "one line" if train == 1 else f"{train} lines (its echo train length)"
    left, right = volume.acquired
    lines = right - left
    least = -(-lines // train)
    return (
        f"{kind} Each repetition measures {count}: the {lines} lines of a slice take {least} "
        "repetitions or more."
    )


def volume_table(volume: Volume) -> DataFrame:
    """Return what the header and the attributes of a volume say, and what it means."""
    height, width = volume.matrix
    left, right = volume.padding_left, volume.padding_right - 1
    own, shape = volume.own_mask, volume.target and volume.target.shape
    target = f"{volume.target_name}, {shape[1]} × {shape[2]}" if shape else "none"
    mask = "none" if own is None else f"{own.sum()} of {width} lines"
    recon = " × ".join(map(str, volume.recon))
    rows = [
        ("acquisition", *_readable(volume.acquisition or "not said", "sequence and orientation")),
        ("split", volume.split, "what fastMRI keeps it for"),
        ("slices", volume.slices, ""),
        ("coils", volume.coils, "receivers that listened at the same time"),
        ("k-space", f"{height} × {width}", "readout samples × phase-encode lines"),
        ("acquired lines", f"{left} to {right}", "the lines outside are zero padding"),
        ("reconstruction", recon, "x readout, y phase encode, z; the header's"),
        ("target", target, "the image to be reached"),
        ("own mask", mask, "test volumes are stored undersampled"),
    ]
    rows += [
        (name, *_readable(value, _ATTRIBUTES.get(name, "")))
        for name, value in sorted(volume.attributes.items())
        if name != "acquisition"
    ]
    table = DataFrame(rows, columns=["field", "value", "meaning"])
    return table.set_index("field").astype(str)


def is_finite(value: object) -> bool:
    """Say whether a value is anything but NaN or infinity, as a number or as text."""
    try:
        return math.isfinite(value if isinstance(value, float | np.floating) else float(str(value)))
    except ValueError:
        return True


def _readable(value: object, meaning: str = "") -> tuple[str, str]:
    """Return a value's text, "–" where it is not finite, and its meaning."""
    if not is_finite(value):
        return "–", f"{meaning} (not finite: {value})".strip()
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value), meaning
