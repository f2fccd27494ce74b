"""The XML header of an ISMRMRD file: what a measurement's lines lie in.

Schema: https://github.com/ismrmrd/ismrmrd (schema/ismrmrd.xsd).
"""

import xml.etree.ElementTree as ElementTree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.convert.header import field_of_view, known_fields, number_of
from workbench.convert.lines import NO_IMAGE, Lines, Measurement, flagged, of_image
from workbench.convert.people import named
from workbench.convert.scan import RefusedError
from workbench.data.header import parse_xml
from workbench.data.volume import MOST_AXIS, UnusableVolumeError


def measurement_of(xml: bytes | str, lines: Lines) -> Measurement:
    """Read what a header says of lines.

    Args:
        xml: the header.
        lines: of the same measurement; the table gets the centre that Siemens' lines name.

    Raises:
        RefusedError: the header lacks what is needed, or what it describes is no plain grid.
    """
    try:
        root = parse_xml(xml)
    except UnusableVolumeError:
        raise RefusedError("has a header that is no XML: bring it in again") from None
    encoding = _encoding_of(root, lines.table)
    vendor = _text(root, "acquisitionSystemInformation/systemVendor")
    if "siemens" in vendor.lower():
        _take_centers(lines.table)
    chops = [_user_parameter(root, name) == 0 for name in ("ChopY", "ChopZ")]
    remarks = ["every other line had its sign turned, as ChopY or ChopZ says"] if any(chops) else []
    known = known_fields(root)
    channels = _text(root, "acquisitionSystemInformation/receiverChannels")
    bandwidth = _text(root, "acquisitionSystemInformation/relativeReceiverNoiseBandwidth")
    return Measurement(
        lines=lines,
        **encoding,
        channels=_whole(channels, "receiverChannels") if channels else None,
        noise_bandwidth=number_of(bandwidth, least=0.0) or 1.0,
        alternating=(chops[0], chops[1]),
        known=known,
        acquisition=known.get("sequenceParameters/sequence_type", ("",))[0],
        person=named(_text(root, "subjectInformation/patientID")),
        remarks=tuple(remarks),
    )


def _encoding_of(root: ElementTree.Element, table: NDArray[np.void]) -> dict[str, Any]:
    """Return what a ``Measurement`` has of the image lines' encoding.

    They may name several that say the same.
    """
    encodings = root.findall("{*}encoding")
    if not encodings:
        raise RefusedError("has a header without encoding: its matrix is not known")
    image = of_image(table)
    chosen = image if image.any() else ~flagged(table, *NO_IMAGE)
    spaces = np.unique(table["encoding_space"][chosen])
    if len(spaces) and spaces[-1] >= len(encodings):
        raise RefusedError(
            f"has lines of encoding space {spaces[-1]}, and its header describes {len(encodings)}"
        )
    first, *others = [_described(encodings[space]) for space in spaces] or [
        _described(encodings[0])
    ]
    for other in others:
        if wrong := [name for name, value in other.items() if value != first[name]]:
            raise RefusedError(
                f"has lines of {len(spaces)} encoding spaces that differ in {', '.join(wrong)}: "
                "part them into files, one for each"
            )
    return first


def _described(encoding: ElementTree.Element) -> dict[str, Any]:
    """Return what a ``Measurement`` has of an encoding."""
    factor = _text(encoding, "parallelImaging/multiband/multiband_factor")
    if factor and _whole(factor, "multiband_factor") > 1:
        raise RefusedError(
            f"is a multiband measurement ({factor} slices at once): part its slices first"
        )
    limits = ("kspace_encoding_step_1", "kspace_encoding_step_2")
    return {
        "encoded": _matrix(encoding, "encodedSpace"),
        "recon": _matrix(encoding, "reconSpace"),
        "center": tuple(_limit(encoding, f"{name}/center") for name in limits),
        "last": _limit(encoding, "kspace_encoding_step_1/maximum"),
        "encoded_mm": field_of_view(encoding, "encodedSpace"),
        "recon_mm": field_of_view(encoding, "reconSpace"),
        "trajectory": _text(encoding, "trajectory") or "cartesian",
        "calibration": _text(encoding, "parallelImaging/calibrationMode").lower(),
    }


def _take_centers(table: NDArray[np.void]) -> None:
    """Take the central line and partition that siemens_to_ismrmrd writes beside each line.

    They are user counters 5 and 6, and no counters then; 0 is what other converters leave there.
    """
    for name, counter in (("center_line", 5), ("center_partition", 6)):
        values = table["user"][:, counter].astype(np.int32)
        table[name] = np.where(values > 0, values, -1)
        table["user"][:, counter] = 0


def _text(element: ElementTree.Element, path: str) -> str:
    inner = "/".join(f"{{*}}{name}" for name in path.split("/"))
    return (element.findtext(inner) or "").strip()


def _limit(encoding: ElementTree.Element, path: str) -> int | None:
    text = _text(encoding, f"encodingLimits/{path}")
    return _whole(text, path) if text else None


def _user_parameter(root: ElementTree.Element, name: str) -> float | None:
    for element in root.iterfind("{*}userParameters/*"):
        if _text(element, "name") == name:
            return number_of(_text(element, "value"))
    return None


def _whole(text: str, name: str, least: int = 0) -> int:
    number = number_of(text, least=least)
    if number is None or number > MOST_AXIS or number != int(number):
        raise RefusedError(f"has {text[:40]!r} for {name} in its header, not a whole number")
    return int(number)


def _matrix(encoding: ElementTree.Element, space: str) -> tuple[int, int, int]:
    x, y, z = (
        _whole(_text(encoding, f"{space}/matrixSize/{axis}"), f"{space}'s {axis}", least=1)
        for axis in "xyz"
    )
    return x, y, z
