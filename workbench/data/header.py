"""The ISMRMRD header of a volume (XML, schema at https://ismrmrd.readthedocs.io)."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from typing import NamedTuple

from workbench.data.volume import MOST_AXIS, UnusableVolumeError

_MOST_XML = 4 * 2**20  # characters; fastMRI's headers have some thousands
_MOST_LEVELS = 100


class Header(NamedTuple):
    """The fields that reconstruction needs, as ``Volume`` has them."""

    encoded: tuple[int, int, int]
    recon: tuple[int, int, int]
    padding_left: int
    padding_right: int


def parse_header(xml: bytes | str) -> Header:
    """Read a header, whatever its namespace.

    The acquired phase-encode columns lie around the encoded centre: they begin at
    ``encoded y // 2 - center`` and are ``maximum + 1`` many, as fastMRI counts them.

    Raises:
        UnusableVolumeError: it is no XML, or a field is missing or not a possible number.
    """
    root = parse_xml(xml)
    encoded = _numbers(root, "encoding/encodedSpace/matrixSize", "xyz", least=1)
    recon = _numbers(root, "encoding/reconSpace/matrixSize", "xyz", least=1)
    center, maximum = _numbers(
        root, "encoding/encodingLimits/kspace_encoding_step_1", ("center", "maximum"), least=0
    )
    left = encoded[1] // 2 - center
    return Header(encoded, recon, left, left + maximum + 1)  # type: ignore[arg-type]


def parse_xml(xml: bytes | str) -> ElementTree.Element:
    """Parse the XML of a header.

    Raises:
        UnusableVolumeError: it is no XML, or too long or too deep for a header.
    """
    if len(xml) > _MOST_XML:
        raise UnusableVolumeError(
            f"its ismrmrd_header is {len(xml):,} characters long, more than {_MOST_XML:,}"
        )
    try:
        root = ElementTree.fromstring(xml)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # unknown encodings, too
        raise UnusableVolumeError(f"its ismrmrd_header is no XML: {error}") from None
    level, depth = [root], 1
    while level := [child for element in level for child in element]:
        depth += 1
        if depth > _MOST_LEVELS:
            raise UnusableVolumeError(f"its ismrmrd_header has more than {_MOST_LEVELS} levels")
    return root


def _numbers(
    root: ElementTree.Element, place: str, names: Iterable[str], *, least: int
) -> tuple[int, ...]:
    found, numbers = root.find(".//{*}" + place.replace("/", "//{*}")), []
    for name in names:
        text = None if found is None else found.findtext(f".//{{*}}{name}")
        try:
            number = int(text or "")
        except ValueError:
            raise UnusableVolumeError(
                f"its ismrmrd_header has {repr(text)[:80]} for {place}/{name}, not a number"
            ) from None
        if not least <= number <= MOST_AXIS:
            raise UnusableVolumeError(
                f"its ismrmrd_header has {number} for {place}/{name}, not {least} to {MOST_AXIS}"
            )
        numbers.append(number)
    return tuple(numbers)
