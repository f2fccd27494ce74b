"""The forms of raw data that can be read: one line each in ``READERS``."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from workbench.convert import arrays, breast, calgary, m4raw, mrd, prostate, twix
from workbench.convert.scan import Choices, RefusedError, Scan


@dataclass(frozen=True)
class Reader:
    """One form of raw data.

    Attributes:
        label: what people call such a file: "an ISMRMRD file".
        holds: says from a file's first bytes and its structure whether it is one.
        scans: what a file holds; raises ``RefusedError``.
        takes: names of the choices that it follows.
        by_shape: whether it knows its files by the shape of an array that has no header.
    """

    label: str
    holds: Callable[[Path], bool]
    scans: Callable[[Path, Choices], list[Scan]]
    takes: tuple[str, ...] = ()
    by_shape: bool = False


_PLACES = ("matrix", "recon", "center")

READERS: Mapping[str, Reader] = {
    "prostate": Reader("a fastMRI prostate T2 file", prostate.holds, prostate.scans),
    "breast": Reader("a fastMRI breast file", breast.holds, breast.scans, by_shape=True),
    "m4raw": Reader("an M4Raw file", m4raw.holds, m4raw.scans),
    "calgary": Reader("a Calgary-Campinas file", calgary.holds, calgary.scans, by_shape=True),
    "mrd": Reader("an ISMRMRD file", mrd.holds, mrd.scans, (*_PLACES, "whiten")),
    "twix": Reader("Siemens raw data (twix)", twix.holds, twix.scans, (*_PLACES, "whiten")),
    "array": Reader(
        "an array (.npy, .mat, HDF5, BART's .cfl)", arrays.holds, arrays.scans, _PLACES
    ),
}
"""Name, as ``form=`` takes it -> reader; of several that hold a file the first one reads it."""


def scans_of(path: Path, choices: Choices, form: str | None = None) -> list[Scan]:
    """Find the scans of a file.

    Args:
        path: the file.
        choices: what a person says of it.
        form: of ``READERS``; None finds it.

    Raises:
        RefusedError: no reader knows the file, its data cannot become a volume, or a choice that
            changes numbers is none that its reader follows; axes and variable name arrays alone.
        OSError: the file cannot be read.
    """
    if path.stat().st_size == 0:
        raise RefusedError("is empty (0 bytes): bring it in again")
    told = choices.axes or choices.variable  # then nothing is left to know by a shape
    readers = (
        [READERS[form]] if form else [r for r in READERS.values() if not (told and r.by_shape)]
    )
    reader = next((each for each in readers if each.holds(path)), None)
    if reader is None and form:
        raise RefusedError(f"is not {READERS[form].label}")
    if reader is None:
        raise RefusedError(f"holds no raw data of a form that is known here: {', '.join(READERS)}")
    found, nothing = reader.scans(path, choices), Choices()
    for name in (*_PLACES, "whiten"):
        asked = getattr(choices, name) != getattr(nothing, name)
        if found and asked and name not in reader.takes:
            raise RefusedError(f"is {reader.label}, whose {name} cannot be chosen: leave it out")
    return found
