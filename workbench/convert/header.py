"""The ISMRMRD header of a converted volume: a list of what is allowed, and nothing else.

Names, dates, numbers of devices and patients, free text and the source's own header never get
in. The schema is https://github.com/ismrmrd/ismrmrd (schema/ismrmrd.xsd).
"""

import math
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from workbench.data.header import parse_header, parse_xml

NAMESPACE = "http://www.ismrm.org/ISMRMRD"
# Paths below the root whose text is kept, in the schema's order, and what each may hold.
_WORD, _NUMBER = r"[A-Za-z][A-Za-z0-9 ._-]{0,40}", r"[-+0-9.eE]{1,30}"
ALLOWED = {
    "measurementInformation/patientPosition": r"[HF]F[SPDLR]{1,2}",
    "acquisitionSystemInformation/systemVendor": _WORD,
    "acquisitionSystemInformation/systemModel": _WORD,
    "acquisitionSystemInformation/systemFieldStrength_T": _NUMBER,
    "acquisitionSystemInformation/relativeReceiverNoiseBandwidth": _NUMBER,
    "acquisitionSystemInformation/receiverChannels": r"[0-9]{1,5}",
    "experimentalConditions/H1resonanceFrequency_Hz": r"[0-9]{1,12}",
    **{f"sequenceParameters/{name}": _NUMBER for name in ("TR", "TE", "TI", "flipAngle_deg")},
    "sequenceParameters/sequence_type": r"[A-Za-z]{1,30}",
    "sequenceParameters/echo_spacing": _NUMBER,
}
"""Fields of a source's header that a volume keeps, and a regular expression of their text."""


@dataclass(frozen=True)
class Header:
    """What a volume's header says.

    Attributes:
        encoded: matrix (x readout, y phase encode, z), oversampling and padding included.
        recon: matrix of the image (x, y, z).
        lines: phase-encode lines from the first to the last that was measured.
        center: number of the line through the centre of k-space, counted from the first one.
        encoded_mm: field of view of the encoded matrix, (x, y, z) mm; zeros where unknown.
        recon_mm: field of view of the image, mm.
        known: more fields, by the paths of ``ALLOWED``; several values of one, in order.
    """

    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    lines: int
    center: int
    encoded_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    recon_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    known: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def acquired(self) -> tuple[int, int]:
        """First acquired column of the encoded matrix, and the one after the last."""
        first = self.encoded[1] // 2 - self.center
        return first, first + self.lines

    @property
    def synthetic(self) -> bool:
        """Whether a phantom was computed, and nobody scanned; the demo's files say so."""
        return self.known.get("acquisitionSystemInformation/systemVendor") == ("phantom",)

    def to_xml(self, slices: int, coils: int) -> bytes:
        """Write the header of a volume of so many slices and coils."""
        root = ElementTree.Element("ismrmrdHeader", xmlns=NAMESPACE)
        known = {**self.known, "acquisitionSystemInformation/receiverChannels": (str(coils),)}
        known.setdefault("experimentalConditions/H1resonanceFrequency_Hz", ("0",))
        for path in ALLOWED:
            section, name = path.split("/")
            if section == "sequenceParameters" and root.find("encoding") is None:
                self._add_encoding(root, slices)
            for text in known.get(path, ()):
                parent = root.find(section)
                if parent is None:
                    parent = ElementTree.SubElement(root, section)
                ElementTree.SubElement(parent, name).text = text
        return ElementTree.tostring(root, encoding="ascii")

    def _add_encoding(self, root: ElementTree.Element, slices: int) -> None:
        encoding = ElementTree.SubElement(root, "encoding")
        for space, matrix, field_of_view in (
            ("encodedSpace", self.encoded, self.encoded_mm),
            ("reconSpace", self.recon, self.recon_mm),
        ):
            element = ElementTree.SubElement(encoding, space)
            for name, values in (("matrixSize", matrix), ("fieldOfView_mm", field_of_view)):
                inner = ElementTree.SubElement(element, name)
                for axis, value in zip("xyz", values, strict=True):
                    ElementTree.SubElement(inner, axis).text = f"{value:g}"
        limits = ElementTree.SubElement(encoding, "encodingLimits")
        for name, count, center in (
            ("kspace_encoding_step_1", self.lines, self.center),
            ("kspace_encoding_step_2", 1, 0),
            ("slice", slices, 0),
        ):
            limit = ElementTree.SubElement(limits, name)
            for key, value in (("minimum", 0), ("maximum", count - 1), ("center", center)):
                ElementTree.SubElement(limit, key).text = str(value)
        ElementTree.SubElement(encoding, "trajectory").text = "cartesian"


def read_header(xml: bytes | str) -> Header:
    """Read the header of a file whose k-space is laid out as fastMRI's.

    Raises:
        UnusableVolumeError: a field that padding needs is missing or no number.
    """
    found, root = parse_header(xml), parse_xml(xml)
    return Header(
        encoded=found.encoded,
        recon=found.recon,
        lines=found.padding_right - found.padding_left,
        center=found.encoded[1] // 2 - found.padding_left,
        encoded_mm=field_of_view(root, "encodedSpace"),
        recon_mm=field_of_view(root, "reconSpace"),
        known=known_fields(root),
    )


def field_of_view(root: ElementTree.Element, space: str) -> tuple[float, float, float]:
    """Return the field of view (x, y, z) mm of "encodedSpace" or "reconSpace"; 0 where unknown."""
    path = f".//{{*}}{space}/{{*}}fieldOfView_mm/{{*}}"
    x, y, z = (number_of(root.findtext(path + axis) or "", least=0.0) or 0.0 for axis in "xyz")
    return x, y, z


def number_of(text: str, least: float = -math.inf) -> float | None:
    """Read a number; None where the text is none, or one that is too small or not finite."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= least else None


def known_fields(root: ElementTree.Element) -> dict[str, tuple[str, ...]]:
    """Return those fields of a source's header that a volume keeps: path -> texts."""
    found = {}
    for path in ALLOWED:
        section, name = path.split("/")
        fields = root.findall(f"{{*}}{section}/{{*}}{name}")
        found[path] = [each.text or "" for each in fields]
    return allowed(found)


def allowed(found: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
    """Return what a volume's header may hold of some fields: path -> texts.

    A text that is not of its field's form, such as a name where a number belongs, is left out.
    """
    kept = {
        path: tuple(text for text in texts if re.fullmatch(ALLOWED[path], text))
        for path, texts in found.items()
    }
    return {path: texts for path, texts in kept.items() if texts}
